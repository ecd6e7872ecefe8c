#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# An array goes through four boots of Debian's own kernel, on disks that stay: made by the distribution's modules of md, taken over by
# those of our package, run by them again, and run by the distribution's again. The steps are in r/. Prints what run.sh prints.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
MD_TEST_DISKS=${CARGO_TARGET_DIR:-$here/../../target}/kernel-test/reboot
export MD_TEST_DIR=r MD_TEST_DISKS
rm -rf -- "$MD_TEST_DISKS"
mkdir -p -- "$MD_TEST_DISKS"
truncate -s 200M -- "$MD_TEST_DISKS/a" "$MD_TEST_DISKS/b"
"$here/run.sh" 6.12-stock reboot-1-made-by-stock-modules
"$here/run.sh" 6.12-patched reboot-2-taken-over-by-the-package
"$here/run.sh" 6.12-patched reboot-3-run-by-the-package-again
"$here/run.sh" 6.12-stock reboot-4-run-by-stock-modules-again
rm -rf -- "$MD_TEST_DISKS"
