//! `NodeDrain`: make a node safe to be down, or empty it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Make a node safe to be down for a while, or move every leg away from it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "meshstor.io",
    version = "v1alpha1",
    kind = "NodeDrain",
    plural = "nodedrains",
    shortname = "ndrain",
    category = "meshstor",
    status = "NodeDrainStatus",
    derive = "PartialEq",
    cel,
    doc = "Make a node safe to be down for a while, or move every leg away from it.",
    selectable = ".spec.node",
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct NodeDrainSpec {
    /// Name of the `MeshNode` to drain. It never changes.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.node: never changes; delete this drain and make another"))]
    pub node: String,
    /// What is wanted of the node. It never changes.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.mode: never changes; delete this drain and make another"))]
    pub mode: DrainMode,
}

/// What is wanted of a drained node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DrainMode {
    /// It goes down and comes back: data stays.
    #[default]
    Maintenance,
    /// Every leg leaves.
    Evacuate,
}

/// What the operator has seen of a drain.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeDrainStatus {
    /// The `metadata.generation` that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, and while true `Reconciling` and `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
