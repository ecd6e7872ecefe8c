# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# A raid10 whose growth is interrupted halfway has data in two layouts. Reads find it, what is written and discarded then goes where it
# belongs, also across the position of the reshape, and the reshape goes on.
needs_patches # Without them everything in front of the position is looked for in the wrong place.

mib=64
truth=/tmp/truth
legs=()
for n in 0 1 2 3 4 5; do
	null_disk "leg$n" 72 0 memory_backed=1 discard=1
	ln -sf "/dev/leg$n" "/run/dm/leg$n"
	legs+=("/run/dm/leg$n")
done

# put <offset in KiB> <KiB>: new random data, in one write.
put() {
	dd if=/dev/urandom of=/tmp/piece bs=1K count="$2" status=none
	dd if=/tmp/piece of="$md" bs="$2K" seek="$1K" oflag=direct,seek_bytes status=none
	dd if=/tmp/piece of="$truth" bs="$2K" seek="$1K" oflag=seek_bytes conv=notrunc status=none
}

compare() { # <when>
	local at
	dd if="$md" of=/tmp/now bs=1M count=$mib iflag=direct status=none
	at=$(cmp "$truth" /tmp/now 2>&1) || fail "$1: $at, $(cmp -l "$truth" /tmp/now | wc -l) bytes differ"
}

# The position that the superblocks have, in KiB.
recorded() { mdadm --examine /run/dm/leg0 | sed -n "s/.*Reshape pos'n : \([0-9]*\).*/\1/p"; }

counts=(4 6)
if in_brief; then counts=(4); fi
for disks in "${counts[@]}"; do
	mdadm --create "$md" --run --quiet --level=10 --layout=n2 --chunk=512 --raid-devices=2 --metadata=1.2 --bitmap=internal --assume-clean \
		--data-offset=4096 --size=${mib}M "${legs[@]:0:2}"
	mdadm --manage "$md" --quiet --add "${legs[@]:2:disks-2}"
	dd if=/dev/urandom of="$truth" bs=1M count=$mib status=none
	dd if="$truth" of="$md" bs=1M oflag=direct status=none
	echo 1000 >"$md_dir/sync_speed_min"
	echo 3000 >"$md_dir/sync_speed_max"
	mdadm --grow "$md" --quiet --raid-devices="$disks"
	for target in 8 20; do
		for ((n = 0; n < 300; n++)); do
			read -r completed _ <<<"$(attribute sync_completed)"
			[[ $completed == none ]] || ((completed < target * 2048)) || break
			sleep 0.1
		done
		echo frozen >"$md_dir/sync_action"
		for ((n = 0; n < 100; n++)); do [[ $(attribute sync_action) == frozen ]] && break || sleep 0.1; done
		[[ $(attribute reshape_position) != none ]] || fail "$disks disks: the reshape was over before it was interrupted"
		position=$(($(attribute reshape_position) / 2))
		when="$disks disks, interrupted behind $position KiB"
		compare "$when"
		# In front of the position, behind it, and over it, wherever it is within a chunk.
		for at in 0 1000 $((target * 1024)) $(((target + 10) * 1024)) 60000; do put "$at" 4; done
		for ((at = 4; at < (mib - 1) * 1024; at += 510)); do put "$at" 512; done
		compare "$when and written to"
		# A write in front of it can have been made in the new layout only where the superblocks have said so.
		moved=$(($(attribute reshape_position) / 2))
		((moved > position)) || fail "$when: the position did not have to be recorded"
		[[ $(recorded) == "$moved" ]] || fail "$when: at $moved KiB, the superblocks say $(recorded)"
		# Nothing else is discarded; what becomes of itself is open.
		for at in 4 48; do
			blkdiscard --offset $((at << 20)) --length $((8 << 20)) "$md"
			dd if="$md" of="$truth" bs=1M skip=$at seek=$at count=8 iflag=direct conv=notrunc status=none
		done
		compare "$when and discarded from"
		say "$when, recorded as $moved when it was written to"
		timeout 60 bash -c "echo reshape >$md_dir/sync_action" || fail "$when: it does not go on"
	done
	echo 1000000 >"$md_dir/sync_speed_max"
	echo 1000000 >"$md_dir/sync_speed_min"
	wait_idle
	[[ $(attribute reshape_position) == none && $(attribute raid_disks) == "$disks" ]] || fail "at $(attribute reshape_position)"
	compare "$disks disks"
	check_mirrors
	stop_array
	mdadm --zero-superblock "${legs[@]:0:disks}"
done
