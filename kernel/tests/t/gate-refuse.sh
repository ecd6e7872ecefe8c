# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# I1: when user space refuses, held writes and flushes end as errors, nothing is acknowledged afterwards, reads go on, and the array can be
# stopped; so too when nothing was held.
# shellcheck source=../gate-lib.sh
. ./gate-lib.sh
needs_gate

for level in raid1 raid10; do
	gate_array $level a b
	[[ -n $(tell refuse) ]] || fail "refused although the gate is off"
	[[ -z $(tell on) ]]
	write_word 1 old
	leg_fails b
	begin_write 1 new
	begin_write 2 new
	gate_is holding
	begin blockdev --flushbufs "$md"
	wait_begun ok
	begin perl -MIO::Handle -e 'open(my $f, "+<", $ARGV[0]) or die; sysseek($f, 12288, 0); syswrite($f, "x" x 4096); $f->sync or die "sync: $!"' "$md"
	not_answered 1 2
	[[ ! -e /tmp/begun.ok && ! -e /tmp/begun.error ]] || fail "a sync was answered"
	[[ -z $(tell refuse) ]] || fail "the refusal was refused"
	wait_write 1 error
	wait_write 2 error
	wait_begun error
	grep -q "Input/output error" /tmp/begun.output || fail "the sync said: $(cat /tmp/begun.output)"
	[[ $(gate) == refused && -z $(waiting) ]] || fail "the gate is '$(gate)', '$(waiting)' wait"
	for n in 1 2 3; do
		begin_write 5 bad
		wait_write 5 error
	done
	begin perl -MIO::Handle -e 'open(my $f, "+<", $ARGV[0]) or die; $f->sync or die "sync: $!"' "$md"
	wait_begun error
	for word in on off "agree 1"; do [[ -n $(tell "$word") ]] || fail "'$word' was taken"; done
	[[ $(word_on a 5) != bad ]] || fail "what comes after a refusal is written"
	[[ $(word_in 1) == new || $(word_in 1) == old ]] || fail "no reads: $(word_in 1)"
	stop_array || fail "the array does not stop"

	# A new assembly begins with the gate off.
	assemble a
	[[ $(gate) == off ]] || fail "the gate is '$(gate)' in a new assembly"
	write_word 1 now
	stop_array
	clean_up

	# Without a failure, and with a write in flight on a leg.
	gate_array $level a b
	[[ -z $(tell on) ]]
	write_word 1 old
	leg_hangs b
	begin_write 1 new
	not_answered 1
	[[ -z $(tell refuse) ]]
	begin_write 2 new
	wait_write 2 error
	leg_goes_on b
	wait_write 1 error
	stop_array
	say "$level: what was held and what came later ended as errors"
	clean_up
done
