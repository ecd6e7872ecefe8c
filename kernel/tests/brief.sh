#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# What every change runs of the tests of md, 8 minutes at most once all is built: each test on 7.3, with stresses of a few seconds;
# the package in Debian's own 6.12, with its three features; and an array that goes from one to the other over reboots.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
export MD_TEST_SECONDS=3
failed=0
"$here/run.sh" 7.3-patched || failed=1
"$here/run.sh" 6.12-patched modules features read-balance-ewma barrier-other-bucket loss-still-degraded || failed=1
"$here/reboot.sh" || failed=1
exit "$failed"
