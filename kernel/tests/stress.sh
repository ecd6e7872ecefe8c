# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Sourced by the t/stress-* tests: everything at once on one raid10.

# stress <disks> <layout> <errors|discards> [<disks after a reshape>]: verifying writers; check, repair and frozen in turn; legs
# that fail and return; and either errors or discards. $MD_TEST_SECONDS long, 15 if that is not set.
#
# With dm-dust, errors are of reads, and writing heals them. A kernel without it (Debian's) has blocks that fail reads and writes for a
# while, and no list of bad blocks, so that md drops the leg.
stress() {
	local disks=$1 layout=$2 kind=$3 grow=${4:-} seconds=${MD_TEST_SECONDS:-15} legs=() n writers=() agents=() pid
	for ((n = 0; n < ${grow:-$disks}; n++)); do
		null_disk "leg$n-disk" 132 0 memory_backed=1 discard=1
		if [[ $kind == errors ]] && has_dust; then
			echo "0 $((132 * 2048)) dust /dev/leg$n-disk 0 512" | dm_create "leg$n"
			dmsetup message "leg$n" 0 enable
			dmsetup message "leg$n" 0 quiet 2>/dev/null || true
		else
			echo "0 $((132 * 2048)) linear /dev/leg$n-disk 0" | dm_create "leg$n"
		fi
		legs+=("/run/dm/leg$n")
	done
	mdadm --create "$md" --run --quiet --level=10 --layout="$layout" --chunk=64 --raid-devices="$disks" --metadata=1.2 \
		--bitmap=internal --data-offset=4096 --size=126M "${legs[@]:0:disks}"
	wait_idle
	if ! has_dust; then
		stop_array
		mdadm --assemble "$md" --run --quiet --update=no-bbl "${legs[@]:0:disks}"
	fi
	echo 200000 >"$md_dir/sync_speed_min"
	mark "stress-$disks-$layout-$kind"
	rm -rf /tmp/stress
	mkdir -p /tmp/stress

	local mib=$(($(cat /sys/block/md0/size) / 2048))
	for n in 0 1; do
		fio --name="w$n" --filename="$md" --direct=1 --rw=randrw --bsrange=4k-128k --ioengine=io_uring --iodepth=8 \
			--offset=$((n * mib / 3))M --size=$((mib / 3))M --verify=crc32c --verify_backlog=64 --verify_fatal=1 \
			--runtime="$seconds" --time_based --verify_state_save=0 >"/tmp/stress/w$n" 2>&1 &
		writers+=($!)
	done
	stress_syncs & agents+=($!)
	stress_members "$disks" & agents+=($!)
	if [[ $kind == errors ]]; then
		stress_errors "$disks" & agents+=($!)
	else
		stress_discards $((2 * mib / 3)) $((mib - 2 * mib / 3)) & agents+=($!)
	fi

	for pid in "${writers[@]}"; do
		wait "$pid" || { tail -n 5 /tmp/stress/w?; fail "a writer found an error"; }
	done
	for pid in "${agents[@]}"; do kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; done
	local what
	for what in syncs members "$kind"; do
		[[ -s /tmp/stress/$what ]] || fail "no $what at all"
	done
	for n in 0 1; do grep -q 'READ:' "/tmp/stress/w$n" || fail "writer $n read nothing"; done

	stress_settle "$disks"
	if [[ -n $grow ]]; then stress_reshape "$disks" "$grow"; fi
	[[ $(attribute degraded) == 0 ]] || fail "degraded at the end"
	check_mirrors
	say "$disks disks, $layout, $kind: $(wc -l </tmp/stress/syncs) syncs, $(wc -l </tmp/stress/members) losses and returns," \
		"$(wc -l <"/tmp/stress/$kind") $kind${grow:+, then $grow disks}"
	clean_up
}

stress_syncs() {
	while :; do
		for action in check repair check frozen; do
			echo "$action" >"$md_dir/sync_action" 2>/dev/null && echo "$action" >>/tmp/stress/syncs
			sleep "0.$((RANDOM % 9 + 1))"
			echo idle >"$md_dir/sync_action" 2>/dev/null || true
		done
	done
}

# A leg is away, or another one has errors, but not both: there would be no good copy left.
stress_members() { # <disks>
	while :; do
		sleep 0.5
		flock /tmp/stress/lock "$BASH" -c ". ./lib.sh; . ./stress.sh; stress_member leg$((RANDOM % $1))" || true
	done
}

stress_member() {
	[[ $(attribute degraded) == 0 ]] || return
	mdadm --manage "$md" --quiet --fail "/run/dm/$1" || return
	sleep "0.$((RANDOM % 9 + 1))"
	stress_return "$1"
} 2>/dev/null

# A leg that is faulty is taken out, comes back, and is recovered.
stress_return() {
	local leg=/run/dm/$1 n
	for ((n = 0; n < 50; n++)); do
		mdadm --manage "$md" --quiet --remove "$leg" && break || sleep 0.1
	done
	mdadm --manage "$md" --quiet --re-add "$leg" || return
	echo "$leg" >>/tmp/stress/members
	for ((n = 0; n < 100; n++)); do
		[[ $(attribute degraded) == 0 ]] && return
		sleep 0.1
	done
} 2>/dev/null

stress_errors() { # <disks>
	while :; do
		flock /tmp/stress/lock "$BASH" -c ". ./lib.sh; . ./stress.sh; stress_bad_blocks leg$((RANDOM % $1))" || true
		sleep 0.2
	done
}

has_dust() { dmsetup targets | grep -q '^dust'; }

stress_bad_blocks() { # <leg>
	local block
	[[ $(attribute degraded) == 0 ]] || return
	if ! has_dust; then
		stress_error_segments "$1"
		return
	fi
	for ((block = 0; block < 12; block++)); do
		dmsetup message "$1" 0 addbadblock $((8192 + (RANDOM * 32768 + RANDOM) % (120 * 2048))) &&
			echo "$1" >>/tmp/stress/errors
	done
	sleep 0.5
	dmsetup message "$1" 0 clearbadblocks
} >/dev/null 2>&1

stress_error_segments() { # <leg>
	local at=0 block size=$((132 * 2048)) disk=/dev/$1-disk
	{
		for block in $(shuf -i 512-15871 -n 6 | sort -n); do
			echo "$at $((block * 16 - at)) linear $disk $at"
			echo "$((block * 16)) 8 error"
			at=$((block * 16 + 8))
			echo "$1" >>/tmp/stress/errors
		done
		echo "$at $((size - at)) linear $disk $at"
	} | stress_table "$1"
	sleep 0.5
	echo "0 $size linear $disk 0" | stress_table "$1"
	sleep 0.2
	[[ $(cat "$(member "$1" state)") != *faulty* ]] || stress_return "$1"
}

stress_table() { # <leg>, and the table on standard input
	dmsetup load "$1"
	dmsetup suspend "$1" --nolockfs
	dmsetup resume "$1" --noudevsync --noudevrules
}

stress_discards() { # <first MiB> <MiB>
	while :; do
		blkdiscard --offset $((($1 + RANDOM % ($2 - 8)) * 1048576)) --length $(((RANDOM % 8 + 1) * 1048576)) "$md" &&
			echo discard >>/tmp/stress/discards
	done
}

# stress_settle <disks>: every leg is back.
stress_settle() {
	local n state
	# What an agent has begun is over when its lock is.
	flock /tmp/stress/lock true
	echo idle >"$md_dir/sync_action" 2>/dev/null || true
	for ((n = 0; n < $1; n++)); do
		state=$(cat "$(member "leg$n" state)" 2>/dev/null || echo gone)
		case $state in
		*faulty*) mdadm --manage "$md" --quiet --remove "/run/dm/leg$n" ;;
		gone) ;;
		*) continue ;;
		esac
		mdadm --manage "$md" --quiet --re-add "/run/dm/leg$n" || mdadm --manage "$md" --quiet --add "/run/dm/leg$n"
	done
	for ((n = 0; n < 300; n++)); do
		[[ $(attribute degraded) == 0 ]] && break
		sleep 0.1
	done
	wait_idle
}

# stress_reshape <disks> <disks>: under a verifying writer.
stress_reshape() {
	local n writer more=()
	for ((n = $1; n < $2; n++)); do more+=("/run/dm/leg$n"); done
	mdadm --manage "$md" --quiet --add "${more[@]}"
	fio --name=r --filename="$md" --direct=1 --rw=randrw --bs=4k --ioengine=io_uring --iodepth=4 --size=64M --verify=crc32c \
		--verify_backlog=64 --verify_fatal=1 --runtime=8 --time_based --verify_state_save=0 >/tmp/stress/r 2>&1 &
	writer=$!
	mdadm --grow "$md" --quiet --raid-devices="$2"
	wait "$writer" || { tail -n 5 /tmp/stress/r; fail "the writer found an error during the reshape"; }
	wait_idle
	[[ $(attribute raid_disks) == "$2" ]] || fail "$(attribute raid_disks) disks after the reshape"
	dmesg | sed "1,/md-test: mark stress/d" | grep -q 'reshape' || fail "no reshape"
}
