#!/usr/bin/env bash
# Builds what the end-to-end lab runs on, each once per content, into ${XDG_CACHE_HOME:-~/.cache}/meshstor:
#
#   build.sh kernel   a User-Mode Linux kernel (7.3, SMP) from Debian's source package and the patches of a series
#   build.sh kube     kube-apiserver, kube-controller-manager, kube-scheduler, kubectl and etcd, from their Go modules
#   build.sh root     the root directory that all guests share, from Debian packages
#   build.sh all      the three, in the order root, kernel, kube; and the kernels that some tests boot besides
#   build.sh paths    KERNEL=…, KUBE=…, ROOT=…, and KERNEL_<series>=… of kernels that a test can name: where these are or would be; builds nothing, and is instantaneous
#
# Every name of a mirror is taken from this machine's own apt sources (or MESHSTOR_DEBIAN_MIRROR); signatures are always checked.
# shellcheck disable=SC2317 # the builders are called by name, at the very end
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

trap stop_step EXIT
trap 'exit 130' INT TERM

# shellcheck source=debian.sh
. "$lab_dir/debian.sh"

# ---- kernel ------------------------------------------------------------------------------------------------------------------
#
# One source tree and one object tree serve all hashes: patches and configuration are switched in place, so make rebuilds only
# what they touch (a change in drivers/md takes seconds). A crash while patches are being switched leaves `switching` behind and
# costs one full build.

kernel_work=$cache_dir/kernel/work/${kernel_package##*-}
kernel_obj=$kernel_work/obj
[[ ! -e $repo_dir/kernel/lab/$series_name.config ]] || kernel_obj=$kernel_work/obj-$series_name

kernel_fetch() {
	private_apt
	mkdir -p -- "$cache_dir/debs"
	cd -- "$cache_dir/debs"
	local version deb
	version=$(APT_CONFIG=$apt_dir/apt.conf apt-cache show --no-all-versions "$kernel_package" | sed -n 's/^Version: //p')
	[[ -n $version ]]
	if [[ ! -e $kernel_work/switching && $(cat "$kernel_work/version" 2>/dev/null) == "$version" ]]; then
		return
	fi
	rm -rf -- "$kernel_work"
	mkdir -p -- "$kernel_work"/{src,obj,applied,deb}
	: >"$kernel_work/switching"
	APT_CONFIG=$apt_dir/apt.conf apt-get download "$kernel_package"
	deb=$(echo "${kernel_package}"_*.deb)
	dpkg-deb -x "$deb" "$kernel_work/deb"
	tar -C "$kernel_work/src" --strip-components=1 -xf "$kernel_work/deb/usr/src/$kernel_package.tar.xz"
	rm -rf -- "$kernel_work/deb" "$cache_dir/debs/$deb"
	echo "$version" >"$kernel_work/version"
	rm -- "$kernel_work/switching"
}

kernel_switch_patches() {
	local patch number wanted applied
	shopt -s nullglob
	applied=("$kernel_work"/applied/*)
	mapfile -t wanted < <(kernel_patches)
	if cmp -s <(cat -- /dev/null "${applied[@]}") <(cat -- /dev/null "${wanted[@]}"); then return; fi
	: >"$kernel_work/switching"
	for ((number = ${#applied[@]} - 1; number >= 0; number--)); do
		patch -d "$kernel_work/src" -p1 -R -s --no-backup-if-mismatch <"${applied[number]}"
	done
	rm -f -- "${applied[@]}"
	number=0
	for patch in "${wanted[@]}"; do
		number=$((number + 1))
		patch -d "$kernel_work/src" -p1 -s --no-backup-if-mismatch <"$patch"
		cp -- "$patch" "$(printf '%s/applied/%04d' "$kernel_work" "$number")"
	done
	rm -- "$kernel_work/switching"
}

kernel_make() { make -s -C "$kernel_work/src" O="$kernel_obj" ARCH=um "$@"; }

# An option that Kconfig dropped without a word would show up as a puzzling failure in a guest: say it here instead.
kernel_configure() {
	local fragment=$kernel_work/fragment fragments line lost=0
	mapfile -t fragments < <(kernel_fragments)
	# What a later one says of an option is all that counts.
	cat -- "${fragments[@]}" | awk '
		match($0, /CONFIG_[A-Z0-9_]+/) { name = substr($0, RSTART, RLENGTH); if (!(name in line)) order[++n] = name; line[name] = $0 }
		END { for (i = 1; i <= n; i++) print line[order[i]] }' >"$fragment"
	mkdir -p -- "$kernel_obj"
	kernel_make defconfig
	(cd -- "$kernel_work/src" && ./scripts/kconfig/merge_config.sh -m -O "$kernel_obj" "$kernel_obj/.config" "$fragment")
	kernel_make olddefconfig
	while IFS= read -r line; do
		grep -qxF -- "$line" "$kernel_obj/.config" || {
			echo "wanted $line, but: $(grep -E "(^|# )${line%%=*}( |=)" "$kernel_obj/.config" || echo 'no such option')"
			lost=1
		}
	done < <(grep '=y$' "$fragment")
	return "$lost"
}

kernel_compile() {
	# UML executes from its TMPDIR while it probes the host, so a noexec /tmp would break the build's own tests too.
	export KBUILD_BUILD_USER=meshstor KBUILD_BUILD_HOST=lab
	kernel_make -j"$(($(nproc) + 1))" linux
}

build_kernel() {
	local out log started
	out=$(kernel_out)
	is_done "$out" && return
	require_debian flex=flex bison=bison bc=bc make=make gcc=gcc xz=xz-utils patch=patch perl=perl cpio=cpio rsync=rsync \
		/usr/include/libelf.h=libelf-dev /usr/include/openssl/ssl.h=libssl-dev "$keyring=debian-archive-keyring"
	require_space 6
	started=$(date +%s)
	log=$cache_dir/log/kernel-$(basename "$out").log
	rm -rf -- "$out" "$log"
	step kernel "fetching $kernel_package" "$log" kernel_fetch
	step kernel "applying the series '$series_name'" "$log" kernel_switch_patches
	step kernel "configuring" "$log" kernel_configure
	step kernel "compiling (about 6 minutes from nothing, seconds after a small change)" "$log" kernel_compile
	mkdir -p -- "$out"
	cp -- "$kernel_obj/linux" "$out/linux"
	cp -- "$kernel_obj/.config" "$out/config"
	mark_done "$out" "$started" "$kernel_package $(cat "$kernel_work/version"), series $series_name"
	say "kernel: ready in $(($(date +%s) - started)) s: $out/linux"
}

# ---- kube --------------------------------------------------------------------------------------------------------------------

kube_tool() { # <import path> <directory of the module> <output file>
	local stamp=k8s.io/component-base/version
	cd -- "$2"
	CGO_ENABLED=0 go build -mod=readonly -trimpath \
		-ldflags "-s -w -X $stamp.gitVersion=v$kube_version -X $stamp.gitMajor=1 -X $stamp.gitMinor=36" -o "$3" "$1"
}

build_kube() {
	local out log started name
	out=$(kube_out)
	is_done "$out" && return
	require_go
	require_space 6
	started=$(date +%s)
	log=$cache_dir/log/kube-$(basename "$out").log
	rm -rf -- "$out" "$log"
	mkdir -p -- "$out"
	step kube "building etcd (about 30 seconds)" "$log" kube_tool go.etcd.io/etcd/server/v3 "$lab_dir/kube/etcd" "$out/etcd"
	step kube "building kube-apiserver (about 4 minutes)" "$log" \
		kube_tool k8s.io/kubernetes/cmd/kube-apiserver "$lab_dir/kube" "$out/kube-apiserver"
	for name in kube-controller-manager kube-scheduler kubectl; do
		step kube "building $name (less than a minute)" "$log" \
			kube_tool "k8s.io/kubernetes/cmd/$name" "$lab_dir/kube" "$out/$name"
	done
	mark_done "$out" "$started" "kubernetes v$kube_version, $(cd "$lab_dir/kube/etcd" && go list -m go.etcd.io/etcd/server/v3), $(go env GOVERSION)"
	say "kube: ready in $(($(date +%s) - started)) s: $out"
}

# ---- root --------------------------------------------------------------------------------------------------------------------

root_bootstrap() { # <directory>
	local list mirror
	mirror=$(debian_mirror)
	list=$(IFS=,; echo "${root_packages[*]}")
	mkdir -p -- "$cache_dir/root/tmp"
	TMPDIR=$cache_dir/root/tmp mmdebstrap --mode=root --variant=minbase --keyring="$keyring" \
		--aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Languages "none"' \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--include="$list" "$root_suite" "$1" "deb $mirror $root_suite main"
}

# Packages and guest-init are hashed apart: a new guest-init gets a tree of hard links to the packages' tree, in a second.
build_root() {
	local out log started base
	out=$(root_out)
	is_done "$out" && return
	base=$cache_dir/root/base-$(root_base_hash)
	started=$(date +%s)
	log=$cache_dir/log/root-$(basename "$out").log
	rm -rf -- "$out" "$log"
	if ! is_done "$base"; then
		require_root
		require_debian mmdebstrap=mmdebstrap "$keyring=debian-archive-keyring"
		require_space 2
		rm -rf -- "$base"
		step root "unpacking Debian $root_suite (about 1 minute)" "$log" root_bootstrap "$base"
		mark_done "$base" "$started" "Debian $root_suite: ${root_packages[*]}"
	fi
	step root "adding guest-init" "$log" root_finish "$base" "$out"
	mark_done "$out" "$started" "Debian $root_suite and guest-init"
	say "root: ready in $(($(date +%s) - started)) s: $out"
}

root_finish() { # <base> <tree>
	local name
	cp -al -- "$1" "$2"
	rm -- "$2/.done" "$2/.meta"
	install -m 0755 -- "$lab_dir/guest-init" "$2/sbin/meshstor-init"
	# Never assemble an array on our own account: only the daemon decides that.
	mkdir -p -- "$2/run" "$2/etc/nvme" "$2/etc/mdadm"
	rm -f -- "$2/etc/mdadm/mdadm.conf" "$2/etc/machine-id" "$2/etc/resolv.conf" "$2/etc/hostname" "$2/etc/nvme/hostnqn" "$2/etc/nvme/hostid"
	echo 'AUTO -all' >"$2/etc/mdadm/mdadm.conf"
	# Files that guest-init binds its own over, and mount points; the tree itself is read-only for guests.
	for name in machine-id hostname hosts resolv.conf nvme/hostnqn nvme/hostid; do
		rm -f -- "$2/etc/$name"
		: >"$2/etc/$name"
	done
	mkdir -p -- "$2/sys" "$2/proc" "$2/dev" "$2/tmp" "$2/var/lib/meshstor" "$2/var/lib/kubelet" "$2/usr/lib/modules"
}

paths() {
	local name
	printf 'KERNEL=%q\nKUBE=%q\nROOT=%q\n' "$(kernel_out)/linux" "$(kube_out)" "$(root_out)"
	for name in "${named_series[@]}"; do
		printf 'KERNEL_%s=%q\n' "$name" "$(series_name=$name kernel_out)/linux"
	done
}

# One build of a thing at a time; a second caller waits and then finds the work done.
locked() { # <kernel|kube|root>
	mkdir -p -- "$cache_dir"
	exec 9>"$cache_dir/.$1.lock"
	flock -n 9 || {
		say "$1: another build.sh is at work on it; waiting"
		flock 9
	}
	"build_$1" 9>&-
}

# Read whole before it runs, so that an edit of this file cannot derail a build that is under way.
main() {
	local what
	[[ -r $repo_dir/kernel/lab/$series_name.series ]] || die "no such kernel series: kernel/lab/$series_name.series"
	case ${1:-all} in
	kernel | kube | root) locked "$1" ;;
	all)
		locked root
		# Before the default kernel: the object tree then stays as that one needs it.
		for what in "${test_series[@]}"; do MESHSTOR_KERNEL=$what "$lab_dir/build.sh" kernel >/dev/null; done
		locked kernel
		locked kube
		;;
	paths) ;;
	*)
		sed -n '2,9s/^# \{0,1\}//p' -- "${BASH_SOURCE[0]}" >&2
		exit 2
		;;
	esac
	paths
}

main "$@"
exit
