# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# A raid10 with the classic bitmap loses D, is written to, loses B, and rebuilds B: what D has missed is not forgotten, so D is up to
# date when it returns.
#
# Debian's 6.12.107 forgot it; its 6.12.117 and 7.3 are right, stock or patched.
legs=()
for n in 0 1 2 3; do
	mem_leg "leg$n" 72
	legs+=("/run/dm/leg$n")
done
mdadm --create "$md" --run --quiet --level=10 --layout=n2 --chunk=64 --raid-devices=4 --metadata=1.2 --bitmap=internal \
	--data-offset=4096 --size=64M "${legs[@]}"
wait_idle
dd if=/dev/urandom of="$md" bs=1M count=128 oflag=direct status=none

away() { mdadm --manage "$md" --quiet --fail "/run/dm/$1" && mdadm --manage "$md" --quiet --remove "/run/dm/$1"; }
back() {
	mdadm --manage "$md" --quiet --re-add "/run/dm/$1"
	for ((n = 0; n < 300; n++)); do [[ $(cat "$(member "$1" state)") == *in_sync* ]] && return || sleep 0.1; done
	fail "$1 is not in sync: $(cat "$(member "$1" state)")"
}

away leg0
dd if=/dev/urandom of="$md" bs=1M count=8 seek=40 oflag=direct status=none
sum=$(dd if="$md" bs=1M skip=40 count=8 iflag=direct status=none | sha256sum)
away leg3
back leg3
back leg0
[[ $(attribute degraded) == 0 ]] || fail "still degraded"
wait_idle
echo check >"$md_dir/sync_action"
wait_idle
stale=$(attribute mismatch_cnt)
# What a user would read if only D was left of its pair.
away leg1
[[ $(dd if="$md" bs=1M skip=40 count=8 iflag=direct status=none | sha256sum) == "$sum" ]] && read=right || read=wrong
say "$stale sectors differ after the return of D; what is read from D is $read"
[[ $stale == 0 && $read == right ]] || fail "D is stale"
