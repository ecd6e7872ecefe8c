# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# A mounted raid1 becomes a raid10 under a verifying writer: no byte moves, nothing is resynced, the bitmap stays, and the array
# comes back from a stop as what it became.

check_bitmap() { # <none, internal or lockless>
	local seen=internal
	if [[ -e $md_dir/bitmap_type ]]; then
		case $(attribute bitmap_type) in
		*"[none]"*) seen=none ;;
		*"[llbitmap]"*) seen=lockless ;;
		esac
	elif [[ $(attribute bitmap/location) == none ]]; then
		seen=none
	fi
	[[ $seen == "$1" ]] || fail "the bitmap is $seen, not $1"
}

# A leg that was away gets what was written meanwhile, and no more than the bitmap's units around it. (A lockless bitmap also has what
# was written shortly before, for its bits stay dirty for a while.)
check_bitmap_content() { # <bitmap>
	local before written n most=65536
	[[ $1 != lockless ]] || most=$((2 * $(cat /sys/block/md0/size)))
	mdadm --manage "$md" --quiet --fail /run/dm/leg1
	dd if="$md" of=/tmp/old bs=64k skip=4096 count=16 iflag=direct status=none
	dd if=/dev/urandom of=/tmp/new bs=64k count=16 status=none
	dd if=/tmp/new of="$md" bs=64k seek=4096 oflag=direct conv=notrunc status=none
	for ((n = 0; n < 100; n++)); do mdadm --manage "$md" --quiet --remove /run/dm/leg1 2>/dev/null && break || sleep 0.1; done
	before=$(awk '{ print $7 }' "/sys/block/$(device leg1)/stat")
	mdadm --manage "$md" --quiet --re-add /run/dm/leg1
	for ((n = 0; n < 300; n++)); do [[ $(attribute degraded) == 0 ]] && break || sleep 0.1; done
	[[ $(attribute degraded) == 0 ]] || fail "the leg has not come back"
	wait_idle
	written=$(($(awk '{ print $7 }' "/sys/block/$(device leg1)/stat") - before))
	check "sectors written to the leg that came back" "$written >= 2048 && $written < $most"
	check_mirrors
	dd if="$md" bs=64k skip=4096 count=16 iflag=direct status=none | cmp - /tmp/new || fail "what was written meanwhile is not there"
	dd if=/tmp/old of="$md" bs=64k seek=4096 oflag=direct conv=notrunc status=none
	say "a leg that missed 2048 sectors was written $written"
}

try() { # <legs> <file system> <bitmap>
	local legs chunk count=$1 fs=$2 bitmap=$3 writer sum size n
	legs=() chunk=()
	if [[ $bitmap == internal ]]; then chunk=(--bitmap-chunk=1M); fi
	for ((n = 0; n < count; n++)); do
		mem_leg "leg$n" 400
		legs+=("leg$n")
	done
	mdadm --create "$md" --run --quiet --level=1 --raid-devices="$count" --metadata=1.2 --bitmap="$bitmap" --assume-clean \
		--data-offset=4096 --size=380M "${chunk[@]}" "${legs[@]/#//run/dm/}"
	check_bitmap "$bitmap"
	"mkfs.$fs" -q "$md"
	mount "$md" /tmp/m
	head -c 32M /dev/urandom >/tmp/m/still
	sum=$(sha256sum </tmp/m/still)
	sync
	size=$(cat /sys/block/md0/size)
	mark "$count-$fs-$bitmap"

	fio --name=w --directory=/tmp/m --size=64M --bs=4k --direct=1 --rw=randwrite --ioengine=psync --numjobs=2 --verify=crc32c --runtime=4 \
		--time_based --verify_state_save=0 --verify_backlog=64 --verify_fatal=1 >/tmp/fio 2>&1 &
	writer=$!
	sleep 1
	local before
	before=$(awk '{ print $5 }' /sys/block/md0/stat)
	echo raid10 >"$md_dir/level"
	kill -0 "$writer" || fail "the writer was over before the takeover was"
	while [[ $(awk '{ print $5 }' /sys/block/md0/stat) == "$before" ]]; do
		kill -0 "$writer" || fail "nothing was written after the takeover"
		sleep 0.1
	done
	wait "$writer" || fail "the writer found an error: $(tail -n 5 /tmp/fio)"
	grep -q 'READ:' /tmp/fio || fail "the writer has verified nothing"

	[[ $(attribute level) == raid10 ]]
	[[ $(attribute layout) == $((256 + count)) ]] || fail "layout $(attribute layout)"
	[[ $(attribute degraded) == 0 ]]
	[[ $(cat /sys/block/md0/size) == "$size" ]] || fail "the size changed from $size to $(cat /sys/block/md0/size)"
	check_bitmap "$bitmap"
	say "$count legs, $fs, bitmap $bitmap: chunk $(attribute chunk_size)"
	not_rebuilt "$count-$fs-$bitmap"
	umount /tmp/m
	check_mirrors
	if [[ $bitmap != none ]]; then check_bitmap_content "$bitmap"; fi

	stop_array
	for n in "${legs[@]}"; do
		[[ $(mdadm --examine --export "/run/dm/$n" | sed -n 's/^MD_LEVEL=//p') == raid10 ]] || fail "$n does not say raid10"
	done
	mark "again-$count-$fs-$bitmap"
	assemble "${legs[@]}"
	[[ $(attribute level) == raid10 && $(attribute degraded) == 0 ]]
	not_rebuilt "again-$count-$fs-$bitmap"
	check_bitmap "$bitmap"
	mount "$md" /tmp/m
	[[ $(sha256sum </tmp/m/still) == "$sum" ]] || fail "the file that nobody touched has changed"
	umount /tmp/m
	case $fs in
	ext4) fsck.ext4 -fn "$md" >/dev/null ;;
	xfs) xfs_repair -n "$md" >/dev/null 2>&1 ;;
	esac
	clean_up
}

mkdir -p /tmp/m
needs_patches

try 2 ext4 internal
try 3 xfs internal
try 4 ext4 none
if ! in_brief; then
	try 2 xfs none
	try 3 ext4 internal
	try 4 xfs internal
fi
if grep -q llbitmap /proc/kallsyms; then
	try 2 xfs lockless
fi
