//! How long a writer waits when a target dies, and for what.

use std::time::SystemTime;

use anyhow::Result;

use super::Scene;
use crate::bench::Row;
use crate::lab::Lab;
use crate::say;
use crate::steps::{LegLoss, lacks};
use crate::timeline::{self, seconds};
use crate::wait::secs;

const RUNS: usize = 7;
const NAME: &str = "stall-target-dies";
const AIM: &str = "≤ 5";
/// What follows what, in the order of [`split`].
const STEPS: [&str; 4] = ["keep-alive", "record", "delete", "md"];

pub(super) fn rows(lab: &mut Lab) -> Result<Vec<Row>> {
    let scene = Scene::new(lab, "stall")?;
    let poller = timeline::watch(lab.guest(&scene.consumer)?)?;
    let mut splits = Vec::new();
    for run in 1..=RUNS {
        let split = lose(lab, &scene)?;
        let [keep_alive, record, delete, md] = split;
        say!(
            "{NAME} {run}/{RUNS}: lost {keep_alive:.2} s, recorded {record:.2} s, deleted {delete:.2} s, released {md:.2} s"
        );
        splits.push(split);
    }
    lab.guest(&scene.consumer)?.kill(poller, 9)?;
    scene.load.stop(lab, &scene.consumer)?;
    let volume = scene.volume(lab);
    volume.detach()?;
    let path = volume.attach(&scene.target, true)?;
    scene.load.verify(lab, &scene.consumer, &scene.target, &path)?;
    scene.end(lab)?;
    Ok(super::split(NAME, AIM, STEPS, &splits))
}

/// One run: the target loses its power, the writer goes on, the target is back and whole.
fn lose(lab: &mut Lab, scene: &Scene) -> Result<[f64; 4]> {
    let leg = scene.volume(lab).leg_on(&scene.target)?;
    lab.guest_mut(&scene.target)?.cut_power()?;
    let cut = SystemTime::now();
    let away = |at: &serde_json::Value| lacks(&at["status"]["term"], &leg);
    scene.volume(lab).wait_attachment("to have recorded the leg away", secs(60), away)?;
    scene.load.wait_for_progress(lab, &scene.consumer, 50, secs(60))?;
    let loss = LegLoss::of(lab, &scene.load, &scene.consumer, &leg, cut)?;
    lab.power_on(&scene.target)?;
    scene.volume(lab).wait_whole(2)?;
    scene.load.wait_for_progress(lab, &scene.consumer, 50, secs(60))?;
    Ok(split(&loss))
}

/// Seconds from the held write's issue until the connection is lost, until that is recorded, until the controller is deleted, and
/// until the write is acknowledged.
fn split(loss: &LegLoss) -> [f64; 4] {
    let times = [loss.held.began, loss.connecting.by, loss.record.at, loss.deleted.by, loss.held.ended];
    [0, 1, 2, 3].map(|at| seconds(times[at], times[at + 1]))
}
