//! The one seam to the kernel.
//!
//! Everything that the daemon does to its node is one call of [`Host`]: one observation or one effect. Calls block the
//! calling thread; some (a revoke over a stuck drive) may block for as long as the drive does, so each volume is served
//! by a thread of its own. An effect that finds its work already done succeeds without doing it again (I5).
//!
//! There are three implementations: [`real::RealHost`] (sysfs, configfs, nvme-fabrics, mdadm), [`fake::FakeHost`] (an
//! executable model), and [`crash::CrashHost`], which wraps another and stops after its k-th effect.

#[cfg(test)]
mod conformance;
pub mod crash;
pub mod fake;
pub mod real;

use meshstor_crds::{Bitmap, Geometry, Transport};
use std::ops::Range;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Why a call of [`Host`] failed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The kernel or a tool refused; a later try may succeed.
    #[error("{action}: {cause}")]
    Failed {
        /// Verb and object.
        action: String,
        /// What the kernel or the tool said.
        cause: String,
    },
    /// Somebody uses the object, for instance a mount that cannot be unmounted.
    #[error("{action}: in use: {cause}")]
    Busy {
        /// Verb and object.
        action: String,
        /// Who or what.
        cause: String,
    },
    /// What was found is not what may be touched: foreign bytes, a foreign object, a wrong size. Nothing was changed.
    #[error("{action}: {cause}; nothing was changed")]
    Conflict {
        /// Verb and object.
        action: String,
        /// What was found.
        cause: String,
    },
    /// The process is about to die here ([`crash::CrashHost`] only).
    #[error("crashed before or after an effect")]
    Crashed,
}

/// Result of a call of [`Host`].
pub type Result<T> = std::result::Result<T, HostError>;

/// What the node is and has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// NVMe host NQN.
    pub host_nqn: String,
    /// `uname -r`.
    pub kernel_release: String,
    /// Probed capabilities: name, supported, how it was found out or the remedy.
    pub capabilities: Vec<(String, bool, String)>,
    /// IP addresses of interfaces with RDMA; none where the kernel has no NVMe over RDMA.
    pub rdma: Vec<String>,
    /// Why no array may be started on this kernel, and what to do; absent on a sound one.
    pub kernel_fault: Option<String>,
    /// Whether the node keeps its hands off our legs.
    pub assembly: Assembly,
    /// Drives that match the daemon's pattern.
    pub drives: Vec<DriveFacts>,
}

/// Whether anything of the node (a rule of udev, a unit of systemd) would assemble our legs behind our back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assembly {
    /// Nothing would; unknown where the node's files cannot be read.
    pub guarded: Option<bool>,
    /// How that is known, or what would and what to do.
    pub message: String,
}

/// Why a drive cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// The kind.
    pub fault: DriveFault,
    /// For people, with what to do.
    pub why: String,
}

/// Kinds of drives that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriveFault {
    /// Nothing tells it from another drive, or from itself under another name.
    NoStableIdentity,
    /// Its sectors have neither 512 nor 4096 bytes.
    SectorSize,
    /// Somebody else's, read-only, without a medium, or damaged.
    Other,
}

/// One drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriveFacts {
    /// Stable identity (WWID, serial, else GPT disk GUID).
    pub id: String,
    /// Device node now.
    pub path: PathBuf,
    /// Model.
    pub model: Option<String>,
    /// Bytes.
    pub size: u64,
    /// Logical sector size in bytes.
    pub sector: u32,
    /// Free `(first_byte, bytes)`, MiB aligned, largest first.
    pub free: Vec<(u64, u64)>,
    /// Why it cannot be used.
    pub unusable: Option<Unusable>,
}

/// A leg by its identity on this node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LegRef {
    /// Drive identity, as [`DriveFacts::id`].
    pub drive: String,
    /// GPT partition UUID, derived from volume UID and slot.
    pub uuid: Uuid,
}

/// What is kept *with the leg*, on its drive, in the ledger partition: durable before the call that writes it returns.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LedgerEntry {
    /// Highest epoch that the leg was ever told of (rule 1).
    pub epoch: i64,
    /// Highest grant number ever served (rule 1).
    pub spent_grant: i64,
    /// Boot ID under which it was served: another boot never serves it again (rule 1).
    pub spent_boot: String,
    /// True from the end of zeroing until the leg is first exported or used locally.
    pub blank: bool,
    /// True once the leg was zeroed; it is never zeroed again after that.
    pub zeroed: bool,
    /// Epoch for which this node's own array last took the leg as a local member; 0 for never.
    pub local_epoch: i64,
}

/// What is observed of a leg on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LegFacts {
    /// Its partition.
    pub partition: Option<PartitionFacts>,
    /// Its ledger entry.
    pub ledger: Option<LedgerEntry>,
    /// Every export of ours (by NQN prefix or by backing device) that opens this leg, complete or half made.
    pub exports: Vec<ExportFacts>,
    /// MD array (`/dev/mdN`) on this node that holds the partition.
    pub held_by: Option<PathBuf>,
    /// No daemon of this boot started that array: a rule of udev, or a person, assembled or made it.
    pub held_by_stranger: bool,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionFacts {
    /// Device node now.
    pub device: PathBuf,
    /// First byte on the drive.
    pub first_byte: u64,
    /// Bytes.
    pub size: u64,
}

/// An nvmet export, complete or half made or half taken down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportFacts {
    /// Subsystem NQN.
    pub nqn: String,
    /// The one allowed host, if linked.
    pub host_nqn: Option<String>,
    /// Backing device of namespace 1.
    pub device: Option<PathBuf>,
    /// Namespace UUID.
    pub device_uuid: Option<Uuid>,
    /// Namespace is enabled.
    pub enabled: bool,
    /// Listener `(address, tcp_port)`, if the subsystem is linked to its port.
    pub listening: Option<(String, u16)>,
}

/// An export to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportSpec {
    /// Subsystem NQN, of this grant alone.
    pub nqn: String,
    /// The one allowed host.
    pub host_nqn: String,
    /// Fabric of the listener.
    pub transport: Transport,
    /// Address to listen at.
    pub address: String,
    /// Most I/O queues that a host may make.
    pub io_queues: u16,
}

/// A connection to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectSpec {
    /// Subsystem NQN.
    pub nqn: String,
    /// Fabric of the listener.
    pub transport: Transport,
    /// Address of the listener.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// I/O queues.
    pub io_queues: u16,
    /// Depth of each.
    pub queue_size: u16,
    /// Seconds.
    pub keep_alive: u16,
}

/// State of a controller, as `/sys/class/nvme/nvmeN/state` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControllerState {
    /// Usable.
    Live,
    /// The target does not answer: I/O is held. (`connecting`, `resetting`, `new`)
    Connecting,
    /// Going away (`deleting`, `dead`).
    Deleting,
}

/// One NVMe-oF connection of ours on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionFacts {
    /// Subsystem NQN.
    pub nqn: String,
    /// Controller, such as `nvme3`.
    pub controller: String,
    /// State.
    pub state: ControllerState,
    /// Block device of its namespace, such as `/dev/nvme3n1`, once the kernel has made it.
    pub device: Option<PathBuf>,
}

/// An MD array of ours on this node (found by array UUID, never by name).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrayFacts {
    /// Array UUID.
    pub uuid: Uuid,
    /// Device node.
    pub device: PathBuf,
    /// `array_state` is one of clean, active, active-idle, write-pending, read-auto, readonly: it serves I/O.
    pub running: bool,
    /// Slots (`raid_disks`).
    pub slots: u32,
    /// Slots of each mirror set: all of them in a RAID1, the near copies of a RAID10; none for another layout.
    pub set_slots: Option<u32>,
    /// Nothing is rebuilt (`sync_action` is `frozen`): an addition was interrupted.
    pub frozen: bool,
    /// Its write-intent bitmap; none where the kernel says something else.
    pub bitmap: Option<Bitmap>,
    /// Whether MD chooses the member for each read by its measured latency; none where the kernel cannot.
    pub latency_balance: Option<bool>,
    /// `degraded`.
    pub degraded: u32,
    /// Members, failed ones too.
    pub members: Vec<MemberFacts>,
    /// `sync_action` when not idle, with progress.
    pub sync: Option<SyncFacts>,
    /// Sectors of 512 bytes of each member after which a rebuild waits (`sync_max`); none where it goes on to its end.
    pub sync_max: Option<u64>,
    /// All writes are held (`suspend_lo`, `suspend_hi`).
    pub suspended: bool,
    /// Its failure gate; none where the kernel has none.
    pub failure_gate: Option<FailureGate>,
    /// Where it is mounted, every mount point.
    pub mounts: Vec<PathBuf>,
}

impl ArrayFacts {
    /// A mirror set has no member that could serve a request: each has failed, or its device is gone. MD keeps its last member without a
    /// device for ever, and ends every request with an error.
    ///
    /// Members are read one after another: where one takes another's place meanwhile, the new one may be seen before it is in sync and the
    /// old one after it has failed. MD counts whom it lacks in one number, and a look that does not fit that proves nothing.
    pub fn is_dead(&self) -> bool {
        let set_slots = self.set_slots.unwrap_or(self.slots).max(1);
        if self.degraded < set_slots {
            return false;
        }
        let serves = |m: &MemberFacts, set: u32| m.in_sync && !m.faulty && m.slot.is_some_and(|s| s / set_slots == set);
        (0..self.slots / set_slots).any(|set| !self.members.iter().any(|m| serves(m, set)))
    }
}

/// Whether MD acknowledges writes after a member has failed, before anybody has agreed to that (`md/failure_gate`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailureGate {
    /// It does, as a stock kernel.
    Off,
    /// It will not.
    On,
    /// It does not: writes are held until these failures are agreed to.
    Holding(Vec<MemberFailure>),
    /// It was told that nobody ever will: no write is acknowledged any more.
    Refused,
}

/// A member that has failed, and that nobody has agreed to go on without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberFailure {
    /// Number of the failure: no two of a running kernel have the same, and a later one has a higher.
    pub number: u32,
    /// Kernel name of the member, which stays its as long as it waits.
    pub member: String,
}

/// A member of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberFacts {
    /// Kernel name, such as `ubda1` or `nvme3n1`; the device itself may be gone.
    pub name: String,
    /// Slot, absent for a spare.
    pub slot: Option<u32>,
    /// `in_sync` in `md/dev-*/state`.
    pub in_sync: bool,
    /// `faulty` in `md/dev-*/state`.
    pub faulty: bool,
    /// `write_mostly`.
    pub write_mostly: bool,
    /// It is filled to take the place of the member that has its slot.
    pub replacement: bool,
    /// `latency_ewma_ns`, where the kernel has it.
    pub latency_ewma_ns: Option<u64>,
}

/// A running resync, recovery or check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncFacts {
    /// `sync_action`.
    pub action: String,
    /// Sectors done and in all, from `sync_completed`.
    pub done: u64,
    /// Sectors in all; 0 when unknown.
    pub total: u64,
    /// KiB/s from `sync_speed`.
    pub speed_kib: u64,
}

/// Requests that a device has completed, and how long they took together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Io {
    /// Reads and writes.
    pub count: u64,
    /// Milliseconds.
    pub milliseconds: u64,
}

/// What an array has to do, and how fast it may rebuild.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Of the array's users; a rebuild is not counted.
    pub io: Io,
    /// Of each member's device, by its kernel name, rebuilds too.
    pub members: std::collections::BTreeMap<String, Io>,
    /// Limit of its rebuild in KiB/s, where it has one of its own.
    pub rebuild_limit: Option<u64>,
}

/// What an MD superblock on a device says (`mdadm --examine`, direct I/O).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuperFacts {
    /// Array UUID.
    pub uuid: Uuid,
    /// Event counter. Proves nothing (rule 7); for logs.
    pub events: u64,
}

/// What a leg that no object names says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFacts {
    /// First byte on the drive.
    pub first_byte: u64,
    /// Bytes.
    pub size: u64,
    /// Label in the partition table.
    pub label: String,
    /// Device node, where the kernel has the partition.
    pub device: Option<PathBuf>,
    /// Its MD superblock; none where there are zeros. An error says what is there instead.
    pub superblock: std::result::Result<Option<SuperLeg>, String>,
    /// Its ledger entry.
    pub ledger: Option<LedgerEntry>,
    /// It has no entry, and the drive's ledger is gone, damaged, or was lost once.
    pub ledger_lost: bool,
    /// Exports that open it, whoever made them.
    pub exports: Vec<String>,
}

/// What the MD superblock of a leg says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuperLeg {
    /// Array UUID.
    pub uuid: Uuid,
    /// `homehost:name`.
    pub name: String,
    /// RAID level.
    pub level: i32,
    /// Slots.
    pub slots: u32,
    /// Near copies of a RAID10 that has no others.
    pub near_copies: Option<u32>,
    /// Its own slot.
    pub slot: Option<u32>,
    /// Slots that had a member which was not failed, in order.
    pub active_slots: Vec<u32>,
    /// Its number among the devices of the array.
    pub number: u32,
    /// The slot of each device by number; those behind the last that has one are left out.
    pub roles: Vec<Option<u32>>,
    /// It was being filled.
    pub rebuilding: bool,
    /// Event counter.
    pub events: u64,
    /// Bytes of data on each member.
    pub component: u64,
    /// No write was under way.
    pub clean: bool,
    /// Its bitmap; none where that is of an unknown kind.
    pub bitmap: Option<Bitmap>,
}

/// An array to make or to assemble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArraySpec {
    /// Array UUID.
    pub uuid: Uuid,
    /// Volume name, for mdadm's `--name`.
    pub name: String,
    /// Slots and mirror sets. Assembly goes by the superblocks.
    pub geometry: Geometry,
    /// Exactly the members to start from; `slot` matters on create.
    pub members: Vec<ArrayMember>,
    /// Bytes of array data on each member: the array's component size.
    pub size: u64,
    /// Write-intent bitmap to create it with, never `auto`. Assembly goes by the superblocks.
    pub bitmap: Bitmap,
}

/// One member to start from or to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrayMember {
    /// Device node.
    pub device: PathBuf,
    /// Slot on create, and in a RAID10 on addition.
    pub slot: u32,
    /// Reads avoid it.
    pub write_mostly: bool,
}

/// What is on a device that is about to get a filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// No signature known to libblkid and the first and last MiB read as zeros.
    Blank,
    /// A filesystem of this type.
    Filesystem(String),
    /// Anything else.
    Other(String),
}

/// What of a leg is zeroed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// What an array does not copy to: its first bytes, with superblock and bitmap, and its last, which no array uses.
    Ends,
}

impl Part {
    /// Length of each end in bytes. Before the data and after it there are 8 MiB in all: a leg is so much larger than its volume.
    const END: u64 = 8 << 20;

    /// The bytes of a partition of `size` bytes.
    pub fn ranges(self, size: u64) -> [Range<u64>; 2] {
        match self {
            Self::Whole => [0..size, size..size],
            Self::Ends => {
                let first = size.min(Self::END);
                [0..first, first.max(size.saturating_sub(Self::END))..size]
            }
        }
    }
}

/// Everything that the daemon sees of its node and does to it.
pub trait Host: Send + Sync {
    // Observations. None of them opens an MD device or reads from a leg whose path may hang, but for `examine` and `content`.
    // `found` reads from a drive of this node.

    /// The node itself.
    fn node(&self) -> Result<NodeFacts>;
    /// One leg.
    fn leg(&self, leg: &LegRef) -> Result<LegFacts>;
    /// Every partition of our type on the matching drives: the legs that are there, known or not.
    fn legs(&self) -> Result<Vec<LegRef>>;
    /// NQN of every export of ours, half made ones too, known or not.
    fn exports(&self) -> Result<Vec<String>>;
    /// Every connection whose NQN has our prefix.
    fn connections(&self) -> Result<Vec<ConnectionFacts>>;
    /// As [`Host::connections`], of those whose NQN is `wanted`: the cost of the others is to read their NQN.
    fn connections_of(&self, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<ConnectionFacts>> {
        Ok(self.connections()?.into_iter().filter(|c| wanted(&c.nqn)).collect())
    }
    /// Every array that is ours: its metadata name is `meshstor:<volume>`.
    fn arrays(&self) -> Result<Vec<ArrayFacts>>;
    /// As [`Host::arrays`], of the one with this UUID: the cost of the others is to read their UUID.
    fn array(&self, uuid: Uuid) -> Result<Option<ArrayFacts>> {
        Ok(self.arrays()?.into_iter().find(|a| a.uuid == uuid))
    }
    /// What an array has to do.
    fn traffic(&self, array: &Path) -> Result<Traffic>;
    /// The MD superblock on a device, or none.
    fn examine(&self, device: &Path) -> Result<Option<SuperFacts>>;
    /// What a device holds.
    fn content(&self, device: &Path) -> Result<Content>;

    /// What a leg says of itself whose object is gone; none where the partition is.
    fn found(&self, leg: &LegRef) -> Result<Option<FoundFacts>>;
    /// An export of ours by its NQN; none where it is gone.
    fn export_named(&self, nqn: &str) -> Result<Option<ExportFacts>>;
    /// Who uses a block device (arrays and other devices over it, mounts in any namespace, swap, processes that have it open), for people;
    /// who cannot be looked at is one of them. The device is not opened.
    fn users(&self, device: &Path) -> Result<Vec<String>>;

    // Effects on legs.

    /// Makes the partition (type of ours, 1 MiB aligned, first extent that fits) and sees its device node.
    fn create_partition(&self, leg: &LegRef, bytes: u64, label: &str) -> Result<()>;
    /// Writes the ledger entry durably; it is on the drive when this returns.
    fn write_ledger(&self, leg: &LegRef, entry: &LedgerEntry) -> Result<()>;
    /// Makes the partition, or the part of it, read as zeros, durably; `progress` gets a percentage and may be called often.
    fn zero(&self, leg: &LegRef, part: Part, progress: &dyn Fn(u8)) -> Result<()>;
    /// Opens the leg: subsystem, allow-list and namespace first, the link to a port of its own last. Answers with
    /// listener and fresh namespace UUID.
    fn export(&self, leg: &LegRef, spec: &ExportSpec) -> Result<ExportFacts>;
    /// Whether anybody has a connection to an export.
    fn is_connected(&self, export: &ExportFacts) -> Result<bool>;
    /// Whether the consumer of an export came in through its door and is gone: it cannot come in again (rule 9). Not so while nobody
    /// came yet: there is nothing to close behind it.
    fn is_left(&self, export: &ExportFacts) -> Result<bool>;
    /// Lets the consumer of a live export, which has lost its connection, come back once: the export is closed with its barrier, so that
    /// nothing of the old connection can land any more, and opened again as it was (rule 9). Refused with [`HostError::Busy`] while somebody
    /// has a connection.
    fn readmit(&self, leg: &LegRef, spec: &ExportSpec) -> Result<()>;
    /// Closes one export: no I/O of it can land any more when this returns (the barrier). See `SAFETY.md` for the order.
    fn revoke(&self, nqn: &str) -> Result<()>;
    /// Removes partition and ledger entry. Refused while exported or held.
    fn delete_partition(&self, leg: &LegRef) -> Result<()>;
    /// Erases a leg that no object names: its superblock, so that nothing finds it again, then partition and ledger entry. Refused
    /// (`Busy`) while anybody uses it.
    fn discard(&self, leg: &LegRef) -> Result<()>;

    // Effects on the consumer.

    /// Connects; returns when the kernel has the controller. `ctrl_loss_tmo=-1`, no fast-fail.
    fn connect(&self, spec: &ConnectSpec) -> Result<()>;
    /// `delete_controller`. May take seconds.
    fn disconnect(&self, nqn: &str) -> Result<()>;
    /// Disconnects what nobody uses; refused (`Busy`) where somebody does.
    fn release(&self, nqn: &str) -> Result<()>;
    /// Creates the array from members that are proved blank (`--assume-clean`), so that every kernel of ours that has its level
    /// and its bitmap can assemble it.
    fn create_array(&self, spec: &ArraySpec) -> Result<()>;
    /// Assembles exactly the members; never forces, never adds others.
    fn assemble(&self, spec: &ArraySpec) -> Result<()>;
    /// Stops the array.
    fn stop_array(&self, device: &Path) -> Result<()>;
    /// Removes a member that the kernel has failed (or whose device is gone) from the array, by its kernel name.
    fn remove_member(&self, array: &Path, name: &str) -> Result<()>;
    /// Erases the MD superblock of a leg that was away.
    fn zero_superblock(&self, device: &Path) -> Result<()>;
    /// Adds a device whose superblock was erased: a full rebuild. A RAID10 takes it into the named slot and no other, for
    /// the kernel's choice may be of another mirror set.
    fn add_member(&self, array: &Path, member: &ArrayMember) -> Result<()>;
    /// Adds a device whose superblock was erased beside the working member `old`, which goes on: it is copied to up to
    /// [`ArrayFacts::sync_max`], just before the end. At the end MD would fail `old` at once.
    fn replace_member(&self, array: &Path, old: &str, member: &ArrayMember) -> Result<()>;
    /// Lets a rebuild go on to its end.
    fn finish_sync(&self, array: &Path) -> Result<()>;
    /// Holds all writes, once those in flight are done: it may block for as long as a member does.
    fn suspend(&self, array: &Path) -> Result<()>;
    /// Lets writes go on.
    fn resume(&self, array: &Path) -> Result<()>;
    /// Has MD fail a member that works; [`Host::remove_member`] takes it out. Never the last that is in sync.
    fn expel_member(&self, array: &Path, name: &str) -> Result<()>;
    /// Takes a leg that was away back into its slot by the classic bitmap: what its own bitmap marks is marked in the array's and on
    /// the drives of all that are in sync *before* it is a member; then what either marks is copied to it, and nothing else. A leg
    /// that is not of the array, or of another slot, or whose bitmap cannot be read is refused with [`HostError::Conflict`].
    fn readd_member(&self, array: &Path, member: &ArrayMember) -> Result<()>;
    /// Lets the array rebuild again where an addition was interrupted; what was being added is taken out again.
    fn thaw(&self, array: &Path) -> Result<()>;
    /// Has MD hold what it would acknowledge after a member has failed, from now on. May wait for what is in flight.
    fn hold_failures(&self, array: &Path) -> Result<()>;
    /// Lets the array go on without all members that have failed, of which the last has this number. Where another has failed since it
    /// does nothing: the next look shows that.
    fn agree_to_failures(&self, array: &Path, number: u32) -> Result<()>;
    /// Ends all writes with errors, those that are held too: none is acknowledged any more when this returns.
    fn refuse_writes(&self, array: &Path) -> Result<()>;
    /// Limits how fast the array is rebuilt, in KiB/s; none for what the node's kernel is set to.
    fn limit_rebuild(&self, array: &Path, kib: Option<u64>) -> Result<()>;
    /// Makes the whole device read as zeros (only ever before the volume is initialised).
    fn wipe(&self, device: &Path) -> Result<()>;
    /// Makes a filesystem.
    fn mkfs(&self, device: &Path, filesystem: &str) -> Result<()>;
    /// Mounts.
    fn mount(&self, device: &Path, filesystem: &str, at: &Path) -> Result<()>;
    /// Unmounts.
    fn unmount(&self, at: &Path) -> Result<()>;
    /// Takes the array away from everybody, so that the writes that it holds may end without anybody seeing how: detaches its mounts in
    /// every namespace and kills whoever has a file of it. Answers with who is left that may still see it; nobody is, when the array
    /// may be released. Where a user cannot be killed nothing is done to the others.
    fn evict(&self, array: &Path) -> Result<Vec<String>>;
}
