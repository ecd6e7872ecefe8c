//! What each write of the record says: the whole next status, or a refusal when the record is not the step's to write.

use meshstor_crds::{Bitmap, Ended, MeshAttachmentStatus, Term, TermPhase, Writer};

use super::{Step, View, report};

/// Why a step may not be written.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecordError {
    /// The record is another node's, of another phase or of another process.
    #[error("{step}: the record is not this process's to write so")]
    NotOurs {
        /// The step.
        step: String,
    },
    /// The in-sync set would have no leg of a mirror set, or hold a retired leg; or one that is not away would return.
    #[error("{step}: the in-sync set would be wrong")]
    BadSet {
        /// The step.
        step: String,
    },
}

/// The whole status that the step writes; none for a step that writes nothing.
///
/// # Errors
/// [`RecordError`] when the step breaks the rules of the record: a bug of the planning, never to be sent.
pub fn next(view: &View<'_>, step: &Step) -> Result<Option<MeshAttachmentStatus>, RecordError> {
    if let Step::Report(status) = step {
        return Ok(Some((**status).clone()));
    }
    let mut status = view.status();
    let not_ours = || RecordError::NotOurs { step: step.to_string() };
    let Some(term) = status.term.as_mut() else { return Ok(None) };
    match step {
        Step::Claim if term.phase == TermPhase::Started => {
            term.phase = TermPhase::Running;
            left_out(view, term);
        }
        Step::Adopt if term.phase == TermPhase::Running && !view.own() => {}
        Step::Settle if view.own() => {}
        Step::RecordLoss { leg, .. } if view.own() => {
            term.in_sync.retain(|l| l != leg);
            // From here on whatever is written marks what the leg lacks.
            if view.keeps_bits() && view.array.is_some_and(|a| a.bitmap == Some(Bitmap::Internal)) {
                name(term, leg);
            }
        }
        Step::RecordInSync { leg } if view.own() && !view.in_set(leg) => {
            // In one write: there is no moment at which a copy is missing, nor one at which nobody knows which leg leaves.
            let old = view.legs.iter().find(|l| l.name() == leg).and_then(|l| view.gives_way(l));
            term.in_sync.retain(|l| old.is_none_or(|old| old.name() != l));
            term.in_sync.push(leg.clone());
            term.in_sync.sort();
            term.bitmap_usable.retain(|l| l != leg);
        }
        Step::Forget { legs } if view.own() => term.bitmap_usable.retain(|l| !legs.contains(l)),
        Step::RecordInitialised if view.own() => term.initialised = true,
        Step::RecordEnded { reason } if view.array.is_none() => {
            status.ended = Some(Ended { epoch: term.epoch, reason: *reason });
        }
        Step::Claim
        | Step::Adopt
        | Step::Settle
        | Step::RecordLoss { .. }
        | Step::RecordInSync { .. }
        | Step::Forget { .. }
        | Step::RecordInitialised
        | Step::RecordEnded { .. } => return Err(not_ours()),
        _ => return Ok(None),
    }
    sign(view, step, status).map(Some)
}

/// Legs of the set with which the epoch began that its start left out: they held everything then, and what is written from now on
/// marks what they lack. On a kernel that forgets bits nothing stays proof.
fn left_out(view: &View<'_>, term: &mut Term) {
    if !view.keeps_bits() {
        term.bitmap_usable.clear();
        return;
    }
    for leg in &view.memory.begun_with {
        if !term.in_sync.contains(leg) && !term.retired.contains(leg) {
            name(term, leg);
        }
    }
}

fn name(term: &mut Term, leg: &str) {
    if !term.bitmap_usable.iter().any(|l| l == leg) {
        term.bitmap_usable.push(leg.to_owned());
        term.bitmap_usable.sort();
    }
}

/// Checks the sets and signs the write, so that it changes something.
fn sign(view: &View<'_>, step: &Step, mut status: MeshAttachmentStatus) -> Result<MeshAttachmentStatus, RecordError> {
    let not_ours = || RecordError::NotOurs { step: step.to_string() };
    let term = status.term.as_mut().filter(|t| t.node == view.me).ok_or_else(not_ours)?;
    let had = view.term().map_or(0, |t| view.copies(&t.in_sync));
    let uncovered = term.in_sync.is_empty() || (had > 0 && view.copies(&term.in_sync) == 0);
    let unfit = |l: &String| term.in_sync.contains(l) || term.retired.contains(l);
    if uncovered || term.in_sync.iter().any(|l| term.retired.contains(l)) || term.bitmap_usable.iter().any(unfit) {
        return Err(RecordError::BadSet { step: step.to_string() });
    }
    if !matches!(step, Step::RecordEnded { .. }) {
        term.writer = Some(writer(view, term));
    }
    Ok(report::refresh(view, status))
}

fn writer(view: &View<'_>, term: &Term) -> Writer {
    let seq = term.writer.as_ref().map_or(0, |w| w.seq) + 1;
    Writer { incarnation: view.incarnation.to_owned(), seq }
}
