//! `MeshAttachment`: where a volume is wanted, and the record that fences.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a volume is wanted, and the record that fences. One per volume, with the volume's name, made by the operator.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "meshstor.io",
    version = "v1alpha1",
    kind = "MeshAttachment",
    plural = "meshattachments",
    shortname = "matt",
    category = "meshstor",
    status = "MeshAttachmentStatus",
    derive = "PartialEq",
    cel,
    doc = "Where a volume is wanted, and the record that fences. One per volume, with the volume's name; the operator makes it.",
    selectable = ".status.term.node",
    printcolumn(name = "Wanted", type_ = "string", json_path = ".spec.node"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.term.node"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.term.epoch"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.term.phase"),
    printcolumn(name = "In-Sync", type_ = "string", json_path = ".status.term.inSync"),
    printcolumn(name = "Device", type_ = "string", json_path = ".status.array.device"),
    printcolumn(name = "Mounted", type_ = "string", json_path = ".status.array.mountPath"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.term) || (has(self.status) && has(self.status.term))").message("status.term: the record lives as long as the volume; it is never removed")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(cel)]
pub struct MeshAttachmentSpec {
    /// Node on which the volume is wanted; absent for nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub node: Option<String>,
    /// Absolute path at which the filesystem is mounted on that node; absent for a device alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1024))]
    #[x_kube(validation = Rule::new("self.startsWith('/') && !self.contains('/../') && !self.endsWith('/..')").message("spec.mountPath: must be an absolute path without '..'"))]
    pub mount_path: Option<String>,
    /// A person's word that the consumer of an epoch is lost and will not detach by itself. The protocol's
    /// confirmations are awaited all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<LostConsumer>,
}

/// A person's word that a consumer is lost.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LostConsumer {
    /// Node that is lost.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// Epoch, from `status.term.epoch`, that it held: a word given for one epoch says nothing of a later one.
    #[schemars(range(min = 1))]
    pub epoch: i64,
}

/// The record and what the consumer's daemon has seen.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.ended) || (has(self.term) && self.ended.epoch <= self.term.epoch)").message("status.ended.epoch: no epoch that has not begun can have ended"))]
#[x_kube(validation = Rule::new("!has(oldSelf.ended) || (has(self.ended) && self.ended.epoch >= oldSelf.ended.epoch)").message("status.ended: its epoch only grows; it is never removed"))]
pub struct MeshAttachmentStatus {
    /// The `metadata.generation` that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `ReadLatencyBalanced`, `TakeoverSupported`, and while true `Reconciling` and `Stalled`; written by the
    /// consumer's daemon.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The record: replaced whole, with `resourceVersion`, never by a patch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<Term>,
    /// The newest epoch whose array is no longer on its consumer, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// The array as the consumer's daemon sees it, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<ArrayStatus>,
    /// Node on which the array is to run while the volume is wanted nowhere, because a copy of it is to be made; nothing is mounted there.
    /// The operator's; `spec.node` goes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub copy_on: Option<String>,
}

impl MeshAttachment {
    /// The node on which an array of the volume is to run: where somebody wants it, else where a copy of it is to be made.
    pub fn runs_on(&self) -> Option<&str> {
        self.spec.node.as_deref().or_else(|| self.status.as_ref()?.copy_on.as_deref())
    }
}

/// The record that decides who may write. `SAFETY.md` says who may change what of it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(cel)]
#[x_kube(validation = Rule::new("self.epoch == oldSelf.epoch || (self.epoch == oldSelf.epoch + 1 && self.phase == 'Revoking')")
    .message("status.term.epoch: grows by one, and then the phase is Revoking"))]
#[x_kube(validation = Rule::new("self.epoch != oldSelf.epoch || self.node == oldSelf.node")
    .message("status.term.node: changes only with a new epoch"))]
#[x_kube(validation = Rule::new("self.epoch != oldSelf.epoch || self.phase == oldSelf.phase || (oldSelf.phase == 'Revoking' && self.phase in ['Started', 'Retired']) || (oldSelf.phase == 'Started' && self.phase == 'Running')")
    .message("status.term.phase: within an epoch goes from Revoking to Started (or Retired) to Running"))]
#[x_kube(validation = Rule::new("oldSelf.phase != 'Retired' || self.phase == 'Retired'")
    .message("status.term.phase: Retired is the end; no epoch follows it"))]
#[x_kube(validation = Rule::new("oldSelf.phase != 'Retired' || self.epoch == oldSelf.epoch")
    .message("status.term.epoch: no epoch follows Retired"))]
#[x_kube(validation = Rule::new("self.inSync.all(l, l in oldSelf.inSync) || (self.epoch == oldSelf.epoch && oldSelf.phase == 'Running' && self.phase == 'Running')")
    .message("status.term.inSync: a leg is added only in a running epoch, by its consumer"))]
#[x_kube(validation = Rule::new("oldSelf.retired.all(l, l in self.retired)").message("status.term.retired: never shrinks"))]
#[x_kube(validation = Rule::new("self.inSync.all(l, !(l in self.retired))").message("status.term.inSync: a retired leg is never in sync"))]
#[x_kube(validation = Rule::new("self.bitmapUsable.all(l, !(l in self.inSync) && !(l in self.retired))").message("status.term.bitmapUsable: names legs that are away; one that is in sync or retired is not"))]
#[x_kube(validation = Rule::new("self.bitmapUsable.all(l, l in oldSelf.bitmapUsable || (self.epoch == oldSelf.epoch && self.phase == 'Running' && (l in oldSelf.inSync || oldSelf.phase == 'Started')))")
    .message("status.term.bitmapUsable: a leg is named when it leaves the in-sync set, or by the claim of an epoch that left it out"))]
#[x_kube(validation = Rule::new("!oldSelf.initialised || self.initialised").message("status.term.initialised: never goes back to false"))]
pub struct Term {
    /// The fencing token: one per assembly of the array, only grows, by one.
    #[schemars(range(min = 1))]
    pub epoch: i64,
    /// The consumer of this epoch.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// How far the epoch has come.
    pub phase: TermPhase,
    /// Names of the legs that hold every acknowledged write.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub in_sync: Vec<String>,
    /// Legs that are away and may return by the bitmap: what they lack of the others is marked there, and what they wrote that
    /// the others lack is marked in their own. Any other leg is rebuilt in full.
    #[serde(default)]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub bitmap_usable: Vec<String>,
    /// Legs that will never be used again. Never shrinks.
    #[serde(default)]
    #[schemars(length(max = 128), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub retired: Vec<String>,
    /// True once the array and its filesystem were made whole and the device may have been shown to anybody. Before
    /// that nothing was acknowledged to an application and the legs may be made anew; never goes back to false.
    #[serde(default)]
    pub initialised: bool,
    /// The daemon process that claimed the epoch, and its writes of the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<Writer>,
}

/// How far an epoch has come.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum TermPhase {
    /// Older epochs are being revoked at the legs.
    Revoking,
    /// The start set is fixed; the consumer may claim it.
    Started,
    /// Claimed by the consumer's daemon for one assembly.
    Running,
    /// The volume is being deleted: no epoch follows, every leg may be wiped.
    Retired,
}

/// Who wrote the record last on the consumer's side.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Writer {
    /// Identity of the daemon process, new with each start.
    #[schemars(length(min = 1, max = 64))]
    pub incarnation: String,
    /// Number of its writes, so that each changes something.
    #[schemars(range(min = 0))]
    pub seq: i64,
}

/// The end of an epoch's array on its consumer. It spares nobody a confirmation; it only says that waiting is over.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// The epoch that ended.
    #[schemars(range(min = 1))]
    pub epoch: i64,
    /// Why.
    pub reason: EndedReason,
}

/// Why an array is no longer on its consumer.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedReason {
    /// It was asked to go.
    Detached,
    /// The node rebooted or the array is gone.
    ArrayGone,
    /// The start failed and was undone; the array never ran.
    StartFailed,
}

/// An array as its consumer's daemon sees it. Fast numbers are quantised.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ArrayStatus {
    /// Epoch of this assembly.
    #[schemars(range(min = 1))]
    pub epoch: i64,
    /// Device path to use; present once everything that was left out is recorded and the device is initialised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub device: Option<String>,
    /// Where the filesystem is mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub mount_path: Option<String>,
    /// The members, by leg.
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["leg".into()]))]
    pub members: Vec<Member>,
    /// A running resync or rebuild.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resync: Option<Resync>,
}

/// One member of an array.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Name of the leg.
    #[schemars(length(min = 1, max = 63))]
    pub leg: String,
    /// Its state in MD.
    pub state: MemberState,
    /// Mean read latency as the kernel keeps it, in ns, quantised to powers of two; absent where the kernel has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub latency_ewma_ns: Option<i64>,
}

/// State of a member in MD.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// In sync.
    InSync,
    /// Being rebuilt.
    Rebuilding,
    /// Its path does not answer and the writes to it are held.
    Held,
    /// Failed.
    Faulty,
    /// Its drive fails: MD dropped it with errors again and again, or it answers far later than the others. A leg that is in the
    /// in-sync set is used all the same; one that is not is not taken back.
    Failing,
}

/// Progress of a resync or rebuild.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Resync {
    /// Done, in percent, rounded down to 10.
    #[schemars(range(min = 0, max = 100))]
    pub percent: i32,
    /// Estimated seconds left, rounded up to 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub remaining_seconds: Option<i64>,
    /// Bytes done when `percent` last changed, of each member that is copied to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub done_bytes: Option<i64>,
    /// Bytes in all, of each member that is copied to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub total_bytes: Option<i64>,
    /// Bytes a second when `percent` last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub bytes_per_second: Option<i64>,
}
