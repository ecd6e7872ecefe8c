//! Plans of a leg, one table for each step of the protocol.
#![allow(clippy::unwrap_used)]

use meshstor_crds::*;
use uuid::Uuid;

use super::*;
use crate::host::{ExportFacts, PartitionFacts};

const BOOT: &str = "boot-2";

struct Bed {
    replica: MeshReplica,
    facts: LegFacts,
    record: Record,
    disowned: bool,
    locked_out: bool,
    failing: bool,
    memory: Memory,
}

fn entry(epoch: i64) -> LedgerEntry {
    LedgerEntry { epoch, zeroed: true, spent_boot: BOOT.to_owned(), ..LedgerEntry::default() }
}

fn nqn(epoch: i64, grant: i64) -> String {
    naming::export_nqn("uid", epoch, grant)
}

fn live(epoch: i64, grant: i64) -> ExportFacts {
    ExportFacts {
        nqn: nqn(epoch, grant),
        host_nqn: Some("host-x".to_owned()),
        device: Some("/dev/p1".into()),
        device_uuid: Some(Uuid::nil()),
        enabled: true,
        listening: Some(("10.0.0.1".to_owned(), 42000)),
    }
}

impl Bed {
    /// A leg of node `n` that was prepared and told of epoch 2, confirmed.
    fn new() -> Self {
        let spec = MeshReplicaSpec {
            volume: "v".to_owned(),
            volume_uid: "u".to_owned(),
            slot: 0,
            mirror_set: 0,
            node: "n".to_owned(),
            drive: "d".to_owned(),
            size_bytes: 1 << 20,
            epoch: 2,
            grant: None,
            transport: Transport::default(),
            io_queues: 2,
            replaces: None,
            overwritten: false,
            replace: false,
            array_uuid: None,
            partition_uuid: None,
        };
        let mut replica = MeshReplica::new("v-0", spec);
        replica.metadata.uid = Some("uid".to_owned());
        replica.metadata.finalizers = Some(vec![REPLICA_FINALIZER.to_owned()]);
        let partition = PartitionFacts { device: "/dev/p1".into(), first_byte: 1 << 20, size: 1 << 20 };
        let facts = LegFacts { partition: Some(partition), ledger: Some(entry(2)), ..LegFacts::default() };
        replica.status = Some(MeshReplicaStatus { revoked_below: Some(2), ..MeshReplicaStatus::default() });
        let (disowned, locked_out, failing) = (false, false, false);
        Self { replica, facts, record: Record::Unread, disowned, locked_out, failing, memory: Memory::default() }
    }

    fn grant(mut self, number: i64, consumer: &str) -> Self {
        let (consumer, host_nqn) = (consumer.to_owned(), "host-x".to_owned());
        self.replica.spec.grant =
            Some(Grant { epoch: self.replica.spec.epoch, number, consumer, host_nqn, copy_later: false });
        self
    }

    fn ledger(mut self, change: impl FnOnce(&mut LedgerEntry)) -> Self {
        change(self.facts.ledger.as_mut().unwrap());
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn plan(&self) -> LegStep {
        plan(&View {
            replica: &self.replica,
            facts: &self.facts,
            node: "n",
            boot_id: BOOT,
            address: Some("10.0.0.1"),
            record: &self.record,
            disowned: self.disowned,
            locked_out: self.locked_out,
            failing: self.failing,
            memory: &self.memory,
            now: &Time(jiff::Timestamp::UNIX_EPOCH),
        })
    }

    fn reported(&self) -> MeshReplicaStatus {
        match self.plan() {
            LegStep::Report(status) => *status,
            other => panic!("{other}"),
        }
    }
}

fn fresh(bed: Bed) -> Bed {
    bed.with(|b| {
        b.replica.status = None;
        b.replica.spec.epoch = 0;
        b.facts = LegFacts::default();
    })
}

#[test]
fn step_2_a_leg_is_made_zeroed_and_reported_blank() {
    // I5: each step is derived from what is there.
    let mut bed = fresh(Bed::new());
    assert!(matches!(bed.plan(), LegStep::CreatePartition { bytes: 1_048_576, .. }));
    bed.facts.partition = Bed::new().facts.partition;
    let LegStep::Zero { then, part } = bed.plan() else { panic!() };
    assert!(then.blank && then.zeroed && part == Part::Whole);
    bed.replica.spec.overwritten = true;
    assert!(matches!(bed.plan(), LegStep::Zero { part: Part::Ends, .. }));
    let mib = |size: u64| Part::Ends.ranges(size << 20).map(|range| (range.start >> 20, range.end >> 20));
    assert_eq!((mib(100), mib(12), mib(3)), ([(0, 8), (92, 100)], [(0, 8), (8, 12)], [(0, 3), (3, 3)]));
    bed.facts.ledger = Some(then);
    assert!(bed.reported().partition.unwrap().blank);
}

#[test]
fn what_may_hold_data_is_never_made_anew_or_zeroed() {
    // I1: a partition or ledger that is gone is no reason to start from zeros.
    let mut bed = Bed::new().with(|b| b.facts.partition = None);
    assert!(conditions::is_true(&bed.reported().conditions, conditions::STALLED));
    bed = Bed::new().with(|b| b.facts.ledger = None);
    assert_eq!(bed.plan(), LegStep::ReadRecord, "rule 1: a quorum read first");
    bed.record = Record::Absent;
    let LegStep::WriteLedger { entry, .. } = bed.grant(7, "x").plan() else { panic!() };
    assert!(entry.zeroed && !entry.blank);
    assert_eq!(entry.spent_grant, 7, "every grant so far counts as spent");
}

#[test]
fn what_was_taken_over_is_never_made_zeroed_or_wiped_for_want_of_a_record() {
    // I1: a volume that was rebuilt from its drives has its only copy in partitions that no object of its own ever made.
    let taken = |change: fn(&mut Bed)| {
        let mut bed = fresh(Bed::new());
        bed.replica.spec.partition_uuid = Some("0b0e8f34-0000-4000-8000-0000000000bb".to_owned());
        bed.facts = Bed::new().facts;
        change(&mut bed);
        bed
    };
    let gone = taken(|b| b.facts = LegFacts::default());
    assert!(conditions::is_true(&gone.reported().conditions, conditions::STALLED));
    let untold = taken(|b| b.facts.ledger = None);
    assert_eq!(untold.plan(), LegStep::ReadRecord);
    let reported = taken(|_| {}).reported().partition.unwrap();
    assert_eq!((reported.uuid.as_str(), reported.blank), ("0b0e8f34-0000-4000-8000-0000000000bb", false));
    let mut deleted = taken(|b| b.replica.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH)));
    deleted.record = Record::Absent;
    assert!(matches!(deleted.plan(), LegStep::Report(_)), "nobody has said that it may be wiped");
    deleted.record = term(TermPhase::Running, &["v-0"]);
    assert_eq!(deleted.plan(), LegStep::DeletePartition);
}

#[test]
fn step_4_the_epoch_is_durable_before_anything_is_confirmed() {
    // I2: ledger, then barrier, then the word.
    let mut bed = Bed::new().with(|b| b.replica.spec.epoch = 3).ledger(|l| l.spent_grant = 5);
    bed.facts.exports = vec![live(2, 5)];
    assert!(matches!(bed.plan(), LegStep::WriteLedger { entry, .. } if entry.epoch == 3));
    bed = bed.ledger(|l| l.epoch = 3);
    assert_eq!(bed.plan(), LegStep::Revoke { nqn: nqn(2, 5) });
    bed.facts.exports.clear();
    let status = bed.reported();
    assert_eq!((status.revoked_below, status.export), (Some(3), None));
}

#[test]
fn step_4_a_leg_that_an_older_array_holds_is_not_confirmed() {
    // I2: a local leg is confirmed when no older array holds it.
    let bed = Bed::new().with(|b| b.replica.spec.epoch = 3).ledger(|l| (l.epoch, l.local_epoch) = (3, 2));
    let bed = bed.with(|b| b.facts.held_by = Some("/dev/md100".into())).grant(1, "n");
    assert_eq!(bed.reported().revoked_below, Some(2));
}

#[test]
fn step_6_a_remote_grant_is_spent_before_the_export() {
    // I1, I2: spent and not blank in the ledger, in the same step before it is open.
    let LegStep::Export { entry, spec } = Bed::new().grant(4, "x").plan() else { panic!() };
    assert_eq!((entry.spent_grant, entry.spent_boot.as_str(), entry.blank), (4, BOOT, false));
    assert_eq!((spec.nqn, spec.host_nqn.as_str()), (nqn(2, 4), "host-x"));
    let bed = Bed::new().grant(4, "x").with(|b| b.replica.status.as_mut().unwrap().revoked_below = Some(1));
    assert_eq!(bed.reported().revoked_below, Some(2), "confirmed first");
}

#[test]
fn step_6_a_local_grant_is_in_the_ledger_before_the_array() {
    // I2: nothing is exported for a local consumer.
    let LegStep::WriteLedger { entry, .. } = Bed::new().ledger(|l| l.blank = true).grant(4, "n").plan() else {
        panic!()
    };
    assert_eq!((entry.local_epoch, entry.blank), (2, false));
    let held = Bed::new().ledger(|l| l.local_epoch = 1).with(|b| b.facts.held_by = Some("/dev/md1".into()));
    assert!(matches!(held.grant(4, "n").plan(), LegStep::Report(_)), "an older array is not made a newer one's");
}

#[test]
fn step_10_a_spent_grant_is_never_served_again() {
    // I1: rule 1, whatever boot it was spent on.
    let spent = || Bed::new().grant(4, "x").ledger(|l| l.spent_grant = 4);
    let status = spent().reported();
    assert_eq!((status.spent_grant, status.export), (Some(4), None));
    let half = spent().with(|b| b.facts.exports = vec![ExportFacts { enabled: false, ..live(2, 4) }]);
    assert_eq!(half.plan(), LegStep::Revoke { nqn: nqn(2, 4) });
    let served = spent().with(|b| b.facts.exports = vec![live(2, 4)]);
    assert_eq!(served.reported().export.unwrap().grant, 4);
    let older = Bed::new().grant(3, "x").ledger(|l| l.spent_grant = 4);
    assert_eq!(older.reported().export, None);
    let retry = spent().with(|b| b.memory.unserved = Some(4));
    assert!(matches!(retry.plan(), LegStep::Export { .. }), "it failed in this process and was never open");
}

#[test]
fn a_leg_that_its_consumer_disowned_ends_the_export_and_waits() {
    // I1: rule 9, a barrier between two connections.
    let bed = Bed::new().grant(4, "x").ledger(|l| l.spent_grant = 4).with(|b| b.disowned = true);
    let bed = bed.with(|b| b.facts.exports = vec![live(2, 4)]);
    assert_eq!(bed.plan(), LegStep::Revoke { nqn: nqn(2, 4) });
    let next = Bed::new().grant(5, "x").ledger(|l| l.spent_grant = 4).with(|b| b.disowned = true);
    assert!(matches!(next.plan(), LegStep::Report(_)), "not before the consumer saw it end");
}

#[test]
fn a_leg_told_of_more_than_its_spec_serves_nobody() {
    // I2: the highest epoch ever seen is in the ledger, not in the spec.
    let bed = Bed::new().grant(4, "x").ledger(|l| (l.epoch, l.spent_grant) = (3, 4));
    let bed = bed.with(|b| b.facts.exports = vec![live(2, 4)]);
    assert_eq!(bed.plan(), LegStep::Revoke { nqn: nqn(2, 4) });
}

fn term(phase: TermPhase, retired: &[&str]) -> Record {
    Record::Present(Box::new(Term {
        epoch: 2,
        node: "x".to_owned(),
        phase,
        in_sync: vec!["v-1".to_owned()],
        bitmap_usable: vec![],
        retired: retired.iter().map(|&s| s.to_owned()).collect(),
        initialised: true,
        writer: None,
    }))
}

#[test]
fn step_13_retire_before_wipe() {
    // I1: rule 8, and the finalizer goes last.
    let deleted = |record: Record| {
        let mut bed = Bed::new();
        bed.replica.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        bed.record = record;
        bed
    };
    assert_eq!(deleted(Record::Unread).plan(), LegStep::ReadRecord);
    assert!(matches!(deleted(term(TermPhase::Running, &[])).plan(), LegStep::Report(_)));
    for record in [Record::Absent, term(TermPhase::Retired, &[]), term(TermPhase::Running, &["v-0"])] {
        let mut bed = deleted(record);
        bed.facts.exports = vec![live(2, 1)];
        assert_eq!(bed.plan(), LegStep::Revoke { nqn: nqn(2, 1) });
        bed.facts.exports.clear();
        assert_eq!(bed.plan(), LegStep::DeletePartition);
        bed.facts = LegFacts::default();
        assert_eq!(bed.plan(), LegStep::RemoveFinalizer);
    }
}

#[test]
fn a_leg_in_a_foreign_array_waits_for_a_person_and_is_not_touched() {
    // I2, I7: neither confirmed nor called ready, and said why, unless the ledger bears the array out.
    let held = |bed: Bed| {
        bed.with(|b| (b.facts.held_by, b.facts.held_by_stranger) = (Some("/dev/md127".into()), true)).grant(4, "n")
    };
    let bed = held(Bed::new().with(|b| b.replica.spec.epoch = 3).ledger(|l| (l.epoch, l.local_epoch) = (3, 2)));
    let status = bed.reported();
    let stalled = status.conditions.iter().find(|c| c.type_ == conditions::STALLED).unwrap();
    assert_eq!(stalled.reason, conditions::REASON_FOREIGN_ASSEMBLY);
    assert!(stalled.message.contains("/dev/md127"));
    assert_eq!(status.revoked_below, Some(2));
    let adopted = held(Bed::new().ledger(|l| l.local_epoch = 2)).reported();
    assert!(conditions::is_true(&adopted.conditions, conditions::READY), "the note of our own array was lost");
}

#[test]
fn what_is_reported_stays() {
    // I4: the status that was written asks for nothing more.
    let mut bed = Bed::new().grant(4, "x").ledger(|l| l.spent_grant = 4);
    bed.facts.exports = vec![live(2, 4)];
    bed.replica.status = Some(bed.reported());
    assert_eq!(bed.plan(), LegStep::Settled);
}

#[test]
fn a_consumer_that_lost_its_connection_is_let_in_once_more_behind_the_barrier() {
    // Rule 9: between two connections of one grant nothing of the first is left; the grant and the ledger stay what they are.
    let mut bed = Bed::new().grant(1, "x").ledger(|l| l.spent_grant = 1).with(|b| b.facts.exports = vec![live(2, 1)]);
    assert!(!matches!(bed.plan(), LegStep::Readmit { .. }));
    bed.locked_out = true;
    let LegStep::Readmit { spec } = bed.plan() else { panic!("{}", bed.plan()) };
    assert_eq!((spec.nqn, spec.host_nqn), (nqn(2, 1), "host-x".to_owned()));
    bed.disowned = true;
    assert_eq!(bed.plan(), LegStep::Revoke { nqn: nqn(2, 1) }, "it was given up: a new grant it must be");
    bed.disowned = false;
    bed.replica.spec.epoch = 3;
    assert!(!matches!(bed.plan(), LegStep::Readmit { .. }), "a newer epoch lets nobody of an older one in");
}

/// I7: that a drive fails is said once and stays said, whatever the consumer says later, until a person takes it back.
#[test]
fn a_failing_drive_stays_one_until_a_person_trusts_it() {
    let said = |status: &MeshReplicaStatus| meshstor_crds::conditions::is_true(&status.conditions, "Failing");
    let mut bed = Bed::new().with(|b| b.failing = true);
    let status = bed.reported();
    assert!(said(&status));
    bed.replica.status = Some(status);
    bed.failing = false;
    assert_eq!(bed.plan(), LegStep::Settled);
    let stalled =
        super::trouble(&bed.replica, "HostError", "the drive is gone", true, &Time(jiff::Timestamp::UNIX_EPOCH));
    assert!(said(&stalled), "nor does another trouble hide it");
    bed.replica.metadata.annotations = Some([("meshstor.io/trust-drive".to_owned(), "true".to_owned())].into());
    assert!(!said(&bed.reported()));
}

#[test]
fn an_export_that_something_restored_at_boot_serves_nobody() {
    // I1, rule 1: the ledger says on which boot the grant was served.
    let bed = Bed::new().grant(1, "x").ledger(|l| l.spent_grant = 1).with(|b| b.facts.exports = vec![live(2, 1)]);
    assert!(!matches!(bed.plan(), LegStep::Revoke { .. }));
    let restored = bed.ledger(|l| l.spent_boot = "boot-1".to_owned());
    assert_eq!(restored.plan(), LegStep::Revoke { nqn: nqn(2, 1) });
}
