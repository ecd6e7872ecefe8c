# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The raid10 comes back after another boot; see reboot.sh.
modprobe virtio_blk
mkdir -p /tmp/m
mark assembly
mdadm --assemble "$md" --run --quiet /dev/vda /dev/vdb
[[ $(attribute level) == raid10 && $(attribute degraded) == 0 ]] || fail "level $(attribute level), $(attribute degraded) missing"
has latency_balance || fail "these are not the modules of the package"
not_rebuilt assembly
mount "$md" /tmp/m
(cd /tmp/m && sha256sum --quiet --check sum) || fail "the data changed"
umount /tmp/m
fsck.ext4 -fn "$md" >/dev/null
check_mirrors
stop_array
say "raid10, with all data"
