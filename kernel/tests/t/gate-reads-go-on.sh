# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Reads go on during a hold, however many writes are held: they take no memory, barrier or thread from the array.
# shellcheck source=../gate-lib.sh
. ./gate-lib.sh
needs_gate

for level in raid1 raid10; do
	gate_array $level a b
	[[ -z $(tell on) ]]
	dd if=/dev/urandom of="$md" bs=1M count=16 oflag=direct status=none
	sum=$(dd if="$md" bs=1M count=16 iflag=direct status=none | sha256sum)
	leg_fails b
	begin_write 8191 new
	gate_is holding
	# 2000 of them, from many tasks.
	fio --name=w --filename="$md" --direct=1 --rw=write --bs=4k --offset=16M --size=2M --numjobs=4 --ioengine=io_uring --iodepth=500 \
		>/tmp/fio 2>&1 &
	writer=$!
	sleep 1
	read -r iops _ <<<"$(random_reads "$md" 8 2 --size=16M)"
	check "$level: reads a second during a hold" "$iops > 100"
	[[ $(dd if="$md" bs=1M count=16 iflag=direct status=none | sha256sum) == "$sum" ]] || fail "$level: a read is wrong"
	kill -0 $writer || fail "$level: the writers have ended: $(cat /tmp/fio)"
	not_answered 8191
	held=$(awk '{ print $5 }' /sys/block/md0/stat)
	[[ -z $(tell agree "$(latest)") ]]
	wait $writer || fail "$level: the writers failed: $(cat /tmp/fio)"
	wait_write 8191 ok
	say "$level: $iops reads a second while $held writes had been written, those of four tasks held"
	stop_array
	clean_up
done
