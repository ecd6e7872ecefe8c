//! A volume's life without faults: every filesystem, one to three copies, from creation to nothing.

use anyhow::{Result, ensure};
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::volume::Volume;
use serde_json::json;

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("life_of_1_copy_with_xfs", |lab| life(lab, "xfs", 1)),
    ("life_of_2_copies_with_xfs", |lab| life(lab, "xfs", 2)),
    ("life_of_3_copies_with_xfs", |lab| life(lab, "xfs", 3)),
    ("life_of_2_copies_with_ext4", |lab| life(lab, "ext4", 2)),
    ("life_of_2_copies_as_a_raw_device", |lab| life(lab, "none", 2)),
    ("life_on_a_node_without_a_copy", only_remote_legs),
];

/// I1 without faults: what was written on one node is read on another; deletion leaves nothing (the runner looks).
fn life(lab: &mut Lab, filesystem: &str, copies: usize) -> Result<()> {
    let name = format!("life-{filesystem}-{copies}");
    let capacity = if filesystem == "xfs" { "512Mi" } else { "128Mi" };
    let volume =
        Volume::create(lab, &name, &json!({ "capacity": capacity, "replicaCount": copies, "filesystem": filesystem }))?;
    let legs = volume.leg_nodes()?;
    ensure!(legs.len() == copies, "{copies} copies are on {legs:?}");
    let mount = filesystem != "none";
    let load = Load::new(&name, 2048);

    let first = &legs[0];
    let path = volume.attach(first, mount)?;
    check_array(lab, &volume, first, copies, filesystem)?;
    load.write(lab, first, &path, 100)?;
    volume.detach()?;

    let second = lab.nodes().into_iter().find(|node| node != first).unwrap_or_default();
    let path = volume.attach(&second, mount)?;
    load.verify(lab, first, &second, &path)?;
    volume.detach()?;
    volume.delete()
}

/// What the kernel has is what was asked for.
fn check_array(lab: &Lab, volume: &Volume<'_>, node: &str, copies: usize, filesystem: &str) -> Result<()> {
    let guest = lab.guest(node)?;
    let attachment = volume.attachment()?;
    let device = attachment["status"]["array"]["device"].as_str().unwrap_or_default().to_owned();
    let md = guest.shell(&format!("basename $(readlink -f {device})"))?.trim().to_owned();
    let level = guest.shell(&format!("cat /sys/block/{md}/md/level"))?;
    ensure!(level.trim() == "raid1", "{md} on {node} is {level}");
    // A volume of one copy may keep a slot free for the next: what counts is who holds the bytes. Remote legs are not read
    // from where the kernel cannot tell a slow one from a fast one.
    let tells = guest.shell(&format!("cat /sys/block/{md}/md/latency_balance 2>/dev/null || echo 0"))?.trim() == "1";
    let legs = guest.shell(&format!("cd /sys/block/{md}/md && grep -H . dev-*/state"))?;
    ensure!(legs.lines().count() == copies, "{md} on {node}: {legs}");
    for leg in legs.lines() {
        let remote = leg.starts_with("dev-nvme");
        let wanted = if remote && !tells { "in_sync,write_mostly" } else { "in_sync" };
        ensure!(leg.rsplit_once(':').is_some_and(|(_, state)| state == wanted), "{md} on {node}: {leg}, not {wanted}");
    }
    if filesystem != "none" {
        let mounts = guest.shell("cat /proc/mounts")?;
        let wanted = format!(" {} {filesystem} ", volume.mount_path());
        ensure!(mounts.contains(&wanted), "no mount with {wanted:?} in {mounts}");
    }
    Ok(())
}

/// A consumer need not hold a copy: all its legs are remote.
fn only_remote_legs(lab: &mut Lab) -> Result<()> {
    let volume =
        Volume::create(lab, "remote", &json!({ "capacity": "128Mi", "replicaCount": 2, "filesystem": "ext4" }))?;
    let legs = volume.leg_nodes()?;
    let outsider = lab.nodes().into_iter().find(|node| !legs.contains(node)).unwrap_or_default();
    let load = Load::new("remote", 2048);
    let path = volume.attach(&outsider, true)?;
    load.write(lab, &outsider, &path, 100)?;
    let connections = lab.guest(&outsider)?.shell("ls /sys/class/nvme | wc -l")?;
    ensure!(connections.trim() == "2", "{outsider} has {} connections", connections.trim());
    volume.detach()?;
    let path = volume.attach(&legs[1], true)?;
    load.verify(lab, &outsider, &legs[1], &path)?;
    volume.detach()?;
    volume.delete()
}
