# Undoes attach.sh. Arguments: NQN, mount point.
umount "$2" 2>/dev/null
[ ! -e /dev/md90 ] || mdadm --stop --quiet /dev/md90
nvme disconnect --nqn="$1" >/dev/null
true
