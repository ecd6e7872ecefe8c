# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Equal legs share the reads; with the switch off the shares are those of the stock choice.
needs_patches

for level in raid1 raid10; do
	leg a 256 300000
	leg b 256 300000
	array_of_legs "$level" a b
	for depth in 1 32; do
		mapfile -t seen < <(shares a b -- random_reads "$md" "$depth" 4)
		say "$level, queue depth $depth: ${seen[1]} and ${seen[2]} of 10000 reads"
		check "share of leg a" "${seen[1]} >= 2000 && ${seen[1]} <= 8000"
	done
	clean_up

	leg near 256 300000
	leg far 256 3000000
	array_of_legs "$level" far near
	echo 0 >"$md_dir/latency_balance"
	mapfile -t seen < <(shares near far -- random_reads "$md" 1 2)
	check "share of the near leg, in the upper slot, with the switch off" "${seen[1]} < 500"
	echo 1 >"$md_dir/latency_balance"
	mapfile -t seen < <(shares near far -- random_reads "$md" 1 2)
	check "share of the near leg with the switch on again" "${seen[1]} >= 7500"
	say "$level: the switch turns the choice off and on"
	clean_up
done
