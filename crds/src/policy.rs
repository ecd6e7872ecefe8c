//! `ReplicaSetPolicy`: how copies are placed and kept.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Name of the policy of all volumes that name none. It need not be there.
pub const DEFAULT_POLICY: &str = "default";

/// How the copies of a volume are placed and kept.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "meshstor.io",
    version = "v1alpha1",
    kind = "ReplicaSetPolicy",
    plural = "replicasetpolicies",
    shortname = "rspol",
    category = "meshstor",
    status = "ReplicaSetPolicyStatus",
    derive = "PartialEq",
    cel,
    doc = "How the copies of volumes are placed and kept.",
    printcolumn(name = "Min-In-Sync", type_ = "integer", json_path = ".spec.minInSync"),
    printcolumn(name = "Bitmap", type_ = "string", json_path = ".spec.bitmap"),
    printcolumn(name = "Transport", type_ = "string", json_path = ".spec.transport"),
    printcolumn(name = "Drain", type_ = "string", json_path = ".spec.drainPolicy"),
    printcolumn(name = "Volumes", type_ = "integer", json_path = ".status.volumes"),
    printcolumn(name = "Violated", type_ = "integer", json_path = ".status.violated"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaSetPolicySpec {
    /// Where copies may go.
    #[serde(default)]
    pub placement: Placement,
    /// Copies that a voluntary action must leave in sync, 1 to 4. Without it: one less than `replicaCount`, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4))]
    pub min_in_sync: Option<i32>,
    /// Seconds after which a missing leg is replaced by a new one; 0 means never. At most 30 days.
    #[serde(default = "missing_member_timeout")]
    #[schemars(range(min = 0, max = 2_592_000))]
    pub missing_member_timeout_seconds: i64,
    /// How much may be rebuilt at once.
    #[serde(default)]
    pub rebuild: RebuildBudget,
    /// What a drain may do to volumes of this policy.
    #[serde(default)]
    pub drain_policy: DrainPolicy,
    /// Whether copies that are not where `placement` wants them are moved: after a change of the policy, or of what it looks at.
    #[serde(default)]
    pub rebalance: Rebalance,
    /// Write-intent bitmap of new arrays.
    #[serde(default)]
    pub bitmap: Bitmap,
    /// Fabric between consumer and targets.
    #[serde(default)]
    pub transport: Transport,
    /// NVMe-oF connections.
    #[serde(default)]
    pub connection: Connection,
}

fn missing_member_timeout() -> i64 {
    900
}

impl Default for ReplicaSetPolicySpec {
    fn default() -> Self {
        Self {
            placement: Placement::default(),
            min_in_sync: None,
            missing_member_timeout_seconds: missing_member_timeout(),
            rebuild: RebuildBudget::default(),
            drain_policy: DrainPolicy::default(),
            rebalance: Rebalance::default(),
            bitmap: Bitmap::default(),
            transport: Transport::default(),
            connection: Connection::default(),
        }
    }
}

/// Where copies may go.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.driveMinSize) || !has(self.driveMaxSize) || !isQuantity(self.driveMinSize) || !isQuantity(self.driveMaxSize) || quantity(self.driveMinSize).compareTo(quantity(self.driveMaxSize)) <= 0")
    .message("spec.placement.driveMaxSize: must not be less than driveMinSize"))]
pub struct Placement {
    /// Spread copies over the values of these node labels, the first one before the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["topologyKey".into()]))]
    pub spread: Vec<Spread>,
    /// Only nodes with all of these labels. A node's labels are those of the Kubernetes node, and of its `MeshNode`, which
    /// go before them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub node_selector: BTreeMap<String, String>,
    /// Only drives of these models, as `MeshNode` shows them in `status.drives[].model`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 64)))]
    pub drive_models: Vec<String>,
    /// Only drives of at least this size, such as `1Ti`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("isQuantity(self)").message("spec.placement.driveMinSize: not a quantity; write it like 1Ti"))]
    #[x_kube(validation = Rule::new("!isQuantity(self) || (quantity(self).isInteger() && quantity(self).isGreaterThan(quantity('0')))")
        .message("spec.placement.driveMinSize: must be a whole number of bytes, and more than none"))]
    pub drive_min_size: Option<String>,
    /// Only drives of at most this size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("isQuantity(self)").message("spec.placement.driveMaxSize: not a quantity; write it like 8Ti"))]
    #[x_kube(validation = Rule::new("!isQuantity(self) || (quantity(self).isInteger() && quantity(self).isGreaterThan(quantity('0')))")
        .message("spec.placement.driveMaxSize: must be a whole number of bytes, and more than none"))]
    pub drive_max_size: Option<String>,
    /// Only drives with logical sectors of one of these sizes in bytes: 512, 4096.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), inner(range(min = 512, max = 4096)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.all(s, s == 512 || s == 4096)").message("spec.placement.driveSectorSizes: each must be 512 or 4096"))]
    pub drive_sector_sizes: Vec<i32>,
    /// Only drives with all of these labels, as people give them in `MeshNode.spec.drives[].labels`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub drive_selector: BTreeMap<String, String>,
    /// Whether copies go where the fabric is fast, as the nodes measure it (`MeshNode.status.fabric`): near the node on which the volume is used or
    /// will be (`MeshVolume.spec.preferredNode`), else near its first copy. After the rules of `spread`, and before how full drives are.
    #[serde(default)]
    pub fabric_latency: FabricLatency,
}

/// What the measured latency of the fabric is to placement.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FabricLatency {
    /// Nothing.
    #[default]
    Ignore,
    /// The nearer node is taken first. It rules nothing out, and moves nothing.
    Prefer,
}

/// One rule of spreading.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    /// Node label whose values are told apart, for instance `topology.kubernetes.io/zone`.
    #[schemars(length(min = 1, max = 317))]
    pub topology_key: String,
    /// Whether a volume that cannot be spread is refused. A node without the label gets no copy where it is required.
    #[serde(default)]
    pub mode: SpreadMode,
}

/// How strict a rule of spreading is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpreadMode {
    /// Refuse rather than put two copies under one value.
    #[default]
    Required,
    /// Spread where it is possible.
    Preferred,
}

/// How much may be rebuilt at once.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RebuildBudget {
    /// Rebuilds at once in the cluster, 1 to 1000.
    #[serde(default = "cluster_rebuilds")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_concurrent: i32,
    /// Rebuilds at once from or to one node, 1 to 64.
    #[serde(default = "node_rebuilds")]
    #[schemars(range(min = 1, max = 64))]
    pub max_concurrent_per_node: i32,
}

fn cluster_rebuilds() -> i32 {
    16
}
fn node_rebuilds() -> i32 {
    2
}

impl Default for RebuildBudget {
    fn default() -> Self {
        Self { max_concurrent: cluster_rebuilds(), max_concurrent_per_node: node_rebuilds() }
    }
}

/// What a drain may do, in the words that Longhorn's users know.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum DrainPolicy {
    /// Block until every leg has left the node.
    BlockForEviction,
    /// Block until no volume has its last copy there.
    BlockForEvictionIfContainsLastReplica,
    /// Block while a volume would lose its last copy.
    #[default]
    BlockIfContainsLastReplica,
    /// Allow when the volumes there are detached.
    AllowIfReplicaIsStopped,
    /// Never block.
    AlwaysAllow,
}

/// Whether copies are moved to where the policy wants them.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rebalance {
    /// They stay, and the volume says which rule they break.
    #[default]
    Never,
    /// They are moved, one of a volume at a time, within the rebuild budget, and away from one failure domain at a time.
    Allowed,
}

/// Write-intent bitmap of an array.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Bitmap {
    /// The best one that is proved right on the chosen nodes.
    #[default]
    Auto,
    /// The classic bitmap in the array's metadata.
    Internal,
    /// llbitmap, Linux 6.18 and later.
    Lockless,
    /// None: every return of a leg is a full rebuild.
    None,
}

/// Fabric between consumer and targets.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// NVMe over TCP.
    #[default]
    Tcp,
    /// NVMe over RDMA.
    Rdma,
}

/// Bounds of the NVMe-oF connections of a volume.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// I/O queues of each connection, 1 to 64.
    #[serde(default = "io_queues")]
    #[schemars(range(min = 1, max = 64))]
    pub io_queues: i32,
    /// Commands in each queue, 16 to 1024.
    #[serde(default = "queue_size")]
    #[schemars(range(min = 16, max = 1024))]
    pub queue_size: i32,
    /// Keep-alive in seconds, 1 to 60: a dead target is noticed after about one and a half of it.
    #[serde(default = "keep_alive")]
    #[schemars(range(min = 1, max = 60))]
    pub keep_alive_seconds: i32,
}

fn io_queues() -> i32 {
    2
}
fn queue_size() -> i32 {
    128
}
fn keep_alive() -> i32 {
    2
}

impl Default for Connection {
    fn default() -> Self {
        Self { io_queues: io_queues(), queue_size: queue_size(), keep_alive_seconds: keep_alive() }
    }
}

/// What the operator has seen of a policy.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaSetPolicyStatus {
    /// The `metadata.generation` that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `PlacedByPolicy`, and while true `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// How many volumes name the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub volumes: Option<i32>,
    /// How many of them are not as it wants them now: `PlacedByPolicy` of each says why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub violated: Option<i32>,
}
