# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Nothing hangs and no byte is lost when everything happens at once: 2 disks, near 2, which become 4 (see stress.sh).
# shellcheck source=../stress.sh
. ./stress.sh
needs_patches
stress 2 n2 4
