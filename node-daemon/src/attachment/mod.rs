//! A volume on its consumer: from what is observed to the one next step.
//!
//! Reads as an epoch lives: [`start`] (claim, create or assemble), [`run`] (losses, publishing), [`back`] (legs that were away), [`gate`] (MD waits for the record),
//! [`end`] (detach and everything else that goes away). [`record`] is what each write of the record says, [`report`] what the
//! rest of the status says, [`view`] what is looked at. Nothing here touches the host or the API server.

mod back;
mod end;
mod features;
mod gate;
mod pace;
pub mod record;
mod replace;
#[cfg(test)]
mod replace_tests;
mod report;
mod run;
mod start;
mod step;
#[cfg(test)]
mod tests;
mod view;

use meshstor_crds::TermPhase;

pub use pace::Pace;
pub use step::Step;
pub use view::{Failure, Leg, Memory, Params, Trouble, View};

/// Why a leg is recorded away that MD has failed by itself.
pub const DROPPED: &str = "MD runs without it";
/// Refusals of a return by the bitmap before the leg is rebuilt in full.
pub const RETURNS: u32 = 3;

/// Whether the consumer of this record says that it lost `leg` under the export that it sees now (rule 9): the target
/// ends that export, and the grant with it, before it serves another.
pub fn disowned(status: &meshstor_crds::MeshAttachmentStatus, leg: &str, epoch: i64) -> bool {
    let (Some(term), Some(array)) = (&status.term, &status.array) else { return false };
    term.epoch == epoch
        && array.epoch == epoch
        && !term.in_sync.iter().any(|l| l == leg)
        && array.members.iter().any(|m| m.leg == leg && m.state == meshstor_crds::MemberState::Faulty)
}

/// Whether the consumer of this record says that writes to `leg`, which it may not record away, are held: its path does not answer.
pub fn held(status: &meshstor_crds::MeshAttachmentStatus, leg: &str, epoch: i64) -> bool {
    let (Some(term), Some(array)) = (&status.term, &status.array) else { return false };
    let ended = status.ended.as_ref().is_some_and(|e| e.epoch == epoch);
    let held = array.members.iter().any(|m| m.leg == leg && m.state == meshstor_crds::MemberState::Held);
    term.epoch == epoch && array.epoch == epoch && !ended && term.in_sync.iter().any(|l| l == leg) && held
}

/// Whether the consumer of this record says that the leg's drive fails.
pub fn failing(status: &meshstor_crds::MeshAttachmentStatus, leg: &str) -> bool {
    let (Some(term), Some(array)) = (&status.term, &status.array) else { return false };
    let said = |m: &meshstor_crds::Member| m.leg == leg && m.state == meshstor_crds::MemberState::Failing;
    term.epoch == array.epoch && array.members.iter().any(said)
}

/// Writes the rest of the status where it changed, whatever else is to be done.
pub fn report_now(view: &View<'_>) -> Step {
    if view.memory.unsettled { Step::Settle } else { report::step(view) }
}

/// The next step.
pub fn plan(view: &View<'_>) -> Step {
    let step = next(view);
    // One slow effect at a time; what a lost leg needs is never slow.
    if step.slow() && view.memory.slow.is_some() { report::step(view) } else { step }
}

fn next(view: &View<'_>) -> Step {
    if view.memory.unsettled {
        return Step::Settle;
    }
    let Some(term) = view.term() else { return Step::Settled };
    if term.node != view.me {
        return end::fenced(view).unwrap_or(Step::Settled);
    }
    if view.ended() {
        return end::fenced(view).unwrap_or_else(|| report::step(view));
    }
    match term.phase {
        TermPhase::Revoking | TermPhase::Retired => end::fenced(view).unwrap_or_else(|| report::step(view)),
        TermPhase::Started => start::claim(view),
        TermPhase::Running if !view.own() => start::adopt(view),
        TermPhase::Running => run::step(view),
    }
}
