# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# A program can know what it may rely on before there is an array.
needs_patches
file=/sys/module/md_mod/parameters/features
for word in latency_balance raid10_takeover_raid1 raid10_barrier_units raid10_degraded_bitmap failure_recorded_first failure_gate; do
	grep -qx "$word" "$file" || fail "$file does not have $word"
done
if grep -q llbitmap /proc/kallsyms; then grep -qx raid10_llbitmap_recovery "$file" || fail "no raid10_llbitmap_recovery"; fi
if echo nonsense >"$file" 2>/dev/null; then fail "$file can be written"; fi
say "$(tr '\n' ' ' <"$file")"
