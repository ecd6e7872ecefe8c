//! Deletion of a leg: protocol step 13, rule 8 (retire before wipe).

use meshstor_crds::{REPLICA_FINALIZER, TermPhase};

use super::{LegStep, Record, View};

/// The next step of a deletion; none while the leg lives, or while the record still may need it.
pub(super) fn step(view: &View<'_>) -> Option<LegStep> {
    if !view.deleting() {
        return None;
    }
    if !view.replica.metadata.finalizers.iter().flatten().any(|f| f == REPLICA_FINALIZER) {
        return Some(LegStep::Settled);
    }
    if *view.record == Record::Unread {
        return Some(LegStep::ReadRecord);
    }
    allowed(view.record, view.name(), view.spec().partition_uuid.is_some()).then(|| remove(view))
}

/// Whether the record lets this leg be wiped (rule 8). Where there is no record nothing was ever granted, and a leg that the volume made
/// holds nothing; one that it took over holds what an earlier volume wrote.
pub(super) fn allowed(record: &Record, leg: &str, adopted: bool) -> bool {
    match record {
        Record::Unread => false,
        Record::Absent => !adopted,
        Record::Present(term) => term.phase == TermPhase::Retired || term.retired.iter().any(|l| l == leg),
    }
}

fn remove(view: &View<'_>) -> LegStep {
    let facts = view.facts;
    if let Some(export) = facts.exports.first() {
        return LegStep::Revoke { nqn: export.nqn.clone() };
    }
    if facts.held_by.is_some() {
        return super::report::step(view);
    }
    if facts.partition.is_some() || facts.ledger.is_some() {
        return LegStep::DeletePartition;
    }
    LegStep::RemoveFinalizer
}
