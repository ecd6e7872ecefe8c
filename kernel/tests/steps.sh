#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# The tests, in brief, on 7.3 with the first patches of the series only: after each feature those that there are so far. What a later
# patch mends is not asked for before. Prints what run.sh prints.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd -- "$here/../.." && pwd)
export MD_TEST_SECONDS=3
failed=0
tests=()

# after <part of a patch's name> <test>…: with the series up to that patch, these tests and those of the calls before.
after() {
	local patches
	patches=$(grep -v '^#' "$repo/kernel/lab/meshstor.series" | grep -n -m1 -e "$1" | cut -d: -f1)
	[[ $patches ]] || {
		echo "steps.sh: no patch is called '$1'" >&2
		exit 2
	}
	tests+=("${@:2}")
	echo "with $patches patches, up to $1:"
	MESHSTOR_PATCHES=$patches "$here/run.sh" 7.3-patched "${tests[@]}" || failed=1
}

after md-raid10-read-from-the-device read-balance-qd1 read-balance-ewma read-balance-swap read-balance-hung read-balance-untouched
after md-raid10-take-over-a-raid1 takeover-keeps-data takeover-refuses takeover-survives-power-cut takeover-under-load-power-cut
after md-raid10-raise-barriers barrier-other-bucket barrier-two-recoveries stress-near2-2disks
after md-raid10-look-up loss-llbitmap-unwritten
after md-raid10-keep-the-bits loss-far-interrupted
after md-list-features features
exit "$failed"
