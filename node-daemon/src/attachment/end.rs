//! What goes away: protocol step 11, failed starts, and what an older epoch left on this node.

use std::path::PathBuf;

use meshstor_crds::EndedReason;

use super::{Step, View, gate, report, run};
use crate::host::FailureGate;
use crate::ids::Nqn;

/// Takes down the array, then the connections, then says that the epoch ended.
pub(super) fn finish(view: &View<'_>, reason: EndedReason) -> Step {
    leftovers(view).unwrap_or(Step::RecordEnded { reason })
}

/// Ends an epoch whose array can serve nobody any more.
pub(super) fn abandon(view: &View<'_>) -> Step {
    fenced(view).unwrap_or(Step::RecordEnded { reason: EndedReason::ArrayGone })
}

/// The next thing that must leave this node of an epoch that is over; none when there is nothing.
///
/// Whatever the array still writes is not the volume's any more, and what it holds must not end as success for anybody who can see it: its
/// users are killed and it is verified that none returns, then its paths are released, and it is stopped. Where a user is left that
/// cannot be killed, everything stays as it is until the node reboots. With the failure gate MD itself acknowledges nothing any more, so
/// the paths go first, and who waits for them can be killed.
pub(super) fn fenced(view: &View<'_>) -> Option<Step> {
    let Some(array) = view.array else { return leftovers(view) };
    // What a person or a rule of udev assembled here is not ours to take from anybody: it holds no write of the volume.
    if view.stranger() {
        return leftovers(view);
    }
    let device = array.device.clone();
    let refused = match &array.failure_gate {
        Some(FailureGate::On | FailureGate::Holding(_)) => return Some(Step::RefuseWrites { device }),
        gate => *gate == Some(FailureGate::Refused),
    };
    // An unmount that hangs waits for just this.
    let evict = || (!view.memory.evicted).then(|| Step::Evict { device: device.clone() });
    let first = if refused { None } else { evict() };
    if let Some(step) = first.or_else(|| paths(view)).or_else(evict) {
        return Some(step);
    }
    // Writes that were held over the end of a replacement end in the same way.
    let held = array.suspended.then(|| Step::Resume { device: device.clone() });
    Some(held.unwrap_or(Step::StopArray { device }))
}

/// Every connection to a leg of the volume goes, and is waited for.
fn paths(view: &View<'_>) -> Option<Step> {
    let step = view.release(view.all_connections());
    step.or_else(|| view.all_connections().next().map(|_| report::step(view)))
}

/// The next thing of this volume that must leave this node; none when there is nothing.
///
/// Unmount and stop come first and are never forced. A path is released only when no array is there: as long as one
/// is, its held writes stay held (an error would acknowledge writes of an epoch that is over). A start that hangs on a path ends only
/// when that goes, although the epoch is another's by now.
pub(super) fn leftovers(view: &View<'_>) -> Option<Step> {
    if let Some(array) = view.array {
        if gate::unanswered(view, array) {
            return fenced(view);
        }
        let Some(mount) = array.mounts.first() else {
            return Some(Step::StopArray { device: array.device.clone() });
        };
        return Some(
            ours(view).map_or_else(|| report::step(view), |at| Step::Unmount { at: at.unwrap_or(mount.clone()) }),
        );
    }
    if view.memory.slow.is_some() {
        return Some(run::unblock(view).unwrap_or_else(|| report::step(view)));
    }
    paths(view)
}

/// The mount that is ours: the one that was reported or asked for, else the only one. None where others mounted too.
fn ours(view: &View<'_>) -> Option<Option<PathBuf>> {
    let mounts = &view.array?.mounts;
    let reported = view.status().array.and_then(|a| a.mount_path);
    let known = [reported, view.attachment.spec.mount_path.clone()];
    let found = known.into_iter().flatten().map(PathBuf::from).find(|p| mounts.contains(p));
    match (found, mounts.as_slice()) {
        (Some(at), _) => Some(Some(at)),
        (None, [_]) => Some(None),
        _ => None,
    }
}

/// A connection of an older epoch, with no array here that could use it.
pub(super) fn stale_connection(view: &View<'_>) -> Option<Step> {
    let old = |nqn: &str| Nqn::parse(nqn).is_some_and(|n| n.epoch != view.epoch());
    if view.array.is_some() || view.memory.slow.is_some() {
        return None;
    }
    view.release(view.all_connections().filter(|c| old(&c.nqn)))
}
