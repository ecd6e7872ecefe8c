# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What is no sample: a read that failed, and its retry from another leg. And a replacement is measured anew, not as what it replaces.
needs_patches

ewma() { cat "$(member "$1" latency_ewma_ns)"; }

# A sector of the array that the leg near cannot read.
broken=65536
break_near() {
	local at=$((head_sectors + broken)) size
	size=$(cat /sys/block/near-300000/size)
	{
		echo "0 $head_sectors linear /dev/near-head 0"
		echo "$head_sectors $broken linear /dev/near-300000 0"
		echo "$at 8 error"
		echo "$((at + 8)) $((size - broken - 8)) linear /dev/near-300000 $((broken + 8))"
	} | dmsetup load near
	dmsetup resume near --noudevsync --noudevrules
}

for level in raid1 raid10; do
	leg near 64 300000
	leg far 64 3000000
	array_of_legs "$level" far near
	random_reads "$md" 1 1 >/dev/null
	break_near
	mark "$level"
	for ((n = 0; n < 20; n++)); do
		# A read in between may be a probe of far, which has no error to meet.
		near_before=$(ewma near) far_before=$(ewma far)
		dd if="$md" of=/dev/null bs=4k count=1 skip=$((broken / 8)) iflag=direct status=none || fail "$level: far did not answer"
		if since "$level" 'rescheduling sector' >/dev/null; then break; fi
	done
	since "$level" 'rescheduling sector' >/dev/null || fail "$level: no read has met the error"
	[[ $(ewma near) == "$near_before" ]] || fail "$level: the failed read has moved near from $near_before to $(ewma near)"
	[[ $(ewma far) == "$far_before" ]] || fail "$level: the retry has moved far from $far_before to $(ewma far)"
	say "$level: near stays at $near_before ns and far at $far_before ns over a failed read"
	clean_up

	leg far 64 3000000
	leg slow 64 4000000
	array_of_legs "$level" far slow
	random_reads "$md" 1 1 >/dev/null
	leg fast 64 300000
	echo 1000000 >"$md_dir/sync_speed_min"
	mdadm --manage "$md" --quiet --add-spare /run/dm/fast
	mdadm --manage "$md" --quiet --replace /run/dm/slow --with /run/dm/fast
	for ((n = 0; n < 600; n++)); do [[ $(cat "$(member slow state)") == *faulty* ]] && break || sleep 0.1; done
	[[ $(cat "$(member fast state)") == *in_sync* ]] || fail "$level: not replaced: $(cat "$(member fast state)")"
	[[ $(ewma fast) == 0 ]] || fail "$level: a replacement that nobody has read has $(ewma fast) ns"
	mapfile -t seen < <(shares fast far -- random_reads "$md" 1 2)
	check "share of the replacement, in 1/100 %" "${seen[1]} >= 7500"
	say "$level: the replacement has ${seen[1]} of 10000 reads, at $(ewma fast) ns"
	clean_up
done
