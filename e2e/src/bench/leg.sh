# A leg by hand: partition, zeros. Arguments: drive, MiB.
set -e
drive=$1 mib=$2
sgdisk --new=0:0:+${mib}M --change-name=0:hand "/dev/$drive" >/dev/null
number=$(sgdisk --print "/dev/$drive" | awk '$NF == "hand" { print $1 }')
# sgdisk has told the kernel if no partition of the drive is in use.
[ -e "/sys/class/block/$drive$number" ] || partx --add --nr "$number" "/dev/$drive"
blkdiscard --zeroout "/dev/$drive$number"
echo "/dev/$drive$number"
