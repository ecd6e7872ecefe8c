# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The longest time that a write takes while a raid1 becomes a raid10, small and large.
needs_patches
for mib in 64 8192; do
	for count in 2 3; do
		gaps=()
		for try in 1 2 3; do
			legs=()
			for ((n = 0; n < count; n++)); do
				mem_leg "leg$n" $((mib + 8))
				legs+=("/run/dm/leg$n")
			done
			mdadm --create "$md" --run --quiet --level=1 --raid-devices=$count --metadata=1.2 --bitmap=internal --assume-clean \
				--data-offset=4096 --size=${mib}M "${legs[@]}"
			fio --name=w --filename="$md" --direct=1 --rw=randwrite --bs=4k --size=64M --ioengine=psync --runtime=3 --time_based \
				--minimal --terse-version=3 >/tmp/fio &
			writer=$!
			sleep 1
			echo raid10 >"$md_dir/level"
			wait "$writer" || fail "try $try: the writer found an error"
			# Field 56: the longest completion latency of a write, in µs.
			gaps+=("$(awk -F';' 'NF > 100 { print $56 / 1000 }' /tmp/fio)")
			clean_up
		done
		row 3 "takeover-gap-$base-raid1-$count-${mib}MiB" "ms" "≤ 100" "$(median "${gaps[@]}")"
	done
done
