//! What was observed of everything that a drain is about: the only input of its planning.

use crate::node::{self, Face};
use crate::volume::world::World as Volume;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodTemplate};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt as _;
use meshstor_crds::{DrainMode, MeshNode, NodeDrain};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Label of a `NodeDrain` that the operator made because its node was cordoned, and that goes when the node is uncordoned.
pub const BY_CORDON: &str = "meshstor.io/by-cordon";

/// What the administrator of the operator chose for drains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Node label whose values are failure domains; a node without it is one of its own.
    pub domain: String,
    /// Mode of the drain that a cordon starts; none where a cordon starts none.
    pub on_cordon: Option<DrainMode>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { domain: "topology.kubernetes.io/zone".to_owned(), on_cordon: Some(DrainMode::Maintenance) }
    }
}

/// Nodes, drains, guards, and the volumes that have to do with a drained node.
#[derive(Clone, Debug)]
pub struct World {
    /// All `MeshNode`s, without those that are being deleted.
    pub nodes: Vec<Arc<MeshNode>>,
    /// What matters of each Kubernetes node, by name.
    pub faces: BTreeMap<String, Face>,
    /// All drains.
    pub drains: Vec<NodeDrain>,
    /// Volumes with a leg or an attachment on a drained node, read with a quorum.
    pub volumes: Vec<Volume>,
    /// The pods that guard nodes.
    pub pods: Vec<Pod>,
    /// Their budgets.
    pub budgets: Vec<PodDisruptionBudget>,
    /// What a guard looks like; without it there are none.
    pub template: Option<PodTemplate>,
    /// What the administrator chose.
    pub settings: Settings,
    /// Now.
    pub now: Timestamp,
}

/// Whether `drain` still asks for something.
pub fn active(drain: &NodeDrain) -> bool {
    drain.metadata.deletion_timestamp.is_none()
}

/// Whether the node of `drain` was told that it may go.
pub fn released(drain: &NodeDrain) -> bool {
    active(drain) && drain.status.as_ref().is_some_and(|s| s.released_at.is_some())
}

/// Whether the operator made `drain` for a cordon.
pub fn by_cordon(drain: &NodeDrain) -> bool {
    drain.labels().contains_key(BY_CORDON)
}

impl World {
    /// The drains that ask for something, the oldest first: the order in which they get their turn.
    pub fn active(&self) -> Vec<&NodeDrain> {
        let mut drains: Vec<&NodeDrain> = self.drains.iter().filter(|d| active(d)).collect();
        drains.sort_by_key(|d| (d.creation_timestamp(), d.name_any()));
        drains
    }

    /// Whether somebody has said that no pod is to come to the node any more.
    pub fn cordoned(&self, node: &str) -> bool {
        self.faces.get(node).is_some_and(|face| face.cordoned)
    }

    /// The `MeshNode` of that name.
    pub fn node(&self, name: &str) -> Option<&MeshNode> {
        node::find(&self.nodes, name)
    }

    /// Failure domain of a node: the value of the label, of the node or of its `MeshNode`; its own name where there is none.
    pub fn domain(&self, name: &str) -> String {
        let label = &self.settings.domain;
        let ours = self.node(name).and_then(|n| n.labels().get(label));
        let theirs = self.faces.get(name).and_then(|face| face.labels.get(label));
        ours.or(theirs).map_or_else(|| format!("node {name}"), |value| format!("{label}={value}"))
    }

    /// Whether `node` answers.
    pub fn answers(&self, name: &str) -> bool {
        self.node(name).is_some_and(|n| node::ready(n, self.now).is_ok())
    }
}
