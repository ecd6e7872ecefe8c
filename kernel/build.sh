#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# What is built for kernels whose md is a module:
#
#   build.sh source <base>   md of a base (6.12, 7.3) with its series applied by `git am`; prints the directory
#   build.sh package         a DKMS source package for Debian of both bases, in target/kernel-package; prints the file
#   build.sh debian          a tree of Debian stable with its own 6.12 kernel, and the package installed in it; prints the directory
#   build.sh steps           compiles md of both bases after each patch, against Debian's headers
#
# Sources and the tree are kept in ${XDG_CACHE_HOME:-~/.cache}/meshstor, by content.
# shellcheck disable=SC2317 # the builders are called by name
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../e2e/lab/lib.sh
. "$here/../e2e/lab/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../e2e/lab/debian.sh
. "$here/../e2e/lab/debian.sh"
trap stop_step EXIT
trap 'exit 130' INT TERM

version=0.1.0
out=${CARGO_TARGET_DIR:-$repo_dir/target}/kernel-package
# What of Debian each series was made for and tested on. Debian goes on: a newer version is named here when the series applies to it and
# its tests pass.
declare -A tested=([6.12]=6.12.117-1 [7.3]=7.3.4-1~bpo13+1)
tree_packages=(dkms gcc make initramfs-tools mdadm fio dmsetup xfsprogs e2fsprogs util-linux kmod
	procps mawk xz-utils busybox python3-minimal)
# What a package needs of md's folder; the rest of it is device mapper and bcache.
md_files=(md.c md.h md-bitmap.c md-bitmap.h md-llbitmap.c md-cluster.c md-cluster.h md-linear.c raid0.c raid0.h raid1.c raid1.h raid10.c
	raid10.h raid1-10.c raid5.c raid5.h raid5-cache.c raid5-log.h raid5-ppl.c dm-raid.c)

series() { # <base>
	case $1 in
	7.3) echo meshstor ;;
	*) echo "meshstor-$1" ;;
	esac
}

patches_of() { series_name=$(series "$1") kernel_patches; }

# The version of a base's source that the series is for, as long as Debian has it, else the newest: then `git am` says what does not apply.
source_version() { # <base>
	local versions
	versions=$(APT_CONFIG=$apt_dir/apt.conf apt-cache madison "linux-source-$1" | awk '{ print $3 }')
	grep -Fx -- "${tested[$1]}" <<<"$versions" || sort -rV <<<"$versions" | head -n 1
}

# The packages of Debian stable's 6.12 kernel, of the same version as the source.
stable_packages() {
	local version
	version=$(source_version 6.12)
	printf 'linux-%s-%s+deb13-amd64 ' image "${version%-*}" headers "${version%-*}"
}

# ---- source ------------------------------------------------------------------------------------------------------------------

source_dir() { # <base> <version>
	local patches
	mapfile -t patches < <(patches_of "$1")
	echo "$cache_dir/md/$1-$({ echo "md $recipe $2"; cat -- "${patches[@]}"; } | digest)"
}

source_unpack() { # <base> <version> <directory>
	local deb patches
	mkdir -p -- "$3" "$cache_dir/debs"
	cd -- "$cache_dir/debs"
	APT_CONFIG=$apt_dir/apt.conf apt-get download "linux-source-$1=$2"
	deb=$(echo "linux-source-$1"_*.deb)
	dpkg-deb --fsys-tarfile "$deb" | tar -xO "./usr/src/linux-source-$1.tar.xz" | tar -C "$3" --strip-components=1 -xJ --wildcards \
		'*/drivers/md/*' '*/Documentation/admin-guide/md.rst' '*/arch/um/drivers/vector_kern.c' '*/arch/um/drivers/ubd*'
	rm -- "$deb"
	cd -- "$3"
	git init -q
	git config user.name lab
	git config user.email lab@localhost
	git add -A
	git commit -qm "linux-source-$1"
	mapfile -t patches < <(patches_of "$1")
	git am "${patches[@]}"
}

build_source() { # <base>
	local dir started version
	require_debian git=git xz=xz-utils "$keyring=debian-archive-keyring"
	step md "asking Debian for linux-source-$1" "$cache_dir/log/md-apt.log" private_apt
	version=$(source_version "$1")
	[[ $version ]] || die "md: Debian has no linux-source-$1"
	dir=$(source_dir "$1" "$version")
	if ! is_done "$dir"; then
		started=$(date +%s)
		rm -rf -- "$dir"
		step md "unpacking linux-source-$1 $version and applying $(patches_of "$1" | wc -l) patches" "$cache_dir/log/md-$1.log" source_unpack "$1" "$version" "$dir"
		mark_done "$dir" "$started" "linux-source-$1 $version"
	fi
	echo "$dir"
}

# ---- package -----------------------------------------------------------------------------------------------------------------

build_package() {
	local base dir file root=$out/root
	rm -rf -- "$out"
	mkdir -p -- "$root/DEBIAN"
	for base in 6.12 7.3; do
		dir=$(build_source "$base")
		mkdir -p -- "$root/usr/src/meshstor-md-$version/$base"
		for file in "${md_files[@]}"; do
			[[ ! -e $dir/drivers/md/$file ]] || cp -- "$dir/drivers/md/$file" "$root/usr/src/meshstor-md-$version/$base/"
		done
		cp -- "$here/dkms/Kbuild" "$root/usr/src/meshstor-md-$version/$base/"
	done
	sed "s/@VERSION@/$version/g" "$here/dkms/dkms.conf" >"$root/usr/src/meshstor-md-$version/dkms.conf"
	for file in postinst prerm postrm; do
		sed "s/@VERSION@/$version/g" "$here/dkms/$file" >"$root/DEBIAN/$file"
		chmod 0755 "$root/DEBIAN/$file"
	done
	install -D -m 0644 -- "$here/COPYING" "$root/usr/share/doc/meshstor-md-dkms/copyright"
	cat >"$root/DEBIAN/control" <<-EOF
		Package: meshstor-md-dkms
		Version: $version
		Architecture: all
		Maintainer: MeshStor developers <dev@meshstor.io>
		Depends: dkms
		Recommends: linux-headers-amd64 | linux-headers-generic
		Section: kernel
		Priority: optional
		Description: MD RAID1 and RAID10 with latency-aware reads, takeover and regional barriers
		 The modules md-mod, raid0, raid1, raid10, raid456, linear, md-cluster and dm-raid of Linux 6.12 and 7.3 with the patches of
		 MeshStor, for kernels in which md is a module. They take the place of the kernel's own at the next boot.
	EOF
	dpkg-deb --root-owner-group --build "$root" "$out/meshstor-md-dkms_${version}_all.deb" >/dev/null
	rm -rf -- "$root"
	echo "$out/meshstor-md-dkms_${version}_all.deb"
}

# ---- debian ------------------------------------------------------------------------------------------------------------------

# The headers of the 7.3 in backports, for the package to be built for that too; its image is not needed.
backports_headers() {
	APT_CONFIG=$apt_dir/apt.conf apt-cache show linux-headers-amd64 |
		sed -n 's/^Depends: .*\(linux-headers-7\.3[^ ,]*-amd64\).*/\1/p' | head -n 1
}

tree_bootstrap() { # <directory> <package>…
	local list mirror
	mirror=$(debian_mirror)
	list=$(IFS=,; echo "${tree_packages[*]},${*:2}")
	mkdir -p -- "$cache_dir/debian/tmp"
	TMPDIR=$cache_dir/debian/tmp mmdebstrap --mode=root --variant=minbase --keyring="$keyring" \
		--aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Languages "none"' \
		--aptopt='APT::Install-Recommends "false"' --dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		--include="$list" trixie "$1" "deb $mirror trixie main" "deb $mirror trixie-backports main"
}

# The package is installed as on a user's machine, with dpkg; dkms builds it for the kernel that is there.
tree_finish() { # <base tree> <tree> <package>
	cp -al -- "$1" "$2"
	rm -- "$2/.done" "$2/.meta"
	cp -- "$3" "$2/package.deb"
	install -m 0755 -- "$here/tests/guest-init" "$2/sbin/md-test-init"
	mkdir -p -- "$2/run" "$2/proc"
	# The trees share their files: what is written in place must be this one's own.
	rm -f -- "$2/etc/mdadm/mdadm.conf" "$2"/var/log/*.log
	echo 'AUTO -all' >"$2/etc/mdadm/mdadm.conf"
	unshare --mount --pid --fork bash -euc '
		mount -t proc proc "$1/proc"
		chroot "$1" dpkg --install /package.deb
		chroot "$1" dkms status
		# For the kernel of the image, and for the one of which only the headers are there.
		for headers in "$1"/lib/modules/*/build; do
			ls "${headers%/build}"/updates/dkms/raid10.ko*
		done
		# What the distribution boots with loads md before the root is there; it must be the package'"'"'s.
		for initrd in "$1"/boot/initrd.img-*; do
			chroot "$1" lsinitramfs "/boot/${initrd##*/}" | grep -E "/(md-mod|raid1|raid10)\.ko" >"$1/tmp/md"
			cat -- "$1/tmp/md"
			test "$(grep -c updates/dkms "$1/tmp/md")" = 3
		done
		rm -- "$1/tmp/md"
	' - "$2"
	rm -- "$2/package.deb"
	tree_initrd "$2"
}

# The kernel that the tree has an image of.
tree_kernel() { basename -- "$1"/boot/vmlinuz-* | sed 's/^vmlinuz-//'; }

# An initrd that mounts the tree itself over 9p, with the modules that Debian's kernel needs for that.
tree_initrd() { # <tree>
	local work=$1/tmp/initrd kernel file number=10
	kernel=$(tree_kernel "$1")
	mkdir -p -- "$work"/{bin,dev,proc,sys,new,modules}
	cp -- "$1/bin/busybox" "$work/bin/"
	install -m 0755 -- "$here/tests/initrd-init" "$work/init"
	while IFS= read -r file; do
		mkdir -p -- "$work$(dirname -- "$file")"
		cp -L -- "$1$file" "$work$file"
	done < <(chroot "$1" ldd /bin/busybox | grep -o '/[^ ]*')
	while IFS= read -r file; do
		xz -dc -- "$1$file" >"$work/modules/$number-$(basename -- "$file" .xz)"
		number=$((number + 1))
	done < <(chroot "$1" modprobe --set-version "$kernel" --all --show-depends 9pnet_virtio 9p | awk '$1 == "insmod" && !seen[$2]++ { print $2 }')
	(cd -- "$work" && find . | cpio --create --format=newc --quiet | gzip -1) >"$1/boot/md-test.initrd"
	rm -rf -- "$work"
}

build_debian() {
	local base dir package headers kernels started log=$cache_dir/log/debian.log
	base=$cache_dir/debian/base-$(echo "debian $recipe ${tree_packages[*]} ${tested[*]} and headers of 7.3" | digest)
	dir=$cache_dir/debian/$({
		basename -- "$base"
		cat -- "${BASH_SOURCE[0]}" "$here"/dkms/* "$here"/tests/*-init
		{ patches_of 6.12; patches_of 7.3; } | xargs cat --
	} | digest)
	require_debian mmdebstrap=mmdebstrap qemu-system-x86_64=qemu-system-x86 cpio=cpio "$keyring=debian-archive-keyring"
	if ! is_done "$base"; then
		started=$(date +%s)
		require_space 4
		step md "asking Debian for its kernels" "$cache_dir/log/md-apt.log" private_apt
		headers=$(backports_headers)
		[[ $headers ]] || die "debian: there is no Linux 7.3 in trixie-backports"
		read -ra kernels < <(stable_packages && echo)
		rm -rf -- "$base" "$log"
		step debian "unpacking Debian trixie with its kernel (about 2 minutes)" "$log" tree_bootstrap "$base" "${kernels[@]}" "$headers"
		mark_done "$base" "$started" "Debian trixie: ${kernels[*]} ${tree_packages[*]} $headers"
	fi
	if ! is_done "$dir"; then
		started=$(date +%s)
		package=$(build_package)
		rm -rf -- "$dir"
		step debian "installing the package; dkms builds it for both kernels (about 90 s)" "$log" tree_finish "$base" "$dir" "$package"
		mark_done "$dir" "$started" "Debian trixie and meshstor-md-dkms $version"
	fi
	echo "$dir"
}

# ---- steps -------------------------------------------------------------------------------------------------------------------

step_compile() { # <tree> <kernel>
	unshare --mount --pid --fork bash -euc '
		mount -t proc proc "$1/proc"
		exec chroot "$1" make -C "/lib/modules/$2/build" M=/tmp/steps -j"$(nproc)" KCFLAGS=-Werror modules
	' - "$1" "$2"
}

build_steps() {
	local base commit dir file headers tree work count=0
	tree=$(build_debian)
	work=$tree/tmp/steps
	for base in 6.12 7.3; do
		dir=$(build_source "$base")
		headers=$(basename -- "$(echo "$tree/lib/modules/$base"*)")
		for commit in $(git -C "$dir" rev-list --reverse HEAD); do
			git -C "$dir" diff --quiet "$commit^" "$commit" -- drivers/md 2>/dev/null && continue
			rm -rf -- "$work"
			mkdir -p -- "$work/all"
			git -C "$dir" archive "$commit" drivers/md | tar -x -C "$work/all"
			for file in "${md_files[@]}"; do
				[[ ! -e $work/all/drivers/md/$file ]] || mv -- "$work/all/drivers/md/$file" "$work/"
			done
			rm -rf -- "$work/all"
			cp -- "$here/dkms/Kbuild" "$work/"
			step md "$base: $(git -C "$dir" log -1 --format=%s "$commit")" "$cache_dir/log/steps.log" step_compile "$tree" "$headers"
			count=$((count + 1))
		done
	done
	rm -rf -- "$work"
	say "md: $count states compile without a warning"
}

main() {
	mkdir -p -- "$cache_dir"
	case ${1:-} in
	source) [[ $# == 2 && -r $here/lab/$(series "$2").series ]] || die "source: which base, 6.12 or 7.3?" && build_source "$2" ;;
	package | debian | steps) "build_$1" ;;
	*)
		sed -n '3,10s/^# \{0,1\}//p' -- "${BASH_SOURCE[0]}" >&2
		exit 2
		;;
	esac
}

main "$@"
exit
