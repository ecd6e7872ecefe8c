# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# I/O elsewhere during a check that is slow in one unit.

iops() { # <read or write>: of the second unit, two at a time
	fio --name=f --filename="$md" --direct=1 --rw="rand$1" --bs=4k --ioengine=io_uring --iodepth=2 --offset=72M --size=48M \
		--runtime=1500ms --time_based --minimal --terse-version=3 | awk -F';' -v field="$([[ $1 == read ]] && echo 8 || echo 49)" '{ print int($field) }'
}

slow_array() { # <level>
	null_disk a-disk $((192 + head_sectors / 2048)) 0 memory_backed=1
	dm_create a <<-EOF
		0 $head_sectors linear /dev/a-disk 0
		$head_sectors 131072 delay /dev/a-disk $head_sectors 500 /dev/a-disk $head_sectors 0
		$((head_sectors + 131072)) $((128 * 2048)) linear /dev/a-disk $((head_sectors + 131072))
	EOF
	mem_leg b 196
	array_of_legs "$1" a b
}

# The medians of five runs, of both levels in turn: one alone scatters by half here.
declare -A seen
for n in 1 2 3 4 5; do
	for level in raid1 raid10; do
		slow_array "$level"
		for op in read write; do
			echo 0 >"$md_dir/sync_min"
			echo 131072 >"$md_dir/sync_max"
			echo check >"$md_dir/sync_action"
			sleep 0.3
			seen[$level-$op]+=" $(iops "$op")"
			[[ $(attribute sync_action) == check ]] || fail "the check was over too early"
			echo idle >"$md_dir/sync_action"
			wait_idle
		done
		clean_up
	done
done
for op in read write; do
	read -ra ours <<<"${seen[raid10-$op]}"
	read -ra reference <<<"${seen[raid1-$op]}"
	row 5 "barrier-other-bucket-$base-raid10-$op-2" "IOPS; reference: raid1" "≥ 0.8" "$(median "${ours[@]}")" "$(median "${reference[@]}")"
done
