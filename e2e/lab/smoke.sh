#!/usr/bin/env bash
# Boots two guests of the lab and takes them through what MeshStor does with a kernel: a partition of `store` is exported over
# NVMe/TCP, `app` mirrors it with a partition of its own, puts xfs on the mirror, writes and verifies, and both power off.
# Prints what it saw and how long it took. Everything runs in a network and process namespace of its own, so nothing is left.
# Needs root and what build.sh kernel and build.sh root made. KEEP=1 leaves the guests' directories for a look.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

if [[ ${1:-} != inside ]]; then
	[[ $(id -u) == 0 ]] || die "smoke: needs root"
	is_done "$(kernel_out)" || die "smoke: no kernel yet: run build.sh kernel"
	is_done "$(root_out)" || die "smoke: no root yet: run build.sh root"
	exec unshare --net --pid --fork --kill-child --mount-proc "${BASH_SOURCE[0]}" inside
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/meshstor-smoke.XXXXXX")
[[ -n ${KEEP:-} ]] || trap 'rm -rf -- "$work"' EXIT
kernel=$(kernel_out)/linux
root=$(root_out)
began=$(date +%s%N)

elapsed() { printf '%d.%03d s' $((($(date +%s%N) - began) / 1000000000)) $((($(date +%s%N) - began) / 1000000 % 1000)); }

ip link set lo up
ip link add br0 type bridge
ip address add 10.77.0.1/24 dev br0
ip link set br0 up

# boot <node> <number>: starts a guest whose agent is this script's `agent` function; its process id is in $guest.
boot() {
	local node=$1 number=$2 dir=$work/$1
	mkdir -p "$dir/share" "$dir/uml"
	truncate -s 1G "$dir/disk0" "$dir/disk1"
	agent "$node" >"$dir/share/agent"
	chmod +x "$dir/share/agent"
	ip tuntap add "tap$number" mode tap
	ip link set "tap$number" master br0 up
	TMPDIR=/dev/shm "$kernel" root=/dev/root rootfstype=hostfs "rootflags=$root" ro init=/sbin/meshstor-init mem=512M \
		seccomp=on ncpus=2 "vec0:transport=tap,ifname=tap$number,depth=64,gro=1" "ubd0=$dir/disk0" "ubd1=$dir/disk1" \
		con=null con0=fd:0,fd:1 quiet null_blk.nr_devices=0 "uml_dir=$dir/uml/" "umid=$node" "meshstor.node=$node" "meshstor.ip=10.77.0.1$number/24" \
		"meshstor.share=$dir/share" </dev/null >"$dir/console" 2>&1 &
	guest=$!
}

agent() {
	echo '#!/bin/bash'
	echo 'set -euo pipefail; exec >/run/share/log 2>&1'
	echo "trap 'echo failed at line \$LINENO; touch /run/share/failed; exit 0' ERR"
	declare -f "guest_$1" partition
	echo "guest_$1; touch /run/share/passed; exit 0"
}

partition() { # <disk>: one GPT partition of 512 MiB, as the operator's drives have
	sgdisk --clear --new=1:1M:+512M --change-name=1:meshstor "/dev/$1" >/dev/null
	blockdev --rereadpt "/dev/$1" 2>/dev/null || partx --update "/dev/$1"
	test -b "/dev/${1}1"
}

# shellcheck disable=SC2317
guest_store() {
	partition ubda
	cd /sys/kernel/config/nvmet
	mkdir subsystems/nqn.2026-11.io.meshstor:smoke && cd subsystems/nqn.2026-11.io.meshstor:smoke
	echo 1 >attr_allow_any_host
	echo smoke-0001 >attr_serial
	mkdir namespaces/1
	echo /dev/ubda1 >namespaces/1/device_path
	echo 1 >namespaces/1/enable
	mkdir ../../ports/1 && cd ../../ports/1
	echo tcp >addr_trtype
	echo ipv4 >addr_adrfam
	echo 10.77.0.11 >addr_traddr
	echo 4420 >addr_trsvcid
	ln -s ../../subsystems/nqn.2026-11.io.meshstor:smoke subsystems/
	touch /run/share/exported
	until test -e /run/share/over; do sleep 0.1; done
}

# shellcheck disable=SC2317
guest_app() {
	uname -r
	echo "boot_id $(cat /proc/sys/kernel/random/boot_id) machine-id $(cat /etc/machine-id) hostid $(cat /etc/nvme/hostid) cpus $(nproc)"
	for fact in serial wwid device/serial queue/logical_block_size queue/physical_block_size queue/rotational queue/write_cache \
		queue/discard_max_bytes queue/write_zeroes_max_bytes queue/fua diskseq; do
		printf 'ubda %s: %s\n' "$fact" "$(cat /sys/block/ubda/$fact 2>/dev/null || echo absent)"
	done
	ls -d /dev/ubd*
	partition ubda
	blkid -p /dev/ubda1 || true
	lsblk -o NAME,SIZE,PARTUUID,PARTLABEL 2>/dev/null || true
	nft add table inet smoke
	nft add chain inet smoke in '{ type filter hook input priority 0; }'
	nft add rule inet smoke in tcp dport 4421 drop
	nft list ruleset | grep -c 4421
	nft delete table inet smoke
	until test -e /run/share/connect; do sleep 0.05; done
	nvme connect --transport=tcp --traddr=10.77.0.11 --trsvcid=4420 --nqn=nqn.2026-11.io.meshstor:smoke \
		--keep-alive-tmo=2 --ctrl-loss-tmo=-1 --reconnect-delay=1 --nr-io-queues=1 --queue-size=64
	until test -b /dev/nvme0n1; do sleep 0.02; done
	nvme list
	printf 'nvme0n1 wwid %s\n' "$(cat /sys/block/nvme0n1/wwid)"
	mdadm --create /dev/md/smoke --run --level=1 --raid-devices=2 --metadata=1.2 --bitmap=internal --assume-clean \
		/dev/ubda1 /dev/nvme0n1 || mdadm --create /dev/md0 --run --level=1 --raid-devices=2 --metadata=1.2 --bitmap=internal \
		--assume-clean /dev/ubda1 /dev/nvme0n1
	cat /proc/mdstat
	local md
	md=/dev/$(sed -n 's/^\(md[^ ]*\) :.*/\1/p' /proc/mdstat)
	ls -l /dev/md*
	cat "/sys/block/${md#/dev/}/md/bitmap_type" || true
	mkfs.xfs -q "$md"
	mkdir -p /tmp/m
	mount "$md" /tmp/m
	fio --name=w --directory=/tmp/m --size=64M --bs=64k --rw=write --verify=crc32c --do_verify=1 --end_fsync=1 --ioengine=psync \
		--minimal >/dev/null
	fio --name=r --filename=/dev/nvme0n1 --readonly --direct=1 --rw=randread --bs=4k --runtime=1 --time_based --ioengine=psync \
		--size=64M --output-format=terse --terse-version=3 | awk -F';' '{ print "remote 4k reads at QD1:", $8, "IOPS, mean", $40, "us" }'
	umount /tmp/m
	mdadm --stop "$md"
	cmp -n 33554432 --ignore-initial=4M /dev/ubda1 /dev/nvme0n1 && echo 'both legs are identical'
	nvme disconnect --nqn=nqn.2026-11.io.meshstor:smoke
	free -m | sed -n 2p
	dmesg | grep -iE 'warn|bug|oops|call trace|crng' || true
}

await() { # <file> <process>
	until [[ -e $1 ]]; do
		if [[ -e ${1%/*}/failed ]] || ! kill -0 "$2" 2>/dev/null || ((SECONDS > 120)); then
			tail -n 20 "$work"/*/console "$work"/*/share/log >&2 || true
			die "smoke: gave up waiting for ${1#"$work"/}"
		fi
		sleep 0.05
	done
}

boot store 1 && store=$guest
boot app 2 && app=$guest
await "$work/store/share/exported" "$store"
say "smoke: exported after $(elapsed)"
touch "$work/app/share/connect"
await "$work/app/share/passed" "$app"
say "smoke: mirrored, written and verified after $(elapsed)"
touch "$work/store/share/over"
await "$work/store/share/passed" "$store"
wait "$app" "$store" || true
say "smoke: powered off after $(elapsed)"
cat "$work"/*/console "$work/app/share/log"
