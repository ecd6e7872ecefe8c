//! `MeshNode`: what a node has.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::Quarantined;

/// A node's drives, kernel and addresses. The operator makes it for each node; its daemon fills the status.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "meshstor.io",
    version = "v1alpha1",
    kind = "MeshNode",
    plural = "meshnodes",
    shortname = "mnode",
    category = "meshstor",
    status = "MeshNodeStatus",
    derive = "PartialEq",
    cel,
    doc = "A node's drives, kernel and addresses. Its daemon fills the status.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Kernel", type_ = "string", json_path = ".status.kernel.release"),
    printcolumn(name = "Addresses", type_ = "string", json_path = ".status.addresses"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct MeshNodeSpec {
    /// Fabric addresses to use instead of those that the daemon was started with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 2, max = 64)))]
    #[x_kube(validation = Rule::new("self.all(a, isIP(a))").message("spec.addresses: each must be an IP address such as 10.0.0.1"))]
    pub addresses: Vec<String>,
    /// True keeps new legs away from this node.
    #[serde(default)]
    pub unschedulable: bool,
    /// What people say of its drives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub drives: Vec<DriveSpec>,
    /// Quarantined things that may be erased, by their `id` in `status.quarantine`: a partition with all that is in it, an array (it is
    /// stopped), an export (it is closed), a connection (it is taken down). What is in use, or what an object names, is refused, and its
    /// item says why. An identity that is not in quarantine does nothing, and a line that was here before the thing was counts only when it is written
    /// again: one that was forgotten erases nothing. (No identity is ever given to another thing: a partition's is derived from its volume's
    /// UID and its leg's name, an NQN has its leg's UID, epoch and grant.)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 250)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.all(i, i.matches('^(partition|array)/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$') || i.matches('^(export|connection)/nqn[.]2026-11[.]io[.]meshstor:leg:[!-~]+$'))").message("spec.wipe: each must be an id of status.quarantine: partition/<UUID>, array/<UUID>, export/<NQN> or connection/<NQN>"))]
    pub wipe: Vec<String>,
}

/// What people say of a drive.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DriveSpec {
    /// Its identity, as in `status.drives[].id`. One that is not there yet counts when it comes.
    #[schemars(length(min = 1, max = 128))]
    pub id: String,
    /// Labels that a policy's `placement.driveSelector` asks for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub labels: BTreeMap<String, String>,
}

/// What the daemon has seen of its node.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MeshNodeStatus {
    /// The `metadata.generation` that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `KernelSupported`, `AssemblyGuarded`, `DrivesUsable`, `EverythingOwned`, and while true `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Boot ID of the running kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub boot_id: Option<String>,
    /// NVMe host NQN, by which exports let this node in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 223))]
    pub host_nqn: Option<String>,
    /// The kernel and what it was probed to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Kernel>,
    /// Addresses at which exports listen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 64)))]
    pub addresses: Vec<String>,
    /// Those of `addresses` that are on an interface with RDMA, where the kernel has NVMe over RDMA both ways.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 64)))]
    pub rdma_addresses: Vec<String>,
    /// The drives that MeshStor may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub drives: Vec<Drive>,
    /// What is on the node and belongs to no object of the cluster; at most 256. It is kept until a person says what becomes of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub quarantine: Vec<Quarantined>,
    /// How long the way to other nodes is: to each, or to 64 of them where there are more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["node".into()]))]
    pub fabric: Vec<FabricPeer>,
    /// When the daemon last said that it lives; every 30 s. It decides nothing about who may write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Time>,
}

/// A kernel and its capabilities.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Kernel {
    /// Release, as `uname -r` prints it.
    #[schemars(length(max = 128))]
    pub release: String,
    /// What it can do, each as it was probed.
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub capabilities: Vec<Capability>,
}

/// One capability of a kernel.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Capability {
    /// Its name, such as `raid1` or `nvmet-tcp`.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// Whether it is there.
    pub supported: bool,
    /// How it was found out, or what to do about its absence.
    #[schemars(length(max = 512))]
    pub message: String,
}

/// Most nodes that one measures ([`MeshNodeStatus::fabric`]).
pub const FABRIC_PEERS_MAX: usize = 64;

/// The way to another node.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FabricPeer {
    /// The other node.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// Round trip in microseconds, rounded up to a power of two from 16 to 65536: it changes when the way does, and not with each measurement.
    #[schemars(range(min = 16, max = 65536))]
    pub latency_microseconds: i32,
}

/// A drive that MeshStor may use.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Drive {
    /// Stable identity: its WWID, serial number or GPT disk GUID, never its name.
    #[schemars(length(min = 1, max = 128))]
    pub id: String,
    /// Device node at this boot.
    #[schemars(length(max = 128))]
    pub path: String,
    /// Model, where the drive says one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub model: Option<String>,
    /// Size in bytes.
    #[schemars(range(min = 0))]
    pub size_bytes: i64,
    /// Logical sector size in bytes.
    #[schemars(range(min = 512, max = 65536))]
    pub logical_sector_size: i32,
    /// Free extents, 1 MiB aligned, largest first; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub free_extents: Vec<Extent>,
    /// Why the drive cannot be used; absent when it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub unusable: Option<String>,
}

/// A run of bytes on a drive.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Extent {
    /// First byte.
    #[schemars(range(min = 0))]
    pub first_byte: i64,
    /// Length in bytes.
    #[schemars(range(min = 0))]
    pub size_bytes: i64,
}
