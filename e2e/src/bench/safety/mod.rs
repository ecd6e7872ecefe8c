//! The area `safety`: what it costs that no acknowledged write is lost, and what is lost where it is not paid.

mod failover;
mod lost;
mod rebuild;
mod returned;
mod stall;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde_json::json;

use super::{Report, Row};
use crate::lab::Lab;
use crate::load::Load;
use crate::volume::Volume;
use crate::wait::secs;

/// What can be measured alone.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// How long a writer waits when a target dies.
    StallTargetDies,
    /// How long a volume is away when its consumer dies.
    Failover,
    /// How much is copied to a leg that was away.
    ResyncedPerDirtied,
    /// What a rebuild does to those who use the volume.
    RebuildP99,
    /// Acknowledged writes that are lost, with our timers and with others'.
    LostWrites,
}

impl Part {
    fn rows(self, lab: &mut Lab) -> Result<Vec<Row>> {
        match self {
            Self::StallTargetDies => stall::rows(lab),
            Self::Failover => failover::rows(lab),
            Self::ResyncedPerDirtied => returned::rows(lab),
            Self::RebuildP99 => rebuild::rows(lab),
            Self::LostWrites => lost::rows(lab),
        }
    }
}

/// All rows, or those of one part, in a lab of three nodes.
pub fn run(lab: &mut Lab, part: Option<Part>) -> Result<Report> {
    let parts = part.map_or_else(|| Part::value_variants().to_vec(), |part| vec![part]);
    let mut report = Report::default();
    for part in parts {
        report.rows.extend(part.rows(lab)?);
    }
    Ok(report)
}

/// Rows of a time that splits into steps, from the steps of each run: the median, the worst, and the median of each step.
fn split(name: &str, aim: &'static str, steps: [&str; 4], runs: &[[f64; 4]]) -> Vec<Row> {
    let whole: Vec<f64> = runs.iter().map(|run| run.iter().sum()).collect();
    let worst = Row::worst_of_runs(&format!("{name}/worst"), "s", aim, &whole);
    let step = |at: usize| runs.iter().map(|run| run[at]).collect();
    let each = |(at, word): (usize, &&str)| Row::of_runs(&format!("{name}/{word}"), "s", "none given", step(at));
    let steps: Vec<Row> = steps.iter().enumerate().map(each).collect();
    [Row::of_runs(name, "s", aim, whole), worst].into_iter().chain(steps).collect()
}

/// A volume of two copies with a filesystem, attached on the node of its first, and the verifying writer on it.
struct Scene {
    name: String,
    consumer: String,
    /// Node of the other copy.
    target: String,
    /// A node without a copy.
    other: String,
    load: Load,
}

impl Scene {
    /// Makes it and lets the writer begin.
    fn new(lab: &Lab, name: &str) -> Result<Self> {
        let spec = json!({ "capacity": "128Mi", "replicaCount": 2, "filesystem": "ext4" });
        let volume = Volume::create(lab, name, &spec)?;
        let legs = volume.leg_nodes()?;
        let [consumer, target] = legs.as_slice() else { anyhow::bail!("two legs, but {legs:?}") };
        let other = lab.nodes().into_iter().find(|n| !legs.contains(n)).context("a node has no leg")?;
        let path = volume.attach(consumer, true)?;
        let load = Load::new(name, 2048);
        load.start(lab, consumer, &path)?;
        load.wait_for_progress(lab, consumer, 100, secs(60))?;
        Ok(Self { name: name.to_owned(), consumer: consumer.clone(), target: target.clone(), other, load })
    }

    fn volume<'a>(&self, lab: &'a Lab) -> Volume<'a> {
        Volume::named(lab, &self.name)
    }

    fn end(self, lab: &Lab) -> Result<()> {
        self.volume(lab).detach()?;
        self.volume(lab).delete()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_the_sum_of_its_steps() {
        let runs = [[2.0, 1.0, 0.0, 0.5], [3.0, 1.0, 0.25, 1.5], [2.5, 1.0, 0.0, 0.5]];
        let rows = split("stall", "≤ 5", ["a", "b", "c", "d"], &runs);
        let shown: Vec<(&str, f64)> = rows.iter().map(|row| (row.name.as_str(), row.ours)).collect();
        assert_eq!(shown[..3], [("stall", 4.0), ("stall/worst", 5.75), ("stall/a", 2.5)]);
        assert_eq!((shown.len(), rows[0].runs, rows[5].runs), (6, 3, 3));
    }
}
