# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The distribution's modules run what was made a raid10; see reboot.sh.
. ./reboot-lib.sh
raid10_is_whole
if has latency_balance; then fail "these are not the distribution's modules"; fi
stop_array
