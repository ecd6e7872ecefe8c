# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Discards and writes of zeroes are held as writes are.
# shellcheck source=../gate-lib.sh
. ./gate-lib.sh
needs_gate

for level in raid1 raid10; do
	for what in "" -z; do
		gate_array $level a b
		[[ -z $(tell on) ]]
		dd if=/dev/urandom of="$md" bs=1M count=16 oflag=direct status=none
		# shellcheck disable=SC2086
		begin blkdiscard -f $what -o 0 -l 8M "$md"
		wait_begun ok
		echo faulty >"$(member b state)"
		gate_is holding
		# shellcheck disable=SC2086
		begin blkdiscard -f $what -o 8M -l 8M "$md"
		sleep 1
		[[ ! -e /tmp/begun.ok && ! -e /tmp/begun.error ]] || fail "$level: blkdiscard $what was answered"
		[[ -z $(tell agree "$(latest)") ]]
		wait_begun ok
		say "$level: blkdiscard $what is held"
		stop_array
		clean_up
	done
done
