//! What is on a node and belongs to no object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Bitmap;

/// A thing of MeshStor's on a node that no object of the cluster names. It is kept as it is until a person says what becomes of it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Quarantined {
    /// `partition/<UUID>`, `array/<UUID>`, `export/<NQN>` or `connection/<NQN>`. None of these is ever given to another thing.
    #[schemars(length(min = 1, max = 250))]
    pub id: String,
    /// What it is.
    pub kind: QuarantineKind,
    /// Identity of its drive, as in `drives[].id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub drive: Option<String>,
    /// Device node at this boot: of the partition, the array, or the namespace of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub path: Option<String>,
    /// First byte of the partition on its drive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub first_byte: Option<i64>,
    /// Bytes of the partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub size_bytes: Option<i64>,
    /// Label of the partition: the name of the leg that it was made for, up to its 36th character.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub label: Option<String>,
    /// The volume that it was of, as metadata or label tell it: a long name is cut short there. Nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub volume: Option<String>,
    /// When the daemon first saw that no object names it.
    pub since: Time,
    /// What it is, why it is kept, and what can be done; after a refusal to wipe it, why it was refused.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// What a partition's superblock and ledger say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leg: Option<FoundLeg>,
    /// Who uses it; absent where nobody does. What is in use is never wiped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub in_use: Option<String>,
    /// `spec.wipe` named it before it was here: that line does not count until it was taken out and put in again.
    #[serde(default)]
    pub wipe_spent: bool,
}

/// Kinds of things that may be left over.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QuarantineKind {
    /// A partition of a leg.
    Partition,
    /// An MD array.
    Array,
    /// An NVMe-oF export.
    Export,
    /// An NVMe-oF connection.
    Connection,
}

/// What a partition says of the leg that it was: by its MD superblock (version 1.2, whole by its checksum), and by its entry in the
/// ledger of its drive. What there is none of is absent.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FoundLeg {
    /// UUID of its array. Without one there is no superblock: nothing was ever written to it through an array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36))]
    pub array_uuid: Option<String>,
    /// Name in the superblock: `meshstor:<volume>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub array_name: Option<String>,
    /// RAID level: 1 or 10; another was not made by MeshStor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -2_147_483_648_i64, max = 2_147_483_647_i64))]
    pub level: Option<i32>,
    /// Slots (`raid_disks`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub slots: Option<i64>,
    /// Copies of each block in a RAID10 of the near layout: the slots of a mirror set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub near_copies: Option<i64>,
    /// Its own slot; absent of a spare or a failed member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub slot: Option<i64>,
    /// The slots that had a working member, or one that was being filled, when this superblock was last written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 384), inner(range(min = 0)))]
    pub active_slots: Vec<i64>,
    /// Its number among the devices of its array. A device that is added may get that of one that has left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub number: Option<i64>,
    /// The slot of each device of its array, by number, when this superblock was last written; -1 for one that had none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 384), inner(range(min = -1)))]
    pub roles: Vec<i64>,
    /// It was being filled: it does not have everything.
    #[serde(default)]
    pub rebuilding: bool,
    /// Event counter. It proves nothing of what a leg holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub events: Option<i64>,
    /// Bytes of data on each member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub component_bytes: Option<i64>,
    /// Its write-intent bitmap, never `auto`; absent where there is one that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bitmap: Option<Bitmap>,
    /// No write was under way, by the superblock. Not proof: a leg that was left behind may say so too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean: Option<bool>,
    /// Highest epoch that the leg was told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ledger_epoch: Option<i64>,
    /// It was zeroed, and neither exported nor used since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger_blank: Option<bool>,
    /// Highest grant that was served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ledger_spent_grant: Option<i64>,
    /// It has no entry, and the ledger of its drive is gone or was lost once: what it was told is not known.
    #[serde(default)]
    pub ledger_lost: bool,
}
