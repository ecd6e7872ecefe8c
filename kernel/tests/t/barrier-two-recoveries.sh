# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Two members of a raid10 are recovered at once, each address in one request for both, while reads elsewhere meet errors that are
# repaired. Repair freezes the array; nothing waits for ever.
needs_patches
dmsetup targets | grep -q '^dust' || skip "this kernel has no dm-dust"
legs=()
for n in 0 1 2 3 4 5; do
	null_disk "leg$n-disk" 132 300000 memory_backed=1
	echo "0 $((132 * 2048)) dust /dev/leg$n-disk 0 512" | dm_create "leg$n"
	dmsetup message "leg$n" 0 enable
	dmsetup message "leg$n" 0 quiet 2>/dev/null || true
	legs+=("/run/dm/leg$n")
done
mdadm --create "$md" --run --quiet --level=10 --layout=n3 --chunk=64 --raid-devices=6 --metadata=1.2 --bitmap=none --assume-clean \
	--data-offset=4096 --size=64M "${legs[@]}"
echo 50000 >"$md_dir/sync_speed_min"
echo 1000000 >"$md_dir/max_read_errors"

bad_blocks() {
	while :; do
		for leg in leg1 leg4; do
			for block in $(shuf -i 8192-139263 -n 150); do dmsetup message "$leg" 0 addbadblock "$block" >/dev/null 2>&1 || true; done
		done
	done
}

mark repairs
rounds="1 2"
if in_brief; then rounds=1; fi
for round in $rounds; do
	echo frozen >"$md_dir/sync_action"
	for leg in leg0 leg3; do
		mdadm --manage "$md" --quiet --fail "/run/dm/$leg"
		mdadm --manage "$md" --quiet --remove "/run/dm/$leg"
		mdadm --zero-superblock "/run/dm/$leg"
		mdadm --manage "$md" --quiet --add "/run/dm/$leg"
	done
	fio --name=r --filename="$md" --direct=1 --rw=randread --bs=4k --ioengine=io_uring --iodepth=16 --runtime=900 --time_based >/tmp/fio 2>&1 &
	reader=$!
	bad_blocks &
	blocks=$!
	echo idle >"$md_dir/sync_action"
	for ((n = 0; n < 450; n++)); do [[ $(attribute degraded) == 0 ]] && break || sleep 0.1; done
	kill "$blocks" "$reader" || true
	[[ $(attribute degraded) == 0 ]] || fail "round $round: the recovery has come to $(attribute sync_completed) in 45 s"
	wait "$blocks" "$reader" || true
	for leg in leg1 leg4; do dmsetup message "$leg" 0 clearbadblocks >/dev/null; done
	say "round $round: both recovered after $((n / 10)) s, $(since repairs 'read error corrected' | wc -l) errors repaired so far"
done
check "errors that were repaired" "$(since repairs 'read error corrected' | wc -l) >= 10"
check_mirrors
