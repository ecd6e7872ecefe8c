# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Nothing hangs and no byte is lost when members fail and return again and again under verifying writers, with a program that agrees after
# a while, and flushes, discards, checks and changes of the array meanwhile.
# shellcheck source=../gate-lib.sh
. ./gate-lib.sh
needs_gate

seconds=${MD_TEST_SECONDS:-15}
rm -f /tmp/stop-stress

agrees() {
	local answers=0
	while [[ ! -e /tmp/stop-stress ]]; do
		if [[ $(gate) == holding ]]; then
			sleep "0.$((RANDOM % 4))"
			if [[ -z $(tell agree "$(latest)") ]]; then answers=$((answers + 1)); fi
		else
			sleep 0.02
		fi
		echo $answers >/tmp/answers
	done
}

loses() {
	local n leg losses=0
	while [[ ! -e /tmp/stop-stress ]]; do
		leg=$1
		shift
		set -- "$@" "$leg"
		if ((RANDOM % 2)); then
			leg_fails "$leg"
			begin_write 8000 err
			for ((n = 0; n < 100; n++)); do [[ $(cat "$(member "$leg" state)") == *faulty* ]] && break || sleep 0.05; done
		else
			echo faulty >"$(member "$leg" state)"
		fi
		# Removed only after the answer.
		for ((n = 0; n < 400; n++)); do mdadm --manage "$md" --quiet --remove "/run/dm/$leg" 2>/dev/null && break || sleep 0.05; done
		leg_is_well "$leg"
		mdadm --manage "$md" --quiet --re-add "/run/dm/$leg" 2>/dev/null || mdadm --manage "$md" --quiet --add-spare "/run/dm/$leg"
		for ((n = 0; n < 400; n++)); do [[ $(attribute degraded) == 0 ]] && break || sleep 0.05; done
		losses=$((losses + 1))
		echo $losses >/tmp/losses
	done
}

for level in raid1 raid10; do
	rm -f /tmp/stop-stress /tmp/losses /tmp/answers
	gate_array $level a b c
	[[ -z $(tell on) ]]
	agrees & agents=($!)
	loses a b c & agents+=($!)
	(while [[ ! -e /tmp/stop-stress ]]; do blkdiscard -f -o 24M -l 4M "$md" 2>/dev/null || true; sleep 0.1; done) & agents+=($!)
	writers=()
	for n in 0 1; do
		fio --name="w$n" --filename="$md" --direct=1 --rw=randrw --bsrange=4k-64k --ioengine=io_uring --iodepth=8 --rate_iops=100,100 \
			--offset=$((n * 10))M --size=10M --verify=crc32c --verify_backlog=64 --verify_fatal=1 --fdatasync=32 \
			--runtime="$seconds" --time_based --verify_state_save=0 >"/tmp/w$n" 2>&1 &
		writers+=($!)
	done
	for pid in "${writers[@]}"; do wait "$pid" || { tail -n 5 /tmp/w?; fail "$level: a writer found an error"; }; done
	touch /tmp/stop-stress
	# One may wait for an answer still; who agrees may be about to.
	for ((n = 0; n < 400; n++)); do
		kill -0 "${agents[1]}" 2>/dev/null || break
		[[ $(gate) != holding ]] || tell agree "$(latest)" >/dev/null || true
		sleep 0.05
	done
	for pid in "${agents[@]}"; do wait "$pid" || true; done
	for ((n = 0; n < 400; n++)); do [[ $(attribute degraded) == 0 ]] && break || sleep 0.05; done
	[[ $(attribute degraded) == 0 ]] || fail "$level: still degraded"
	check_mirrors
	check "$level: losses" "$(cat /tmp/losses) > 0"
	check "$level: answers" "$(cat /tmp/answers) > 0"
	say "$level: $(cat /tmp/losses) losses, $(cat /tmp/answers) answers"
	stop_array
	clean_up
done
