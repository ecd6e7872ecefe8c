# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The modules of the package assemble what the distribution's have made, with nothing to resync, and it can become a raid10; see
# reboot.sh.
modprobe virtio_blk
mkdir -p /tmp/m
mark assembly
mdadm --assemble "$md" --run --quiet /dev/vda /dev/vdb
[[ $(attribute level) == raid1 && $(attribute degraded) == 0 ]] || fail "level $(attribute level), $(attribute degraded) missing"
[[ $(attribute latency_balance) == 1 ]] || fail "these are not the modules of the package"
not_rebuilt assembly
mount "$md" /tmp/m
(cd /tmp/m && sha256sum --quiet --check sum) || fail "the data changed"
fio --name=w --directory=/tmp/m --size=16M --bs=4k --direct=1 --rw=randwrite --ioengine=psync --verify=crc32c --runtime=5 \
	--time_based --verify_state_save=0 --verify_backlog=64 --verify_fatal=1 >/tmp/fio 2>&1 &
writer=$!
sleep 2
echo raid10 >"$md_dir/level"
kill -0 "$writer" || fail "the writer was over before the takeover was"
wait "$writer" || fail "the writer found an error: $(tail -n 5 /tmp/fio)"
grep -q 'READ:' /tmp/fio || fail "the writer has verified nothing"
rm /tmp/m/w.0.0
(cd /tmp/m && sha256sum --quiet --check sum) || fail "the data changed"
[[ $(cat /sys/block/md0/md/dev-vda/latency_ewma_ns) != 0 ]] || fail "no read of vda was measured"
umount /tmp/m
check_mirrors
stop_array
say "assembled as raid1, made a raid10 under load"
