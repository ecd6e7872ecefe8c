# An export by hand. Arguments: device, NQN, host NQN, address, TCP port, I/O queues.
set -e
device=$1 nqn=$2 host=$3 address=$4 port=$5 queues=$6
cd /sys/kernel/config/nvmet
mkdir "subsystems/$nqn"
echo 0 >"subsystems/$nqn/attr_allow_any_host"
echo "$queues" >"subsystems/$nqn/attr_qid_max"
mkdir -p "hosts/$host"
ln -s "/sys/kernel/config/nvmet/hosts/$host" "subsystems/$nqn/allowed_hosts/"
mkdir "subsystems/$nqn/namespaces/1"
echo "$device" >"subsystems/$nqn/namespaces/1/device_path"
echo 1 >"subsystems/$nqn/namespaces/1/enable"
mkdir "ports/$port"
echo tcp >"ports/$port/addr_trtype"
echo ipv4 >"ports/$port/addr_adrfam"
echo "$address" >"ports/$port/addr_traddr"
echo "$port" >"ports/$port/addr_trsvcid"
ln -s "/sys/kernel/config/nvmet/subsystems/$nqn" "ports/$port/subsystems/"
