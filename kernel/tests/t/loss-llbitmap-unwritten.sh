# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# A raid10 over more than two disks with the lockless bitmap, of which parts were never written: a disk that is replaced gets all that
# was written.
#
# A stock 7.3 looks the bits up by the address on the device, and skips what it should copy.
grep -q llbitmap /proc/kallsyms || skip "this kernel has no lockless bitmap"
legs=()
for n in 0 1 2 3 4; do
	mem_leg "leg$n" 200
	legs+=("/run/dm/leg$n")
done
mdadm --create "$md" --run --quiet --level=10 --layout=n2 --chunk=64 --raid-devices=4 --metadata=1.2 --bitmap=lockless \
	--data-offset=4096 --size=192M "${legs[@]:0:4}" 2>/dev/null
[[ $(attribute bitmap_type) == *"[llbitmap]"* ]] || fail "no lockless bitmap: $(attribute bitmap_type)"
wait_idle
# At 300 MiB of the array, 150 MiB of each device; nothing is at 150 MiB of the array.
dd if=/dev/urandom of="$md" bs=1M count=10 seek=300 oflag=direct status=none
sum=$(dd if="$md" bs=1M skip=300 count=10 iflag=direct status=none | sha256sum)

mdadm --manage "$md" --quiet --fail /run/dm/leg0
mdadm --manage "$md" --quiet --remove /run/dm/leg0
mdadm --manage "$md" --quiet --add /run/dm/leg4
for ((n = 0; n < 600; n++)); do [[ $(attribute degraded) == 0 ]] && break || sleep 0.1; done
[[ $(attribute degraded) == 0 ]] || fail "leg4 was not rebuilt"
wait_idle
# Leave only leg4 of its pair.
mdadm --manage "$md" --quiet --fail /run/dm/leg1
[[ $(dd if="$md" bs=1M skip=300 count=10 iflag=direct status=none | sha256sum) == "$sum" ]] && read=right || read=wrong
say "the array was optimal; what is read from the rebuilt disk is $read"
if has latency_balance; then
	[[ $read == right ]] || fail "data was lost"
else
	[[ $read == wrong ]] || fail "the stock kernel did not show its fault"
fi
