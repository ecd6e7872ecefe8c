# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Nobody answers: the array holds, says so, and can be stopped; who has it open hears of it, and keeps it from being stopped until the
# answer. It does not become read-only meanwhile, for its block device would be synced first.
# shellcheck source=../gate-lib.sh
. ./gate-lib.sh
needs_gate

for level in raid1 raid10; do
	for how in ioctl clear inactive; do
		gate_array $level a b
		[[ -z $(tell on) ]]
		write_word 1 old
		leg_fails b
		begin_write 1 new
		gate_is holding
		not_answered 1

		# The writer has it open.
		if stop_array 2>/dev/null; then fail "stopped under a writer"; fi
		if echo clear >"$md_dir/array_state" 2>/dev/null; then fail "cleared under a writer"; fi
		not_answered 1
		[[ $(gate) == holding ]] || fail "the gate is '$(gate)'"
		[[ -z $(tell agree "$(latest)") ]]
		wait_write 1 ok

		# Nobody has it open, and again it holds.
		leg_is_well b
		mdadm --manage "$md" --quiet --remove /run/dm/b
		mdadm --manage "$md" --quiet --re-add /run/dm/b
		for ((n = 0; n < 200; n++)); do [[ $(cat "$(member b state)") == *in_sync* ]] && break || sleep 0.05; done
		echo faulty >"$(member b state)"
		gate_is holding
		if mdadm --readonly "$md" 2>/dev/null; then fail "read-only during a hold"; fi
		if echo readonly >"$md_dir/array_state" 2>/dev/null; then fail "read-only during a hold"; fi
		if echo read-auto >"$md_dir/array_state" 2>/dev/null; then fail "read-auto during a hold"; fi
		[[ $(gate) == holding ]] || fail "the gate is '$(gate)'"
		sleep 0.5
		case $how in
		ioctl) stop_array || fail "does not stop" ;;
		*) echo $how >"$md_dir/array_state" || fail "$how: refused" ;;
		esac
		[[ $how != inactive ]] || stop_array
		# The device goes a moment after the array has stopped.
		state=$(attribute array_state 2>/dev/null || true)
		[[ -z $state || $state == clear ]] || fail "it is still there: $state"
		say "$level, $how: stopped without an answer"
		clean_up
	done
done
