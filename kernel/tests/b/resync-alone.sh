# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The speed of a check on its own: the fastest of nine, which is what the least was beside.
for layout in n2 f2 o2; do
	legs=()
	for n in 0 1 2 3; do
		mem_leg "leg$n" 264
		legs+=("/run/dm/leg$n")
	done
	mdadm --create "$md" --run --quiet --level=10 --layout=$layout --chunk=64 --raid-devices=4 --metadata=1.2 --bitmap=internal \
		--data-offset=4096 --size=256M --assume-clean "${legs[@]}"
	echo 2000000 >"$md_dir/sync_speed_min"
	echo 2000000 >"$md_dir/sync_speed_max"
	speeds=()
	for n in 1 2 3 4 5 6 7 8 9; do
		began=$(date +%s%N)
		echo check >"$md_dir/sync_action"
		while [[ $(attribute sync_action) != idle ]]; do sleep 0.01; done
		speeds+=($(($(cat /sys/block/md0/size) * 500000 / (($(date +%s%N) - began) / 1000))))
	done
	row 9 "resync-alone-$base-raid10-$layout-4" "KiB/s" "≥ 0.95" "$(printf '%s\n' "${speeds[@]}" | sort -n | tail -n 1)"
	clean_up
done
