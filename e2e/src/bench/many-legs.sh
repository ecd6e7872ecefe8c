# Legs by hand on a target. Arguments: number, MiB, drives.
set -e
count=$1 mib=$2
shift 2
n=0
while [ $n -lt "$count" ]; do
	for drive; do
		[ $n -lt "$count" ] || break
		sgdisk --new=0:0:+${mib}M --change-name=0:hand$n "/dev/$drive" >/dev/null
		n=$((n + 1))
	done
done
for drive; do partx --update "/dev/$drive" || true; done
n=0
while [ $n -lt "$count" ]; do
	uevent=$(grep -lx "PARTNAME=hand$n" /sys/class/block/*/uevent)
	device=${uevent%/uevent}
	echo "/dev/${device##*/}"
	n=$((n + 1))
done
