# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Reads of a fast and one or two slow legs.
tasks=(--numjobs=32 --thread --group_reporting)
for level in raid1 raid10; do
	for legs in "far near" "near far" "far near far2"; do
		name=$level-${legs// /+}
		leg alone 256 $near_ns
		read -r _ alone _ <<<"$(random_reads /run/dm/alone 1 2)"
		# shellcheck disable=SC2086
		near_and_far "$level" $legs
		# shellcheck disable=SC2086
		mapfile -t seen < <(shares near ${legs/near/} -- random_reads "$md" 1 3)
		read -r _ p50 _ <<<"${seen[0]}"
		row 1 "read-balance-qd1-share-$base-$name" "% of reads from the near leg" "≥ 99" "$(awk "BEGIN { print ${seen[1]} / 100 }")"
		row 1 "read-balance-qd1-p50-$base-$name" "µs; reference: the near leg alone" "≤ 1.1" "$p50" "$alone"

		read -r iops _ _ <<<"$(random_reads "$md" 32 3)"
		row 1 "read-balance-qd32-$base-$name" "IOPS" "≥ 1" "$iops"
		clean_up

		# Legs that take four requests at a time. Of legs without a limit the array cannot have the sum: 32 requests at each leg are more
		# than 32 at the array. From 32 tasks, for one that waits at the queue of one leg has nothing for the other.
		depth=4
		sum=0
		# shellcheck disable=SC2086
		for one in $legs; do
			case $one in near*) leg "alone-$one" 256 $near_ns $depth ;; *) leg "alone-$one" 256 $far_ns $depth ;; esac
			read -r iops _ _ <<<"$(random_reads "/run/dm/alone-$one" 1 2 "${tasks[@]}")"
			sum=$((sum + iops))
		done
		# shellcheck disable=SC2086
		near_and_far "$level" $legs
		read -r iops _ _ <<<"$(random_reads "$md" 1 3 "${tasks[@]}")"
		row 1 "read-balance-qd32-sum-$base-$name" "IOPS; reference: sum of the legs alone" "≥ 0.9" "$iops" "$sum"
		unset depth
		clean_up
	done
done
