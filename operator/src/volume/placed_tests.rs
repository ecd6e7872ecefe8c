//! Whether a volume is as its policy says now, and which leg is moved for it.

use super::fixtures::{attached, detached, leg, leg_mut, node, now, silence, with_term};
use super::placed::{condition, moves};
use super::reasons::{Why, why};
use super::world::World;
use meshstor_crds::conditions::Want;
use meshstor_crds::{Rebalance, ReplicaSetPolicy, ReplicaSetPolicySpec, ResolvedPolicy, TermPhase};
use std::sync::Arc;

const ZONE: &str = "topology.kubernetes.io/zone";

/// Kubernetes says these zones of n1, n2 and n3; the policy is `spec`.
fn under(mut world: World, zones: [&str; 3], spec: serde_json::Value) -> World {
    for (name, zone) in ["n1", "n2", "n3"].into_iter().zip(zones) {
        world.labels.insert(name.into(), [(ZONE.to_owned(), zone.to_owned())].into());
    }
    world.volume.spec.policy = Some("p".into());
    let spec: ReplicaSetPolicySpec = serde_json::from_value(spec).unwrap();
    world.policy = Some(ReplicaSetPolicy::new("p", spec));
    world
}

fn apart() -> serde_json::Value {
    serde_json::json!({"rebalance": "Allowed", "placement": {"spread": [{"topologyKey": ZONE, "mode": "Required"}]}})
}

fn said(world: &World) -> (Option<bool>, String) {
    let Want { status, message, .. } = condition(world, None);
    (status, message)
}

#[test]
fn each_leg_says_why_it_is_where_it_is() {
    let mut world = under(attached(), ["a", "b", "c"], apart());
    world.volume.spec.preferred_node = Some("n1".into());
    let want = format!("v-0 on n1 (d): {ZONE}=a, the preferred node; v-1 on n2 (d): {ZONE}=b");
    assert_eq!(said(&world), (Some(true), want));
    assert_eq!(said(&attached()), (Some(true), "v-0 on n1 (d); v-1 on n2 (d)".to_owned()), "without a policy");
    let mut lost = world.clone();
    lost.policy = None;
    assert_eq!(said(&lost).0, None, "its policy is not there");
    world.legs.clear();
    assert_eq!(said(&world).0, None, "not placed yet");
}

/// I7: what is not known is not called good, and is no reason to move anything.
#[test]
fn labels_that_nobody_has_heard_of_decide_nothing() {
    let mut world = under(attached(), ["a", "b", "c"], apart());
    world.labels.remove("n2");
    assert_eq!(said(&world).0, None);
    assert!(!moves(&world, world.leg("v-1").unwrap()));
    world.labels.insert("n2".into(), Default::default());
    assert_eq!(said(&world).0, Some(false), "it has been heard of, and has no such label");
    // A label of the MeshNode goes before that of Kubernetes.
    for node in &mut world.nodes {
        Arc::make_mut(node).metadata.labels = Some([(ZONE.to_owned(), format!("own-{:p}", node.as_ref()))].into());
    }
    assert_eq!(said(&world).0, Some(true), "{:?}", said(&world));
}

/// Each rule of a policy, as it is now, by the words of the filter that would drop the node.
#[test]
fn a_leg_that_breaks_a_rule_says_which() {
    let against = |zones, spec| said(&under(attached(), zones, spec));
    let (status, message) = against(["a", "a", "c"], apart());
    assert!(
        status == Some(false) && message.ends_with(&format!("v-1 on n2 (d) breaks Spread ({ZONE}=a has v-0)")),
        "{message}"
    );
    let mut preferred = apart();
    preferred["placement"]["spread"][0]["mode"] = "Preferred".into();
    assert_eq!(against(["a", "a", "c"], preferred).0, Some(true), "it is a wish");
    let selector = serde_json::json!({"placement": {"nodeSelector": {ZONE: "b"}}});
    let (status, message) = against(["a", "b", "c"], selector);
    assert!(
        status == Some(false)
            && message.contains(&format!("v-0 on n1 (d) breaks NodeSelector ({ZONE} must be \"b\", is \"a\")")),
        "{message}"
    );
    let mut other_sets = under(attached(), ["a", "a", "c"], apart());
    leg_mut(&mut other_sets, "v-1").spec.mirror_set = 1;
    assert_eq!(said(&other_sets).0, Some(true), "they hold other blocks");
    let mut drives = under(attached(), ["a", "b", "c"], serde_json::json!({"placement": {"driveModels": ["fast"]}}));
    let drive =
        serde_json::json!({"id": "d", "path": "/dev/d", "model": "slow", "sizeBytes": 1, "logicalSectorSize": 512});
    let mut status = (*node("n1", now())).clone().status.unwrap();
    status.drives = vec![serde_json::from_value(drive).unwrap()];
    Arc::make_mut(&mut drives.nodes[0]).status = Some(status);
    let (status, message) = said(&drives);
    assert!(status == Some(false) && message.contains("v-0 on n1 (d) breaks has slow"), "{message}");
}

/// What was settled when the volume was made stays; that it is not what the policy says now is said.
#[test]
fn what_is_frozen_and_was_changed_is_said() {
    let resolved = serde_json::json!({"minInSync": 1, "missingMemberTimeoutSeconds": 900, "transport": "tcp",
        "ioQueues": 2, "queueSize": 128, "keepAliveSeconds": 2, "bitmap": "internal"});
    let resolved: ResolvedPolicy = serde_json::from_value(resolved).unwrap();
    let of = |spec| {
        let mut world = under(attached(), ["a", "b", "c"], spec);
        world.volume.status.get_or_insert_default().resolved = Some(resolved.clone());
        let Want { status, message, .. } = condition(&world, Some(&resolved));
        (status, message)
    };
    assert_eq!(of(serde_json::json!({})).0, Some(true), "{:?}", of(serde_json::json!({})));
    for (spec, field) in [
        (serde_json::json!({"minInSync": 2}), "minInSync is 1 since the volume was made, the policy says 2"),
        (serde_json::json!({"missingMemberTimeoutSeconds": 60}), "missingMemberTimeoutSeconds is 900"),
        (serde_json::json!({"bitmap": "none"}), "bitmap is internal since the volume was made, the policy says none"),
        (serde_json::json!({"connection": {"ioQueues": 4}}), "connection.ioQueues is 2"),
    ] {
        let (status, message) = of(spec);
        assert!(status == Some(false) && message.contains(field), "{message}");
    }
}

/// I3: a leg is moved for a rule only from a volume that is whole, one at a time, and only where the policy says so.
#[test]
fn a_leg_is_moved_only_where_the_policy_allows_it() {
    let moved = |world: &World, name: &str| why(world, world.leg(name).unwrap());
    let world = under(attached(), ["a", "a", "c"], apart());
    assert_eq!((moved(&world, "v-0"), moved(&world, "v-1")), (None, Some(Why::Misplaced)));
    let mut never = world.clone();
    never.policy.as_mut().unwrap().spec.rebalance = Rebalance::Never;
    assert_eq!(moved(&never, "v-1"), None);
    let mut silent = world.clone();
    silence(&mut silent, "n1");
    assert_eq!(moved(&silent, "v-1"), None, "n1 does not answer");
    let degraded = under(with_term(3, TermPhase::Running, &["v-1"]), ["a", "a", "c"], apart());
    assert_eq!(moved(&degraded, "v-1"), None, "v-0 is not in sync");
    let heir = |of: &str| {
        let mut heir = leg(1, "n3");
        heir.metadata.name = Some(format!("{of}.1"));
        heir.spec.replaces = Some(of.to_owned());
        heir
    };
    let mut going = world.clone();
    going.legs.push(heir("v-1"));
    assert_eq!(moved(&going, "v-1"), Some(Why::Misplaced), "it goes on");
    let mut other = world.clone();
    other.legs.push(heir("v-0"));
    assert_eq!(moved(&other, "v-1"), None, "another leg is being replaced");
    assert_eq!(moved(&under(attached(), ["a", "b", "c"], apart()), "v-1"), None, "I4: nothing is moved that is right");
    assert_eq!(moved(&under(detached(), ["a", "a", "c"], apart()), "v-1"), None, "it was never written to");
}
