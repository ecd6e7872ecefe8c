//! A consumer that somebody gave up: by `spec.lost`, or by the out-of-service taint on its node.

use super::clocks::{GIVEN_UP_GRACE, REVOKE_GRACE};
use super::events::of_term;
use super::fixtures::*;
use super::plan::{next_look, plan};
use super::terms;
use super::validate::validate;
use super::world::World;
use meshstor_crds::{LostConsumer, Term, TermPhase};
use std::time::Duration;

fn steps(world: &World) -> Vec<String> {
    plan(world, &validate(world)).actions.iter().map(ToString::to_string).collect()
}

fn wanted_on(mut world: World, node: Option<&str>) -> World {
    world.attachment.as_mut().unwrap().spec.node = node.map(Into::into);
    world
}

fn tainted(mut world: World, node: &str) -> World {
    world.out_of_service = vec![node.into()];
    world
}

/// I2: the taint alone ends nothing; with it a move goes on without the consumer's word, by a higher epoch like any other.
#[test]
fn the_taint_is_a_word_for_a_move_and_not_for_a_restart() {
    let next = ["write the record: epoch 4 Revoking on n3, in sync v-0,v-1"];
    assert_eq!(steps(&wanted_on(attached(), Some("n3"))), [""; 0], "an epoch that runs is not taken from anybody");
    assert_eq!(steps(&wanted_on(tainted(attached(), "n1"), Some("n3"))), next);
    assert_eq!(steps(&tainted(attached(), "n1")), [""; 0], "wanted where it is: nobody asked for another epoch");
    assert_eq!(steps(&wanted_on(tainted(attached(), "n2"), Some("n3"))), [""; 0], "the taint of another node");
    let both = wanted_on(World { out_of_service: vec!["n1".into(), "n3".into()], ..attached() }, Some("n3"));
    assert_eq!(steps(&both), [""; 0], "no epoch begins on a node that is out of service");
    let nowhere = ["write the record: epoch 4 Revoking on n1, in sync v-0,v-1"];
    assert_eq!(steps(&wanted_on(tainted(attached(), "n1"), None)), nowhere, "cut off at the legs, and nothing starts");
    let mut cut = wanted_on(tainted(with_term(4, TermPhase::Revoking, &["v-0", "v-1"]), "n1"), None);
    assert_eq!(steps(&cut), [""; 0], "I4: once, however long the taint stays");
    cut.volume.metadata.deletion_timestamp = Some(meshstor_crds::Time(now()));
    term_mut(&mut cut).epoch = 3;
    let retired = ["write the record: epoch 3 Retired on n1, in sync v-0,v-1"];
    assert_eq!(steps(&cut), retired, "and what is deleted then goes");
}

/// A node that was deleted, and does not answer, is as good as tainted: a word for a move, and never for a restart.
#[test]
fn a_deleted_node_is_a_word_for_a_move() {
    let deleted = |node: &str| World { gone_nodes: vec![node.into()], ..attached() };
    let next = ["write the record: epoch 4 Revoking on n3, in sync v-0,v-1"];
    assert_eq!(steps(&wanted_on(deleted("n1"), Some("n3"))), next);
    assert_eq!(steps(&deleted("n1")), [""; 0], "wanted where it is");
    assert_eq!(steps(&wanted_on(deleted("n2"), Some("n3"))), [""; 0], "another node");
    let nowhere = ["write the record: epoch 4 Revoking on n1, in sync v-0,v-1"];
    assert_eq!(steps(&wanted_on(deleted("n1"), None)), nowhere);
    let world = wanted_on(deleted("n1"), Some("n3"));
    let told = of_term(&world, &terms::next(&world).unwrap());
    assert!(told[0].note.contains("n1 was given up in epoch 3 (its node was deleted)"), "{told:?}");
}

/// Rule 2: the legs of what was given up are hardly awaited, and only those; what starts has confirmed.
#[test]
fn a_leg_that_was_given_up_is_awaited_for_its_own_grace() {
    let revoking = || {
        let mut world = wanted_on(with_term(4, TermPhase::Revoking, &["v-0", "v-1"]), Some("n3"));
        term_mut(&mut world).node = "n3".into();
        leg_mut(&mut world, "v-0").status.as_mut().unwrap().revoked_below = Some(3);
        world
    };
    let lost = |epoch| {
        let mut world = revoking();
        world.attachment.as_mut().unwrap().spec.lost = Some(LostConsumer { node: "n1".into(), epoch });
        world
    };
    let started = ["write the record: epoch 4 Started on n3, in sync v-1"];
    for (mut world, given_up) in
        [(lost(3), true), (lost(2), false), (tainted(revoking(), "n1"), true), (tainted(revoking(), "n2"), false)]
    {
        assert_eq!(terms::answers(&world).given_up.is_empty(), !given_up);
        assert_eq!(steps(&world), [""; 0]);
        assert_eq!(next_look(&world, &plan(&world, &validate(&world))) <= Duration::from_secs(1), given_up);
        world.clocks.revoking_for = GIVEN_UP_GRACE;
        assert_eq!(steps(&world) == started, given_up);
        world.clocks.revoking_for = REVOKE_GRACE * 10;
        assert_eq!(steps(&world) == started, given_up, "a leg of a node that answers is waited for");
    }
    let mut none = lost(3);
    leg_mut(&mut none, "v-1").status.as_mut().unwrap().revoked_below = Some(3);
    none.clocks.revoking_for = REVOKE_GRACE * 10;
    assert_eq!(steps(&none), [""; 0], "the other leg is waited for, however long");
}

#[test]
fn each_step_of_a_move_is_told() {
    let reasons = |world: &World, new: &Term| {
        let news = of_term(world, new);
        news.iter().map(|n| (n.reason.clone(), n.warning)).collect::<Vec<_>>()
    };
    let world = wanted_on(tainted(attached(), "n1"), Some("n3"));
    let next = terms::next(&world).unwrap();
    assert_eq!(reasons(&world, &next), [("ConsumerLost".to_owned(), true), ("Revoking".to_owned(), false)]);
    assert!(of_term(&world, &next)[0].note.contains("n1 was given up in epoch 3 (node.kubernetes.io/out-of-service)"));
    let mut world = with_term(3, TermPhase::Revoking, &["v-0", "v-1"]);
    let started = |world: &World| terms::start(world).unwrap();
    assert_eq!(reasons(&world, &started(&world)), [("Started".to_owned(), false)]);
    leg_mut(&mut world, "v-1").status.as_mut().unwrap().revoked_below = Some(2);
    silence(&mut world, "n2");
    world.clocks.revoking_for = REVOKE_GRACE;
    assert_eq!(reasons(&world, &started(&world)), [("Started".to_owned(), true)]);
    assert!(of_term(&world, &started(&world))[0].note.ends_with("from v-0; without v-1, which did not confirm"));
}
