#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# The DKMS package can be removed from the tree of Debian that the tests boot, and leaves the distribution's modules in their place, in
# the initramfs too. The tree itself stays as it is: all is written to memory. Prints what run.sh prints.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
tree=$("$here/../build.sh" debian)
out=${CARGO_TARGET_DIR:-$here/../../target}/kernel-test
mkdir -p -- "$out"
began=$SECONDS
# shellcheck disable=SC2016 # is for the shell in there
if unshare --mount --pid --fork bash -euo pipefail -c '
	work=$(mktemp -d)
	mount -t tmpfs tmpfs "$work"
	mkdir "$work"/{upper,work,root}
	mount -t overlay -o "lowerdir=$1,upperdir=$work/upper,workdir=$work/work" overlay "$work/root"
	cd "$work/root"
	mount -t proc proc proc
	kernel=$(basename boot/vmlinuz-* | sed s/^vmlinuz-//)
	chroot . modinfo -k "$kernel" -F filename raid10 | grep updates/dkms
	chroot . dpkg --remove meshstor-md-dkms
	if ls lib/modules/*/updates/dkms/*; then
		echo "modules of the package are left"
		exit 1
	fi
	chroot . modinfo -k "$kernel" -F filename raid10 | grep /kernel/drivers/md/
	chroot . lsinitramfs "/boot/initrd.img-$kernel" | grep -E "/(md-mod|raid1|raid10)\.ko" >tmp/md
	cat tmp/md
	test "$(grep -c /kernel/drivers/md/ tmp/md)" = 3
	' - "$tree" >"$out/package.log" 2>&1; then
	echo "test 6.12::package-can-be-removed ... ok ($((SECONDS - began)) s)"
	echo "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out"
else
	echo "test 6.12::package-can-be-removed ... FAILED ($((SECONDS - began)) s)"
	tail -n 15 -- "$out/package.log" | sed 's/^/  | /'
	echo "test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out"
	exit 1
fi
