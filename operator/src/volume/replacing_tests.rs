//! Who is replaced, when, and what the guard makes of it.

use super::action::Action;
use super::fixtures::{attached, leg, leg_mut, now, show, silence, term_mut, with_term};
use super::guard;
use super::placing;
use super::reasons::{self, Why};
use super::replacing::{self, RETIRED_MAX};
use super::status::status;
use super::validate::validate;
use super::world::World;
use jiff::{Timestamp, ToSpan as _};
use kube::ResourceExt as _;
use meshstor_crds::conditions::{self, Want};
use meshstor_crds::{Bitmap, MemberState, MeshReplica, ResolvedPolicy, TermPhase, Time, VolumeLeg};

fn why(world: &World, name: &str) -> Option<Why> {
    reasons::why(world, world.leg(name).unwrap())
}

/// v-1 is away since so many seconds; the policy waits 900.
fn away(seconds: i64) -> World {
    let mut world = attached();
    term_mut(&mut world).in_sync = vec!["v-0".into()];
    show(&mut world, &[("v-0", MemberState::InSync)]);
    silence(&mut world, "n2");
    let mut status = status(&world, &validate(&world), &super::plan::plan(&world, &validate(&world)));
    for leg in &mut status.legs {
        leg.missing_since = leg.missing_since.take().map(|_| Time(now() - seconds.seconds()));
    }
    world.volume.status = Some(status);
    world
}

fn heir(world: &mut World, slot: i32, node: &str, of: &str) {
    let mut heir: MeshReplica = leg(slot, node);
    heir.metadata.name = Some(format!("v-{slot}.{}", replacing::next_generation(world)));
    heir.spec.replaces = Some(of.into());
    heir.spec.drive = "d2".into();
    world.legs.push(heir);
}

fn failing(leg: &mut MeshReplica) {
    let want = [Want::new(conditions::FAILING, true, conditions::REASON_DRIVE_FAILING, "12 errors in a minute")];
    leg.status.get_or_insert_default().conditions = conditions::apply(&[], &want, None, &Time(now()));
}

fn retired(world: &World) -> Vec<String> {
    let plan = super::plan::plan(world, &validate(world));
    plan.actions
        .into_iter()
        .find_map(|action| match action {
            Action::WriteTerm(term) => Some(term.retired),
            _ => None,
        })
        .unwrap_or_default()
}

/// I4: the wait is counted from a time in the volume's status, so that restarts of the operator do not make it longer.
#[test]
fn a_leg_that_stays_away_is_replaced_when_the_policy_has_waited() {
    for (seconds, want) in [(0, None), (899, None), (900, Some(Why::Away)), (9000, Some(Why::Away))] {
        assert_eq!(why(&away(seconds), "v-1"), want, "{seconds}");
    }
    let mut never = away(9000);
    let resolved: &mut ResolvedPolicy = never.volume.status.as_mut().unwrap().resolved.as_mut().unwrap();
    resolved.missing_member_timeout_seconds = 0;
    assert_eq!(why(&never, "v-1"), None);
    // What is copied to is not away, nor what waits on a node that answers until the volume is attached.
    let mut copied = away(9000);
    show(&mut copied, &[("v-0", MemberState::InSync), ("v-1", MemberState::Rebuilding)]);
    assert_eq!(why(&copied, "v-1"), None);
    let mut detached = with_term(3, TermPhase::Revoking, &["v-0"]);
    assert!(!reasons::away(&detached, detached.leg("v-1").unwrap()));
    silence(&mut detached, "n2");
    assert!(reasons::away(&detached, detached.leg("v-1").unwrap()));
}

#[test]
fn the_start_of_the_wait_is_kept_and_forgotten_with_the_return() {
    let since = |world: &World| -> Option<Timestamp> {
        let new = status(world, &validate(world), &super::action::Plan::default());
        let of = |l: &&VolumeLeg| l.name == "v-1";
        new.legs.iter().find(of).unwrap().missing_since.as_ref().map(|t| t.0)
    };
    assert_eq!(since(&away(100)), Some(now() - 100.seconds()));
    let mut back = away(100);
    show(&mut back, &[("v-0", MemberState::InSync), ("v-1", MemberState::Rebuilding)]);
    assert_eq!(since(&back), None);
}

#[test]
fn a_leg_is_replaced_at_once_where_there_is_nothing_to_wait_for() {
    let mut gone = away(0);
    gone.gone_nodes = vec!["n2".into()];
    assert_eq!(why(&gone, "v-1"), Some(Why::NodeDeleted));
    assert_eq!(Why::NodeDeleted.reason(), conditions::REASON_NODE_DELETED);
    // What is in sync is not away, whatever became of its MeshNode.
    let mut inside = attached();
    inside.gone_nodes = vec!["n2".into()];
    assert_eq!(why(&inside, "v-1"), None);
    failing(leg_mut(&mut inside, "v-1"));
    assert_eq!(why(&inside, "v-1"), Some(Why::Failing));
    let mut asked = attached();
    leg_mut(&mut asked, "v-1").spec.replace = true;
    assert_eq!(why(&asked, "v-1").map(Why::reason), Some(conditions::REASON_ASKED));
    // Not before the array was made whole once, and not while the volume goes.
    term_mut(&mut asked).initialised = false;
    assert_eq!(why(&asked, "v-1"), None);
}

/// I6: nothing but what is copied is ever read of an heir. Where the lockless bitmap has holes skipped it begins as zeros.
#[test]
fn an_heir_is_zeroed_only_where_not_all_of_it_is_copied() {
    for bitmap in [Bitmap::Internal, Bitmap::None, Bitmap::Lockless] {
        let mut world = attached();
        leg_mut(&mut world, "v-1").spec.replace = true;
        let mut status = status(&world, &validate(&world), &super::plan::plan(&world, &validate(&world)));
        status.resolved.as_mut().unwrap().bitmap = bitmap;
        world.volume.status = Some(status);
        let mut spec = leg(1, "n3").spec;
        spec.replaces = Some("v-1".into());
        for overwritten in [false, true] {
            spec.overwritten = overwritten;
            let action = Action::CreateReplica { leg: "v-1.1".into(), spec: Box::new(spec.clone()) };
            let allowed = guard::check(&world, &action);
            assert_eq!(allowed.is_ok(), !overwritten || placing::all_copied(bitmap), "{bitmap:?}: {allowed:?}");
        }
    }
    assert!(placing::all_copied(Bitmap::Internal) && !placing::all_copied(Bitmap::Lockless));
}

/// Rules 7 and 8: the old leg is retired before its heir has a grant, and not before that is prepared.
#[test]
fn a_seat_has_one_candidate_at_a_time() {
    let mut world = away(900);
    heir(&mut world, 1, "n3", "v-1");
    let partition = leg_mut(&mut world, "v-1.1").status.take();
    assert!(retired(&world).is_empty(), "the heir is still being made");
    assert!(!reasons::candidate(&world, world.leg("v-1.1").unwrap()));
    assert!(reasons::candidate(&world, world.leg("v-1").unwrap()), "the old one may still come back");
    leg_mut(&mut world, "v-1.1").status = partition;
    assert_eq!(retired(&world), ["v-1"]);
    term_mut(&mut world).retired = vec!["v-1".into()];
    assert!(!reasons::candidate(&world, world.leg("v-1").unwrap()));
    assert!(reasons::candidate(&world, world.leg("v-1.1").unwrap()));
}

/// I3: the leg that is to leave is retired only when another has its place in S; what is filled beside it has a grant.
#[test]
fn a_leg_in_use_leaves_last() {
    let mut world = attached();
    leg_mut(&mut world, "v-1").spec.replace = true;
    heir(&mut world, 1, "n3", "v-1");
    assert!(retired(&world).is_empty());
    assert!(reasons::candidate(&world, world.leg("v-1.1").unwrap()));
    term_mut(&mut world).in_sync = vec!["v-0".into(), "v-1.1".into()];
    assert!(retired(&world).is_empty(), "the consumer lets go of its path first");
    show(&mut world, &[("v-0", MemberState::InSync), ("v-1.1", MemberState::InSync)]);
    assert_eq!(retired(&world), ["v-1"]);
    // Taken back in time: the heir goes.
    term_mut(&mut world).in_sync = vec!["v-0".into(), "v-1".into()];
    leg_mut(&mut world, "v-1").spec.replace = false;
    show(&mut world, &[("v-0", MemberState::InSync), ("v-1", MemberState::InSync)]);
    assert_eq!(retired(&world), ["v-1.1"]);
}

/// I8: what the plan would never do, the guard does not let pass.
#[test]
fn the_guard_keeps_legs_that_are_needed() {
    let mut world = away(900);
    let refused = |world: &World, action: &Action| guard::check(world, action).unwrap_err().invariant;
    let write = |legs: &[&str], world: &World| {
        let legs = legs.iter().map(|l| (*l).to_owned()).collect();
        Action::WriteTerm(Box::new(replacing::retire(world.term().unwrap(), legs)))
    };
    assert!(guard::check(&world, &write(&["v-1"], &world)).is_ok(), "in a running epoch too");
    assert_eq!(refused(&world, &write(&["v-0"], &world)), "I6", "a leg of S is never retired");
    let Action::WriteTerm(mut both) = write(&["v-1"], &world) else { panic!() };
    both.phase = TermPhase::Retired;
    assert_eq!(refused(&world, &Action::WriteTerm(both)), "rule 4");
    term_mut(&mut world).retired = vec!["v-1".into()];
    let delete = Action::DeleteReplica { leg: "v-1".into() };
    assert_eq!(refused(&world, &delete), "I1", "its bytes are the last resort while a copy is missing");
    let release = Action::ReleaseReplica { leg: "v-1".into() };
    assert_eq!(refused(&world, &release), "rule 8");
    heir(&mut world, 1, "n3", "v-1");
    term_mut(&mut world).in_sync.push("v-1.1".into());
    assert!(guard::check(&world, &delete).is_ok());
    leg_mut(&mut world, "v-1").metadata.deletion_timestamp = Some(Time(now()));
    assert_eq!(refused(&world, &release), "rule 8", "its node may still come back and wipe it");
    world.gone_nodes = vec!["n2".into()];
    assert!(guard::check(&world, &release).is_ok());
}

#[test]
fn a_record_without_room_for_another_name_is_told() {
    let mut world = away(900);
    term_mut(&mut world).retired = (0..RETIRED_MAX).map(|n| format!("v-1.{}", n + 1)).collect();
    assert!(!replacing::places(&world));
    let plan = super::plan::plan(&world, &validate(&world));
    assert!(plan.unplaced.as_ref().is_some_and(|r| r.message.contains("no room")), "{plan:?}");
    let status = status(&world, &validate(&world), &plan);
    let said = status.conditions.iter().find(|c| c.type_ == conditions::REPLACING).unwrap();
    assert_eq!((said.status.as_str(), said.reason.as_str()), ("False", conditions::REASON_INVALID));
    assert_eq!(world.leg("v-1").unwrap().name_any(), "v-1");
}

/// I1: a node that died with the leg still looks alive until its heartbeat is old; another leg there would be as dead.
#[test]
fn a_node_that_is_silent_since_its_leg_went_is_no_place_for_another() {
    let mut world = away(900);
    let beat = |world: &mut World, seconds: i64| {
        world.nodes.retain(|n| n.name_any() != "n2");
        world.nodes.push(super::fixtures::node("n2", now() - seconds.seconds()));
    };
    for (seconds, silent) in [(901, true), (899, false), (0, false)] {
        beat(&mut world, seconds);
        assert_eq!(reasons::silent(&world, world.leg("v-1").unwrap()), silent, "{seconds}");
    }
    assert!(!reasons::silent(&attached(), attached().leg("v-1").unwrap()), "a leg that is there");
}
