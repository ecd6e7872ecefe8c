//! The guard of a node: an ordinary pod with a disruption budget, which `kubectl drain` may evict only when the node may go. Pure.
//!
//! kubectl evicts right after it cordons, so the budget is closed at all times and opened by a decision. The eviction API lets a pod pass
//! whatever its budget says while that is pending, and `--disable-eviction` asks for no budget at all: a finalizer holds the pod then.

use super::decision::{Decision, open};
use super::plan::Action;
use super::world::World;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource as _, ResourceExt as _};
use meshstor_crds::{MeshNode, naming};
use std::collections::{BTreeMap, BTreeSet};

/// Namespace of the guards, which have it for themselves.
pub const NAMESPACE: &str = "meshstor-drain";
/// Name of the template of their pods.
pub const TEMPLATE: &str = "node-guard";
/// Finalizer of a guard's pod.
pub const FINALIZER: &str = "meshstor.io/node-guard";
/// Label of a guard's pod and budget: which node's, cut to what a label holds.
pub const LABEL: &str = "meshstor.io/guards-node";
/// Annotation with the whole name of the node.
pub const NODE: &str = "meshstor.io/node";

/// Name of pod and budget.
pub fn name(node: &str) -> String {
    naming::cut(&format!("meshstor-{node}"), 63)
}

/// The node that a pod or budget guards.
fn node_of<K: kube::Resource>(object: &K) -> Option<&str> {
    object.meta().annotations.as_ref()?.get(NODE).map(String::as_str)
}

/// Whether `pod` guards `node`.
pub fn of(pod: &Pod, node: &str) -> bool {
    node_of(pod) == Some(node)
}

/// What is to be done that every node has its guard, and no other is left. Budgets are closed before anything else, and opened last.
pub fn plan(world: &World, decisions: &[Decision<'_>]) -> (Vec<Action>, Vec<Action>) {
    let (mut close, mut rest) = (Vec::new(), Vec::new());
    let guarded: Vec<&MeshNode> = world.nodes.iter().map(AsRef::as_ref).filter(|n| stands(world, n)).collect();
    let names: BTreeSet<String> = guarded.iter().map(|n| n.name_any()).collect();
    for node in guarded {
        let open = open(world, decisions, &node.name_any());
        let budget = budget(world, node, open);
        if let Some(action) = budget {
            if open { rest.push(action) } else { close.push(action) }
        }
        rest.extend(pod(world, node, open));
    }
    let stray = |node: Option<&str>| node.is_none_or(|node| !names.contains(node));
    for pod in world.pods.iter().filter(|pod| stray(node_of(*pod))) {
        rest.extend(remove(pod));
    }
    for budget in world.budgets.iter().filter(|budget| stray(node_of(*budget))) {
        rest.push(Action::DeleteBudget { name: budget.name_any() });
    }
    (close, rest)
}

/// A node has a guard while both of its objects are there.
fn stands(world: &World, node: &MeshNode) -> bool {
    world.template.is_some() && world.faces.contains_key(&node.name_any())
}

/// A pod that is to go is deleted first, then let go.
fn remove(pod: &Pod) -> Option<Action> {
    let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
    match pod.metadata.deletion_timestamp {
        None => Some(Action::DeletePod { name, uid }),
        Some(_) => held(pod).then(|| Action::LetPodGo { pod: Box::new(pod.clone()) }),
    }
}

fn held(pod: &Pod) -> bool {
    pod.finalizers().iter().any(|f| f == FINALIZER)
}

fn pod(world: &World, node: &MeshNode, open: bool) -> Option<Action> {
    let node_name = node.name_any();
    let Some(pod) = world.pods.iter().find(|pod| of(pod, &node_name)) else {
        return (!open).then(|| new_pod(world, node).map(|pod| Action::CreatePod { pod: Box::new(pod) })).flatten();
    };
    let leaving = pod.metadata.deletion_timestamp.is_some();
    // Held while the node may not go. Nobody drains a node that is not cordoned: another pod takes its place.
    let goes = open || !world.cordoned(&node_name);
    match (leaving, over(pod)) {
        (true, _) => (goes && held(pod)).then(|| Action::LetPodGo { pod: Box::new(pod.clone()) }),
        (false, true) => remove(pod),
        (false, false) => None,
    }
}

/// Whether the pod will never run again: a kubelet that is shut down or short of memory ends pods so.
fn over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

fn meta(node: &MeshNode) -> Option<ObjectMeta> {
    let name_ = node.name_any();
    let owner = OwnerReference {
        api_version: MeshNode::api_version(&()).into_owned(),
        kind: MeshNode::kind(&()).into_owned(),
        name: name_.clone(),
        uid: node.uid()?,
        // kubectl drain refuses a pod that no controller has.
        controller: Some(true),
        block_owner_deletion: None,
    };
    Some(ObjectMeta {
        name: Some(name(&name_)),
        namespace: Some(NAMESPACE.to_owned()),
        labels: Some([(LABEL.to_owned(), naming::cut(&name_, 63))].into()),
        annotations: Some([(NODE.to_owned(), name_)].into()),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    })
}

/// The pod of the template, bound to the node past the scheduler: a cordoned node has one too.
fn new_pod(world: &World, node: &MeshNode) -> Option<Pod> {
    let template = world.template.as_ref()?.template.as_ref()?;
    let mut meta = meta(node)?;
    meta.finalizers = Some(vec![FINALIZER.to_owned()]);
    let of_template = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    let labels = meta.labels.get_or_insert_default();
    for (key, value) in of_template {
        labels.entry(key).or_insert(value);
    }
    let mut spec = template.spec.clone()?;
    spec.node_name = Some(node.name_any());
    Some(Pod { metadata: meta, spec: Some(spec), status: None })
}

/// The budget, where it is not as it must be.
fn budget(world: &World, node: &MeshNode, open: bool) -> Option<Action> {
    let least = IntOrString::Int(i32::from(!open));
    let name = node.name_any();
    let there = world.budgets.iter().find(|b| node_of(*b) == Some(&name));
    let spec = there.and_then(|b| b.spec.as_ref());
    let selector = LabelSelector {
        match_labels: Some(BTreeMap::from([(LABEL.to_owned(), naming::cut(&name, 63))])),
        ..LabelSelector::default()
    };
    if spec.is_some_and(|s| s.min_available.as_ref() == Some(&least) && s.selector.as_ref() == Some(&selector)) {
        return None;
    }
    let spec = PodDisruptionBudgetSpec {
        min_available: Some(least),
        selector: Some(selector),
        ..PodDisruptionBudgetSpec::default()
    };
    let budget = PodDisruptionBudget { metadata: meta(node)?, spec: Some(spec), status: None };
    Some(Action::SetBudget { budget: Box::new(budget), open })
}
