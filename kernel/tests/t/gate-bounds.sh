# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# I8: what cannot have the gate is refused it, with a reason, and what does not go with it is refused while it is on. It is off in a new
# assembly.
# shellcheck source=../gate-lib.sh
. ./gate-lib.sh
needs_gate

not_on() { # <reason in the log>
	mark "on-$1"
	[[ $(tell on) == "Invalid argument" ]] || fail "switched on, but: $1"
	since "on-$1" "cannot switch on the failure gate: .*$1" >/dev/null || fail "the log does not say '$1'"
	[[ $(gate) == off ]] || fail "the gate is '$(gate)'"
	if has level; then stop_array; fi
	clean_up
	for leg in a b c; do gate_leg $leg; done
}

for leg in a b c; do gate_leg $leg; done
mdadm --create "$md" --run --quiet --level=1 --assume-clean --raid-devices=2 --metadata=0.90 --bitmap=none /run/dm/a /run/dm/b
not_on "its metadata is not v1.x"
mdadm --create "$md" --run --quiet --level=0 --raid-devices=2 /run/dm/a /run/dm/b
not_on "not a raid1 or raid10 that runs"
mdadm --create "$md" --run --quiet --level=1 --assume-clean --raid-devices=2 --metadata=1.2 --bitmap=none /run/dm/a /run/dm/b
echo "100 8" >"$(member a bad_blocks)"
not_on "a device has bad blocks"
say "refused where it cannot be"

gate_array raid1 a b
for wrong in "" x agree "agree 1" refuse "on on"; do [[ -n $(tell "$wrong") ]] || fail "'$wrong' was taken while the gate is off"; done
[[ -z $(tell off) && -z $(tell on) && -z $(tell on) && -z $(tell off) && $(gate) == off ]] || fail "on and off: '$(gate)'"
[[ -z $(tell on) ]]
stop_array
assemble a b
[[ $(gate) == off ]] || fail "the gate is '$(gate)' in a new assembly"
echo 0 >"$md_dir/safe_mode_delay"

[[ -z $(tell on) ]]
echo inactive >"$md_dir/array_state"
[[ $(gate) == off ]] || fail "the gate is '$(gate)' in an array that does not run"
stop_array
assemble a b
echo 0 >"$md_dir/safe_mode_delay"

# A hold ends with an answer only.
[[ -z $(tell on) ]]
write_word 1 old
echo faulty >"$(member b state)"
gate_is holding
for wrong in on off; do [[ $(tell $wrong) == "Device or resource busy" ]] || fail "'$wrong' was taken"; done
if echo remove >"$(member b state)" 2>/dev/null; then fail "removed before the answer"; fi
if mdadm --manage "$md" --quiet --remove /run/dm/b 2>/dev/null; then fail "removed before the answer"; fi
if echo re-add >"$(member b state)" 2>/dev/null; then fail "added again before the answer"; fi
[[ $(gate) == holding && $(waiting) == "$(device b) " ]] || fail "the gate is '$(gate)'"
[[ -z $(tell agree "$(latest)") ]]
mdadm --manage "$md" --quiet --remove /run/dm/b
mdadm --manage "$md" --quiet --re-add /run/dm/b
for ((n = 0; n < 200; n++)); do [[ $(attribute degraded) == 0 ]] && break || sleep 0.05; done
wait_idle

# Other levels do not have it; raid10 takes over with the gate on.
mark level
if echo raid0 >"$md_dir/level" 2>/dev/null; then fail "raid0 took over"; fi
since level "the failure gate is on" >/dev/null || fail "the log does not say why"
echo raid10 >"$md_dir/level"
[[ $(attribute level) == raid10 && $(gate) == on ]] || fail "$(attribute level), '$(gate)'"
leg_fails b
begin_write 1 new
gate_is holding
not_answered 1
[[ -z $(tell agree "$(latest)") ]]
wait_write 1 ok
stop_array
clean_up
say "an answer is what ends a hold"

# Off is as stock.
gate_array raid1 a b
[[ -z $(tell on) && -z $(tell off) ]]
leg_fails b
begin_write 1 new
wait_write 1 ok
[[ $(gate) == off && -z $(waiting) ]] || fail "the gate is '$(gate)'"
stop_array
say "off, nothing is held"
