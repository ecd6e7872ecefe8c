//! The failure gate of a kernel with MeshStor's patches: rule 5 where MD sees an error instead of a hang.
//!
//! With it MD acknowledges nothing that a failed member lacks before it is told to go on. It is told so when the record says the same, and
//! that it never will be when the epoch is over ([`super::end::fenced`]). On a kernel without it everything goes as it did: the window
//! between MD's acknowledgement and the record stays open.

use super::{Step, View};
use crate::host::{ArrayFacts, FailureGate};

/// Before anybody sees the device. Where MD refuses, the volume runs as on a stock kernel.
pub(super) fn on(view: &View<'_>, array: &ArrayFacts) -> Option<Step> {
    let off = array.failure_gate == Some(FailureGate::Off) && view.memory.ungated.is_none();
    off.then(|| Step::HoldFailures { device: array.device.clone() })
}

/// All members that have failed are of legs that the record has without S already. Whose leg is unknown counts as none of S only while all
/// of S works without it.
pub(super) fn agree(view: &View<'_>, array: &ArrayFacts) -> Option<Step> {
    let Some(FailureGate::Holding(failures)) = &array.failure_gate else { return None };
    let recorded = |name: &str| view.owner_of(name).map_or(view.set_works(), |leg| !view.in_set(leg.name()));
    let number = failures.iter().map(|failure| failure.number).max()?;
    let all = failures.iter().all(|failure| recorded(&failure.member));
    all.then(|| Step::Agree { device: array.device.clone(), number })
}

/// The last leg of S that worked has failed beside one that MD counts as in sync and the record does not: as long as MD holds, that one has
/// all that was ever acknowledged. It is recorded first, and then the loss.
pub(super) fn include(view: &View<'_>, array: &ArrayFacts) -> Option<Step> {
    let holding = matches!(array.failure_gate, Some(FailureGate::Holding(_)));
    let mut outside = view.legs.iter().filter(|l| holding && !view.in_set(l.name()) && !view.left(l));
    let leg = outside.find(|l| view.reached(l) && !view.holds(l))?;
    Some(Step::RecordInSync { leg: leg.name().to_owned() })
}

/// What is held can never be agreed to, so an unmount would wait for ever: no member is left that serves, or it is an array that this process
/// cannot adopt.
pub(super) fn unanswered(view: &View<'_>, array: &ArrayFacts) -> bool {
    let held = matches!(array.failure_gate, Some(FailureGate::Holding(_) | FailureGate::Refused));
    held && !view.stranger() && (array.is_dead() || !view.own())
}
