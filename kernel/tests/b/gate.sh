# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What the failure gate costs while nothing fails: writes a second with it on, against off, in turns on the same array. And how long a
# write takes that a failure holds, with a program that answers as soon as poll() says so.
# shellcheck source=../gate-lib.sh
. ./gate-lib.sh
needs_gate

writes() { # [<fio option>…]: a second
	fio --name=w --filename="$md" --direct=1 --rw=randwrite --bs=4k --norandommap --ioengine=io_uring --iodepth=8 --runtime=3 --time_based \
		--minimal --terse-version=3 "$@" | awk -F';' 'NF > 100 { print $49 }'
}

for level in raid1 raid10; do
	for flush in 0 16; do
		on=() off=()
		gate_array $level a b
		for try in 1 2 3 4 5; do
			[[ -z $(tell off) ]]
			off+=("$(writes --fdatasync=$flush)")
			[[ -z $(tell on) ]]
			on+=("$(writes --fdatasync=$flush)")
		done
		row 5 "gate-cost-$base-$level-flush-$flush" "IOPS" "≥ 0.99 of off" "$(median "${on[@]}")" "$(median "${off[@]}")"
		stop_array
		clean_up
	done

	times=()
	for try in 1 2 3 4 5; do
		gate_array $level a b
		[[ -z $(tell on) ]]
		write_word 1 old
		perl -e '
			open(my $f, "<", "$ARGV[0]/failure_gate") or die; sysread($f, my $b, 99);
			my $e = ""; vec($e, fileno($f), 1) = 1; select(undef, undef, $e, 20) > 0 or exit 1;
			open(my $m, "<", "$ARGV[0]/failure_gate_members") or die;
			my ($last) = sort { $b <=> $a } map { (split)[0] } <$m>;
			open(my $a, ">", "$ARGV[0]/failure_gate") or die; syswrite($a, "agree $last") or die;' "$md_dir" &
		sleep 0.3
		leg_fails b
		began=$(date +%s%N)
		dd if=/dev/zero of="$md" bs=4k count=1 seek=1 oflag=direct status=none
		times+=("$((($(date +%s%N) - began) / 1000))")
		[[ $(gate) == on && $(attribute degraded) == 1 ]] || fail "the gate is '$(gate)'"
		stop_array
		clean_up
	done
	row 5 "gate-hold-$base-$level" "ms" "" "$(median "${times[@]}" | awk '{ print $1 / 1000 }')"
done
