# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Nothing hangs and no byte is lost when everything happens at once: 4 disks, far 2, which no reshape is for (see stress.sh).
# shellcheck source=../stress.sh
. ./stress.sh
needs_patches
stress 4 f2
