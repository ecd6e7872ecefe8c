#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# What every change runs of the tests of md, 8 minutes at most once all is built: on 7.3 each kind of test, with a stress of a few
# seconds; the package in Debian's own 6.12, with its three features; and an array that goes from one to the other over reboots.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
export MD_TEST_SECONDS=3
failed=0
"$here/run.sh" 7.3-patched features loss-far-interrupted loss-llbitmap-unwritten loss-still-degraded logical-block-size-field barrier-other-bucket \
	read-balance-qd1 read-balance-swap read-balance-hung read-balance-untouched \
	loss-acked-before-recorded gate-holds gate-stale-agreement gate-refuse gate-power-cut \
	stress-near2-2disks reshape-interrupted reshape-waiters takeover-keeps-data takeover-refuses takeover-survives-power-cut takeover-under-load-power-cut || failed=1
"$here/run.sh" 6.12-patched modules features logical-block-size-field loss-still-degraded gate-holds level-change-fails grow-in-flight || failed=1
"$here/reboot.sh" || failed=1
"$here/package.sh" || failed=1
exit "$failed"
