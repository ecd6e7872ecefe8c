//! Volumes beside volumes, and beside what is not ours.

use anyhow::{Result, ensure};
use meshstor_e2e::api::{condition, ours};
use meshstor_e2e::footprint::Footprint;
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::{secs, wait_for, when};
use serde_json::json;

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("two_volumes_on_one_drive", two_on_one_drive),
    ("a_volume_too_large_says_why_on_each_node", too_large),
    ("a_node_without_a_kernel_capability_gets_no_leg", missing_capability),
    ("foreign_objects_are_left_alone", foreign_objects),
];

/// I1: volumes that share a drive, under load at once, do not touch each other. Three volumes with a copy on each of three
/// nodes of two drives: two of them share a drive on every node.
fn two_on_one_drive(lab: &mut Lab) -> Result<()> {
    let names = ["share-a", "share-b", "share-c"];
    let nodes = lab.nodes();
    let spec = json!({ "capacity": "64Mi", "replicaCount": 3, "filesystem": "ext4" });
    let volumes = names.iter().map(|name| Volume::create(lab, name, &spec)).collect::<Result<Vec<_>>>()?;
    for (volume, node) in volumes.iter().zip(&nodes) {
        let path = volume.attach(node, true)?;
        Load::new(&volume.name, 1024).start(lab, node, &path)?;
    }
    for (volume, node) in volumes.iter().zip(&nodes) {
        Load::new(&volume.name, 1024).wait_for_progress(lab, node, 100, secs(60))?;
    }
    for (volume, node) in volumes.iter().zip(&nodes) {
        Load::new(&volume.name, 1024).stop(lab, node)?;
        volume.detach()?;
    }
    // One goes while the others stay.
    volumes[0].delete()?;
    for (volume, pair) in volumes[1..].iter().zip(nodes[1..].iter().zip(&nodes)) {
        let (writer, reader) = pair;
        let path = volume.attach(reader, true)?;
        Load::new(&volume.name, 1024).verify(lab, writer, reader, &path)?;
        volume.detach()?;
        volume.delete()?;
    }
    Ok(())
}

/// I8: what fits nowhere is refused with a reason that names every node, and nothing is made.
fn too_large(lab: &mut Lab) -> Result<()> {
    lab.apply(&json!({
        "apiVersion": "meshstor.io/v1alpha1", "kind": "MeshVolume", "metadata": { "name": "huge" },
        "spec": { "capacity": "500Gi", "replicaCount": 2, "filesystem": "none" },
    }))?;
    let volume = Volume::named(lab, "huge");
    let refused =
        volume.wait("to be unschedulable", secs(30), |v| condition(v, "Ready")["reason"] == "Unschedulable")?;
    let message = condition(&refused, "Ready")["message"].as_str().unwrap_or_default().to_owned();
    for node in lab.nodes() {
        ensure!(message.contains(&node), "the message does not name {node}: {message}");
    }
    volume.delete()
}

/// A node whose kernel cannot do what a leg needs says so, and says it in the refusal of a volume that would need that node.
fn missing_capability(lab: &mut Lab) -> Result<()> {
    let node = lab.nodes().pop().unwrap_or_default();
    // A real kernel without RAID1: its initialisation does not run.
    lab.reboot_as(&node, |machine| machine.kernel_arguments = vec!["initcall_blacklist=raid1_init".to_owned()])?;
    let outcome = refuses_legs(lab, &node);
    lab.reboot_as(&node, |machine| machine.kernel_arguments.clear())?;
    lab.wait_for_nodes()?;
    outcome
}

fn refuses_legs(lab: &Lab, node: &str) -> Result<()> {
    let personalities = lab.guest(node)?.shell("cat /proc/mdstat")?;
    ensure!(!personalities.contains("[raid1]"), "{node} has RAID1 still: {personalities}");
    wait_for(&format!("MeshNode {node} to say what it lacks"), secs(30), || {
        let seen = lab.control.api.get(&ours("meshnodes", node))?;
        let ready = condition(&seen, "Ready");
        let told = ready["status"] == "False" && ready["message"].as_str().is_some_and(|m| m.contains("raid1"));
        Ok(when(told, ready.to_string()))
    })?;
    lab.apply(&json!({
        "apiVersion": "meshstor.io/v1alpha1", "kind": "MeshVolume", "metadata": { "name": "three" },
        "spec": { "capacity": "64Mi", "replicaCount": 3, "filesystem": "none" },
    }))?;
    let volume = Volume::named(lab, "three");
    let refused =
        volume.wait("to be unschedulable", secs(30), |v| condition(v, "Ready")["reason"] == "Unschedulable")?;
    let message = condition(&refused, "Ready")["message"].as_str().unwrap_or_default().to_owned();
    ensure!(
        message.contains(node) && message.contains("raid1"),
        "the refusal does not say what {node} lacks: {message}"
    );
    volume.delete()?;

    let two = Volume::create(lab, "two", &json!({ "capacity": "64Mi", "replicaCount": 2, "filesystem": "none" }))?;
    let legs = two.leg_nodes()?;
    ensure!(!legs.iter().any(|leg| leg == node), "a leg is on {node}: {legs:?}");
    two.delete()
}

/// What is not ours on the consumer and its drives: made before, looked at after.
const FOREIGN: &str = r#"
set -e
truncate -s 64M /tmp/foreign0 /tmp/foreign1
losetup /dev/loop6 /tmp/foreign0
losetup /dev/loop7 /tmp/foreign1
mdadm --create /dev/md77 --run --level=1 --raid-devices=2 --metadata=1.2 --assume-clean /dev/loop6 /dev/loop7 >/dev/null 2>&1
echo foreign | dd of=/dev/md77 bs=512 conv=sync status=none
cd /sys/kernel/config/nvmet
mkdir subsystems/nqn.2000-01.org.example:foreign
echo 1 > subsystems/nqn.2000-01.org.example:foreign/attr_allow_any_host
mkdir subsystems/nqn.2000-01.org.example:foreign/namespaces/1
echo /dev/md77 > subsystems/nqn.2000-01.org.example:foreign/namespaces/1/device_path
echo 1 > subsystems/nqn.2000-01.org.example:foreign/namespaces/1/enable
mkdir ports/900
echo tcp > ports/900/addr_trtype; echo ipv4 > ports/900/addr_adrfam
echo 127.0.0.1 > ports/900/addr_traddr; echo 4999 > ports/900/addr_trsvcid
ln -s /sys/kernel/config/nvmet/subsystems/nqn.2000-01.org.example:foreign ports/900/subsystems/
nvme connect --transport=tcp --traddr=127.0.0.1 --trsvcid=4999 --nqn=nqn.2000-01.org.example:foreign >/dev/null
nft add table inet foreign
nft add chain inet foreign in '{ type filter hook input priority 0; }'
nft add rule inet foreign in tcp dport 4998 drop
for drive in ubda ubdb; do
  sgdisk --new=0:-16M:0 --change-name=0:foreign /dev/$drive >/dev/null
  number=$(sgdisk --print /dev/$drive | awk '$NF == "foreign" { print $1 }')
  [ -e /sys/class/block/$drive$number ] || partx --add --nr $number /dev/$drive
  echo foreign | dd of=/dev/$drive$number bs=512 conv=sync oflag=direct status=none
done
"#;

/// What was written to the foreign array and to both foreign partitions.
const READ_FOREIGN: &str = r"
head -c 7 /dev/md77
for u in $(grep -l '^PARTNAME=foreign$' /sys/class/block/ubd*/uevent); do
  part=${u%/uevent}
  head -c 7 /dev/${part##*/}
done
";

const REMOVE_FOREIGN: &str = r"
for p in /sys/class/block/ubd*/partition; do
  part=${p%/partition}; part=${part##*/}
  grep -q '^PARTNAME=foreign$' /sys/class/block/$part/uevent || continue
  number=$(cat $p)
  drive=${part%$number}
  partx --delete --nr $number /dev/$drive
  sgdisk --delete=$number /dev/$drive >/dev/null
done
cd /sys/kernel/config/nvmet
nft delete table inet foreign
nvme disconnect --nqn=nqn.2000-01.org.example:foreign >/dev/null
rm -f ports/900/subsystems/nqn.2000-01.org.example:foreign
rmdir ports/900 subsystems/nqn.2000-01.org.example:foreign/namespaces/1 subsystems/nqn.2000-01.org.example:foreign
mdadm --stop /dev/md77 2>/dev/null
losetup -d /dev/loop6; losetup -d /dev/loop7
rm -f /tmp/foreign0 /tmp/foreign1
";

/// Nothing foreign is touched by a volume's whole life, nor by a restart of the daemon beside it.
fn foreign_objects(lab: &mut Lab) -> Result<()> {
    let volume =
        Volume::create(lab, "beside", &json!({ "capacity": "64Mi", "replicaCount": 2, "filesystem": "ext4" }))?;
    let legs = volume.leg_nodes()?;
    for node in &legs {
        lab.guest(node)?.shell(FOREIGN)?;
    }
    let outcome = live_beside(lab, &legs);
    for node in &legs {
        lab.guest(node)?.shell(REMOVE_FOREIGN)?;
    }
    outcome
}

fn live_beside(lab: &mut Lab, legs: &[String]) -> Result<()> {
    let before: Vec<_> = legs.iter().map(|node| foreign_only(lab, node)).collect::<Result<_>>()?;
    // Two partitions, an array, a connection, a subsystem, a port, a packet filter.
    ensure!(before.iter().all(|f| f.0.len() >= 7), "the foreign objects are there: {before:?}");
    let load = Load::new("beside", 1024);
    let path = Volume::named(lab, "beside").attach(&legs[0], true)?;
    load.write(lab, &legs[0], &path, 50)?;
    for node in legs {
        lab.guest(node)?.kill_daemon()?;
        lab.start_daemon(node)?;
    }
    let volume = Volume::named(lab, "beside");
    volume.detach()?;
    let path = volume.attach(&legs[1], true)?;
    load.verify(lab, &legs[0], &legs[1], &path)?;
    volume.detach()?;
    volume.delete()?;
    for (node, before) in legs.iter().zip(&before) {
        let differences = foreign_only(lab, node)?.since(before);
        ensure!(differences.is_empty(), "foreign objects of {node} changed: {differences:?}");
        let read = lab.guest(node)?.shell(READ_FOREIGN)?;
        ensure!(read == "foreignforeignforeign", "the foreign array and partitions of {node} read {read:?}");
    }
    Ok(())
}

/// The part of a footprint that this test made.
fn foreign_only(lab: &Lab, node: &str) -> Result<Footprint> {
    let all = Footprint::of(lab.guest(node)?)?;
    Ok(Footprint(
        all.0
            .into_iter()
            .filter(|line| line.contains("foreign") || line.contains("md77") || line.contains("ports/900"))
            .collect(),
    ))
}
