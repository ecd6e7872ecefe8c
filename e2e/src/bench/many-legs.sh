# Legs by hand on a target, by device, spread over its drives. Arguments: number, MiB, drives.
set -e
count=$1 mib=$2
shift 2
each=$(((count + $# - 1) / $#))
made=0
for drive; do
	new= n=0
	while [ $n -lt $each ] && [ $made -lt "$count" ]; do
		new="$new --new=0:0:+${mib}M --change-name=0:hand$made"
		n=$((n + 1)) made=$((made + 1))
	done
	sgdisk $new "/dev/$drive" >/dev/null
	for number in $(sgdisk --print "/dev/$drive" | awk '$NF ~ /^hand/ { print $1 }'); do
		# sgdisk has told the kernel if no partition of the drive is in use.
		[ -e "/sys/class/block/$drive$number" ] || partx --add --nr "$number" "/dev/$drive"
		echo "/dev/$drive$number"
	done
done
