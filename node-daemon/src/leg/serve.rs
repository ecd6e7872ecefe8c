//! Epochs, revocation and grants of a prepared leg: protocol steps 4, 6 and 10, rules 1 and 2.

use meshstor_crds::{Grant, naming};

use super::service::{Service, confirmed, service, unwanted};
use super::{LegStep, View, report};
use crate::host::{ExportSpec, LedgerEntry};

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
        Service::Live(grant, _) if view.locked_out => {
            spec(view, grant).map_or_else(|| report::step(view), |spec| LegStep::Readmit { spec })
        }
        Service::Open(grant) if view.facts.held_by.is_none() && !view.disowned => open(view, grant, ledger),
        _ => report::step(view),
    }
}

fn open(view: &View<'_>, grant: &Grant, ledger: LedgerEntry) -> LegStep {
    let Some(spec) = spec(view, grant) else { return report::step(view) };
    let spent_boot = view.boot_id.to_owned();
    LegStep::Export { entry: LedgerEntry { spent_grant: grant.number, spent_boot, blank: false, ..ledger }, spec }
}

/// The export of a grant; none while the node has no address for it.
fn spec(view: &View<'_>, grant: &Grant) -> Option<ExportSpec> {
    Some(ExportSpec {
        nqn: naming::export_nqn(view.uid(), grant.epoch, grant.number),
        host_nqn: grant.host_nqn.clone(),
        transport: view.spec().transport,
        address: view.address?.to_owned(),
        io_queues: u16::try_from(view.spec().io_queues).unwrap_or(1),
    })
}
