# shellcheck shell=bash
# shellcheck disable=SC2154 # cache_dir is of lib.sh
# Shared by build.sh and kernel/build.sh, after lib.sh: what is taken from Debian, and what must be there for it.

apt_dir=$cache_dir/apt
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

missing() { die "missing prerequisite: $* (see README)"; }

# require_debian <program or file>=<package>…: installs the packages whose program or file is not there.
require_debian() {
	local pair name wanted=()
	for pair in "$@"; do
		name=${pair%%=*}
		case $name in
		/*) [[ -e $name ]] || wanted+=("${pair#*=}") ;;
		*) command -v "$name" >/dev/null || wanted+=("${pair#*=}") ;;
		esac
	done
	((${#wanted[@]})) || return 0
	command -v apt-get >/dev/null || missing "apt-get, to install ${wanted[*]}"
	[[ $(id -u) == 0 ]] || missing "root, to install ${wanted[*]}"
	step apt "installing ${wanted[*]}" "$cache_dir/log/apt-install.log" install_debian "${wanted[@]}"
}

install_debian() {
	export DEBIAN_FRONTEND=noninteractive
	apt-get install -y --no-install-recommends "$@" && return
	apt-get update
	apt-get install -y --no-install-recommends "$@"
}

require_root() { [[ $(id -u) == 0 ]] || missing "root"; }

require_space() { # <GiB>
	local free
	mkdir -p -- "$cache_dir"
	free=$(df --output=avail -B1G -- "$cache_dir" | tail -n 1)
	((free >= $1)) || missing "$1 GiB free in $cache_dir (there are $((free)))"
}

require_go() {
	local version
	command -v go >/dev/null || missing "go 1.26 or newer"
	version=$(go env GOVERSION)
	[[ $version =~ ^go([0-9]+)\.([0-9]+) ]] || missing "go 1.26 or newer"
	((BASH_REMATCH[1] > 1 || BASH_REMATCH[2] >= 26)) || missing "go 1.26 or newer"
}

# The Debian mirror that this machine itself uses, so that a proxy or a local mirror keeps working.
debian_mirror() {
	local mirror=${MESHSTOR_DEBIAN_MIRROR:-}
	if [[ -z $mirror ]] && command -v apt-get >/dev/null; then
		# shellcheck disable=SC2016 # the dollars are apt's
		mirror=$(apt-get indextargets --format '$(LABEL)|$(CREATED_BY)|$(SITE)' 2>/dev/null |
			awk -F'|' '$1 == "Debian" && $2 == "Packages" && !url { url = $3 } END { print url }')
	fi
	[[ -n $mirror ]] || missing "a Debian mirror in this machine's apt sources, or its URL in MESHSTOR_DEBIAN_MIRROR"
	echo "$mirror"
}

# An apt of our own: it sees only the suites we name, and never touches the machine's lists or packages.
private_apt() {
	local mirror suite
	mirror=$(debian_mirror)
	mkdir -p -- "$apt_dir"/{lists/partial,cache/archives/partial,etc/parts}
	: >"$apt_dir/status"
	for suite in trixie trixie-backports; do
		echo "deb [signed-by=$keyring] $mirror $suite main"
	done >"$apt_dir/etc/sources.list"
	cat >"$apt_dir/apt.conf" <<-EOF
		Dir::State "$apt_dir";
		Dir::State::lists "$apt_dir/lists";
		Dir::State::status "$apt_dir/status";
		Dir::Cache "$apt_dir/cache";
		Dir::Etc "$apt_dir/etc";
		Dir::Etc::sourcelist "$apt_dir/etc/sources.list";
		Dir::Etc::sourceparts "$apt_dir/etc/parts";
		Dir::Etc::preferencesparts "$apt_dir/etc/parts";
		// A suite that is no longer refreshed keeps its signature but passes its date.
		Acquire::Check-Valid-Until "false";
		Acquire::Languages "none";
		Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
		APT::Sandbox::User "root";
	EOF
	APT_CONFIG=$apt_dir/apt.conf apt-get update
}
