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

try() { # <legs> <file system> <bitmap>
	local legs=("${@:4}") count=$1 fs=$2 bitmap=$3 writer sum size n
	legs=()
	for ((n = 0; n < count; n++)); do
		mem_leg "leg$n" 400
		legs+=("leg$n")
	done
	mdadm --create "$md" --run --quiet --level=1 --raid-devices="$count" --metadata=1.2 --bitmap="$bitmap" --assume-clean \
		--data-offset=4096 --size=380M "${legs[@]/#//run/dm/}"
	check_bitmap "$bitmap"
	"mkfs.$fs" -q "$md"
	mount "$md" /tmp/m
	head -c 32M /dev/urandom >/tmp/m/still
	sum=$(sha256sum </tmp/m/still)
	sync
	size=$(cat /sys/block/md0/size)
	mark "$count-$fs-$bitmap"

	fio --name=w --directory=/tmp/m --size=64M --bs=4k --direct=1 --rw=randwrite --ioengine=psync --numjobs=2 --verify=crc32c --runtime=3 \
		--time_based --verify_state_save=0 --verify_backlog=64 --verify_fatal=1 >/tmp/fio 2>&1 &
	writer=$!
	sleep 1
	local before
	before=$(awk '{ print $5 }' /sys/block/md0/stat)
	echo raid10 >"$md_dir/level"
	kill -0 "$writer" || fail "the writer was over before the takeover was"
	sleep 0.5
	check "writes after the takeover" "$(awk '{ print $5 }' /sys/block/md0/stat) > $before"
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

	stop_array
	for n in "${legs[@]}"; do
		[[ $(mdadm --examine --export "/run/dm/$n" | sed -n 's/^MD_LEVEL=//p') == raid10 ]] || fail "$n does not say raid10"
	done
	mark again
	assemble "${legs[@]}"
	[[ $(attribute level) == raid10 && $(attribute degraded) == 0 ]]
	not_rebuilt again
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
if grep -q llbitmap /proc/kallsyms; then
	try 2 xfs lockless
fi
