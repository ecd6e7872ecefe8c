# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# I1: a second failure is not agreed to by accident: an agreement that names the first one is refused, and what is held stays held. Nor does
# an agreement that comes late, once more, or from before a member returned do anything.
# shellcheck source=../gate-lib.sh
. ./gate-lib.sh
needs_gate

for level in raid1 raid10; do
	GATE_LAYOUT=n3 gate_array $level a b c
	[[ -z $(tell on) ]]
	[[ $(tell agree 1) == "Stale file handle" ]] || fail "an agreement to nothing was not refused"
	write_word 1 old
	leg_fails b
	begin_write 1 new
	gate_is holding
	first=$(latest)
	echo faulty >"$(member c state)"
	for ((n = 0; n < 100; n++)); do [[ $(latest) != "$first" ]] && break || sleep 0.05; done
	second=$(latest)
	check "number of the second failure" "$second > $first"
	[[ $(wc -w <<<"$(waiting)") == 2 ]] || fail "'$(waiting)' wait"
	for wrong in "$first" $((second + 1)) 0 -1 x ""; do
		[[ -n $(tell agree "$wrong") ]] || fail "agree '$wrong' was taken"
	done
	[[ $(tell agree "$first") == "Stale file handle" ]] || fail "the error was '$(tell agree "$first")'"
	not_answered 1
	[[ $(gate) == holding ]] || fail "the gate is '$(gate)'"
	[[ -z $(tell agree "$second") ]] || fail "the right one was refused"
	wait_write 1 ok
	[[ -z $(tell agree "$second") ]] || fail "the same once more was refused"

	# One comes back, and fails again: what was agreed to before does not count for that.
	mdadm --manage "$md" --quiet --remove /run/dm/c
	mdadm --manage "$md" --quiet --re-add /run/dm/c
	for ((n = 0; n < 200; n++)); do [[ $(cat "$(member c state)") == *in_sync* ]] && break || sleep 0.05; done
	[[ $(cat "$(member c state)") == *in_sync* ]] || fail "c does not return"
	leg_fails c
	begin_write 1 old
	gate_is holding
	[[ $(tell agree "$second") == "Stale file handle" ]] || fail "an old agreement was taken for a new failure"
	not_answered 1
	[[ -z $(tell agree "$(latest)") ]]
	wait_write 1 ok
	say "$level: agreed to what was named, and to nothing else"
	stop_array
	clean_up
done
