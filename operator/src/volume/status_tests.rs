//! Validation and status as tables: what is refused, and that status never lies upward (I7).

use super::action::Plan;
use super::fixtures::*;
use super::plan::plan;
use super::status::status;
use super::validate::validate;
use super::world::World;
use super::{clocks::REVOKE_GRACE, events};
use meshstor_crds::{
    Bitmap, Capability, Ended, EndedReason, Kernel, LegState, MemberState, MeshVolumeStatus, ReplicaSetPolicy,
    ReplicaSetPolicySpec, Resync, TermPhase, conditions,
};
use std::time::Duration;

fn look(world: &World) -> MeshVolumeStatus {
    status(world, &validate(world), &Plan { actions: vec![], ..plan(world, &validate(world)) })
}

fn said(status: &MeshVolumeStatus, type_: &str) -> String {
    let found = status.conditions.iter().find(|c| c.type_ == type_);
    found.map_or_else(|| "-".into(), |c| format!("{}/{}", c.status, c.reason))
}

fn all(world: &World) -> (String, String, String, String) {
    let s = look(world);
    let beside = format!("{} {}", said(&s, conditions::RECONCILING), said(&s, conditions::STALLED));
    (said(&s, conditions::READY), beside, said(&s, conditions::DEGRADED), said(&s, conditions::RESYNCED))
}

fn is(world: &World, ready: &str, beside: &str, degraded: &str, resynced: &str) {
    let want = (ready.to_owned(), beside.to_owned(), degraded.to_owned(), resynced.to_owned());
    assert_eq!(all(world), want, "{:?}", look(world).conditions);
}

#[test]
fn attached_and_whole() {
    is(&attached(), "True/Attached", "- -", "False/AsWanted", "True/AsWanted");
    let status = look(&attached());
    assert_eq!((status.copies.as_deref(), status.consumer.as_deref()), (Some("2/2"), Some("n1")));
    assert_eq!(status.resync, None);
}

/// I7: a member that the record still counts, but the kernel does not, is no copy.
#[test]
fn a_held_or_faulty_member_is_no_copy() {
    for state in [MemberState::Held, MemberState::Faulty] {
        let mut world = attached();
        show(&mut world, &[("v-0", MemberState::InSync), ("v-1", state)]);
        is(&world, "True/Attached", "- -", "True/LegMissing", "False/LegMissing");
        let status = look(&world);
        assert_eq!((status.copies.as_deref(), status.legs[1].state), (Some("1/2"), LegState::Missing));
    }
    let mut absent = attached();
    show(&mut absent, &[("v-0", MemberState::InSync)]);
    assert_eq!(look(&absent).copies.as_deref(), Some("1/2"));
}

/// I7, I3: below `minInSync` it is attached, but not ready.
#[test]
fn too_few_copies_is_not_ready() {
    let mut world = attached();
    let mut frozen = validate(&world).unwrap().resolved;
    frozen.min_in_sync = 2;
    world.volume.status.get_or_insert_default().resolved = Some(frozen);
    show(&mut world, &[("v-0", MemberState::InSync), ("v-1", MemberState::Rebuilding)]);
    term_mut(&mut world).in_sync = vec!["v-0".into()];
    let array = world.attachment.as_mut().unwrap().status.as_mut().unwrap().array.as_mut().unwrap();
    array.resync = Some(Resync {
        percent: 40,
        remaining_seconds: Some(30),
        done_bytes: Some(400 << 20),
        total_bytes: Some(1000 << 20),
        bytes_per_second: Some(20 << 20),
    });
    is(&world, "False/TooFewCopies", "True/TooFewCopies -", "True/Rebuilding", "False/Rebuilding");
    let status = look(&world);
    assert_eq!((status.resync.as_deref(), status.legs[1].state), (Some("40%"), LegState::Rebuilding));
}

/// I7: nothing is known of a consumer that does not answer, and what to do is said.
#[test]
fn a_silent_consumer_is_unknown() {
    let mut world = attached();
    silence(&mut world, "n1");
    is(
        &world,
        "Unknown/ConsumerUnreachable",
        "- True/ConsumerUnreachable",
        "Unknown/ConsumerUnreachable",
        "Unknown/ConsumerUnreachable",
    );
    let message = look(&world).conditions[0].message.clone();
    assert!(message.contains("spec.lost={node: n1, epoch: 3}"), "{message}");
    world.attachment.as_mut().unwrap().spec.node = Some("n3".into());
    assert_eq!(all(&world).0, "False/ConsumerUnreachable");
}

/// I7: not published, or not mounted where it was asked, is not attached.
#[test]
fn attached_means_shown_and_mounted() {
    let mut world = attached();
    world.attachment.as_mut().unwrap().spec.mount_path = Some("/data".into());
    assert_eq!(all(&world).0, "False/Attaching");
    let array = world.attachment.as_mut().unwrap().status.as_mut().unwrap().array.as_mut().unwrap();
    array.mount_path = Some("/data".into());
    assert_eq!(all(&world).0, "True/Attached");
    world.attachment.as_mut().unwrap().status.as_mut().unwrap().array.as_mut().unwrap().epoch = 2;
    assert_eq!(all(&world).0, "False/Attaching");
}

#[test]
fn detached_is_ready_while_enough_copies_could_be_had() {
    is(&detached(), "True/Detached", "- -", "False/AsWanted", "True/AsWanted");
    let mut world = detached();
    silence(&mut world, "n1");
    assert_eq!(all(&world).0, "True/Detached");
    silence(&mut world, "n2");
    assert_eq!(all(&world).0, "False/TooFewCopies");
    let mut preparing = detached();
    leg_mut(&mut preparing, "v-1").status.as_mut().unwrap().partition = None;
    is(&preparing, "False/PreparingLegs", "True/PreparingLegs -", "Unknown/PreparingLegs", "Unknown/PreparingLegs");
    let mut shrunk = with_term(3, TermPhase::Running, &["v-0"]);
    let attachment = shrunk.attachment.as_mut().unwrap();
    attachment.spec.node = None;
    attachment.status.as_mut().unwrap().ended = Some(Ended { epoch: 3, reason: EndedReason::Detached });
    is(&shrunk, "True/Detached", "- -", "True/LegMissing", "False/LegMissing");
}

#[test]
fn nothing_confirmed_is_stalled_after_the_grace() {
    let mut world = with_term(3, TermPhase::Revoking, &["v-0", "v-1"]);
    world.legs.iter_mut().for_each(|leg| leg.status.as_mut().unwrap().revoked_below = Some(2));
    is(&world, "False/Revoking", "True/Revoking -", "False/AsWanted", "True/AsWanted");
    world.clocks.revoking_for = REVOKE_GRACE;
    assert_eq!(all(&world).1, "- True/RevocationUnconfirmed");
    let message = look(&world).conditions[0].message.clone();
    assert!(message.contains("v-0 on n1, v-1 on n2"), "{message}");
}

/// Rule 3 and the grace of step 5: only legs of silent nodes are left out, and only after it.
#[test]
fn the_grace_is_for_silent_nodes_only() {
    let mut world = with_term(3, TermPhase::Revoking, &["v-0", "v-1"]);
    leg_mut(&mut world, "v-1").status.as_mut().unwrap().revoked_below = Some(2);
    world.clocks.revoking_for = Duration::from_secs(3600);
    assert_eq!(plan(&world, &validate(&world)).actions, [], "a ready node is waited for");
    silence(&mut world, "n2");
    world.clocks.revoking_for = Duration::from_secs(9);
    assert_eq!(plan(&world, &validate(&world)).actions, []);
    world.clocks.revoking_for = REVOKE_GRACE;
    let said = plan(&world, &validate(&world)).actions[0].to_string();
    assert_eq!(said, "write the record: epoch 3 Started on n1, in sync v-0");
}

/// I8: what is not implemented is refused before anything is made, and changes nothing of what runs.
#[test]
fn what_is_not_there_is_refused() {
    let change = |edit: fn(&mut World)| {
        let mut world = attached();
        edit(&mut world);
        let refusal = validate(&world).unwrap_err();
        assert_eq!(plan(&world, &validate(&world)).actions, [], "{refusal:?}");
        let (ready, beside, ..) = all(&world);
        assert_eq!((ready, beside), (format!("False/{}", refusal.reason), format!("- True/{}", refusal.reason)));
        let message = look(&world).conditions[0].message.clone();
        assert!(message.contains("meanwhile attached on n1 with 2 of"), "{message}");
        refusal.reason
    };
    assert_eq!(change(|w| w.volume.spec.stripe_width = 2), "NotImplemented");
    assert_eq!(change(|w| w.volume.spec.capacity = "1Gi".into()), "NotImplemented");
    assert_eq!(change(|w| w.volume.spec.replica_count = 3), "NotImplemented");
    assert_eq!(change(|w| w.volume.spec.replica_count = 1), "NotImplemented");
    assert_eq!(change(|w| w.volume.spec.policy = Some("gone".into())), "NotFound");
}

#[test]
fn the_policy_is_resolved_once() {
    let mut world = detached();
    let settled = validate(&world).unwrap();
    assert_eq!((settled.resolved.min_in_sync, settled.resolved.bitmap), (1, Bitmap::Internal));
    assert_eq!(settled.size, 520 << 20);
    world.volume.spec.policy = Some("p".into());
    let spec = ReplicaSetPolicySpec { min_in_sync: Some(3), ..ReplicaSetPolicySpec::default() };
    world.policy = Some(ReplicaSetPolicy::new("p", spec));
    assert_eq!(validate(&world).unwrap_err().reason, "Invalid");
    let spec = ReplicaSetPolicySpec { bitmap: Bitmap::None, ..ReplicaSetPolicySpec::default() };
    world.policy = Some(ReplicaSetPolicy::new("p", spec));
    assert_eq!(validate(&world).unwrap().resolved.bitmap, Bitmap::None);
    world.volume.status.get_or_insert_default().resolved = Some(settled.resolved.clone());
    assert_eq!(validate(&world).unwrap().resolved, settled.resolved, "frozen");
}

/// `auto` is the lockless bitmap only where every node is proved to be right with it; what the volume says goes first.
#[test]
fn the_bitmap_is_one_that_every_node_can_run() {
    let mut world = detached();
    let report = |world: &mut World, node: usize, names: &[&str]| {
        let capability = |name: &&str| Capability { name: (*name).to_owned(), supported: true, message: String::new() };
        let kernel = Kernel { release: "7.3".into(), capabilities: names.iter().map(capability).collect() };
        std::sync::Arc::make_mut(&mut world.nodes[node]).status.get_or_insert_default().kernel = Some(kernel);
    };
    let bitmap = |world: &World| validate(world).unwrap().resolved.bitmap;
    (0..3).for_each(|n| report(&mut world, n, &["raid1", "llbitmap"]));
    assert_eq!(bitmap(&world), Bitmap::Internal, "it is there, but not proved");
    (0..3).for_each(|n| report(&mut world, n, &["raid1", "llbitmap", "llbitmap-raid10"]));
    assert_eq!(bitmap(&world), Bitmap::Lockless);
    report(&mut world, 1, &["raid1"]);
    assert_eq!(bitmap(&world), Bitmap::Internal);
    world.volume.spec.bitmap = Some(Bitmap::None);
    assert_eq!(bitmap(&world), Bitmap::None);
    world.nodes.clear();
    world.volume.spec.bitmap = Some(Bitmap::Auto);
    assert_eq!(bitmap(&world), Bitmap::Internal);
}

/// I4: the same world gives the same status, so that nothing is sent.
#[test]
fn an_unchanged_world_is_not_written_again() {
    let mut world = attached();
    let first = look(&world);
    world.volume.status = Some(first.clone());
    world.now = jiff::Timestamp::from_second(1_000_005).unwrap();
    assert_eq!(look(&world), first);
}

#[test]
fn news_are_transitions() {
    let reasons = |old: &World, new: &World| {
        let mut new = new.clone();
        new.volume.status = Some(look(old));
        let news = events::notices(&look(old), &look(&new));
        news.into_iter().map(|n| n.reason).collect::<Vec<_>>()
    };
    let mut degraded = attached();
    show(&mut degraded, &[("v-0", MemberState::InSync), ("v-1", MemberState::Faulty)]);
    let mut silent = attached();
    silence(&mut silent, "n1");
    assert_eq!(reasons(&detached(), &attached()), ["Attached"]);
    assert_eq!(reasons(&attached(), &attached()), Vec::<String>::new());
    assert_eq!(reasons(&attached(), &degraded), ["Degraded"]);
    assert_eq!(reasons(&degraded, &attached()), ["Resynced"]);
    assert_eq!(reasons(&attached(), &detached()), ["Detached"]);
    assert_eq!(reasons(&attached(), &silent), ["ConsumerUnreachable"]);
    let placed = events::notices(&MeshVolumeStatus::default(), &look(&detached()));
    assert_eq!((placed[0].reason.as_str(), placed[0].note.as_str()), ("Placed", "v-0 on n1, v-1 on n2"));
}

/// The reasons of the ways between: what is waited for is said, and by whom.
#[test]
fn what_is_waited_for_has_a_reason_of_its_own() {
    let mut leaving = attached();
    leaving.attachment.as_mut().unwrap().spec.node = None;
    is(&leaving, "False/Detaching", "True/Detaching -", "False/AsWanted", "True/AsWanted");

    let mut deleted = with_term(3, TermPhase::Retired, &["v-0", "v-1"]);
    deleted.attachment.as_mut().unwrap().spec.node = None;
    deleted.volume.metadata.deletion_timestamp = Some(meshstor_crds::Time(now()));
    is(&deleted, "False/Deleting", "True/Deleting -", "Unknown/Deleting", "Unknown/Deleting");

    let mut silent = detached();
    silent.attachment.as_mut().unwrap().spec.node = Some("n3".into());
    silence(&mut silent, "n3");
    assert_eq!(all(&silent).0, "False/NoHeartbeat");

    let mut refused = detached();
    let status = leg_mut(&mut refused, "v-1").status.as_mut().unwrap();
    status.partition = None;
    let want = conditions::Want::new(conditions::STALLED, true, conditions::REASON_HOST_ERROR, "the drive is gone");
    status.conditions = conditions::apply(&[], &[want], None, &meshstor_crds::Time(now()));
    assert_eq!(all(&refused).0, "False/HostError");
    assert!(look(&refused).conditions[0].message.contains("the drive is gone"));
}

/// A deletion that waits for a silent leg is looked at when the grace is over, not when everything is.
#[test]
fn a_deletion_that_waits_is_looked_at_in_time() {
    let mut world = with_term(3, TermPhase::Revoking, &["v-0", "v-1"]);
    world.attachment.as_mut().unwrap().spec.node = None;
    world.volume.metadata.deletion_timestamp = Some(meshstor_crds::Time(now()));
    leg_mut(&mut world, "v-1").status.as_mut().unwrap().revoked_below = Some(2);
    let look = super::plan::next_look(&world, &plan(&world, &validate(&world)));
    assert!(look <= REVOKE_GRACE, "{look:?}");
}
