//! Replacement of a leg by its heir (`MeshReplica.spec.replaces`), as the consumer does it.
//!
//! A single copy's heir has a slot of its own, the empty one of its set: it is rebuilt like any leg, recorded in the old one's
//! stead, and then the old one is taken out. Every other heir is filled *beside* the member whose slot it takes. At the end of
//! that MD fails the old member by itself, and would acknowledge what the old leg does not have while the record still names it
//! (I1). So the copy waits just before its end; then all writes are held, the copy ends, the record is written, writes go on.
//! Where MD has the failure gate on it holds by itself what it acknowledges from the end of the copy on: nothing is held before that.
//! Each step follows from what is seen, so a process that dies in between is followed by one that goes on.

use super::run::failed;
use super::{Leg, Step, View};
use crate::host::{ArrayFacts, FailureGate, MemberFacts};

/// The member of S that the leg is to be filled beside: that of the same slot.
pub(super) fn beside<'a>(view: &View<'a>, leg: &Leg<'_>) -> Option<&'a Leg<'a>> {
    view.gives_way(leg).filter(|old| old.slot() == leg.slot())
}

/// The heir that is being filled beside a leg of S that works, with its member.
fn filled<'a>(view: &View<'a>) -> Option<(&'a Leg<'a>, &'a MemberFacts)> {
    view.legs.iter().find_map(|leg| {
        let member = view.member(leg).filter(|m| m.replacement && !m.faulty && !m.in_sync)?;
        beside(view, leg).filter(|old| view.works(old) && !view.left(leg)).map(|_| (leg, member))
    })
}

/// The heir that has everything while MD has failed the leg of S whose place it takes: all writes are held, and one write
/// of the record makes them right.
fn unrecorded<'a>(view: &View<'a>) -> Option<&'a Leg<'a>> {
    let mut outside = view.legs.iter().filter(|l| !view.in_set(l.name()) && !view.retired(l.name()));
    outside.find(|l| view.works(l) && view.gives_way(l).is_some_and(|old| failed(view, old)))
}

/// Before anything is said of a loss: the leg is not lost, it was replaced.
pub(super) fn swap(view: &View<'_>) -> Option<Step> {
    unrecorded(view)
        .filter(|leg| view.reached(leg) && !view.holds(leg))
        .map(|leg| Step::RecordInSync { leg: leg.name().to_owned() })
}

/// The copy waits before its end: writes are held, and it goes on. It goes on at once where nobody is replaced any more.
pub(super) fn finish(view: &View<'_>, array: &ArrayFacts) -> Option<Step> {
    let device = array.device.clone();
    if filled(view).is_none() {
        return array.sync_max.map(|_| Step::FinishSync { device });
    }
    // A hold waits for what is in flight: not while a member does not answer.
    if !near_end(array) || view.legs.iter().any(|l| view.holds(l)) {
        return None;
    }
    let gated = matches!(array.failure_gate, Some(FailureGate::On | FailureGate::Holding(_)));
    match (array.suspended || gated, array.sync_max) {
        (false, _) => Some(Step::Suspend { device }),
        (true, Some(_)) => Some(Step::FinishSync { device }),
        (true, None) => None,
    }
}

/// The copy waits before its end; or it was let go on, and has nine tenths.
fn near_end(array: &ArrayFacts) -> bool {
    let Some(sync) = &array.sync else { return false };
    array.sync_max.map_or(sync.done.saturating_mul(10) >= sync.total.saturating_mul(9), |at| sync.done >= at)
}

/// Writes go on when the change is recorded, or comes to nothing, or the volume is to leave.
pub(super) fn resume(view: &View<'_>, array: &ArrayFacts) -> Option<Step> {
    // Between the copy's end and what MD makes of it no copy is seen.
    let ends = near_end(array) || array.sync.is_none();
    let needed = unrecorded(view).is_some() || (view.wanted() && ends && filled(view).is_some());
    // It waits for what is in flight, and so perhaps for a path that is still to be released: nothing waits for it.
    (array.suspended && !needed && view.memory.slow.is_none()).then(|| Step::Resume { device: array.device.clone() })
}

/// A member that works although its leg has left S for good. Once MD has failed it its path is let go, and then it is taken out of the
/// array: the target closes its export only when it is not among the members any more, for to let go of a path whose other end was
/// just closed takes a minute.
pub(super) fn expel(view: &View<'_>, array: &ArrayFacts) -> Option<Step> {
    view.legs.iter().filter(|l| view.left(l)).find_map(|leg| {
        let name = view.member(leg).filter(|m| !m.faulty)?.name.clone();
        Some(Step::ExpelMember { leg: leg.name().to_owned(), device: array.device.clone(), name })
    })
}
