# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# I1: a write that is in flight on a leg when that leg fails is not acknowledged before the superblock says that it failed: after a power
# cut in between, with both legs back and the older one in slot 0, what was acknowledged is there.
#
# Stock kernels acknowledge it at once, and the resync after the power cut copies the older leg over it.
#
# The metadata of the leg that is left lies on a device that answers nothing while the leg in slot 0 fails. A power cut is the contents of
# the disks at that moment, put back on disks of another array that is assembled from both.

# cut_leg <name>: a leg whose metadata can be stopped apart from its data.
cut_leg() {
	null_disk "$1-disk" 40 0 memory_backed=1
	echo "0 $head_sectors linear /dev/$1-disk 0" | dm_create "$1-head"
	cut_table "$1" | dm_create "$1"
}

cut_table() {
	echo "0 $head_sectors linear /run/dm/$1-head 0"
	echo "$head_sectors $((40 * 2048 - head_sectors)) linear /dev/$1-disk $head_sectors"
}

stop_answers() { dmsetup suspend "$1" --nolockfs --noflush; }
go_on() { dmsetup resume "$1" --noudevsync --noudevrules; }

# The first word of block 64 of the array, as a disk has it.
word_on() { dd if="/dev/$1-disk" bs=4k skip=$((head_sectors / 8 + 64)) count=1 iflag=direct status=none | head -c 3; }

write_word() { perl -e 'print "$ARGV[0] " x 1024' "$1" | dd of="$md" bs=4k seek=64 count=1 oflag=direct iflag=fullblock conv=notrunc status=none; }

snapshot() { for leg in old new; do dd if="/dev/$leg-disk" of="/tmp/$leg.$1" bs=1M iflag=direct status=none; done; }

# after_cut <snapshot>: what is read at block 64 when both legs come back with what is in it; sets $word. A leg that mdadm leaves out, for
# the other says that it failed, stays out.
after_cut() {
	for leg in old new; do
		mem_leg "$leg-$1" 40
		dd if="/tmp/$leg.$1" of="/dev/$leg-$1" bs=1M oflag=direct status=none
	done
	assemble "old-$1" "new-$1" 2>/dev/null || true
	wait_idle
	word=$(dd if="$md" bs=4k skip=64 count=1 iflag=direct status=none | head -c 3)
	stop_array
}

# one <level> <bitmap> <faulty|failfast>
one() {
	local level=$1 bitmap=$2 cause=$3 layout=() n pid acked word outcome
	[[ $level == raid1 ]] || layout=(--layout=n2 --chunk=64)
	cut_leg old
	cut_leg new
	mdadm --create "$md" --run --quiet --level="$level" --raid-devices=2 "${layout[@]}" --metadata=1.2 --bitmap="$bitmap" --assume-clean \
		--data-offset=$((head_sectors / 2)) --size=32M /run/dm/old /run/dm/new
	stop_array
	mdadm --assemble "$md" --run --quiet --update=no-bbl /run/dm/old /run/dm/new
	echo 0 >"$md_dir/safe_mode_delay"
	for leg in old new; do [[ $cause != failfast ]] || echo failfast >"$(member $leg state)"; done
	write_word old
	[[ $(word_on old) == old && $(word_on new) == old ]] || fail "the first write is not on both legs"

	# In flight on the leg in slot 0, and already on the other.
	stop_answers old
	rm -f /tmp/acked
	(write_word new && touch /tmp/acked) &
	pid=$!
	for ((n = 0; n < 200; n++)); do [[ $(word_on new) == new ]] && break || sleep 0.02; done
	[[ $(word_on new) == new && ! -e /tmp/acked ]] || fail "the write is not in flight"
	stop_answers new-head
	echo "0 $((40 * 2048)) error" | dmsetup load old
	if [[ $cause == faulty ]]; then
		echo faulty >"$(member old state)" &
		for ((n = 0; n < 100; n++)); do [[ $(cat "$(member old state)") == *faulty* ]] && break || sleep 0.02; done
	fi
	go_on old
	for ((n = 0; n < 100; n++)); do [[ -e /tmp/acked ]] && break || sleep 0.02; done
	[[ $(cat "$(member old state)") == *faulty* ]] || fail "the leg did not fail"
	acked=no
	[[ ! -e /tmp/acked ]] || acked=yes
	snapshot cut
	[[ $(word_on old) == old ]] || fail "the write is on the leg that failed"

	# What has hung goes on, and then the write must be acknowledged.
	go_on new-head
	wait $pid
	snapshot later
	stop_array
	after_cut cut
	if [[ $acked == yes ]]; then
		[[ $word == new ]] && outcome=kept || outcome="rolled back"
		say "$level, bitmap $bitmap, $cause: acknowledged before it was recorded, and after the cut $outcome"
		[[ $word == new ]] || lost=$((lost + 1))
		early=$((early + 1))
	else
		say "$level, bitmap $bitmap, $cause: not acknowledged before it was recorded"
	fi
	after_cut later
	[[ $word == new ]] || fail "$level, $bitmap, $cause: lost although the failure was recorded"
	runs=$((runs + 1))
	clean_up
}

lost=0 early=0 runs=0
if in_brief; then bitmaps=internal causes=faulty; else bitmaps="none internal" causes="faulty failfast"; fi
for level in raid1 raid10; do
	for bitmap in $bitmaps; do
		for cause in $causes; do one $level $bitmap $cause; done
	done
done
say "$early of $runs acknowledged early, $lost rolled back"
if [[ -e /sys/module/md_mod/parameters/features ]]; then
	[[ $early == 0 ]] || fail "acknowledged before it was recorded"
else
	[[ $lost -gt 0 ]] || fail "the stock kernel did not show its fault"
fi
