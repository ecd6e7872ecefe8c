//! The area `operator-300`: the real operator and a real API server with 300 volumes on 30 nodes, whose daemons are simulated.

use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::audit::{Purpose, Write, counted, writes};
use super::simulated::Daemons;
use super::{Report, Row};
use crate::api::{all, is_true, ours};
use crate::lab::Lab;
use crate::say;
use crate::wait::{Look, pause, secs, wait_for};

const VOLUMES: usize = 300;
const NODES: usize = 30;
/// How long nothing is done at the end.
const IDLE: u64 = 60;
/// For the writes that follow when everything is there already.
const SETTLE: u64 = 10;
/// Ticks of /proc/<pid>/stat a second; a constant of Linux's ABI.
const TICKS: f64 = 100.0;

/// Makes the volumes at once, then wants each on the node of its first leg, then does nothing.
pub fn run(lab: &Lab) -> Result<Report> {
    let _daemons = Daemons::start(&lab.control.admin, NODES)?;
    wait_for("the simulated nodes", secs(60), || {
        let nodes = lab.control.api.list(&all("meshnodes"))?;
        Ok(seen(nodes.iter().filter(|node| is_true(node, "Ready")).count(), NODES))
    })?;
    let rss_before = resident(lab)?.0;
    let mut report = Report::default();
    let placed = phase(lab, &mut report, "ready", make)?;
    let attached = phase(lab, &mut report, "attached", attach)?;
    let (rss, peak) = resident(lab)?;
    let cpu = cpu(lab)?;
    let before = writes(lab)?.len();
    pause(secs(IDLE));
    let idle =
        writes(lab)?[before..].iter().filter(|write| write.by_operator() && write.purpose == Purpose::Volume).count();
    let one = |name: &str, unit, value| Row::of_one(&format!("operator-300-{name}"), unit, "none given", value);
    report.rows.extend([
        one("api-writes", "writes by the operator, all", (placed + attached) as f64),
        one("api-writes-idle", "writes by the operator in 60 s of nothing", idle as f64),
        one("rss-without", "MiB without volumes", rss_before),
        one("rss", "MiB", rss),
        one("rss-peak", "MiB", peak),
        one("cpu", "CPU s from its start until all are attached", cpu),
        one("cpu-idle", "CPU s in 60 s of nothing", self::cpu(lab)? - cpu),
    ]);
    Ok(report)
}

/// Does one thing with all volumes until they are as wanted; adds its rows, and gives the number of the operator's writes.
fn phase(lab: &Lab, report: &mut Report, name: &str, act: fn(&Lab) -> Result<()>) -> Result<usize> {
    let before = writes(lab)?.len();
    let began = Instant::now();
    act(lab)?;
    let seconds = began.elapsed().as_secs_f64();
    pause(secs(SETTLE));
    let all = writes(lab)?;
    let mine: Vec<&Write> = all[before..].iter().filter(|write| write.by_operator()).collect();
    let accepted = mine.iter().filter(|w| w.purpose == Purpose::Volume && w.accepted()).count();
    let refused = mine.iter().filter(|w| !w.accepted()).count();
    let others = all[before..].iter().filter(|write| !write.by_operator() && write.purpose == Purpose::Volume);
    say!("{VOLUMES} volumes are {name} after {seconds:.1} s");
    let row = |what: &str, unit, value| Row::of_one(&format!("operator-300-{name}{what}"), unit, "none given", value);
    report.rows.extend([
        row("", "s until all volumes are", seconds),
        row("-api-writes", "writes by the operator", accepted as f64),
        row("-api-writes-refused", "refused writes by the operator", refused as f64),
        row("-api-writes-others", "writes by the daemons and the harness", others.count() as f64),
    ]);
    // One line for all volumes: the names of objects do not matter here.
    let nameless: Vec<Write> = mine.into_iter().map(|write| Write { name: String::new(), ..write.clone() }).collect();
    report.list.extend(counted(nameless.iter()).into_iter().map(|line| format!("{name}: {line}")));
    Ok(accepted)
}

fn name(n: usize) -> String {
    format!("v{n:03}")
}

fn make(lab: &Lab) -> Result<()> {
    let spec = json!({ "capacity": "10Gi", "replicaCount": 2, "filesystem": "xfs" });
    for n in 0..VOLUMES {
        let volume = json!({ "apiVersion": "meshstor.io/v1alpha1", "kind": "MeshVolume", "metadata": { "name": name(n) }, "spec": spec });
        lab.control.api.create(&all("meshvolumes"), &volume)?;
    }
    wait_all(lab, |volume| is_true(volume, "Ready"))
}

fn attach(lab: &Lab) -> Result<()> {
    for volume in lab.control.api.list(&all("meshvolumes"))? {
        let name = volume["metadata"]["name"].as_str().context("a volume has a name")?;
        let node = &volume["status"]["legs"][0]["node"];
        lab.control.api.merge(&ours("meshattachments", name), &json!({ "spec": { "node": node } }))?;
    }
    wait_all(lab, |volume| {
        is_true(volume, "Ready") && volume["status"]["consumer"] == volume["status"]["legs"][0]["node"]
    })
}

fn wait_all(lab: &Lab, done: impl Fn(&Value) -> bool) -> Result<()> {
    wait_for("all volumes", secs(400), || {
        // What a look at 300 objects costs is part of what is measured: not too often.
        pause(secs(1));
        let volumes = lab.control.api.list(&all("meshvolumes"))?;
        Ok(seen(volumes.iter().filter(|volume| done(volume)).count(), VOLUMES))
    })
}

fn seen(count: usize, all: usize) -> Look<()> {
    if count == all { Look::Done(()) } else { Look::NotYet(format!("{count} of {all}")) }
}

/// Resident memory of the operator now and at its peak, MiB.
fn resident(lab: &Lab) -> Result<(f64, f64)> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", lab.operator()?.id()))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim_start_matches(':').trim().split(' ').next()?.parse::<f64>().ok());
        kib.map(|kib| kib / 1024.0).with_context(|| format!("{name} of the operator"))
    };
    Ok((field("VmRSS")?, field("VmHWM")?))
}

/// CPU seconds of the operator so far.
fn cpu(lab: &Lab) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", lab.operator()?.id()))?;
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks: Option<f64> = fields.get(11..13).map(|n| n.iter().filter_map(|n| n.parse::<f64>().ok()).sum());
    Ok(ticks.context("the operator's CPU time")? / TICKS)
}
