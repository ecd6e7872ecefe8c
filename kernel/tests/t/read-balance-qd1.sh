# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# One read at a time goes to the fast leg, in whichever slot it is: nearly always, and how nearly is measured by b/read-balance.sh on a
# machine that does nothing else.
#
# On a kernel without the patch this shows the stock choice: the lowest slot.

orders=("near far" "far near" "far near far2" "far far2 near")
if in_brief; then orders=("far near" "far far2 near"); fi
for level in raid1 raid10; do
	for legs in "${orders[@]}"; do
		for name in $legs; do
			case $name in
			near) leg "$name" 256 300000 ;;
			*) leg "$name" 256 3000000 ;;
			esac
		done
		# shellcheck disable=SC2086
		array_of_legs "$level" $legs
		# shellcheck disable=SC2086
		mapfile -t seen < <(shares near ${legs/near/} -- random_reads "$md" 1 2)
		read -r iops p50 _ <<<"${seen[0]}"
		say "$level, legs '$legs': $iops IOPS, p50 $p50 us, near leg has ${seen[1]} of 10000 reads"
		check "reads" "$iops > 0"
		if has latency_balance; then
			check "share of the near leg" "${seen[1]} >= 7500"
		else
			if [[ $legs == near* ]]; then check "share" "${seen[1]} > 9500"; else check "share" "${seen[1]} < 500"; fi
		fi
		clean_up
	done
done
