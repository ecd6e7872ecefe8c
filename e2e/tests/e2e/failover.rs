//! A consumer that is lost: its volume moves as soon as the protocol allows it, and never before.

use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use meshstor_e2e::api::{condition, ours};
use meshstor_e2e::lab::{Lab, OUT_OF_SERVICE};
use meshstor_e2e::load::Load;
use meshstor_e2e::partition::{self, Cut, Way};
use meshstor_e2e::say;
use meshstor_e2e::steps::Move;
use meshstor_e2e::timeline::seconds;
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::{Look, holds_for, secs, wait_for, when};
use serde_json::{Value, json};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("consumer_out_of_service_fails_over", out_of_service),
    ("isolated_consumer_is_fenced_and_comes_back", isolated),
    ("held_writes_that_somebody_may_see_wait_for_a_reboot", kept_until_reboot),
    ("a_path_lost_and_found_is_let_in_behind_the_barrier", path_lost_and_found),
    ("a_last_path_that_is_deleted_by_hand_begins_a_new_epoch", last_path_deleted),
];

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

    lab.kubectl(&["taint", "node", &consumer, OUT_OF_SERVICE])?;
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

    lab.kubectl(&["taint", "node", &consumer, &format!("{OUT_OF_SERVICE}-")])?;
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
    let steps = Move::of(&lab.control.audit, "taken", said)?;
    let [revoking, started, claimed, mounted] = steps.all().map(|at| seconds(said, at));
    say!(
        "given up 0 s, revoking {revoking:.2} s, started {started:.2} s, claimed {claimed:.2} s, mounted {mounted:.2} s, seen {took:.2} s"
    );
    ensure!(steps.all().is_sorted(), "the steps are out of order: {steps:?}");
    Ok(())
}

fn arrays(lab: &Lab, node: &str) -> Result<String> {
    Ok(lab.guest(node)?.shell("find /sys/block -name 'md*' -printf '%f '")?.trim().to_owned())
}

/// Under load the consumer is cut off from everything; its volume goes on elsewhere. What it held then is flushed nowhere.
fn fenced<'a>(lab: &'a mut Lab, load: &Load, name: &str, before: &str) -> Result<(Volume<'a>, String, String, u64)> {
    let (volume, consumer, _, other, path) = attached(lab, name)?;
    lab.guest(&consumer)?.shell(&before.replace("$MOUNT", &path))?;
    load.start(lab, &consumer, &path)?;
    load.wait_for_progress(lab, &consumer, 100, secs(60))?;
    partition::cut(lab.guest(&consumer)?, Cut::Both, Way::Both)?;
    volume.give_up(&other, true)?;
    let path = volume.wait_attached(&other, true)?;
    ensure!(partition::dropped(lab.guest(&consumer)?)? > 0, "nothing was cut");
    let held = load.journal(lab, &consumer)?.flushed();
    holds_for("no write of a fenced consumer is acknowledged", secs(5), || {
        let now = load.journal(lab, &consumer)?.flushed();
        Ok(when(now == held, format!("{held} batches were flushed when it was fenced, and now {now}")))
    })?;
    load.verify(lab, &consumer, &other, &path)?;
    lab.guest(&other)?.shell(&format!("echo newer > {path}/newer && sync {path}/newer"))?;
    Ok((Volume::named(lab, name), consumer, other, held))
}

/// I1, I2: a consumer that is cut off and given up holds its writes. When it learns that its epoch is over, whoever waits for one is
/// killed before it ends, its array is taken down, and its leg comes back by a rebuild.
fn isolated(lab: &mut Lab) -> Result<()> {
    let load = Load::new("fenced", 2048);
    let (_, consumer, _, held) = fenced(lab, &load, "fenced", "true")?;
    let lab = &*lab;
    partition::heal(lab.guest(&consumer)?)?;
    wait_for("the fenced array to be gone", secs(60), || {
        let arrays = arrays(lab, &consumer)?;
        Ok(if arrays.is_empty() { Look::Done(()) } else { Look::NotYet(arrays) })
    })?;
    let journal = load.journal(lab, &consumer)?;
    ensure!(journal.flushed() == held, "{} batches were flushed, {held} when it was fenced", journal.flushed());
    ensure!(journal.errors.is_empty(), "the writer saw {:?}", journal.errors);
    let writers = lab.guest(&consumer)?.shell("pgrep -f '[/]run/share/writer'; test $? -le 1")?;
    ensure!(writers.trim().is_empty(), "the writer still runs: {writers}");
    let volume = Volume::named(lab, "fenced");
    volume.wait_whole(2)?;
    volume.detach()?;
    let path = volume.attach(&consumer, true)?;
    load.verify(lab, &consumer, &consumer, &path)?;
    ensure!(
        lab.guest(&consumer)?.shell(&format!("cat {path}/newer"))?.trim() == "newer",
        "a write of the new epoch is lost"
    );
    volume.detach()?;
    volume.delete()
}

/// I1, I7: where something of the kernel could see the held writes end (here a loop device over a file of the volume), nothing is killed
/// and nothing is released: the node says that it must reboot, nothing is attached there, and after the reboot all is as before.
fn kept_until_reboot(lab: &mut Lab) -> Result<()> {
    let load = Load::new("kept", 2048);
    let loop_device = "truncate -s 1M $MOUNT/image && sync && losetup /dev/loop7 $MOUNT/image";
    let (_, consumer, _, held) = fenced(lab, &load, "kept", loop_device)?;
    partition::heal(lab.guest(&consumer)?)?;
    let said = |want: &str| {
        wait_for(&format!("RebootRequired={want} on {consumer}"), secs(90), || {
            let node = lab.control.api.get(&ours("meshnodes", &consumer))?;
            let found = condition(&node, "RebootRequired").clone();
            Ok(if found["status"] == want { Look::Done(found) } else { Look::NotYet(found.to_string()) })
        })
    };
    let found = said("True")?;
    let message = found["message"].as_str().unwrap_or_default();
    ensure!(
        found["reason"] == "WritesHeld" && message.contains("kept: ") && message.contains("loop7"),
        "it says {found}"
    );
    ensure!(!arrays(lab, &consumer)?.is_empty(), "the array is gone");
    ensure!(load.journal(lab, &consumer)?.flushed() == held, "a held write was acknowledged");
    let volume = Volume::named(lab, "kept");
    volume.detach()?;
    volume.want_on(&consumer, true)?;
    volume.wait("to say why it is not attached there", secs(60), |v| {
        condition(v, "Ready")["message"].as_str().is_some_and(|m| m.contains("must reboot first"))
    })?;
    lab.reboot_as(&consumer, |_| {})?;
    let volume = Volume::named(lab, "kept");
    let path = volume.wait_attached(&consumer, true)?;
    load.verify(lab, &consumer, &consumer, &path)?;
    ensure!(
        lab.guest(&consumer)?.shell(&format!("cat {path}/newer"))?.trim() == "newer",
        "a write of the new epoch is lost"
    );
    volume.wait_whole(2)?;
    volume.detach()?;
    volume.delete()
}

/// Rule 9: the only leg is remote, and its path is gone for a while. The consumer's kernel tries again by itself, and is let in only when
/// nothing of the old connection is left in the target; then the writes that it held are acknowledged, in the same epoch and grant.
fn path_lost_and_found(lab: &mut Lab) -> Result<()> {
    let load = Load::new("blip", 1024);
    let spec = json!({ "capacity": "128Mi", "replicaCount": 1, "filesystem": "ext4" });
    let volume = Volume::create(lab, "blip", &spec)?;
    let target = volume.leg_nodes()?.first().cloned().context("a leg")?;
    let consumer = lab.nodes().into_iter().find(|n| *n != target).context("another node")?;
    let path = volume.attach(&consumer, true)?;
    let before = volume.attachment()?["status"]["term"].clone();
    let leg = lab.control.api.get(&ours("meshreplicas", &volume.leg_on(&target)?))?;
    load.start(lab, &consumer, &path)?;
    load.wait_for_progress(lab, &consumer, 50, secs(60))?;
    let said = lab.guest(&target)?.daemon_log();
    let from = std::fs::metadata(&said)?.len();
    let let_in = || -> Result<usize> {
        let log = std::fs::read(&said)?;
        let new = String::from_utf8_lossy(log.get(usize::try_from(from)?..).unwrap_or_default()).into_owned();
        Ok(new.lines().filter(|line| line.contains("connect to") && line.contains("once more")).count())
    };
    partition::cut(lab.guest(&consumer)?, Cut::Data, Way::Both)?;
    volume.wait_attachment("to say that its writes are held", secs(60), |at| {
        at["status"]["array"]["members"][0]["state"] == "Held"
    })?;
    wait_for("the target to let the consumer in once more", secs(60), || {
        Ok(when(let_in()? > 0, "it does not say so"))
    })?;
    partition::heal(lab.guest(&consumer)?)?;
    load.wait_for_progress(lab, &consumer, 50, secs(60))?;
    load.stop(lab, &consumer)?;
    // Once for the connection that was lost; once more for an attempt that did not get through. Never while nobody came.
    ensure!(let_in()? <= 2, "it was let in {} times", let_in()?);
    let after = volume.attachment()?["status"]["term"].clone();
    ensure!(before["epoch"] == after["epoch"] && before["inSync"] == after["inSync"], "{before} became {after}");
    let now = lab.control.api.get(&ours("meshreplicas", &volume.leg_on(&target)?))?;
    ensure!(leg["spec"]["grant"] == now["spec"]["grant"], "another grant: {}", now["spec"]["grant"]);
    volume.detach()?;
    let path = volume.attach(&target, true)?;
    load.verify(lab, &consumer, &target, &path)?;
    volume.detach()?;
    volume.delete()
}

/// I4: MD keeps its last member without a device and answers everybody with errors. Its epoch ends by itself, and the next one has what was written.
fn last_path_deleted(lab: &mut Lab) -> Result<()> {
    let load = Load::new("by-hand", 1024);
    let spec = json!({ "capacity": "128Mi", "replicaCount": 1, "filesystem": "ext4" });
    let volume = Volume::create(lab, "by-hand", &spec)?;
    let target = volume.leg_nodes()?.first().cloned().context("a leg")?;
    let consumer = lab.nodes().into_iter().find(|n| *n != target).context("another node")?;
    let path = volume.attach(&consumer, true)?;
    load.start(lab, &consumer, &path)?;
    load.wait_for_progress(lab, &consumer, 50, secs(60))?;
    load.stop(lab, &consumer)?;
    let guest = lab.guest(&consumer)?;
    let first = volume.attachment()?["status"]["term"]["epoch"].as_i64();
    guest.shell("for c in /sys/class/nvme/nvme*; do echo 1 > $c/delete_controller; done")?;
    let term = volume.wait_attachment("to run in another epoch", secs(60), |at| {
        let (term, array) = (&at["status"]["term"], &at["status"]["array"]);
        term["epoch"].as_i64() > first && array["epoch"] == term["epoch"] && array["mountPath"].is_string()
    })?;
    ensure!(term["status"]["ended"]["reason"] == "ArrayGone", "it ended otherwise: {}", term["status"]["ended"]);
    guest.shell(&format!("echo newer > {path}/newer && sync {path}/newer"))?;
    volume.detach()?;
    let path = volume.attach(&target, true)?;
    let newer = lab.guest(&target)?.shell(&format!("cat {path}/newer"))?;
    ensure!(newer.trim() == "newer", "the new epoch's file has {newer}");
    load.verify(lab, &consumer, &target, &path)?;
    volume.detach()?;
    volume.delete()
}
