# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The recovery of a member of a raid10 with a far layout, by the bitmap, is interrupted in its second half and goes on later: all that
# the member has missed is copied.
#
# A stock kernel forgets, at the interruption, what it has not come to: the first half has taken the bits for both copies.
legs=()
for n in 0 1 2 3; do
	mem_leg "leg$n" 72
	legs+=("/run/dm/leg$n")
done
mdadm --create "$md" --run --quiet --level=10 --layout=f2 --chunk=64 --raid-devices=4 --metadata=1.2 --bitmap=internal \
	--bitmap-chunk=1M --data-offset=4096 --size=64M "${legs[@]}"
wait_idle
dd if=/dev/urandom of="$md" bs=1M count=128 oflag=direct status=none
mdadm --manage "$md" --quiet --fail /run/dm/leg0
mdadm --manage "$md" --quiet --remove /run/dm/leg0
dd if=/dev/urandom of="$md" bs=1M count=128 oflag=direct status=none

# Slow enough to be interrupted, at 48 of 64 MiB of the device.
echo $((48 * 2048)) >"$md_dir/sync_max"
mdadm --manage "$md" --quiet --re-add /run/dm/leg0
for ((n = 0; n < 300; n++)); do
	read -r done_sectors _ <<<"$(attribute sync_completed)"
	[[ $done_sectors == "$((48 * 2048))" ]] && break
	sleep 0.1
done
[[ $done_sectors == "$((48 * 2048))" ]] || fail "the recovery has come to $(attribute sync_completed)"
mark interrupted
echo frozen >"$md_dir/sync_action"
for ((n = 0; n < 100; n++)); do since interrupted 'recover interrupted|recovery interrupted' >/dev/null && break || sleep 0.1; done
since interrupted 'interrupted' >/dev/null || fail "the recovery was not interrupted"
echo max >"$md_dir/sync_max"
echo idle >"$md_dir/sync_action"
for ((n = 0; n < 300; n++)); do [[ $(attribute degraded) == 0 ]] && break || sleep 0.1; done
[[ $(attribute degraded) == 0 ]] || fail "not recovered"
wait_idle
echo check >"$md_dir/sync_action"
wait_idle
stale=$(attribute mismatch_cnt)
say "$stale sectors differ after the recovery"
if has latency_balance; then
	[[ $stale == 0 ]] || fail "data was lost"
else
	[[ $stale != 0 ]] || fail "the stock kernel did not show its fault"
fi
