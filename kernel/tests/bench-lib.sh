# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What the benches in b/ share; sourced after lib.sh. A bench prints what it measures with `row`, and never fails for what it is.

# row <runs> <name> <unit> <aim> <value> [<reference>]: with a reference the ratio is of these two, measured side by side in this guest;
# without one it is of the same row on the patched and on the stock kernel. <runs> is how many the value is made of.
row() {
	[[ $5 =~ ^[0-9.]+$ ]] || fail "$2 is '$5'"
	printf 'ROW\t%s\t%s\t%s\t%s\t%s\t%s\n' "$2" "$3" "$4" "$5" "${6:-}" "$1"
}

near_ns=300000 far_ns=3000000
base=$(uname -r | cut -d. -f1,2)

# near_and_far <level> <leg>…: an array of legs of which all called near* are fast and all others slow. Each takes $depth requests at a
# time, 64 if that is not set.
near_and_far() {
	local level=$1 name
	shift
	for name in "$@"; do
		case $name in
		near*) leg "$name" 256 $near_ns ${depth:-} ;;
		*) leg "$name" 256 $far_ns ${depth:-} ;;
		esac
	done
	array_of_legs "$level" "$@"
}

# switch <0 or 1>: the choice by latency off or on, where there is one.
switch() { ! has latency_balance || echo "$1" >"$md_dir/latency_balance"; }

# median <number>…
median() { printf '%s\n' "$@" | sort -g | awk '{ v[NR] = $1 } END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

# array_for_checks <layout> <MiB a leg>: a raid10 of four legs that answer at once, with no limit to the speed of a check.
array_for_checks() {
	local n legs=()
	for n in 0 1 2 3; do
		mem_leg "leg$n" $(($2 + 8))
		legs+=("/run/dm/leg$n")
	done
	mdadm --create "$md" --run --quiet --level=10 --layout="$1" --chunk=64 --raid-devices=4 --metadata=1.2 --bitmap=internal \
		--data-offset=4096 --size="$2M" --assume-clean "${legs[@]}"
	echo 2000000 >"$md_dir/sync_speed_min"
	echo 2000000 >"$md_dir/sync_speed_max"
}

# time_check: prints how many ns a check of the array takes.
time_check() {
	local began
	began=$(date +%s%N)
	echo check >"$md_dir/sync_action"
	while [[ $(attribute sync_action) != idle ]]; do sleep 0.005; done
	echo $(($(date +%s%N) - began))
}
