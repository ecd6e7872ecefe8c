//! `MeshReplica`: one leg of a volume.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::Transport;

/// One leg: a partition on one node's drive, and who may use it. Written by the operator; a person may ask it to leave (`replace`).
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "meshstor.io",
    version = "v1alpha1",
    kind = "MeshReplica",
    plural = "meshreplicas",
    shortname = "mrep",
    category = "meshstor",
    status = "MeshReplicaStatus",
    derive = "PartialEq",
    cel,
    doc = "One leg of a volume: a partition on one node's drive, and who may use it. Written by the operator; a person may ask it to leave (`replace`).",
    selectable = ".spec.node",
    selectable = ".spec.volume",
    printcolumn(name = "Volume", type_ = "string", json_path = ".spec.volume"),
    printcolumn(name = "Slot", type_ = "integer", json_path = ".spec.slot"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
    printcolumn(name = "Drive", type_ = "string", json_path = ".spec.drive"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".spec.epoch"),
    printcolumn(name = "Revoked-Below", type_ = "integer", json_path = ".status.revokedBelow"),
    printcolumn(name = "Consumer", type_ = "string", json_path = ".spec.grant.consumer"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.revokedBelow) || (has(self.status) && has(self.status.revokedBelow))").message("status.revokedBelow: only grows; it is never removed"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.spentGrant) || (has(self.status) && has(self.status.spentGrant))").message("status.spentGrant: only grows; it is never removed")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(cel)]
#[x_kube(validation = Rule::new("(has(self.replaces) ? self.replaces : '') == (has(oldSelf.replaces) ? oldSelf.replaces : '')").message("spec.replaces: never changes; the operator makes another leg instead"))]
#[x_kube(validation = Rule::new("(has(self.overwritten) && self.overwritten) == (has(oldSelf.overwritten) && oldSelf.overwritten)").message("spec.overwritten: never changes; the operator makes another leg instead"))]
#[x_kube(validation = Rule::new("!has(self.overwritten) || !self.overwritten || has(self.replaces)").message("spec.overwritten: only a leg that replaces another is copied to before it is read; leave it out"))]
#[x_kube(validation = Rule::new("(has(self.arrayUuid) ? self.arrayUuid : '') == (has(oldSelf.arrayUuid) ? oldSelf.arrayUuid : '')").message("spec.arrayUuid: never changes; the operator makes another leg instead"))]
#[x_kube(validation = Rule::new("(has(self.partitionUuid) ? self.partitionUuid : '') == (has(oldSelf.partitionUuid) ? oldSelf.partitionUuid : '')").message("spec.partitionUuid: never changes; the operator makes another leg instead"))]
#[x_kube(validation = Rule::new("!has(self.grant) || self.grant.epoch == self.epoch").message("spec.grant.epoch: must equal spec.epoch; a grant is for the newest epoch only"))]
pub struct MeshReplicaSpec {
    /// Name of the volume. It never changes.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.volume: never changes; the operator makes another leg instead"))]
    pub volume: String,
    /// UID of the volume, from which the partition's and the array's UUIDs are derived where they are not said. It never changes.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.volumeUid: never changes; the operator makes another leg instead"))]
    pub volume_uid: String,
    /// Slot in the array, from 0. It never changes.
    #[schemars(range(min = 0, max = 31))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.slot: never changes; the operator makes another leg instead"))]
    pub slot: i32,
    /// The mirror set that the slot is of, from 0: the legs that hold the same blocks. It never changes.
    #[serde(default)]
    #[schemars(range(min = 0, max = 7))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.mirrorSet: never changes; the operator makes another leg instead"))]
    pub mirror_set: i32,
    /// Node that holds the leg. It never changes.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.node: never changes; the operator makes another leg instead"))]
    pub node: String,
    /// Identity of the drive, as in `MeshNode.status.drives[].id`. It never changes.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.drive: never changes; the operator makes another leg instead"))]
    pub drive: String,
    /// Size of the partition in bytes, a whole number of MiB.
    #[schemars(range(min = 1_048_576))]
    #[x_kube(validation = Rule::new("self % 1048576 == 0").message("spec.sizeBytes: must be a whole number of MiB"))]
    #[x_kube(validation = Rule::new("self >= oldSelf").message("spec.sizeBytes: may only grow"))]
    pub size_bytes: i64,
    /// Newest epoch that the leg is told of: everything of an older one must be revoked. It only grows.
    #[serde(default)]
    #[schemars(range(min = 0))]
    #[x_kube(validation = Rule::new("self >= oldSelf").message("spec.epoch: only grows"))]
    pub epoch: i64,
    /// Who may use the leg in `epoch`; absent while nobody may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<Grant>,
    /// Fabric of its export. It never changes.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.transport: never changes; the operator makes another leg instead"))]
    pub transport: Transport,
    /// NVMe-oF I/O queues of its export.
    #[serde(default = "io_queues")]
    #[schemars(range(min = 1, max = 64))]
    pub io_queues: i32,
    /// The leg whose place it takes: when this one holds every write, that one leaves. It never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub replaces: Option<String>,
    /// All of its data is copied to it before anybody reads it: only its ends, where nothing is copied to, are zeroed first. It never changes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overwritten: bool,
    /// It is to leave: another leg is placed and filled while this one goes on being used, and then takes its place. A person,
    /// or whoever empties a node, says so; taken back before the other leg is in sync, it stays.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
    /// UUID of the volume's array, where the volume took it over; else it is derived from `volumeUid`. It never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 36, max = 36))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$')").message("spec.arrayUuid: must be a UUID in lower case"))]
    pub array_uuid: Option<String>,
    /// UUID of the partition that the leg took over; else it is derived from `volumeUid` and the leg's name. A leg with one is
    /// never made, never zeroed, and never wiped without a record that says so. It never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 36, max = 36))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$')").message("spec.partitionUuid: must be a UUID in lower case"))]
    pub partition_uuid: Option<String>,
}

fn io_queues() -> i32 {
    2
}

/// Leave of one consumer to use a leg.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.number != oldSelf.number || (self.consumer == oldSelf.consumer && self.hostNqn == oldSelf.hostNqn)")
    .message("spec.grant: who may use the leg changes only with a new grant; give it a higher number"))]
#[x_kube(validation = Rule::new("self.number != oldSelf.number || !has(self.copyLater) || !self.copyLater || (has(oldSelf.copyLater) && oldSelf.copyLater)")
    .message("spec.grant.copyLater: a copy that may have begun is not put off; leave it out"))]
#[x_kube(validation = Rule::new("self.number >= oldSelf.number").message("spec.grant.number: only grows; a grant is never given twice"))]
pub struct Grant {
    /// Epoch of the record for which it holds.
    #[schemars(range(min = 1))]
    pub epoch: i64,
    /// Number of this grant, new with every export of the leg.
    #[schemars(range(min = 1))]
    pub number: i64,
    /// Node that may use the leg.
    #[schemars(length(min = 1, max = 253))]
    pub consumer: String,
    /// Host NQN of that node, the only entry of the export's allow-list.
    #[schemars(length(min = 1, max = 223))]
    pub host_nqn: String,
    /// The leg is exported and connected to, and nothing is copied to it yet: others are rebuilt first. It goes away within the grant when
    /// there is room.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub copy_later: bool,
}

/// What the node's daemon has seen of a leg.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MeshReplicaStatus {
    /// The `metadata.generation` that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, and while true `Reconciling` and `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The partition, once it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<LegPartition>,
    /// Progress of zeroing, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub zeroed_percent: Option<i32>,
    /// Every epoch below this one is revoked at the leg: no I/O of it can land any more. It only grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    #[x_kube(validation = Rule::new("self >= oldSelf").message("status.revokedBelow: only grows"))]
    pub revoked_below: Option<i64>,
    /// The export, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<Export>,
    /// Highest grant number that this leg has ever served, on any boot: it is never served again after a reboot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    #[x_kube(validation = Rule::new("self >= oldSelf").message("status.spentGrant: only grows"))]
    pub spent_grant: Option<i64>,
}

/// The partition under a leg.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LegPartition {
    /// Its GPT partition UUID.
    #[schemars(length(min = 36, max = 36))]
    pub uuid: String,
    /// First byte on the drive.
    #[schemars(range(min = 0))]
    pub first_byte: i64,
    /// Size in bytes.
    #[schemars(range(min = 0))]
    pub size_bytes: i64,
    /// True when it was prepared and nothing has used it since: then it was proved to read as zeros, all of it unless `spec.overwritten`.
    pub blank: bool,
}

/// A live NVMe-oF export of a leg.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Export {
    /// Epoch of its grant.
    #[schemars(range(min = 1))]
    pub epoch: i64,
    /// Number of its grant.
    #[schemars(range(min = 1))]
    pub grant: i64,
    /// Subsystem NQN, of this grant alone.
    #[schemars(length(max = 223))]
    pub nqn: String,
    /// Address of the listener.
    #[schemars(length(max = 64))]
    pub address: String,
    /// Port of the listener (TCP's, or that of the RDMA connection manager), of this export alone.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// UUID of the namespace, fresh with each export.
    #[schemars(length(min = 36, max = 36))]
    pub device_uuid: String,
}
