# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Sourced by the t/stress-* tests: everything at once on one raid10.

# stress <disks> <layout> [<disks after a reshape>]: verifying writers, at a rate that leaves time for a recovery; check, repair and
# frozen in turn; one or two legs that fail and return; errors; discards. $MD_TEST_SECONDS long, 15 if that is not set. Then the
# reshape, under a verifying writer.
#
# With dm-dust, errors are of reads, and writing heals them. A kernel without it (Debian's) has blocks that fail reads and writes for a
# while, and no list of bad blocks, so that md drops the leg.
stress() {
	local disks=$1 layout=$2 grow=${3:-} seconds=${MD_TEST_SECONDS:-15} legs=() n writers=() agents=() pid
	for ((n = 0; n < ${grow:-$disks}; n++)); do
		null_disk "leg$n-disk" 132 0 memory_backed=1 discard=1
		if has_dust; then
			echo "0 $((132 * 2048)) dust /dev/leg$n-disk 0 512" | dm_create "leg$n"
			dmsetup message "leg$n" 0 enable
			dmsetup message "leg$n" 0 quiet 2>/dev/null || true
		else
			echo "0 $((132 * 2048)) linear /dev/leg$n-disk 0" | dm_create "leg$n"
		fi
		legs+=("/run/dm/leg$n")
	done
	mdadm --create "$md" --run --quiet --level=10 --layout="$layout" --chunk=64 --raid-devices="$disks" --metadata=1.2 \
		--bitmap=internal --assume-clean --data-offset=4096 --size=126M "${legs[@]:0:disks}"
	wait_idle
	if ! has_dust; then
		stop_array
		mdadm --assemble "$md" --run --quiet --update=no-bbl "${legs[@]:0:disks}"
	fi
	echo 200000 >"$md_dir/sync_speed_min"
	echo 100000000 >"$md_dir/max_read_errors"
	rm -rf /tmp/stress
	mkdir -p /tmp/stress
	mark "stress-$disks-$layout"

	# KASAN and lockdep leave no time for a recovery beside more than that, and still it takes minutes.
	local rate=60 slow=1 mib=$(($(cat /sys/block/md0/size) / 2048))
	[[ ! -e /proc/lockdep ]] || rate=15 slow=3
	for n in 0 1; do
		fio --name="w$n" --filename="$md" --direct=1 --rw=randrw --bsrange=4k-64k --ioengine=io_uring --iodepth=8 --rate_iops="$rate,$rate" \
			--offset=$((n * mib / 3))M --size=$((mib / 3))M --verify=crc32c --verify_backlog=64 --verify_fatal=1 \
			--runtime="$seconds" --time_based --verify_state_save=0 >"/tmp/stress/w$n" 2>&1 &
		writers+=($!)
	done
	stress_syncs & agents+=($!)
	stress_members "$disks" & agents+=($!)
	stress_errors "$disks" & agents+=($!)
	stress_discards $((2 * mib / 3)) $((mib - 2 * mib / 3)) & agents+=($!)

	for pid in "${writers[@]}"; do
		wait "$pid" || { tail -n 5 /tmp/stress/w?; fail "a writer found an error"; }
	done
	mark "stress-over-$disks-$layout"
	touch /tmp/stress/stop
	for pid in "${agents[@]}"; do wait "$pid" || { cat /tmp/stress/wrong; fail "discards did more than they should"; }; done

	stress_did syncs $((seconds / 60 / slow + 1))
	stress_did losses $((seconds / 120 / slow + 1))
	stress_did errors $((seconds / 60 / slow + 1))
	stress_did discards $((seconds / 60 / slow + 1))
	local recoveries errors
	recoveries=$(since "stress-$disks-$layout" 'recover of|md-test: mark stress-over' | sed '/stress-over/,$d' | wc -l)
	errors=$(since "stress-$disks-$layout" 'rescheduling sector|Disk failure' | wc -l)
	check "recoveries beside the writers" "$recoveries >= $seconds / 120 / $slow"
	check "errors that the array met" "$errors >= $seconds / 120 / $slow + 1"
	for n in 0 1; do grep -q 'READ:' "/tmp/stress/w$n" || fail "writer $n read nothing"; done

	stress_settle "$disks"
	check_mirrors
	if [[ -n $grow ]]; then
		stress_reshape "$disks" "$grow"
		[[ $(attribute degraded) == 0 ]] || fail "degraded at the end"
		# What is new is not: a stock kernel does not make it the same either, and nobody has written it.
		check_mirrors $((mib * 2048))
	fi
	say "$disks disks, $layout: $(stress_times syncs) syncs, $(stress_times losses) losses, $recoveries recoveries," \
		"$errors errors, $(stress_times discards) discards${grow:+, then $grow disks}"
	clean_up
}

has_dust() { dmsetup targets | grep -q '^dust'; }

stress_goes_on() { [[ ! -e /tmp/stress/stop ]]; }
stress_note() { echo "$2" >>"/tmp/stress/$1"; }
stress_times() { [[ ! -e /tmp/stress/$1 ]] && echo 0 || wc -l <"/tmp/stress/$1"; }
stress_did() { check "number of $1" "$(stress_times "$1") >= $2"; }

# The recovery after a loss is interrupted twice at most, or nothing would ever be whole where it has to begin anew each time.
stress_syncs() {
	while stress_goes_on; do
		for action in check repair check frozen; do
			if [[ $(attribute degraded) != 0 ]]; then
				if ((RANDOM % 30 || $(stress_times interruptions) >= 2)); then
					sleep 0.2
					continue
				fi
				stress_note interruptions "$action"
			fi
			echo "$action" >"$md_dir/sync_action" && stress_note syncs "$action"
			sleep "0.$((RANDOM % 4 + 1))"
			echo idle >"$md_dir/sync_action"
		done 2>/dev/null
	done
}

# Legs are away, or another one has errors, but not both: there would be no good copy left.
stress_members() { # <disks>
	local n=0
	while stress_goes_on; do
		sleep 0.2
		exec 9>/tmp/stress/lock
		flock 9
		n=$((RANDOM % $1))
		if (($1 >= 4 && RANDOM % 2)); then
			stress_loss "leg$n" "leg$(((n + $1 / 2) % $1))"
		else
			stress_loss "leg$n"
		fi || true
		echo "after $SECONDS s: $(stress_times losses) losses, $(attribute degraded) missing"
		exec 9>&-
	done
}

stress_loss() { # <leg>…
	local leg
	[[ $(attribute degraded) == 0 ]] || stress_wait_whole || return
	rm -f /tmp/stress/interruptions
	for leg in "$@"; do mdadm --manage "$md" --quiet --fail "/run/dm/$leg" || return; done
	sleep "0.$((RANDOM % 9 + 1))"
	stress_note losses "$*"
	stress_return "$@"
} >/dev/null 2>&1

# Legs that are faulty are taken out, come back, and are recovered.
stress_return() { # <leg>…
	local leg n
	for leg in "$@"; do
		for ((n = 0; n < 100; n++)); do
			mdadm --manage "$md" --quiet --remove "/run/dm/$leg" && break || sleep 0.1
		done
		mdadm --manage "$md" --quiet --re-add "/run/dm/$leg" || return
	done
	stress_wait_whole
}

stress_wait_whole() {
	local n
	for ((n = 0; n < 150; n++)); do
		[[ $(attribute degraded) == 0 ]] && return
		sleep 0.4
	done
	return 1
}

stress_errors() { # <disks>
	while stress_goes_on; do
		exec 9>/tmp/stress/lock
		flock 9
		stress_bad_blocks "leg$((RANDOM % $1))" || true
		exec 9>&-
		sleep 0.2
	done
}

stress_bad_blocks() { # <leg>
	local block
	[[ $(attribute degraded) == 0 ]] || return
	if ! has_dust; then
		stress_error_segments "$1"
		return
	fi
	# Near the start, where there are writers in all layouts.
	for block in $(shuf -i 8192-57343 -n 20); do
		dmsetup message "$1" 0 addbadblock "$block" && stress_note errors "$1"
	done
	sleep 0.3
	dmsetup message "$1" 0 clearbadblocks
} >/dev/null 2>&1

stress_error_segments() { # <leg>
	local at=0 block size=$((132 * 2048)) disk=/dev/$1-disk
	{
		for block in $(shuf -i 512-3583 -n 30 | sort -n); do
			echo "$at $((block * 16 - at)) linear $disk $at"
			echo "$((block * 16)) 8 error"
			at=$((block * 16 + 8))
			stress_note errors "$1"
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

# Writes, discards a part of it, and looks whether the rest is still there.
stress_discards() { # <first MiB> <MiB>
	local at from head=/tmp/stress/head tail=/tmp/stress/tail
	while stress_goes_on; do
		at=$(($1 + RANDOM % ($2 - 8)))
		from=$((RANDOM % 16))
		head -c 2M /dev/urandom >"$head"
		head -c 2M /dev/urandom >"$tail"
		dd if="$head" of="$md" bs=1M seek="$at" oflag=direct conv=notrunc status=none
		dd if="$tail" of="$md" bs=1M seek=$((at + 6)) oflag=direct conv=notrunc status=none
		blkdiscard --offset $((at * 1048576 + 2097152 + from * 4096)) --length $((4194304 - 2 * from * 4096)) "$md"
		if ! dd if="$md" bs=1M skip="$at" count=2 iflag=direct status=none | cmp - "$head" ||
			! dd if="$md" bs=1M skip=$((at + 6)) count=2 iflag=direct status=none | cmp - "$tail"; then
			echo "a discard of $((4096 - 8 * from)) KiB behind $((at + 2)) MiB" >/tmp/stress/wrong
			return 1
		fi
		stress_note discards "$at"
		# All of this is processes, and the recovery needs a CPU as well.
		sleep 0.7
	done
}

# stress_settle <disks>: every leg is back.
stress_settle() {
	local n state
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
	# On a kernel with KASAN that takes minutes, and a resync may come before the recovery.
	for ((n = 0; n < 3000; n++)); do
		[[ $(attribute degraded) == 0 && $(attribute sync_action) == idle ]] && return
		sleep 0.2
	done
	fail "$(attribute degraded) legs are missing still, $(attribute sync_action)"
}

# stress_reshape <disks> <disks>: under a verifying writer.
stress_reshape() {
	local n writer more=()
	for ((n = $1; n < $2; n++)); do more+=("/run/dm/leg$n"); done
	mark "reshape-to-$2"
	mdadm --manage "$md" --quiet --add "${more[@]}"
	fio --name=r --filename="$md" --direct=1 --rw=randrw --bs=4k --ioengine=io_uring --iodepth=4 --size=64M --verify=crc32c \
		--verify_backlog=64 --verify_fatal=1 --runtime=8 --time_based --verify_state_save=0 >/tmp/stress/r 2>&1 &
	writer=$!
	mdadm --grow "$md" --quiet --raid-devices="$2"
	wait "$writer" || { tail -n 5 /tmp/stress/r; fail "the writer found an error during the reshape"; }
	wait_idle
	[[ $(attribute raid_disks) == "$2" ]] || fail "$(attribute raid_disks) disks after the reshape"
	since "reshape-to-$2" 'reshape' >/dev/null || fail "no reshape"
}
