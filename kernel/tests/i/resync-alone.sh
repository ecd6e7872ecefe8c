# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# How many instructions a check costs with nothing beside it; see read-balance-instructions.sh for what a nanosecond is.
for layout in n2 f2 o2; do
	array_for_checks $layout 64
	costs=()
	for _ in 1 2 3; do costs+=($(($(time_check) * 128 / $(cat /sys/block/md0/size)))); done
	row 3 "resync-alone-instructions-$base-raid10-$layout-4" "instructions for 64 KiB" "≤ 1.05" "$(median "${costs[@]}")"
	clean_up
done
