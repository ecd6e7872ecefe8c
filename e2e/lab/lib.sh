# shellcheck shell=bash
# Shared by build.sh, info.sh and smoke.sh: where things live, and how a slow step is run so that a person sees it move.

lab_dir=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
repo_dir=$(cd -- "$lab_dir/../.." && pwd)
cache_dir=${XDG_CACHE_HOME:-$HOME/.cache}/meshstor

# Which kernel the guests run: the name of a list of patches in kernel/lab/<name>.series.
series_name=${MESHSTOR_KERNEL:-stock}
kernel_package=linux-source-7.3
# Kernels that a test boots in one guest or in all, beside the default one: names of lists of patches too.
# `build.sh all` makes those of the first line; for the others a test says what makes them.
test_series=(floor)
named_series=("${test_series[@]}" stock meshstor)
root_suite=forky
root_packages=(mdadm nvme-cli fio xfsprogs e2fsprogs util-linux mount iproute2 nftables kmod procps gdisk ca-certificates psmisc
	dmsetup iputils-ping)
kube_version=1.36.4
# Raised when a recipe in build.sh changes in a way that must not reuse what an older recipe built.
recipe=1

say() { printf 'lab: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}

digest() { sha256sum | cut -c1-16; }

# The patches of the chosen series, in order, as absolute paths; with MESHSTOR_PATCHES=<n> only the first n of them.
kernel_patches() { kernel_series | awk -v most="${MESHSTOR_PATCHES:-1000}" 'NR <= most'; }

# A series can name another one, whose patches come in its place.
kernel_series() {
	local series="$repo_dir/kernel/lab/$series_name.series" line
	while IFS= read -r line; do
		case $line in
		'' | '#'*) ;;
		*.series) series_name=${line%.series} kernel_series ;;
		*) printf '%s\n' "$repo_dir/kernel/$line" ;;
		esac
	done <"$series"
}

# The configuration of the chosen series; some have one more fragment, and then objects of their own.
kernel_fragments() {
	printf '%s\n' "$repo_dir"/kernel/lab/{common,uml}.config
	[[ ! -e $repo_dir/kernel/lab/$series_name.config ]] || printf '%s\n' "$repo_dir/kernel/lab/$series_name.config"
}

kernel_hash() {
	local patches fragments
	mapfile -t patches < <(kernel_patches)
	mapfile -t fragments < <(kernel_fragments)
	{
		echo "kernel $recipe $kernel_package"
		cat -- "${fragments[@]}" "${patches[@]}"
	} | digest
}

kube_hash() {
	{
		echo "kube $recipe $kube_version"
		cat -- "$lab_dir"/kube/go.{mod,sum} "$lab_dir"/kube/etcd/go.{mod,sum}
	} | digest
}

root_base_hash() { echo "root $recipe $root_suite ${root_packages[*]}" | digest; }

root_hash() {
	{
		root_base_hash
		cat -- "$lab_dir/guest-init"
	} | digest
}

kernel_out() { echo "$cache_dir/kernel/$(kernel_hash)"; }
kube_out() { echo "$cache_dir/kube/$(kube_hash)"; }
root_out() { echo "$cache_dir/root/$(root_hash)"; }

# A directory without this marker is half-built: never used, and removed by the next build.
is_done() { [[ -e $1/.done ]]; }

# mark_done <directory> <start, seconds since the epoch> <where it came from>
mark_done() {
	{
		echo "seconds=$(($(date +%s) - $2))"
		echo "bytes=$(du -sb --apparent-size -- "$1" | cut -f1)"
		echo "built=$(date -u +%Y-%m-%dT%H:%M:%SZ)"
		echo "source=$3"
	} >"$1/.meta"
	: >"$1/.done"
}

step_pid=
stop_step() {
	if [[ -n $step_pid ]]; then kill -- "-$step_pid" 2>/dev/null || true; fi
}

# step <what> <label> <log> <command…>: runs the command with its output in the log, says every 15 s that it is still at it,
# and shows the end of the log if it fails.
step() {
	local what=$1 label=$2 log=$3 started=$SECONDS rc=0
	shift 3
	mkdir -p -- "$(dirname -- "$log")"
	say "$what: $label"
	set -m
	(
		set +m
		"$@"
	) >>"$log" 2>&1 </dev/null &
	step_pid=$!
	set +m
	local next=15
	while kill -0 "$step_pid" 2>/dev/null; do
		sleep 0.2
		if ((SECONDS - started >= next)); then
			say "$what: $label … $((SECONDS - started)) s"
			next=$((next + 15))
		fi
	done
	wait "$step_pid" || rc=$?
	step_pid=
	if ((rc != 0)); then
		tail -n 25 -- "$log" | sed 's/^/lab:   | /' >&2
		die "$what: failed ($label); the whole log: $log"
	fi
}
