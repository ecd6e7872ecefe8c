# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# A leg that stops answering keeps the few reads that it has; the others go on, although it was the fast one.
needs_patches

levels="raid1 raid10"
if in_brief; then levels=raid10; fi
for level in $levels; do
	leg near 256 300000
	leg far 256 3000000
	array_of_legs "$level" far near
	random_reads "$md" 32 6 >/tmp/fio &
	reader=$!
	sleep 2
	dmsetup suspend near --nolockfs --noflush
	sleep 0.5
	before=$(reads_of far)
	sleep 2
	after=$(reads_of far)
	dmsetup resume near --noudevsync --noudevrules
	wait "$reader"
	say "$level: $((after - before)) reads in 2 s while the near leg answered none"
	check "reads while the near leg hung" "$after - $before > 100"
	clean_up
done
