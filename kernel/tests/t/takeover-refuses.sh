# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What cannot become a raid10 stays the raid1 that it was, with its event counter, and the log says why.

raid1() { # <mdadm option>…
	mdadm --create "$md" --run --quiet --level=1 --assume-clean --data-offset=2048 "$@"
}

# What a refusal leaves alone.
state_of_array() {
	local leg
	for leg in a b c; do [[ ! -e $(member "$leg" state) ]] || echo "$leg has $(events_of "$leg") events"; done
	echo "layout $(attribute layout) chunk $(attribute chunk_size) size $(cat /sys/block/md0/size)"
	grep . /sys/block/md0/queue/{chunk_sectors,io_min,io_opt,max_sectors_kb,logical_block_size} 2>/dev/null
	dd if="$md" bs=1M count=8 iflag=direct status=none | sha256sum
}

refused() { # <what> <reason in the log> [<errno text>]
	local before after
	# What was begun before may still be written down.
	before=$(state_of_array)
	after=$(sleep 0.2 && state_of_array)
	while [[ $before != "$after" ]]; do
		before=$after
		after=$(sleep 0.2 && state_of_array)
	done
	mark "$1"
	if echo raid10 >"$md_dir/level" 2>/tmp/error; then fail "$1: not refused"; fi
	grep -q "${3:-Invalid argument}" /tmp/error || fail "$1: $(cat /tmp/error)"
	[[ $(attribute level) == raid1 ]] || fail "$1: the level is $(attribute level)"
	since "$1" "$2" >/dev/null || fail "$1: the log does not say '$2'"
	sync
	after=$(state_of_array)
	[[ $before == "$after" ]] || fail "$1: what was '$before' is '$after'"
	dd if=/dev/urandom of="$md" bs=64k count=16 oflag=direct status=none
	say "$1: refused"
	clean_up
	for disk in a b c; do mem_leg "$disk" 100; done
}

needs_patches
for disk in a b c; do mem_leg "$disk" 100; done

mdadm --create "$md" --run --quiet --level=1 --assume-clean --raid-devices=2 --metadata=0.90 --bitmap=none /run/dm/a /run/dm/b
refused "metadata 0.90" "cannot take over the raid1: its metadata is not v1.x"

raid1 --raid-devices=1 --force --metadata=1.2 --bitmap=none /run/dm/a
refused "one disk" "cannot take over the raid1: it has fewer than 2 disks"

raid1 --raid-devices=2 --metadata=1.2 --bitmap=none /run/dm/a missing
refused "degraded" "cannot take over the raid1: it is degraded"

raid1 --raid-devices=2 --metadata=1.2 --bitmap=internal /run/dm/a --write-mostly /run/dm/b
refused "write-mostly" "cannot take over the raid1: a device is write-mostly"

raid1 --raid-devices=2 --metadata=1.2 --bitmap=internal --write-behind=64 /run/dm/a --write-mostly /run/dm/b
echo -writemostly >"$(member b state)"
refused "write-behind" "cannot take over the raid1: it has write-behind"

raid1 --raid-devices=2 --metadata=1.2 --bitmap=none /run/dm/a /run/dm/b
echo 1 >"$md_dir/serialize_policy"
refused "serialised writes" "cannot take over the raid1: its writes are serialised"

raid1 --raid-devices=2 --metadata=1.2 --bitmap=none --size=50001 /run/dm/a /run/dm/b
refused "a size that no chunk divides" "cannot take over the raid1: its size is not a multiple of the page size"

raid1 --raid-devices=2 --metadata=1.2 --bitmap=none /run/dm/a /run/dm/b
echo 40960 >"$md_dir/array_size"
refused "a reduced size" "cannot take over the raid1: its size was set to less than its devices have"

raid1 --raid-devices=2 --metadata=1.2 --bitmap=none /run/dm/a /run/dm/b
mdadm --manage "$md" --quiet --add-spare /run/dm/c
echo frozen >"$md_dir/sync_action"
echo want_replacement >"$(member a state)"
echo 1 >"$(member c slot)" 2>/dev/null || true
echo 0 >"$md_dir/sync_speed_max" 2>/dev/null || true
# A sync writes the superblocks each time that it has done another sixteenth: that must be far away.
echo 100 >"$md_dir/sync_speed_min"
echo 100 >"$md_dir/sync_speed_max"
echo idle >"$md_dir/sync_action"
for ((n = 0; n < 100; n++)); do [[ $(attribute sync_action) == recover ]] && break || sleep 0.05; done
[[ $(attribute sync_action) == recover ]] || fail "the replacement has not begun: $(attribute sync_action)"
refused "a replacement that runs" "cannot change the level: a sync, a replacement" "Device or resource busy"

mdadm --create "$md" --run --quiet --level=1 --raid-devices=2 --metadata=1.2 --bitmap=none --data-offset=2048 /run/dm/a /run/dm/b
echo frozen >"$md_dir/sync_action"
for ((n = 0; n < 100; n++)); do [[ $(attribute sync_action) == frozen ]] && break || sleep 0.05; done
refused "a resync that is needed" "cannot take over the raid1: a sync is running or needed"
