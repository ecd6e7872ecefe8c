//! Legs that come back: who may by the bitmap, and what is recorded before.

use super::*;
use crate::control::effect::{Found, regret, remember};
use crate::host::{HostError, SyncFacts};

/// The record after the step.
fn after(bed: &mut Bed, step: &Step) -> Term {
    let status = bed.look(|v| record::next(v, step)).unwrap().unwrap();
    bed.attachment.status = Some(status.clone());
    status.term.unwrap()
}

fn loss() -> Step {
    Step::RecordLoss { leg: "v-1".to_owned(), why: "test" }
}

/// v-1 was recorded away, is reached again, and is no member.
fn away(named: bool) -> Bed {
    let mut bed = Bed::new();
    bed.term().in_sync = vec!["v-0".to_owned()];
    bed.term().bitmap_usable = if named { vec!["v-1".to_owned()] } else { vec![] };
    let array = bed.array.as_mut().unwrap();
    (array.degraded, _) = (1, array.members.pop());
    bed
}

fn error(conflict: bool) -> HostError {
    let (action, cause) = ("take it back".to_owned(), "no".to_owned());
    if conflict { HostError::Conflict { action, cause } } else { HostError::Failed { action, cause } }
}

/// I6, rule 7: a leg is named in the write that records it away, and only where the bitmap that marks what it lacks is the classic
/// one, of a volume that is made, on a kernel that keeps its bits.
#[test]
fn a_leg_that_leaves_is_named_where_the_bitmap_is_proof() {
    assert_eq!(after(&mut Bed::new(), &loss()).bitmap_usable, ["v-1"]);
    let none: [fn(&mut Bed); 4] = [
        |bed| bed.bitmap = Bitmap::Lockless,
        |bed| bed.array.as_mut().unwrap().bitmap = Some(Bitmap::None),
        |bed| bed.term().initialised = false,
        |bed| bed.resolved = false,
    ];
    for (n, change) in none.into_iter().enumerate() {
        let mut bed = Bed::new();
        change(&mut bed);
        assert!(after(&mut bed, &loss()).bitmap_usable.is_empty(), "{n}");
    }
    for right in [false, true] {
        let mut bed = striped();
        bed.bitmap_raid10 = right;
        assert_eq!(after(&mut bed, &loss()).bitmap_usable.len(), usize::from(right));
    }
}

/// I6: a named leg is not erased; nobody is named who is in sync.
#[test]
fn a_named_leg_comes_back_by_the_bitmap() {
    let mut bed = away(true);
    assert!(matches!(bed.quiet(), Step::Readd { leg, member, .. } if leg == "v-1" && member.slot == 1));
    bed.array.as_mut().unwrap().sync = Some(SyncFacts { action: "resync".to_owned(), done: 0, total: 9, speed_kib: 1 });
    assert!(!matches!(bed.quiet(), Step::Readd { .. } | Step::ZeroSuperblock { .. }), "bits set in a resync are lost");
    bed.array.as_mut().unwrap().sync = None;
    bed.array.as_mut().unwrap().members.push(crate::host::MemberFacts { slot: None, ..member("nvme0n1") });
    assert!(!matches!(bed.quiet(), Step::RecordInSync { .. }), "it has no slot yet");
    bed.array.as_mut().unwrap().members[1].slot = Some(1);
    let step = bed.quiet();
    assert_eq!(step, Step::RecordInSync { leg: "v-1".to_owned() });
    assert!(after(&mut bed, &step).bitmap_usable.is_empty());
    bed.term().bitmap_usable = vec!["v-0".to_owned()];
    assert!(matches!(bed.look(|v| record::next(v, &Step::Settle)), Err(RecordError::BadSet { .. })));
}

/// I1, I5: a leg that may not return by the bitmap is struck off before it is rebuilt: a rebuild that is cut off leaves a superblock like
/// that of a leg that may.
#[test]
fn a_refused_leg_is_struck_off_and_then_rebuilt() {
    for (conflict, tries) in [(true, 1), (false, 3)] {
        let mut bed = away(true);
        for _ in 0..tries {
            let step = bed.quiet();
            assert!(matches!(step, Step::Readd { .. }), "{step}");
            regret(&mut bed.memory, &step, &error(conflict), true);
        }
        let step = bed.quiet();
        assert_eq!(step, Step::Forget { legs: vec!["v-1".to_owned()] });
        assert!(after(&mut bed, &step).bitmap_usable.is_empty());
        let step = bed.quiet();
        assert!(matches!(step, Step::ZeroSuperblock { .. }), "{step}");
        remember(&mut bed.memory, &step, Found::Done);
        assert!(matches!(bed.quiet(), Step::AddMember { .. }));
    }
    let changes: [fn(&mut Bed); 2] = [|bed| bed.bitmap = Bitmap::None, |bed| bed.array.as_mut().unwrap().bitmap = None];
    for change in changes {
        let mut bed = away(true);
        change(&mut bed);
        assert!(matches!(bed.quiet(), Step::Forget { .. }), "what is named is not believed for ever");
    }
}

/// I1, rule 7 [16]: an array that becomes whole clears its bits, so they are proof for nobody else from before the addition on.
#[test]
fn others_are_struck_off_before_the_last_slot_may_be_filled() {
    let mut bed = away(false);
    // v-1 stays away, and v-2 takes its slot.
    let mut new = replica(1, "m");
    new.metadata.name = Some("v-2".to_owned());
    new.status = bed.replicas[1].status.take();
    new.metadata.uid = bed.replicas[1].metadata.uid.replace("uid-9".to_owned());
    bed.replicas.push(new);
    bed.term().bitmap_usable = vec!["v-1".to_owned()];
    let key = nqn(2);
    bed.memory.erased.insert(key);
    let step = bed.quiet();
    assert_eq!(step, Step::Forget { legs: vec!["v-1".to_owned()] });
    bed.array.as_mut().unwrap().slots = 3;
    assert!(matches!(bed.quiet(), Step::AddMember { leg, .. } if leg == "v-2"), "a slot stays empty: the bits stay");
    bed.array.as_mut().unwrap().slots = 2;
    assert!(after(&mut bed, &step).bitmap_usable.is_empty());
    assert!(matches!(bed.quiet(), Step::AddMember { leg, .. } if leg == "v-2"));
}

/// I6, rule 7: a leg that the start left out held everything when the epoch began; who did not see that does not name it, and a kernel
/// that forgets bits ends what was proof.
#[test]
fn a_claim_names_the_legs_that_the_start_left_out() {
    let claimed = |change: fn(&mut Bed)| {
        let mut bed = striped();
        bed.bitmap_raid10 = true;
        bed.term().phase = TermPhase::Started;
        bed.term().in_sync.retain(|l| l != "v-1" && l != "v-3");
        bed.term().retired = vec!["v-3".to_owned()];
        bed.memory.begun_with = (0..4).map(|slot| naming::leg("v", slot)).collect();
        change(&mut bed);
        after(&mut bed, &Step::Claim).bitmap_usable
    };
    assert_eq!(claimed(|_| {}), ["v-1"], "and not the retired one");
    assert!(claimed(|bed| bed.memory.begun_with.clear()).is_empty());
    let forgets = claimed(|bed| {
        bed.bitmap_raid10 = false;
        bed.term().bitmap_usable = vec!["v-1".to_owned()];
    });
    assert!(forgets.is_empty());
}

/// A leg whose drive fails is not taken back, and is said to fail as long as it is no member; in S it is used, and said to fail.
#[test]
fn a_failing_leg_is_not_welcomed_back() {
    let mut bed = away(true);
    bed.memory.failing.insert("v-1".to_owned(), "3 errors".to_owned());
    assert_eq!(bed.quiet(), Step::Settled);
    let status = bed.attachment.status.clone().unwrap();
    assert!(failing(&status, "v-1") && !failing(&status, "v-0"));
    bed.memory.failing.clear();
    let want = conditions::Want::new("Failing", true, "DriveFailing", "");
    let now = Time(jiff::Timestamp::UNIX_EPOCH);
    bed.replicas[1].status.as_mut().unwrap().conditions = conditions::apply(&[], &[want], None, &now);
    assert_eq!(bed.quiet(), Step::Settled, "a daemon that started anew reads it from the leg");
    bed.replicas[1].metadata.annotations = Some([("meshstor.io/trust-drive".to_owned(), "true".to_owned())].into());
    assert!(matches!(bed.quiet(), Step::Readd { .. }), "a person trusts it");

    let mut used = Bed::new();
    used.memory.failing.insert("v-1".to_owned(), "slow".to_owned());
    assert_eq!(used.quiet(), Step::Settled, "it is not recorded away for that");
    let status = used.attachment.status.unwrap();
    assert!(failing(&status, "v-1") && conditions::is_true(&status.conditions, conditions::READY));
}

/// The limit of a rebuild is set while it runs, follows the pace, and is lifted when it is over.
#[test]
fn a_rebuild_has_a_limit_and_nothing_else_has() {
    let mut bed = Bed::new();
    bed.array.as_mut().unwrap().members[1].in_sync = false;
    bed.term().in_sync = vec!["v-0".to_owned()];
    bed.array.as_mut().unwrap().sync =
        Some(SyncFacts { action: "recover".to_owned(), done: 0, total: 9, speed_kib: 1 });
    assert!(!matches!(bed.quiet(), Step::Pace { .. }), "nobody has counted yet");
    bed.memory.pace = Some(Pace::first(crate::host::Io::default()));
    let Step::Pace { kib: Some(kib), .. } = bed.quiet() else { panic!("{}", bed.plan()) };
    bed.traffic.rebuild_limit = Some(kib);
    assert!(!matches!(bed.quiet(), Step::Pace { .. }));
    (bed.array.as_mut().unwrap().sync, bed.memory.pace) = (None, None);
    assert!(matches!(bed.quiet(), Step::Pace { kib: None, .. }));
}
