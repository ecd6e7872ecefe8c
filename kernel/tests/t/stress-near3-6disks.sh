# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Nothing hangs and no byte is lost when everything happens at once: 6 disks, near 3, which become 9 (see stress.sh).
# shellcheck source=../stress.sh
. ./stress.sh
needs_patches
stress 6 n3 9
