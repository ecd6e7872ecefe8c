# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# A raid1 with a file system is made by the distribution's modules; see reboot.sh.
modprobe virtio_blk
mkdir -p /tmp/m
mdadm --create "$md" --run --quiet --level=1 --raid-devices=2 --metadata=1.2 --bitmap=internal --data-offset=4096 --size=190M \
	/dev/vda /dev/vdb
wait_idle
if has latency_balance; then fail "these are not the distribution's modules"; fi
mkfs.ext4 -q "$md"
mount "$md" /tmp/m
head -c 48M /dev/urandom >/tmp/m/data
(cd /tmp/m && sha256sum data >sum)
umount /tmp/m
stop_array
say "raid1 with ext4, by md of $(uname -r)"
