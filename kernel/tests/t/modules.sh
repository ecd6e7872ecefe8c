# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The kernel under test is what it says it is. With the package, modprobe finds its modules of md and not the distribution's, they
# load into the distribution's kernel, and show the three features.
grep -q '^md_mod ' /proc/modules || skip "md is built into this kernel"
mem_leg a 64
mem_leg b 64
array_of_legs raid1 a b
if grep -q md.modules=stock /proc/cmdline; then
	if has latency_balance; then fail "the modules of the package are loaded"; fi
	if echo raid10 >"$md_dir/level" 2>/dev/null; then fail "the modules of the package are loaded"; fi
	say "Linux $(uname -r), $(nproc) CPUs, with its own modules"
else
	file=$(modinfo -F filename md_mod)
	[[ $file == */updates/dkms/* ]] || fail "not from the package: $file"
	[[ $(attribute latency_balance) == 1 && -e $(member a latency_ewma_ns) ]] || fail "no latency-aware reads"
	echo raid10 >"$md_dir/level"
	[[ $(attribute level) == raid10 ]] || fail "no takeover"
	say "Linux $(uname -r), $(nproc) CPUs, with $file"
fi
