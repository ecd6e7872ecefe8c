//! Faults of nodes and of the API server, under load.

use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::say;
use meshstor_e2e::steps::{LegLoss, lacks};
use meshstor_e2e::timeline::{self, seconds};
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::{holds_for, secs, when};
use serde_json::{Value, json};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("target_killed_under_load", target_killed),
    ("api_outage_alone_changes_nothing", api_outage_alone),
    ("leg_lost_in_api_outage_holds_writes", leg_lost_in_api_outage),
    ("idle_consumer_reboots", idle_consumer_reboots),
    ("attached_consumer_reboots", attached_consumer_reboots),
];

/// A volume of two copies, attached on the node of its first; gives consumer, target, mount point.
pub(crate) fn attached<'a>(lab: &'a Lab, name: &str) -> Result<(Volume<'a>, String, String, String)> {
    let volume = Volume::create(lab, name, &json!({ "capacity": "128Mi", "replicaCount": 2, "filesystem": "ext4" }))?;
    let legs = volume.leg_nodes()?;
    let [consumer, target] = legs.as_slice() else { anyhow::bail!("two legs, but {legs:?}") };
    let path = volume.attach(consumer, true)?;
    Ok((volume, consumer.clone(), target.clone(), path))
}

/// Detaches, verifies on `node`, and deletes.
pub(crate) fn verify_on(lab: &Lab, volume: &Volume<'_>, load: &Load, writer: &str, node: &str) -> Result<()> {
    volume.detach()?;
    let path = volume.attach(node, true)?;
    load.verify(lab, writer, node, &path)?;
    volume.detach()?;
    volume.delete()
}

/// I1, rule 5: a leg's loss is recorded before it fails in the array, and the write that it held is acknowledged only then.
fn target_killed(lab: &mut Lab) -> Result<()> {
    let load = Load::new("killed", 2048);
    let (volume, consumer, target, path) = attached(lab, "killed")?;
    let leg = volume.leg_on(&target)?;
    let poller = timeline::watch(lab.guest(&consumer)?)?;
    load.start(lab, &consumer, &path)?;
    load.wait_for_progress(lab, &consumer, 100, secs(60))?;

    lab.guest_mut(&target)?.cut_power()?;
    let cut = SystemTime::now();
    let volume = Volume::named(lab, "killed");
    volume.wait_attachment("to have recorded the leg away", secs(60), |at| lacks(&at["status"]["term"], &leg))?;
    load.wait_for_progress(lab, &consumer, 100, secs(60))?;
    check_order(lab, &load, &consumer, &leg, cut)?;
    lab.guest(&consumer)?.kill(poller, 9)?;

    lab.power_on(&target)?;
    let volume = Volume::named(lab, "killed");
    volume.wait_whole(2)?;
    load.stop(lab, &consumer)?;
    verify_on(lab, &volume, &load, &consumer, &target)
}

/// The order of events after the power cut, each from its own witness: audit log, poller, writer.
fn check_order(lab: &Lab, load: &Load, consumer: &str, leg: &str, cut: SystemTime) -> Result<()> {
    let LegLoss { connecting, record, deleted, failed, held } = LegLoss::of(lab, load, consumer, leg, cut)?;
    ensure!(record.by.ends_with(":meshstor-node-daemon"), "the leg was recorded away by {}", record.by);
    say!(
        "cut 0 s, connection lost {:.3} s, record {:.3} s, controller deleted {:.3}–{:.3} s, member failed {:.3}–{:.3} s, held write {:.3}–{:.3} s",
        seconds(cut, connecting.by),
        seconds(cut, record.at),
        seconds(cut, deleted.after),
        seconds(cut, deleted.by),
        seconds(cut, failed.after),
        seconds(cut, failed.by),
        seconds(cut, held.began),
        seconds(cut, held.ended),
    );
    ensure!(seconds(held.began, held.ended) > 1.0, "no write was held: the fault did not fire");
    ensure!(record.at <= deleted.by, "the controller was deleted before the leg was recorded away");
    ensure!(record.at <= failed.by, "the member failed before it was recorded away");
    ensure!(deleted.after <= failed.by, "the member failed before its controller was deleted");
    ensure!(record.at < held.ended, "a write was acknowledged before the lost leg was recorded away");
    ensure!(failed.after <= held.ended, "a write was acknowledged before the lost leg failed");
    Ok(())
}

/// Rule 6: if no leg fails, an outage of the API server changes nothing for a running volume.
fn api_outage_alone(lab: &mut Lab) -> Result<()> {
    let load = Load::new("outage", 2048);
    let (volume, consumer, target, path) = attached(lab, "outage")?;
    load.start(lab, &consumer, &path)?;
    lab.stop_api()?;
    let outcome = writes_go_on(lab, &load, &consumer);
    lab.continue_api()?;
    outcome?;
    load.stop(lab, &consumer)?;
    verify_on(lab, &volume, &load, &consumer, &target)
}

/// For 20 s each 100 batches come in their time, and none takes as long as a leg's loss would.
fn writes_go_on(lab: &Lab, load: &Load, consumer: &str) -> Result<()> {
    let began = SystemTime::now();
    while seconds(began, SystemTime::now()) < 20.0 {
        load.wait_for_progress(lab, consumer, 20, secs(10))?;
    }
    let longest = load.journal(lab, consumer)?.longest().context("the writer flushed")?;
    ensure!(
        seconds(longest.began, longest.ended) < 2.0,
        "a write was held for {:.1} s",
        seconds(longest.began, longest.ended)
    );
    Ok(())
}

/// I1, rule 5: a leg that is lost while nothing can be recorded holds writes until the API server is back.
fn leg_lost_in_api_outage(lab: &mut Lab) -> Result<()> {
    let load = Load::new("held", 2048);
    let (volume, consumer, target, path) = attached(lab, "held")?;
    let leg = volume.leg_on(&target)?;
    load.start(lab, &consumer, &path)?;
    load.wait_for_progress(lab, &consumer, 50, secs(60))?;

    lab.stop_api()?;
    lab.guest_mut(&target)?.cut_power()?;
    let outcome = writes_are_held(lab, &load, &consumer);
    lab.continue_api()?;
    outcome?;

    let volume = Volume::named(lab, "held");
    volume.wait_attachment("to have recorded the leg away", secs(90), |at| lacks(&at["status"]["term"], &leg))?;
    load.wait_for_progress(lab, &consumer, 50, secs(60))?;
    lab.power_on(&target)?;
    let volume = Volume::named(lab, "held");
    volume.wait_whole(2)?;
    load.stop(lab, &consumer)?;
    verify_on(lab, &volume, &load, &consumer, &target)
}

/// Once the batch that was under way is over, none is flushed for 20 s: six times what a recorded loss takes.
pub(crate) fn writes_are_held(lab: &Lab, load: &Load, consumer: &str) -> Result<()> {
    let cut = load.journal(lab, consumer)?.flushed();
    holds_for("a held write", secs(20), || {
        let now = load.journal(lab, consumer)?;
        Ok(when(now.flushed() <= cut + 2, format!("{now}, but {cut} at the power cut")))
    })
}

/// Rule 4, I5: a node that loses its power while nothing is attached is simply there again.
fn idle_consumer_reboots(lab: &mut Lab) -> Result<()> {
    let load = Load::new("idle", 1024);
    let (volume, consumer, _, path) = attached(lab, "idle")?;
    load.write(lab, &consumer, &path, 50)?;
    volume.detach()?;
    let boot = lab.guest(&consumer)?.shell("cat /proc/sys/kernel/random/boot_id")?;
    lab.guest_mut(&consumer)?.cut_power()?;
    lab.power_on(&consumer)?;
    ensure!(lab.guest(&consumer)?.shell("cat /proc/sys/kernel/random/boot_id")? != boot, "{consumer} did not reboot");
    let volume = Volume::named(lab, "idle");
    let path = volume.attach(&consumer, true)?;
    load.verify(lab, &consumer, &consumer, &path)?;
    volume.detach()?;
    volume.delete()
}

/// I1, rule 4: a consumer that loses its power under load starts again under a new epoch, and no flushed write is lost.
fn attached_consumer_reboots(lab: &mut Lab) -> Result<()> {
    let load = Load::new("reboot", 2048);
    let (volume, consumer, target, path) = attached(lab, "reboot")?;
    let epoch = volume.attachment()?["status"]["term"]["epoch"].as_i64().context("there is an epoch")?;
    load.start(lab, &consumer, &path)?;
    load.wait_for_progress(lab, &consumer, 100, secs(60))?;
    lab.guest_mut(&consumer)?.cut_power()?;
    lab.power_on(&consumer)?;
    let volume = Volume::named(lab, "reboot");
    let newer = |at: &Value| at["status"]["term"]["epoch"].as_i64().is_some_and(|e| e > epoch);
    volume.wait_attachment("to have a new epoch", secs(90), newer)?;
    let path = volume.wait_attached(&consumer, true)?;
    load.verify(lab, &consumer, &consumer, &path)?;
    volume.wait_whole(2)?;
    verify_on(lab, &volume, &load, &consumer, &target)
}
