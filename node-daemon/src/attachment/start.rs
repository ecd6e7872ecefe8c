//! The start of an epoch: protocol steps 7, 8 and 12, rules 3 and 4.

use meshstor_crds::{EndedReason, Export};

use super::{Step, View, end, report};
use crate::host::{ArrayMember, ArraySpec, ConnectSpec};

/// `Started`: every leg of the start set is reached, then the epoch is claimed.
pub(super) fn claim(view: &View<'_>) -> Step {
    // Nothing may run here in `Started`: what does is of an older epoch.
    if let Some(step) = view.array.and_then(|_| end::fenced(view)) {
        return step;
    }
    if let Some(step) = end::stale_connection(view) {
        return step;
    }
    if !view.wanted() {
        return end::finish(view, EndedReason::Detached);
    }
    // An unsound array is not begun; what is wrong is in the objects, and the status says it.
    if view.shape().is_err() {
        return report::step(view);
    }
    if hopeless(view) {
        return end::finish(view, EndedReason::StartFailed);
    }
    match (reach(view), members(view)) {
        (Some(step), _) => step,
        (None, Some(_)) => Step::Claim,
        (None, None) => report::step(view),
    }
}

/// `Running` by another process: its array is adopted where it runs, else the epoch is over (rule 4).
pub(super) fn adopt(view: &View<'_>) -> Step {
    if view.array.is_some() && view.array_epoch() == Some(view.epoch()) {
        return Step::Adopt;
    }
    end::leftovers(view).unwrap_or(Step::RecordEnded { reason: EndedReason::ArrayGone })
}

/// `Running` by this process, and the array is not there yet.
pub(super) fn assemble(view: &View<'_>) -> Step {
    let Some(params) = view.params else { return report::step(view) };
    if hopeless(view) {
        return end::finish(view, EndedReason::StartFailed);
    }
    let Some(members) = members(view) else { return reach(view).unwrap_or_else(|| report::step(view)) };
    let Ok((geometry, size)) = view.shape() else { return report::step(view) };
    let name = view.attachment.metadata.name.clone().unwrap_or_default();
    let spec = ArraySpec { uuid: params.uuid, name, geometry, members, size, bitmap: params.bitmap };
    let initialised = view.term().is_some_and(|t| t.initialised);
    if initialised { Step::Assemble(spec) } else { Step::Create(spec) }
}

/// A leg of the start set will not be reached under this epoch.
fn hopeless(view: &View<'_>) -> bool {
    let lost = |l: &super::Leg<'_>| l.spent(view.epoch()) || view.burnt(l);
    view.memory.failed.is_some() || view.overdue || view.start_set().any(lost)
}

/// Connects the next remote leg of the start set.
fn reach(view: &View<'_>) -> Option<Step> {
    let missing = |l: &&super::Leg<'_>| l.local.is_none() && view.current(l).is_none();
    let mut legs = view.start_set().filter(missing);
    legs.find_map(|leg| connect(view, leg))
}

/// The connection to a leg's export; none while it has none, or one that was used before.
pub(super) fn connect(view: &View<'_>, leg: &super::Leg<'_>) -> Option<Step> {
    let params = view.params?;
    let export = leg.export(view.epoch()).filter(|_| !view.burnt(leg))?;
    Some(Step::Connect { leg: leg.name().to_owned(), spec: spec(leg, export, params) })
}

fn spec(leg: &super::Leg<'_>, export: &Export, params: &super::Params) -> ConnectSpec {
    ConnectSpec {
        nqn: export.nqn.clone(),
        transport: leg.replica.spec.transport,
        address: export.address.clone(),
        port: u16::try_from(export.port).unwrap_or(0),
        io_queues: params.io_queues,
        queue_size: params.queue_size,
        keep_alive: params.keep_alive,
    }
}

/// The members to start from: exactly S; none while one of them cannot be used, or has no object.
fn members(view: &View<'_>) -> Option<Vec<ArrayMember>> {
    let term = view.term()?;
    let write_mostly = view.avoids_remote()?;
    let free = |leg: &super::Leg<'_>| leg.local.is_none_or(|f| f.held_by.is_none());
    let member = |leg: &super::Leg<'_>| {
        let device = view.device(leg).filter(|_| free(leg))?;
        Some(ArrayMember { device, slot: leg.slot(), write_mostly: write_mostly && leg.local.is_none() })
    };
    let members: Vec<_> = view.start_set().map(member).collect::<Option<_>>()?;
    (members.len() == term.in_sync.len()).then_some(members)
}
