//! Preparation of a leg: protocol step 2. What may hold data is never made anew and never zeroed.

use meshstor_crds::conditions as c;

use super::{LegStep, Record, View, report};
use crate::host::{LedgerEntry, Part};

/// The next step towards a partition that was proved to be zeros, as far as it must be; none when it was prepared.
pub(super) fn step(view: &View<'_>) -> Option<LegStep> {
    if view.facts.partition.is_none() {
        return Some(partition(view));
    }
    let ledger = view.facts.ledger.as_ref();
    if ledger.is_some_and(|l| l.zeroed) {
        return None;
    }
    if used(view) {
        return Some(restore(view));
    }
    let old = ledger.cloned().unwrap_or_default();
    let part = if view.spec().overwritten { Part::Ends } else { Part::Whole };
    Some(LegStep::Zero { part, then: LedgerEntry { blank: true, zeroed: true, ..old } })
}

/// Whether the leg was ever prepared, or taken over from an earlier volume: then its bytes may be a volume's.
fn used(view: &View<'_>) -> bool {
    let status = view.status();
    status.partition.is_some()
        || status.zeroed_percent == Some(100)
        || status.revoked_below.is_some()
        || status.spent_grant.is_some()
        || view.spec().epoch > 0
        || view.spec().partition_uuid.is_some()
}

fn partition(view: &View<'_>) -> LegStep {
    if used(view) {
        let what = "the partition is gone from its drive; it is not made again, because the record may count on it";
        return report::stalled(view, c::REASON_CONFLICT, what);
    }
    let bytes = u64::try_from(view.spec().size_bytes).unwrap_or_default();
    LegStep::CreatePartition { bytes, label: view.name().to_owned() }
}

/// The ledger was lost (rule 1): the record is read with a quorum, and every grant so far counts as spent.
fn restore(view: &View<'_>) -> LegStep {
    let epoch = match view.record {
        Record::Unread => return LegStep::ReadRecord,
        Record::Absent => 0,
        Record::Present(term) => term.epoch,
    };
    let status = view.status();
    let old = view.facts.ledger.clone().unwrap_or_default();
    let spent = [
        Some(old.spent_grant),
        status.spent_grant,
        view.spec().grant.as_ref().map(|g| g.number),
        status.export.as_ref().map(|e| e.grant),
    ];
    // `revokedBelow` was confirmed when no older array held the leg: what holds it now is of that epoch.
    let held = if view.facts.held_by.is_some() { status.revoked_below.unwrap_or(0) } else { 0 };
    let entry = LedgerEntry {
        epoch: old.epoch.max(epoch),
        spent_grant: spent.into_iter().flatten().max().unwrap_or(0),
        spent_boot: view.boot_id.to_owned(),
        blank: false,
        zeroed: true,
        local_epoch: old.local_epoch.max(held),
    };
    LegStep::WriteLedger { entry, why: "it was lost; restored from the record" }
}
