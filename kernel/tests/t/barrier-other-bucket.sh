# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# While a check hangs in one 64 MiB unit, for its reads get no answer, reads and writes of another unit of a raid10 are answered, as those
# of a raid1 are. How fast, b/barrier.sh measures.
#
# On a kernel without the patch this shows that they hang with it.

# start_apart <name> <MiB>: a leg of which the first 64 MiB of data are a device of their own, <name>-start.
start_apart() {
	local name=$1 start=131072
	null_disk "$name-disk" $(($2 + head_sectors / 2048)) 0 memory_backed=1
	dm_create "$name-start" <<<"0 $start linear /dev/$name-disk $head_sectors"
	dm_create "$name" <<-EOF
		0 $head_sectors linear /dev/$name-disk 0
		$head_sectors $start linear /run/dm/$name-start 0
		$((head_sectors + start)) $((($2 - 64) * 2048)) linear /dev/$name-disk $((head_sectors + start))
	EOF
}

reads_in_flight() { awk '{ print $1 }' "/sys/block/$(device "$1")/inflight"; }

# kib_of <read or write>: how much a fio of 3 s reads or writes of the second unit.
kib_of() {
	fio --name=f --filename="$md" --direct=1 --rw="rand$1" --bs=4k --ioengine=io_uring --iodepth=2 --offset=72M --size=48M \
		--runtime=3 --time_based --minimal --terse-version=3 | awk -F';' -v field="$([[ $1 == read ]] && echo 6 || echo 47)" '{ print $field }'
}

for level in raid1 raid10; do
	start_apart a 192
	mem_leg b 196
	array_of_legs "$level" a b
	# The first one to open it looks for partitions, in the first unit.
	: <"$md"
	for op in read write; do
		dmsetup suspend a-start --nolockfs --noflush
		echo 0 >"$md_dir/sync_min"
		echo 131072 >"$md_dir/sync_max"
		echo check >"$md_dir/sync_action"
		for ((n = 0; n < 100; n++)); do (($(reads_in_flight a) > 0)) && break || sleep 0.1; done
		check "reads of the check that wait" "$(reads_in_flight a) > 0"

		kib_of "$op" >/tmp/kib &
		fio=$!
		# A stock kernel's hang with the check, until that ends. There is no hurry: 60 s are for a machine that does much besides.
		for ((n = 0; n < 600; n++)); do
			[[ -d /proc/$fio ]] && sleep 0.1 || break
			if ! has latency_balance && [[ $level == raid10 ]] && ((n == 80)); then break; fi
		done
		hangs=$([[ -d /proc/$fio ]] && echo 1 || echo 0)
		[[ $(attribute sync_action) == check ]] || fail "the check was over before the I/O was"
		check "reads of the check that still wait" "$(reads_in_flight a) > 0"
		dmsetup resume a-start --noudevsync --noudevrules
		wait "$fio"
		echo idle >"$md_dir/sync_action"
		wait_idle

		if [[ $level == raid1 ]] || has latency_balance; then
			say "$level: ${op}s go on while a check of another unit hangs"
			check "$level: ${op}s hang with a check of another unit" "$hangs == 0"
			check "$level: KiB of ${op}s while a check of another unit hung" "$(cat /tmp/kib) > 400"
		else
			say "$level: ${op}s hang while a check of another unit does"
			check "${op}s of a stock raid10 hang" "$hangs == 1"
		fi
	done
	clean_up
done
