# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Each allocation of a takeover fails in turn, in the task that asks for it: the array is a raid1 as before, or a raid10, and has its data.
needs_patches
[[ -e /proc/self/fail-nth ]] || skip "this kernel cannot make an allocation fail"

mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug
for kind in failslab fail_page_alloc; do
	echo 0 >/sys/kernel/debug/$kind/verbose
	echo N >/sys/kernel/debug/$kind/ignore-gfp-wait
done
echo 0 >/sys/kernel/debug/fail_page_alloc/min-order

# take_over_failing <n>: lets the n-th allocation fail; prints the outcome, and how many were still to come before that one.
take_over_failing() {
	perl -e '
		open(my $nth, "+<", "/proc/thread-self/fail-nth") or die;
		open(my $level, ">", $ARGV[1]) or die;
		syswrite($nth, $ARGV[0]) or die;
		my $done = syswrite($level, "raid10") // "$!";
		sysseek($nth, 0, 0);
		sysread($nth, my $left, 20);
		syswrite($nth, "0");
		chomp $left;
		print "$left $done\n";' "$1" "$md_dir/level"
}

create() {
	mdadm --create "$md" --run --quiet --level=1 --raid-devices=2 --metadata=1.2 --bitmap=internal --assume-clean \
		--data-offset=4096 --size=32M /run/dm/leg0 /run/dm/leg1
	wait_idle
	# Not clean again after each write: the events are to be the takeover's.
	echo 0 >"$md_dir/safe_mode_delay"
}

mem_leg leg0 64
mem_leg leg1 64
create
head -c 8M /dev/urandom >/tmp/data
dd if=/tmp/data of="$md" bs=1M oflag=direct status=none
size=$(cat /sys/block/md0/size)
refused=0 became=0 left=0
for ((n = 1; n < 5000; n++)); do
	events=$(events_of leg0)
	read -r left outcome < <(take_over_failing "$n")
	level=$(attribute level)
	case $level-$outcome in
	"raid1-Cannot allocate memory")
		refused=$((refused + 1))
		[[ $(events_of leg0) == "$events" ]] || fail "allocation $n: refused, but the superblock was written"
		;;
	raid10-6) became=$((became + 1)) ;;
	*) fail "allocation $n: the level is '$level', the outcome '$outcome'" ;;
	esac
	[[ $(cat /sys/block/md0/size) == "$size" ]] || fail "allocation $n: the size is $(cat /sys/block/md0/size)"
	[[ $(attribute degraded) == 0 ]] || fail "allocation $n: degraded"
	dd if=/tmp/data of="$md" bs=64k count=1 oflag=direct conv=notrunc status=none
	dd if="$md" bs=1M count=8 iflag=direct status=none | cmp - /tmp/data || fail "allocation $n: the data is another"
	((left == 0)) || break
	if [[ $level == raid10 ]]; then
		stop_array
		create
	fi
done
((left > 0)) || fail "the takeover makes more than $n allocations"
say "$refused allocations that fail refuse the takeover, $((became - 1)) do not matter; there are no more"
check "allocations that failed" "$refused >= 5"
[[ $(attribute level) == raid10 ]]
check_mirrors
