//! A node with many volumes is emptied, within the budget. Run by `make drain-30` alone.

use anyhow::{Context as _, Result, ensure};
use meshstor_e2e::fleet::{BUDGET, Fleet};
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::samples::{Samples, busiest_of_all};
use meshstor_e2e::say;
use meshstor_e2e::volume::Volume;

use crate::Test;
use crate::drain::{Drain, guarded, uncordon};

pub(crate) const TESTS: &[Test] = &[("thirty_volumes_leave_a_node_within_the_budget", thirty)];

const VOLUMES: usize = 30;
/// Size of each in MiB.
const MIB: u64 = 64;

/// I3: no array is ever short of a copy, no more are copied at once than the budget says, everything that was written is where the copies have gone, and
/// `kubectl drain` has nothing to wait for.
fn thirty(lab: &mut Lab) -> Result<()> {
    let _kubelet = guarded(lab)?;
    let node = lab.nodes().into_iter().next().context("a node")?;
    let fleet = Fleet::attach(lab, &node, VOLUMES, MIB)?;
    let mut loads = Vec::new();
    for name in &fleet.names {
        let status = Volume::named(lab, name).attachment()?["status"].clone();
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned).context("it is attached");
        let (consumer, device) = (text(&status["term"]["node"])?, text(&status["array"]["device"])?);
        let load = Load::new(name, 512);
        load.write(lab, &consumer, &device, 5)?;
        loads.push((load, consumer));
    }
    let seen = fleet.empty(lab)?;
    ensure!(seen.lowest()? == 2, "I3: only {} copies were in sync", seen.lowest()?);
    let (each, all) = (seen.samples.iter().map(Samples::busiest).max(), busiest_of_all(&seen.samples));
    say!("{VOLUMES} legs have left in {:.0} s; copied to at once: {all}", seen.wall.as_secs_f64());
    // With two nodes left each copy is between the two.
    ensure!(all > 0 && all <= BUDGET[1] && each <= Some(BUDGET[1]), "{all} were copied to at once, {each:?} on a node");
    Drain::begin(lab, &node, &[])?.passes()?;
    uncordon(lab, &node)?;
    for (load, consumer) in &loads {
        let volume = Volume::named(lab, load.name());
        volume.detach()?;
        let heir = volume.leg_nodes()?.into_iter().find(|n| n != consumer).context("another copy")?;
        ensure!(heir != node, "{} has a copy on {node}", load.name());
        let path = volume.attach(&heir, false)?;
        load.verify(lab, consumer, &heir, &path)?;
    }
    fleet.delete(lab)
}
