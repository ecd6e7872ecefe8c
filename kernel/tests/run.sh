#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Runs the tests of this folder in a guest: run.sh <kernel> [<test>…]
#
#   <kernel>   7.3-stock, 7.3-patched: User-Mode Linux, without and with the patches for md
#              7.3-debug: the same, with KASAN, lockdep, preemption and the hung-task detector
#              6.12-stock, 6.12-patched: Debian's own kernel in QEMU, with its own modules of md and with those of our package
#   <test>     names in t/ without .sh; all of them if none is given
#
# MD_TEST_DIR=b runs the benches in b/ instead, MD_TEST_DIR=i those in i/, which count instructions and are for 6.12 only; bench.sh
# does, and makes a table of what they say. MD_TEST_DIR=r is for reboot.sh. The files in MD_TEST_DISKS are disks of a 6.12 guest.
#
# Prints a line a test and a closing count. What a test printed is in target/kernel-test/<kernel>/<test>.log; a failed test's
# output is shown. Needs root, for the guest's root directory is made by one.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd -- "$here/../.." && pwd)

usage() {
	sed -n '3,14s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
	exit 2
}

kernel=${1:-}
case $kernel in
7.3-stock) export MESHSTOR_KERNEL=stock ;;
7.3-patched) export MESHSTOR_KERNEL=meshstor ;;
7.3-debug) export MESHSTOR_KERNEL=debug ;;
6.12-stock | 6.12-patched) ;;
*) usage ;;
esac
shift

all=()
dir=${MD_TEST_DIR:-t}
for file in "$here/$dir"/*.sh; do
	file=${file##*/}
	all+=("${file%.sh}")
done
wanted=("${@:-"${all[@]}"}")
(($#)) || wanted=("${all[@]}")
for test in "${wanted[@]}"; do
	[[ -e $here/$dir/$test.sh ]] || {
		echo "run.sh: there is no test '$test' in kernel/tests/$dir" >&2
		exit 2
	}
done

out=${CARGO_TARGET_DIR:-$repo/target}/kernel-test/$kernel${MD_TEST_DIR:+-$dir}
rm -rf -- "$out"
mkdir -p -- "$out/share" "$out/uml"
share=$out/share
cp -r -- "$here" "$share/tests"
cp -- "$here/guest" "$share/agent"
printf '%s\n' "${wanted[@]}" >"$share/wanted"
echo "$dir ${MD_TEST_SECONDS:-}" >"$share/options"
: >"$share/results"

start_uml() {
	local paths KERNEL ROOT
	"$repo/e2e/lab/build.sh" kernel >/dev/null
	paths=$("$repo/e2e/lab/build.sh" root)
	eval "$paths"
	TMPDIR=/dev/shm "$KERNEL" root=/dev/root rootfstype=hostfs "rootflags=$ROOT" ro init=/sbin/meshstor-init mem=2560M log_buf_len=16M \
		seccomp=on ncpus=2 con=null con0=fd:0,fd:1 quiet null_blk.nr_devices=0 "uml_dir=$out/uml/" umid=md \
		meshstor.node=md "meshstor.share=$share" </dev/null >"$out/console" 2>&1 &
}

# Without a hypervisor, so that it runs wherever the tests do.
start_qemu() {
	local tree version file machine=(-smp 2 -accel "tcg,thread=multi")
	# A nanosecond of the guest is an instruction.
	if [[ $dir == i ]]; then machine=(-smp 1 -accel "tcg,thread=single" -icount "shift=0,sleep=off"); fi
	for file in ${MD_TEST_DISKS:+"$MD_TEST_DISKS"/*}; do machine+=(-drive "file=$file,format=raw,if=virtio,cache=unsafe"); done
	tree=$("$repo/kernel/build.sh" debian)
	version=$(basename -- "$tree"/boot/vmlinuz-* | sed 's/^vmlinuz-//')
	qemu-system-x86_64 -machine q35 -cpu max "${machine[@]}" -m 2048 -nographic -no-reboot -nic none \
		-kernel "$tree/boot/vmlinuz-$version" -initrd "$tree/boot/md-test.initrd" \
		-append "console=ttyS0 panic=-1 quiet log_buf_len=16M md.modules=${kernel#6.12-}" \
		-fsdev "local,id=root,path=$tree,security_model=none,readonly=on" -device virtio-9p-pci,fsdev=root,mount_tag=/dev/root \
		-fsdev "local,id=share,path=$share,security_model=none" -device virtio-9p-pci,fsdev=share,mount_tag=share \
		</dev/null >"$out/console" 2>&1 &
}

boot() {
	case $kernel in
	7.3-*) start_uml ;;
	6.12-*) start_qemu ;;
	esac
	guest=$!
}

boot
trap 'kill -9 "$guest" 2>/dev/null || true' EXIT

# QEMU without a hypervisor does not always keep up with a kernel that patches its own code while it boots on two CPUs: seen once, a page
# fault at a patched instruction of sched_clock_cpu(), before there was any user space. Nothing of ours has run then.
boots=1
while [[ $kernel == 6.12-* && ! -e $share/booted && ! -e $share/over ]]; do
	if kill -0 "$guest" 2>/dev/null; then
		# One that hangs is for the loop below.
		((SECONDS < 300)) || break
		sleep 0.3
		continue
	fi
	((boots < 3)) || break
	boots=$((boots + 1))
	echo "the guest's kernel ended before it had booted; boot $boots of at most 3; the end of its console was:"
	tail -n 12 -- "$out/console" | sed 's/^/  | /'
	boot
done

passed=0 failed=0 skipped=0 shown=0
show() { # the outcomes that are new
	local outcome test seconds
	while read -r outcome test seconds; do
		shown=$((shown + 1))
		mv -- "$share/$test.log" "$share/$test.dmesg" "$out/"
		case $outcome in
		ok) passed=$((passed + 1)) ;;
		skipped)
			skipped=$((skipped + 1))
			outcome="skipped: $(sed -n 's/^SKIPPED: //p' "$out/$test.log")"
			# The patches are what this kernel is for.
			if [[ $outcome == *"not patched" && $kernel != *-stock ]]; then
				skipped=$((skipped - 1)) failed=$((failed + 1))
				outcome=FAILED
			fi
			;;
		failed)
			failed=$((failed + 1))
			outcome=FAILED
			;;
		esac
		echo "test $kernel::$test ... $outcome ($seconds s)"
		if [[ $outcome != skipped* ]]; then grep '^  ' "$out/$test.log" || true; fi
		if [[ $outcome == FAILED ]]; then tail -n 15 -- "$out/$test.log" | sed 's/^/  | /'; fi
	done < <(tail -n +$((shown + 1)) "$share/results")
}

# A test that says nothing for this long hangs, or its kernel does.
patience=$((900 + 5 * ${MD_TEST_SECONDS:-15}))
heard=$SECONDS
while kill -0 "$guest" 2>/dev/null && [[ ! -e $share/over ]]; do
	before=$shown
	show
	((shown == before)) || heard=$SECONDS
	if ((SECONDS - heard > patience)); then
		echo "no test has ended for $patience s; the guest is taken down"
		kill -9 "$guest"
	fi
	sleep 0.3
done
show
missing=$((${#wanted[@]} - shown))
if ((missing)); then
	echo "the guest ended before ${wanted[shown]} did; the end of its console:"
	tail -n 30 -- "$out/console" | sed 's/^/  | /'
	failed=$((failed + missing))
fi
if ((failed)); then word=FAILED; else word=ok; fi
echo "test result: $word. $passed passed; $failed failed; $skipped ignored; 0 measured; 0 filtered out"
((failed == 0))
