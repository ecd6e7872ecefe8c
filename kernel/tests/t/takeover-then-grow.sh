# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What the takeover is for: the raid10 gets more disks and is reshaped to a wider stripe, under a verifying writer.
needs_patches

for spec in "2 4" "2 6" "3 6"; do
	read -r copies disks <<<"$spec"
	legs=()
	for ((n = 0; n < disks; n++)); do
		mem_leg "leg$n" 72
		legs+=("/run/dm/leg$n")
	done
	# 2 MiB of headroom, which the reshape takes a chunk of.
	mdadm --create "$md" --run --quiet --level=1 --raid-devices="$copies" --metadata=1.2 --bitmap=internal --assume-clean \
		--data-offset=4096 --size=64M "${legs[@]:0:copies}"
	dd if=/dev/urandom of="$md" bs=1M count=32 oflag=direct status=none
	sum=$(dd if="$md" bs=1M count=32 iflag=direct status=none | sha256sum)
	size=$(cat /sys/block/md0/size)
	fio --name=w --filename="$md" --direct=1 --rw=randrw --bs=4k --ioengine=io_uring --iodepth=4 --offset=32M --size=32M \
		--verify=crc32c --verify_backlog=64 --verify_fatal=1 --runtime=10 --time_based --verify_state_save=0 >/tmp/fio 2>&1 &
	writer=$!
	sleep 0.5
	echo raid10 >"$md_dir/level"
	mdadm --manage "$md" --quiet --add "${legs[@]:copies}"
	mark "grow-$copies-$disks"
	mdadm --grow "$md" --quiet --raid-devices="$disks"
	wait "$writer" || fail "the writer found an error: $(tail -n 5 /tmp/fio)"
	wait_idle
	since "grow-$copies-$disks" 'reshape' >/dev/null || fail "no reshape"
	[[ $(attribute raid_disks) == "$disks" && $(attribute degraded) == 0 ]] || fail "$(attribute raid_disks) disks"
	for ((n = 0; n < 100; n++)); do (($(cat /sys/block/md0/size) > size)) && break || sleep 0.1; done
	check "size in sectors" "$(cat /sys/block/md0/size) == $size * $disks / $copies"
	[[ $(dd if="$md" bs=1M count=32 iflag=direct status=none | sha256sum) == "$sum" ]] || fail "the data changed"
	check_mirrors
	say "$copies copies: from $copies to $disks disks, $((size / 2048)) to $(($(cat /sys/block/md0/size) / 2048)) MiB"
	clean_up
done
