//! Many volumes with a copy on one node, each used on another, and the node emptied: what a test and the benchmark `drain` look at.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::api::{all, condition, ours};
use crate::lab::Lab;
use crate::samples::{Sampler, Samples};
use crate::say;
use crate::volume::Volume;
use crate::wait::{Look, secs, wait_for};

/// Rebuilds at once in the cluster, and from or to one node: what the volumes' policy allows.
pub const BUDGET: [usize; 2] = [3, 2];
/// Longest time of an evacuation.
const TIMEOUT: Duration = secs(900);
const POLICY: &str = "fleet";
const DRAIN: &str = "empty-fleet";

/// The volumes.
pub struct Fleet {
    /// Their names.
    pub names: Vec<String>,
    /// Node that has a copy of each, and uses none.
    pub node: String,
    /// Size of each, in bytes.
    pub bytes: u64,
}

/// What an evacuation showed.
pub struct Seen {
    /// From the drain's creation until it said that it is done.
    pub wall: Duration,
    /// The kernels' looks at their arrays meanwhile.
    pub samples: Vec<Samples>,
}

impl Fleet {
    /// Makes so many raw volumes of `mib` MiB and two copies, and attaches each on the node of its copy that is not on `node`.
    pub fn attach(lab: &Lab, node: &str, count: usize, mib: u64) -> Result<Self> {
        let [max, per_node] = BUDGET;
        lab.apply(
            &json!({ "apiVersion": "meshstor.io/v1alpha1", "kind": "ReplicaSetPolicy", "metadata": { "name": POLICY },
            "spec": { "rebuild": { "maxConcurrent": max, "maxConcurrentPerNode": per_node } } }),
        )?;
        let names: Vec<String> = (1..=count).map(|n| format!("fleet-{n:02}")).collect();
        let spec = json!({ "capacity": format!("{mib}Mi"), "replicaCount": 2, "filesystem": "none", "policy": POLICY, "preferredNode": node });
        for name in &names {
            let volume = Volume::create(lab, name, &spec)?;
            ensure!(volume.leg_nodes()?.contains(&node.to_owned()), "{name} has no copy on {node}");
        }
        let fleet = Self { names, node: node.to_owned(), bytes: mib << 20 };
        for name in &fleet.names {
            let volume = Volume::named(lab, name);
            volume.want_on(&fleet.elsewhere(&volume)?, false)?;
        }
        for name in &fleet.names {
            let volume = Volume::named(lab, name);
            volume.wait_attached(&fleet.elsewhere(&volume)?, false)?;
        }
        say!("{count} volumes of {mib} MiB are attached");
        Ok(fleet)
    }

    /// Node of the copy that stays.
    fn elsewhere(&self, volume: &Volume<'_>) -> Result<String> {
        volume.leg_nodes()?.into_iter().find(|n| *n != self.node).context("another copy")
    }

    /// Empties the node, and waits until the drain says that it is done.
    pub fn empty(&self, lab: &Lab) -> Result<Seen> {
        let guests = || lab.guests().iter().filter(|guest| guest.name() != self.node);
        let samplers = guests().map(|guest| Sampler::begin(guest, "fleet")).collect::<Result<Vec<_>>>()?;
        let began = Instant::now();
        lab.apply(&json!({ "apiVersion": "meshstor.io/v1alpha1", "kind": "NodeDrain", "metadata": { "name": DRAIN },
            "spec": { "node": self.node, "mode": "Evacuate" } }))?;
        let mut shown = String::new();
        wait_for("the node to be empty", TIMEOUT, || {
            let drain = lab.control.api.get(&ours("nodedrains", DRAIN))?;
            let ready = condition(&drain, "Ready");
            let message = ready["message"].as_str().unwrap_or_default().to_owned();
            if message != shown {
                say!("   {message}");
                shown.clone_from(&message);
            }
            Ok(if ready["reason"] == "Succeeded" { Look::Done(()) } else { Look::NotYet(message) })
        })?;
        let wall = began.elapsed();
        let samples = samplers.iter().zip(guests()).map(|(s, guest)| s.end(guest)).collect::<Result<Vec<_>>>()?;
        let left = self.legs(lab)?.iter().filter(|leg| leg["spec"]["node"] == *self.node).count();
        ensure!(left == 0, "{left} legs are on {}", self.node);
        lab.kubectl(&["delete", "nodedrain", DRAIN])?;
        Ok(Seen { wall, samples })
    }

    /// All legs of its volumes.
    pub fn legs(&self, lab: &Lab) -> Result<Vec<Value>> {
        let mine = |leg: &Value| leg["spec"]["volume"].as_str().is_some_and(|v| self.names.iter().any(|n| n == v));
        Ok(lab.control.api.list(&all("meshreplicas"))?.into_iter().filter(mine).collect())
    }

    /// Detaches and deletes all of it.
    pub fn delete(self, lab: &Lab) -> Result<()> {
        let volumes = || self.names.iter().map(|name| Volume::named(lab, name));
        volumes().try_for_each(|volume| volume.want_nowhere())?;
        for volume in volumes() {
            volume.wait_detached()?;
            volume.delete_only()?;
        }
        volumes().try_for_each(|volume| volume.wait_gone())?;
        lab.control.api.delete(&ours("replicasetpolicies", POLICY))
    }
}

impl Seen {
    /// The lowest number of members in sync of any array.
    pub fn lowest(&self) -> Result<u32> {
        self.samples.iter().filter_map(Samples::lowest).min().context("there was an array")
    }

    /// Seconds of copying, of all arrays together.
    pub fn copying(&self) -> f64 {
        self.samples.iter().map(Samples::copying).sum()
    }
}
