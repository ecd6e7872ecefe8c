# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# I/O elsewhere during a check that is slow in one unit; the speed of a check on its own; the latency of I/O during one.

iops() { # <read or write>: of the second unit, two at a time
	fio --name=f --filename="$md" --direct=1 --rw="rand$1" --bs=4k --ioengine=io_uring --iodepth=2 --offset=72M --size=48M \
		--runtime=3 --time_based --minimal --terse-version=3 | awk -F';' -v field="$([[ $1 == read ]] && echo 8 || echo 49)" '{ print int($field) }'
}

declare -A reference
for level in raid1 raid10; do
	null_disk a-disk $((192 + head_sectors / 2048)) 0 memory_backed=1
	dm_create a <<-EOF
		0 $head_sectors linear /dev/a-disk 0
		$head_sectors 131072 delay /dev/a-disk $head_sectors 500 /dev/a-disk $head_sectors 0
		$((head_sectors + 131072)) $((128 * 2048)) linear /dev/a-disk $((head_sectors + 131072))
	EOF
	mem_leg b 196
	array_of_legs "$level" a b
	for op in read write; do
		echo 0 >"$md_dir/sync_min"
		echo 131072 >"$md_dir/sync_max"
		echo check >"$md_dir/sync_action"
		sleep 0.3
		during=$(iops "$op")
		echo idle >"$md_dir/sync_action"
		wait_idle
		if [[ $level == raid1 ]]; then
			reference[$op]=$during
		else
			row "barrier-other-bucket-$base-$op-2" "IOPS; reference: raid1" "≥ 0.8" "$during" "${reference[$op]}"
		fi
	done
	clean_up
done

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
	for n in 1 2 3 4 5; do
		began=$(date +%s%N)
		echo check >"$md_dir/sync_action"
		while [[ $(attribute sync_action) != idle ]]; do sleep 0.01; done
		speeds+=($(($(cat /sys/block/md0/size) * 500000 / (($(date +%s%N) - began) / 1000))))
	done
	row "resync-alone-$base-raid10-$layout-4" "KiB/s" "≥ 0.95" "$(median "${speeds[@]}")"

	echo 20000 >"$md_dir/sync_speed_max"
	echo 20000 >"$md_dir/sync_speed_min"
	read -r _ _ idle <<<"$(random_reads "$md" 4 3)"
	echo check >"$md_dir/sync_action"
	read -r _ _ busy <<<"$(random_reads "$md" 4 3)"
	[[ $(attribute sync_action) == check ]] || fail "the check was over too early"
	row "foreground-p99-$base-raid10-$layout-4" "µs; reference: idle" "≤ 1.1" "$busy" "$idle"
	echo idle >"$md_dir/sync_action"
	wait_idle
	clean_up
done
