#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# The tests, in brief, on 7.3 with the first patches of the series only: after each feature all those that there are so far, after a
# patch that mends something its own. What a later patch mends is not asked for before. Prints what run.sh prints.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd -- "$here/../.." && pwd)
export MD_TEST_SECONDS=3
failed=0

# with <part of a patch's name> <test>…: runs these tests with the series up to that patch.
with() {
	local patches
	patches=$(grep -v '^#' "$repo/kernel/lab/meshstor.series" | grep -n -m1 -e "$1" | cut -d: -f1)
	[[ $patches ]] || {
		echo "steps.sh: no patch is called '$1'" >&2
		exit 2
	}
	echo "with $patches patches, up to $1:"
	MESHSTOR_PATCHES=$patches "$here/run.sh" 7.3-patched "${@:2}" || failed=1
}

reads=(read-balance-qd1 read-balance-ewma read-balance-swap read-balance-hung read-balance-untouched)
takeover=(takeover-keeps-data takeover-refuses takeover-survives-power-cut takeover-under-load-power-cut)
barriers=(barrier-other-bucket barrier-two-recoveries stress-near2-2disks)
with md-raid10-read-from-the-device "${reads[@]}"
with md-raid10-take-over-a-raid1 "${reads[@]}" "${takeover[@]}"
with md-raid10-raise-barriers "${reads[@]}" "${takeover[@]}" "${barriers[@]}"
with md-raid10-advance-a-reshape stress-near2-2disks
with md-raid10-look-up loss-llbitmap-unwritten
with md-raid10-keep-the-bits loss-far-interrupted
with md-raid10-record-a-failure loss-acked-before-recorded
with md-raid10-tell-the-failure-gate features gate-holds gate-stale-agreement gate-refuse gate-stop gate-power-cut
with md-raid10-keep-to-the-layouts reshape-interrupted reshape-waiters
exit "$failed"
