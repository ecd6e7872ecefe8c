# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# A level change whose new personality does not run is an error, and stops the array; assembled again it is what it was.
#
# A raid1 that lacks a leg and needs a resync is taken over by raid5, which then does not start an array that is dirty and degraded.
# A stock kernel says that it has become a raid5, and follows a null pointer at the next request.
needs_patches
[[ -e /proc/modules ]] || skip "this kernel has no raid5, and no modules"
modprobe raid456

mem_leg leg0 64
mem_leg leg1 64
mdadm --create "$md" --run --quiet --level=1 --raid-devices=2 --metadata=1.2 --bitmap=none --assume-clean --data-offset=4096 --size=32M \
	/run/dm/leg0 /run/dm/leg1
head -c 8M /dev/urandom >/tmp/data
dd if=/tmp/data of="$md" bs=1M oflag=direct status=none
mdadm --manage "$md" --quiet --fail /run/dm/leg1
for ((n = 0; n < 100; n++)); do mdadm --manage "$md" --quiet --remove /run/dm/leg1 2>/dev/null && break || sleep 0.05; done
echo frozen >"$md_dir/sync_action"
wait_frozen() { for ((n = 0; n < 100; n++)); do [[ $(attribute sync_action) == frozen ]] && return || sleep 0.05; done; }
wait_frozen
echo 0 >"$md_dir/resync_start"

mark raid5
if echo raid5 >"$md_dir/level" 2>/tmp/error; then fail "the level change says that it has been made"; fi
since raid5 'cannot start dirty degraded array' >/dev/null || fail "raid5 has run: $(cat /tmp/error)"
since raid5 'raid5 does not run after the level change' >/dev/null || fail "the log does not say what to do"
[[ $(attribute array_state) == inactive || $(attribute array_state) == clear ]] || fail "the array is $(attribute array_state)"
[[ $(cat /sys/block/md0/size) == 0 ]] || fail "what is stopped has $(cat /sys/block/md0/size) sectors"
stop_array
assemble leg0
[[ $(attribute level) == raid1 ]] || fail "it comes back as $(attribute level)"
dd if="$md" bs=1M count=8 iflag=direct status=none | cmp - /tmp/data || fail "the data is another"
dd if=/tmp/data of="$md" bs=1M oflag=direct conv=notrunc status=none
say "refused, stopped, and back with its data as a raid1"
