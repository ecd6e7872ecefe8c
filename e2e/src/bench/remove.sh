# Undoes leg.sh and export.sh. Arguments: drive, NQN, host NQN, TCP port.
drive=$1 nqn=$2 host=$3 port=$4
cd /sys/kernel/config/nvmet
if [ -d "subsystems/$nqn" ]; then
	rm -f "ports/$port/subsystems/$nqn"
	rmdir "ports/$port" "subsystems/$nqn/namespaces/1"
	rm -f "subsystems/$nqn/allowed_hosts/$host"
	rmdir "subsystems/$nqn"
	# Somebody else may export to the same host.
	rmdir "hosts/$host" 2>/dev/null || true
fi
number=$(sgdisk --print "/dev/$drive" | awk '$NF == "hand" { print $1 }')
if [ -n "$number" ]; then
	wipefs --all --quiet "/dev/$drive$number"
	partx --delete --nr "$number" "/dev/$drive"
	sgdisk --delete="$number" "/dev/$drive" >/dev/null
fi
