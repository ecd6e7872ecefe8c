//! The area `api-writes-per-life`: what a volume's life costs the API server, counted from its audit log.

use anyhow::Result;
use serde_json::json;

use super::audit::{Purpose, Write, counted, writes};
use super::{Report, Row};
use crate::lab::Lab;
use crate::say;
use crate::volume::Volume;
use crate::wait::{pause, secs};

const NAME: &str = "life";
/// For the writes that follow when what was asked for is there already.
const SETTLE: u64 = 8;

/// Creates, attaches, detaches and deletes one volume of two copies, attached on the node of its first leg.
pub fn run(lab: &Lab) -> Result<Report> {
    let mut phases =
        Phases { lab, seen: writes(lab)?.len(), report: Report::default(), life: Vec::new(), aside: Vec::new() };
    let spec = json!({ "capacity": "512Mi", "replicaCount": 2, "filesystem": "xfs" });
    let volume = Volume::create(lab, NAME, &spec)?;
    phases.end("create")?;
    let consumer = volume.leg_nodes()?.into_iter().next().unwrap_or_default();
    volume.attach(&consumer, true)?;
    phases.end("attach")?;
    volume.detach()?;
    phases.end("detach")?;
    volume.delete()?;
    phases.end("delete")?;
    Ok(phases.total())
}

struct Phases<'a> {
    lab: &'a Lab,
    /// Writes of earlier phases.
    seen: usize,
    report: Report,
    /// Writes of the volume's life in all phases.
    life: Vec<Write>,
    aside: Vec<Write>,
}

impl Phases<'_> {
    /// Counts what was written since the last phase ended.
    fn end(&mut self, phase: &str) -> Result<()> {
        pause(secs(SETTLE));
        let all = writes(self.lab)?;
        let new = all[self.seen.min(all.len())..].to_vec();
        self.seen = all.len();
        let (life, aside): (Vec<Write>, Vec<Write>) = new.into_iter().partition(|w| w.purpose == Purpose::Volume);
        say!("{phase}: {} writes", life.len());
        self.report.rows.push(row(&format!("api-writes-{phase}"), life.iter().filter(|w| w.accepted())));
        self.report.list.extend(counted(life.iter()).into_iter().map(|line| format!("{phase}: {line}")));
        self.life.extend(life);
        self.aside.extend(aside);
        Ok(())
    }

    fn total(mut self) -> Report {
        let rows = &mut self.report.rows;
        rows.push(row("api-writes-per-life", self.life.iter().filter(|w| w.accepted())));
        rows.push(row("api-writes-refused", self.life.iter().filter(|w| !w.accepted())));
        for (name, purpose) in [
            ("api-writes-aside-meshnodes", Purpose::Node),
            ("api-writes-aside-events", Purpose::Event),
            ("api-writes-aside-leases", Purpose::Lease),
            ("api-writes-aside-others", Purpose::Other),
        ] {
            rows.push(row(name, self.aside.iter().filter(|w| w.purpose == purpose)));
        }
        self.report.list.extend(counted(self.aside.iter()).into_iter().map(|line| format!("aside: {line}")));
        self.report
    }
}

fn row<'a>(name: &str, writes: impl Iterator<Item = &'a Write>) -> Row {
    Row::of_one(name, "writes", "none given", writes.count() as f64)
}
