//! What only this process has measured: a restart starts these clocks again, which can delay a step, never hurt one.

use kube::ResourceExt as _;
use meshstor_crds::{EndedReason, MemberState, MeshAttachment, MeshReplica, Term, TermPhase};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long legs on silent nodes are awaited before an epoch starts without them (`docs/explanation/protocol.md`, 5).
pub const REVOKE_GRACE: Duration = Duration::from_secs(10);
/// How long the legs of a consumer that was given up are awaited: just long enough for one that lives to be heard.
pub const GIVEN_UP_GRACE: Duration = Duration::from_secs(1);
/// How long a live export may stay unused by its consumer before its grant is taken back for a new one.
pub const IDLE_GRANT: Duration = Duration::from_secs(15);
/// The longest such wait: it doubles with each grant that was not used either.
const IDLE_GRANT_MAX: Duration = Duration::from_secs(3600);
/// The first wait after a start that failed; it doubles with each failure.
const RETRY_FIRST: Duration = Duration::from_secs(5);
/// The longest wait after starts that failed.
const RETRY_MAX: Duration = Duration::from_secs(300);

/// The clocks of one volume, as one reconcile sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// For how long this process has seen the record's epoch as `Revoking`.
    pub revoking_for: Duration,
    /// How long until a failed start is tried again; zero when it may be now.
    pub retry_in: Duration,
    /// How many starts have failed in a row.
    pub failures: u32,
    /// By leg whose live export the consumer does not use: how long until its grant is taken back.
    pub idle_in: BTreeMap<String, Duration>,
    /// Legs that could be rebuilt, and wait for the rebuilds of others.
    pub waits: BTreeSet<String>,
    /// Of those the next ones: they have grants already, and are connected to.
    pub ahead: BTreeSet<String>,
}

/// What is remembered of one volume between reconciles.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    revoking: Option<(i64, Instant)>,
    failed: Option<(i64, u32, Instant)>,
    idle: BTreeMap<String, Idle>,
}

/// An export that its consumer does not use.
#[derive(Clone, Copy, Debug)]
struct Idle {
    /// Epoch and number of its grant.
    grant: (i64, i64),
    since: Instant,
    last_seen: Instant,
    /// Grants in a row that were not used.
    grants: u32,
}

impl Idle {
    /// Time left until the grant is taken back; nothing when it was not idle at the last look.
    fn left(&self, now: Instant) -> Option<Duration> {
        let wait = doubled(IDLE_GRANT, IDLE_GRANT_MAX, self.grants);
        (self.last_seen == now).then(|| wait.saturating_sub(now.saturating_duration_since(self.since)))
    }
}

impl Memory {
    /// Takes note of what is observed at `now` and tells the clocks.
    pub fn observe(&mut self, attachment: Option<&MeshAttachment>, legs: &[MeshReplica], now: Instant) -> Clocks {
        let term = attachment.and_then(|a| a.status.as_ref()).and_then(|s| s.term.as_ref());
        self.note_revoking(term, now);
        self.note_failure(attachment, term, now);
        self.note_idle(attachment, term, legs, now);
        let since = |at: Instant| now.saturating_duration_since(at);
        Clocks {
            revoking_for: self.revoking.map_or(Duration::ZERO, |(_, at)| since(at)),
            retry_in: self.failed.map_or(Duration::ZERO, |(_, n, at)| backoff(n).saturating_sub(since(at))),
            failures: self.failed.map_or(0, |(_, n, _)| n),
            idle_in: self.idle.iter().filter_map(|(leg, idle)| Some((leg.clone(), idle.left(now)?))).collect(),
            waits: BTreeSet::new(),
            ahead: BTreeSet::new(),
        }
    }

    fn note_revoking(&mut self, term: Option<&Term>, now: Instant) {
        let epoch = term.filter(|t| t.phase == TermPhase::Revoking).map(|t| t.epoch);
        self.revoking = match (epoch, self.revoking) {
            (Some(epoch), Some((old, at))) if old == epoch => Some((epoch, at)),
            (Some(epoch), _) => Some((epoch, now)),
            (None, _) => None,
        };
    }

    /// Counts each epoch whose start failed once; an array that is shown clears the count.
    fn note_failure(&mut self, attachment: Option<&MeshAttachment>, term: Option<&Term>, now: Instant) {
        let status = attachment.and_then(|a| a.status.as_ref());
        let shown = status.and_then(|s| s.array.as_ref()).is_some_and(|a| {
            a.device.is_some() && term.is_some_and(|t| t.epoch == a.epoch && t.phase == TermPhase::Running)
        });
        if shown {
            self.failed = None;
        }
        let ended = status.and_then(|s| s.ended.as_ref()).filter(|e| e.reason == EndedReason::StartFailed);
        let Some(ended) = ended.filter(|e| term.is_some_and(|t| t.epoch == e.epoch)) else { return };
        self.failed = match self.failed {
            Some((epoch, n, at)) if epoch == ended.epoch => Some((epoch, n, at)),
            Some((_, n, _)) => Some((ended.epoch, n.saturating_add(1), now)),
            None => Some((ended.epoch, 1, now)),
        };
    }

    /// A leg whose export stays unused gets a new grant, each time after twice the wait; its use clears the count.
    fn note_idle(
        &mut self,
        attachment: Option<&MeshAttachment>,
        term: Option<&Term>,
        legs: &[MeshReplica],
        now: Instant,
    ) {
        self.idle.retain(|name, _| term.is_some_and(|t| !t.in_sync.contains(name)));
        for leg in legs.iter().filter(|leg| unused(attachment, term, leg)) {
            let Some(grant) = leg.spec.grant.as_ref().map(|g| (g.epoch, g.number)) else { continue };
            let first = Idle { grant, since: now, grants: 1, last_seen: now };
            let idle = self.idle.entry(leg.name_any()).or_insert(first);
            if idle.grant != grant {
                *idle = Idle { grant, since: now, grants: idle.grants.saturating_add(1), last_seen: now };
            }
            idle.last_seen = now;
        }
    }
}

/// Whether a remote leg outside S has a live export that the running array does not use although nothing else is
/// being rebuilt. Its consumer has let it go, and between two connections of one grant no barrier was passed
/// (rule 9): it needs a new grant. A leg that the consumer is only about to take has [`IDLE_GRANT`] for it.
fn unused(attachment: Option<&MeshAttachment>, term: Option<&Term>, leg: &MeshReplica) -> bool {
    let (Some(term), Some(grant), Some(status)) = (term, &leg.spec.grant, &leg.status) else { return false };
    let observed = attachment.and_then(|a| a.status.as_ref());
    let array = observed.and_then(|s| s.array.as_ref()).filter(|a| a.epoch == term.epoch && a.device.is_some());
    let ended = observed.and_then(|s| s.ended.as_ref()).is_some_and(|e| e.epoch == term.epoch);
    let name = leg.name_any();
    let left_out = array.is_some_and(|array| {
        let rebuilding = array.members.iter().any(|m| m.state == MemberState::Rebuilding);
        !rebuilding && array.resync.is_none() && !array.members.iter().any(|m| m.leg == name)
    });
    let live = status.export.as_ref().is_some_and(|e| e.epoch == grant.epoch && e.grant == grant.number);
    let outside = term.phase == TermPhase::Running && !ended && !term.in_sync.contains(&name);
    left_out && live && outside && !grant.copy_later && grant.epoch == term.epoch && leg.spec.node != term.node
}

/// 5 s, 10 s, 20 s … at most 300 s.
fn backoff(failures: u32) -> Duration {
    doubled(RETRY_FIRST, RETRY_MAX, failures)
}

/// `first`, doubled with each time after the first, at most `max`.
fn doubled(first: Duration, max: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.saturating_sub(1).min(10)).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_after_failed_starts_doubles_and_is_bounded() {
        let waits: Vec<u64> = (1..=9).map(|n| backoff(n).as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    }
}
