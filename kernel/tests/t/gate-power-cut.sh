# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# I1: under load a leg fails, the other one goes on, and the power goes before user space has answered: whichever of the legs is the start
# afterwards, alone or with the others, all that was acknowledged is there.
#
# With the gate off, as on a stock kernel, the leg that failed lacks what was acknowledged after it: the test shows that it would see it.
# The contents of the disks at that moment are the power cut. The disks have no cache, so a direct write is as safe as one with O_SYNC.
# shellcheck source=../gate-lib.sh
. ./gate-lib.sh

# Four writers, two with O_SYNC and two with O_DIRECT, each with its own blocks: "<block> <number>" before each write, "ok <block> <number>" after it.
write_for_ever() {
	local n
	for n in 0 1 2 3; do
		perl -e '
			use Fcntl; $| = 1;
			sysopen(my $disk, $ARGV[0], O_WRONLY | ($ARGV[1] % 2 ? O_DIRECT : O_SYNC)) or die;
			my $memory = "\0" x 8192;
			my $aligned = -unpack("J", pack("P", $memory)) % 4096;
			for (my $n = 1; ; $n++) {
				my $block = int(rand(1024)) * 4 + $ARGV[1];
				print "$block $n\n";
				sysseek($disk, $block * 4096, 0) or exit;
				substr($memory, $aligned, 4096) = pack("N", $n) x 1024;
				(syswrite($disk, $memory, 4096, $aligned) // 0) == 4096 or exit;
				print "ok $block $n\n";
			}' "$md" $n >"/tmp/writes-$n" &
		writers+=($!)
	done
}

# compare <device or file> <offset in blocks>: each block has the number of the last write that was acknowledged, or of one that came later.
compare() {
	perl -e '
		my (%acknowledged, %tried, $wrong, $writes);
		my ($path, $offset) = splice(@ARGV, 0, 2);
		for my $log (@ARGV) {
			open(my $in, "<", $log) or die;
			while (<$in>) {
				if (/^(\d+) (\d+)$/) { $tried{$1}{$2} = 1 }
				elsif (/^ok (\d+) (\d+)$/) { $acknowledged{$1} = $2; $tried{$1} = {}; $writes++ }
			}
		}
		open(my $disk, "<", $path) or die;
		for my $block (keys %acknowledged) {
			sysseek($disk, ($block + $offset) * 4096, 0) or die;
			sysread($disk, my $data, 4096) == 4096 or die;
			my $n = unpack("N", $data);
			$wrong++ unless $n == $acknowledged{$block} || $tried{$block}{$n};
		}
		printf("%d %d\n", $wrong, $writes);' "$1" "$2" /tmp/writes-?
}

# one <level> <gate: on|off> <ms until the failure> <cause>; sets $lost, the blocks that a leg alone lacks.
one() {
	local level=$1 gate=$2 ms=$3 cause=$4 n leg acknowledged wrong writers=()
	rm -f /tmp/writes-?
	gate_array "$level" a b
	[[ $cause != failfast ]] || for leg in a b; do echo failfast >"$(member $leg state)"; done
	[[ $gate == off ]] || [[ -z $(tell on) ]] || fail "the gate cannot be switched on"
	write_for_ever
	for ((n = 0; n < 600; n++)); do (($(cat /tmp/writes-? | grep -c ok) >= 40)) && break || sleep 0.05; done
	sleep "$(printf '0.%03d' "$ms")"
	case $cause in
	faulty) echo faulty >"$(member a state)" ;;
	*) leg_fails a ;;
	esac
	[[ $gate == off ]] || gate_is holding
	sleep 1.5
	if [[ $gate == off ]]; then
		# They would go on for ever.
		kill -9 "${writers[@]}"
		wait "${writers[@]}" 2>/dev/null || true
	fi
	# The cut.
	acknowledged=$(cat /tmp/writes-? | grep -c ok)
	for leg in a b; do dd if="/dev/$leg-disk" of="/tmp/$leg.cut" bs=1M iflag=direct status=none; done
	check "acknowledged during the hold" "$(cat /tmp/writes-? | grep -c ok) == $acknowledged"
	if [[ $gate == on ]]; then
		[[ $(gate) == holding && -z $(tell refuse) ]] || fail "the gate is '$(gate)'"
		wait "${writers[@]}" || true
	fi
	for ((n = 0; n < 100; n++)); do stop_array 2>/dev/null && break || sleep 0.1; done

	lost=0
	for leg in a b; do
		read -r wrong acknowledged <<<"$(compare "/tmp/$leg.cut" $((head_sectors / 8)))"
		check "acknowledged writes" "$acknowledged >= 40"
		lost=$((lost + wrong))
	done
	# And as a person would start it.
	for leg in a b; do
		mem_leg "$leg-cut" $gate_mib
		dd if="/tmp/$leg.cut" of="/dev/$leg-cut" bs=1M oflag=direct status=none
	done
	assemble_newest a-cut b-cut
	wait_idle
	read -r wrong acknowledged <<<"$(compare "$md" 0)"
	[[ $wrong == 0 ]] || fail "$level, gate $gate, $cause: $wrong blocks are lost after the assembly of both legs"
	stop_array
	say "$level, gate $gate, $cause after $ms ms: of $acknowledged acknowledged writes one leg alone lacks $lost blocks, both together none"
	clean_up
}

needs_gate
if in_brief; then moments="50" causes="error"; else moments="10 100" causes="error failfast faulty"; fi
for level in raid1 raid10; do
	one $level off 50 error
	((lost > 0)) || fail "with the gate off no leg lacks anything: the test would not see a loss"
	for ms in $moments; do
		for cause in $causes; do
			one $level on "$ms" $cause
			[[ $lost == 0 ]] || fail "$lost blocks that were acknowledged are missing on a leg"
		done
	done
done
