# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# I1: with the gate on there is no writing behind: what a write-mostly member does not have is not acknowledged.
# shellcheck source=../gate-lib.sh
. ./gate-lib.sh
needs_gate

gate_leg a
gate_leg b
mdadm --create "$md" --run --quiet --level=1 --raid-devices=2 --metadata=1.2 --bitmap=internal --assume-clean --write-behind=256 \
	--data-offset=$((head_sectors / 2)) --size=32M /run/dm/a --write-mostly /run/dm/b
stop_array
mdadm --assemble "$md" --run --quiet --update=no-bbl /run/dm/a /run/dm/b
echo 0 >"$md_dir/safe_mode_delay"
write_word 1 old
[[ $(cat "$(member b state)") == *write_mostly* ]] || fail "b is not write-mostly"

# Off: acknowledged although b answers nothing. While it is in flight the gate cannot be switched on.
leg_hangs b
begin_write 1 new
wait_write 1 ok
[[ $(word_on b 1) == old ]] || fail "b has it"
mark behind
[[ $(tell on) == "Invalid argument" ]] || fail "switched on while a write is behind"
since behind "writes behind are not done" >/dev/null || fail "the log does not say why"
leg_goes_on b
for ((n = 0; n < 100; n++)); do [[ $(word_on b 1) == new ]] && break || sleep 0.05; done
[[ -z $(tell on) ]] || fail "not switched on"

leg_hangs b
begin_write 1 old
not_answered 1
leg_goes_on b
wait_write 1 ok

# And it is held as with other members.
leg_fails b
begin_write 1 now
gate_is holding
not_answered 1
[[ -z $(tell agree "$(latest)") ]]
wait_write 1 ok
say "no write is behind while the gate is on"
stop_array
