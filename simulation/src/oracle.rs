//! What must hold after every step, whatever happened: I1 by a log of writes, I2 and I6 by what reaches legs and what
//! arrays start from, I7 by what the statuses say.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::Resource as _;
use meshstor_crds::identity;
use meshstor_crds::{MeshAttachment, MeshReplica, Term, TermPhase, conditions};
use meshstor_node_daemon::host::fake::FakeFabric;
use meshstor_node_daemon::host::fake::io::{BLOCKS, IoEvent};
use uuid::Uuid;

use crate::api::State;

/// The log of one volume's writes.
#[derive(Default)]
pub(crate) struct Oracle {
    /// By block: the highest value that was ever written.
    issued: [u64; BLOCKS],
    /// By node: the highest that was acknowledged since its array was started. What was not flushed then may be gone.
    acked: BTreeMap<String, [u64; BLOCKS]>,
    /// The highest that was acknowledged before a flush that was acknowledged.
    floor: [u64; BLOCKS],
    /// What was acknowledged when each flush was sent.
    flushes: BTreeMap<u64, [u64; BLOCKS]>,
    /// By epoch: its arrays.
    assembled: BTreeMap<i64, u32>,
    /// By epoch: its consumer.
    nodes: BTreeMap<i64, String>,
    /// Legs whose drive gave MD an error that is not recorded yet.
    pub(crate) errored: Option<String>,
    legs: BTreeMap<String, (String, Uuid)>,
    seen: (usize, usize),
    /// Flushes that were acknowledged: proof that there was something to lose.
    pub(crate) flushed: u64,
}

fn term_of(attachment: &MeshAttachment) -> Option<&Term> {
    attachment.status.as_ref()?.term.as_ref()
}

/// The volume's `minInSync`.
fn least_of(state: &State) -> usize {
    let volume = state.volumes.objects.values().next();
    let least = volume.and_then(|v| v.status.as_ref()?.resolved.as_ref().map(|r| r.min_in_sync)).unwrap_or(1);
    usize::try_from(least).unwrap_or(1)
}

/// What the oracle looks at besides the objects.
pub(crate) struct Looked<'a> {
    pub(crate) fabric: &'a FakeFabric,
    pub(crate) uid: &'a str,
    pub(crate) array: Uuid,
    /// Version since which an operator may have looked.
    pub(crate) since: u64,
    /// Where nothing goes wrong and requests are done as they are sent: the nodes that answer.
    pub(crate) calm: Option<&'a [&'a str]>,
}

fn ready(list: &[meshstor_crds::Condition], reason: &str) -> bool {
    list.iter().any(|c| c.type_ == conditions::READY && c.status == "True" && c.reason == reason)
}

impl Oracle {
    pub(crate) fn issued(&mut self, block: usize, value: u64) {
        self.issued[block] = self.issued[block].max(value);
    }

    pub(crate) fn flush_sent(&mut self, node: &str, id: u64) {
        self.flushes.insert(id, self.acked.get(node).copied().unwrap_or_default());
    }

    /// I6: what an application reads through the current epoch.
    ///
    /// # Errors
    /// When it reads what was overwritten and flushed, or what was never written.
    pub(crate) fn read(&self, block: usize, value: u64) -> Result<(), String> {
        if value < self.floor[block] || value > self.issued[block] {
            let (floor, issued) = (self.floor[block], self.issued[block]);
            return Err(format!(
                "I6: an application read {value} of block {block}, flushed is {floor}, written {issued}"
            ));
        }
        Ok(())
    }

    /// Everything that can be told after a step.
    ///
    /// # Errors
    /// The invariant, and how it was broken.
    pub(crate) fn check(&mut self, looked: Looked<'_>, state: &mut State) -> Result<(), String> {
        let Looked { fabric, uid, array, since, calm } = looked;
        if let Some(broken) = state.broken.pop() {
            return Err(broken);
        }
        self.learn(state, uid);
        for event in fabric.io_events() {
            self.event(&event, state)?;
        }
        self.legs_of_s(fabric, state)?;
        if let Some(answers) = calm {
            self.voluntary(fabric, state, array, answers)?;
        }
        self.statuses(state, since)
    }

    /// I3: where nothing goes wrong, no leg leaves S that serves, and no epoch starts without a leg whose node answers, if
    /// less than `minInSync` copies are left.
    fn voluntary(&self, fabric: &FakeFabric, state: &State, array: Uuid, answers: &[&str]) -> Result<(), String> {
        let changes = state.attachments.changes.iter().enumerate().skip(self.seen.0);
        for (index, (_, new)) in changes {
            let old = index.checked_sub(1).and_then(|i| state.attachments.changes[i].1.as_ref());
            // A person's word that a consumer is lost makes it no voluntary act to go on without its leg.
            let lost = new.as_ref().and_then(|a| a.spec.lost.as_ref()).map(|l| l.node.as_str());
            let (Some(old), Some(new)) = (old.and_then(|a| term_of(a)), new.as_ref().and_then(|a| term_of(a))) else {
                continue;
            };
            if new.in_sync.len() >= least_of(state) {
                continue;
            }
            for leg in old.in_sync.iter().filter(|l| !new.in_sync.contains(l)) {
                let Some((home, partition)) = self.legs.get(leg) else { continue };
                let serves = new.phase == TermPhase::Running && fabric.healthy(&new.node, array, *partition);
                let starts = new.phase == TermPhase::Started && answers.contains(&home.as_str()) && lost != Some(home);
                if serves || starts {
                    return Err(format!("I3: {leg} left S without need, {:?} are left", new.in_sync));
                }
            }
        }
        Ok(())
    }

    fn learn(&mut self, state: &State, uid: &str) {
        for leg in state.replicas.objects.values() {
            let name = leg.metadata.name.clone().unwrap_or_default();
            let partition = || (leg.spec.node.clone(), identity::derived_partition(uid, &name));
            self.legs.entry(name.clone()).or_insert_with(partition);
        }
    }

    fn leg(&self, partition: Uuid) -> Option<&String> {
        self.legs.iter().find(|(_, (_, uuid))| *uuid == partition).map(|(name, _)| name)
    }

    fn event(&mut self, event: &IoEvent, state: &State) -> Result<(), String> {
        match event {
            IoEvent::Landed { leg, from, epoch, .. } => self.landed(*leg, from, *epoch, state),
            IoEvent::Assembled { node, epochs, legs, .. } => self.started(node, epochs, legs, state),
            IoEvent::Acked { node, block, value, .. } => {
                let acked = self.acked.entry(node.clone()).or_default();
                acked[*block] = acked[*block].max(*value);
                Ok(())
            }
            IoEvent::Flushed { id, .. } => {
                let acked = self.flushes.remove(id).unwrap_or_default();
                (0..BLOCKS).for_each(|b| self.floor[b] = self.floor[b].max(acked[b]));
                self.flushed += 1;
                Ok(())
            }
        }
    }

    /// I2: one writer, of an epoch over which the leg has not confirmed.
    fn landed(&self, partition: Uuid, from: &str, epoch: i64, state: &State) -> Result<(), String> {
        let Some(name) = self.leg(partition) else { return Ok(()) };
        let leg: Option<Arc<MeshReplica>> = state.replicas.get(name);
        let below = leg.and_then(|l| l.status.as_ref().and_then(|s| s.revoked_below)).unwrap_or(0);
        if epoch < below {
            return Err(format!(
                "I2: {name} took a write of epoch {epoch} from {from}; it had confirmed epoch {below}"
            ));
        }
        match self.nodes.get(&epoch) {
            Some(node) if node != from => Err(format!("I2: {name} took a write of {from} in epoch {epoch} of {node}")),
            _ => Ok(()),
        }
    }

    /// Rules 3 and 4: one array an epoch, of that epoch's legs, from S alone.
    fn started(&mut self, node: &str, epochs: &[i64], legs: &[Uuid], state: &State) -> Result<(), String> {
        self.acked.remove(node);
        let Some(epoch) = epochs.first().copied() else { return Ok(()) };
        if epochs.iter().any(|e| *e != epoch) {
            return Err(format!("I2: {node} started an array of epochs {epochs:?}"));
        }
        let times = self.assembled.entry(epoch).or_default();
        *times += 1;
        let term = state.attachments.objects.values().find_map(|a| term_of(a));
        let Some(term) = term.filter(|t| t.epoch == epoch && t.initialised) else { return Ok(()) };
        if *times > 1 {
            return Err(format!("I2: {node} started a second array in epoch {epoch}"));
        }
        let stale: Vec<_> = legs.iter().filter_map(|l| self.leg(*l)).filter(|l| !term.in_sync.contains(l)).collect();
        if stale.is_empty() { Ok(()) } else { Err(format!("I6: {node} started from {stale:?}, which S lacks")) }
    }

    /// I1: whichever legs of S the next epoch starts from, they hold what was acknowledged and flushed, also if the
    /// power goes now.
    fn legs_of_s(&self, fabric: &FakeFabric, state: &State) -> Result<(), String> {
        let term = state.attachments.objects.values().find_map(|a| term_of(a));
        let Some(term) = term.filter(|t| t.initialised && t.phase != TermPhase::Retired) else { return Ok(()) };
        for name in &term.in_sync {
            if self.within_media_error_window(name) {
                continue;
            }
            let found = self.legs.get(name).and_then(|(node, uuid)| fabric.blocks(node, *uuid));
            let Some(blocks) = found else { return Err(format!("I1: {name} of S is nowhere")) };
            for block in 0..BLOCKS {
                let (low, high) = (blocks.durable[block].min(blocks.seen[block]), blocks.seen[block]);
                if low < self.floor[block] || high > self.issued[block] {
                    let (floor, issued) = (self.floor[block], self.issued[block]);
                    return Err(format!(
                        "I1: {name} of S holds {low} to {high} of block {block}; flushed is {floor}, written {issued}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// What a stock kernel leaves open (`docs/explanation/safety.md`): MD was given an error instead of a hang, and went
    /// on without the leg before anybody could record that.
    fn within_media_error_window(&self, leg: &str) -> bool {
        self.errored.as_deref() == Some(leg)
    }

    /// I7: `Ready` of attachment and volume.
    fn statuses(&mut self, state: &mut State, since: u64) -> Result<(), String> {
        let attachments = &state.attachments.changes;
        let least = least_of(state);
        for (index, (_, attachment)) in attachments.iter().enumerate().skip(self.seen.0) {
            let Some(attachment) = attachment else { continue };
            let before = index.checked_sub(1).and_then(|i| attachments[i].1.as_ref());
            if let Some(term) = term_of(attachment) {
                self.nodes.entry(term.epoch).or_insert_with(|| term.node.clone());
            }
            let listed = attachment.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
            // The record that an operator writes leaves what a daemon last said; the next daemon says anew.
            let says = before.is_none_or(|b| b.status.as_ref().map(|s| s.conditions.as_slice()) != Some(listed));
            if says && ready(listed, conditions::REASON_ATTACHED) && !attached(attachment, least) {
                return Err(format!("I7: the attachment is Ready, and {:?}", attachment.status));
            }
        }
        // What an operator says was true at some moment since it began to look.
        let version = |a: &MeshAttachment| a.meta().resource_version.as_ref().and_then(|v| v.parse::<u64>().ok());
        let later =
            |(_, a): &&(String, Option<Arc<MeshAttachment>>)| a.as_ref().is_some_and(|a| version(a) > Some(since));
        let recent = attachments.iter().rev().take_while(later).count();
        let first = attachments.len().saturating_sub(recent + 1);
        let volumes = &state.volumes.changes;
        for (index, (_, volume)) in volumes.iter().enumerate().skip(self.seen.1) {
            let Some(volume) = volume else { continue };
            // A person who deletes it says nothing of how it is.
            let before = index.checked_sub(1).and_then(|i| volumes[i].1.as_ref());
            if before.is_some_and(|b| b.status == volume.status) {
                continue;
            }
            let said = volume.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
            let was = attachments[first..].iter().flat_map(|(_, a)| a).any(|a| attached(a, least));
            if ready(said, conditions::REASON_ATTACHED) && !was {
                return Err(format!("I7: the volume is Ready, and its attachment never was since {since}"));
            }
        }
        self.seen = (attachments.len(), state.volumes.changes.len());
        Ok(())
    }
}

/// The record runs, with an array to be seen, and enough copies.
fn attached(attachment: &MeshAttachment, least: usize) -> bool {
    let (Some(status), Some(term)) = (attachment.status.as_ref(), term_of(attachment)) else { return false };
    let array = status.array.as_ref().is_some_and(|a| a.epoch == term.epoch && a.device.is_some());
    let ended = status.ended.as_ref().is_some_and(|e| e.epoch == term.epoch);
    term.phase == TermPhase::Running && array && !ended && term.in_sync.len() >= least
}
