# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What cannot become a raid10 stays the raid1 that it was, with its event counter, and the log says why.

raid1() { # <mdadm option>…
	mdadm --create "$md" --run --quiet --level=1 --assume-clean --data-offset=2048 "$@"
}

refused() { # <what> <reason in the log> [<errno text>]
	local before after
	before=$(events_of a)
	mark "$1"
	if echo raid10 >"$md_dir/level" 2>/tmp/error; then fail "$1: not refused"; fi
	grep -q "${3:-Invalid argument}" /tmp/error || fail "$1: $(cat /tmp/error)"
	[[ $(attribute level) == raid1 ]] || fail "$1: the level is $(attribute level)"
	[[ -z $2 ]] || since "$1" "cannot take over the raid1: $2" >/dev/null || fail "$1: the log does not say '$2'"
	sync
	after=$(events_of a)
	[[ $before == "$after" ]] || fail "$1: the event counter went from $before to $after"
	dd if=/dev/urandom of="$md" bs=64k count=16 oflag=direct status=none
	say "$1: refused"
	clean_up
	for disk in a b c; do mem_leg "$disk" 100; done
}

needs_patches
for disk in a b c; do mem_leg "$disk" 100; done

mdadm --create "$md" --run --quiet --level=1 --assume-clean --raid-devices=2 --metadata=0.90 --bitmap=none /run/dm/a /run/dm/b
refused "metadata 0.90" "its metadata is not v1.x"

raid1 --raid-devices=1 --force --metadata=1.2 --bitmap=none /run/dm/a
refused "one disk" "it has fewer than 2 disks"

raid1 --raid-devices=2 --metadata=1.2 --bitmap=none /run/dm/a missing
refused "degraded" "it is degraded"

raid1 --raid-devices=2 --metadata=1.2 --bitmap=internal /run/dm/a --write-mostly /run/dm/b
refused "write-mostly" "a device is write-mostly"

raid1 --raid-devices=2 --metadata=1.2 --bitmap=internal --write-behind=64 /run/dm/a --write-mostly /run/dm/b
echo -writemostly >"$(member b state)"
refused "write-behind" "it has write-behind"

raid1 --raid-devices=2 --metadata=1.2 --bitmap=none /run/dm/a /run/dm/b
echo 1 >"$md_dir/serialize_policy"
refused "serialised writes" "its writes are serialised"

raid1 --raid-devices=2 --metadata=1.2 --bitmap=none --size=50001 /run/dm/a /run/dm/b
refused "a size that no chunk divides" "its size is not a multiple of the page size"

raid1 --raid-devices=2 --metadata=1.2 --bitmap=none /run/dm/a /run/dm/b
echo 40960 >"$md_dir/array_size"
refused "a reduced size" "its size was set to less than its devices have"

raid1 --raid-devices=2 --metadata=1.2 --bitmap=none /run/dm/a /run/dm/b
mdadm --manage "$md" --quiet --add-spare /run/dm/c
echo frozen >"$md_dir/sync_action"
echo want_replacement >"$(member a state)"
echo 1 >"$(member c slot)" 2>/dev/null || true
echo 0 >"$md_dir/sync_speed_max" 2>/dev/null || true
echo 1000 >"$md_dir/sync_speed_min"
echo 1000 >"$md_dir/sync_speed_max"
echo idle >"$md_dir/sync_action"
for ((n = 0; n < 100; n++)); do [[ $(attribute sync_action) == recover ]] && break || sleep 0.05; done
[[ $(attribute sync_action) == recover ]] || fail "the replacement has not begun: $(attribute sync_action)"
refused "a replacement that runs" "" "Device or resource busy"

mdadm --create "$md" --run --quiet --level=1 --raid-devices=2 --metadata=1.2 --bitmap=none --data-offset=2048 /run/dm/a /run/dm/b
echo frozen >"$md_dir/sync_action"
for ((n = 0; n < 100; n++)); do [[ $(attribute sync_action) == frozen ]] && break || sleep 0.05; done
refused "a resync that is needed" "a sync is running or needed"
