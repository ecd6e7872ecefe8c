//! The failure gate: MD is told to go on when the record says the same, and never before.

use super::*;
use crate::control::effect::regret;
use crate::host::{FailureGate, HostError, MemberFailure};

fn gated(gate: FailureGate) -> Bed {
    let mut bed = Bed::new();
    bed.array.as_mut().unwrap().failure_gate = Some(gate);
    bed.memory.names = [("p1".to_owned(), "v-0".to_owned()), ("nvme0n1".to_owned(), "v-1".to_owned())].into();
    bed
}

fn failure(number: u32, member: &str) -> MemberFailure {
    MemberFailure { number, member: member.to_owned() }
}

/// v-1 has failed with this number.
fn holding(number: u32) -> Bed {
    let mut bed = gated(FailureGate::Holding(vec![failure(number, "nvme0n1")]));
    let array = bed.array.as_mut().unwrap();
    (array.members[1].faulty, array.members[1].in_sync, array.degraded) = (true, false, 1);
    bed
}

#[test]
fn the_gate_is_on_before_anybody_sees_the_device() {
    let mut bed = gated(FailureGate::Off);
    let Step::HoldFailures { device } = bed.plan() else { panic!("{}", bed.plan()) };
    assert!(bed.plan().slow(), "it may wait for what is in flight");
    // A kernel that refuses, of an array with bad blocks for one: the volume runs as on a stock kernel.
    let error = HostError::Failed { action: "write on".to_owned(), cause: "invalid argument".to_owned() };
    regret(&mut bed.memory, &Step::HoldFailures { device }, &error, false);
    assert!(bed.memory.failed.is_none() && matches!(bed.plan(), Step::Report(_)));
    assert!(matches!(gated(FailureGate::On).plan(), Step::Report(_)));
}

#[test]
fn rule_5_a_failure_is_agreed_to_when_it_is_recorded() {
    // I1: what is acknowledged then is on every leg of S.
    let mut bed = holding(7);
    assert!(matches!(bed.plan(), Step::RecordLoss { leg, .. } if leg == "v-1"));
    bed.memory.unsettled = true;
    assert_eq!(bed.plan(), Step::Settle, "the outcome is not known");
    bed.memory.unsettled = false;
    bed.term().in_sync = vec!["v-0".to_owned()];
    let device = bed.array.as_ref().unwrap().device.clone();
    assert_eq!(bed.plan(), Step::Agree { device, number: 7 });
    // Before it is let go of, or taken out: MD keeps whoever waits.
    bed.array.as_mut().unwrap().failure_gate = Some(FailureGate::On);
    assert_eq!(bed.plan(), Step::Disconnect { nqn: nqn(2) });
}

#[test]
fn a_second_failure_is_not_agreed_to_with_the_first() {
    let mut bed = holding(7);
    bed.term().in_sync = vec!["v-0".to_owned()];
    let gate = |failures| Some(FailureGate::Holding(failures));
    bed.array.as_mut().unwrap().failure_gate = gate(vec![failure(7, "nvme0n1"), failure(9, "p1")]);
    assert!(!matches!(bed.plan(), Step::Agree { .. }), "v-0 is of S");
    // Whose member it is is not known: it may be of S, unless all of S works.
    bed.array.as_mut().unwrap().failure_gate = gate(vec![failure(7, "nvme0n1"), failure(9, "nvme7n1")]);
    assert!(matches!(bed.plan(), Step::Agree { number: 9, .. }));
    bed.array.as_mut().unwrap().members[0].in_sync = false;
    assert!(!matches!(bed.plan(), Step::Agree { .. }));
}

#[test]
fn a_leg_that_is_not_recorded_yet_stands_in_for_the_last_one() {
    // I1: what MD holds is on v-1 as well, and what it acknowledged before v-0 failed.
    let mut bed = gated(FailureGate::Holding(vec![failure(5, "p1")]));
    bed.term().in_sync = vec!["v-0".to_owned()];
    let array = bed.array.as_mut().unwrap();
    (array.members[0].faulty, array.members[0].in_sync, array.degraded) = (true, false, 1);
    // Whoever wants it elsewhere waits: an unmount would hang.
    bed.attachment.spec.node = None;
    assert_eq!(bed.plan(), Step::RecordInSync { leg: "v-1".to_owned() });
    bed.term().in_sync.push("v-1".to_owned());
    assert!(matches!(bed.plan(), Step::RecordLoss { leg, .. } if leg == "v-0"));
    bed.term().in_sync.remove(0);
    assert!(matches!(bed.plan(), Step::Agree { number: 5, .. }));
}

#[test]
fn an_epoch_that_is_over_is_refused_before_anything_else_is_taken_from_it() {
    // I1, I2: MD acknowledges nothing any more, so its paths go although somebody uses it.
    for gate in [FailureGate::On, FailureGate::Holding(vec![failure(7, "nvme0n1")])] {
        let mut bed = gated(gate);
        bed.term().node = "m".to_owned();
        bed.term().epoch = 3;
        bed.array.as_mut().unwrap().mounts = vec!["/mnt/v".into()];
        assert!(matches!(bed.plan(), Step::RefuseWrites { .. }));
        bed.array.as_mut().unwrap().failure_gate = Some(FailureGate::Refused);
        assert_eq!(bed.plan(), Step::Disconnect { nqn: nqn(2) });
        bed.connections.clear();
        assert!(matches!(bed.plan(), Step::Evict { .. }));
        bed.memory.evicted = true;
        assert!(matches!(bed.plan(), Step::StopArray { .. }));
    }
}
