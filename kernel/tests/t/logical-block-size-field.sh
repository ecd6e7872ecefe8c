# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# An array that a kernel of 6.19 or newer created has its sector size in the superblocks, and a kernel up to 6.18 does not assemble it.
# Without the field both do, and the newer one leaves it out for good: that is how MeshStor makes its arrays.
for n in 0 1; do mem_leg "leg$n" 72; done
legs=(/run/dm/leg0 /run/dm/leg1)
mdadm --create "$md" --run --quiet --level=1 --raid-devices=2 --metadata=1.2 --bitmap=internal --assume-clean \
	--data-offset=4096 --size=64M "${legs[@]}"
# As long as an array has had no event each assembly takes it for a new one, and fills the field in.
dd if=/dev/urandom of="$md" bs=1M count=1 oflag=direct status=none
wait_idle
knows=no
[[ ! -e $md_dir/logical_block_size ]] || knows=yes

# Sets the field (0xe0 of the superblock, which is at 4 KiB) to $1 and the checksum (0xd8) to what it then is, as calc_sb_1_csum() does.
field() {
	local leg
	for leg in "${legs[@]}"; do
		dd if="$leg" of=/tmp/sb bs=4096 skip=1 count=1 iflag=direct status=none
		perl -e '
			open(F, "+<", "/tmp/sb"); binmode F; read(F, $b, 4096);
			substr($b, 0xe0, 4) = pack("V", $ARGV[0]); substr($b, 0xd8, 4) = pack("V", 0);
			$n = 256 + 2 * unpack("V", substr($b, 220, 4)); $s = 0;
			$s += $_ for unpack("V*", substr($b, 0, $n - $n % 4));
			$s += unpack("v", substr($b, $n - 2, 2)) if $n % 4;
			substr($b, 0xd8, 4) = pack("V", (($s & 0xffffffff) + ($s >> 32)) & 0xffffffff);
			seek(F, 0, 0); print F $b; close F' "$1"
		dd if=/tmp/sb of="$leg" bs=4096 seek=1 count=1 oflag=direct conv=notrunc status=none
	done
}
found() { dd if="${legs[0]}" bs=4096 skip=1 count=1 iflag=direct status=none | od -An -tu4 -j $((0xe0)) -N 4 | tr -d ' '; }
assembles() { mdadm --assemble "$md" --run --quiet "${legs[@]}" 2>/dev/null && [[ -e $md_dir/array_state ]]; }

created=$(found)
mdadm --stop --quiet "$md"
field 512
if assembles; then with=assembles; mdadm --stop --quiet "$md"; else with=refused; fi
field 0
assembles || fail "an array without the field is not assembled"
dd if=/dev/urandom of="$md" bs=1M count=4 oflag=direct status=none
wait_idle
mdadm --stop --quiet "$md"
say "this kernel knows the field: $knows; it wrote $created; with 512 in it: $with; left out and assembled: $(found)"
[[ $(found) == 0 ]] || fail "the kernel has filled the field in"
if [[ $knows == yes ]]; then
	[[ $created != 0 && $with == assembles ]] || fail "a kernel that knows the field should write it and assemble with it"
else
	[[ $created == 0 && $with == refused ]] || fail "a kernel that does not know the field should refuse it"
fi
