# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The raid10 comes back after another boot; see reboot.sh.
. ./reboot-lib.sh
raid10_is_whole
has latency_balance || fail "these are not the modules of the package"
stop_array
