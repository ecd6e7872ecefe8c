# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The latency of I/O during a check of 100 MB/s on devices that answer after 300 us.

# mixed_p99: the 99th percentiles of the latencies of reads and of writes, in µs; one at a time, or they would measure the CPUs.
mixed_p99() {
	fio --name=m --filename="$md" --direct=1 --rw=randrw --bs=4k --norandommap --randrepeat=0 --ioengine=psync \
		--runtime=3 --time_based --output-format=json | sed -n 's/.*"99\.000000" : \([0-9]*\).*/\1/p' | awk '{ printf "%d ", $1 / 1000 }'
}

for layout in n2 f2 o2; do
	# Of 8 GiB a device, as a unit is to be a small part of the array; the check waits for the devices and not for the CPUs.
	legs=()
	for n in 0 1 2 3; do
		leg "leg$n" 8200 $near_ns
		legs+=("/run/dm/leg$n")
	done
	mdadm --create "$md" --run --quiet --level=10 --layout=$layout --chunk=64 --raid-devices=4 --metadata=1.2 --bitmap=internal \
		--data-offset=$((head_sectors / 2)) --size=8192M --assume-clean "${legs[@]}"
	echo 100000 >"$md_dir/sync_speed_max"
	echo 100000 >"$md_dir/sync_speed_min"
	declare -A p99=()
	for n in 1 2 3; do
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
		row 3 "foreground-p99-$base-raid10-$op-$layout-4" "µs; reference: idle" "≤ 1.1" "$(median "${busy[@]}")" "$(median "${idle[@]}")"
	done
	clean_up
done
