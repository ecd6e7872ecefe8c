//! How long things take that are safe because they take their time, step by step, each step from its own witness: the audit log, the
//! poller in the guest, the writer's journal.

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::lab::Lab;
use crate::load::Load;
use crate::timeline::{Change, Clock, RecordWrite, changes, record_writes};
use crate::writer::{Flush, Journal};

/// The loss of a leg that a running array had, on the machine's clock. The poller must run on the consumer.
#[derive(Clone, Debug)]
pub struct LegLoss {
    /// Keep-alive has expired: the consumer's kernel knows that the connection is lost.
    pub connecting: Change,
    /// The leg is recorded away.
    pub record: RecordWrite,
    /// The controller is deleted.
    pub deleted: Change,
    /// The member has failed in the array.
    pub failed: Change,
    /// The flush that took longest: the write that was held.
    pub held: Flush,
}

impl LegLoss {
    /// The loss of `leg` after `cut`, of the volume that `load` writes to on `consumer`.
    ///
    /// # Errors
    /// One of the steps was not witnessed.
    pub fn of(lab: &Lab, load: &Load, consumer: &str, leg: &str, cut: SystemTime) -> Result<Self> {
        let mut writes = record_writes(&lab.control.audit, load.name())?.into_iter().filter(|write| write.at > cut);
        let record = writes.find(|write| lacks(&write.term, leg)).context("the audit log has the smaller record")?;
        let clock = Clock::of(lab.guest(consumer)?)?;
        let seen: Vec<Change> = changes(lab.guest(consumer)?)?.into_iter().map(|change| clock.change(change)).collect();
        let flushes = load.journal(lab, consumer)?.flushes.into_iter().map(|flush| clock.flush(flush)).collect();
        let journal = Journal { flushes, ..Journal::default() };
        let first = |part: &str, is: &dyn Fn(&str) -> bool| {
            let change = seen.iter().find(|c| c.by > cut && c.path.contains(part) && is(&c.new)).cloned();
            change.with_context(|| format!("the poller saw what became of {part}"))
        };
        Ok(Self {
            connecting: first("/nvme/", &|new| new == "connecting")?,
            record,
            deleted: first("/nvme/", &|new| new.starts_with("deleting") || new == "-")?,
            failed: first("/md/dev-", &|new| new.contains("faulty") || new == "-")?,
            held: journal.longest_since(cut).context("the writer flushed")?,
        })
    }
}

/// Whether a record does not have a leg in `inSync`.
pub fn lacks(term: &Value, leg: &str) -> bool {
    term["inSync"].as_array().is_some_and(|legs| legs.iter().all(|l| l != leg))
}

/// A volume's way to another consumer, by the writes of its record.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    /// The operator has begun the new epoch.
    pub revoking: SystemTime,
    /// Every leg that is used has confirmed, and the operator has said which those are.
    pub started: SystemTime,
    /// The new consumer has claimed the assembly.
    pub claimed: SystemTime,
    /// It has reported the mount.
    pub mounted: SystemTime,
}

impl Move {
    /// The first move of `volume` after `from`.
    ///
    /// # Errors
    /// One of the steps is not in the audit log.
    pub fn of(audit: &Path, volume: &str, from: SystemTime) -> Result<Self> {
        let mut writes = record_writes(audit, volume)?;
        let begun = writes.iter().find(|w| w.at > from && w.term["phase"] == "Revoking");
        let epoch = begun.context("a new epoch began")?.term["epoch"].clone();
        writes.retain(|w| w.at > from && w.term["epoch"] == epoch);
        let first = |what: &str, is: &dyn Fn(&RecordWrite) -> bool| {
            writes.iter().find(|w| is(w)).map(|w| w.at).with_context(|| format!("epoch {epoch} of {volume} was {what}"))
        };
        let phase = |phase: &str| first(phase, &|w| w.term["phase"] == phase);
        let (revoking, started, claimed) = (phase("Revoking")?, phase("Started")?, phase("Running")?);
        let mounted =
            first("mounted", &|w| w.status["array"]["epoch"] == epoch && w.status["array"]["mountPath"].is_string())?;
        Ok(Self { revoking, started, claimed, mounted })
    }

    /// All steps in the order in which they must come.
    pub fn all(&self) -> [SystemTime; 4] {
        [self.revoking, self.started, self.claimed, self.mounted]
    }
}
