# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The last member does not fail, its writes do: they end as errors at once, held ones as well as new ones, and the gate has nothing to ask.
# With fail_last_dev it fails, and that waits for user space, with an error or not.
# shellcheck source=../gate-lib.sh
. ./gate-lib.sh
needs_gate

for level in raid1 raid10; do
	gate_array $level a b
	[[ -z $(tell on) ]]
	write_word 1 old
	leg_fails b
	begin_write 1 new
	gate_is holding
	[[ -z $(tell agree "$(latest)") ]]
	wait_write 1 ok
	leg_fails a
	begin_write 2 new
	wait_write 2 error
	[[ $(gate) == on && -z $(waiting) ]] || fail "$level: the gate is '$(gate)', '$(waiting)' wait"
	stop_array
	clean_up

	# While the other one waits for an answer, with a write that is held: that has been written.
	gate_array $level a b
	[[ -z $(tell on) ]]
	write_word 1 old
	leg_fails b
	begin_write 1 new
	gate_is holding
	not_answered 1
	leg_fails a
	begin_write 2 new
	wait_write 2 error
	not_answered 1
	[[ -z $(tell refuse) ]]
	wait_write 1 error
	stop_array
	clean_up

	gate_array $level a b
	[[ -z $(tell on) ]]
	echo 1 >"$md_dir/fail_last_dev"
	write_word 1 old
	leg_fails b
	begin_write 1 new
	gate_is holding
	[[ -z $(tell agree "$(latest)") ]]
	wait_write 1 ok
	leg_fails a
	begin_write 2 new
	wait_write 2 error
	gate_is holding
	[[ $(waiting) == "$(device a) " ]] || fail "$level: '$(waiting)' wait"
	[[ -z $(tell refuse) ]]
	stop_array
	say "$level: errors are not held"
	clean_up
done
