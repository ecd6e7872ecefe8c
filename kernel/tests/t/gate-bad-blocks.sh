# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# I1: with the gate on a member that cannot write a block has failed, also if it has a list of bad blocks, for it lacks what is acknowledged.
# A member whose list has entries is not added. A block that cannot be read is no failure; where it is listed it is written the next time.
#
# A stock kernel, and one with the gate off, lists the block and acknowledges.
# shellcheck source=../gate-lib.sh
. ./gate-lib.sh
needs_gate

# Blocks 100 to 109 of the array cannot be written there.
leg_has_bad_spot() {
	local from=$((head_sectors + 800)) to=$((head_sectors + 880))
	leg_becomes "$1" <<-END
		0 $from linear /dev/$1-disk 0
		$from 80 error
		$to $((gate_mib * 2048 - to)) linear /dev/$1-disk $to
	END
}

for level in raid1 raid10; do
	for state in off on; do
		for leg in a b c; do gate_leg $leg; done
		layout=()
		[[ $level == raid1 ]] || layout=(--layout=n2 --chunk=64)
		mdadm --create "$md" --run --quiet --level=$level --raid-devices=2 "${layout[@]}" --metadata=1.2 --bitmap=internal --assume-clean \
			--data-offset=$((head_sectors / 2)) --size=32M /run/dm/a /run/dm/b
		echo 0 >"$md_dir/safe_mode_delay"
		[[ -z $(tell $state) ]]
		write_word 100 old
		leg_has_bad_spot b
		begin_write 100 new
		if [[ $state == off ]]; then
			wait_write 100 ok
			[[ $(cat "$(member b state)") == *in_sync* && -s $(member b bad_blocks) ]] || fail "b has no bad blocks"
		else
			gate_is holding
			not_answered 100
			[[ -z $(cat "$(member b bad_blocks)") ]] || fail "b has bad blocks: $(cat "$(member b bad_blocks)")"
			[[ -z $(tell agree "$(latest)") ]]
			wait_write 100 ok
		fi
		stop_array
		clean_up
	done
	say "$level: a block that cannot be written fails its member"
done

# Block 100 of the array cannot be read there.
leg_has_unreadable_spot() {
	local from=$((head_sectors + 800)) to=$((head_sectors + 808))
	leg_becomes "$1" <<-END
		0 $from linear /dev/$1-disk 0
		$from 8 flakey /dev/$1-disk $from 0 1 1 error_reads
		$to $((gate_mib * 2048 - to)) linear /dev/$1-disk $to
	END
}

for level in raid1 raid10; do
	for leg in a b c; do gate_leg $leg; done
	layout=()
	[[ $level == raid1 ]] || layout=(--layout=n2 --chunk=64)
	mdadm --create "$md" --run --quiet --level=$level --raid-devices=2 "${layout[@]}" --metadata=1.2 --bitmap=internal --assume-clean \
		--data-offset=$((head_sectors / 2)) --size=32M /run/dm/a /run/dm/b
	echo 0 >"$md_dir/safe_mode_delay"
	[[ -z $(tell on) ]]
	write_word 99 old
	write_word 100 old
	echo faulty >"$(member b state)"
	gate_is holding
	[[ -z $(tell agree "$(latest)") ]]
	leg_has_unreadable_spot a
	# The only source of a recovery.
	mdadm --manage "$md" --quiet --add-spare /run/dm/c
	for ((n = 0; n < 400; n++)); do [[ $(attribute degraded) == 0 ]] && break || sleep 0.05; done
	[[ $(attribute degraded) == 0 && -n $(cat "$(member a bad_blocks)") && -n $(cat "$(member c bad_blocks)") ]] || fail "$level: not recovered, or nothing is unreadable"
	wait_idle
	write_word 99 new
	write_word 100 new
	[[ $(gate) == on && $(word_on a 100) == new && $(word_on c 100) == new ]] || fail "$level: '$(gate)', '$(word_on a 100)', '$(word_on c 100)'"
	for ((n = 0; n < 100; n++)); do [[ -z $(cat "$(member c bad_blocks)") ]] && break || sleep 0.05; done
	[[ -z $(cat "$(member c bad_blocks)") ]] || fail "$level: c has bad blocks still"

	# Off, a block in the list is left out once a write has failed there.
	from=$((head_sectors + 200 * 8))
	[[ -z $(tell off) ]]
	for state in off on; do
		echo "$from 8" >"$(member c bad_blocks)"
		echo write_error >"$(member c state)"
		write_word 200 $state
		[[ $(word_on a 200) == $state* ]] || fail "$level, $state: not on a"
		if [[ $state == off ]]; then
			[[ $(word_on c 200) != off ]] || fail "$level: written although it is in the list"
			echo -write_error >"$(member c state)"
			write_word 200 mid
			for ((n = 0; n < 100; n++)); do [[ -z $(cat "$(member c bad_blocks)") ]] && break || sleep 0.05; done
			[[ -z $(tell on) ]] || fail "$level: not switched on: $(cat "$(member c bad_blocks)")"
		else
			[[ $(word_on c 200) == on* ]] || fail "$level: a member is left out"
		fi
	done
	stop_array
	say "$level: a block that cannot be read fails nothing and leaves nothing out"
	clean_up
done

gate_array raid1 a b
gate_leg c
mdadm --create /dev/md1 --run --quiet --level=1 --raid-devices=2 --assume-clean --metadata=1.2 --bitmap=none --data-offset=$((head_sectors / 2)) \
	--size=32M /run/dm/c missing
echo "100 8" >/sys/block/md1/md/dev-"$(device c)"/bad_blocks
echo clean >/sys/block/md1/md/array_state
mdadm --stop --quiet /dev/md1
[[ -z $(tell on) ]]
mark bad
if mdadm --manage "$md" --quiet --add-spare /run/dm/c 2>/tmp/error; then
	# mdadm has written a new superblock, without the list.
	[[ -z $(cat "$(member c bad_blocks)") ]] || fail "a member with bad blocks was added"
	say "mdadm clears the list of what it adds"
else
	since bad "has bad blocks" >/dev/null || fail "not added for another reason: $(cat /tmp/error)"
	say "a member with bad blocks is not added"
fi
stop_array
