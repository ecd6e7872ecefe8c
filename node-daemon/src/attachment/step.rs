//! The closed set of things that a consumer's daemon does.

use std::fmt;
use std::path::PathBuf;

use meshstor_crds::{EndedReason, MeshAttachmentStatus};

use crate::host::{ArrayMember, ArraySpec, ConnectSpec};

/// The one next step of an attachment.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The outcome of the last write of the record is unknown: read it with a quorum, and where it did not change,
    /// write it once more, so that the lost write can never land any more.
    Settle,
    /// Connect to a leg's export.
    Connect {
        /// The leg.
        leg: String,
        /// Where.
        spec: ConnectSpec,
    },
    /// `Started → Running`: this process alone makes the array of this epoch.
    Claim,
    /// Take over the record of an array that an earlier process of this node assembled and that still runs.
    Adopt,
    /// Make the array anew.
    Create(ArraySpec),
    /// Assemble the array from exactly its start set.
    Assemble(ArraySpec),
    /// Look at what the device holds.
    Probe {
        /// The array.
        device: PathBuf,
    },
    /// Zero the device.
    Wipe {
        /// The array.
        device: PathBuf,
    },
    /// Make the filesystem.
    Mkfs {
        /// The array.
        device: PathBuf,
        /// Its type.
        filesystem: &'static str,
    },
    /// Record that the volume is whole and may be shown.
    RecordInitialised,
    /// Mount.
    Mount {
        /// The array.
        device: PathBuf,
        /// Filesystem type.
        filesystem: &'static str,
        /// Where.
        at: PathBuf,
    },
    /// Unmount.
    Unmount {
        /// Where.
        at: PathBuf,
    },
    /// Take the array of an epoch that is over away from whoever uses it, so that what it holds may end unseen.
    Evict {
        /// The array.
        device: PathBuf,
    },
    /// Stop the array.
    StopArray {
        /// The array.
        device: PathBuf,
    },
    /// Record the in-sync set without the leg (rule 5).
    RecordLoss {
        /// The leg.
        leg: String,
        /// For the log and the event.
        why: &'static str,
    },
    /// Delete the controller; held writes are released.
    Disconnect {
        /// The subsystem.
        nqn: String,
    },
    /// Remove a failed member.
    RemoveMember {
        /// The array.
        device: PathBuf,
        /// Kernel name of the member.
        name: String,
    },
    /// Record that these legs may not return by the bitmap any more: it stops being proof for them (rule 7).
    Forget {
        /// The legs.
        legs: Vec<String>,
    },
    /// Take the leg back by the bitmap: what it lacks, and what it alone wrote, is copied.
    Readd {
        /// The leg.
        leg: String,
        /// Its identity in `Memory::refused`.
        key: String,
        /// The array.
        device: PathBuf,
        /// The member.
        member: ArrayMember,
    },
    /// Erase the superblock of a leg that was away (rule 7).
    ZeroSuperblock {
        /// The leg.
        leg: String,
        /// Its identity in `Memory::erased`.
        key: String,
        /// Its device.
        device: PathBuf,
    },
    /// Add the leg: a full rebuild.
    AddMember {
        /// The leg.
        leg: String,
        /// The array.
        device: PathBuf,
        /// The member.
        member: ArrayMember,
    },
    /// Fill the leg beside the member whose place it takes; the copy waits just before its end.
    ReplaceMember {
        /// The leg.
        leg: String,
        /// The array.
        device: PathBuf,
        /// Kernel name of the member that gives way.
        old: String,
        /// The new member.
        member: ArrayMember,
    },
    /// Hold all writes while MD changes from one member to the other: what it acknowledged then would not be on the old
    /// leg, which the record still names.
    Suspend {
        /// The array.
        device: PathBuf,
    },
    /// Let the copy go on to its end, where MD fails the old member.
    FinishSync {
        /// The array.
        device: PathBuf,
    },
    /// Let writes go on.
    Resume {
        /// The array.
        device: PathBuf,
    },
    /// Have MD hold what it would acknowledge after a member has failed.
    HoldFailures {
        /// The array.
        device: PathBuf,
    },
    /// The record has it: the array may go on without the members that have failed.
    Agree {
        /// The array.
        device: PathBuf,
        /// Number of the last failure.
        number: u32,
    },
    /// Have MD end all writes with errors: the epoch is over.
    RefuseWrites {
        /// The array.
        device: PathBuf,
    },
    /// Fail the member of a leg that left S.
    ExpelMember {
        /// The leg.
        leg: String,
        /// The array.
        device: PathBuf,
        /// Kernel name of the member.
        name: String,
    },
    /// Let the array rebuild again after an addition that was interrupted.
    Thaw {
        /// The array.
        device: PathBuf,
    },
    /// Limit how fast the array is rebuilt, or lift the limit.
    Pace {
        /// The array.
        device: PathBuf,
        /// KiB/s.
        kib: Option<u64>,
    },
    /// Record the in-sync set with the leg.
    RecordInSync {
        /// The leg.
        leg: String,
    },
    /// Record that this epoch's array is gone.
    RecordEnded {
        /// Why.
        reason: EndedReason,
    },
    /// Write the rest of the status.
    Report(Box<MeshAttachmentStatus>),
    /// Nothing is to be done.
    Settled,
}

impl Step {
    /// Opens a device whose path may hang, or waits for the array's lock, which MD holds while it writes the superblock of such a
    /// device: it runs beside the planning, one at a time.
    pub fn slow(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. }
                | Self::Create(_)
                | Self::Assemble(_)
                | Self::Probe { .. }
                | Self::Wipe { .. }
                | Self::Mkfs { .. }
                | Self::Mount { .. }
                | Self::Unmount { .. }
                | Self::StopArray { .. }
                | Self::ZeroSuperblock { .. }
                | Self::AddMember { .. }
                | Self::Readd { .. }
                | Self::ReplaceMember { .. }
                | Self::Suspend { .. }
                | Self::HoldFailures { .. }
                | Self::FinishSync { .. }
                | Self::Resume { .. }
                | Self::ExpelMember { .. }
                | Self::RemoveMember { .. }
                | Self::Thaw { .. }
        )
    }

    /// Takes a local leg into an array: it must not overlap with the leg's confirmation of a newer epoch.
    pub fn needs_gate(&self) -> bool {
        matches!(
            self,
            Self::Create(_)
                | Self::Assemble(_)
                | Self::AddMember { .. }
                | Self::Readd { .. }
                | Self::ReplaceMember { .. }
        )
    }

    /// Its failure before the device was published ends the epoch.
    pub fn starts(&self) -> bool {
        matches!(self, Self::Create(_) | Self::Assemble(_) | Self::Probe { .. } | Self::Wipe { .. } | Self::Mkfs { .. })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settle => write!(f, "settle the outcome of the last write of the record"),
            Self::Connect { leg, spec } => write!(f, "connect leg {leg} at {}:{}", spec.address, spec.port),
            Self::Claim => write!(f, "claim the epoch"),
            Self::Adopt => write!(f, "adopt the running array"),
            Self::Create(spec) => write!(f, "create the array from {} legs", spec.members.len()),
            Self::Assemble(spec) => write!(f, "assemble the array from {} legs", spec.members.len()),
            Self::Probe { device } => write!(f, "look at {}", device.display()),
            Self::Wipe { device } => write!(f, "wipe {}", device.display()),
            Self::Mkfs { device, filesystem } => write!(f, "make {filesystem} on {}", device.display()),
            Self::RecordInitialised => write!(f, "record that the volume is initialised"),
            Self::Mount { device, at, .. } => write!(f, "mount {} at {}", device.display(), at.display()),
            Self::Unmount { at } => write!(f, "unmount {}", at.display()),
            Self::Evict { device } => write!(f, "take {} away from its users", device.display()),
            Self::StopArray { device } => write!(f, "stop {}", device.display()),
            Self::RecordLoss { leg, why } => write!(f, "record the loss of leg {leg}: {why}"),
            Self::Disconnect { nqn } => write!(f, "disconnect {nqn}"),
            Self::RemoveMember { device, name } => write!(f, "remove member {name} from {}", device.display()),
            Self::Forget { legs } => write!(f, "record that the bitmap is no proof for {}", legs.join(", ")),
            Self::Readd { leg, .. } => write!(f, "take leg {leg} back by the bitmap"),
            Self::ZeroSuperblock { leg, .. } => write!(f, "erase the superblock of leg {leg}"),
            Self::AddMember { leg, .. } => write!(f, "add leg {leg} for a full rebuild"),
            Self::ReplaceMember { leg, old, .. } => write!(f, "fill leg {leg} beside member {old}"),
            Self::Suspend { device } => write!(f, "hold the writes of {}", device.display()),
            Self::FinishSync { device } => write!(f, "let the copy of {} end", device.display()),
            Self::Resume { device } => write!(f, "let the writes of {} go on", device.display()),
            Self::HoldFailures { device } => write!(f, "have {} hold what a failure leaves unsafe", device.display()),
            Self::Agree { device, number } => write!(f, "let {} go on after failure {number}", device.display()),
            Self::RefuseWrites { device } => write!(f, "have {} end all writes with errors", device.display()),
            Self::ExpelMember { leg, name, .. } => write!(f, "take leg {leg} ({name}) out of the array"),
            Self::Thaw { device } => write!(f, "let {} rebuild again", device.display()),
            Self::Pace { kib: Some(kib), .. } => write!(f, "rebuild at {} MiB/s at most", kib / 1024),
            Self::Pace { kib: None, .. } => write!(f, "lift the limit of the rebuild"),
            Self::RecordInSync { leg } => write!(f, "record that leg {leg} is in sync"),
            Self::RecordEnded { reason } => write!(f, "record the end of the epoch: {reason:?}"),
            Self::Report(_) => write!(f, "write the status"),
            Self::Settled => write!(f, "nothing to do"),
        }
    }
}
