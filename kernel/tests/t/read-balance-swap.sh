# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# When the delays of the legs change places under load, the reads follow. When only the slow leg becomes as fast as the other, it
# is found and used again.
needs_patches

fast=300000 slow=3000000

# shares_of <leg>…: parts of 10000 of the reads in the next 2 s.
shares_of() { shares "$@" -- sleep 2; }

levels="raid1 raid10"
if in_brief; then levels=raid1; fi
for level in $levels; do
	leg a 256 $fast
	leg b 256 $slow
	array_of_legs "$level" b a
	random_reads "$md" 1 16 >/tmp/fio &
	reader=$!
	sleep 1
	mapfile -t before < <(shares_of a b)
	check "share of the fast leg at first" "${before[0]} >= 7500"

	leg_takes a $slow
	leg_takes b $fast
	sleep 2
	mapfile -t swapped < <(shares_of a b)
	check "share of the other leg, 2 s after the swap" "${swapped[1]} >= 7500"

	leg_takes a $fast
	sleep 2
	mapfile -t both < <(shares_of a b)
	check "share of the leg that is fast again, 2 s later" "${both[0]} >= 1000"
	say "$level: fast leg ${before[0]}, then the other ${swapped[1]}, then the first again ${both[0]} of 10000 reads"
	wait "$reader"
	clean_up
done
