//! What a leg may serve, by its spec, its ledger and its exports; and whether an older epoch is over.

use std::path::Path;

use meshstor_crds::{Grant, naming};

use super::View;
use crate::host::{ExportFacts, LedgerEntry};

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

/// No I/O of an older epoch can land (rule 2): every export of one is gone, and no array of one holds the leg.
pub(super) fn confirmed(view: &View<'_>) -> bool {
    let epoch = view.spec().epoch;
    let facts = view.facts;
    let ours = |l: &LedgerEntry| l.epoch == epoch && (facts.held_by.is_none() || (epoch > 0 && l.local_epoch == epoch));
    facts.ledger.as_ref().is_some_and(ours) && unwanted(view).is_none()
}

/// The array that holds the leg and is none of ours. One that bears out the ledger is taken for ours even where its note was lost.
pub(super) fn stranger<'a>(view: &'a View<'_>) -> Option<&'a Path> {
    let taken = view.facts.ledger.as_ref().is_some_and(|l| l.local_epoch == view.spec().epoch);
    let ours = !view.facts.held_by_stranger || (taken && matches!(service(view), Service::Local));
    view.facts.held_by.as_deref().filter(|_| !ours)
}

/// An export that must go: any but the live one of the current grant.
pub(super) fn unwanted<'a>(view: &'a View<'_>) -> Option<&'a ExportFacts> {
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
        // One that something restored at boot is not it: what the drive had not flushed may be gone (rule 1).
        Some(export) if whole(view, export, grant) && served(&ledger, grant, view.boot_id) => {
            Service::Live(grant, export)
        }
        _ if ledger.spent_grant < grant.number => Service::Open(grant),
        None if ledger.spent_grant == grant.number && view.memory.unserved == Some(grant.number) => {
            Service::Open(grant)
        }
        _ => Service::Spent(grant),
    }
}

fn served(ledger: &LedgerEntry, grant: &Grant, boot: &str) -> bool {
    ledger.spent_grant == grant.number && ledger.spent_boot == boot
}

/// An export of another device than the leg's is none of the leg, whatever it is called.
fn whole(view: &View<'_>, export: &ExportFacts, grant: &Grant) -> bool {
    let partition = view.facts.partition.as_ref();
    export.enabled
        && export.listening.is_some()
        && export.device.as_ref().is_some_and(|device| partition.is_none_or(|p| p.device == *device))
        && export.device_uuid.is_some()
        && export.host_nqn.as_deref() == Some(grant.host_nqn.as_str())
}
