# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# A power cut during a takeover: whichever of the superblocks were written by then, the array comes back as raid1 or as raid10, with
# its data, and without more than what the bitmap asks for.
#
# The superblocks are all that a takeover writes, so each combination of old and new ones is a power cut. mdadm refuses members that
# disagree about the level; then the newer ones are named, and the others are added again.
needs_patches

superblock() { # <in|out> <leg> <file>: 4 KiB at 4 KiB, where metadata 1.2 has it
	if [[ $1 == in ]]; then
		dd if="/run/dm/$2" of="$3" bs=4k skip=1 count=1 iflag=direct status=none
	else
		dd if="$3" of="/run/dm/$2" bs=4k seek=1 count=1 oflag=direct status=none
	fi
}

sectors_written() { awk '{ print $7 }' "/sys/block/$(device "$1")/stat"; }

for count in 2 3; do
	legs=()
	for ((n = 0; n < count; n++)); do
		mem_leg "leg$n" 80
		legs+=("leg$n")
	done
	mdadm --create "$md" --run --quiet --level=1 --raid-devices="$count" --metadata=1.2 --bitmap=internal --assume-clean \
		--data-offset=4096 --size=64M "${legs[@]/#//run/dm/}"
	dd if=/dev/urandom of="$md" bs=1M count=64 oflag=direct status=none
	sum=$(dd if="$md" bs=1M iflag=direct status=none | sha256sum)
	echo 0 >"$md_dir/safe_mode_delay" 2>/dev/null || true
	for leg in "${legs[@]}"; do superblock in "$leg" "/tmp/$leg.old"; done
	echo raid10 >"$md_dir/level"
	for leg in "${legs[@]}"; do superblock in "$leg" "/tmp/$leg.new"; done
	stop_array

	for ((cut = 0; cut < 1 << count; cut++)); do
		for ((n = 0; n < count; n++)); do
			superblock out "leg$n" "/tmp/leg$n.$( ((cut >> n & 1)) && echo new || echo old)"
		done
		mark "$count-$cut"
		declare -A written=()
		for leg in "${legs[@]}"; do written[$leg]=$(sectors_written "$leg"); done
		assemble_newest "${legs[@]}"
		wait_idle
		# What is stale is brought back by the bitmap, and nothing is set in that.
		for leg in "${legs[@]}"; do
			check "sectors written to $leg" "$(sectors_written "$leg") - ${written[$leg]} < 4096"
		done
		level=$(attribute level)
		[[ $level == raid1 || $level == raid10 ]] || fail "the level is $level"
		[[ $(dd if="$md" bs=1M iflag=direct status=none | sha256sum) == "$sum" ]] || fail "the data changed"
		check_mirrors
		say "$count legs, new superblocks $(printf '%x' "$cut"): $level, $how"
		stop_array
	done
	clean_up
done
