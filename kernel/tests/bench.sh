#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Runs the benches in b/ on each base, patched and stock, one right after the other, and writes target/bench/kernel.json and
# kernel.md: bench.sh [<base>…], with 7.3 and 6.12 if none is named. On 6.12, whose guest is an emulator, also those in i/, which count
# instructions.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
bases=("${@:-7.3}")
(($#)) || bases=(7.3 6.12)
target=${CARGO_TARGET_DIR:-$here/../../target}
mkdir -p -- "$target/bench"
failed=0
for base in "${bases[@]}"; do
	for dir in b i; do
		if [[ $dir == i && $base != 6.12 ]]; then continue; fi
		for kernel in patched stock; do
			MD_TEST_DIR=$dir "$here/run.sh" "$base-$kernel" || failed=1
		done
	done
done

# A row that has no reference of its own is compared with the same row of the stock kernel.
rows() { # <patched or stock>
	local base
	for base in "${bases[@]}"; do
		cat -- "$target/kernel-test/$base-$1-"[bi]/*.log | grep '^ROW' || true
	done
}
awk -F'\t' -v json="$target/bench/kernel.json" -v md="$target/bench/kernel.md" '
	function cell(x) { return x == "" ? "–" : (x >= 100 ? sprintf("%.0f", x) : sprintf("%.3f", x)) }
	function number(x) { return x == "" ? "null" : x }
	function quotient(x, y) { return x == "" || y == "" || y == 0 ? "" : x / y }
	# Of the stock kernel: what it has itself, against its own reference where there is one.
	NR == FNR { stock[$2] = $5; stock_ratio[$2] = quotient($5, $6); next }
	{
		reference = $6 != "" ? $6 : stock[$2]
		ratio = quotient($5, reference)
		line[++n] = sprintf("| %s | %s | %s | %s | %s | %s | %s | %s | %s |", $2, $3, cell($5), cell(reference), cell(ratio), $4,
			cell(stock[$2]), cell(stock_ratio[$2]), $7)
		object[n] = sprintf("    {\"name\": \"%s\", \"unit\": \"%s\", \"ours\": %s, \"reference\": %s, \"ratio\": %s, \"aim\": \"%s\", " \
			"\"stock\": %s, \"stock_ratio\": %s, \"runs\": %s}",
			$2, $3, number($5), number(reference), number(ratio), $4, number(stock[$2]), number(stock_ratio[$2]), $7)
	}
	END {
		print "| name | unit | ours | reference | ratio | aim | stock | its ratio | runs |" >md
		print "|---|---|--:|--:|--:|---|--:|--:|--:|" >md
		print "{\n  \"rows\": [" >json
		for (i = 1; i <= n; i++) {
			print line[i] >md
			print object[i] (i < n ? "," : "") >json
		}
		print "  ]\n}" >json
	}' <(rows stock) <(rows patched)
cat -- "$target/bench/kernel.md"
exit "$failed"
