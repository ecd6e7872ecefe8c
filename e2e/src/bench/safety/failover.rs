//! How long a volume is away when its consumer dies: from the word that the node is out of service to the mount elsewhere.

use std::time::SystemTime;

use anyhow::Result;
use serde_json::{Value, json};

use super::Scene;
use crate::bench::Row;
use crate::lab::Lab;
use crate::say;
use crate::steps::Move;
use crate::timeline::seconds;
use crate::wait::{pause, secs};

const RUNS: usize = 5;
const NAME: &str = "failover";
const AIM: &str = "≤ 5";
/// What follows what, in the order of [`Move::all`].
const STEPS: [&str; 4] = ["revoking", "started", "claimed", "mounted"];
/// Seconds for which the node is dead before somebody says so.
const DEAD: u64 = 3;

pub(super) fn rows(lab: &mut Lab) -> Result<Vec<Row>> {
    let mut splits = Vec::new();
    for run in 1..=RUNS {
        let split = fail_over(lab, &format!("{NAME}-{run}"))?;
        let [revoking, started, claimed, mounted] = split;
        say!(
            "{NAME} {run}/{RUNS}: revoking {revoking:.2} s, started {started:.2} s, claimed {claimed:.2} s, mounted {mounted:.2} s"
        );
        splits.push(split);
    }
    Ok(super::split(NAME, AIM, STEPS, &splits))
}

/// One run; gives the seconds that each step took. No flushed write may be missing.
fn fail_over(lab: &mut Lab, name: &str) -> Result<[f64; 4]> {
    let scene = Scene::new(lab, name)?;
    lab.guest_mut(&scene.consumer)?.cut_power()?;
    let volume = scene.volume(lab);
    volume.want_on(&scene.other, true)?;
    pause(secs(DEAD));
    let decided = SystemTime::now();
    taint(lab, &scene.consumer, true)?;
    let path = volume.wait_attached(&scene.other, true)?;
    scene.load.verify(lab, &scene.consumer, &scene.other, &path)?;
    let steps = Move::of(&lab.control.audit, name, decided)?.all();
    taint(lab, &scene.consumer, false)?;
    lab.power_on(&scene.consumer)?;
    scene.volume(lab).wait_whole(2)?;
    scene.end(lab)?;
    let before = [decided, steps[0], steps[1], steps[2]];
    Ok([0, 1, 2, 3].map(|at| seconds(before[at], steps[at])))
}

/// Says that a node is shut down for good, or takes that back: at once, without the time that `kubectl` takes to start.
fn taint(lab: &Lab, node: &str, out: bool) -> Result<()> {
    let taint = json!([{ "key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute" }]);
    let taints = if out { taint } else { Value::Null };
    lab.control.api.merge(&format!("/api/v1/nodes/{node}"), &json!({ "spec": { "taints": taints } })).map(drop)
}
