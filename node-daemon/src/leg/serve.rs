//! Epochs, revocation and grants of a prepared leg: protocol steps 4, 6 and 10, rules 1 and 2.

use meshstor_crds::{Grant, naming};

use super::{LegStep, View, report};
use crate::host::{ExportFacts, ExportSpec, LedgerEntry};

/// What the leg may serve now.
pub(super) enum Service<'a> {
    /// Nobody may use it.
    Nobody,
    /// This node's own array may.
    Local,
    /// The grant's host may, through this export.
    Live(&'a Grant, &'a ExportFacts),
    /// The grant was served before and its export is gone: it is never served again.
    Spent(&'a Grant),
    /// It may be exported now.
    Open(&'a Grant),
}

/// The next step of a prepared leg.
pub(super) fn step(view: &View<'_>) -> LegStep {
    let Some(ledger) = view.facts.ledger.clone() else { return LegStep::Settled };
    let epoch = view.spec().epoch;
    // The ledger first: whatever happens next, nothing of an older epoch is opened any more.
    if ledger.epoch < epoch {
        return LegStep::WriteLedger { entry: LedgerEntry { epoch, ..ledger }, why: "a newer epoch" };
    }
    if let Some(export) = unwanted(view) {
        return LegStep::Revoke { nqn: export.nqn.clone() };
    }
    // Confirmation is reported before anything of this epoch is opened.
    if !confirmed(view) || view.status().revoked_below.unwrap_or(0) < epoch {
        return report::step(view);
    }
    match service(view) {
        Service::Local if ledger.local_epoch < epoch && view.facts.held_by.is_none() => {
            let entry = LedgerEntry { local_epoch: epoch, blank: false, ..ledger };
            LegStep::WriteLedger { entry, why: "this node's own array will use the leg" }
        }
        Service::Open(grant) if view.facts.held_by.is_none() && !view.disowned => open(view, grant, ledger),
        _ => report::step(view),
    }
}

fn open(view: &View<'_>, grant: &Grant, ledger: LedgerEntry) -> LegStep {
    let Some(address) = view.address else { return report::step(view) };
    let spec = ExportSpec {
        nqn: naming::export_nqn(view.uid(), grant.epoch, grant.number),
        host_nqn: grant.host_nqn.clone(),
        address: address.to_owned(),
        io_queues: u16::try_from(view.spec().io_queues).unwrap_or(1),
    };
    let spent_boot = view.boot_id.to_owned();
    LegStep::Export { entry: LedgerEntry { spent_grant: grant.number, spent_boot, blank: false, ..ledger }, spec }
}

/// No I/O of an older epoch can land (rule 2): every export of one is gone, and no array of one holds the leg.
pub(super) fn confirmed(view: &View<'_>) -> bool {
    let epoch = view.spec().epoch;
    let facts = view.facts;
    let ours = |l: &LedgerEntry| l.epoch == epoch && (facts.held_by.is_none() || (epoch > 0 && l.local_epoch == epoch));
    facts.ledger.as_ref().is_some_and(ours) && unwanted(view).is_none()
}

/// An export that must go: any but the live one of the current grant.
fn unwanted<'a>(view: &'a View<'_>) -> Option<&'a ExportFacts> {
    let live = match service(view) {
        Service::Live(_, export) if !view.disowned => Some(&export.nqn),
        _ => None,
    };
    view.facts.exports.iter().find(|e| Some(&e.nqn) != live)
}

/// What the spec's grant comes to.
pub(super) fn service<'a>(view: &'a View<'_>) -> Service<'a> {
    let spec = view.spec();
    let ledger = view.facts.ledger.clone().unwrap_or_default();
    // A leg that was told of a newer epoch than its spec's serves nobody.
    let Some(grant) = spec.grant.as_ref().filter(|g| g.epoch == spec.epoch && ledger.epoch == spec.epoch) else {
        return Service::Nobody;
    };
    if grant.consumer == view.node {
        return Service::Local;
    }
    let nqn = naming::export_nqn(view.uid(), grant.epoch, grant.number);
    match view.facts.exports.iter().find(|e| e.nqn == nqn) {
        Some(export) if whole(export, grant) && ledger.spent_grant == grant.number => Service::Live(grant, export),
        _ if ledger.spent_grant < grant.number => Service::Open(grant),
        None if ledger.spent_grant == grant.number && view.memory.unserved == Some(grant.number) => {
            Service::Open(grant)
        }
        _ => Service::Spent(grant),
    }
}

fn whole(export: &ExportFacts, grant: &Grant) -> bool {
    export.enabled
        && export.listening.is_some()
        && export.device.is_some()
        && export.device_uuid.is_some()
        && export.host_nqn.as_deref() == Some(grant.host_nqn.as_str())
}
