//! Plans of an attachment: what must come first, and what must never come.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use meshstor_crds::*;
use uuid::Uuid;

use super::record::RecordError;
use super::*;
use crate::host::{
    ArrayFacts, ConnectionFacts, ControllerState, LedgerEntry, LegFacts, MemberFacts, PartitionFacts, SyncFacts,
};

mod back;
mod gate;

pub(super) struct Bed {
    pub(super) attachment: MeshAttachment,
    pub(super) replicas: Vec<MeshReplica>,
    pub(super) local: LegFacts,
    pub(super) array: Option<ArrayFacts>,
    pub(super) connections: Vec<ConnectionFacts>,
    pub(super) held: BTreeSet<String>,
    pub(super) memory: Memory,
    /// What the volume asks for is known.
    pub(super) resolved: bool,
    pub(super) bitmap: Bitmap,
    pub(super) bitmap_raid10: bool,
    pub(super) traffic: crate::host::Traffic,
}

pub(super) fn nqn(epoch: i64) -> String {
    naming::export_nqn("uid-1", epoch, 1)
}

pub(super) fn replica(slot: i32, node: &str) -> MeshReplica {
    let spec = MeshReplicaSpec {
        volume: "v".to_owned(),
        volume_uid: "u".to_owned(),
        slot,
        mirror_set: 0,
        node: node.to_owned(),
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
    let mut replica = MeshReplica::new(&naming::leg("v", slot), spec);
    replica.metadata.uid = Some(format!("uid-{slot}"));
    replica
}

pub(super) fn member(name: &str) -> MemberFacts {
    MemberFacts {
        name: name.to_owned(),
        slot: Some(0),
        in_sync: true,
        faulty: false,
        write_mostly: false,
        replacement: false,
        latency_ewma_ns: None,
    }
}

impl Bed {
    /// Attached on `n` in epoch 2: v-0 is local, v-1 remote, both in sync, mounted nowhere and not asked to be.
    pub(super) fn new() -> Self {
        let spec = MeshAttachmentSpec { node: Some("n".to_owned()), mount_path: None, lost: None };
        let mut attachment = MeshAttachment::new("v", spec);
        let term = Term {
            epoch: 2,
            node: "n".to_owned(),
            phase: TermPhase::Running,
            in_sync: vec!["v-0".to_owned(), "v-1".to_owned()],
            bitmap_usable: vec![],
            retired: vec![],
            initialised: true,
            writer: Some(Writer { incarnation: "me".to_owned(), seq: 1 }),
        };
        attachment.status = Some(MeshAttachmentStatus { term: Some(term), ..MeshAttachmentStatus::default() });
        let mut remote = replica(1, "m");
        let export = Export {
            epoch: 2,
            grant: 1,
            nqn: nqn(2),
            address: "10.0.0.2".to_owned(),
            port: 42000,
            device_uuid: Uuid::nil().to_string(),
        };
        remote.status = Some(MeshReplicaStatus { export: Some(export), ..MeshReplicaStatus::default() });
        let ledger = LedgerEntry { epoch: 2, local_epoch: 2, zeroed: true, ..LedgerEntry::default() };
        let partition = PartitionFacts { device: "/dev/p1".into(), first_byte: 0, size: 1 << 20 };
        let array = ArrayFacts {
            uuid: Uuid::nil(),
            device: "/dev/md100".into(),
            running: true,
            slots: 2,
            set_slots: Some(2),
            frozen: false,
            bitmap: Some(meshstor_crds::Bitmap::Internal),
            latency_balance: None,
            degraded: 0,
            members: vec![member("p1"), member("nvme0n1")],
            sync: None,
            sync_max: None,
            suspended: false,
            failure_gate: None,
            mounts: vec![],
        };
        let connection = ConnectionFacts {
            nqn: nqn(2),
            controller: "nvme0".to_owned(),
            state: ControllerState::Live,
            device: Some("/dev/nvme0n1".into()),
        };
        Self {
            attachment,
            replicas: vec![replica(0, "n"), remote],
            local: LegFacts { partition: Some(partition), ledger: Some(ledger), ..LegFacts::default() },
            array: Some(array),
            connections: vec![connection],
            held: BTreeSet::new(),
            memory: Memory { epoch: 2, assembled: true, ..Memory::default() },
            resolved: true,
            bitmap: Bitmap::Internal,
            bitmap_raid10: false,
            traffic: crate::host::Traffic::default(),
        }
    }

    pub(super) fn term(&mut self) -> &mut Term {
        self.attachment.status.as_mut().unwrap().term.as_mut().unwrap()
    }

    pub(super) fn hold(&mut self) {
        self.connections[0].state = ControllerState::Connecting;
        self.held.insert(nqn(2));
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&View<'_>) -> T) -> T {
        let local = |r: &MeshReplica| (r.spec.node == "n").then_some(&self.local);
        let legs: Vec<_> = self.replicas.iter().map(|replica| Leg { replica, local: local(replica) }).collect();
        let params = Params {
            filesystem: Some("xfs"),
            min_in_sync: 1,
            io_queues: 2,
            queue_size: 64,
            keep_alive: 2,
            write_mostly: true,
            takeover: false,
            bitmap_raid10: self.bitmap_raid10,
            bitmap: self.bitmap,
            uuid: Uuid::nil(),
        };
        look(&View {
            me: "n",
            incarnation: "me",
            attachment: &self.attachment,
            params: self.resolved.then_some(&params),
            legs: &legs,
            array: self.array.as_ref(),
            traffic: &self.traffic,
            connections: &self.connections,
            held: &self.held,
            overdue: false,
            memory: &self.memory,
            now: &Time(jiff::Timestamp::UNIX_EPOCH),
        })
    }

    pub(super) fn plan(&self) -> Step {
        self.look(plan)
    }

    /// The plan, once what is to be reported was reported.
    pub(super) fn quiet(&mut self) -> Step {
        match self.plan() {
            Step::Report(status) => {
                self.attachment.status = Some(*status);
                self.plan()
            }
            step => step,
        }
    }
}

#[test]
fn step_7_claimed_when_all_of_s_is_reached_and_nothing_runs_here() {
    // I2: the claim is for one assembly; what runs before it is of an older epoch.
    let mut bed = Bed::new();
    bed.term().phase = TermPhase::Started;
    bed.memory.assembled = false;
    assert!(matches!(bed.plan(), Step::Evict { .. }));
    bed.array = None;
    assert_eq!(bed.plan(), Step::Claim);
    bed.local.ledger.as_mut().unwrap().local_epoch = 1;
    assert!(matches!(bed.plan(), Step::Report(_)), "the local leg is not ours yet");
    bed.connections.clear();
    assert!(matches!(bed.plan(), Step::Connect { leg, .. } if leg == "v-1"));
}

#[test]
fn step_8_assembled_from_exactly_s_and_created_only_before_initialised() {
    // I6: S and nothing else is the start.
    let mut bed = Bed::new();
    bed.array = None;
    bed.memory.assembled = false;
    let Step::Assemble(spec) = bed.plan() else { panic!("{}", bed.plan()) };
    let devices: Vec<_> = spec.members.iter().map(|m| (m.device.to_str().unwrap(), m.write_mostly)).collect();
    assert_eq!(devices, [("/dev/p1", false), ("/dev/nvme0n1", true)]);
    bed.term().in_sync = vec!["v-0".to_owned()];
    let Step::Assemble(spec) = bed.plan() else { panic!() };
    assert_eq!(spec.members.len(), 1);
    bed.term().initialised = false;
    assert!(matches!(bed.plan(), Step::Create(_)));
}

#[test]
fn rule_4_an_array_that_is_gone_ends_its_epoch() {
    // I2: one assembly, one epoch; and what another process claimed is adopted only where it runs.
    let mut bed = Bed::new();
    bed.array = None;
    bed.connections.clear();
    assert_eq!(bed.plan(), Step::RecordEnded { reason: EndedReason::ArrayGone });
    let mut other = Bed::new();
    other.term().writer.as_mut().unwrap().incarnation = "other".to_owned();
    assert_eq!(other.plan(), Step::Adopt);
    other.local.ledger.as_mut().unwrap().local_epoch = 1;
    assert!(matches!(other.plan(), Step::StopArray { .. }), "members of two epochs");
    other.array = None;
    other.connections.clear();
    assert_eq!(other.plan(), Step::RecordEnded { reason: EndedReason::ArrayGone });
}

#[test]
fn step_9_record_then_disconnect_then_remove() {
    // I1: the order of rule 5.
    let mut bed = Bed::new();
    bed.hold();
    assert!(matches!(bed.plan(), Step::RecordLoss { leg, .. } if leg == "v-1"));
    bed.term().in_sync = vec!["v-0".to_owned()];
    assert_eq!(bed.plan(), Step::Disconnect { nqn: nqn(2) });
    bed.connections.clear();
    bed.held.clear();
    let gone = &mut bed.array.as_mut().unwrap().members[1];
    (gone.faulty, gone.in_sync) = (true, false);
    assert!(matches!(bed.plan(), Step::RemoveMember { name, .. } if name == "nvme0n1"), "by exclusion");
}

#[test]
fn step_9_what_md_says_of_a_member_without_a_path_is_no_proof() {
    // I1, I7: MD counts it as in sync until it writes to it, and acknowledges that write without it.
    let mut bed = Bed::new();
    bed.memory.names = [("nvme0n1".to_owned(), "v-1".to_owned())].into();
    bed.term().in_sync = vec!["v-0".to_owned()];
    let connection = bed.connections.clone();
    let back = Step::RecordInSync { leg: "v-1".to_owned() };
    assert_eq!(bed.quiet(), back, "its path is back, and nothing was written without it");
    let path: [fn(&mut Bed); 4] = [
        |bed| bed.connections.clear(),
        |bed| bed.connections[0].state = ControllerState::Connecting,
        |bed| bed.connections[0].device = Some("/dev/nvme1n1".into()),
        |bed| bed.memory.leaving.extend([nqn(2)]),
    ];
    for (n, change) in path.into_iter().enumerate() {
        (bed.connections, bed.memory.leaving) = (connection.clone(), BTreeSet::new());
        change(&mut bed);
        assert_ne!(bed.quiet(), back, "{n}");
    }
    // It is taken out, so that the leg can return; never where MD has no other.
    bed.connections.clear();
    let fails = |step: Step| matches!(step, Step::ExpelMember { name, .. } if name == "nvme0n1");
    assert!(fails(bed.plan()));
    bed.array.as_mut().unwrap().members[0].in_sync = false;
    assert!(!fails(bed.plan()));
}

#[test]
fn step_9_a_loss_is_recorded_while_a_slow_step_waits_for_it() {
    // I1: nothing that hangs keeps the loss from being recorded.
    let mut bed = Bed::new();
    bed.attachment.spec.node = None;
    bed.memory.slow = Some("unmount".to_owned());
    bed.hold();
    assert!(matches!(bed.plan(), Step::RecordLoss { .. }));
}

#[test]
fn step_9_a_second_loss_is_recorded_while_the_first_member_is_removed() {
    // I4: the removal waits until MD has written the superblock of the second, which does not answer.
    let mut bed = Bed::new();
    let removal = Step::RemoveMember { device: "/dev/md100".into(), name: "nvme9n1".to_owned() };
    assert!(removal.slow());
    bed.memory.slow = Some(removal.to_string());
    bed.hold();
    assert!(matches!(bed.plan(), Step::RecordLoss { .. }));
    bed.term().in_sync = vec!["v-0".to_owned()];
    assert_eq!(bed.plan(), Step::Disconnect { nqn: nqn(2) });
}

#[test]
fn a_start_that_hangs_on_a_lost_path_ends_when_its_epoch_is_another_s() {
    // I4: its target has closed the path for good, and this node's leg is not confirmed before the start is over.
    let mut bed = Bed::new();
    bed.term().node = "other".to_owned();
    bed.array = None;
    bed.memory.slow = Some("assemble the array".to_owned());
    bed.memory.assembled = false;
    assert!(!matches!(bed.quiet(), Step::Disconnect { .. }), "it answers, so the start goes on");
    bed.hold();
    assert_eq!(bed.plan(), Step::Disconnect { nqn: nqn(2) });
    bed.memory.assembled = true;
    assert!(
        !matches!(bed.quiet(), Step::Disconnect { .. }),
        "that it is not there is not sure while something is done to it"
    );
}

#[test]
fn an_unknown_outcome_is_settled_first() {
    // I1: no other write of the record is outstanding when a leg goes.
    let mut bed = Bed::new();
    bed.term().in_sync = vec!["v-0".to_owned()];
    bed.hold();
    bed.memory.unsettled = true;
    assert_eq!(bed.plan(), Step::Settle);
}

#[test]
fn the_last_leg_stays() {
    // I1: never to empty, and never the last that MD counts.
    let mut bed = Bed::new();
    bed.term().in_sync = vec!["v-1".to_owned()];
    bed.array.as_mut().unwrap().members.remove(0);
    bed.attachment.spec.node = Some("n".to_owned());
    bed.hold();
    for _ in 0..3 {
        let step = bed.quiet();
        assert!(!matches!(step, Step::RecordLoss { .. } | Step::Disconnect { .. }), "{step}");
    }
    let wrong = Step::RecordLoss { leg: "v-1".to_owned(), why: "test" };
    assert!(matches!(bed.look(|v| record::next(v, &wrong)), Err(RecordError::BadSet { .. })));
}

#[test]
fn an_epoch_that_nothing_of_s_can_serve_is_abandoned() {
    // I4: the target of the last leg has restarted; a leg of S gets no second grant, and what is held would be held for ever.
    let mut bed = Bed::new();
    bed.term().in_sync = vec!["v-1".to_owned()];
    bed.array.as_mut().unwrap().members.remove(0);
    bed.hold();
    let spent = MeshReplicaStatus { revoked_below: Some(2), spent_grant: Some(1), ..MeshReplicaStatus::default() };
    let grant = Grant { epoch: 2, number: 1, consumer: "n".to_owned(), host_nqn: "h".to_owned(), copy_later: false };
    bed.replicas[1].spec.grant = Some(grant);
    assert!(!matches!(bed.quiet(), Step::Evict { .. }), "it may come back as it is");
    bed.replicas[1].status = Some(spent);
    assert!(matches!(bed.plan(), Step::Evict { .. }));
    bed.memory.evicted = true;
    assert!(matches!(bed.plan(), Step::Disconnect { .. }));
    bed.connections.clear();
    assert!(matches!(bed.plan(), Step::StopArray { .. }));
    bed.array = None;
    assert_eq!(bed.plan(), Step::RecordEnded { reason: EndedReason::ArrayGone });
    let mut other = Bed::new();
    other.replicas[1].clone_from(&bed.replicas[1]);
    other.hold();
    assert!(matches!(other.plan(), Step::RecordLoss { .. }), "another leg of S works: this one is only lost");
}

#[test]
fn an_array_without_a_member_that_serves_ends_its_epoch() {
    // I4: MD keeps its last member when the device is gone, and ends every request with an error for as long as it runs.
    let mut bed = Bed::new();
    let device = Some("/dev/md100".to_owned());
    let shown = ArrayStatus { epoch: 2, device, members: vec![], mount_path: None, resync: None };
    bed.attachment.status.as_mut().unwrap().array = Some(shown);
    let fails = |bed: &mut Bed, n: usize| {
        let member = &mut bed.array.as_mut().unwrap().members[n];
        (member.faulty, member.in_sync) = (true, false);
    };
    fails(&mut bed, 1);
    assert!(matches!(bed.plan(), Step::RecordLoss { leg, .. } if leg == "v-1"), "the other one works");
    fails(&mut bed, 0);
    assert!(!matches!(bed.plan(), Step::Evict { .. }), "MD lacks nobody: the look was torn");
    bed.array.as_mut().unwrap().degraded = 2;
    assert!(matches!(bed.plan(), Step::Evict { .. }));
    bed.array.as_mut().unwrap().running = false;
    assert!(matches!(bed.plan(), Step::Evict { .. }), "MD calls it broken");
    bed.attachment.spec.node = None;
    bed.array.as_mut().unwrap().running = true;
    bed.term().in_sync = vec!["v-0".to_owned()];
    bed.connections.clear();
    bed.memory.names = [("nvme0n1".to_owned(), "v-1".to_owned())].into();
    assert!(
        matches!(bed.plan(), Step::StopArray { .. }),
        "it goes as everything goes, and MD is asked for no member before"
    );
    bed.attachment.spec.node = Some("n".to_owned());
    bed.connections = Bed::new().connections;
    bed.memory.evicted = true;
    assert!(matches!(bed.plan(), Step::Disconnect { .. }));
    bed.connections.clear();
    assert!(matches!(bed.plan(), Step::StopArray { .. }));
    bed.array = None;
    assert_eq!(bed.plan(), Step::RecordEnded { reason: EndedReason::ArrayGone });
}

#[test]
fn an_array_is_dead_when_one_of_its_mirror_sets_is() {
    let mut array = ArrayFacts { degraded: 2, ..Bed::new().array.unwrap() };
    assert!(!array.is_dead());
    array.members[0].in_sync = false;
    assert!(!array.is_dead(), "one is enough");
    (array.slots, array.members[1].slot) = (4, Some(2));
    assert!(array.is_dead(), "slots 0 and 1 have none");
    (array.members[0].in_sync, array.members[0].slot) = (true, Some(1));
    assert!(!array.is_dead());
    array.members[1].slot = None;
    assert!(array.is_dead(), "a spare serves nobody");
}

#[test]
fn members_that_cannot_be_told_apart_lose_nobody() {
    // I1: a leg whose device is not seen is not lost as long as a working member may be its.
    let mut bed = Bed::new();
    bed.local = LegFacts::default();
    bed.array.as_mut().unwrap().degraded = 1;
    assert!(!matches!(bed.quiet(), Step::RecordLoss { .. }));
    bed.memory.names.insert("p1".to_owned(), "v-0".to_owned());
    bed.array.as_mut().unwrap().members[0].faulty = true;
    assert!(matches!(bed.quiet(), Step::RecordLoss { leg, .. } if leg == "v-0"));
}

#[test]
fn a_superseded_consumer_releases_its_paths_only_when_nobody_can_see_it() {
    // I1, I2: held writes of an epoch that is over end when nobody is left to be told that they are done.
    for node in ["m", "n"] {
        let mut bed = Bed::new();
        bed.term().node = node.to_owned();
        bed.term().epoch = 3;
        bed.term().phase = TermPhase::Revoking;
        bed.hold();
        bed.array.as_mut().unwrap().mounts = vec!["/mnt/v".into()];
        bed.memory.slow = Some("unmount".to_owned());
        for _ in 0..3 {
            assert!(matches!(bed.plan(), Step::Evict { .. }), "an unmount that hangs waits for it");
            bed.memory.stuck = Some("somebody is left".to_owned());
        }
        bed.memory.evicted = true;
        assert!(matches!(bed.plan(), Step::Disconnect { .. }));
        bed.connections.clear();
        assert!(matches!(bed.plan(), Step::Report(_) | Step::Settled), "the unmount ends now");
        bed.memory.slow = None;
        assert!(matches!(bed.plan(), Step::StopArray { .. }));
    }
}

#[test]
fn step_10_a_leg_comes_back_by_a_full_rebuild_under_a_grant_of_its_own() {
    // I6: erase, add, and S only when MD says so.
    let mut bed = Bed::new();
    bed.term().in_sync = vec!["v-0".to_owned()];
    let array = bed.array.as_mut().unwrap();
    (array.degraded, _) = (1, array.members.pop());
    let Step::ZeroSuperblock { key, .. } = bed.quiet() else { panic!("{}", bed.plan()) };
    // It is the next one, not yet the one: it is connected to and erased, and waits.
    let granted = bed.replicas[1].spec.grant.clone();
    let later = Grant { epoch: 2, number: 1, consumer: "n".to_owned(), host_nqn: "h".to_owned(), copy_later: true };
    bed.replicas[1].spec.grant = Some(later);
    assert!(matches!(bed.quiet(), Step::ZeroSuperblock { .. }));
    bed.memory.erased.insert(key);
    assert_eq!(bed.quiet(), Step::Settled);
    bed.replicas[1].spec.grant = granted;
    assert!(matches!(bed.plan(), Step::AddMember { leg, .. } if leg == "v-1"));
    let mut back = member("nvme0n1");
    back.in_sync = false;
    bed.array.as_mut().unwrap().members.push(back);
    assert_eq!(bed.quiet(), Step::Settled);
    bed.array.as_mut().unwrap().members[1].in_sync = true;
    assert_eq!(bed.quiet(), Step::RecordInSync { leg: "v-1".to_owned() });
}

#[test]
fn rule_9_a_burnt_export_is_not_connected_again_but_disowned() {
    // I1: the target puts a barrier between two connections.
    let mut bed = Bed::new();
    bed.term().in_sync = vec!["v-0".to_owned()];
    bed.connections.clear();
    let array = bed.array.as_mut().unwrap();
    (array.degraded, _) = (1, array.members.pop());
    bed.memory.burnt.insert(nqn(2));
    let Step::Report(status) = bed.plan() else { panic!("{}", bed.plan()) };
    assert!(disowned(&status, "v-1", 2) && !disowned(&status, "v-0", 2) && !disowned(&status, "v-1", 3));
    bed.attachment.status = Some(*status);
    assert_eq!(bed.plan(), Step::Settled);
    bed.replicas[1].status = None;
    let Step::Report(status) = bed.plan() else { panic!() };
    assert!(!disowned(&status, "v-1", 2), "the target may open the next grant");
}

#[test]
fn step_8_until_initialised_only_a_blank_device_gets_a_filesystem() {
    // I5: what an earlier try left is wiped first.
    let mut bed = Bed::new();
    bed.term().initialised = false;
    assert!(matches!(bed.plan(), Step::Wipe { .. }), "adopted: nobody knows what is there");
    bed.memory.wiped = true;
    assert!(matches!(bed.plan(), Step::Probe { .. }));
    bed.memory.content = Some(crate::host::Content::Filesystem("xfs".to_owned()));
    assert!(matches!(bed.plan(), Step::Wipe { .. }));
    bed.memory.content = Some(crate::host::Content::Blank);
    assert!(matches!(bed.plan(), Step::Mkfs { .. }));
    bed.memory.made = true;
    assert_eq!(bed.plan(), Step::RecordInitialised);
}

#[test]
fn step_11_detach_in_order() {
    // I4: unmount, stop, disconnect, record; then nothing.
    let mut bed = Bed::new();
    bed.attachment.spec.node = None;
    bed.array.as_mut().unwrap().mounts = vec!["/mnt/v".into()];
    assert!(matches!(bed.plan(), Step::Unmount { .. }));
    bed.array.as_mut().unwrap().mounts.clear();
    assert!(matches!(bed.plan(), Step::StopArray { .. }));
    bed.array = None;
    assert!(matches!(bed.plan(), Step::Disconnect { .. }));
    bed.connections.clear();
    let step = bed.plan();
    assert_eq!(step, Step::RecordEnded { reason: EndedReason::Detached });
    bed.attachment.status = bed.look(|v| record::next(v, &step)).unwrap();
    assert_eq!(bed.plan(), Step::Settled);
}

#[test]
fn what_is_reported_stays() {
    // I4, I7: an attached volume asks for nothing, and is Ready.
    let mut bed = Bed::new();
    assert_eq!(bed.quiet(), Step::Settled);
    let conditions = bed.attachment.status.unwrap().conditions;
    assert!(conditions::is_true(&conditions, conditions::READY));
}

/// A bed of a striped volume: v-0 and v-2 are local, v-1 and v-3 remote; sets 0 and 1.
fn striped() -> Bed {
    let mut bed = Bed::new();
    let export = |slot: i32| {
        let mut leg = replica(slot, "m");
        let mut status = bed.replicas[1].status.clone().unwrap();
        status.export.as_mut().unwrap().nqn = naming::export_nqn(&format!("uid-{slot}"), 2, 1);
        leg.spec.mirror_set = slot / 2;
        leg.status = Some(status);
        leg
    };
    let three = export(3);
    let mut two = replica(2, "k");
    two.spec.mirror_set = 1;
    two.status = export(2).status;
    bed.replicas.extend([two, three]);
    let connection = |slot: i32, device: &str| ConnectionFacts {
        nqn: naming::export_nqn(&format!("uid-{slot}"), 2, 1),
        controller: device.to_owned(),
        state: ControllerState::Live,
        device: Some(format!("/dev/{device}").into()),
    };
    bed.connections.extend([connection(2, "nvme2n1"), connection(3, "nvme3n1")]);
    let array = bed.array.as_mut().unwrap();
    array.members = ["p1", "nvme0n1", "nvme2n1", "nvme3n1"].map(member).to_vec();
    (0..).zip(&mut array.members).for_each(|(slot, member)| member.slot = Some(slot));
    array.slots = 4;
    bed.term().in_sync = (0..4).map(|slot| naming::leg("v", slot)).collect();
    bed.attachment.status.as_mut().unwrap().array = None;
    bed
}

fn hold_slot(bed: &mut Bed, slot: i32) {
    let nqn = naming::export_nqn(&format!("uid-{slot}"), 2, 1);
    bed.connections.iter_mut().filter(|c| c.nqn == nqn).for_each(|c| c.state = ControllerState::Connecting);
    bed.held.insert(nqn);
}

/// I1: S keeps a leg of every mirror set; the last of one is held, however many others there are.
#[test]
fn the_last_leg_of_a_mirror_set_is_never_recorded_away() {
    let mut bed = striped();
    hold_slot(&mut bed, 3);
    let step = bed.look(plan);
    assert!(matches!(&step, Step::RecordLoss { leg, .. } if leg == "v-3"), "{step}");
    bed.term().in_sync.retain(|l| l != "v-3");
    hold_slot(&mut bed, 2);
    let step = bed.look(plan);
    assert!(!matches!(step, Step::RecordLoss { .. }), "{step}");
    let forced = Step::RecordLoss { leg: "v-2".to_owned(), why: "a bug" };
    let refused = bed.look(|view| record::next(view, &forced)).unwrap_err();
    assert!(matches!(refused, RecordError::BadSet { .. }), "{refused}");
}

/// I1: two copies of the same blocks on one node are never started, and a member in a slot of another set is not used.
#[test]
fn an_array_whose_mirror_sets_do_not_span_nodes_is_refused() {
    let mut bed = striped();
    bed.replicas[3].spec.node = "k".to_owned();
    bed.term().phase = TermPhase::Started;
    bed.array = None;
    let Step::Report(status) = bed.look(plan) else { panic!("it goes on") };
    let stalled = status.conditions.iter().find(|c| c.type_ == conditions::STALLED).unwrap();
    assert!(
        stalled.message.contains("v-3 and v-2 hold the same blocks (mirror set 1) and are both on k"),
        "{stalled:?}"
    );

    let mut bed = striped();
    bed.array.as_mut().unwrap().members[2].slot = Some(1);
    let Step::Report(status) = bed.look(plan) else { panic!("it goes on") };
    assert_eq!(status.array.and_then(|a| a.device), None);
    let stalled = status.conditions.iter().find(|c| c.type_ == conditions::STALLED).unwrap();
    assert!(stalled.message.contains("leg v-2 of mirror set 1 is in slot 1 of the array"), "{stalled:?}");
}

/// A leg that comes back is added to its own slot, one at a time, and none while something is copied.
#[test]
fn a_leg_of_a_striped_volume_comes_back_into_its_own_slot() {
    let mut bed = striped();
    bed.term().in_sync.truncate(3);
    bed.array.as_mut().unwrap().members.truncate(3);
    bed.array.as_mut().unwrap().degraded = 1;
    bed.memory.erased.insert(naming::export_nqn("uid-3", 2, 1));
    let shown = |bed: &mut Bed| {
        let Step::Report(status) = bed.look(plan) else { return };
        bed.attachment.status = Some(*status);
    };
    shown(&mut bed);
    let step = bed.look(plan);
    assert!(
        matches!(&step, Step::AddMember { leg, member, .. } if leg == "v-3" && member.slot == 3 && !member.write_mostly),
        "{step}"
    );
    bed.array.as_mut().unwrap().sync = Some(SyncFacts { action: "recover".into(), done: 0, total: 9, speed_kib: 1 });
    assert!(!matches!(bed.look(plan), Step::AddMember { .. }));
    bed.array.as_mut().unwrap().sync = None;
    bed.array.as_mut().unwrap().frozen = true;
    assert!(matches!(bed.look(plan), Step::Thaw { .. }));
}

/// I5: an addition that failed may have left a superblock; it is erased again before the next try.
#[test]
fn after_a_failed_addition_the_superblock_is_erased_again() {
    let mut memory = Memory { erased: ["x".to_owned()].into(), ..Memory::default() };
    let member = crate::host::ArrayMember { device: "/dev/x".into(), slot: 1, write_mostly: false };
    let step = Step::AddMember { leg: "v-1".to_owned(), device: "/dev/md100".into(), member };
    let error = crate::host::HostError::Busy { action: "add".to_owned(), cause: "its slot is taken".to_owned() };
    crate::control::effect::regret(&mut memory, &step, &error, true);
    assert!(memory.erased.is_empty());
}

/// I7: what the kernel cannot do is said with its reason, and what it measured moves only in powers of two.
#[test]
fn what_the_kernel_does_beyond_a_stock_one_is_said() {
    let mut bed = Bed::new();
    let said = |bed: &mut Bed, type_: &str| {
        bed.quiet();
        let all = &bed.attachment.status.as_ref().unwrap().conditions;
        let found = all.iter().find(|c| c.type_ == type_).unwrap();
        (found.status.clone(), found.reason.clone(), found.message.clone())
    };
    let (status, reason, message) = said(&mut bed, "ReadLatencyBalanced");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "KernelLacksPatch"));
    assert!(message.contains("reads stay on the local leg"), "{message}");
    assert_eq!(said(&mut bed, "TakeoverSupported").1, "KernelLacksPatch");

    bed.resolved = false;
    assert_eq!(said(&mut bed, "TakeoverSupported").0, "Unknown", "nobody has looked");
    bed.resolved = true;

    bed.array.as_mut().unwrap().latency_balance = Some(true);
    for (member, ns) in bed.array.as_mut().unwrap().members.iter_mut().zip([17_000, 300_000]) {
        member.latency_ewma_ns = Some(ns);
    }
    let (status, _, message) = said(&mut bed, "ReadLatencyBalanced");
    assert_eq!(status, "True");
    assert!(message.ends_with("v-0 about 16 µs, v-1 about 262 µs"), "{message}");
    bed.array.as_mut().unwrap().members[1].latency_ewma_ns = Some(500_000);
    assert!(!matches!(bed.plan(), Step::Report(_)), "a number that moved a little writes nothing");

    bed.array.as_mut().unwrap().latency_balance = Some(false);
    assert_eq!(said(&mut bed, "ReadLatencyBalanced").1, "SwitchedOff");
    bed.array = None;
    bed.memory.slow = Some("assembling".to_owned());
    assert_eq!(said(&mut bed, "ReadLatencyBalanced").0, "Unknown");
    assert_eq!(said(&mut bed, "TakeoverSupported").1, "NotAttached");
}

#[test]
fn progress_has_bytes_speed_and_an_estimate_and_is_said_in_tens() {
    let mut bed = Bed::new();
    bed.array.as_mut().unwrap().members[1].in_sync = false;
    bed.term().in_sync = vec!["v-0".to_owned()];
    let sync = |done| Some(SyncFacts { action: "recover".to_owned(), done, total: 1 << 21, speed_kib: 20_480 });
    bed.array.as_mut().unwrap().sync = sync((1 << 21) / 5);
    bed.quiet();
    let resync = |bed: &Bed| bed.attachment.status.as_ref().unwrap().array.as_ref().unwrap().resync.clone().unwrap();
    let first = resync(&bed);
    assert_eq!((first.percent, first.total_bytes, first.bytes_per_second), (10, Some(1 << 30), Some(20 << 20)));
    assert_eq!((first.done_bytes, first.remaining_seconds), (Some(((1i64 << 21) / 5) * 512), Some(60)));
    bed.array.as_mut().unwrap().sync = sync((1 << 21) / 4);
    bed.quiet();
    assert_eq!(resync(&bed).percent, 20);
    bed.array.as_mut().unwrap().sync = sync((1 << 21) / 4 + 2000);
    assert!(!matches!(bed.plan(), Step::Report(_)), "within a tenth nothing is written");
}

/// md says `recover` for a moment whenever a member has gone.
#[test]
fn a_lost_leg_is_not_called_rebuilding() {
    let mut array = Bed::new().array.unwrap();
    let sync = |action: &str| SyncFacts { action: action.to_owned(), done: 0, total: 8, speed_kib: 0 };
    array.members[1].in_sync = false;
    assert!(report::copies(&array, &sync("recover")));
    array.members[1].faulty = true;
    assert!(!report::copies(&array, &sync("recover")));
    array.members.truncate(1);
    assert!(!report::copies(&array, &sync("recover")));
    assert!(report::copies(&array, &sync("check")));
}

/// I7: who is in the way of a detach, or what the host refused, is said.
#[test]
fn what_keeps_an_attachment_is_said() {
    let reason = |bed: &mut Bed| {
        bed.quiet();
        let all = &bed.attachment.status.as_ref().unwrap().conditions;
        let ready = all.iter().find(|c| c.type_ == "Ready").unwrap();
        let stalled = all.iter().any(|c| c.type_ == "Stalled");
        (ready.reason.clone(), stalled)
    };
    let mut busy = Bed::new();
    busy.attachment.spec.node = None;
    busy.array.as_mut().unwrap().mounts = vec!["/a".into(), "/b".into()];
    assert_eq!(reason(&mut busy), ("Busy".to_owned(), true));
    let mut refused = Bed::new();
    let message = "assemble: no such device".to_owned();
    refused.memory.trouble = Some(super::Trouble { step: String::new(), reason: "HostError", message });
    assert_eq!(reason(&mut refused), ("HostError".to_owned(), false));
}

/// I7: an array that is being taken down loses its members one by one, and no leg is called lost for that.
#[test]
fn a_stop_is_no_loss() {
    let mut bed = Bed::new();
    bed.quiet();
    bed.attachment.spec.node = None;
    let array = bed.array.as_mut().unwrap();
    array.running = false;
    array.members.truncate(1);
    let status = match bed.look(super::report_now) {
        Step::Report(status) => *status,
        _ => bed.attachment.status.clone().unwrap(),
    };
    assert_eq!(status.array.unwrap().members.len(), 2);
}

/// I2: where the array runs for a copy alone nothing is mounted, and whoever wants the volume goes before it.
#[test]
fn an_array_that_runs_for_a_copy_is_mounted_nowhere() {
    let mut bed = Bed::new();
    bed.attachment.spec.mount_path = Some("/data".to_owned());
    bed.quiet();
    assert!(matches!(bed.plan(), Step::Mount { .. }), "{}", bed.plan());
    bed.attachment.spec.node = None;
    assert!(matches!(bed.plan(), Step::StopArray { .. }), "{}", bed.plan());
    bed.attachment.status.as_mut().unwrap().copy_on = Some("n".to_owned());
    assert_eq!(bed.quiet(), Step::Settled);
    let ready = |bed: &Bed| {
        let all = &bed.attachment.status.as_ref().unwrap().conditions;
        all.iter().find(|c| c.type_ == "Ready").map(|c| (c.status.clone(), c.reason.clone()))
    };
    assert_eq!(
        ready(&bed),
        Some(("True".to_owned(), "Detached".to_owned())),
        "nobody may think that it is where it is wanted"
    );
    bed.attachment.spec.node = Some("m".to_owned());
    assert!(matches!(bed.plan(), Step::StopArray { .. }), "{}", bed.plan());
}

#[test]
fn a_target_is_told_whose_writes_are_held() {
    // Rule 9: only a leg of S, in its epoch, is let in once more.
    let mut bed = Bed::new();
    bed.term().in_sync = vec!["v-1".to_owned()];
    bed.array.as_mut().unwrap().members.remove(0);
    bed.hold();
    let Step::Report(status) = bed.plan() else { panic!("{}", bed.plan()) };
    assert!(held(&status, "v-1", 2));
    assert!(!held(&status, "v-0", 2) && !held(&status, "v-1", 3));
    let mut other = *status;
    other.term.as_mut().unwrap().in_sync = vec!["v-0".to_owned()];
    assert!(!held(&other, "v-1", 2));
}

#[test]
fn a_start_whose_connection_failed_is_given_up() {
    // Rule 9: what it tried may have used the door up; another epoch has another grant.
    let mut bed = Bed::new();
    bed.term().phase = TermPhase::Started;
    bed.memory.assembled = false;
    bed.array = None;
    bed.connections.clear();
    assert!(matches!(bed.plan(), Step::Connect { .. }));
    bed.memory.burnt.insert(nqn(2));
    assert_eq!(bed.plan(), Step::RecordEnded { reason: EndedReason::StartFailed });
}

#[test]
fn a_second_leg_is_recorded_away_while_the_path_of_the_first_still_goes() {
    // I4: MD writes to every other leg before the first is gone; where the second hangs too, its loss must not wait for that.
    let mut bed = Bed::new();
    bed.term().in_sync = vec!["v-0".to_owned()];
    bed.hold();
    assert_eq!(bed.plan(), Step::Disconnect { nqn: nqn(2) });
    bed.memory.leaving.insert(nqn(2));
    assert!(!matches!(bed.quiet(), Step::Disconnect { .. }), "once is enough");
    bed.term().in_sync = vec!["v-0".to_owned(), "v-1".to_owned()];
    assert!(matches!(bed.quiet(), Step::RecordLoss { leg, .. } if leg == "v-1"));
}

#[test]
fn nobody_is_killed_for_an_array_that_a_stranger_assembled() {
    // A person's array holds no write of the volume: it is stopped when nobody uses it, and never taken away.
    let mut bed = Bed::new();
    bed.term().node = "m".to_owned();
    assert!(matches!(bed.plan(), Step::Evict { .. }));
    (bed.local.held_by, bed.local.held_by_stranger) = (Some("/dev/md100".into()), true);
    assert!(matches!(bed.plan(), Step::StopArray { .. }), "{}", bed.plan());
}
