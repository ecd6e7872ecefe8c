//! Legs that were away come back by the bitmap: how much is copied, and that nothing of what was written meanwhile, on either side,
//! is overlooked.

use anyhow::{Context as _, Result, ensure};
use meshstor_e2e::api::{is_true, ours};
use meshstor_e2e::bed::{Bed, DATA};
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::say;
use meshstor_e2e::wait::{Look, holds_for, secs, wait_for, when};
use serde_json::Value;

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("leg_back_by_the_bitmap_is_copied_to_what_it_lacks", incremental),
    ("leg_back_by_the_bitmap_loses_what_it_wrote_alone", diverged),
    ("leg_back_by_the_bitmap_is_lost_again_meanwhile", interrupted),
    ("leg_that_fails_again_and_again_is_not_welcomed_back", failing),
];

/// I1, I6, rule 7: after an outage of a target under load its leg is copied to what it lacks and little more, and then holds every
/// acknowledged write by itself.
fn incremental(lab: &mut Lab) -> Result<()> {
    let bed = Bed::new(lab, "back", 1024)?;
    let load = Load::new("back", 2048);
    load.start(lab, &bed.consumer, &bed.device)?;
    load.wait_for_progress(lab, &bed.consumer, 100, secs(60))?;
    bed.lose(lab)?;
    load.wait_for_progress(lab, &bed.consumer, 100, secs(60))?;
    load.stop(lab, &bed.consumer)?;
    let dirtied = bed.marked(lab)?;
    ensure!((8 << 20..=16 << 20).contains(&dirtied), "{dirtied} bytes are marked: the load wrote to 8 MiB");

    lab.power_on(&bed.target)?;
    bed.volume(lab).wait_whole(2)?;
    let copied = bed.written(lab)?;
    say!("resynced {copied} bytes, dirtied {dirtied}: {:.2}", copied as f64 / dirtied as f64);
    ensure!(copied >= dirtied / 2, "next to nothing was copied: the leg was believed");
    ensure!(copied as f64 <= 1.2 * dirtied as f64, "{copied} bytes were copied for {dirtied} that were dirtied");
    let term = bed.volume(lab).attachment()?["status"]["term"].clone();
    ensure!(term["bitmapUsable"].as_array().is_some_and(Vec::is_empty), "a leg in sync is named still: {term}");
    let returns = bed.returns(lab)?;
    ensure!(returns[0] >= 1 && returns[1] == 0, "it came back otherwise: {returns:?}");
    bed.verify_alone(lab, &load)
}

/// I6, rule 7 [19]: what a leg wrote while it was away is marked in its own bitmap alone; it is gone when the leg is back.
fn diverged(lab: &mut Lab) -> Result<()> {
    /// Where the leg writes alone, and how much, in MiB: nobody else ever writes there.
    const ALONE: (u64, u64) = (512, 4);
    let bed = Bed::new(lab, "diverged", 1024)?;
    let load = Load::new("diverged", 2048);
    load.write(lab, &bed.consumer, &bed.device, 40)?;
    bed.lose(lab)?;
    load.write(lab, &bed.consumer, &bed.device, 40)?;

    // Its node is back, and somebody is there before its daemon.
    let guest = lab.guest_mut(&bed.target)?;
    guest.power_on()?;
    guest.wait_until_up()?;
    let (at, count) = ALONE;
    guest.shell(&format!(
        "set -e
        mdadm --assemble --run --quiet --config=none /dev/md9 /dev/{0} || [ -b /dev/md9 ]
        yes stale | dd of=/dev/md9 bs=1M seek={at} count={count} iflag=fullblock oflag=direct conv=fsync status=none
        mdadm --stop --quiet /dev/md9",
        bed.partition
    ))?;
    let there = |lab: &Lab| {
        let skip = DATA + at;
        let read = format!(
            "dd if=/dev/{} of=/tmp/alone bs=1M skip={skip} count={count} iflag=direct status=none",
            bed.partition
        );
        // 1 is "none"; a read that fails is an error.
        lab.guest(&bed.target)?.shell(&format!("{read} && {{ grep -c stale /tmp/alone; test $? -le 1; }}"))
    };
    let before = there(lab)?.trim().parse::<u64>()?;
    ensure!(before > 1000, "the leg wrote nothing by itself: the fault did not fire");

    lab.start_daemon(&bed.target)?;
    bed.volume(lab).wait_whole(2)?;
    let returns = bed.returns(lab)?;
    ensure!(returns[0] >= 1 && returns[1] == 0, "it came back otherwise: {returns:?}");
    let after = there(lab)?.trim().parse::<u64>()?;
    ensure!(after == 0, "{after} of {before} lines that the leg wrote alone are still there");
    bed.verify_alone(lab, &load)
}

/// I1, I5, rule 7: while a leg is copied to, the consumer's daemon is killed and then the target dies again; it comes back once
/// more, and holds everything.
fn interrupted(lab: &mut Lab) -> Result<()> {
    let bed = Bed::new(lab, "again", 1024)?;
    let load = Load::new("again", 16_384);
    load.start(lab, &bed.consumer, &bed.device)?;
    load.wait_for_progress(lab, &bed.consumer, 20, secs(60))?;
    bed.lose(lab)?;
    load.wait_for_progress(lab, &bed.consumer, 100, secs(60))?;
    let limit = "/proc/sys/dev/raid/speed_limit_max";
    lab.guest(&bed.consumer)?.shell(&format!("echo 2000 > {limit}; echo 1000 > /proc/sys/dev/raid/speed_limit_min"))?;
    lab.power_on(&bed.target)?;
    let copying = |lab: &Lab| {
        let array = bed.array().to_owned();
        wait_for("the leg to be copied to", secs(90), || {
            let script =
                format!("cd /sys/block/{array}/md && echo $(cat sync_action) $(cat sync_completed) $(cat degraded)");
            let said = lab.guest(&bed.consumer)?.shell(&script)?;
            let under_way = said.starts_with("recover") && !said.contains("none") && !said.contains("delayed");
            Ok(if under_way { Look::Done(said) } else { Look::NotYet(said) })
        })
    };
    say!("copying: {}", copying(lab)?.trim());
    lab.guest(&bed.consumer)?.kill_daemon()?;
    lab.start_daemon(&bed.consumer)?;
    say!("killed; copying: {}", copying(lab)?.trim());
    bed.lose(lab)?;
    load.wait_for_progress(lab, &bed.consumer, 20, secs(60))?;
    load.stop(lab, &bed.consumer)?;
    lab.guest(&bed.consumer)?.shell(&format!("echo 200000 > {limit}"))?;
    lab.power_on(&bed.target)?;
    bed.volume(lab).wait_whole(2)?;
    let returns = bed.returns(lab)?;
    say!("by the bitmap, in full: {returns:?}");
    ensure!(returns[1] == 0, "it came back otherwise: {returns:?}");
    bed.verify_alone(lab, &load)
}

/// A leg that MD drops for the third time within an hour is said to fail and is not taken back: another takes its place.
fn failing(lab: &mut Lab) -> Result<()> {
    let bed = Bed::new(lab, "fails", 1024)?;
    let load = Load::new("fails", 512);
    let replica = ours("meshreplicas", &bed.leg);
    let fails = |lab: &Lab| -> Result<bool> { Ok(is_true(&lab.control.api.get(&replica)?, "Failing")) };
    let outside =
        |at: &Value| !at["status"]["term"]["inSync"].as_array().is_some_and(|s| s.iter().any(|l| *l == *bed.leg));
    for round in 1..=3 {
        load.write(lab, &bed.consumer, &bed.device, 10)?;
        ensure!(!fails(lab)?, "it fails after {} errors already", round - 1);
        let array = bed.array();
        let state = format!("/sys/block/{array}/md/dev-{}/state", bed.member(lab, "nvme")?);
        lab.guest(&bed.consumer)?.shell(&format!("echo faulty > {state}"))?;
        bed.volume(lab).wait_attachment("to have recorded the leg away", secs(30), outside)?;
        if round < 3 {
            bed.volume(lab).wait_attachment("to have the leg in sync again", secs(60), |at| !outside(at))?;
        }
    }
    wait_for("the leg to be said to fail", secs(30), || Ok(when(fails(lab)?, "not yet")))?;
    load.write(lab, &bed.consumer, &bed.device, 10)?;
    holds_for("a failing leg's absence", secs(5), || {
        Ok(when(outside(&bed.volume(lab).attachment()?), "it is in sync"))
    })?;
    let (volume, heir) = (bed.volume(lab), format!("{}.1", bed.leg));
    let replaced = |v: &Value| {
        let legs = v["status"]["legs"].as_array().cloned().unwrap_or_default();
        let whole = legs.iter().any(|l| l["name"] == *heir && l["state"] == "InSync");
        whole && legs.iter().all(|l| l["name"] != *bed.leg)
    };
    volume.wait("to have another leg in its place", secs(240), replaced)?;
    volume.detach()?;
    let node = volume.leg_nodes()?.into_iter().find(|n| *n != bed.consumer).context("a leg is elsewhere")?;
    let path = volume.attach(&node, false)?;
    load.verify(lab, &bed.consumer, &node, &path)?;
    volume.detach()?;
    volume.delete()
}
