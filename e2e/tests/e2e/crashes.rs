//! Crashes of daemon and operator while a volume is attached and detached.

use anyhow::{Result, ensure};
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::say;
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::{secs, wait_for, when};
use serde_json::{Value, json};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("daemon_killed_while_attaching", |lab| attach_with_crashes(lab, "crash-da", Victim::Consumer)),
    ("target_daemon_killed_while_attaching", |lab| attach_with_crashes(lab, "crash-ta", Victim::Target)),
    ("operator_killed_while_attaching", |lab| attach_with_crashes(lab, "crash-oa", Victim::Operator)),
    ("daemon_killed_while_detaching", |lab| detach_with_crashes(lab, "crash-dd", Victim::Consumer)),
    ("operator_killed_while_detaching", |lab| detach_with_crashes(lab, "crash-od", Victim::Operator)),
];

#[derive(Clone, Copy, Debug)]
enum Victim {
    Consumer,
    Target,
    Operator,
}

/// A point of an attach at which something is killed: the first state in which this holds of the attachment's status.
type Point = (&'static str, fn(&Value) -> bool);

const ATTACH: [Point; 5] = [
    ("wanted", |_| true),
    ("Revoking", |s| is_phase(s, "Revoking")),
    ("Started", |s| is_phase(s, "Started")),
    ("Running", |s| is_phase(s, "Running")),
    ("with an array", |s| s["array"].is_object()),
];

/// Points of a detach: at once, when the array is going, when it has ended.
const DETACH: [Point; 3] = [
    ("unwanted", |_| true),
    ("not usable", |s| s["array"]["mountPath"].is_null()),
    ("ended", |s| s["ended"]["epoch"] == s["term"]["epoch"]),
];

fn is_phase(status: &Value, phase: &str) -> bool {
    status["term"]["phase"] == phase
}

/// I5: a crash at any point of an attach is harmless: the next run converges, and what was written before is there.
fn attach_with_crashes(lab: &mut Lab, name: &str, victim: Victim) -> Result<()> {
    let load = Load::new(name, 1024);
    let volume = Volume::create(lab, name, &json!({ "capacity": "64Mi", "replicaCount": 2, "filesystem": "ext4" }))?;
    let [consumer, target] = two(&volume)?;
    let mut fired = 0;
    for point in ATTACH {
        let volume = Volume::named(lab, name);
        let before = epoch(&volume)?;
        volume.want_on(&consumer, true)?;
        let status = kill_at(lab, name, victim, &consumer, &target, point, before)?;
        fired += i32::from(!status["array"]["mountPath"].is_string());
        let volume = Volume::named(lab, name);
        let path = volume.wait_attached(&consumer, true)?;
        load.verify(lab, &consumer, &consumer, &path)
            .or_else(|error| if before == 0 { Ok(String::new()) } else { Err(error) })?;
        load.write(lab, &consumer, &path, 40)?;
        volume.detach()?;
    }
    ensure!(
        fired >= 3,
        "only {fired} of {} kills came before the volume was usable: too few to prove anything",
        ATTACH.len()
    );
    Volume::named(lab, name).delete()
}

/// I5: a crash at any point of a detach is harmless.
fn detach_with_crashes(lab: &mut Lab, name: &str, victim: Victim) -> Result<()> {
    let load = Load::new(name, 1024);
    let volume = Volume::create(lab, name, &json!({ "capacity": "64Mi", "replicaCount": 2, "filesystem": "ext4" }))?;
    let [consumer, target] = two(&volume)?;
    let mut fired = 0;
    for point in DETACH {
        let volume = Volume::named(lab, name);
        let path = volume.attach(&consumer, true)?;
        load.write(lab, &consumer, &path, 40)?;
        let before = epoch(&volume)?;
        volume.want_nowhere()?;
        let status = kill_at(lab, name, victim, &consumer, &target, point, before - 1)?;
        fired += i32::from(status["ended"]["epoch"] != status["term"]["epoch"]);
        let volume = Volume::named(lab, name);
        volume.wait_detached()?;
        let path = volume.attach(&target, true)?;
        load.verify(lab, &consumer, &target, &path)?;
        volume.detach()?;
    }
    ensure!(fired >= 1, "every kill came after the end of the epoch: too late to prove anything");
    Volume::named(lab, name).delete()
}

fn two(volume: &Volume<'_>) -> Result<[String; 2]> {
    let legs = volume.leg_nodes()?;
    let [first, second] = legs.as_slice() else { anyhow::bail!("two legs, but {legs:?}") };
    Ok([first.clone(), second.clone()])
}

fn epoch(volume: &Volume<'_>) -> Result<i64> {
    Ok(volume.attachment()?["status"]["term"]["epoch"].as_i64().unwrap_or(0))
}

/// Kills the victim as soon as the point is reached in an epoch after `before`, sees that it is gone, and starts it again. Gives
/// the attachment's status as it was then.
fn kill_at(
    lab: &mut Lab,
    name: &str,
    victim: Victim,
    consumer: &str,
    target: &str,
    point: Point,
    before: i64,
) -> Result<Value> {
    let (label, reached) = point;
    wait_for(&format!("{name} to be {label}"), secs(60), || {
        let status = Volume::named(lab, name).attachment()?["status"].clone();
        let due = label == "wanted" || (status["term"]["epoch"].as_i64().unwrap_or(0) > before && reached(&status));
        Ok(when(due, status["term"].to_string()))
    })?;
    match victim {
        Victim::Operator => lab.kill_operator()?,
        Victim::Consumer => lab.guest_mut(consumer)?.kill_daemon()?,
        Victim::Target => lab.guest_mut(target)?.kill_daemon()?,
    }
    let status = Volume::named(lab, name).attachment()?["status"].clone();
    say!(
        "killed {victim:?} when {name} was {label}: {}, mounted {}",
        status["term"]["phase"],
        status["array"]["mountPath"]
    );
    match victim {
        Victim::Operator => lab.start_operator()?,
        Victim::Consumer => lab.start_daemon(consumer)?,
        Victim::Target => lab.start_daemon(target)?,
    }
    Ok(status)
}
