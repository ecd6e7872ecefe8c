//! What the rest of an attachment's status says.

use meshstor_crds::conditions::{self as c, Want};
use meshstor_crds::geometry::Unsound;
use meshstor_crds::{ArrayStatus, EndedReason, Member, MemberState, MeshAttachmentStatus, Resync, Term, TermPhase};

use super::{Leg, Step, View, features};
use crate::host::{ArrayFacts, MemberFacts, SyncFacts};

/// Writes the status where it changed and is this node's to write.
pub(super) fn step(view: &View<'_>) -> Step {
    let old = view.status();
    if old.term.as_ref().is_none_or(|t| t.node != view.me) {
        return Step::Settled;
    }
    let new = refresh(view, old.clone());
    if new == old { Step::Settled } else { Step::Report(Box::new(new)) }
}

/// `status`, whose record is what is about to be written, with array and conditions as they are with it.
pub(super) fn refresh(view: &View<'_>, mut status: MeshAttachmentStatus) -> MeshAttachmentStatus {
    let Some(term) = status.term.clone() else { return status };
    status.array = array(view, &term, &status);
    let generation = view.attachment.metadata.generation;
    let mut wants = wants(view, &term, &status);
    wants.extend(features::wants(view, &status));
    status.conditions = c::apply(&status.conditions, &wants, generation, view.now);
    status.observed_generation = generation;
    status
}

fn array(view: &View<'_>, term: &Term, status: &MeshAttachmentStatus) -> Option<ArrayStatus> {
    let facts = view.array?;
    let ended = status.ended.as_ref().is_some_and(|e| e.epoch == term.epoch);
    if term.phase != TermPhase::Running || ended || !(view.own() || view.array_epoch() == Some(term.epoch)) {
        return None;
    }
    let old = status.array.as_ref().filter(|a| a.epoch == term.epoch);
    let mounted = |p: &&String| facts.mounts.iter().any(|m| m.to_str() == Some(p.as_str()));
    let reported = old.and_then(|a| a.mount_path.as_ref()).filter(mounted);
    Some(ArrayStatus {
        epoch: term.epoch,
        device: device(view, term, facts, old),
        mount_path: view.attachment.spec.mount_path.as_ref().filter(mounted).or(reported).cloned(),
        // A stop takes the members away one by one: that is no loss of a leg.
        members: match old.filter(|_| !view.wanted() && !facts.running) {
            Some(before) => before.members.clone(),
            None => members(view, term, old),
        },
        resync: facts.sync.as_ref().filter(|s| copies(facts, s)).map(|s| resync(s, old)),
    })
}

/// Whether something is copied. When a member has gone, md says for a moment that it recovers, before it finds that it has nothing to
/// recover to.
pub(super) fn copies(facts: &ArrayFacts, sync: &SyncFacts) -> bool {
    sync.action != "recover" || facts.members.iter().any(|m| !m.in_sync && !m.faulty)
}

/// The device is shown once all of S works and the volume is initialised, and from then on while it runs.
fn device(view: &View<'_>, term: &Term, facts: &ArrayFacts, old: Option<&ArrayStatus>) -> Option<String> {
    let works = |n: &String| view.legs.iter().any(|l| l.name() == n && view.works(l));
    let shown = old.is_some_and(|a| a.device.is_some());
    let sound = view.misplaced().is_none();
    let ready = term.initialised && facts.running && sound && term.in_sync.iter().all(works);
    (shown || ready).then(|| facts.device.display().to_string())
}

fn members(view: &View<'_>, term: &Term, old: Option<&ArrayStatus>) -> Vec<Member> {
    let before = |leg: &str| old.and_then(|a| a.members.iter().find(|m| m.leg == leg));
    let outside = |leg: &Leg<'_>| !term.in_sync.iter().any(|l| l == leg.name());
    let mut members: Vec<Member> = view
        .legs
        .iter()
        .filter_map(|leg| {
            let facts = view.member(leg);
            // `Faulty` without a member asks the target for a new grant, see `super::disowned`.
            let state = match facts {
                _ if outside(leg) && view.burnt(leg) => MemberState::Faulty,
                // A leg that is rebuilt is not called anything else.
                None if view.failing(leg) => MemberState::Failing,
                Some(m) if m.in_sync && !m.faulty && view.failing(leg) && !view.holds(leg) => MemberState::Failing,
                Some(m) => state(view, leg, m),
                None => return None,
            };
            let latency = facts.and_then(|m| m.latency_ewma_ns).map(quantised);
            let latency_ewma_ns = steady(before(leg.name()).and_then(|m| m.latency_ewma_ns), latency);
            Some(Member { leg: leg.name().to_owned(), state, latency_ewma_ns })
        })
        .collect();
    members.sort_by(|a, b| a.leg.cmp(&b.leg));
    members
}

fn state(view: &View<'_>, leg: &Leg<'_>, member: &MemberFacts) -> MemberState {
    match (member.faulty, view.holds(leg), member.in_sync) {
        // A failed member of a leg with a path is not said: it would ask for a new grant that nothing needs yet.
        (true, _, _) => MemberState::Held,
        (_, true, _) => MemberState::Held,
        (_, _, true) => MemberState::InSync,
        _ => MemberState::Rebuilding,
    }
}

/// Rounded down to a power of two.
fn quantised(ns: u64) -> i64 {
    if ns == 0 { 0 } else { 1i64 << ns.ilog2().min(62) }
}

/// The old value as long as the new one is its neighbour, so that a number on a boundary writes nothing.
fn steady(old: Option<i64>, new: Option<i64>) -> Option<i64> {
    let near = |o: i64, n: i64| n <= o.saturating_mul(2) && o <= n.saturating_mul(2);
    match (old, new) {
        (Some(o), Some(n)) if near(o, n) => Some(o),
        _ => new,
    }
}

/// `sync_completed` counts in these, whatever a drive's sectors are.
const SECTOR: u64 = 512;

/// Progress in tens of percent; the other numbers change only with it.
fn resync(sync: &SyncFacts, old: Option<&ArrayStatus>) -> Resync {
    let done = sync.done.saturating_mul(100).checked_div(sync.total).unwrap_or(0).min(100) / 10 * 10;
    let percent = i32::try_from(done).unwrap_or(0);
    if let Some(before) = old.and_then(|a| a.resync.clone()).filter(|r| r.percent == percent) {
        return before;
    }
    let left = sync.total.saturating_sub(sync.done) / 2;
    let seconds = left.checked_div(sync.speed_kib).and_then(|s| i64::try_from(s.div_ceil(30) * 30).ok());
    let known = |bytes: u64| i64::try_from(bytes).ok().filter(|_| sync.total > 0);
    Resync {
        percent,
        remaining_seconds: seconds.filter(|_| sync.total > 0),
        done_bytes: known(sync.done.saturating_mul(SECTOR)),
        total_bytes: known(sync.total.saturating_mul(SECTOR)),
        bytes_per_second: known(sync.speed_kib.saturating_mul(1024)).filter(|speed| *speed > 0),
    }
}

/// Held writes of an older epoch must never end as success for anybody who can see it.
const OLDER: &str = "an array of an older epoch is still here and may hold writes that must not end; \
                     stop what uses it, or reboot the node";

fn ready(message: &str, reason: &'static str) -> Vec<Want> {
    vec![Want::new(c::READY, true, reason, message)]
}

fn busy(reason: &'static str, message: String) -> Vec<Want> {
    vec![Want::new(c::READY, false, reason, message.clone()), Want::new(c::RECONCILING, true, reason, message)]
}

fn stalled(reason: &'static str, message: String) -> Vec<Want> {
    vec![Want::new(c::READY, false, reason, message.clone()), Want::new(c::STALLED, true, reason, message)]
}

fn wants(view: &View<'_>, term: &Term, status: &MeshAttachmentStatus) -> Vec<Want> {
    if let Some(trouble) = &view.memory.trouble {
        let stuck = [c::REASON_CONFLICT, c::REASON_BUSY].contains(&trouble.reason);
        let said = if stuck { stalled } else { busy };
        return said(trouble.reason, trouble.message.clone());
    }
    match (&status.ended, term.phase) {
        (Some(e), _) if e.epoch == term.epoch => ended(view, e.reason),
        (_, TermPhase::Retired) => busy(c::REASON_DELETING, "the volume is being deleted".to_owned()),
        (_, TermPhase::Revoking) => busy(c::REASON_REVOKING, "older epochs are being revoked at the legs".to_owned()),
        _ if !view.wanted() => detaching(view),
        (_, TermPhase::Started) if view.array.is_some() => stalled(c::REASON_BUSY, OLDER.to_owned()),
        (_, TermPhase::Started) => starting(view, term),
        (_, TermPhase::Running) => running(view, term, status),
    }
}

fn ended(view: &View<'_>, reason: EndedReason) -> Vec<Want> {
    if let Some(failure) = view.memory.failed.as_ref().filter(|_| view.wanted()) {
        let said = if failure.conflict { stalled } else { busy };
        let reason = if failure.conflict { c::REASON_CONFLICT } else { c::REASON_HOST_ERROR };
        return said(reason, failure.message.clone());
    }
    match view.attachment.runs_on() {
        None => ready("detached", c::REASON_DETACHED),
        Some(node) if node == view.me => {
            busy(c::REASON_ATTACHING, format!("the last epoch ended ({reason:?}); waits for the next"))
        }
        Some(node) => busy(c::REASON_ATTACHING, format!("detached here; waits for its start on {node}")),
    }
}

fn detaching(view: &View<'_>) -> Vec<Want> {
    let mounts = view.array.map_or(0, |a| a.mounts.len());
    if mounts > 1 {
        return stalled(c::REASON_BUSY, format!("mounted at {mounts} places; unmount those that are not MeshStor's"));
    }
    busy(c::REASON_DETACHING, "the array is being taken down".to_owned())
}

fn waiting(view: &View<'_>, term: &Term) -> String {
    let here = |n: &&String| view.legs.iter().any(|l| l.name() == n.as_str() && view.device(l).is_some());
    let missing: Vec<&str> = term.in_sync.iter().filter(|n| !here(n)).map(String::as_str).collect();
    if missing.is_empty() { "claiming the epoch".to_owned() } else { format!("waits for legs {}", missing.join(", ")) }
}

fn starting(view: &View<'_>, term: &Term) -> Vec<Want> {
    match view.shape() {
        Err(Unsound::Uneven { .. }) | Ok(_) => busy(c::REASON_ATTACHING, waiting(view, term)),
        Err(why) => stalled(
            c::REASON_CONFLICT,
            format!("{why}; nothing was started: detach the volume, and restore its legs from a backup of the objects"),
        ),
    }
}

fn running(view: &View<'_>, term: &Term, status: &MeshAttachmentStatus) -> Vec<Want> {
    if let Some(why) = view.misplaced() {
        return stalled(c::REASON_CONFLICT, format!("{why}; the array is not used: detach the volume"));
    }
    let shown = status.array.as_ref().filter(|a| a.device.is_some());
    let Some(array) = shown else { return busy(c::REASON_ATTACHING, "the array is being assembled".to_owned()) };
    if view.array.is_some_and(|a| !a.running) {
        return stalled(c::REASON_HOST_ERROR, "the array does not run; detach it when nobody uses it".to_owned());
    }
    if view.mount_path().is_some_and(|path| array.mount_path.as_ref() != Some(path)) {
        return busy(c::REASON_ATTACHING, "waits to be mounted".to_owned());
    }
    let held = |m: &&Member| m.state == MemberState::Held && term.in_sync.contains(&m.leg);
    if let Some(member) = array.members.iter().find(held) {
        return busy(c::REASON_LEG_MISSING, format!("leg {} does not answer; writes are held", member.leg));
    }
    let wanted = view.params.map_or(1, |p| p.min_in_sync);
    let copies = view.copies(&term.in_sync);
    if copies < wanted {
        let message = format!("{copies} in-sync copies, {wanted} are to be kept");
        return busy(c::REASON_TOO_FEW_COPIES, message);
    }
    if view.attachment.spec.node.is_none() {
        return ready("wanted nowhere; its array runs for a copy", c::REASON_DETACHED);
    }
    ready("attached", c::REASON_ATTACHED)
}
