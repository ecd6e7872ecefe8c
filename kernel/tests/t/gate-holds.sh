# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# I1: from the instant at which a member fails, for whatever reason, no write is acknowledged until user space agrees to go on without it.
#
# A stock kernel acknowledges at once. The way to see this test fail: leave out md_gate_member_fails() of a personality's error handler.
# shellcheck source=../gate-lib.sh
. ./gate-lib.sh

# fails_by <cause> <leg>: makes it fail.
fails_by() {
	case $1 in
	write-error | failfast | lockless)
		leg_fails "$2"
		begin_write 9 err
		;;
	faulty) echo faulty >"$(member "$2" state)" ;;
	removed) echo 0 >"$nullb/$2-disk/power" && begin_write 9 err ;;
	superblock)
		leg_head_fails "$2"
		# The state of the array changes, so its superblocks are written.
		echo clean >"$md_dir/array_state" 2>/dev/null || true
		begin_write 9 err
		;;
	bitmap)
		leg_head_fails "$2"
		# The first write to a chunk of the bitmap.
		begin_write 4096 bit
		;;
	esac
}

needs_gate
if in_brief; then causes="failfast superblock"; else causes="write-error failfast faulty removed superblock bitmap"; fi
# With a lockless bitmap, where there are some.
if ! in_brief && [[ $(uname -r) == 7.* ]]; then causes+=" lockless"; fi
for level in raid1 raid10; do
	for cause in $causes; do
		GATE_BITMAP=internal
		[[ $cause != lockless ]] || GATE_BITMAP=lockless
		gate_array $level a b
		[[ $cause != failfast ]] || for leg in a b; do echo failfast >"$(member $leg state)"; done
		[[ $(gate) == off ]] || fail "the gate is '$(gate)' in a new array"
		write_word 1 old
		write_word 2 old
		[[ -z $(tell on) && $(gate) == on ]] || fail "the gate is '$(gate)'"
		write_word 1 new
		[[ $(word_on b 1) == new ]] || fail "not on both legs"
		before=$(cut -d' ' -f1 /proc/uptime)
		perl -e 'open(my $f, "<", $ARGV[0]) or die; sysread($f, my $b, 99); my $e = ""; vec($e, fileno($f), 1) = 1;
			select(undef, undef, $e, 20) > 0 or exit 1; sysseek($f, 0, 0); sysread($f, $b, 99); exit($b ne "holding\n")' "$gate_file" &
		poll=$!
		sleep 0.2

		fails_by $cause b
		gate_is holding
		wait $poll || fail "$level, $cause: poll() was not woken"
		[[ $(waiting) == "$(device b) " ]] || fail "$level, $cause: '$(waiting)' wait"
		since=$(cut -d' ' -f3 "$md_dir/failure_gate_members")
		perl -e 'exit !($ARGV[0] <= $ARGV[1] + 0.02 && $ARGV[1] <= $ARGV[2] + 0.02)' "$before" "$since" "$(cut -d' ' -f1 /proc/uptime)" ||
			fail "$level, $cause: since $since, but it is after $before"

		# Written and not acknowledged; the superblocks say it.
		begin_write 2 new
		not_answered 2 9 4096
		[[ $(word_on a 2) == new ]] || fail "$level, $cause: the write is not on the other leg"
		[[ $(gate) == holding ]] || fail "$level, $cause: no longer held"
		if [[ $cause != removed ]]; then
			check "$level, $cause: events of the other leg" "$(events_of a) > $(mdadm --examine --export /dev/b-disk | sed -n 's/^MD_EVENTS=//p')"
		fi
		[[ $(word_in 1) == new ]] || fail "$level, $cause: a read is wrong"

		[[ -z $(tell agree "$(latest)") ]] || fail "agree was refused"
		wait_write 2 ok
		[[ $(gate) == on && -z $(waiting) ]] || fail "$level, $cause: '$(gate)' after the answer"
		write_word 3 now
		[[ $(attribute degraded) == 1 ]] || fail "not degraded"
		say "$level, $cause: held until user space agreed"
		stop_array
		clean_up
	done
done
