# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# I1: when a replacement has everything, the member that it replaces is left behind, and from then on lacks what is written: that too waits
# for user space. The replacement counts from the instant at which it is in sync; one that fails before is nobody's loss.
# shellcheck source=../gate-lib.sh
. ./gate-lib.sh
needs_gate

for level in raid1 raid10; do
	gate_array $level a b
	gate_leg c
	[[ -z $(tell on) ]]
	dd if=/dev/urandom of="$md" bs=1M count=32 oflag=direct status=none
	write_word 1 old

	# One that fails on the way.
	echo 100 >"$md_dir/sync_speed_max"
	echo 100 >"$md_dir/sync_speed_min"
	mdadm --manage "$md" --quiet --add-spare /run/dm/c
	mdadm --manage "$md" --quiet --replace /run/dm/b --with /run/dm/c
	for ((n = 0; n < 100; n++)); do [[ $(attribute sync_action) == recover ]] && break || sleep 0.05; done
	[[ $(attribute sync_action) == recover ]] || fail "the replacement has not begun"
	leg_fails c
	begin_write 1 new
	wait_write 1 ok
	for ((n = 0; n < 100; n++)); do [[ $(cat "$(member c state)") == *faulty* ]] && break || sleep 0.05; done
	[[ $(cat "$(member c state)") == *faulty* && $(gate) == on ]] || fail "the gate is '$(gate)', c $(cat "$(member c state)")"
	leg_is_well c
	for ((n = 0; n < 100; n++)); do mdadm --manage "$md" --quiet --remove /run/dm/c 2>/dev/null && break || sleep 0.05; done
	mdadm --zero-superblock /run/dm/c

	# One that gets through.
	echo 200000 >"$md_dir/sync_speed_max"
	echo 200000 >"$md_dir/sync_speed_min"
	# It is still wanted, so it may begin at once.
	mdadm --manage "$md" --quiet --add-spare /run/dm/c
	mdadm --manage "$md" --quiet --replace /run/dm/b --with /run/dm/c 2>/dev/null || true
	gate_is holding
	[[ $(waiting) == "$(device b) " ]] || fail "'$(waiting)' wait"
	begin_write 1 now
	not_answered 1
	[[ $(word_on c 1) == now ]] || fail "c does not have it"
	if mdadm --manage "$md" --quiet --remove /run/dm/b 2>/dev/null; then fail "removed before the answer"; fi
	first=$(latest)

	# It counts at once.
	leg_fails c
	for ((n = 0; n < 100; n++)); do [[ $(latest) != "$first" ]] && break || { sleep 0.1; begin_write 3 xxx; }; done
	[[ $(waiting) == *"$(device c) "* ]] || fail "'$(waiting)' wait"
	[[ $(tell agree "$first") == "Stale file handle" ]]
	not_answered 1
	[[ -z $(tell agree "$(latest)") ]]
	wait_write 1 ok
	mdadm --manage "$md" --quiet --remove /run/dm/b
	say "$level: the member that was replaced is left behind when user space agrees"
	stop_array
	clean_up
done
