//! All that there is at one moment.

/// The largest number of nodes, and of legs: leg *n* is on node *n*.
pub const NODES: usize = 3;
/// What a leg holds that was wiped: no write has this number.
pub const WIPED: u8 = 7;

/// A set of legs, one bit each.
pub type Legs = u8;

/// The set of one leg.
#[must_use]
pub const fn only(leg: u8) -> Legs {
    1 << leg
}

/// The legs of a set.
pub fn each(legs: Legs) -> impl Iterator<Item = u8> {
    (0..NODES as u8).filter(move |leg| legs & only(*leg) != 0)
}

/// How far an epoch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Older epochs are being revoked.
    Revoking,
    /// The start set is fixed.
    Started,
    /// One daemon has claimed it.
    Running,
}

/// `MeshAttachment.status.term`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// The fencing token.
    pub epoch: u8,
    /// The consumer.
    pub node: u8,
    /// How far it has come.
    pub phase: Phase,
    /// S.
    pub in_sync: Legs,
    /// Legs that may return by the bitmap.
    pub bitmap_usable: Legs,
    /// Legs that will never be used again.
    pub retired: Legs,
    /// Legs of the last S that this epoch's start left out. The consumer's daemon knows them when it saw both versions.
    pub left_out: Legs,
    /// The last consumer said that it stopped cleanly, or there was none.
    pub clean: bool,
}

/// What a daemon asks the API server to do to the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// `Started` → `Running`; with the legs that the start left out named in `bitmapUsable`, when they are known.
    Claim(bool),
    /// A leg out of S.
    Remove(u8),
    /// A leg into S.
    Add(u8),
    /// `bitmapUsable` is emptied.
    Forget,
    /// Nothing but `writer`: it settles what became of the requests before it.
    Settle,
    /// The array is down.
    Ended,
}

/// A request on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// What it changes.
    pub change: Change,
    /// S as the sender makes it.
    pub set: Legs,
    /// The epoch that it is meant for.
    pub epoch: u8,
    /// Nobody has written the record since the version that it is based on.
    pub current: bool,
    /// Nobody has written S since then (only where S is an object of its own).
    pub set_current: bool,
}

/// What a daemon process remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Daemon {
    /// The epoch that it knows to be its own; 0 for none.
    pub epoch: u8,
    /// S of that epoch after its last definite write.
    pub in_sync: Legs,
    /// `bitmapUsable` after its last definite write.
    pub bitmap_usable: Legs,
    /// Its last write had a definite outcome, and no other is on its way.
    pub settled: bool,
    /// It claimed the epoch and has not assembled yet.
    pub may_assemble: bool,
    /// The request that it waits for.
    pub request: Option<Request>,
}

/// An MD array.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Array {
    /// Epoch of its assembly.
    pub epoch: u8,
    /// Members that MD takes for in sync.
    pub members: Legs,
    /// The member that is being rebuilt.
    pub rebuilding: Legs,
    /// The set that user space agreed to; only a kernel with the gate heeds it.
    pub agreed: Legs,
    /// The application may use it.
    pub published: bool,
    /// The write that is not acknowledged yet; 0 for none.
    pub write: u8,
    /// Members that have completed it.
    pub done: Legs,
    /// Members that have flushed it.
    pub flushed: Legs,
}

/// An initiator's path to a leg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Path {
    /// None.
    #[default]
    None,
    /// It carries I/O, over this grant.
    Live(u8),
    /// It holds I/O and tries again, with this grant.
    Held(u8),
}

/// A node: its kernel as an initiator, and its daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Node {
    /// It has power.
    pub up: bool,
    /// Its daemon.
    pub daemon: Daemon,
    /// Its array of the volume.
    pub array: Option<Array>,
    /// Its paths to the legs.
    pub paths: [Path; NODES],
    /// The highest grant of each leg that was let go: it is never connected again.
    pub let_go: [u8; NODES],
    /// A request that nobody waits for any more.
    pub late: Option<Request>,
    /// A leg that a dead process was about to let go.
    pub undead: Legs,
}

/// A write inside a target: it has not reached the drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Inside {
    /// Number of the write.
    pub write: u8,
    /// Epoch of the array that it is of.
    pub epoch: u8,
    /// Node that it came from.
    pub node: u8,
}

/// A leave to use a leg, or an export by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// Number.
    pub number: u8,
    /// Epoch.
    pub epoch: u8,
    /// Node that may.
    pub consumer: u8,
}

/// A leg: its object, its drive, its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Leg {
    /// `spec.epoch`.
    pub told: u8,
    /// `spec.grant`.
    pub grant: Option<Grant>,
    /// The grant before: whoever read the object late has this one.
    pub before: Option<Grant>,
    /// `status.revokedBelow`.
    pub confirmed: u8,
    /// The highest epoch that is kept with it.
    pub epoch: u8,
    /// The highest grant that was ever served.
    pub spent: u8,
    /// Newest write on it.
    pub holds: u8,
    /// Newest write that a loss of power leaves on it.
    pub flushed: u8,
    /// Its own bitmap: the block may differ from the other legs'.
    pub dirty: bool,
    /// What is exported.
    pub export: Option<Grant>,
    /// A write of the connection that is open.
    pub inside: Option<Inside>,
    /// A write of a connection before it.
    pub left: Option<Inside>,
}

/// What was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// I1: an acknowledged write is gone, or a write that was gone is back.
    Lost,
    /// I2: a leg took a write of an epoch that it had confirmed to be over.
    TwoWriters,
    /// I4: nothing is left to do, and the volume does not run.
    Stranded,
}

/// What has been used of the bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Used {
    /// Nodes crashed.
    pub crashes: u8,
    /// Daemons killed.
    pub kills: u8,
    /// Paths lost.
    pub losses: u8,
    /// Requests given up.
    pub timeouts: u8,
    /// Members dropped.
    pub errors: u8,
    /// Arrays stopped.
    pub stops: u8,
}

/// All that there is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The record.
    pub record: Record,
    /// An older record that somebody may still act upon.
    pub old: Record,
    /// The nodes.
    pub nodes: [Node; NODES],
    /// The legs.
    pub legs: [Leg; NODES],
    /// Bounds.
    pub used: Used,
    /// Writes issued so far.
    pub issued: u8,
    /// The newest write that was acknowledged.
    pub acknowledged: u8,
    /// Writes that a reader may find, one bit each; bit 0 is what there was before the first.
    pub legal: u8,
    /// The highest epoch whose device was shown.
    pub shown: u8,
    /// What was broken, if anything.
    pub broken: Option<Violation>,
}
