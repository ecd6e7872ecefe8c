# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# A hold keeps nothing else from going on: a suspended range, a member added and recovered, a resync, a check, a reshape, a change of the
# bitmap. What is held stays held meanwhile.
# shellcheck source=../gate-lib.sh
. ./gate-lib.sh
needs_gate

hold() { # <leg>: with a write of block 1 that is held
	leg_fails "$1"
	begin_write 1 new
	gate_is holding
}
still_held() {
	NOT_ANSWERED=0.2 not_answered 1
	[[ $(gate) == holding ]] || fail "$1: the gate is '$(gate)'"
}

for level in raid1 raid10; do
	gate_array $level a b
	gate_leg c
	[[ -z $(tell on) ]]
	dd if=/dev/urandom of="$md" bs=1M count=32 oflag=direct status=none
	hold b

	echo 0 >"$md_dir/suspend_lo"
	echo 1000000 >"$md_dir/suspend_hi"
	begin_write 7 new
	still_held suspend
	echo 0 >"$md_dir/suspend_hi"
	not_answered 7
	still_held suspend

	# Recovered, and a member that counts: it fails, and is waited for as well.
	mdadm --manage "$md" --quiet --add-spare /run/dm/c || fail "$level: no member can be added"
	for ((n = 0; n < 400; n++)); do [[ $(attribute degraded) == 0 ]] && break || sleep 0.05; done
	[[ $(attribute degraded) == 0 ]] || fail "$level: not recovered during a hold"
	still_held recovery
	wait_idle
	[[ $(word_on c 1) == new ]] || fail "$level: c does not have what is held"
	echo check >"$md_dir/sync_action"
	wait_idle
	still_held check
	first=$(latest)
	echo faulty >"$(member c state)"
	for ((n = 0; n < 100; n++)); do [[ $(latest) != "$first" ]] && break || sleep 0.05; done
	[[ $(wc -w <<<"$(waiting)") == 2 ]] || fail "'$(waiting)' wait"
	mdadm --grow "$md" --bitmap=none || fail "$level: the bitmap cannot be removed"
	mdadm --grow "$md" --bitmap=internal || fail "$level: no bitmap can be added"
	still_held bitmap
	[[ -z $(tell agree "$(latest)") ]]
	wait_write 1 ok
	wait_write 7 ok
	say "$level: suspended, recovered, checked, another bitmap, all during a hold"
	stop_array
	clean_up
done

# A hold begins while a resync runs, and the resync ends.
for level in raid1 raid10; do
	gate_array $level a b c
	[[ -z $(tell on) ]]
	echo 500 >"$md_dir/sync_speed_max"
	echo 500 >"$md_dir/sync_speed_min"
	echo repair >"$md_dir/sync_action"
	for ((n = 0; n < 100; n++)); do [[ $(attribute sync_action) == repair ]] && break || sleep 0.02; done
	hold c
	echo 200000 >"$md_dir/sync_speed_max"
	wait_idle
	still_held resync
	[[ -z $(tell agree "$(latest)") ]]
	wait_write 1 ok
	stop_array
	clean_up
done
say "a resync that ran goes on"

# A reshape to more disks, with a failure in the middle; one to fewer disks is refused.
for leg in a b c d; do gate_leg $leg; done
mdadm --create "$md" --run --quiet --level=10 --raid-devices=2 --layout=n2 --chunk=64 --metadata=1.2 --bitmap=none --assume-clean \
	--data-offset=$((head_sectors / 2)) --size=32M /run/dm/a /run/dm/b
stop_array
mdadm --assemble "$md" --run --quiet --update=no-bbl /run/dm/a /run/dm/b
echo 0 >"$md_dir/safe_mode_delay"
[[ -z $(tell on) ]]
dd if=/dev/urandom of="$md" bs=1M count=32 oflag=direct status=none
sum=$(dd if="$md" bs=1M skip=1 count=31 iflag=direct status=none | sha256sum)
mdadm --manage "$md" --quiet --add-spare /run/dm/c
mdadm --manage "$md" --quiet --add-spare /run/dm/d
echo 2000 >"$md_dir/sync_speed_max"
echo 2000 >"$md_dir/sync_speed_min"
mdadm --grow "$md" --raid-devices=4 >/tmp/grow 2>&1 || fail "no reshape: $(cat /tmp/grow)"
for ((n = 0; n < 100; n++)); do [[ $(attribute sync_action) == reshape ]] && break || sleep 0.02; done
[[ $(attribute sync_action) == reshape ]] || fail "no reshape runs: $(attribute sync_action)"
hold b
echo 200000 >"$md_dir/sync_speed_max"
for ((n = 0; n < 600; n++)); do [[ $(attribute reshape_position) == none && $(attribute sync_action) == idle ]] && break || sleep 0.1; done
[[ $(attribute raid_disks) == 4 && $(attribute reshape_position) == none ]] || fail "the reshape did not end: $(attribute reshape_position)"
still_held reshape
[[ -z $(tell agree "$(latest)") ]]
wait_write 1 ok
[[ $(dd if="$md" bs=1M skip=1 count=31 iflag=direct status=none | sha256sum) == "$sum" ]] || fail "the reshape has changed the data"
mdadm --manage "$md" --quiet --remove /run/dm/b
leg_is_well b
mdadm --zero-superblock /run/dm/b
mdadm --manage "$md" --quiet --add-spare /run/dm/b
for ((n = 0; n < 400; n++)); do [[ $(attribute degraded) == 0 ]] && break || sleep 0.05; done
wait_idle
mdadm --grow "$md" --array-size=32M
mark fewer
if mdadm --grow "$md" --raid-devices=2 >/tmp/grow 2>&1; then fail "a reshape to fewer disks was begun"; fi
since fewer "no reshape to fewer devices: the failure gate is on" >/dev/null || fail "the log does not say why: $(cat /tmp/grow)"
say "a reshape that ran goes on"
stop_array
