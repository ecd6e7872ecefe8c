//! A node that is emptied while something comes between. What the kernel counts as in sync is looked at five times a second all along.

use std::fs::File;

use anyhow::{Context as _, Result, bail, ensure};
use meshstor_e2e::api::{all, condition, ours};
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::samples::Sampler;
use meshstor_e2e::say;
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::{Look, pause, secs, wait_for, when};
use serde_json::{Value, json};

use crate::Test;
use crate::drain::guarded;

pub(crate) const TESTS: &[Test] = &[
    ("node_drain_without_a_place_waits_for_a_drive", no_place),
    ("node_drain_goes_on_when_its_operator_is_killed_at_each_step", operator_killed),
    ("node_drain_can_be_called_off_at_each_step", called_off),
    ("node_that_dies_while_it_is_emptied_loses_nothing", dies),
];

/// Slot of a drive behind the two that every guest has.
const SLOT: usize = 2;

/// A volume of two copies, used on the node of its first, and under load.
struct Bed {
    name: String,
    load: Load,
    consumer: String,
    path: String,
    sampler: Sampler,
}

impl Bed {
    fn new(lab: &Lab, name: &str, mib: u32) -> Result<Self> {
        let spec = json!({ "capacity": format!("{mib}Mi"), "replicaCount": 2, "filesystem": "ext4" });
        let volume = Volume::create(lab, name, &spec)?;
        let consumer = volume.leg_nodes()?.first().cloned().context("a leg")?;
        let path = volume.attach(&consumer, true)?;
        let load = Load::new(name, 1024);
        load.start(lab, &consumer, &path)?;
        load.wait_for_progress(lab, &consumer, 50, secs(60))?;
        let sampler = Sampler::begin(lab.guest(&consumer)?, name)?;
        Ok(Self { name: name.to_owned(), load, consumer, path, sampler })
    }

    fn volume<'a>(&self, lab: &'a Lab) -> Volume<'a> {
        Volume::named(lab, &self.name)
    }

    /// The node of the copy that is not its user's, and the node that has none.
    fn others(&self, lab: &Lab) -> Result<(String, String)> {
        let legs = self.volume(lab).leg_nodes()?;
        let other = legs.iter().find(|n| **n != self.consumer).cloned().context("another copy")?;
        let free = lab.nodes().into_iter().find(|n| !legs.contains(n)).context("a node without a copy")?;
        Ok((other, free))
    }

    fn legs(&self, lab: &Lab) -> Result<Vec<Value>> {
        let mine = |leg: &Value| leg["spec"]["volume"] == *self.name;
        Ok(lab.control.api.list(&all("meshreplicas"))?.into_iter().filter(mine).collect())
    }

    /// Two copies, nothing else, and the load goes on.
    fn rests(&self, lab: &Lab) -> Result<()> {
        wait_for(&format!("{} to be at rest with two copies", self.name), secs(120), || {
            let (legs, volume) = (self.legs(lab)?, self.volume(lab).object()?);
            let copies = &volume["status"]["copies"];
            Ok(when(legs.len() == 2 && copies == "2/2", format!("{} legs, {copies} copies", legs.len())))
        })?;
        self.load.wait_for_progress(lab, &self.consumer, 20, secs(60)).map(drop)
    }

    /// Ends it: never fewer than `least` were in sync, and everything that was written is there, as another node reads it.
    fn end(self, lab: &Lab, least: u32) -> Result<()> {
        self.load.stop(lab, &self.consumer)?;
        let lowest = self.sampler.lowest(lab.guest(&self.consumer)?)?;
        ensure!(lowest >= least, "I3: only {lowest} copies were in sync");
        let volume = self.volume(lab);
        volume.detach()?;
        let (other, _) = self.others(lab)?;
        let path = volume.attach(&other, true)?;
        ensure!(path == self.path, "it is mounted at {path}");
        self.load.verify(lab, &self.consumer, &other, &path)?;
        volume.detach()?;
        volume.delete()
    }
}

/// How far an evacuation is, as a person sees it.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Begun,
    Placed,
    Copied,
    Taken,
}

impl Stage {
    const ALL: [Self; 4] = [Self::Begun, Self::Placed, Self::Copied, Self::Taken];

    /// Whether the volume has come so far with leaving `node`.
    fn reached(self, bed: &Bed, lab: &Lab, node: &str) -> Result<bool> {
        let legs = bed.legs(lab)?;
        let old = legs.iter().find(|leg| leg["spec"]["node"] == *node).map(|leg| leg["metadata"]["name"].clone());
        let heir = legs
            .iter()
            .find(|leg| leg["spec"]["replaces"].is_string() && Some(&leg["spec"]["replaces"]) == old.as_ref());
        let heir = heir.map(|leg| leg["metadata"]["name"].clone()).unwrap_or_default();
        let status = bed.volume(lab).attachment()?["status"].clone();
        let members = status["array"]["members"].as_array().cloned().unwrap_or_default();
        let in_sync = status["term"]["inSync"].as_array().cloned().unwrap_or_default();
        Ok(match self {
            Self::Begun => !drain(lab)?["status"]["conditions"].is_null(),
            Self::Placed => heir.is_string(),
            Self::Copied => members.iter().any(|m| heir.is_string() && m["leg"] == heir) || in_sync.contains(&heir),
            Self::Taken => old.is_none() || in_sync.contains(&heir),
        })
    }

    fn wait(self, bed: &Bed, lab: &Lab, node: &str) -> Result<()> {
        for _ in 0..1200 {
            if self.reached(bed, lab, node)? {
                say!("{self:?}");
                return Ok(());
            }
            pause(secs(1) / 20);
        }
        bail!("the evacuation of {node} never came to {self:?}: {}", drain(lab)?["status"])
    }
}

fn drain(lab: &Lab) -> Result<Value> {
    lab.control.api.get(&ours("nodedrains", "empty"))
}

pub(crate) fn begin(lab: &Lab, node: &str) -> Result<()> {
    lab.apply(&json!({ "apiVersion": "meshstor.io/v1alpha1", "kind": "NodeDrain", "metadata": { "name": "empty" },
        "spec": { "node": node, "mode": "Evacuate" } }))
}

pub(crate) fn wait_drain(lab: &Lab, reason: &str) -> Result<Value> {
    wait_for(&format!("the drain to say {reason}"), secs(120), || {
        let drain = drain(lab)?;
        let said = condition(&drain, "Ready")["reason"] == reason;
        Ok(if said { Look::Done(drain) } else { Look::NotYet(drain["status"].to_string()) })
    })
}

pub(crate) fn call_off(lab: &Lab) -> Result<()> {
    lab.kubectl(&["delete", "nodedrain", "empty"]).map(drop)
}

/// I4: blocked with what is missing, and released by nothing but a drive that comes.
fn no_place(lab: &mut Lab) -> Result<()> {
    let _kubelet = guarded(lab)?;
    let bed = Bed::new(lab, "no-place", 128)?;
    let (node, free) = bed.others(lab)?;
    lab.guest_mut(&free)?.kill_daemon()?;
    lab.start_daemon_with(&free, "/dev/ubdc")?;
    wait_for(&format!("{free} to offer no drive"), secs(60), || {
        let seen = lab.control.api.get(&ours("meshnodes", &free))?;
        let drives = seen["status"]["drives"].as_array().map_or(0, Vec::len);
        Ok(when(drives == 0, format!("{drives} drives")))
    })?;
    begin(lab, &node)?;
    let said = wait_drain(lab, "Blocked")?;
    let message = condition(&said, "Stalled")["message"].as_str().unwrap_or_default().to_owned();
    for part in ["no-place", "cannot move", &free, "free room on another node, add one"] {
        ensure!(message.contains(part), "it lacks {part:?}: {message}");
    }
    let guest = lab.guest(&free)?;
    let disk = guest.machine.dir.join("disk-plugged");
    File::create(&disk)?.set_len(512 << 20)?;
    guest.plug(SLOT, &disk)?;
    wait_drain(lab, "Succeeded")?;
    bed.rests(lab)?;
    call_off(lab)?;
    bed.end(lab, 2)?;
    lab.guest(&free)?.unplug(SLOT)?;
    std::fs::remove_file(&disk)?;
    lab.guest_mut(&free)?.kill_daemon()?;
    lab.start_daemon(&free)
}

/// One evacuation after another, each until `then` comes between at another stage.
fn at_each_stage(lab: &mut Lab, name: &str, then: fn(&mut Lab) -> Result<()>) -> Result<()> {
    let _kubelet = guarded(lab)?;
    let bed = Bed::new(lab, name, 256)?;
    for stage in Stage::ALL {
        let (node, _) = bed.others(lab)?;
        begin(lab, &node)?;
        stage.wait(&bed, lab, &node)?;
        then(lab)?;
        call_off(lab)?;
        bed.rests(lab)?;
    }
    bed.end(lab, 2)
}

/// I5: whoever comes after an operator that died goes on where it was.
fn operator_killed(lab: &mut Lab) -> Result<()> {
    at_each_stage(lab, "orphaned", |lab| {
        lab.kill_operator()?;
        pause(secs(1));
        lab.start_operator()?;
        wait_drain(lab, "Succeeded").map(drop)
    })
}

/// I4: whenever it is called off, the volume is left with two whole copies and nothing else.
fn called_off(lab: &mut Lab) -> Result<()> {
    at_each_stage(lab, "called-off", |_| Ok(()))
}

/// I1: the copy that leaves dies before another has everything: the one that is left has it, and the node is emptied when it is back.
fn dies(lab: &mut Lab) -> Result<()> {
    let kubelet = guarded(lab)?;
    let bed = Bed::new(lab, "dies", 512)?;
    let (node, free) = bed.others(lab)?;
    begin(lab, &node)?;
    Stage::Copied.wait(&bed, lab, &node)?;
    lab.guest_mut(&node)?.cut_power()?;
    kubelet.set_alive(&node, false);
    let volume = bed.volume(lab);
    volume.wait("to have two copies without it", secs(180), |v| {
        let legs = v["status"]["legs"].as_array().cloned().unwrap_or_default();
        let whole = |leg: &&Value| leg["state"] == "InSync" && leg["node"] != *node;
        legs.iter().filter(whole).count() == 2
    })?;
    ensure!(volume.leg_nodes()?.contains(&free), "{free} has no copy: {:?}", volume.leg_nodes()?);
    bed.load.wait_for_progress(lab, &bed.consumer, 20, secs(60))?;
    lab.power_on(&node)?;
    kubelet.set_alive(&node, true);
    wait_drain(lab, "Succeeded")?;
    call_off(lab)?;
    bed.rests(lab)?;
    // What the fault took is the fault's: one copy was always there.
    bed.end(lab, 1)
}
