# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The power goes while a raid1 under load becomes a raid10: every write that was acknowledged is there afterwards, on all legs, and the
# array is a raid1 or a raid10.
#
# All legs lie on one device, which from one moment on answers nothing any more: that is the cut. Nothing that comes later reaches a
# disk. The writer is told of a write after it is on both, as with O_DSYNC.
needs_patches

# Writes blocks of 4 KiB in random order, each full of a number that grows, and prints "<block> <number>" before and "ok" after each.
write_for_ever() {
	perl -e '
		use Fcntl; $| = 1;
		sysopen(my $disk, $ARGV[0], O_WRONLY | O_SYNC) or die;
		for (my $n = 1; ; $n++) {
			my $block = int(rand(4096));
			print "$block $n\n";
			sysseek($disk, $block * 4096, 0) or exit;
			(syswrite($disk, pack("N", $n) x 1024) // 0) == 4096 or exit;
			print "ok\n";
		}' "$md"
}

# Each block has the number of the last write that was acknowledged, or one that was tried after it.
compare() { # <log>
	perl -e '
		my (%acknowledged, %tried, $block, $n, $wrong, $writes);
		open(my $log, "<", $ARGV[0]) or die;
		while (<$log>) {
			if (/^(\d+) (\d+)$/) { ($block, $n) = ($1, $2); $tried{$block}{$n} = 1 }
			elsif (/^ok$/) { $acknowledged{$block} = $n; $tried{$block} = {}; $writes++ }
		}
		open(my $disk, "<", $ARGV[1]) or die;
		for my $block (keys %acknowledged) {
			sysseek($disk, $block * 4096, 0) or die;
			sysread($disk, my $data, 4096) == 4096 or die;
			my $n = unpack("N", $data);
			my $right = $data eq pack("N", $n) x 1024 && ($n == $acknowledged{$block} || $tried{$block}{$n});
			unless ($right) { $wrong++; print "block $block has $n, not $acknowledged{$block}\n" }
		}
		print "$writes\n";
		exit($wrong || !$writes ? 1 : 0)' "$1" "$md"
}

# cut_after <ms> <legs>: one takeover under load and one cut, asked for that long after the takeover, or before it if <ms> is negative;
# sets $level to what came back.
cut_after() {
	local ms=$1 count=$2 legs=() n writer taker size=$((24 * 2048))
	null_disk disk $((24 * count)) 0 memory_backed=1
	echo "0 $((size * count)) linear /dev/disk 0" | dm_create base
	for ((n = 0; n < count; n++)); do
		echo "0 $size linear /run/dm/base $((n * size))" | dm_create "leg$n"
		legs+=("leg$n")
	done
	mdadm --create "$md" --run --quiet --level=1 --raid-devices="$count" --metadata=1.2 --bitmap=internal --assume-clean \
		--data-offset=4096 --size=16M "${legs[@]/#//run/dm/}"
	write_for_ever >/tmp/writes &
	writer=$!
	for ((n = 0; n < 600; n++)); do (($(grep -c '^ok' /tmp/writes) >= 20)) && break || sleep 0.05; done
	check "acknowledged writes" "$(grep -c '^ok' /tmp/writes) >= 20"

	echo "0 $((size * count)) error" | dmsetup load base
	(
		if ((ms < 0)); then sleep "$(printf '%d.%03d' $((-ms / 1000)) $((-ms % 1000)))"; fi
		echo raid10 >"$md_dir/level"
	) 2>/dev/null &
	taker=$!
	if ((ms > 0)); then sleep "$(printf '0.%03d' "$ms")"; fi
	# The writer goes while nothing is answered, so that it is not told of a write that ends in an error of one leg only.
	dmsetup suspend base --nolockfs --noflush
	kill -9 "$writer"
	dmsetup resume base --noudevsync --noudevrules
	wait "$taker" || true
	wait "$writer" 2>/dev/null || true
	for ((n = 0; n < 100; n++)); do stop_array 2>/dev/null && break || sleep 0.1; done
	[[ ! -e $md_dir ]] || fail "the array does not stop"

	echo "0 $((size * count)) linear /dev/disk 0" | dmsetup load base
	dmsetup suspend base --nolockfs --noflush
	dmsetup resume base --noudevsync --noudevrules
	assemble_newest "${legs[@]}"
	wait_idle
	level=$(attribute level)
	[[ $level == raid1 || $level == raid10 ]] || fail "the level is $level"
	compare /tmp/writes >/tmp/compared || fail "$ms ms, $level: $(tail -n 3 /tmp/compared)"
	check_mirrors
	stop_array
	clean_up
}

declare -A times=([raid1]=0 [raid10]=0)
cuts=0
cut() {
	cut_after "$@"
	times[$level]=$((times[$level] + 1))
	cuts=$((cuts + 1))
}
# In ms. The takeover itself takes less than 100.
if in_brief; then delays="0 20 50 400"; else delays="0 5 10 20 30 40 60 90 150 400"; fi
for count in 2 3; do
	for ms in $delays; do cut $ms $count; done
	# Where a program takes longer to start than the takeover lasts, the cut has to be asked for first.
	for ((ms = -50; times[raid1] == 0 && ms >= -2000; ms -= 50)); do cut $ms $count; done
done
say "$cuts power cuts: ${times[raid1]} times a raid1, ${times[raid10]} times a raid10 came back, with all that was acknowledged"
check "cuts before the takeover was on the disks, and after it" "${times[raid1]} > 0 && ${times[raid10]} > 0"
