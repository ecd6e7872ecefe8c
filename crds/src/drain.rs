//! `NodeDrain`: make a node safe to be down, or empty it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Resync;

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
    printcolumn(name = "Volumes", type_ = "string", json_path = ".status.volumesReady"),
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
    /// Seconds that a node under `Maintenance` may be away after it was let go before its legs are replaced, 0 to 30 days; where the policy of a
    /// volume waits for longer, that counts.
    #[serde(default = "return_within")]
    #[schemars(range(min = 0, max = 2_592_000))]
    pub return_within_seconds: i64,
}

fn return_within() -> i64 {
    3600
}

impl NodeDrainSpec {
    /// A drain of `node` with the defaults.
    pub fn of(node: impl Into<String>, mode: DrainMode) -> Self {
        Self { node: node.into(), mode, return_within_seconds: return_within() }
    }
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
    /// Since when the node may go: its guard lets `kubectl drain` pass, and no other failure domain is let go. It is taken back when that is
    /// not so any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_at: Option<Time>,
    /// The most volumes that had to do with the node at one time since the drain was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub volumes_total: Option<i32>,
    /// Volumes that are ready for it, of `volumesTotal`, for instance `3/5`: those that have left the node count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub volumes_ready: Option<String>,
    /// Volumes that are not ready for it, by name: the first 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub volumes: Vec<DrainVolume>,
}

/// What a drain still waits for at one volume.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DrainVolume {
    /// The volume.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// How far it is.
    pub state: DrainVolumeState,
    /// For people: the rule, and the remedy where one is needed.
    #[schemars(length(max = 512))]
    pub message: String,
    /// How far the copy is to the leg that takes the place of the one that leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resync: Option<Resync>,
}

/// How far a volume is with a drain.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainVolumeState {
    /// Its leg leaves the node.
    Moving,
    /// Too few copies are in sync elsewhere, and that passes by itself.
    Waiting,
    /// It is used on the node.
    ConsumerPresent,
    /// Only a person can help.
    Blocked,
}
