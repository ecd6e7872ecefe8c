//! What somebody else changes on a node is told by its kernel. The suite's daemons have no slow sweep to find it by.

use std::fs::File;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use meshstor_e2e::api::{condition, is_true, ours};
use meshstor_e2e::guest::Guest;
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::say;
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::{Look, holds_for, secs, wait_for, when};
use serde_json::{Value, json};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("a_drive_plugged_and_pulled_by_hand", drive),
    ("an_export_unlinked_by_hand_is_closed_at_once", |lab| export(lab, "unlinked", UNLINK)),
    ("an_export_disabled_by_hand_is_closed_at_once", |lab| export(lab, "disabled", DISABLE)),
    ("an_assembly_by_hand_is_reported_and_undone", foreign_assembly),
    ("a_connection_deleted_by_hand_is_recorded", disconnected),
    ("a_mount_taken_away_by_hand_comes_back", unmounted),
    ("a_volume_at_work_disturbs_no_daemon", at_work),
];

/// Signals of a daemon that cannot look, and that can again.
const STOP: i32 = 19;
const CONT: i32 = 18;

/// Slot of a drive behind the two that every guest has.
const SLOT: usize = 2;

fn node_has(lab: &Lab, node: &str, drives: usize) -> Result<Value> {
    wait_for(&format!("{node} to have {drives} drives"), secs(20), || {
        let seen = lab.control.api.get(&ours("meshnodes", node))?;
        let found = seen["status"]["drives"].as_array().map_or(0, Vec::len);
        Ok(if found == drives { Look::Done(seen) } else { Look::NotYet(seen["status"]["drives"].to_string()) })
    })
}

/// What the daemon of a node has logged since the log was so long.
fn logged_since(guest: &Guest, length: u64) -> Result<String> {
    let text = std::fs::read(log(guest))?;
    let from = usize::try_from(length)?.min(text.len());
    Ok(String::from_utf8_lossy(&text[from..]).into_owned())
}

fn log(guest: &Guest) -> std::path::PathBuf {
    guest.machine.share.join("logs/node-daemon.log")
}

fn log_length(guest: &Guest) -> Result<u64> {
    Ok(std::fs::metadata(log(guest))?.len())
}

/// Waits until the daemon says that the kernel told it of `name`.
fn told_of(guest: &Guest, since: u64, name: &str) -> Result<()> {
    wait_for(&format!("{} to be told of {name}", guest.name()), secs(20), || {
        let log = logged_since(guest, since)?;
        let told = log.lines().any(|l| l.contains("the kernel tells of a change") && l.contains(name));
        Ok(when(told, log.lines().rev().take(3).collect::<Vec<_>>().join(" | ")))
    })
}

/// A drive that is put into a running node is offered at once, and one that is taken out no longer.
fn drive(lab: &mut Lab) -> Result<()> {
    let node = lab.nodes().into_iter().next().context("the lab has nodes")?;
    node_has(lab, &node, 2)?;
    let guest = lab.guest(&node)?;
    let (disk, length) = (guest.machine.dir.join("disk-plugged"), log_length(guest)?);
    File::create(&disk)?.set_len(256 << 20)?;
    guest.plug(SLOT, &disk)?;
    let plugged = Instant::now();
    let outcome = node_has(lab, &node, 3);
    say!("the drive was offered {:.1} s after it came", plugged.elapsed().as_secs_f64());
    guest.unplug(SLOT)?;
    let unplugged = Instant::now();
    let seen = outcome?;
    let free = seen["status"]["drives"].as_array().into_iter().flatten().all(|d| !d["freeExtents"].is_null());
    ensure!(free, "a drive has no room: {}", seen["status"]["drives"]);
    node_has(lab, &node, 2)?;
    say!("it was gone {:.1} s after it went", unplugged.elapsed().as_secs_f64());
    std::fs::remove_file(&disk)?;
    told_of(guest, length, "ubdc")
}

/// A volume of two copies, attached on the node of its first; gives volume, consumer, target and mount point.
fn attached<'a>(lab: &'a Lab, name: &str) -> Result<(Volume<'a>, String, String, String)> {
    let volume = Volume::create(lab, name, &json!({ "capacity": "64Mi", "replicaCount": 2, "filesystem": "ext4" }))?;
    let legs = volume.leg_nodes()?;
    let [consumer, target] = legs.as_slice() else { anyhow::bail!("two legs, but {legs:?}") };
    let path = volume.attach(consumer, true)?;
    Ok((volume, consumer.clone(), target.clone(), path))
}

const UNLINK: &str = "rm /sys/kernel/config/nvmet/ports/*/subsystems/$nqn";
const DISABLE: &str = "echo 0 > /sys/kernel/config/nvmet/subsystems/$nqn/namespaces/1/enable";

/// I1, rules 1 and 9: an export that somebody takes apart is closed by its own daemon as soon as its kernel tells, its grant is
/// spent, and the leg comes back under a new one. The consumer's daemon is stopped meanwhile: it can have told nobody.
fn export(lab: &mut Lab, name: &str, damage: &str) -> Result<()> {
    let load = Load::new(name, 1024);
    let (volume, consumer, target, path) = attached(lab, name)?;
    let leg = ours("meshreplicas", &volume.leg_on(&target)?);
    let export = lab.control.api.get(&leg)?["status"]["export"].clone();
    let (nqn, grant) = (export["nqn"].as_str().context("an export has an NQN")?, export["grant"].as_i64());
    load.start(lab, &consumer, &path)?;
    load.wait_for_progress(lab, &consumer, 50, secs(60))?;

    let (guest, length) = (lab.guest(&target)?, log_length(lab.guest(&target)?)?);
    let daemon = lab.guest(&consumer)?.daemon().context("the consumer's daemon runs")?;
    lab.guest(&consumer)?.kill(daemon, STOP)?;
    let outcome = closed_by_itself(lab, guest, &leg, nqn, damage);
    lab.guest(&consumer)?.kill(daemon, CONT)?;
    outcome?;
    told_of(guest, length, nqn)?;

    wait_for("a new grant of the leg", secs(60), || {
        let seen = lab.control.api.get(&leg)?;
        let new = seen["status"]["export"]["grant"].as_i64();
        Ok(when(new > grant, seen["status"].to_string()))
    })?;
    volume.wait_whole(2)?;
    load.wait_for_progress(lab, &consumer, 20, secs(60))?;
    load.stop(lab, &consumer)?;
    volume.detach()?;
    let path = volume.attach(&target, true)?;
    load.verify(lab, &consumer, &target, &path)?;
    volume.detach()?;
    volume.delete()
}

/// Damages the export and waits until nothing is left of it and the leg says so.
fn closed_by_itself(lab: &Lab, guest: &Guest, leg: &str, nqn: &str, damage: &str) -> Result<()> {
    guest.shell(&format!("nqn={nqn}; {damage}"))?;
    let damaged = Instant::now();
    wait_for("the leg to say that its grant is spent", secs(20), || {
        let seen = lab.control.api.get(leg)?;
        let spent = seen["status"]["export"].is_null() && condition(&seen, "Ready")["reason"] == "LegMissing";
        Ok(when(spent, seen["status"].to_string()))
    })?;
    say!("the export was closed and its grant spent {:.1} s after it was damaged", damaged.elapsed().as_secs_f64());
    let subsystems = guest.shell("ls /sys/kernel/config/nvmet/subsystems")?;
    ensure!(!subsystems.lines().any(|line| line == nqn), "the subsystem is still there");
    Ok(())
}

/// What a rule of udev does, or a person: the leg of volume `$v`, alone, as an array that nobody asked for, and somebody uses it.
const STEAL: &str = r#"
for p in /sys/class/block/ubd*/partition; do
  dir=${p%/partition}; dev=/dev/${dir##*/}
  mdadm --examine $dev 2>/dev/null | grep -q "Name : meshstor:$v *" && break
done
mdadm --assemble /dev/md177 --run --config=none $dev 2>&1
sleep 1000 < /dev/md177 > /dev/null 2>&1 &
echo $! > /run/thief
grep -q '^md177 : active' /proc/mdstat
"#;

/// I6, I7: a leg of a detached volume that somebody assembles is reported with what to do, nothing is erased, and the array is
/// stopped as soon as nobody uses it. The daemon is stopped while it happens, for else it would be undone before it is used.
fn foreign_assembly(lab: &mut Lab) -> Result<()> {
    let load = Load::new("stolen", 1024);
    let (volume, consumer, victim, path) = attached(lab, "stolen")?;
    load.write(lab, &consumer, &path, 50)?;
    volume.detach()?;
    let (leg, guest) = (ours("meshreplicas", &volume.leg_on(&victim)?), lab.guest(&victim)?);
    let length = log_length(guest)?;
    let daemon = guest.daemon().context("the daemon runs")?;
    guest.kill(daemon, STOP)?;
    let stolen = guest.shell(&format!("v={}; {STEAL}", volume.name));
    guest.kill(daemon, CONT)?;
    stolen.context("assemble the leg by hand")?;
    let reported = wait_for("the leg to say what holds it", secs(20), || {
        let seen = lab.control.api.get(&leg)?;
        let said = condition(&seen, "Stalled");
        let told = said["status"] == "True" && said["reason"] == "ForeignAssembly";
        Ok(if told { Look::Done(said.clone()) } else { Look::NotYet(seen["status"].to_string()) })
    });
    guest.shell("kill $(cat /run/thief)")?;
    let message = reported?["message"].as_str().unwrap_or_default().to_owned();
    ensure!(message.contains("/dev/md177") && message.contains("mdadm --stop"), "no remedy in {message:?}");
    told_of(guest, length, "md177")?;
    wait_for("the array to be stopped and the leg to be well", secs(40), || {
        let (mdstat, seen) = (guest.shell("cat /proc/mdstat")?, lab.control.api.get(&leg)?);
        let well = !mdstat.contains("md177") && is_true(&seen, "Ready") && !is_true(&seen, "Stalled");
        Ok(when(well, format!("{mdstat} {}", seen["status"])))
    })?;
    let path = volume.attach(&consumer, true)?;
    load.verify(lab, &consumer, &consumer, &path)?;
    volume.wait_whole(2)?;
    volume.detach()?;
    volume.delete()
}

/// I1: a connection that somebody deletes under an idle volume is told of, and its leg recorded away and brought back.
fn disconnected(lab: &mut Lab) -> Result<()> {
    let load = Load::new("cut-off", 1024);
    let (volume, consumer, target, path) = attached(lab, "cut-off")?;
    load.write(lab, &consumer, &path, 50)?;
    let leg = volume.leg_on(&target)?;
    let export = lab.control.api.get(&ours("meshreplicas", &leg))?["status"]["export"].clone();
    let nqn = export["nqn"].as_str().context("an export has an NQN")?;
    let guest = lab.guest(&consumer)?;
    let find = format!("basename $(dirname $(grep -lx {nqn} /sys/class/nvme/*/subsysnqn))");
    let (controller, length) = (guest.shell(&find)?, log_length(guest)?);
    guest.shell(&format!("nvme disconnect -n {nqn}"))?;
    told_of(guest, length, controller.trim())?;
    wait_for("the leg to be recorded away", secs(20), || {
        let log = logged_since(guest, length)?;
        let lost = log.lines().any(|l| l.contains("record") && l.contains(&leg));
        Ok(when(lost, log.lines().rev().take(3).collect::<Vec<_>>().join(" | ")))
    })?;
    volume.wait("to have a new export of the leg", secs(60), |_| {
        let seen = lab.control.api.get(&ours("meshreplicas", &leg)).unwrap_or_default();
        seen["status"]["export"]["grant"].as_i64() > export["grant"].as_i64()
    })?;
    volume.wait_whole(2)?;
    volume.detach()?;
    let path = volume.attach(&target, true)?;
    load.verify(lab, &consumer, &target, &path)?;
    volume.detach()?;
    volume.delete()
}

/// I4: a mount that somebody takes away is there again, for the attachment asks for it.
fn unmounted(lab: &mut Lab) -> Result<()> {
    let load = Load::new("away", 1024);
    let (volume, consumer, _, path) = attached(lab, "away")?;
    load.write(lab, &consumer, &path, 20)?;
    let (guest, length) = (lab.guest(&consumer)?, log_length(lab.guest(&consumer)?)?);
    let mounts = || -> Result<usize> {
        let mounts = guest.shell("cat /proc/mounts")?;
        Ok(mounts.lines().filter(|line| line.contains(&format!(" {path} ext4 "))).count())
    };
    ensure!(mounts()? == 1, "it is not mounted to begin with");
    guest.shell(&format!("umount {path}"))?;
    wait_for("the mount to come back", secs(20), || {
        let found = mounts()?;
        Ok(when(found == 1, format!("{found} mounts")))
    })?;
    told_of(guest, length, "md")?;
    load.verify(lab, &consumer, &consumer, &path)?;
    volume.detach()?;
    volume.delete()
}

/// I4: our own changes are looked at once and then rest; a volume that serves writes is no news to anybody.
fn at_work(lab: &mut Lab) -> Result<()> {
    let load = Load::new("at-work", 1024);
    let (volume, consumer, _, path) = attached(lab, "at-work")?;
    load.start(lab, &consumer, &path)?;
    load.wait_for_progress(lab, &consumer, 20, secs(60))?;
    let lengths = || lab.guests().iter().map(log_length).collect::<Result<Vec<_>>>();
    let mut before = lengths()?;
    wait_for("the daemons to come to rest", secs(60), || {
        let now = lengths()?;
        let rested = holds_for("silence", secs(3), || Ok(when(lengths()? == now, "a word"))).is_ok();
        before = now;
        Ok(when(rested, "a daemon still logs"))
    })?;
    let flushed = load.journal(lab, &consumer)?.flushed();
    holds_for("the daemons' silence", secs(8), || {
        let guests = lab.guests().iter().zip(&before);
        let said: Vec<String> = guests.map(|(guest, &length)| logged_since(guest, length)).collect::<Result<_>>()?;
        Ok(when(said.iter().all(String::is_empty), said.concat()))
    })?;
    ensure!(load.journal(lab, &consumer)?.flushed() > flushed, "nothing was written meanwhile");
    load.stop(lab, &consumer)?;
    volume.detach()?;
    volume.delete()
}
