//! The area `drain`: what it takes to empty a node, and what those who use the volumes see of it.

use std::collections::BTreeSet;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::audit::{Purpose, Write, counted, writes};
use super::foreground::Foreground;
use super::{Report, Row, placement};
use crate::api::{condition, ours};
use crate::bed::{exported, written};
use crate::fleet::{BUDGET, Fleet, Seen};
use crate::lab::Lab;
use crate::samples::Sampler;
use crate::say;
use crate::volume::Volume;
use crate::wait::{Look, pause, secs, wait_for};

/// Volumes with a copy on the node that is emptied.
const VOLUMES: usize = 20;
/// Size of each in MiB.
const MIB: u64 = 512;
/// For the writes that follow when the node is empty already.
const SETTLE: u64 = 8;
/// Hot replaces that are measured one by one.
const RUNS: usize = 3;
/// Size in MiB of the volume that is used meanwhile.
const USED_MIB: u64 = 1024;
/// Seconds of a measurement with nothing beside it.
const IDLE: u64 = 15;
const EMPTY: &str = "empty";

/// All rows, in a lab of four nodes whose audit log has everything.
pub fn run(lab: &mut Lab) -> Result<Report> {
    let (mut report, lowest) = evacuation(lab)?;
    let (rows, other) = hot_replaces(lab)?;
    report.rows.extend(rows);
    report.rows.extend(placement::run()?);
    let lowest = f64::from(lowest.min(other));
    report.rows.push(Row::of_one("lowest-in-sync", "copies of 2, in all looks", "≥ 2", lowest));
    Ok(report)
}

/// Twenty legs leave a node.
fn evacuation(lab: &Lab) -> Result<(Report, u32)> {
    let node = lab.nodes().into_iter().next().context("a node")?;
    let fleet = Fleet::attach(lab, &node, VOLUMES, MIB)?;
    let name = |leg: &Value| leg["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let old: BTreeSet<String> = fleet.legs(lab)?.iter().map(name).collect();
    pause(secs(SETTLE));
    let before = writes(lab)?.len();
    let seen = fleet.empty(lab)?;
    pause(secs(SETTLE));
    let all: Vec<Write> = writes(lab)?.into_iter().skip(before).collect();
    let mut bytes = Bytes { due: fleet.bytes * VOLUMES as u64, ..Bytes::default() };
    for leg in fleet.legs(lab)?.iter().filter(|leg| !old.contains(&name(leg))) {
        let text = |field: &str| leg["spec"][field].as_str().unwrap_or_default().to_owned();
        bytes.moved += sent(lab, &text("volume"))?;
        bytes.drives += written(lab, &text("node"), &exported(lab, &text("node"), &name(leg))?)?;
    }
    let report = table(lab.nodes().len(), &seen, &bytes, &all);
    fleet.delete(lab)?;
    Ok((report, seen.lowest()?))
}

/// What an evacuation wrote.
#[derive(Default)]
struct Bytes {
    /// By the arrays, to the new legs.
    moved: u64,
    /// To the drives of the new legs: that, and the zeros with which a leg begins.
    drives: u64,
    /// What had to move: the size of the volumes.
    due: u64,
}

/// Bytes that the array of a volume has written to its remote leg, which came after it ran.
fn sent(lab: &Lab, volume: &str) -> Result<u64> {
    let attachment = Volume::named(lab, volume).attachment()?;
    let status = &attachment["status"];
    let node = status["term"]["node"].as_str().context("it is attached")?;
    let array = status["array"]["device"].as_str().context("it has an array")?.trim_start_matches("/dev/");
    let member = lab.guest(node)?.shell(&format!("cd /sys/block/{array}/md && echo dev-nvme*"))?;
    written(lab, node, member.trim().trim_start_matches("dev-"))
}

/// Copies that the budget lets run at once: each is between two of the nodes that stay.
fn at_once(nodes: usize) -> usize {
    let [max, per_node] = BUDGET;
    max.min((nodes - 1) * per_node / 2)
}

fn table(nodes: usize, seen: &Seen, bytes: &Bytes, all: &[Write]) -> Report {
    let [moved, drives, due] = [bytes.moved, bytes.drives, bytes.due].map(|n| n as f64 / f64::from(1 << 20));
    let alone = seen.copying() / at_once(nodes) as f64;
    let life = || all.iter().filter(|w| w.purpose == Purpose::Volume && w.accepted());
    let per_leg = life().count() as f64 / VOLUMES as f64;
    let rows = vec![
        Row::of_pairs("bytes-moved", "MiB, of those that had to move", "1.0", &[(moved, due)]),
        Row::of_pairs(
            "bytes-moved/drives",
            "MiB with the zeros of a new leg, of the same",
            "none given",
            &[(drives, due)],
        ),
        Row::of_pairs("wall-time", "s, of the budgeted copy alone", "≤ 1.2", &[(seen.wall.as_secs_f64(), alone)]),
        Row::of_one("api-writes-per-leg", "writes", "none given", per_leg),
    ];
    Report {
        rows,
        list: counted(life().filter(|w| w.name.starts_with("fleet-01") || w.resource.starts_with("nodedrains"))),
    }
}

/// One volume is used as hard as one writer can, and its other copy moves.
fn hot_replaces(lab: &Lab) -> Result<(Vec<Row>, u32)> {
    let spec = json!({ "capacity": format!("{USED_MIB}Mi"), "replicaCount": 2, "filesystem": "none" });
    let volume = Volume::create(lab, "used", &spec)?;
    let consumer = volume.leg_nodes()?.into_iter().next().context("a leg")?;
    let device = volume.attach(&consumer, false)?;
    let guest = lab.guest(&consumer)?;
    let sampler = Sampler::begin(guest, "used")?;
    let foreground = Foreground::start(guest, &device, USED_MIB)?;
    let mut windows = Vec::new();
    for run in 1..=RUNS {
        pause(secs(2));
        let idle = [SystemTime::now(), {
            pause(secs(IDLE));
            SystemTime::now()
        }];
        let other = volume.leg_nodes()?.into_iter().find(|n| *n != consumer).context("another copy")?;
        let began = SystemTime::now();
        leave(lab, &other)?;
        windows.push((idle, [began, SystemTime::now()]));
        say!("hot replace {run}/{RUNS}: {other} is empty");
        lab.kubectl(&["delete", "nodedrain", EMPTY])?;
    }
    let latencies = foreground.end(guest)?;
    let lowest = sampler.lowest(guest)?;
    let (idle, during): (Vec<_>, Vec<_>) = windows.into_iter().unzip();
    let stall = |of: &[[SystemTime; 2]]| of.iter().map(|w| latencies.longest(*w)).collect::<Result<Vec<f64>>>();
    let p99 = |of: &[[SystemTime; 2]]| of.iter().map(|w| latencies.p99(*w)).collect::<Result<Vec<f64>>>();
    let pairs: Vec<(f64, f64)> = p99(&during)?.into_iter().zip(p99(&idle)?).collect();
    volume.detach()?;
    volume.delete()?;
    let rows = vec![
        Row::worst_of_runs("hot-replace-stall", "ms", "≤ 100", &stall(&during)?),
        Row::worst_of_runs("hot-replace-stall/idle", "ms", "none given", &stall(&idle)?),
        Row::of_pairs("hot-replace-p99", "ms, of idle", "none given", &pairs),
    ];
    Ok((rows, lowest))
}

/// Has every leg leave `node`, and waits until it has.
fn leave(lab: &Lab, node: &str) -> Result<()> {
    lab.apply(&json!({ "apiVersion": "meshstor.io/v1alpha1", "kind": "NodeDrain", "metadata": { "name": EMPTY },
        "spec": { "node": node, "mode": "Evacuate" } }))?;
    wait_for(&format!("{node} to be empty"), secs(180), || {
        let drain = lab.control.api.get(&ours("nodedrains", EMPTY))?;
        let done = condition(&drain, "Ready")["reason"] == "Succeeded";
        Ok(if done { Look::Done(()) } else { Look::NotYet(drain["status"].to_string()) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::Samples;
    use std::time::Duration;

    #[test]
    fn the_budget_limits_copies_by_the_cluster_and_by_the_nodes() {
        assert_eq!((at_once(3), at_once(4), at_once(9)), (2, 3, 3));
    }

    #[test]
    fn a_table_has_what_moved_and_what_it_took() {
        let seen = Seen { wall: Duration::from_secs(60), samples: vec![Samples::default()] };
        let report = table(4, &seen, &Bytes { moved: 3 << 20, drives: 6 << 20, due: 2 << 20 }, &[]);
        let rows: Vec<(&str, f64)> = report.rows.iter().map(|row| (row.name.as_str(), row.ours)).collect();
        let names = ["bytes-moved", "bytes-moved/drives", "wall-time", "api-writes-per-leg"];
        assert_eq!(rows, names.into_iter().zip([3.0, 6.0, 60.0, 0.0]).collect::<Vec<_>>());
        assert_eq!((report.rows[0].ratio, report.rows[1].ratio), (Some(1.5), Some(3.0)));
    }
}
