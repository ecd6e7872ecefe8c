# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What the choice by latency leaves alone: write-mostly members, what a resync has not reached, a sequential stream, other levels.
needs_patches
mem_leg probe0 8 && mem_leg probe1 8
array_of_legs raid1 probe0 probe1
[[ $(attribute latency_balance) == 1 ]]
if echo maybe >"$md_dir/latency_balance" 2>/dev/null; then fail "'maybe' was taken"; fi
clean_up
mem_leg probe0 8 && mem_leg probe1 8
mdadm --create "$md" --run --quiet --level=0 --raid-devices=2 /run/dm/probe0 /run/dm/probe1
[[ $(attribute latency_balance) == n/a ]] || fail "raid0 says $(attribute latency_balance)"
if echo 0 >"$md_dir/latency_balance" 2>/dev/null; then fail "raid0 took it"; fi
clean_up

leg near 256 300000
leg far 256 3000000
array_of_legs raid1 far near
# Behind the stream that follows: it would go on with any member whose last read ended where it has just arrived.
echo writemostly >"$(member near state)"
mapfile -t seen < <(shares near far -- random_reads "$md" 1 1 --offset=128M)
check "share of a write-mostly member, though it is the fast one" "${seen[1]} == 0"
echo -writemostly >"$(member near state)"
mapfile -t seen < <(shares near far -- random_reads "$md" 1 1 --offset=128M)
check "share of it afterwards" "${seen[1]} >= 7500"
say "write-mostly: left alone"

mapfile -t seen < <(shares near far -- dd if="$md" of=/dev/null bs=64k count=1024 iflag=direct status=none)
check "one member for a stream" "${seen[0]} >= 9900 || ${seen[1]} >= 9900"
say "sequential: on one member"
clean_up

# Nothing is known about a new array, and its first reads find out. The stream that they are a part of does not stay with the slow member.
leg near 256 300000
leg far 256 3000000
array_of_legs raid1 far near
mapfile -t seen < <(shares near far -- dd if="$md" of=/dev/null bs=64k count=1024 iflag=direct status=none)
check "share of the fast member of a stream that begins with probes" "${seen[0]} >= 9900"
say "sequential, from the first read on: ${seen[0]} of 10000 reads on the fast member"
clean_up

for level in raid1 raid10; do
	leg near 256 300000
	leg far 256 3000000
	if [[ $level == raid10 ]]; then layout="--layout=n2 --chunk=64"; else layout=; fi
	# shellcheck disable=SC2086
	mdadm --create "$md" --run --quiet --level=$level --raid-devices=2 $layout --metadata=1.2 --bitmap=none \
		--data-offset=$((head_sectors / 2)) /run/dm/far /run/dm/near
	echo frozen >"$md_dir/sync_action"
	for ((n = 0; n < 100; n++)); do [[ $(attribute sync_action) == frozen ]] && break || sleep 0.05; done
	mapfile -t seen < <(shares near far -- random_reads "$md" 1 1 --offset=128M)
	check "$level: share of the first member where the resync has not been" "${seen[2]} >= 9900"
	say "$level, unclean: all from the first member"
	clean_up
done
