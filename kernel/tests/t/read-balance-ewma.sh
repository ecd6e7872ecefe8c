# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What latency_ewma_ns is: seeded by the first read, moved by 1/16, clamped at 10 ms, of reads that succeeded at once, and new for a
# member that is added again.
needs_patches

read_once() { dd if="$md" of=/dev/null bs=4k count=1 skip=$((RANDOM % 1000 + 100)) iflag=direct status=none; }
ewma() { cat "$(member "$1" latency_ewma_ns)"; }

for level in raid1 raid10; do
	leg a 64 4000000
	leg b 64 4000000
	array_of_legs "$level" a b
	# One leg that all reads go to.
	mdadm --manage "$md" --quiet --fail /run/dm/b
	mdadm --manage "$md" --quiet --remove /run/dm/b
	echo 0 >"$md_dir/latency_balance"

	# A fresh member: away, added, and nothing has been read yet. It is recovered from a, which must not count as a sample.
	samples=$(ewma a)
	mdadm --manage "$md" --quiet --add /run/dm/b
	for ((n = 0; n < 100; n++)); do [[ $(attribute degraded) == 0 ]] && break || sleep 0.1; done
	[[ $(attribute degraded) == 0 ]] || fail "b was not rebuilt"
	[[ $(ewma b) == 0 ]] || fail "$level: a member that nobody has read has $(ewma b) ns"
	[[ $(ewma a) == "$samples" ]] || fail "$level: the rebuild has moved a from $samples to $(ewma a)"

	mdadm --manage "$md" --quiet --fail /run/dm/a
	read_once
	seed=$(ewma b)
	check "first sample, ns" "$seed >= 4000000 && $seed < 10000000"

	leg_takes b 300000
	read_once
	moved=$(ewma b)
	# From the seed by a sixteenth of the way to a sample of at least 300 us and at most the seed.
	check "second value, ns" "$moved < $seed && $moved >= $seed - ($seed - 300000) / 16 - 1"

	leg_takes b 40000000
	for ((n = 0; n < 100; n++)); do read_once; done
	check "value after reads of 40 ms, ns" "$(ewma b) > 9500000 && $(ewma b) <= 10000000"
	say "$level: seeded with $seed ns, then $moved ns, then $(ewma b) ns"
	clean_up
done
