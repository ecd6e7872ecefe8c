# A volume by hand: connection, array, filesystem, mount. Arguments: local device, NQN, address, TCP port, I/O queues, queue
# size, keep-alive in seconds, MiB, mount point.
set -e
local=$1 nqn=$2 address=$3 port=$4 queues=$5 depth=$6 alive=$7 mib=$8 at=$9
nvme connect --transport=tcp --traddr="$address" --trsvcid="$port" --nqn="$nqn" --nr-io-queues="$queues" \
	--queue-size="$depth" --keep-alive-tmo="$alive" --ctrl-loss-tmo=-1 --reconnect-delay=1 >/dev/null
# The namespace appears a moment after the connection.
remote=/dev/none
while ! dd if="$remote" of=/dev/null bs=4096 count=1 status=none 2>/dev/null; do
	sleep 0.02
	for subsystem in /sys/class/nvme-subsystem/*; do
		[ "$(cat "$subsystem/subsysnqn")" = "$nqn" ] || continue
		for namespace in "$subsystem"/nvme[0-9]*n[0-9]*; do remote=/dev/${namespace##*/}; done
	done
done
mdadm --create /dev/md90 --run --quiet --metadata=1.2 --level=1 --raid-devices=2 --bitmap=internal --assume-clean \
	--data-offset=4M --size=$((mib * 1024)) "$local" --write-mostly "$remote" >/dev/null 2>&1
mkfs.xfs -q -K /dev/md90
mkdir -p "$at"
mount -t xfs /dev/md90 "$at"
