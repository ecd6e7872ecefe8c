# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What the measurement and the choice cost where they gain nothing: equal legs that answer at once. Six pairs, on and off in turn.
for level in raid1 raid10; do
	leg near 256 0
	leg near2 256 0
	array_of_legs "$level" near near2
	for depth in 1 16; do
		on=() off=()
		for ((n = 0; n < 6; n++)); do
			switch 1
			read -r a _ _ <<<"$(random_reads "$md" $depth 1)"
			switch 0
			read -r b _ _ <<<"$(random_reads "$md" $depth 1)"
			on+=("$a") off+=("$b")
		done
		row 6 "read-balance-cost-$base-$level-qd$depth" "IOPS; reference: switched off" "≥ 0.98" "$(median "${on[@]}")" "$(median "${off[@]}")"
		row 6 "read-balance-cost-kernel-$base-$level-qd$depth" "IOPS" "≥ 0.98" "$(median "${on[@]}")"
	done
	clean_up
done
