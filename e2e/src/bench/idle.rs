//! What a daemon takes that has nothing to do.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Row;
use crate::guest::Guest;
use crate::lab::Lab;
use crate::say;
use crate::volume::Volume;
use crate::wait::{pause, secs};

const VOLUMES: usize = 10;
const SECONDS: u64 = 60;
/// For everything that an attach leaves behind to come to rest, such as the ends of threads and of lazy initialisations.
const SETTLE: u64 = 60;
/// Ticks of /proc/<pid>/stat a second; a constant of Linux's ABI.
const TICKS: f64 = 100.0;

struct Sample {
    cpu: f64,
    rss: f64,
    /// By thread.
    switches: BTreeMap<String, f64>,
}

impl Sample {
    /// Switches of all threads since `before`; of threads that have ended since, none.
    fn switches_since(&self, before: &Self) -> f64 {
        self.switches.iter().map(|(thread, n)| n - before.switches.get(thread).unwrap_or(&0.0)).sum()
    }
}

/// The daemon that takes most, of a node on which ten volumes are attached and of those with their legs.
pub(super) fn rows(lab: &Lab) -> Result<Vec<Row>> {
    let consumer = lab.nodes().into_iter().next().context("the lab has nodes")?;
    let names: Vec<String> = (0..VOLUMES).map(|n| format!("idle-{n}")).collect();
    let spec = json!({ "capacity": "64Mi", "replicaCount": 2, "filesystem": "ext4" });
    for name in &names {
        Volume::create(lab, name, &spec)?.attach(&consumer, true)?;
    }
    say!("{VOLUMES} volumes are attached on {consumer}; {SETTLE} s to come to rest, then {SECONDS} s of nothing");
    pause(secs(SETTLE));
    let samples = || lab.guests().iter().map(sample).collect::<Result<Vec<_>>>();
    let (before, writes_before) = (samples()?, writes(lab)?);
    pause(secs(SECONDS));
    let (after, writes_after) = (samples()?, writes(lab)?);
    for name in &names {
        let volume = Volume::named(lab, name);
        volume.detach()?;
        volume.delete()?;
    }
    let most =
        |of: &dyn Fn(&Sample, &Sample) -> f64| before.iter().zip(&after).map(|(b, a)| of(b, a)).fold(0.0, f64::max);
    for write in &writes_after[writes_before.len().min(writes_after.len())..] {
        say!("a write while idle: {write}");
    }
    Ok(vec![
        Row::of_one("idle-cpu", "CPU s in 60 s", "< 0.05", most(&|b, a| a.cpu - b.cpu)),
        Row::of_one("idle-rss", "MiB", "< 20", most(&|_, a| a.rss)),
        Row::of_one(
            "idle-api-writes",
            "writes but heartbeats in 60 s",
            "0",
            (writes_after.len() - writes_before.len()) as f64,
        ),
        Row::of_one("idle-wakeups", "context switches in 60 s", "none given", most(&|b, a| a.switches_since(b))),
    ])
}

/// CPU seconds that a guest's daemon has taken so far.
pub(super) fn cpu(guest: &Guest) -> Result<f64> {
    Ok(sample(guest)?.cpu)
}

fn sample(guest: &Guest) -> Result<Sample> {
    let pid = guest.daemon().context("the daemon runs")?;
    let script = format!(
        "cut -d ' ' -f 14,15 /proc/{pid}/stat; awk '/^VmRSS/ {{ print $2 }}' /proc/{pid}/status; \
         for t in /proc/{pid}/task/*; do echo \"${{t##*/}} $(awk '/ctxt_switches/ {{ n += $2 }} END {{ print n }}' $t/status)\"; done"
    );
    let printed = guest.shell(&script)?;
    let words: Vec<&str> = printed.split_whitespace().collect();
    let [user, system, rss, threads @ ..] = &words[..] else {
        anyhow::bail!("three numbers and threads, but {printed:?}")
    };
    let switches =
        threads.chunks(2).filter_map(|t| Some(((*t.first()?).to_owned(), t.get(1)?.parse().ok()?))).collect();
    let number = |word: &str| word.parse::<f64>().with_context(|| format!("a number, but {word:?}"));
    Ok(Sample { cpu: (number(user)? + number(system)?) / TICKS, rss: number(rss)? / 1024.0, switches })
}

/// Every accepted change of our objects so far but the heartbeats of nodes, as the audit log has it.
fn writes(lab: &Lab) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(&lab.control.audit)?;
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mine = events.filter(|event| event["objectRef"]["resource"] != "meshnodes");
    Ok(mine
        .map(|event| {
            let object = &event["objectRef"];
            format!("{} {} {} by {}", event["verb"], object["resource"], object["name"], event["user"]["username"])
        })
        .collect())
}
