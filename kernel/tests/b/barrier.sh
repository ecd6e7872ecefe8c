# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# I/O elsewhere during a check that is slow in one unit; the speed of a check on its own; the latency of I/O during one.

iops() { # <read or write>: of the second unit, two at a time
	fio --name=f --filename="$md" --direct=1 --rw="rand$1" --bs=4k --ioengine=io_uring --iodepth=2 --offset=72M --size=48M \
		--runtime=1500ms --time_based --minimal --terse-version=3 | awk -F';' -v field="$([[ $1 == read ]] && echo 8 || echo 49)" '{ print int($field) }'
}

# mixed_p99: the 99th percentiles of the latencies of reads and of writes, in µs; one at a time, or they would measure the CPUs. All are
# at whole MiB, so that what is written takes little memory.
mixed_p99() {
	fio --name=m --filename="$md" --direct=1 --rw=randrw --bs=4k --blockalign=1M --norandommap --randrepeat=0 --ioengine=psync \
		--runtime=3 --time_based --output-format=json | sed -n 's/.*"99\.000000" : \([0-9]*\).*/\1/p' | awk '{ printf "%d ", $1 / 1000 }'
}

# The medians of five runs, of both levels in turn: one alone scatters by half here.
slow_array() { # <level>
	null_disk a-disk $((192 + head_sectors / 2048)) 0 memory_backed=1
	dm_create a <<-EOF
		0 $head_sectors linear /dev/a-disk 0
		$head_sectors 131072 delay /dev/a-disk $head_sectors 500 /dev/a-disk $head_sectors 0
		$((head_sectors + 131072)) $((128 * 2048)) linear /dev/a-disk $((head_sectors + 131072))
	EOF
	mem_leg b 196
	array_of_legs "$1" a b
}
declare -A seen
for n in 1 2 3 4 5; do
	for level in raid1 raid10; do
		slow_array "$level"
		for op in read write; do
			echo 0 >"$md_dir/sync_min"
			echo 131072 >"$md_dir/sync_max"
			echo check >"$md_dir/sync_action"
			sleep 0.3
			seen[$level-$op]+=" $(iops "$op")"
			[[ $(attribute sync_action) == check ]] || fail "the check was over too early"
			echo idle >"$md_dir/sync_action"
			wait_idle
		done
		clean_up
	done
done
for op in read write; do
	read -ra ours <<<"${seen[raid10-$op]}"
	read -ra reference <<<"${seen[raid1-$op]}"
	row "barrier-other-bucket-$base-raid10-$op-2" "IOPS; reference: raid1" "≥ 0.8" "$(median "${ours[@]}")" "$(median "${reference[@]}")"
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

	clean_up

	# Of 8 GiB a device, as a unit is to be a small part of the array. Nothing is written to most of it, so it is in no memory.
	legs=()
	for n in 0 1 2 3; do
		mem_leg "leg$n" 8200
		legs+=("/run/dm/leg$n")
	done
	mdadm --create "$md" --run --quiet --level=10 --layout=$layout --chunk=64 --raid-devices=4 --metadata=1.2 --bitmap=internal \
		--data-offset=4096 --size=8192M --assume-clean "${legs[@]}"
	echo 20000 >"$md_dir/sync_speed_max"
	echo 20000 >"$md_dir/sync_speed_min"
	declare -A p99=()
	for n in 1 2 3 4 5; do
		for state in idle check; do
			echo $state >"$md_dir/sync_action"
			read -r read_p99 write_p99 <<<"$(mixed_p99)"
			[[ $(attribute sync_action) == "$state" ]] || fail "not $state but $(attribute sync_action)"
			p99[read-$state]+=" $read_p99"
			p99[write-$state]+=" $write_p99"
		done
	done
	echo idle >"$md_dir/sync_action"
	wait_idle
	for op in read write; do
		read -ra busy <<<"${p99[$op-check]}"
		read -ra idle <<<"${p99[$op-idle]}"
		row "foreground-p99-$base-raid10-$op-$layout-4" "µs; reference: idle" "≤ 1.1" "$(median "${busy[@]}")" "$(median "${idle[@]}")"
	done
	clean_up
done
