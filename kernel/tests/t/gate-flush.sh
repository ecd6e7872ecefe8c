# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# I1: flushes are held as writes are, with data and without, and a member that cannot flush has failed.
#
# A stock kernel takes the flush for done if a member could not do it, and the member for good.
# shellcheck source=../gate-lib.sh
. ./gate-lib.sh
needs_gate

flush() { perl -MIO::Handle -e 'open(my $f, "+<", $ARGV[0]) or die; $f->sync or die "sync: $!"' "$md"; }
flushes_of() { awk '{ print $16 }' "/sys/block/$1/stat"; }

# Its reads and writes are good, its flushes are errors.
flush_fails() {
	echo "0 $((gate_mib * 2048)) flakey /dev/$1-disk 0 0 1 1 error_writes" | leg_becomes "$1"
}

for level in raid1 raid10; do
	gate_leg a cache_size=8
	gate_leg b cache_size=8
	gate_array $level a b
	[[ -z $(tell on) ]]
	write_word 1 old
	before=$(flushes_of b-disk)
	begin flush
	wait_begun ok
	check "flushes that a leg was sent" "$(flushes_of b-disk) > $before"

	# Nothing was written: the flush alone tells.
	flush_fails b
	begin flush
	gate_is holding
	[[ $(waiting) == "$(device b) " ]] || fail "'$(waiting)' wait"
	sleep 1
	[[ ! -e /tmp/begun.ok && ! -e /tmp/begun.error ]] || fail "$level: a flush that a member failed was answered"
	begin_write 2 new oflag=direct,dsync
	not_answered 2
	[[ -z $(tell agree "$(latest)") ]]
	wait_begun ok
	wait_write 2 ok

	# The last member's is an error.
	flush_fails a
	begin flush
	wait_begun error
	say "$level: flushes are held, and one that fails is a failure"
	for ((n = 0; n < 50; n++)); do stop_array 2>/dev/null && break || sleep 0.1; done
	clean_up

	# During a hold of another reason.
	gate_array $level a b
	[[ -z $(tell on) ]]
	write_word 1 old
	begin flush
	wait_begun ok
	echo faulty >"$(member b state)"
	gate_is holding
	begin flush
	sleep 1
	[[ ! -e /tmp/begun.ok && ! -e /tmp/begun.error ]] || fail "$level: a flush was answered"
	[[ -z $(tell agree "$(latest)") ]]
	wait_begun ok
	stop_array
	clean_up
done
