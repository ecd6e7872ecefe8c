# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# How many instructions a check costs with nothing beside it; see read-balance-instructions.sh for what a nanosecond is.
for layout in n2 f2 o2; do
	legs=()
	for n in 0 1 2 3; do
		mem_leg "leg$n" 72
		legs+=("/run/dm/leg$n")
	done
	mdadm --create "$md" --run --quiet --level=10 --layout=$layout --chunk=64 --raid-devices=4 --metadata=1.2 --bitmap=internal \
		--data-offset=4096 --size=64M --assume-clean "${legs[@]}"
	echo 2000000 >"$md_dir/sync_speed_min"
	echo 2000000 >"$md_dir/sync_speed_max"
	costs=()
	for n in 1 2 3; do
		began=$(date +%s%N)
		echo check >"$md_dir/sync_action"
		while [[ $(attribute sync_action) != idle ]]; do sleep 0.005; done
		costs+=($((($(date +%s%N) - began) * 128 / $(cat /sys/block/md0/size))))
	done
	row 3 "resync-alone-instructions-$base-raid10-$layout-4" "instructions for 64 KiB" "≤ 1.05" "$(median "${costs[@]}")"
	clean_up
done
