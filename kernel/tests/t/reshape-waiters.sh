# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Requests that wait for the position of a raid10's growth to pass do not wait for a thread that has been stopped: they end with the data
# of both layouts, and the growth, which waits for them in turn, can go on.
needs_patches # Without them nobody lets them go before it goes on.

mib=64
truth=/tmp/truth
legs=()
for n in 0 1 2 3; do
	# A request for a whole chunk is to come to md in one piece.
	null_disk "leg$n" 72 0 memory_backed=1 max_sectors=1024
	ln -sf "/dev/leg$n" "/run/dm/leg$n"
	legs+=("/run/dm/leg$n")
done
in_flight() { cat /sys/block/leg?/inflight | awk '{ n += $1 + $2 } END { print n }'; }

mdadm --create "$md" --run --quiet --level=10 --layout=n2 --chunk=512 --raid-devices=2 --metadata=1.2 --bitmap=internal --assume-clean \
	--data-offset=4096 --size=${mib}M "${legs[@]:0:2}"
mdadm --manage "$md" --quiet --add "${legs[@]:2}"
dd if=/dev/urandom of="$truth" bs=1M count=$mib status=none
dd if="$truth" of="$md" bs=1M oflag=direct status=none
# The thread copies 128 KiB and sleeps for seconds, so that a request for a whole chunk meets the position within it, and waits.
echo 32 >"$md_dir/sync_speed_min"
echo 64 >"$md_dir/sync_speed_max"
mdadm --grow "$md" --quiet --raid-devices=4

# wait_at_position <dd's operands>: starts a dd over the chunk with the position, and sets $pid when it waits there, $chunk and $data.
wait_at_position() {
	local n copied
	for ((n = 0; n < 40; n++)); do
		# In KiB. md/sync_completed and md/reshape_position say what is recorded only.
		copied=$(sed -n 's/.*reshape = .*(\([0-9]*\)\/.*/\1/p' /proc/mdstat)
		chunk=$((${copied:-0} / 512))
		data=/tmp/chunk-$chunk
		"$@" &
		pid=$!
		sleep 0.5
		if kill -0 "$pid" 2>/dev/null && (($(in_flight) == 0)); then return; fi
		wait "$pid"
		sleep 0.2
	done
	fail "nothing waits at the position, ${copied:-it is unknown} KiB"
}
reader() { exec dd if="$md" of=/tmp/piece bs=512K count=1 skip="$chunk" iflag=direct status=none; }
writer() {
	dd if=/dev/urandom of="$data" bs=512K count=1 status=none
	dd if="$data" of="$truth" bs=512K count=1 seek="$chunk" conv=notrunc status=none
	exec dd if="$data" of="$md" bs=512K count=1 seek="$chunk" oflag=direct status=none
}
ended() {
	local n
	for ((n = 0; n < 100; n++)); do
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.1
	done
	if kill -0 "$pid" 2>/dev/null; then fail "$1 still waits for the position after 10 s"; fi
	wait "$pid" || fail "$1 found an error"
}

for what in reader writer reader writer; do
	wait_at_position "$what"
	[[ $(attribute sync_action) == reshape ]] || fail "the reshape is over: $(attribute sync_action)"
	echo frozen >"$md_dir/sync_action"
	ended "the $what of chunk $chunk"
	if [[ $what == reader ]]; then
		cmp /tmp/piece <(dd if="$truth" bs=512K count=1 skip="$chunk" status=none) || fail "chunk $chunk was read from one layout only"
	fi
	timeout 60 bash -c "echo reshape >$md_dir/sync_action" || fail "the reshape does not go on"
	say "a $what of chunk $chunk waited and was let go"
done
echo 1000000 >"$md_dir/sync_speed_max"
echo 1000000 >"$md_dir/sync_speed_min"
wait_idle
[[ $(attribute reshape_position) == none && $(attribute raid_disks) == 4 ]] || fail "at $(attribute reshape_position)"
dd if="$md" of=/tmp/now bs=1M count=$mib iflag=direct status=none
cmp "$truth" /tmp/now || fail "the array is not what was written: $(cmp -l "$truth" /tmp/now | wc -l) bytes differ"
check_mirrors
stop_array
