//! Volumes of every shape: four copies, and copies that are striped over several drives (RAID10, its mirror sets), and what a lost
//! node does to them.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use meshstor_e2e::api::{all, condition};
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::secs;
use serde_json::{Value, json};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("life_of_1_copy_over_2_drives", |lab| life(lab, 1, 2)),
    ("life_of_2_copies_over_2_drives", |lab| life(lab, 2, 2)),
    ("life_of_2_copies_over_3_drives", |lab| life(lab, 2, 3)),
    ("life_of_4_copies", four_copies),
    ("too_few_drives_for_the_stripe", too_few_drives),
];

/// I1 for four copies, which need a node more than the lab has: one dies under load, is recorded away before it fails, and comes
/// back by a rebuild; nothing is left on the fourth node either.
fn four_copies(lab: &mut Lab) -> Result<()> {
    let fourth = lab.add_node()?;
    let before = lab.footprints()?;
    life(lab, 4, 1)?;
    lab.wait_for_footprints(&before)?;
    crate::check_kernel(lab.guest(&fourth)?, "")?;
    lab.remove_last_node()
}

/// I1 for a striped volume: a node that dies under load takes at most one leg of each mirror set, each is recorded away before it
/// fails, and all come back into slots of their own sets.
fn life(lab: &mut Lab, copies: usize, width: usize) -> Result<()> {
    let name = format!("shape-{copies}-{width}");
    let spec = json!({ "capacity": "192Mi", "replicaCount": copies, "stripeWidth": width, "filesystem": "ext4" });
    let volume = Volume::create(lab, &name, &spec)?;
    let legs = legs(lab, &name)?;
    ensure!(legs.len() == copies * width, "{} legs", legs.len());
    spans_nodes(&legs, width)?;

    let load = Load::new(&name, 4096);
    let consumer = legs[0].node.clone();
    let path = volume.attach(&consumer, true)?;
    check_array(lab, &volume, &consumer, copies, width)?;
    if copies == 1 {
        load.write(lab, &consumer, &path, 100)?;
    } else {
        lose_a_node(lab, &name, &load, (&consumer, &path), (copies, width))?;
    }
    let volume = Volume::named(lab, &name);
    volume.detach()?;
    let second = lab.nodes().into_iter().find(|node| *node != consumer).context("there is another node")?;
    let path = volume.attach(&second, true)?;
    check_array(lab, &volume, &second, copies, width)?;
    load.verify(lab, &consumer, &second, &path)?;
    volume.detach()?;
    volume.delete()
}

/// The second node that has a leg dies under load and comes back.
fn lose_a_node(
    lab: &mut Lab,
    name: &str,
    load: &Load,
    at: (&str, &str),
    (copies, width): (usize, usize),
) -> Result<()> {
    let (consumer, path) = at;
    let all = legs(lab, name)?;
    let target = all.iter().map(|leg| leg.node.clone()).find(|node| node != consumer).context("a leg is remote")?;
    let lost: Vec<String> = all.iter().filter(|leg| leg.node == target).map(|leg| leg.name.clone()).collect();
    load.start(lab, consumer, path)?;
    load.wait_for_progress(lab, consumer, 50, secs(60))?;
    lab.guest_mut(&target)?.cut_power()?;
    let volume = Volume::named(lab, name);
    let gone = |at: &Value| {
        let set = at["status"]["term"]["inSync"].as_array().cloned().unwrap_or_default();
        lost.iter().all(|leg| set.iter().all(|l| l != leg)) && set.len() == all.len() - lost.len()
    };
    volume.wait_attachment("to have recorded the legs away", secs(60), gone)?;
    let one_less = format!("{}/{copies}", copies - 1);
    volume.wait("to be degraded", secs(60), |v| v["status"]["copies"] == one_less)?;
    load.wait_for_progress(lab, consumer, 50, secs(60))?;

    lab.power_on(&target)?;
    let volume = Volume::named(lab, name);
    volume.wait_whole(u32::try_from(copies)?)?;
    check_array(lab, &volume, consumer, copies, width)?;
    load.wait_for_progress(lab, consumer, 20, secs(60))?;
    load.stop(lab, consumer)
}

/// A `MeshReplica`.
pub(crate) struct Leg {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) node: String,
    drive: String,
    set: u64,
}

pub(crate) fn legs(lab: &Lab, volume: &str) -> Result<Vec<Leg>> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let ours = lab.control.api.list(&all("meshreplicas"))?.into_iter().filter(|leg| leg["spec"]["volume"] == *volume);
    let leg = |leg: Value| Leg {
        name: text(&leg["metadata"]["name"]),
        uid: text(&leg["metadata"]["uid"]),
        node: text(&leg["spec"]["node"]),
        drive: text(&leg["spec"]["drive"]),
        set: leg["spec"]["mirrorSet"].as_u64().unwrap_or_default(),
    };
    Ok(ours.map(leg).collect())
}

/// No two legs of a mirror set on a node, no two legs on a drive.
fn spans_nodes(legs: &[Leg], width: usize) -> Result<()> {
    let sets: BTreeSet<(u64, &str)> = legs.iter().map(|leg| (leg.set, leg.node.as_str())).collect();
    let drives: BTreeSet<(&str, &str)> = legs.iter().map(|leg| (leg.node.as_str(), leg.drive.as_str())).collect();
    let seen: Vec<String> =
        legs.iter().map(|l| format!("{} set {} on {} {}", l.name, l.set, l.node, l.drive)).collect();
    ensure!(sets.len() == legs.len() && drives.len() == legs.len(), "not apart: {}", seen.join(", "));
    ensure!(legs.iter().map(|leg| leg.set).collect::<BTreeSet<_>>().len() == width, "not {width} sets");
    Ok(())
}

/// The kernel has a RAID1, or a near layout with 64 KiB chunks; all legs are in it in sync, and each in a slot of its own mirror set.
pub(crate) fn check_array(lab: &Lab, volume: &Volume<'_>, node: &str, copies: usize, width: usize) -> Result<()> {
    let guest = lab.guest(node)?;
    let attachment = volume.attachment()?;
    let device = attachment["status"]["array"]["device"].as_str().unwrap_or_default().to_owned();
    let md = guest.shell(&format!("basename $(readlink -f {device})"))?.trim().to_owned();
    let near = copies.max(2);
    let shape = guest.shell(&format!("cd /sys/block/{md}/md && echo $(cat level layout chunk_size raid_disks)"))?;
    let wanted = match width {
        1 => format!("raid1 0 0 {near}"),
        _ => format!("raid10 {} 65536 {}", 0x100 + near, near * width),
    };
    ensure!(shape.trim() == wanted, "{md} on {node}: {shape}, not {wanted}");
    let size: u64 = guest.shell(&format!("cat /sys/block/{md}/size"))?.trim().parse()?;
    let object = volume.object()?;
    let mebibytes: u64 = object["spec"]["capacity"].as_str().unwrap_or_default().trim_end_matches("Mi").parse()?;
    ensure!(size * 512 >= mebibytes << 20, "{md} has {size} sectors");

    let script = format!(
        "cd /sys/block/{md}/md; for d in dev-*; do echo $(cat $d/slot $d/state) $(cat /sys/class/block/${{d#dev-}}/device/subsysnqn 2>/dev/null); done"
    );
    let members = guest.shell(&script)?;
    ensure!(members.lines().count() == copies * width, "{md} on {node}: {members}");
    let legs = legs(lab, &volume.name)?;
    for line in members.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let slot: usize = words.first().context("a slot")?.parse().with_context(|| format!("member {line}"))?;
        ensure!(words.get(1).is_some_and(|state| state.split(',').any(|s| s == "in_sync")), "{md} on {node}: {line}");
        // A remote member's subsystem names its leg.
        if let Some(nqn) = words.get(2) {
            let leg = legs.iter().find(|leg| nqn.contains(&leg.uid)).with_context(|| format!("whose is {nqn}?"))?;
            ensure!(leg.set == u64::try_from(slot / near)?, "{} of set {} is in slot {slot}", leg.name, leg.set);
        }
    }
    Ok(())
}

/// The refusal says which node's drives are short of what; no leg was made.
fn too_few_drives(lab: &mut Lab) -> Result<()> {
    let spec = json!({ "capacity": "192Mi", "replicaCount": 2, "stripeWidth": 4, "filesystem": "none" });
    lab.apply(&json!({ "apiVersion": "meshstor.io/v1alpha1", "kind": "MeshVolume", "metadata": { "name": "wide" }, "spec": spec }))?;
    let volume = Volume::named(lab, "wide");
    let seen = volume.wait("to be unschedulable", secs(30), |v| condition(v, "Ready")["reason"] == "Unschedulable")?;
    let message = condition(&seen, "Ready")["message"].as_str().unwrap_or_default().to_owned();
    ensure!(message.starts_with("6 of 8 legs can be placed"), "{message}");
    for node in lab.nodes() {
        ensure!(message.contains(&format!("{node}: Drives (2 fit)")), "{message}");
    }
    ensure!(legs(lab, "wide")?.is_empty(), "some legs were made");
    volume.delete()
}
