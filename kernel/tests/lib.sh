# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What the tests in t/ share. It is sourced in the guest, before the test, in a shell with -euo pipefail of its own.

say() { printf '  %s\n' "$*"; }

fail() {
	printf 'FAILED: %s\n' "$*"
	exit 1
}

# skip <why>: the test does not apply to this kernel.
skip() {
	printf 'SKIPPED: %s\n' "$*"
	exit 77
}

# check <what> <arithmetic condition>: fails with the numbers that were seen.
check() {
	local what=$1
	shift
	(($*)) || fail "$what: not $*"
}

# Whether there is time for a few seconds a test only; see brief.sh.
in_brief() { ((${MD_TEST_SECONDS:-15} < 4)); }

# ---- devices -----------------------------------------------------------------------------------------------------------------

nullb=/sys/kernel/config/nullb

# null_disk <name> <MiB> <ns> [<attribute>=<value>…]: a disk whose requests take that long each, any number of them at once.
# Without memory_backed=1 it forgets what is written and reads zeros.
null_disk() {
	local name=$1 mib=$2 ns=$3 dir=$nullb/$1 pair
	shift 3
	mkdir "$dir"
	echo "$mib" >"$dir/size"
	echo 512 >"$dir/blocksize"
	echo 1 >"$dir/submit_queues"
	echo 64 >"$dir/hw_queue_depth"
	if ((ns)); then
		echo 2 >"$dir/irqmode"
		echo "$ns" >"$dir/completion_nsec"
	fi
	for pair in "$@"; do echo "${pair#*=}" >"$dir/${pair%%=*}"; done
	echo 1 >"$dir/power"
	test -b "/dev/$name" || fail "no /dev/$name"
}

# dm <name>, and the table on standard input; prints nothing. /dev/mapper has links of our own, for there is no udev.
dm_create() {
	local name=$1
	dmsetup create "$name" --noudevsync --noudevrules
	ln -sf "/dev/$(dm_device "$name")" "/run/dm/$name"
}

# The kernel's name of a leg's device.
device() { basename "$(readlink -f "/run/dm/$1")"; }

dm_device() { basename "$(readlink -f "/sys/dev/block/$(dmsetup info -c --noheadings -o major,minor --separator : "$1")")"; }

# Sectors at the start of a leg that keep what is written: the array's metadata. Its data begins there.
head_sectors=8192

# leg <name> <MiB> <ns> [<depth>]: a leg of an array. Its metadata is kept, its data is read as zeros and takes <ns>, and <depth>
# requests, 64 if none is given, are served at a time.
leg() {
	local name=$1 mib=$2 ns=$3
	null_disk "$name-head" $((head_sectors / 2048)) 0 memory_backed=1
	null_disk "$name-$ns" "$mib" "$ns" "hw_queue_depth=${4:-64}"
	leg_table "$name" "$ns" | dm_create "$name"
}

# mem_leg <name> <MiB>: a leg that keeps what is written, at once.
mem_leg() {
	null_disk "$1" "$2" 0 memory_backed=1
	ln -sf "/dev/$1" "/run/dm/$1"
}

leg_table() { # <name> <ns>
	echo "0 $head_sectors linear /dev/$1-head 0"
	echo "$head_sectors $(cat "/sys/block/$1-$2/size") linear /dev/$1-$2 0"
}

# leg_takes <name> <ns>: from now on its reads and writes take that long.
leg_takes() {
	local name=$1 ns=$2
	if [[ ! -d $nullb/$name-$ns ]]; then
		local other
		other=$(find "$nullb" -maxdepth 1 -name "$name-[0-9]*" | head -n 1)
		null_disk "$name-$ns" "$(cat "$other/size")" "$ns"
	fi
	leg_table "$name" "$ns" | dmsetup load "$name"
	dmsetup resume "$name" --noudevsync --noudevrules
}

reads_of() { awk '{ print $1 }' "/sys/block/$(device "$1")/stat"; }

# ---- arrays ------------------------------------------------------------------------------------------------------------------

md=/dev/md0
md_dir=/sys/block/md0/md

# array_of_legs <level> <leg>…: an array that is in sync, without a bitmap, with the legs in this order.
array_of_legs() {
	local level=$1 layout=() paths=()
	shift
	if [[ $level == raid10 ]]; then layout=(--layout="n$#" --chunk=64); fi
	for leg in "$@"; do paths+=("/run/dm/$leg"); done
	mdadm --create "$md" --run --quiet --level="$level" --raid-devices=$# "${layout[@]}" --metadata=1.2 --bitmap=none \
		--assume-clean --data-offset=$((head_sectors / 2)) "${paths[@]}"
}

# assemble <leg>…: from exactly these.
assemble() {
	local paths=()
	for leg in "$@"; do paths+=("/run/dm/$leg"); done
	mdadm --assemble "$md" --run --quiet "${paths[@]}"
}

# assemble_newest <leg>…: as a person would after a crash. If mdadm does not take all of them, those with the most events, and then the
# others are added again. Sets $how.
assemble_newest() {
	local leg best=0 events names=() n
	how="at once"
	if assemble "$@" 2>/dev/null && [[ $(attribute degraded) == 0 ]]; then return; fi
	if [[ -e $md_dir ]]; then stop_array; fi
	for leg in "$@"; do
		events=$(events_of "$leg")
		if ((events > best)); then best=$events names=(); fi
		if ((events == best)); then names+=("$leg"); fi
	done
	assemble "${names[@]}"
	for leg in "$@"; do
		[[ " ${names[*]} " == *" $leg "* ]] || mdadm --manage "$md" --quiet --re-add "/run/dm/$leg"
	done
	for ((n = 0; n < 200; n++)); do [[ $(attribute degraded) == 0 ]] && break || sleep 0.05; done
	[[ $(attribute degraded) == 0 ]] || fail "still degraded"
	how="from ${names[*]}"
}

stop_array() { mdadm --stop --quiet "$md"; }

# The event counter in a leg's superblock, and the array's own.
events_of() { mdadm --examine --export "/run/dm/$1" | sed -n 's/^MD_EVENTS=//p'; }

attribute() { cat "$md_dir/$1"; }

# wait_idle: until no sync runs or is about to.
wait_idle() {
	local n
	for ((n = 0; n < 600; n++)); do
		if [[ $(attribute sync_action) == idle ]]; then return; fi
		sleep 0.1
	done
	fail "still $(attribute sync_action) after 60 s"
}

# since <mark> <pattern>: the lines of the kernel log since `mark <mark>` that match.
mark() { echo "md-test: mark $1" >/dev/kmsg; }
since() {
	dmesg | grep "md-test: mark $1\$" >/dev/null || fail "the kernel log has lost the mark $1"
	dmesg | sed "1,/md-test: mark $1\$/d" | grep -E -- "$2"
}

# not_rebuilt <mark>: no member was resynced or recovered since then.
not_rebuilt() {
	if since "$1" 'resync of|recover of'; then fail "something was rebuilt"; fi
}

# check_mirrors [<sectors>]: a check of the array, or of so many sectors of it, finds no difference.
check_mirrors() {
	local n done_sectors
	wait_idle
	if (($#)); then echo "$1" >"$md_dir/sync_max"; fi
	echo check >"$md_dir/sync_action"
	if (($#)); then
		for ((n = 0; n < 600; n++)); do
			read -r done_sectors _ <<<"$(attribute sync_completed)"
			[[ $done_sectors == "$1" ]] && break || sleep 0.1
		done
		[[ $done_sectors == "$1" ]] || fail "the check has come to $done_sectors"
		echo idle >"$md_dir/sync_action"
		echo max >"$md_dir/sync_max"
	fi
	wait_idle
	[[ $(attribute mismatch_cnt) == 0 ]] || fail "a check found $(attribute mismatch_cnt) sectors that differ"
}

# has <attribute of the array>: whether this kernel has it; an array must be there.
has() { [[ -e $md_dir/$1 ]]; }

# needs_patches: skips the test on a stock kernel, after it has shown that this is one.
needs_patches() {
	mem_leg patch0 8
	mem_leg patch1 8
	array_of_legs raid1 patch0 patch1
	if ! has latency_balance; then
		if echo raid10 >"$md_dir/level" 2>/dev/null; then fail "no md/latency_balance, but the takeover works"; fi
		skip "not patched"
	fi
	clean_up
}

# The attribute of a leg's membership.
member() { echo "$md_dir/dev-$(device "$1")/$2"; }

# ---- load --------------------------------------------------------------------------------------------------------------------

# random_reads <device> <queue depth> <seconds> [<fio option>…]: prints "IOPS p50 p99", latencies in µs.
random_reads() {
	local device=$1 depth=$2 seconds=$3
	shift 3
	fio --name=r --filename="$device" --readonly --direct=1 --rw=randread --bs=4k --norandommap --randrepeat=0 \
		--ioengine="$( ((depth > 1)) && echo io_uring || echo psync)" --iodepth="$depth" --runtime="$seconds" --time_based \
		--minimal --terse-version=3 --percentile_list=50:99 "$@" | awk -F';' '
		{ for (i = 1; i <= 41; i++) { if ($i ~ /^50.0+%=/) p50 = $i; if ($i ~ /^99.0+%=/) p99 = $i }
		sub(/.*=/, "", p50); sub(/.*=/, "", p99); print int($8), p50, p99 }'
}

# shares <leg>… -- <command…>: runs the command, prints its output and then, per leg, its part of all reads in percent × 100.
shares() {
	local legs=() before=() after leg n=0 all=0 part=()
	while [[ $1 != -- ]]; do legs+=("$1") && shift; done
	shift
	for leg in "${legs[@]}"; do before+=("$(reads_of "$leg")"); done
	"$@"
	for leg in "${legs[@]}"; do
		after=$(reads_of "$leg")
		part+=($((after - before[n++])))
		all=$((all + part[-1]))
	done
	((all > 0)) || fail "nothing was read"
	for n in "${part[@]}"; do echo $((n * 10000 / all)); done
}

# ---- end ---------------------------------------------------------------------------------------------------------------------

# Takes away everything that a test can have made.
clean_up() {
	local dir leg
	# A leg that a test left hanging.
	for leg in /run/dm/*; do dmsetup resume "${leg##*/}" --noudevsync --noudevrules >/dev/null 2>&1 || true; done
	# Nobody is left who would answer.
	if [[ -e $md_dir/failure_gate ]]; then echo refuse >"$md_dir/failure_gate" 2>/dev/null || true; fi
	mdadm --stop --scan >/dev/null 2>&1 || true
	# Twice, for what another one lies on.
	dmsetup remove_all --noudevsync --noudevrules --force >/dev/null 2>&1 || true
	dmsetup remove_all --noudevsync --noudevrules --force >/dev/null 2>&1 || true
	rm -rf /run/dm
	for dir in "$nullb"/*/; do
		[[ -e $dir/power ]] || continue
		echo 0 >"$dir/power"
		rmdir "$dir"
	done
	mkdir -p /run/dm
}
