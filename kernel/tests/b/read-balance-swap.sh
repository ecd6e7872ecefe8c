# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# How long it takes until 95 % of the reads have followed the legs' delays.
for level in raid1 raid10; do
	near_and_far "$level" far near
	random_reads "$md" 1 12 >/dev/null &
	reader=$!
	sleep 2
	leg_takes near $far_ns
	leg_takes far $near_ns
	began=$(date +%s%N)
	took=never
	for ((n = 0; n < 60; n++)); do
		mapfile -t seen < <(shares far near -- sleep 0.1)
		if ((seen[0] >= 9500)); then
			took=$((($(date +%s%N) - began) / 1000000))
			break
		fi
	done
	if [[ $took == never ]]; then
		if has latency_balance; then fail "the reads did not follow"; fi
		say "$level: the reads did not follow in 6 s"
	else
		row 1 "read-balance-swap-$base-$level-far+near" "ms" "≤ 2000" "$took"
	fi
	wait "$reader"
	clean_up
done
