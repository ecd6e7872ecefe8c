//! The consumer's part of a replacement, step by step.

use super::Step;
use super::tests::{Bed, member, nqn, replica};
use crate::host::{FailureGate, MemberFailure, SyncFacts};
use meshstor_crds::{Export, MeshReplicaStatus, naming};

/// v-1 is to give way to v-1.1, which is connected as nvme1n1 and erased.
fn bed() -> Bed {
    let mut bed = Bed::new();
    bed.replicas[1].spec.replace = true;
    let mut heir = replica(1, "o");
    heir.metadata.name = Some("v-1.1".to_owned());
    heir.metadata.uid = Some("uid-heir".to_owned());
    heir.spec.replaces = Some("v-1".to_owned());
    let of_heir = naming::export_nqn("uid-heir", 2, 1);
    let mut export: Export = bed.replicas[1].status.as_ref().unwrap().export.clone().unwrap();
    export.nqn.clone_from(&of_heir);
    heir.status = Some(MeshReplicaStatus { export: Some(export), ..MeshReplicaStatus::default() });
    bed.replicas.push(heir);
    let mut connection = bed.connections[0].clone();
    (connection.nqn, connection.device) = (of_heir.clone(), Some("/dev/nvme1n1".into()));
    bed.connections.push(connection);
    bed.memory.erased.insert(of_heir);
    bed
}

/// The heir is filled beside v-1, up to the hold.
fn filled() -> Bed {
    let mut bed = bed();
    let mut new = member("nvme1n1");
    (new.in_sync, new.replacement) = (false, true);
    let array = bed.array.as_mut().unwrap();
    array.members.push(new);
    array.sync_max = Some(90);
    array.sync = Some(SyncFacts { action: "recover".to_owned(), done: 90, total: 100, speed_kib: 1 });
    bed
}

#[test]
fn an_heir_is_filled_beside_the_member_that_works() {
    // I3: the old leg stays in S and in the array.
    let mut bed = bed();
    let Step::ReplaceMember { leg, old, member, .. } = bed.quiet() else { panic!("{}", bed.plan()) };
    assert_eq!((leg.as_str(), old.as_str(), member.slot), ("v-1.1", "nvme0n1", 1));
    bed.array.as_mut().unwrap().sync = Some(SyncFacts { action: "resync".to_owned(), done: 1, total: 9, speed_kib: 1 });
    assert_eq!(bed.quiet(), Step::Settled, "one thing is copied at a time");
}

#[test]
fn writes_are_held_before_the_copy_ends_and_until_its_end_is_recorded() {
    // I1: what MD acknowledged after the change would not be on the leg that the record names.
    let mut bed = filled();
    assert!(matches!(bed.quiet(), Step::Suspend { .. }));
    bed.array.as_mut().unwrap().suspended = true;
    assert!(matches!(bed.quiet(), Step::FinishSync { .. }));
    let array = bed.array.as_mut().unwrap();
    (array.sync_max, array.sync) = (None, None);
    assert_eq!(bed.quiet(), Step::Settled, "MD is about to change");
    let array = bed.array.as_mut().unwrap();
    (array.members[1].in_sync, array.members[1].faulty, array.members[2].in_sync) = (false, true, true);
    assert_eq!(bed.quiet(), Step::RecordInSync { leg: "v-1.1".to_owned() }, "no loss: one write says both");
    bed.term().in_sync = vec!["v-0".to_owned(), "v-1.1".to_owned()];
    assert!(matches!(bed.quiet(), Step::Resume { .. }));
    bed.array.as_mut().unwrap().suspended = false;
    assert_eq!(bed.quiet(), Step::Disconnect { nqn: nqn(2) });
    bed.memory.names.insert("nvme0n1".to_owned(), "v-1".to_owned());
    bed.connections.remove(0);
    assert_eq!(bed.quiet(), Step::RemoveMember { device: "/dev/md100".into(), name: "nvme0n1".to_owned() });
}

#[test]
fn with_the_failure_gate_nothing_is_held_before_the_copy_ends() {
    // I1: MD holds from the change on, and goes on when one write of the record has said it.
    let mut bed = filled();
    bed.array.as_mut().unwrap().failure_gate = Some(FailureGate::On);
    assert!(matches!(bed.quiet(), Step::FinishSync { .. }));
    let array = bed.array.as_mut().unwrap();
    (array.sync_max, array.sync) = (None, None);
    (array.members[1].in_sync, array.members[1].faulty, array.members[2].in_sync) = (false, true, true);
    let failure = MemberFailure { number: 3, member: "nvme0n1".to_owned() };
    array.failure_gate = Some(FailureGate::Holding(vec![failure]));
    assert_eq!(bed.quiet(), Step::RecordInSync { leg: "v-1.1".to_owned() });
    bed.term().in_sync = vec!["v-0".to_owned(), "v-1.1".to_owned()];
    assert_eq!(bed.quiet(), Step::Agree { device: "/dev/md100".into(), number: 3 });
    bed.array.as_mut().unwrap().failure_gate = Some(FailureGate::On);
    assert_eq!(bed.quiet(), Step::Disconnect { nqn: nqn(2) });
}

#[test]
fn a_copy_is_not_ended_while_a_member_does_not_answer() {
    // I1: the hold would wait for what is in flight.
    let mut bed = filled();
    bed.hold();
    assert!(matches!(bed.quiet(), Step::RecordLoss { .. }));
    bed.term().in_sync = vec!["v-0".to_owned()];
    bed.array.as_mut().unwrap().members.remove(1);
    bed.connections.remove(0);
    bed.held.clear();
    // The old leg is gone: its heir goes on as any leg that is rebuilt.
    assert!(matches!(bed.quiet(), Step::FinishSync { .. }));
}

#[test]
fn writes_go_on_when_nothing_comes_of_it() {
    // I4: the new leg is lost, or the volume is to leave.
    let mut lost = filled();
    let array = lost.array.as_mut().unwrap();
    array.suspended = true;
    array.members[2].faulty = true;
    lost.connections.pop();
    lost.memory.names.insert("nvme1n1".to_owned(), "v-1.1".to_owned());
    assert!(matches!(lost.quiet(), Step::Resume { .. }), "{}", lost.plan());
    let mut leaves = filled();
    leaves.array.as_mut().unwrap().suspended = true;
    leaves.attachment.spec.node = None;
    assert!(matches!(leaves.quiet(), Step::Resume { .. }));
    // The copy began anew, for whatever reason: it may take long.
    let mut anew = filled();
    let array = anew.array.as_mut().unwrap();
    array.suspended = true;
    array.sync.as_mut().unwrap().done = 3;
    assert!(matches!(anew.quiet(), Step::Resume { .. }));
}

#[test]
fn a_single_copy_leaves_when_the_other_has_everything() {
    // I1: v-0 is the only leg of S; its heir has the other slot.
    let mut bed = bed();
    bed.replicas.remove(1);
    bed.connections.remove(0);
    bed.replicas[1].spec.replaces = Some("v-0".to_owned());
    bed.term().in_sync = vec!["v-0".to_owned()];
    let array = bed.array.as_mut().unwrap();
    (array.degraded, _) = (1, array.members.pop());
    assert!(matches!(bed.quiet(), Step::AddMember { leg, .. } if leg == "v-1.1"));
    bed.array.as_mut().unwrap().members.push(member("nvme1n1"));
    let step = bed.quiet();
    assert_eq!(step, Step::RecordInSync { leg: "v-1.1".to_owned() });
    let next = bed.look(|view| super::record::next(view, &step)).unwrap().unwrap().term.unwrap();
    assert_eq!(next.in_sync, ["v-1.1"], "one write");
    bed.term().in_sync = next.in_sync;
    let Step::ExpelMember { leg, name, .. } = bed.quiet() else { panic!("{}", bed.plan()) };
    assert_eq!((leg.as_str(), name.as_str()), ("v-0", "p1"));
    let old = &mut bed.array.as_mut().unwrap().members[0];
    (old.in_sync, old.faulty) = (false, true);
    assert!(matches!(bed.quiet(), Step::RemoveMember { name, .. } if name == "p1"));
    bed.array.as_mut().unwrap().members.remove(0);
    assert_eq!(bed.quiet(), Step::Settled, "it does not come back");
    assert_eq!(nqn(2), naming::export_nqn("uid-1", 2, 1));
}
