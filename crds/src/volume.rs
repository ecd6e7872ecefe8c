//! `MeshVolume`: what a person asks for.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Adoption, Bitmap, Transport};

/// A replicated block volume: `replicaCount` copies, each on other nodes, assembled by the kernel into one MD array
/// on the node where it is attached.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "meshstor.io",
    version = "v1alpha1",
    kind = "MeshVolume",
    plural = "meshvolumes",
    shortname = "mvol",
    category = "meshstor",
    status = "MeshVolumeStatus",
    derive = "PartialEq",
    cel,
    doc = "A replicated block volume: `replicaCount` copies on other nodes, assembled by the kernel where it is attached.",
    selectable = ".spec.policy",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "In-Sync", type_ = "string", json_path = ".status.copies"),
    printcolumn(name = "Consumer", type_ = "string", json_path = ".status.consumer"),
    printcolumn(name = "Resync", type_ = "string", json_path = ".status.resync"),
    printcolumn(name = "Size", type_ = "string", json_path = ".spec.capacity"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", priority = 1, json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    validation = Rule::new("self.metadata.name.size() <= 52").message("metadata.name: must be at most 52 characters, because the names of its legs are made from it; choose a shorter name")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(cel)]
#[x_kube(validation = Rule::new("self.filesystem != 'xfs' || !isQuantity(self.capacity) || quantity(self.capacity).compareTo(quantity('512Mi')) >= 0")
    .message("spec.capacity: xfs needs at least 512Mi; ask for more, or set spec.filesystem to ext4 or none"))]
#[x_kube(validation = Rule::new("(has(self.bitmap) ? self.bitmap : '') == (has(oldSelf.bitmap) ? oldSelf.bitmap : '')")
    .message("spec.bitmap: never changes; make a new volume and copy the data"))]
#[x_kube(validation = Rule::new("has(self.adopts) == has(oldSelf.adopts) && (!has(self.adopts) || self.adopts == oldSelf.adopts)")
    .message("spec.adopts: is said when the volume is made, and never changes"))]
pub struct MeshVolumeSpec {
    /// Usable size as a Kubernetes quantity, a whole number of MiB of at least 64Mi (512Mi for xfs). It may only grow.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("isQuantity(self)").message("spec.capacity: not a quantity; write it like 10Gi or 512Mi"))]
    #[x_kube(validation = Rule::new("!isQuantity(self) || (quantity(self).isInteger() && quantity(self).asInteger() % 1048576 == 0)")
        .message("spec.capacity: must be a whole number of MiB; use a binary suffix such as Mi or Gi"))]
    #[x_kube(validation = Rule::new("!isQuantity(self) || quantity(self).compareTo(quantity('64Mi')) >= 0")
        .message("spec.capacity: must be at least 64Mi; ask for more"))]
    #[x_kube(validation = Rule::new("!isQuantity(self) || quantity(self).compareTo(quantity('1Pi')) <= 0")
        .message("spec.capacity: must be at most 1Pi; ask for less"))]
    #[x_kube(validation = Rule::new("!isQuantity(self) || !isQuantity(oldSelf) || quantity(self).compareTo(quantity(oldSelf)) >= 0")
        .message("spec.capacity: may only grow; to shrink, make a new volume and copy the data"))]
    pub capacity: String,
    /// Number of copies, each on other nodes: 1 to 4. It may go up and down.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 4))]
    pub replica_count: i32,
    /// Number of drives that each copy is striped over: 1 makes an MD RAID1, more an MD RAID10. It may only grow.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 8))]
    #[x_kube(validation = Rule::new("self >= oldSelf").message("spec.stripeWidth: may only grow; to shrink, make a new volume and copy the data"))]
    pub stripe_width: i32,
    /// Filesystem made on the new volume: `xfs`, `ext4`, or `none` for a raw block device. It never changes.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.filesystem: never changes; make a new volume and copy the data"))]
    pub filesystem: Filesystem,
    /// Name of the `ReplicaSetPolicy` that says how copies are placed and kept. Without one that of the name `default` applies where there is
    /// one, and else the built-in defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub policy: Option<String>,
    /// Write-intent bitmap of the array, before what the policy says. It is chosen once, when the volume is placed: see
    /// `status.resolved.bitmap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bitmap: Option<Bitmap>,
    /// Node on which the volume will be used first: it gets a copy where every rule allows it, so that reads are local. It
    /// rules nothing out, and moves nothing once the volume is placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub preferred_node: Option<String>,
    /// The legs that the volume takes over instead of having new ones made: those of an array that was found on the drives
    /// after its objects were lost. `meshstor rebuild-objects` says it, and writes the record; it never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopts: Option<Adoption>,
}

fn one() -> i32 {
    1
}
fn two() -> i32 {
    2
}

/// What is made on a new volume's device.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Filesystem {
    /// XFS; at least 512 MiB.
    #[default]
    Xfs,
    /// ext4.
    Ext4,
    /// Nothing: a raw block device.
    None,
}

impl MeshVolumeSpec {
    /// The policy that applies where it is there: the one that is named, or [`crate::DEFAULT_POLICY`].
    pub fn policy_name(&self) -> &str {
        self.policy.as_deref().unwrap_or(crate::DEFAULT_POLICY)
    }
}

/// What the operator has seen of a volume.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MeshVolumeStatus {
    /// The `metadata.generation` that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The `metadata.generation` of the policy that `PlacedByPolicy` answers; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub policy_generation: Option<i64>,
    /// `Ready`, `Degraded`, `Resynced`, `AttachableAnywhere`, `PlacedByPolicy`, `ReadLatencyBalanced`, `TakeoverSupported`, while a leg is to be
    /// replaced `Replacing`, and while true `Reconciling` and `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// What the policy and the defaults came to when the volume was placed; frozen from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<ResolvedPolicy>,
    /// Where each leg is and how it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub legs: Vec<VolumeLeg>,
    /// In-sync copies of wanted copies, as in `2/2`: the smallest number of in-sync legs in any mirror set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub copies: Option<String>,
    /// Node on which the array runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub consumer: Option<String>,
    /// Progress of a running resync or rebuild as a percentage, such as `40%`; absent when none runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub resync: Option<String>,
}

/// The answers that the policy gave when the volume was placed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedPolicy {
    /// Copies that a voluntary action must leave in sync.
    #[schemars(range(min = 1, max = 4))]
    pub min_in_sync: i32,
    /// Write-intent bitmap of the array, never `auto`.
    pub bitmap: Bitmap,
    /// Fabric between consumer and targets.
    pub transport: Transport,
    /// Seconds after which a missing leg is replaced.
    #[schemars(range(min = 0, max = 2_592_000))]
    pub missing_member_timeout_seconds: i64,
    /// NVMe-oF I/O queues of each connection.
    #[schemars(range(min = 1, max = 64))]
    pub io_queues: i32,
    /// Depth of each queue, in commands.
    #[schemars(range(min = 16, max = 1024))]
    pub queue_size: i32,
    /// Keep-alive of each connection, in seconds.
    #[schemars(range(min = 1, max = 60))]
    pub keep_alive_seconds: i32,
}

/// One leg as the volume shows it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VolumeLeg {
    /// Name of the leg's `MeshReplica`.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Slot in the array, from 0.
    #[schemars(range(min = 0, max = 31))]
    pub slot: i32,
    /// Node that holds it.
    #[schemars(length(max = 253))]
    pub node: String,
    /// Identity of its drive on that node.
    #[schemars(length(max = 128))]
    pub drive: String,
    /// How it is.
    pub state: LegState,
    /// Since when it is away: outside the in-sync set, and nothing is copied to it. After the policy's
    /// `missingMemberTimeoutSeconds` another leg takes its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_since: Option<Time>,
}

/// How a leg is, seen from the volume.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegState {
    /// Its partition is being made and zeroed.
    Preparing,
    /// It holds every acknowledged write, as durably recorded.
    InSync,
    /// It is being rebuilt from the others.
    Rebuilding,
    /// It is not in the in-sync set and nothing is being copied to it now.
    Missing,
    /// It will never be used again and waits to be wiped.
    Retired,
}
