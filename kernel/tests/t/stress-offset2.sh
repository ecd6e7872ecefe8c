# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Nothing hangs and no byte is lost when everything happens at once: 4 disks, offset 2, which become 5 (see stress.sh).
# shellcheck source=../stress.sh
. ./stress.sh
needs_patches
stress 4 o2 5
