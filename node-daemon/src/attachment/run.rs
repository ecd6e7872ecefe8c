//! An epoch that this process runs: protocol steps 8 to 11, rules 5 and 7.

use meshstor_crds::EndedReason;

use super::{DROPPED, Leg, Step, View, back, end, gate, replace, report, start};
use crate::host::{ArrayFacts, Content};

/// The next step while the record says `Running` by this process.
pub(super) fn step(view: &View<'_>) -> Step {
    if view.stranded() && (view.array.is_some() || view.memory.assembled) {
        return end::abandon(view);
    }
    let Some(array) = view.array else { return absent(view) };
    if !array.running {
        return stopped(view);
    }
    // A lost leg before everything else, whatever slow step may be waiting for it.
    let urgent = replace::swap(view)
        .or_else(|| loss(view))
        .or_else(|| dead(view, array))
        .or_else(|| gate::agree(view, array))
        .or_else(|| gate::include(view, array))
        .or_else(|| replace::resume(view, array))
        .or_else(|| release(view))
        .or_else(|| tidy(view, array))
        .or_else(|| severed(view, array));
    if let Some(step) = urgent {
        return step;
    }
    if view.memory.failed.is_some() && !published(view) {
        return end::finish(view, EndedReason::StartFailed);
    }
    if !view.wanted() {
        return end::finish(view, EndedReason::Detached);
    }
    if view.memory.slow.is_some() || view.misplaced().is_some() {
        return report::step(view);
    }
    if array.frozen {
        return Step::Thaw { device: array.device.clone() };
    }
    gate::on(view, array)
        .or_else(|| initialise(view, array))
        .or_else(|| publish(view))
        .or_else(|| mount(view, array))
        .or_else(|| replace::expel(view, array))
        .or_else(|| replace::finish(view, array))
        .or_else(|| back::step(view, array))
        .or_else(|| pace(view, array))
        .unwrap_or_else(|| report::step(view))
}

/// An array that serves nobody, and never will: its epoch ends, and the next one starts from S. Before it was published, its start has
/// failed; and what is wanted here no more goes as everything goes.
fn dead(view: &View<'_>, array: &ArrayFacts) -> Option<Step> {
    (view.wanted() && published(view) && array.is_dead()).then(|| end::abandon(view))
}

fn published(view: &View<'_>) -> bool {
    view.status().array.is_some_and(|a| a.epoch == view.epoch() && a.device.is_some())
}

/// There is no array: it is about to be made, or it is gone.
fn absent(view: &View<'_>) -> Step {
    if view.memory.slow.is_some() {
        return unblock(view).unwrap_or_else(|| report::step(view));
    }
    if !view.wanted() {
        return end::finish(view, EndedReason::Detached);
    }
    if view.memory.failed.is_some() {
        return end::finish(view, EndedReason::StartFailed);
    }
    if view.memory.assembled {
        return end::finish(view, EndedReason::ArrayGone);
    }
    start::assemble(view)
}

/// The array is there, but serves nothing.
fn stopped(view: &View<'_>) -> Step {
    if view.memory.slow.is_some() {
        return unblock(view).unwrap_or_else(|| report::step(view));
    }
    if let Some(step) = view.array.and_then(|array| dead(view, array)) {
        return step;
    }
    match (view.wanted(), published(view)) {
        (false, _) => end::finish(view, EndedReason::Detached),
        // Somebody may hold it: a person decides.
        (true, true) => report::step(view),
        (true, false) => end::finish(view, EndedReason::StartFailed),
    }
}

/// A start hangs on a path that does not answer. Nothing runs, so nothing was acknowledged: the path may go.
pub(super) fn unblock(view: &View<'_>) -> Option<Step> {
    let hung = view.release(view.all_connections().filter(|c| view.held.contains(&c.nqn)));
    hung.filter(|_| !view.memory.assembled)
}

/// A leg of S that no longer holds, or will not hold, every write: it is recorded away first (rule 5). The last leg of a
/// mirror set is never recorded away, nor the last of it that MD counts as in sync: then the writes stay held.
fn loss(view: &View<'_>) -> Option<Step> {
    let set: Vec<&Leg<'_>> = view.start_set().collect();
    let beside = |leg: &Leg<'_>| {
        let (name, of) = (leg.name().to_owned(), leg.set());
        set.iter().filter(move |l| l.name() != name && l.set() == of && view.works(l))
    };
    let works_beside = |leg: &Leg<'_>| beside(leg).next().is_some();
    let good_beside = |leg: &Leg<'_>| beside(leg).any(|l| !view.holds(l));
    if let Some(leg) = set.iter().find(|l| failed(view, l) && works_beside(l)) {
        return Some(Step::RecordLoss { leg: leg.name().to_owned(), why: DROPPED });
    }
    let leg = set.iter().find(|l| view.holds(l) && good_beside(l))?;
    Some(Step::RecordLoss { leg: leg.name().to_owned(), why: "its target does not answer" })
}

/// MD runs without the leg: its member failed, or no member can be its (all that work are known to be others').
pub(super) fn failed(view: &View<'_>, leg: &Leg<'_>) -> bool {
    let Some(array) = view.array else { return false };
    match view.member(leg) {
        Some(member) => member.faulty || !member.in_sync,
        None => array.degraded > 0 && array.members.iter().all(|m| m.faulty || view.owner(m).is_some()),
    }
}

/// Paths to legs outside S that do not answer, or whose member has failed, or whose grant is over.
fn release(view: &View<'_>) -> Option<Step> {
    let outside = view.legs.iter().filter(|l| !view.in_set(l.name()));
    let dead = |leg: &Leg<'_>| {
        let faulty = view.member(leg).is_some_and(|m| m.faulty);
        let left = view.left(leg) && view.member(leg).is_none();
        let over = |nqn: &str| left || leg.export(view.epoch()).is_none_or(|e| e.nqn != nqn);
        view.release(view.connections_of(leg).filter(|c| faulty || view.held.contains(&c.nqn) || over(&c.nqn)))
    };
    outside.filter_map(dead).next()
}

/// Members that MD has failed. Whose leg is unknown counts as none of S only while all of S works without it. An array that serves nobody is
/// left as it is: MD lets go of its last member never, and whatever else is to be done would wait for that.
fn tidy(view: &View<'_>, array: &ArrayFacts) -> Option<Step> {
    if array.is_dead() {
        return None;
    }
    let set_works = view.set_works();
    let gone = |m: &&crate::host::MemberFacts| {
        m.faulty && view.owner(m).map_or(set_works, |leg| !view.in_set(leg.name()) || view.works(leg))
    };
    let name = array.members.iter().find(gone)?.name.clone();
    Some(Step::RemoveMember { device: array.device.clone(), name })
}

/// Members of legs outside S whose paths were let go: MD would fail them with the next write, and until then the leg could not return.
/// Never the last that MD has.
fn severed(view: &View<'_>, array: &ArrayFacts) -> Option<Step> {
    let others = |leg: &Leg<'_>| view.start_set().any(|l| l.set() == leg.set() && view.works(l));
    view.legs.iter().filter(|l| !view.in_set(l.name()) && others(l)).find_map(|leg| {
        let name = view.severed(leg)?.name.clone();
        Some(Step::ExpelMember { leg: leg.name().to_owned(), device: array.device.clone(), name })
    })
}

/// Until `initialised`: the device is made whole, anew where an earlier try left something.
fn initialise(view: &View<'_>, array: &ArrayFacts) -> Option<Step> {
    if view.term()?.initialised {
        return None;
    }
    let memory = view.memory;
    let device = array.device.clone();
    let Some(filesystem) = view.params?.filesystem else {
        let clean = memory.fresh || memory.wiped;
        return Some(if clean { Step::RecordInitialised } else { Step::Wipe { device } });
    };
    if memory.made {
        return Some(Step::RecordInitialised);
    }
    if !memory.fresh && !memory.wiped {
        return Some(Step::Wipe { device });
    }
    Some(match &memory.content {
        None => Step::Probe { device },
        Some(Content::Blank) => Step::Mkfs { device, filesystem },
        Some(_) => Step::Wipe { device },
    })
}

/// The device is shown before anything is mounted from it.
fn publish(view: &View<'_>) -> Option<Step> {
    (!published(view)).then(|| report::step(view)).filter(|s| *s != Step::Settled)
}

fn mount(view: &View<'_>, array: &ArrayFacts) -> Option<Step> {
    let filesystem = view.params?.filesystem;
    if !published(view) {
        return None;
    }
    let wanted = view.mount_path().map(std::path::PathBuf::from);
    let old = view.status().array.and_then(|a| a.mount_path).map(std::path::PathBuf::from);
    if let Some(at) = old.filter(|o| wanted.as_ref() != Some(o) && array.mounts.contains(o)) {
        return Some(Step::Unmount { at });
    }
    let at = wanted.filter(|w| !array.mounts.contains(w))?;
    Some(Step::Mount { device: array.device.clone(), filesystem: filesystem?, at })
}

/// The limit of the rebuild that is under way; none is left behind when it is over.
fn pace(view: &View<'_>, array: &ArrayFacts) -> Option<Step> {
    let wanted = match array.sync {
        Some(_) => Some(view.memory.pace?.limit_kib),
        None => None,
    };
    (view.traffic.rebuild_limit != wanted).then(|| Step::Pace { device: array.device.clone(), kib: wanted })
}
