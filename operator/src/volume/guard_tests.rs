//! Each row: a step that breaks a rule, and the invariant by which it is refused.

use super::action::Action;
use super::fixtures::*;
use super::guard::check;
use super::terms::successor;
use super::world::World;
use kube::ResourceExt as _;
use meshstor_crds::{Ended, EndedReason, Export, Grant, LostConsumer, Term, TermPhase};

fn write(term: Term) -> Action {
    Action::WriteTerm(Box::new(term))
}

fn term(world: &World) -> Term {
    world.term().unwrap().clone()
}

fn grant(world: &World, number: i64) -> Action {
    let (epoch, consumer) = (term(world).epoch, term(world).node);
    let grant = Grant { epoch, number, consumer, host_nqn: "nqn.host.n1".into(), copy_later: false };
    Action::SetGrant { leg: "v-1".into(), grant }
}

fn ended(mut world: World, epoch: i64) -> World {
    let status = world.attachment.as_mut().unwrap().status.as_mut().unwrap();
    status.ended = Some(Ended { epoch, reason: EndedReason::Detached });
    world
}

#[track_caller]
fn refused(world: &World, action: &Action, invariant: &str) {
    let broken = check(world, action).expect_err(&format!("{action} was not refused"));
    assert_eq!(broken.invariant, invariant, "{action}: {broken}");
}

/// I6: for a volume that takes legs over the operator makes no legs, no record and no first epoch; a person's command does.
#[test]
fn a_volume_that_takes_legs_over_is_begun_by_a_person() {
    use super::{placing, plan, terms, validate};
    let mut world = detached();
    let adopts = serde_json::json!({
        "arrayUuid": "0b0e8f34-0000-4000-8000-0000000000aa", "epoch": 7,
        "legs": [{"name": "v-0", "slot": 0, "node": "n1", "drive": "d", "inSync": true}],
    });
    world.volume.spec.adopts = serde_json::from_value(adopts).unwrap();
    world.attachment.as_mut().unwrap().spec.node = Some("n1".into());
    assert_eq!(terms::first(&world), None);
    let mut begun = detached();
    begun.attachment.as_mut().unwrap().spec.node = Some("n1".into());
    let first = terms::first(&begun).unwrap();
    refused(&world, &write(first), "I6");
    let stalled = |world: &World| {
        let settled = validate::validate(world);
        let plan = plan::plan(world, &settled);
        assert!(plan.actions.is_empty(), "{:?}", plan.actions);
        plan.blocked.unwrap().reason
    };
    assert_eq!(stalled(&world), meshstor_crds::conditions::REASON_ADOPTING);
    world.attachment = None;
    assert_eq!(stalled(&world), meshstor_crds::conditions::REASON_ADOPTING);
    refused(&world, &Action::CreateAttachment, "I2");
    let spec = Box::new(leg(0, "n3").spec);
    world.legs.clear();
    refused(&world, &Action::CreateReplica { leg: "v-0".into(), spec }, "I6");
    // Its record is there, and the objects of one mirror set are not: an epoch now would start without it.
    let mut half = with_term(7, TermPhase::Running, &["v-0", "v-1"]);
    half.volume.spec.adopts = world.volume.spec.adopts.clone();
    half.volume.spec.adopts.as_mut().unwrap().legs[0].name = "v-2".into();
    half = ended(half, 7);
    assert_eq!(stalled(&half), meshstor_crds::conditions::REASON_ADOPTING);
    refused(&half, &write(successor(&term(&half), "n2")), "I1");
    leg_mut(&mut half, "v-1").metadata.name = Some("v-2".into());
    check(&half, &write(successor(&term(&half), "n2"))).unwrap();
    // Its heirs are of the array that was taken over.
    world.volume.status = None;
    let settled = validate::validate(&world).unwrap();
    let spot = crate::placement::Spot { slot: 0, mirror_set: 0, node: "n3".into(), drive: "d".into() };
    let heir = placing::leg_spec(&world, &settled, spot);
    assert_eq!(heir.array_uuid.as_deref(), Some("0b0e8f34-0000-4000-8000-0000000000aa"));
    assert_eq!(heir.partition_uuid, None);
}

#[test]
fn an_epoch_follows_only_one_that_is_over() {
    let world = attached();
    let next = successor(&term(&world), "n2");
    refused(&world, &write(next.clone()), "rule 4");
    refused(&ended(attached(), 2), &write(next.clone()), "rule 4");
    assert_eq!(check(&ended(attached(), 3), &write(next.clone())), Ok(()));
    for (node, epoch, good) in [("n1", 3, true), ("n1", 2, false), ("n2", 3, false)] {
        let mut world = attached();
        world.attachment.as_mut().unwrap().spec.lost = Some(LostConsumer { node: node.into(), epoch });
        assert_eq!(check(&world, &write(next.clone())).is_ok(), good, "{node} {epoch}");
    }
    refused(&ended(attached(), 3), &write(Term { epoch: 5, ..next.clone() }), "I2");
    refused(&ended(attached(), 3), &write(Term { phase: TermPhase::Started, ..next.clone() }), "rule 2");
    refused(&ended(attached(), 3), &write(Term { in_sync: vec!["v-1".into()], ..next.clone() }), "I1");
    let mut end = ended(attached(), 3);
    term_mut(&mut end).phase = TermPhase::Retired;
    refused(&end, &write(next), "I2");
}

#[test]
fn an_epoch_starts_from_the_confirmed_of_s() {
    let mut world = with_term(3, TermPhase::Revoking, &["v-0", "v-1"]);
    leg_mut(&mut world, "v-1").status.as_mut().unwrap().revoked_below = Some(2);
    let start = |names: &[&str]| {
        let in_sync = names.iter().map(|s| (*s).to_owned()).collect();
        write(Term { phase: TermPhase::Started, in_sync, ..term(&world) })
    };
    refused(&world, &start(&["v-0", "v-1"]), "rule 3");
    refused(&world, &start(&[]), "I1");
    refused(&world, &start(&["v-0", "v-9"]), "I6");
    assert_eq!(check(&world, &start(&["v-0"])), Ok(()));
    let mut narrow = with_term(3, TermPhase::Revoking, &["v-0"]);
    let wide = Term { phase: TermPhase::Started, in_sync: vec!["v-0".into(), "v-1".into()], ..term(&narrow) };
    refused(&narrow, &write(wide), "I6");
    term_mut(&mut narrow).retired = vec!["v-7".into()];
    refused(&narrow, &write(Term { phase: TermPhase::Started, retired: vec![], ..term(&narrow) }), "rule 8");
    let running = attached();
    refused(&running, &write(Term { in_sync: vec!["v-0".into()], ..term(&running) }), "rule 4");
}

#[test]
fn the_first_epoch_starts_from_all_blank_legs() {
    let mut world = with_term(1, TermPhase::Revoking, &["v-0", "v-1"]);
    let first = term(&world);
    world = detached();
    assert_eq!(check(&world, &write(first.clone())), Ok(()));
    refused(&world, &write(Term { in_sync: vec!["v-0".into()], ..first.clone() }), "I6");
    leg_mut(&mut world, "v-1").status.as_mut().unwrap().partition.as_mut().unwrap().blank = false;
    refused(&world, &write(first.clone()), "I6");
    let mut told = detached();
    leg_mut(&mut told, "v-0").spec.epoch = 4;
    refused(&told, &write(first), "I6");
    assert!(told.record_lost());
    told.attachment = None;
    refused(&told, &Action::CreateAttachment, "I2");
}

#[test]
fn a_grant_needs_a_started_epoch_and_a_confirmed_leg() {
    let revoking = with_term(3, TermPhase::Revoking, &["v-0", "v-1"]);
    refused(&revoking, &grant(&revoking, 1), "rule 2");
    let mut started = with_term(3, TermPhase::Started, &["v-0", "v-1"]);
    assert_eq!(check(&started, &grant(&started, 1)), Ok(()));
    leg_mut(&mut started, "v-1").status.as_mut().unwrap().revoked_below = Some(2);
    refused(&started, &grant(&started, 1), "rule 2");
    let mut retired = with_term(3, TermPhase::Started, &["v-0"]);
    term_mut(&mut retired).retired = vec!["v-1".into()];
    refused(&retired, &grant(&retired, 1), "rule 8");
    let over = ended(with_term(3, TermPhase::Started, &["v-0", "v-1"]), 3);
    refused(&over, &grant(&over, 1), "rule 2");
}

#[test]
fn a_leg_of_s_never_gets_a_second_grant() {
    let world = attached();
    refused(&world, &grant(&world, 2), "I6");
    let started = with_term(3, TermPhase::Started, &["v-0", "v-1"]);
    let Action::SetGrant { leg, grant: first } = grant(&started, 1) else { unreachable!() };
    refused(&started, &Action::SetGrant { leg, grant: Grant { copy_later: true, ..first } }, "I1");
    let mut bare = attached();
    leg_mut(&mut bare, "v-1").spec.grant = None;
    refused(&bare, &grant(&bare, 2), "I6");
    let mut outside = attached();
    term_mut(&mut outside).in_sync = vec!["v-0".into()];
    assert_eq!(check(&outside, &grant(&outside, 2)), Ok(()));
    refused(&outside, &grant(&outside, 1), "rule 1");
    leg_mut(&mut outside, "v-1").status.as_mut().unwrap().spent_grant = Some(7);
    refused(&outside, &grant(&outside, 7), "rule 1");
    let export =
        Export { epoch: 3, grant: 1, nqn: String::new(), address: String::new(), port: 1, device_uuid: String::new() };
    leg_mut(&mut outside, "v-1").status.as_mut().unwrap().export = Some(export);
    refused(&outside, &grant(&outside, 8), "rule 9");
}

#[test]
fn a_grant_in_use_is_not_taken_back_and_epochs_only_grow() {
    let clear = Action::ClearGrant { leg: "v-1".into() };
    refused(&attached(), &clear, "I3");
    assert_eq!(check(&ended(attached(), 3), &clear), Ok(()));
    for epoch in [2, 3, 4] {
        refused(&attached(), &Action::SetReplicaEpoch { leg: "v-1".into(), epoch }, "I2");
    }
    refused(&attached(), &Action::SetReplicaEpoch { leg: "v-9".into(), epoch: 3 }, "I5");
}

#[test]
fn deletion_goes_in_order() {
    let delete = Action::DeleteReplica { leg: "v-1".into() };
    let going = |mut world: World| {
        world.volume.metadata.deletion_timestamp = Some(meshstor_crds::Time(now()));
        world.attachment.as_mut().unwrap().spec.node = None;
        world
    };
    refused(&attached(), &delete, "rule 8");
    refused(&going(attached()), &delete, "rule 8");
    refused(&detached(), &delete, "rule 8");
    assert_eq!(check(&going(detached()), &delete), Ok(()));
    let retired = going(with_term(3, TermPhase::Retired, &["v-0", "v-1"]));
    assert_eq!(check(&retired, &delete), Ok(()));
    refused(&retired, &Action::DeleteAttachment, "rule 8");
    refused(&retired, &Action::RemoveFinalizer, "rule 8");
    let mut late = going(with_term(3, TermPhase::Revoking, &["v-0", "v-1"]));
    let retire = Term { phase: TermPhase::Retired, ..term(&late) };
    assert_eq!(check(&late, &write(retire.clone())), Ok(()));
    leg_mut(&mut late, "v-1").status.as_mut().unwrap().revoked_below = Some(2);
    refused(&late, &write(retire.clone()), "rule 8");
    refused(&with_term(3, TermPhase::Revoking, &["v-0", "v-1"]), &write(retire), "I3");
    assert_eq!(late.legs[0].name_any(), "v-0");
}
