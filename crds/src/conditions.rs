//! The one home of condition types and reasons, and of the rule by which conditions change.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The object does what its spec asks, for the observed generation. For a volume: attached where wanted (or able to
/// attach) with at least `minInSync` copies.
pub const READY: &str = "Ready";
/// Work towards the spec goes on; present only while true.
pub const RECONCILING: &str = "Reconciling";
/// Work cannot go on without a person; present only while true.
pub const STALLED: &str = "Stalled";
/// Fewer copies than `replicaCount` are in sync; may be true beside `Ready`.
pub const DEGRADED: &str = "Degraded";
/// No resync or rebuild is running or needed.
pub const RESYNCED: &str = "Resynced";
/// Every node that is there can run the volume's array: its bitmap and its level.
pub const ATTACHABLE_ANYWHERE: &str = "AttachableAnywhere";
/// Reads go to the member that answers first; the message has what the kernel measured of each.
pub const READ_LATENCY_BALANCED: &str = "ReadLatencyBalanced";
/// The kernel that runs the array can make its RAID1 a RAID10 in place.
pub const TAKEOVER_SUPPORTED: &str = "TakeoverSupported";
/// A node's kernel can serve legs and arrays, and harms nothing when it does.
pub const KERNEL_SUPPORTED: &str = "KernelSupported";
/// Nothing of a node assembles legs behind the daemon's back.
pub const ASSEMBLY_GUARDED: &str = "AssemblyGuarded";
/// Every matching drive of a node can be used; those that can are used either way.
pub const DRIVES_USABLE: &str = "DrivesUsable";
/// Everything of MeshStor's on a node belongs to an object of the cluster.
pub const EVERYTHING_OWNED: &str = "EverythingOwned";
/// A leg's drive fails, by its daemon's or its consumer's word: another leg is to take its place.
pub const FAILING: &str = "Failing";

/// Only a reboot of the node lets go of a volume that is not its any more: its kernel holds writes that somebody may still see end.
pub const REBOOT_REQUIRED: &str = "RebootRequired";
/// A leg of a volume is being replaced by another; false where none can be placed. Present only while one is to be replaced.
pub const REPLACING: &str = "Replacing";
/// Each leg of a volume is where its policy wants it now, and the volume as that says; of a policy: so is every volume of it.
pub const PLACED_BY_POLICY: &str = "PlacedByPolicy";

/// Nothing more is to be done.
pub const REASON_OK: &str = "AsWanted";
/// The spec asks for what nothing realises yet.
pub const REASON_NOT_IMPLEMENTED: &str = "NotImplemented";
/// The spec or its policy contradicts itself.
pub const REASON_INVALID: &str = "Invalid";
/// No node or drive passes the placement filters.
pub const REASON_UNSCHEDULABLE: &str = "Unschedulable";
/// A named object does not exist.
pub const REASON_NOT_FOUND: &str = "NotFound";
/// Legs are being made and zeroed.
pub const REASON_PREPARING: &str = "PreparingLegs";
/// Older epochs are being revoked at the legs.
pub const REASON_REVOKING: &str = "Revoking";
/// The consumer is assembling the array.
pub const REASON_ATTACHING: &str = "Attaching";
/// The consumer is taking the array down.
pub const REASON_DETACHING: &str = "Detaching";
/// Fewer than `minInSync` copies are in sync.
pub const REASON_TOO_FEW_COPIES: &str = "TooFewCopies";
/// A leg is missing.
pub const REASON_LEG_MISSING: &str = "LegMissing";
/// A leg is being rebuilt.
pub const REASON_REBUILDING: &str = "Rebuilding";
/// A leg's drive fails, or is gone from its node.
pub const REASON_DRIVE_FAILING: &str = "DriveFailing";
/// A leg could be rebuilt and waits: as many are as the policy's budget allows.
pub const REASON_REBUILD_WAITS: &str = "RebuildWaits";
/// The volume is detached and can be attached.
pub const REASON_DETACHED: &str = "Detached";
/// The volume is attached where it is wanted.
pub const REASON_ATTACHED: &str = "Attached";
/// The object is being deleted.
pub const REASON_DELETING: &str = "Deleting";
/// Deletion waits until the volume is wanted nowhere.
pub const REASON_STILL_ATTACHED: &str = "StillAttached";
/// The consumer's node does not answer; a person must say that it is lost.
pub const REASON_CONSUMER_UNREACHABLE: &str = "ConsumerUnreachable";
/// No in-sync leg has confirmed the new epoch.
pub const REASON_UNCONFIRMED: &str = "RevocationUnconfirmed";
/// The daemon has not been heard of for long.
pub const REASON_NO_HEARTBEAT: &str = "NoHeartbeat";
/// The kernel or a tool lacks what is needed.
pub const REASON_MISSING_CAPABILITY: &str = "MissingCapability";
/// The kernel has a fault that would damage data or the node: no array is started on it.
pub const REASON_KERNEL_UNSAFE: &str = "KernelUnsafe";
/// A rule of udev or a unit of systemd assembles arrays, and our guard does not keep it from legs.
pub const REASON_FOREIGN_RULES: &str = "ForeignRules";
/// A drive cannot be told from another, or from itself under another name.
pub const REASON_NO_STABLE_IDENTITY: &str = "NoStableIdentity";
/// A drive's logical sectors have neither 512 nor 4096 bytes.
pub const REASON_SECTOR_SIZE: &str = "SectorSizeUnsupported";
/// A drive is somebody else's, read-only, without a medium, or damaged.
pub const REASON_DRIVE_UNUSABLE: &str = "DriveUnusable";
/// The host refused a step.
pub const REASON_HOST_ERROR: &str = "HostError";
/// The device or mount is in use.
pub const REASON_BUSY: &str = "Busy";
/// An array whose epoch is over holds writes, and who could see them end cannot be killed.
pub const REASON_WRITES_HELD: &str = "WritesHeld";
/// A leg's partition or bytes are not what they must be; nothing was touched.
pub const REASON_CONFLICT: &str = "Conflict";
/// The kernel chooses the member for each read by measured latency.
pub const REASON_BALANCED: &str = "Balanced";
/// The kernel does not have MeshStor's md patches.
pub const REASON_KERNEL_LACKS_PATCH: &str = "KernelLacksPatch";
/// The choice by latency was switched off on the array.
pub const REASON_SWITCHED_OFF: &str = "SwitchedOff";
/// A member answers reads so much later than another that something is wrong with it.
pub const REASON_SLOW_MEMBER: &str = "SlowMember";
/// It is known only while the volume is attached.
pub const REASON_NOT_ATTACHED: &str = "NotAttached";
/// The kernel can take the array over.
pub const REASON_KERNEL_SUPPORTS: &str = "KernelSupports";
/// The array is striped: there is nothing to take over.
pub const REASON_ALREADY_STRIPED: &str = "AlreadyStriped";
/// A leg's node has no `MeshNode` any more: it is gone for good.
pub const REASON_NODE_DELETED: &str = "NodeDeleted";
/// The volume takes over legs that were found on drives, and waits until `meshstor rebuild-objects` has written its record.
pub const REASON_ADOPTING: &str = "Adopting";
/// The leg's node is being drained.
pub const REASON_DRAINING: &str = "Draining";
/// A drain has done all that it is to do.
pub const REASON_SUCCEEDED: &str = "Succeeded";
/// A drain cannot go on without a person: the message names the volume, the rule and the remedy.
pub const REASON_BLOCKED: &str = "Blocked";
/// A volume is used on a node that is to go.
pub const REASON_CONSUMER_PRESENT: &str = "ConsumerPresent";
/// Another failure domain may be down already.
pub const REASON_OTHER_DOMAIN: &str = "OtherFailureDomain";
/// Legs leave a node.
pub const REASON_MOVING: &str = "Moving";
/// Somebody asked for it.
pub const REASON_ASKED: &str = "Asked";
/// Something is not as the policy says now.
pub const REASON_POLICY_VIOLATED: &str = "PolicyViolated";
/// An array that MeshStor did not assemble holds a leg.
pub const REASON_FOREIGN_ASSEMBLY: &str = "ForeignAssembly";

/// Things of MeshStor's are on a node that no object names. They are kept.
pub const REASON_QUARANTINED: &str = "Quarantined";

/// Longest message that is written; the API server allows 32768.
const MESSAGE_MAX: usize = 1024;

/// What a condition should say now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Condition type.
    pub type_: &'static str,
    /// `Some(true)`, `Some(false)`, or `None` for `Unknown`.
    pub status: Option<bool>,
    /// CamelCase reason.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Want {
    /// A condition that is true or false.
    pub fn new(type_: &'static str, status: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, status: Some(status), reason, message: message.into() }
    }
}

/// The conditions after `want`: a type that is not in `want` goes away; `lastTransitionTime` moves only when the
/// status does, so that an unchanged want gives an equal list.
pub fn apply(old: &[Condition], want: &[Want], generation: Option<i64>, now: &Time) -> Vec<Condition> {
    want.iter().map(|w| one(old.iter().find(|c| c.type_ == w.type_), w, generation, now)).collect()
}

fn one(old: Option<&Condition>, want: &Want, generation: Option<i64>, now: &Time) -> Condition {
    let status = want.status.map_or("Unknown", |s| if s { "True" } else { "False" });
    let since = old.filter(|c| c.status == status).map_or_else(|| now.clone(), |c| c.last_transition_time.clone());
    Condition {
        type_: want.type_.to_owned(),
        status: status.to_owned(),
        reason: want.reason.to_owned(),
        message: want.message.chars().take(MESSAGE_MAX).collect(),
        observed_generation: generation,
        last_transition_time: since,
    }
}

/// Whether condition `type_` is `True`.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    conditions.iter().any(|c| c.type_ == type_ && c.status == "True")
}
