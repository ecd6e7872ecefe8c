# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The speed of a check on its own: the fastest of nine, which is what the least was beside.
for layout in n2 f2 o2; do
	array_for_checks $layout 256
	speeds=()
	for _ in 1 2 3 4 5 6 7 8 9; do speeds+=($(($(cat /sys/block/md0/size) * 500000 / ($(time_check) / 1000)))); done
	row 9 "resync-alone-$base-raid10-$layout-4" "KiB/s" "≥ 0.95" "$(printf '%s\n' "${speeds[@]}" | sort -n | tail -n 1)"
	clean_up
done
