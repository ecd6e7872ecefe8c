# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What the boots of reboot.sh share that come after the takeover; sourced by the steps in r/.

# raid10_is_whole: the array of the earlier boots is assembled, has its data and is not rebuilt. It is left running.
raid10_is_whole() {
	modprobe virtio_blk
	mkdir -p /tmp/m
	mark assembly
	mdadm --assemble "$md" --run --quiet /dev/vda /dev/vdb
	[[ $(attribute level) == raid10 && $(attribute degraded) == 0 ]] || fail "level $(attribute level), $(attribute degraded) missing"
	not_rebuilt assembly
	mount "$md" /tmp/m
	(cd /tmp/m && sha256sum --quiet --check sum) || fail "the data changed"
	umount /tmp/m
	fsck.ext4 -fn "$md" >/dev/null
	check_mirrors
	say "raid10, with all data"
}
