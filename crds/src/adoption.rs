//! What a volume takes over that was made from the drives alone, after its objects were lost.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// An array that was found on the drives, and the legs of it. It says everything that the objects are made of again, so that
/// `meshstor rebuild-objects` may be stopped after any of its writes and run once more.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Adoption {
    /// UUID of the array, from the legs' superblocks.
    #[schemars(length(min = 36, max = 36))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$')").message("spec.adopts.arrayUuid: must be a UUID in lower case"))]
    pub array_uuid: String,
    /// No lower than any epoch that a leg was told of: the record is begun with it as one that has ended, and the first to start is
    /// the next.
    #[schemars(range(min = 1))]
    pub epoch: i64,
    /// The legs, one for each slot.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub legs: Vec<AdoptedLeg>,
    /// Names of legs that were found and are never used again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub retired: Vec<String>,
}

/// One leg that a volume takes over.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AdoptedLeg {
    /// Name of its `MeshReplica`, from the partition's label.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Slot in the array, from 0.
    #[schemars(range(min = 0, max = 31))]
    pub slot: i32,
    /// The mirror set that the slot is of, from 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 7))]
    pub mirror_set: i32,
    /// Node that holds it; `lost_` and its name where it was not found.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// Identity of its drive; `lost_` and its name where it was not found.
    #[schemars(length(min = 1, max = 128))]
    pub drive: String,
    /// UUID of its partition; absent where it was not found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 36, max = 36))]
    pub partition_uuid: Option<String>,
    /// It holds every acknowledged write, by the superblocks: the volume starts from these legs alone, and all others are rebuilt.
    #[serde(default)]
    pub in_sync: bool,
}
