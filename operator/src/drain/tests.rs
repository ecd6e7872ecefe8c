//! Drains and guards as tables: what is observed, and what is to be done.

use super::decision::decide;
use super::guard;
use super::plan::{Action, plan};
use super::status::status;
use super::world::{BY_CORDON, Settings, World};
use crate::node::Face;
use crate::volume::fixtures::{attached, detached, now, show, silence, term_mut};
use crate::volume::reasons::{Why, why};
use crate::volume::world::World as Volume;
use k8s_openapi::api::core::v1::{Pod, PodTemplate};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;
use meshstor_crds::{
    DrainMode, DrainPolicy, DrainVolumeState, MemberState, NodeDrain, NodeDrainSpec, ReplicaSetPolicy,
    ReplicaSetPolicySpec, Time, conditions,
};
use std::sync::Arc;

fn drain(node: &str, mode: DrainMode) -> NodeDrain {
    let mut drain = NodeDrain::new(&format!("d-{node}"), NodeDrainSpec::of(node, mode));
    drain.metadata.uid = Some(format!("u-{node}"));
    drain
}

/// Three nodes with guards; these drains, whose nodes are cordoned, and these volumes.
fn world(drains: Vec<NodeDrain>, volumes: Vec<Volume>) -> World {
    let mut nodes = detached().nodes;
    for node in &mut nodes {
        let node = Arc::make_mut(node);
        node.metadata.uid = Some(format!("uid-{}", node.name_any()));
    }
    let cordoned = |node: &str| drains.iter().any(|d| d.spec.node == node);
    let face = |node: &str| Face { cordoned: cordoned(node), ..Face::default() };
    let faces = nodes.iter().map(|n| (n.name_any(), face(&n.name_any()))).collect();
    let template = serde_json::json!({"template": {"metadata": {"labels": {"app": "g"}}, "spec": {"containers": []}}});
    let template: PodTemplate = serde_json::from_value(template).unwrap();
    let volumes = volumes
        .into_iter()
        .map(|v| Volume { drains: drains.iter().cloned().map(Arc::new).collect(), nodes: nodes.clone(), ..v })
        .collect();
    let mut world = World {
        nodes,
        faces,
        drains,
        volumes,
        pods: Vec::new(),
        budgets: Vec::new(),
        template: Some(template),
        settings: Settings::default(),
        now: now(),
    };
    let first = plan(&world);
    for action in first {
        carry_out(&mut world, &action);
    }
    world
}

/// What the API server makes of an action.
fn carry_out(world: &mut World, action: &Action) {
    match action.clone() {
        Action::CreateDrain { drain } => world.drains.push(*drain),
        Action::DeleteDrain { name, .. } => world.drains.retain(|d| d.name_any() != name),
        Action::WriteStatus { drain, status } => {
            let found = world.drains.iter_mut().find(|d| d.name_any() == drain.name_any()).unwrap();
            found.status = Some(*status);
        }
        Action::CreatePod { pod } => world.pods.push(*pod),
        Action::DeletePod { name, .. } => {
            let pod = world.pods.iter_mut().find(|p| p.name_any() == name).unwrap();
            pod.metadata.deletion_timestamp = Some(Time(now()));
        }
        Action::LetPodGo { pod } => world.pods.retain(|p| p.name_any() != pod.name_any()),
        Action::SetBudget { budget, .. } => {
            world.budgets.retain(|b| b.name_any() != budget.name_any());
            world.budgets.push(*budget);
        }
        Action::DeleteBudget { name } => world.budgets.retain(|b| b.name_any() != name),
    }
}

/// Until nothing is left to be done.
fn settle(world: &mut World) {
    for _ in 0..10 {
        let actions = plan(world);
        if actions.is_empty() {
            return;
        }
        for action in &actions {
            carry_out(world, action);
        }
    }
    panic!("no rest: {:?}", plan(world));
}

fn state(world: &World, drain: &str) -> Option<DrainVolumeState> {
    let decisions = decide(world);
    let decision = decisions.iter().find(|d| d.drain.name_any() == drain).unwrap();
    decision.waits.first().map(|w| w.state)
}

fn released(world: &World) -> Vec<String> {
    decide(world).iter().filter(|d| d.released).map(|d| d.drain.spec.node.clone()).collect()
}

fn single() -> Volume {
    let mut volume = detached();
    volume.volume.spec.replica_count = 1;
    volume.legs.truncate(1);
    volume
}

fn with_policy(volume: Volume, drain_policy: DrainPolicy) -> Volume {
    let spec = ReplicaSetPolicySpec { drain_policy, ..ReplicaSetPolicySpec::default() };
    Volume { policy: Some(ReplicaSetPolicy::new("p", spec)), ..volume }
}

fn open(world: &World, node: &str) -> bool {
    let budget = world.budgets.iter().find(|b| b.name_any() == guard::name(node)).unwrap();
    budget.spec.as_ref().unwrap().min_available == Some(IntOrString::Int(0))
}

fn pod<'a>(world: &'a mut World, node: &str) -> Option<&'a mut Pod> {
    world.pods.iter_mut().find(|pod| guard::of(pod, node))
}

/// The words of Longhorn, mapped onto `minInSync`: what each policy makes of the last copy, of one of two, attached or not.
#[test]
fn what_a_policy_allows() {
    use DrainPolicy::{
        AllowIfReplicaIsStopped, AlwaysAllow, BlockForEviction, BlockForEvictionIfContainsLastReplica,
        BlockIfContainsLastReplica,
    };
    use DrainVolumeState::{Blocked, Moving};
    let volumes: [fn() -> Volume; 2] = [single, attached];
    // Of a single copy that is detached; of the remote one of two.
    for (policy, want) in [
        (BlockIfContainsLastReplica, [Some(Blocked), None]),
        (BlockForEviction, [Some(Moving), Some(Moving)]),
        (BlockForEvictionIfContainsLastReplica, [Some(Moving), None]),
        (AllowIfReplicaIsStopped, [None, None]),
        (AlwaysAllow, [None, None]),
    ] {
        for ((volume, node), want) in volumes.into_iter().zip(["n1", "n2"]).zip(want) {
            let world = world(vec![drain(node, DrainMode::Maintenance)], vec![with_policy(volume(), policy)]);
            assert_eq!(state(&world, &format!("d-{node}")), want, "{policy:?} {node}");
        }
    }
}

#[test]
fn a_block_names_the_volume_the_rule_and_the_remedy() {
    let world = world(vec![drain("n1", DrainMode::Maintenance)], vec![single()]);
    let decisions = decide(&world);
    let said = status(&world, &decisions[0]);
    let stalled = said.conditions.iter().find(|c| c.type_ == conditions::STALLED).unwrap();
    assert_eq!(stalled.reason, "Blocked");
    for part in ["v: ", "minInSync is 1", "Evacuate", "block-for-eviction"] {
        assert!(stalled.message.contains(part), "{}", stalled.message);
    }
    assert_eq!(said.volumes_ready.as_deref(), Some("0/1"));
}

#[test]
fn a_node_whose_volume_is_used_there_waits_for_its_user() {
    let mut world = world(vec![drain("n1", DrainMode::Maintenance)], vec![attached()]);
    assert_eq!(state(&world, "d-n1"), Some(DrainVolumeState::ConsumerPresent));
    world.volumes[0].attachment.as_mut().unwrap().spec.node = None;
    assert_eq!(state(&world, "d-n1"), Some(DrainVolumeState::ConsumerPresent), "its array runs still");
    let ended = meshstor_crds::Ended { epoch: 3, reason: meshstor_crds::EndedReason::Detached };
    world.volumes[0].attachment.as_mut().unwrap().status.as_mut().unwrap().ended = Some(ended);
    assert_eq!(released(&world), ["n1"]);
}

/// Each of two nodes could go; both could not.
#[test]
fn what_one_drain_lets_go_counts_for_the_next() {
    let drains = vec![drain("n1", DrainMode::Maintenance), drain("n2", DrainMode::Maintenance)];
    let mut world = world(drains, vec![detached()]);
    // They are of one failure domain: only the copies keep them apart.
    for face in world.faces.values_mut() {
        face.labels = [(Settings::default().domain, "a".to_owned())].into();
    }
    assert_eq!(released(&world), ["n1"]);
    assert_eq!(state(&world, "d-n2"), Some(DrainVolumeState::Waiting));
}

#[test]
fn one_failure_domain_at_a_time() {
    let other = || {
        let mut volume = detached();
        (volume.volume.metadata.name, volume.uid) = (Some("w".into()), "w".into());
        volume.legs.truncate(1);
        volume.legs[0].spec.node = "n3".into();
        with_policy(volume, DrainPolicy::AlwaysAllow)
    };
    let drains = vec![drain("n1", DrainMode::Maintenance), drain("n3", DrainMode::Maintenance)];
    let mut world = world(drains, vec![detached(), other()]);
    assert_eq!(released(&world), ["n1"], "nodes without a label are domains of their own");
    let said = status(&world, decide(&world).last().unwrap());
    assert!(said.conditions.iter().any(|c| c.reason == conditions::REASON_OTHER_DOMAIN && c.message.contains("d-n1")));
    for name in ["n1", "n3"] {
        world.faces.get_mut(name).unwrap().labels = [(Settings::default().domain, "rack".to_owned())].into();
    }
    assert_eq!(released(&world), ["n1", "n3"], "a rack goes at once");
}

#[test]
fn a_drain_waits_for_copies_that_come_back_by_themselves() {
    let mut volume = attached();
    term_mut(&mut volume).in_sync = vec!["v-1".into()];
    let world = world(vec![drain("n2", DrainMode::Maintenance)], vec![volume]);
    assert_eq!(state(&world, "d-n2"), Some(DrainVolumeState::Waiting));
    let mut silent = world.clone();
    silence(&mut silent.volumes[0], "n1");
    term_mut(&mut silent.volumes[0]).in_sync = vec!["v-0".into(), "v-1".into()];
    assert_eq!(state(&silent, "d-n2"), Some(DrainVolumeState::Waiting), "a copy on a silent node is none");
}

#[test]
fn an_evacuated_leg_is_replaced_and_a_cancelled_one_stays() {
    let drains = vec![drain("n2", DrainMode::Evacuate)];
    let mut world = world(drains, vec![attached()]);
    let leg = |world: &World| world.volumes[0].leg("v-1").cloned().unwrap();
    assert_eq!(why(&world.volumes[0], &leg(&world)).map(Why::reason), Some("Draining"));
    assert_eq!(why(&world.volumes[0], world.volumes[0].leg("v-0").unwrap()), None);
    assert_eq!(state(&world, "d-n2"), Some(DrainVolumeState::Moving));
    world.volumes[0].drains.clear();
    assert_eq!(why(&world.volumes[0], &leg(&world)), None);
}

/// A leg that leaves: looked for a place, copied to with its progress; blocked where there is none, or nobody runs the array that copies.
#[test]
fn how_far_a_leg_that_leaves_is() {
    let mut volume = attached();
    let mut heir = crate::volume::fixtures::leg(1, "n3");
    heir.metadata.name = Some("v-1.1".into());
    heir.spec.replaces = Some("v-1".into());
    let moves = |volume: Volume| {
        let world = world(vec![drain("n2", DrainMode::Evacuate)], vec![volume]);
        decide(&world)[0].waits[0].clone()
    };
    assert!(moves(volume.clone()).message.contains("is looked for"));
    let refused = conditions::Want::new(conditions::REPLACING, false, conditions::REASON_UNSCHEDULABLE, "no drive");
    let status = volume.volume.status.get_or_insert_default();
    status.conditions = conditions::apply(&[], &[refused], None, &Time(now()));
    let said = moves(volume.clone());
    assert!(said.state == DrainVolumeState::Blocked && said.message.contains("no drive"), "{said:?}");
    volume.volume.status = None;
    volume.legs.push(heir);
    let members = [("v-0", MemberState::InSync), ("v-1", MemberState::InSync), ("v-1.1", MemberState::Rebuilding)];
    show(&mut volume, &members);
    let resync = meshstor_crds::Resync {
        percent: 40,
        remaining_seconds: Some(30),
        done_bytes: Some(4),
        total_bytes: Some(10),
        bytes_per_second: None,
    };
    let array = volume.attachment.as_mut().unwrap().status.as_mut().unwrap().array.as_mut().unwrap();
    array.resync = Some(resync.clone());
    let said = moves(volume.clone());
    assert_eq!((said.state, said.resync), (DrainVolumeState::Moving, Some(resync)));
    let message = status_message(&world(vec![drain("n2", DrainMode::Evacuate)], vec![volume.clone()]));
    assert!(message.contains("0 of 1 volumes are ready") && message.contains("40 %, about 30 s left"), "{message}");
    let attachment = volume.attachment.as_mut().unwrap();
    attachment.spec.node = None;
    let status = attachment.status.as_mut().unwrap();
    status.ended = Some(meshstor_crds::Ended { epoch: 3, reason: meshstor_crds::EndedReason::Detached });
    let said = moves(volume.clone());
    assert!(said.state == DrainVolumeState::Moving && !said.message.contains("attach"), "{said:?}");
    // Detached, and without a node that could copy.
    volume.nodes.retain(|node| node.name_any() != "n1");
    let mut alone = world(vec![drain("n2", DrainMode::Evacuate)], Vec::new());
    alone.nodes.retain(|node| node.name_any() != "n1");
    volume.drains = alone.drains.iter().cloned().map(Arc::new).collect();
    alone.volumes = vec![volume];
    let said = decide(&alone)[0].waits[0].clone();
    assert!(said.state == DrainVolumeState::Blocked && said.message.contains("v-0 on n1 does not answer"), "{said:?}");
}

fn status_message(world: &World) -> String {
    status(world, &decide(world)[0]).conditions[0].message.clone()
}

/// A leg that rests for maintenance is not replaced before the deadline that its drain has.
#[test]
fn a_leg_under_maintenance_is_waited_for() {
    let mut volume = attached();
    term_mut(&mut volume).in_sync = vec!["v-0".into()];
    let resolved = serde_json::json!({"minInSync": 1, "missingMemberTimeoutSeconds": 60, "transport": "tcp",
        "ioQueues": 2, "queueSize": 128, "keepAliveSeconds": 2, "bitmap": "internal"});
    let since = jiff::Timestamp::from_second(1_000_000 - 600).unwrap();
    let status = serde_json::json!({"resolved": resolved, "legs": [{"name": "v-1", "slot": 1, "node": "n2",
        "drive": "d", "state": "Missing", "missingSince": Time(since)}]});
    volume.volume.status = Some(serde_json::from_value(status).unwrap());
    silence(&mut volume, "n2");
    let reason = |volume: &Volume| why(volume, volume.leg("v-1").unwrap());
    assert_eq!(reason(&volume), Some(Why::Away));
    let mut rests = drain("n2", DrainMode::Maintenance);
    rests.status.get_or_insert_default().released_at = Some(Time(since));
    volume.drains = vec![Arc::new(rests.clone())];
    assert_eq!(reason(&volume), None);
    rests.spec.return_within_seconds = 599;
    volume.drains = vec![Arc::new(rests)];
    assert_eq!(reason(&volume), Some(Why::Away));
}

/// The budget is closed before anything else and opened after the decision was written, and nothing is left to do then.
#[test]
fn a_budget_opens_after_its_decision_and_closes_with_it() {
    let mut world = world(vec![drain("n2", DrainMode::Maintenance)], vec![attached()]);
    world.drains[0].status = None;
    world.budgets.clear();
    let actions = plan(&world);
    let at = |wanted: fn(&Action) -> bool| actions.iter().position(wanted).unwrap();
    let closed = at(|a| matches!(a, Action::SetBudget { open: false, .. }));
    let said = at(|a| matches!(a, Action::WriteStatus { .. }));
    let opened = at(|a| matches!(a, Action::SetBudget { open: true, .. }));
    assert!(closed < said && said < opened, "{actions:?}");
    settle(&mut world);
    assert!(open(&world, "n2") && !open(&world, "n1") && !open(&world, "n3"));
    world.faces.get_mut("n2").unwrap().cordoned = false;
    settle(&mut world);
    assert!(!open(&world, "n2"), "it is not cordoned any more");
    world.faces.get_mut("n2").unwrap().cordoned = true;
    world.drains.clear();
    world.settings.on_cordon = None;
    settle(&mut world);
    assert!(!open(&world, "n2"), "nobody drains it any more");
}

/// A guard that was deleted, or evicted before it ran, is held until the node may go; then no other takes its place.
#[test]
fn a_guard_is_held_until_its_node_may_go() {
    let mut world = world(vec![drain("n1", DrainMode::Maintenance)], vec![attached()]);
    pod(&mut world, "n1").unwrap().metadata.deletion_timestamp = Some(Time(now()));
    settle(&mut world);
    assert!(pod(&mut world, "n1").is_some(), "its volume is used there");
    world.volumes.clear();
    settle(&mut world);
    assert!(pod(&mut world, "n1").is_none());
    world.faces.get_mut("n1").unwrap().cordoned = false;
    settle(&mut world);
    assert!(pod(&mut world, "n1").is_some_and(|pod| pod.metadata.deletion_timestamp.is_none()), "it is uncordoned");
}

#[test]
fn a_node_that_is_gone_leaves_no_guard() {
    let mut world = world(vec![], vec![]);
    world.faces.remove("n2");
    world.nodes.retain(|n| n.name_any() != "n3");
    settle(&mut world);
    let left: Vec<String> = world.pods.iter().map(|p| p.name_any()).collect();
    assert_eq!(left, [guard::name("n1")]);
    assert_eq!(world.budgets.len(), 1);
}

#[test]
fn a_cordon_starts_a_drain_and_its_end_ends_it() {
    let mut world = world(vec![], vec![]);
    assert!(world.drains.is_empty());
    world.faces.values_mut().for_each(|face| face.cordoned = true);
    settle(&mut world);
    assert!(world.drains.len() == 3 && world.drains.iter().all(|d| d.labels().contains_key(BY_CORDON)));
    for drain in &mut world.drains {
        drain.metadata.uid = Some(drain.name_any());
    }
    world.faces.get_mut("n1").unwrap().cordoned = false;
    settle(&mut world);
    assert_eq!(world.drains.len(), 2);
    let mut asked = drain("n1", DrainMode::Evacuate);
    asked.metadata.uid = Some("asked".into());
    world.drains.push(asked);
    settle(&mut world);
    assert_eq!(world.drains.len(), 3, "what a person made is a person's to end");
}

/// Whoever was let pass may be gone: that is taken back only while the guard is there.
#[test]
fn a_release_is_taken_back_while_nobody_has_gone() {
    let mut world = world(vec![drain("n2", DrainMode::Maintenance)], vec![attached()]);
    for cordoned in [false, true] {
        world.faces.get_mut("n2").unwrap().cordoned = cordoned;
        settle(&mut world);
    }
    assert!(open(&world, "n2") && pod(&mut world, "n2").is_some());
    assert_eq!(released(&world), ["n2"]);
    show(&mut world.volumes[0], &[("v-0", MemberState::Held), ("v-1", MemberState::InSync)]);
    assert!(released(&world).is_empty());
    world.pods.clear();
    assert_eq!(released(&world), ["n2"]);
}
