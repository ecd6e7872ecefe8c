//! Where an array runs for a copy while nobody wants the volume.

use super::action::Action;
use super::budget;
use super::copying::{obstacle, place};
use super::fixtures::{attached, detached, leg, leg_mut, now, silence, term_mut, with_term};
use super::guard;
use super::plan::plan;
use super::reasons::{Why, why};
use super::validate::validate;
use super::world::World;
use meshstor_crds::{Ended, EndedReason, NodeDrain, NodeDrainSpec, TermPhase, Time};
use std::sync::Arc;

fn steps(world: &World) -> Vec<String> {
    let plan = plan(world, &validate(world));
    for action in &plan.actions {
        guard::check(world, action).unwrap();
    }
    plan.actions.iter().map(ToString::to_string).collect()
}

fn copy_on(world: &mut World, node: Option<&str>) {
    world.attachment.as_mut().unwrap().status.get_or_insert_default().copy_on = node.map(Into::into);
}

fn ask(world: &mut World, node: Option<&str>) {
    world.attachment.as_mut().unwrap().spec.node = node.map(Into::into);
}

fn drain(world: &mut World, node: &str) {
    let mode = meshstor_crds::DrainMode::Evacuate;
    world.drains.push(Arc::new(NodeDrain::new("d", NodeDrainSpec::of(node, mode))));
}

/// Detached after epoch 3 on n1; v-1 on n2 is asked to leave, and its heir on n3 is there.
fn leaves() -> World {
    let mut world = with_term(3, TermPhase::Running, &["v-0", "v-1"]);
    ask(&mut world, None);
    let status = world.attachment.as_mut().unwrap().status.as_mut().unwrap();
    status.ended = Some(Ended { epoch: 3, reason: EndedReason::Detached });
    leg_mut(&mut world, "v-1").spec.replace = true;
    let mut heir = leg(1, "n3");
    heir.metadata.name = Some("v-1.1".into());
    (heir.spec.replaces, heir.spec.drive, heir.spec.epoch) = (Some("v-1".into()), "d2".into(), 3);
    world.legs.push(heir);
    world
}

/// I3: a copy is made of what nobody uses too, and the array is gone again when it is made.
#[test]
fn an_array_runs_until_the_copy_is_made() {
    let mut world = leaves();
    assert_eq!(steps(&world), ["have the array run on n1 for a copy"]);
    copy_on(&mut world, Some("n1"));
    assert_eq!(steps(&world), ["write the record: epoch 4 Revoking on n1, in sync v-0,v-1"]);
    let mut filled = leaves();
    copy_on(&mut filled, Some("n1"));
    term_mut(&mut filled).in_sync = vec!["v-0".into(), "v-1.1".into()];
    filled.attachment.as_mut().unwrap().status.as_mut().unwrap().ended = None;
    assert_eq!(steps(&filled), ["have no array run for a copy"]);
    // The heir has the place of a leg that is gone for good: what is left to do is its copy.
    let mut retired = leaves();
    (term_mut(&mut retired).in_sync, term_mut(&mut retired).retired) = (vec!["v-0".into()], vec!["v-1".into()]);
    assert_eq!(steps(&retired), ["have the array run on n1 for a copy"]);
    let mut back = leaves();
    term_mut(&mut back).in_sync = vec!["v-0".into()];
    back.legs.truncate(2);
    leg_mut(&mut back, "v-1").spec.replace = false;
    assert_eq!(place(&back), None, "one that was away is copied to when somebody attaches the volume");
}

/// What is to leave, or is drained, or does not answer, is the worse place; what runs already stays where it can.
#[test]
fn the_node_is_one_that_has_the_data_and_stays() {
    let mut world = leaves();
    copy_on(&mut world, Some("n3"));
    assert_eq!(place(&world).as_deref(), Some("n3"), "it is begun there");
    drain(&mut world, "n3");
    assert_eq!(place(&world).as_deref(), Some("n1"));
    let mut single = leaves();
    single.legs.remove(0);
    (term_mut(&mut single).in_sync, single.volume.spec.replica_count) = (vec!["v-1".into()], 1);
    drain(&mut single, "n2");
    assert_eq!(place(&single).as_deref(), Some("n3"));
    silence(&mut single, "n3");
    assert_eq!(place(&single), None, "its heir does not answer: nothing can be copied");
    let mut silent = leaves();
    silence(&mut silent, "n2");
    assert_eq!(place(&silent).as_deref(), Some("n1"), "v-1 leaves anyway");
    silence(&mut silent, "n1");
    assert_eq!(place(&silent), None, "I3: an epoch without v-0 would be one copy less");
    assert_eq!(obstacle(&silent).as_deref(), Some("v-0 on n1 does not answer"));
    assert_eq!(obstacle(&leaves()), None, "its turn comes");
}

#[test]
fn whoever_wants_the_volume_goes_before_a_copy() {
    let mut world = leaves();
    copy_on(&mut world, Some("n1"));
    ask(&mut world, Some("n2"));
    assert_eq!(world.wanted(), Some("n2"));
    assert_eq!(steps(&world), ["write the record: epoch 4 Revoking on n2, in sync v-0,v-1"]);
    // Where it runs already it goes on, and is somebody's from now on.
    let status = world.attachment.as_mut().unwrap().status.as_mut().unwrap();
    status.ended = None;
    ask(&mut world, Some("n1"));
    assert_eq!(steps(&world), ["have no array run for a copy"]);
    let mut users = attached();
    leg_mut(&mut users, "v-1").spec.replace = true;
    assert_eq!(place(&users), None);
    ask(&mut users, None);
    users.legs.push(leaves().legs.pop().unwrap());
    assert_eq!(steps(&users), [""; 0], "the array of its last user is still being taken down");
    let copy = Action::CopyOn { node: Some("n3".into()) };
    assert!(guard::check(&users, &copy).is_err() && guard::check(&attached(), &copy).is_err());
    let mut goes = leaves();
    copy_on(&mut goes, Some("n1"));
    goes.volume.metadata.deletion_timestamp = Some(Time(now()));
    assert_eq!(steps(&goes), ["have no array run for a copy"]);
    assert!(guard::check(&goes, &copy).is_err());
}

/// Nobody has to say that a node is lost on which nobody wanted the volume; every confirmation is awaited all the same.
#[test]
fn a_node_that_dies_while_it_copies_holds_up_nobody() {
    let dead = || {
        let mut world = leaves();
        copy_on(&mut world, Some("n1"));
        world.attachment.as_mut().unwrap().status.as_mut().unwrap().ended = None;
        assert!(!world.given_up());
        silence(&mut world, "n1");
        world
    };
    let mut asked = dead();
    ask(&mut asked, Some("n2"));
    assert_eq!(steps(&asked), ["write the record: epoch 4 Revoking on n2, in sync v-0,v-1"]);
    ask(&mut asked, Some("n1"));
    assert!(!asked.given_up(), "now somebody wants it there");
    // Nobody does: it is cut off, and whatever it was goes on elsewhere, once.
    let mut world = dead();
    assert_eq!(steps(&world), ["write the record: epoch 4 Revoking on n1, in sync v-0,v-1"]);
    let term = term_mut(&mut world);
    (term.epoch, term.phase) = (4, TermPhase::Revoking);
    leg_mut(&mut world, "v-0").spec.replace = true;
    assert!(steps(&world)[0].starts_with("have the array run on n"), "{:?}", steps(&world));
    // The node that is asked for does not answer either: what the epoch was for is not forgotten.
    let mut both = dead();
    ask(&mut both, Some("n2"));
    silence(&mut both, "n2");
    assert_eq!(steps(&both), [""; 0]);
    let mut gone = dead();
    gone.volume.metadata.deletion_timestamp = Some(Time(now()));
    assert_eq!(steps(&gone), ["write the record: epoch 4 Revoking on n1, in sync v-0,v-1"]);
}

#[test]
fn an_array_that_was_never_made_is_made_before_its_leg_moves() {
    let mut world = detached();
    assert_eq!(steps(&world), [""; 0]);
    drain(&mut world, "n2");
    assert_eq!(steps(&world), ["have the array run on n1 for a copy"]);
    copy_on(&mut world, Some("n1"));
    assert_eq!(steps(&world), ["write the record: epoch 1 Revoking on n1, in sync v-0,v-1"]);
    world.drains.clear();
    copy_on(&mut world, None);
    leg_mut(&mut world, "v-0").status.as_mut().unwrap().partition = None;
    drain(&mut world, "n2");
    assert_eq!(place(&world), None, "its legs are still being made");
}

/// The budget of rebuilds decides when an array is made for one, not only when it is copied to.
#[test]
fn a_copy_waits_for_its_turn_before_an_array_is_made() {
    let mut world = leaves();
    let ahead = budget::rebuilds(&world);
    assert!(ahead.len() == 1 && ahead[0].leg == "v-1.1" && !ahead[0].active && ahead[0].nodes.contains("n1"));
    world.clocks.waits = ["v-1.1".to_owned()].into();
    assert_eq!(steps(&world), [""; 0]);
    copy_on(&mut world, Some("n1"));
    assert!(budget::rebuilds(&world)[0].active, "it keeps its turn");
    assert_eq!(place(&world).as_deref(), Some("n1"));
}

/// I3: a node that is gone for good takes a copy of what nobody uses with it; another is made at once, and not when somebody attaches it.
#[test]
fn what_a_deleted_node_had_of_a_volume_at_rest_is_made_elsewhere() {
    let gone = || {
        let mut world = leaves();
        leg_mut(&mut world, "v-1").spec.replace = false;
        silence(&mut world, "n2");
        assert_eq!(why(&world, world.leg("v-1").unwrap()), None, "it may come back");
        world.gone_nodes = vec!["n2".into()];
        world
    };
    let world = gone();
    assert_eq!(why(&world, world.leg("v-1").unwrap()), Some(Why::NodeDeleted));
    assert_eq!(steps(&world), ["have the array run on n1 for a copy"]);
    let mut only = gone();
    term_mut(&mut only).in_sync = vec!["v-1".into()];
    assert_eq!(why(&only, only.leg("v-1").unwrap()), None, "I1: nobody else has what it has");
    let mut used = gone();
    ask(&mut used, Some("n1"));
    assert_eq!(why(&used, used.leg("v-1").unwrap()), None, "its consumer says when it is lost");
}
