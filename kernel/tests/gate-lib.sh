# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Sourced by the t/gate-* tests: arrays with the failure gate, and legs that fail.

gate_mib=40
gate_file=$md_dir/failure_gate

# gate_leg <name> [<attribute of the disk>=<value>…]: a leg that keeps what is written, and can be made to fail.
gate_leg() {
	local name=$1
	shift
	null_disk "$name-disk" $gate_mib 0 memory_backed=1 discard=1 "$@"
	echo "0 $((gate_mib * 2048)) linear /dev/$name-disk 0" | dm_create "$name"
}

# leg_becomes <name>, and its new table on standard input; what is in flight comes to that.
leg_becomes() {
	dmsetup load "$1"
	dmsetup suspend "$1" --nolockfs --noflush
	dmsetup resume "$1" --noudevsync --noudevrules
}
leg_fails() { echo "0 $((gate_mib * 2048)) error" | leg_becomes "$1"; }
leg_is_well() { echo "0 $((gate_mib * 2048)) linear /dev/$1-disk 0" | leg_becomes "$1"; }
# Reads and writes of data go on, its superblock cannot be written.
leg_head_fails() {
	leg_becomes "$1" <<-END
		0 $head_sectors error
		$head_sectors $((gate_mib * 2048 - head_sectors)) linear /dev/$1-disk $head_sectors
	END
}
leg_hangs() { dmsetup suspend "$1" --nolockfs --noflush; }
leg_goes_on() { dmsetup resume "$1" --noudevsync --noudevrules; }

# gate_array <level> <leg>…: an array in sync, without lists of bad blocks, which stays active once it is written to.
# GATE_BITMAP is its bitmap, internal if that is not set.
gate_array() {
	local level=$1 layout=() paths=() leg bitmap=(--bitmap="${GATE_BITMAP:-internal}")
	[[ $bitmap != *internal ]] || bitmap+=(--bitmap-chunk=1M)
	shift
	for leg in "$@"; do
		[[ -e /run/dm/$leg ]] || gate_leg "$leg"
		paths+=("/run/dm/$leg")
	done
	[[ $level == raid1 ]] || layout=(--layout="${GATE_LAYOUT:-n2}" --chunk=64)
	rm -f /tmp/write-* /tmp/begun.*
	mdadm --create "$md" --run --quiet --level="$level" --raid-devices=$# "${layout[@]}" --metadata=1.2 "${bitmap[@]}" \
		--assume-clean --data-offset=$((head_sectors / 2)) --size=32M "${paths[@]}"
	stop_array
	mdadm --assemble "$md" --run --quiet --update=no-bbl "${paths[@]}"
	echo 0 >"$md_dir/safe_mode_delay"
}

gate() { cat "$gate_file"; }
# tell <word>…: as one write; prints what went wrong, if anything.
tell() { { echo "$*" >"$gate_file"; } 2>&1 | sed 's/.*: //'; }
# The number of the latest failure that waits, and the names of the members, each as "leg" if it is one.
latest() { sort -n "$md_dir/failure_gate_members" | tail -n 1 | cut -d' ' -f1; }
waiting() { awk '{ print $2 }' "$md_dir/failure_gate_members" | sort | tr '\n' ' '; }

gate_is() {
	local n
	for ((n = 0; n < 200; n++)); do [[ $(gate) == "$1" ]] && return || sleep 0.05; done
	fail "the gate is '$(gate)', not '$1'"
}

# begin_write <block> <word> [<dd option>…]: writes a block of 4 KiB full of that word, not waiting for it.
begin_write() {
	local block=$1 word=$2
	shift 2
	rm -f "/tmp/write-$block".*
	(
		if perl -e 'print "$ARGV[0] " x 1024' "$word" |
			dd of="$md" bs=4k seek="$block" count=1 oflag=direct iflag=fullblock conv=notrunc status=none "$@" 2>/dev/null; then
			: >"/tmp/write-$block.ok"
		else
			: >"/tmp/write-$block.error"
		fi
	) &
}
# wait_write <block> ok|error: within 10 s.
wait_write() {
	local n
	for ((n = 0; n < 200; n++)); do [[ -e /tmp/write-$1.$2 ]] && return || sleep 0.05; done
	fail "the write of block $1 is not $2: $(echo /tmp/write-"$1".*)"
}
# not_answered <block>…: none of them has ended after a while.
not_answered() {
	local block
	sleep "${NOT_ANSWERED:-1}"
	for block in "$@"; do
		[[ ! -e /tmp/write-$block.ok ]] || fail "the write of block $block was acknowledged"
		[[ ! -e /tmp/write-$block.error ]] || fail "the write of block $block was an error"
	done
}
write_word() {
	begin_write "$@"
	wait_write "$1" ok
}

# The word in a block of the array as a disk, or the array, has it.
word_on() { dd if="/dev/$1-disk" bs=4k skip=$((head_sectors / 8 + $2)) count=1 iflag=direct status=none | head -c 3 | tr -d "\0"; }
word_in() { dd if="$md" bs=4k skip="$1" count=1 iflag=direct status=none | head -c 3 | tr -d "\0"; }

# begin <command…>: in the background, its end in /tmp/begun.{ok,error}.
begin() {
	rm -f /tmp/begun.*
	(if "$@" >/tmp/begun.output 2>&1; then : >/tmp/begun.ok; else : >/tmp/begun.error; fi) &
}
wait_begun() {
	local n
	for ((n = 0; n < 200; n++)); do [[ -e /tmp/begun.$1 ]] && return || sleep 0.05; done
	fail "not $1: $(echo /tmp/begun.*; cat /tmp/begun.output)"
}

needs_gate() {
	needs_patches
	[[ " $(tr '\n' ' ' </sys/module/md_mod/parameters/features)" == *" failure_gate "* ]] || skip "no failure gate in this kernel"
}
