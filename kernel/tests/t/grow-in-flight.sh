# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# A raid10 gets more disks while requests for the old ones are in flight, which have no room for more; nothing of the kernel's memory is
# taken for theirs. Also: a reshape that is frozen and let go again beside the same load ends.
needs_patches # Linux 6.12 without them dies of it.

legs=()
for n in 0 1 2 3 4 5; do
	null_disk "leg$n" 72 10000000 memory_backed=1 discard=1 hw_queue_depth=64
	ln -sf "/dev/leg$n" "/run/dm/leg$n"
	legs+=("/run/dm/leg$n")
done
in_flight() { awk '{ print $1 + $2 }' /sys/block/leg0/inflight; }

rounds=(1 2 3)
if in_brief; then rounds=(1); fi
for round in "${rounds[@]}"; do
	# 2 MiB of headroom, which the reshape takes a chunk of.
	mdadm --create "$md" --run --quiet --level=10 --layout=n2 --chunk=512 --raid-devices=2 --metadata=1.2 --bitmap=internal --assume-clean \
		--data-offset=4096 --size=64M "${legs[@]:0:2}"
	mdadm --manage "$md" --quiet --add "${legs[@]:2}"
	fio --name=w --filename="$md" --direct=1 --rw=randwrite --bs=4k --ioengine=io_uring --iodepth=64 --offset=0 --size=24M \
		--verify=crc32c --verify_backlog=64 --verify_fatal=1 --runtime=8 --time_based --verify_state_save=0 >/tmp/fio 2>&1 &
	writer=$!
	fio --name=d --filename="$md" --direct=1 --rw=randtrim --bs=4M --ioengine=io_uring --iodepth=8 --offset=24M --size=40M \
		--runtime=8 --time_based >/tmp/fio-trim 2>&1 &
	trimmer=$!
	# The position moves by 64 KiB: some of these span it; see reshape-waiters for those that wait there.
	fio --name=r --filename="$md" --direct=1 --rw=randread --bs=512k --ioengine=io_uring --iodepth=64 --offset=0 --size=64M \
		--runtime=8 --time_based >/tmp/fio-read 2>&1 &
	reader=$!
	for ((n = 0; n < 200; n++)); do
		flying=$(in_flight)
		((flying > 16)) && break || sleep 0.05
	done
	((flying > 16)) || fail "only $flying requests are in flight"
	mark "grow-$round"
	mdadm --grow "$md" --quiet --raid-devices=6
	for ((n = 0; n < 10; n++)); do
		[[ $(attribute sync_action) == reshape ]] || break
		echo frozen >"$md_dir/sync_action"
		sleep 0.2
		timeout 60 bash -c "echo reshape >$md_dir/sync_action" || fail "the reshape does not go on"
	done
	wait "$writer" || fail "the writer found an error: $(grep -E "verify|err=" /tmp/fio | head -n 5)"
	wait "$trimmer" || fail "a discard failed: $(grep err= /tmp/fio-trim)"
	wait "$reader" || fail "a read failed: $(grep err= /tmp/fio-read)"
	wait_idle
	since "grow-$round" 'reshape' >/dev/null || fail "no reshape"
	[[ $(attribute raid_disks) == 6 && $(attribute degraded) == 0 ]] || fail "$(attribute raid_disks) disks, $(attribute degraded) missing"
	check_mirrors
	say "round $round: 2 to 6 disks, frozen $n times"
	stop_array
	mdadm --zero-superblock "${legs[@]}"
done
