//! A consumer that is lost: its volume moves as soon as the protocol allows it, and never before.

use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::say;
use meshstor_e2e::timeline::{record_writes, seconds};
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::secs;
use serde_json::{Value, json};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[("consumer_out_of_service_fails_over", out_of_service)];

/// Taint of a node that is shut down for good.
const TAINT: &str = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute";

/// A volume of two copies, attached on the node of its first; gives consumer, target, the node without a leg, mount point.
fn attached<'a>(lab: &'a Lab, name: &str) -> Result<(Volume<'a>, String, String, String, String)> {
    let volume = Volume::create(lab, name, &json!({ "capacity": "128Mi", "replicaCount": 2, "filesystem": "ext4" }))?;
    let legs = volume.leg_nodes()?;
    let [consumer, target] = legs.as_slice() else { anyhow::bail!("two legs, but {legs:?}") };
    let other = lab.nodes().into_iter().find(|n| !legs.contains(n)).context("a node has no leg")?;
    let path = volume.attach(consumer, true)?;
    Ok((volume, consumer.clone(), target.clone(), other, path))
}

/// Reasons of the events about the volume, oldest first.
fn reasons(lab: &Lab, volume: &str) -> Result<Vec<String>> {
    let mut events = lab.control.api.list("/apis/events.k8s.io/v1/events")?;
    events.retain(|e| e["regarding"]["kind"] == "MeshVolume" && e["regarding"]["name"] == volume);
    events.sort_by_key(|e| e["eventTime"].as_str().unwrap_or_default().to_owned());
    Ok(events.iter().filter_map(|e| e["reason"].as_str().map(str::to_owned)).collect())
}

/// I1, I2: the consumer's node loses its power under load. Wanted elsewhere, nothing happens until somebody says that it is out of
/// service; then the volume is mounted elsewhere, from the leg that confirmed, with everything that was flushed.
fn out_of_service(lab: &mut Lab) -> Result<()> {
    let load = Load::new("taken", 2048);
    let (volume, consumer, target, other, path) = attached(lab, "taken")?;
    let epoch = |at: &Value| at["status"]["term"]["epoch"].as_i64().unwrap_or(0);
    let before = epoch(&volume.attachment()?);
    let local = volume.leg_on(&consumer)?;
    load.start(lab, &consumer, &path)?;
    load.wait_for_progress(lab, &consumer, 100, secs(60))?;
    lab.guest_mut(&consumer)?.cut_power()?;

    let volume = Volume::named(lab, "taken");
    volume.want_on(&other, true)?;
    std::thread::sleep(secs(5));
    ensure!(epoch(&volume.attachment()?) == before, "an epoch was taken from a consumer that nobody gave up");

    lab.kubectl(&["taint", "node", &consumer, TAINT])?;
    let said = SystemTime::now();
    let path = volume.wait_attached(&other, true)?;
    let took = seconds(said, SystemTime::now());
    let term = volume.attachment()?["status"]["term"].clone();
    ensure!(term["epoch"] == before + 1, "one epoch was enough, but it is {term}");
    ensure!(!term["inSync"].as_array().context("S")?.iter().any(|l| *l == *local), "{local} is still in S: {term}");
    load.verify(lab, &consumer, &other, &path)?;
    steps(lab, said, took)?;
    let told = reasons(lab, "taken")?;
    for reason in ["ConsumerLost", "Revoking", "Started", "Attached"] {
        ensure!(told.iter().any(|r| r == reason), "no event tells {reason}: {told:?}");
    }

    lab.kubectl(&["taint", "node", &consumer, &format!("{TAINT}-")])?;
    lab.power_on(&consumer)?;
    let volume = Volume::named(lab, "taken");
    volume.wait_whole(2)?;
    volume.detach()?;
    let path = volume.attach(&consumer, true)?;
    load.verify(lab, &consumer, &consumer, &path)?;
    ensure!(target != other, "the target is not the third node");
    volume.detach()?;
    volume.delete()
}

/// Says how the time from the word to the mount splits, by the record's writes.
fn steps(lab: &Lab, said: SystemTime, took: f64) -> Result<()> {
    let writes = record_writes(&lab.control.audit, "taken")?;
    let at = |phase: &str| {
        let write = writes.iter().find(|w| w.at > said && w.term["phase"] == phase);
        write.map(|w| seconds(said, w.at)).with_context(|| format!("the record became {phase}"))
    };
    let (revoking, started, running) = (at("Revoking")?, at("Started")?, at("Running")?);
    say!("given up 0 s, revoking {revoking:.2} s, started {started:.2} s, claimed {running:.2} s, mounted {took:.2} s");
    ensure!(revoking <= started && started <= running, "the steps are out of order");
    Ok(())
}
