# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# While a check waits 500 ms for each read of one 64 MiB unit, I/O in another unit of a raid10 goes on as in a raid1.
#
# On a kernel without the patch this shows that it does not.

# slow_start <name> <MiB>: a leg of which the first 64 MiB of data answer reads after 500 ms.
slow_start() {
	local rest=$((($2 - 64) * 2048))
	null_disk "$1-disk" $(($2 + head_sectors / 2048)) 0 memory_backed=1
	dm_create "$1" <<-EOF
		0 $head_sectors linear /dev/$1-disk 0
		$head_sectors 131072 delay /dev/$1-disk $head_sectors 500 /dev/$1-disk $head_sectors 0
		$((head_sectors + 131072)) $rest linear /dev/$1-disk $((head_sectors + 131072))
	EOF
}

iops() { # <read or write>: of the second unit, two at a time
	fio --name=f --filename="$md" --direct=1 --rw="rand$1" --bs=4k --ioengine=io_uring --iodepth=2 --offset=72M --size=48M \
		--runtime=2 --time_based --minimal --terse-version=3 | awk -F';' -v field="$([[ $1 == read ]] && echo 8 || echo 49)" '{ print int($field) }'
}

for level in raid1 raid10; do
	slow_start a 192
	mem_leg b 196
	array_of_legs "$level" a b
	for op in read write; do
		alone=$(iops "$op")
		echo 0 >"$md_dir/sync_min"
		echo 131072 >"$md_dir/sync_max"
		echo check >"$md_dir/sync_action"
		sleep 0.3
		during=$(iops "$op")
		[[ $(attribute sync_action) == check ]] || fail "the check was over before the I/O was"
		read -r done_sectors _ <<<"$(attribute sync_completed)"
		[[ $done_sectors == none ]] || check "place of the check" "$done_sectors < 131072"
		echo idle >"$md_dir/sync_action"
		wait_idle
		say "$level: $alone $op IOPS alone, $during during the check of another unit"
		if [[ $level == raid1 ]]; then
			eval "raid1_$op=$during"
		elif has latency_balance; then
			base=raid1_$op
			check "raid10 during the check, and raid1" "$during * 10 >= ${!base} * 5"
		else
			check "a stock raid10 during the check, and alone" "$during * 5 < $alone"
		fi
	done
	clean_up
done
