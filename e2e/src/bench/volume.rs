//! The area `volume`: how long a volume takes to be made, what its data path costs, and what an idle daemon takes.

use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::by_hand::{AT, ByHand};
use super::{Row, idle};
use crate::guest::Guest;
use crate::lab::Lab;
use crate::say;
use crate::volume::Volume;
use crate::wait::{Look, secs, wait_for};

const MIB: u32 = 512;
const MAKE_RUNS: usize = 5;
const FIO_RUNS: usize = 10;
const FIO_SECONDS: u32 = 2;
const NAME: &str = "bench";

/// All rows, in a lab in which every node is ready.
pub fn run(lab: &Lab) -> Result<Vec<Row>> {
    let mut rows = vec![apply_to_ready(lab)?];
    rows.extend(fio(lab)?);
    rows.extend(idle::rows(lab)?);
    Ok(rows)
}

/// From the apply of a volume of two copies to its mount, which is asked for as soon as the legs have nodes. Gives the seconds,
/// and the node on which it is attached: that of its first leg.
fn make(lab: &Lab) -> Result<(f64, String)> {
    let began = Instant::now();
    let spec = json!({ "capacity": format!("{MIB}Mi"), "replicaCount": 2, "filesystem": "xfs" });
    lab.apply(&json!({ "apiVersion": "meshstor.io/v1alpha1", "kind": "MeshVolume", "metadata": { "name": NAME }, "spec": spec }))?;
    let volume = Volume::named(lab, NAME);
    let node = wait_for("the legs to be placed", secs(30), || {
        let node = volume.leg_nodes()?.into_iter().next();
        Ok(node.map_or_else(|| Look::NotYet("none yet".to_owned()), Look::Done))
    })?;
    volume.attach(&node, true)?;
    Ok((began.elapsed().as_secs_f64(), node))
}

fn unmake(lab: &Lab) -> Result<()> {
    let volume = Volume::named(lab, NAME);
    volume.detach()?;
    volume.delete()
}

fn apply_to_ready(lab: &Lab) -> Result<Row> {
    let mut pairs = Vec::new();
    for run in 0..MAKE_RUNS {
        let (ours, _) = make(lab)?;
        let hand = ByHand::beside(lab, NAME)?;
        unmake(lab)?;
        let reference = hand.make(MIB)?;
        hand.remove()?;
        say!("apply-to-ready {}/{MAKE_RUNS}: ours {ours:.2} s, by hand {reference:.2} s", run + 1);
        pairs.push((ours, reference));
    }
    Ok(Row::of_pairs("apply-to-ready", "s", "≤ 1.5", &pairs))
}

/// Our volume and the array by hand, mounted at the same time on the same node, measured in turn.
fn fio(lab: &Lab) -> Result<Vec<Row>> {
    let (_, node) = make(lab)?;
    let hand = ByHand::beside(lab, NAME)?;
    hand.make(MIB)?;
    let guest = lab.guest(&node)?;
    let ours = Volume::named(lab, NAME).mount_path();
    for path in [&*ours, AT] {
        guest.shell(&format!(
            "fio --name=fill --filename={path}/fio --size=256M --rw=write --bs=1M --direct=1 --end_fsync=1 >/dev/null"
        ))?;
    }
    let mut rows = Vec::new();
    for (pattern, depth) in [("randread", 1), ("randread", 16), ("randwrite", 1), ("randwrite", 16)] {
        let mut pairs = Vec::new();
        for run in 0..FIO_RUNS {
            // Who comes first changes: what the first leaves warm or busy must not count for one side only.
            let pair = if run % 2 == 0 {
                let ours = iops(guest, &ours, pattern, depth)?;
                (ours, iops(guest, AT, pattern, depth)?)
            } else {
                let reference = iops(guest, AT, pattern, depth)?;
                (iops(guest, &ours, pattern, depth)?, reference)
            };
            pairs.push(pair);
        }
        let row = Row::of_pairs(&format!("fio-{pattern}-qd{depth}"), "IOPS", "0.97–1.03", &pairs);
        say!("{}: ours {:.0}, by hand {:.0}", row.name, row.ours, row.reference.unwrap_or_default());
        rows.push(row);
    }
    hand.remove()?;
    unmake(lab)?;
    Ok(rows)
}

fn iops(guest: &Guest, path: &str, pattern: &str, depth: u32) -> Result<f64> {
    let printed = guest.shell(&format!(
        "fio --name=x --filename={path}/fio --size=256M --direct=1 --ioengine=libaio --rw={pattern} --bs=4k \
         --iodepth={depth} --time_based --runtime={FIO_SECONDS} --randseed=7 --output-format=json"
    ))?;
    let json = printed.find('{').map_or("", |at| &printed[at..]);
    let report: Value = serde_json::from_str(json).context("fio prints JSON")?;
    let side = if pattern.contains("read") { "read" } else { "write" };
    report["jobs"][0][side]["iops"].as_f64().context("fio's report has the IOPS")
}
