# Undoes many-legs.sh and all of its exports. Arguments: what their NQNs begin with, host NQN, first digits of their ports, drives.
prefix=$1 host=$2 port=$3
shift 3
cd /sys/kernel/config/nvmet
for port in "ports/$port"*; do
	rm -f "$port/subsystems/$prefix"*
	rmdir "$port"
done
for subsystem in "subsystems/$prefix"*; do
	rmdir "$subsystem/namespaces/1"
	rm -f "$subsystem/allowed_hosts/$host"
	rmdir "$subsystem"
done
rmdir "hosts/$host"
for drive; do
	delete=
	for number in $(sgdisk --print "/dev/$drive" | awk '$NF ~ /^hand/ { print $1 }'); do
		delete="$delete --delete=$number"
		wipefs --all --quiet "/dev/$drive$number"
		partx --delete --nr "$number" "/dev/$drive"
	done
	sgdisk $delete "/dev/$drive" >/dev/null
done
