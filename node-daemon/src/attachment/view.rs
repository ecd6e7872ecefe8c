//! What the planning of an attachment looks at, and how legs, connections and members belong together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use meshstor_crds::geometry::{self, HEADROOM, Unsound};
use meshstor_crds::{
    Bitmap, Geometry, MeshAttachment, MeshAttachmentStatus, MeshReplica, TRUST_DRIVE, Term, TermPhase, Time,
    conditions, naming,
};
use uuid::Uuid;

use super::Pace;
use crate::host::{ArrayFacts, ConnectionFacts, Content, ControllerState, Io, LegFacts, MemberFacts, Traffic};
use crate::ids::Nqn;

/// What the volume asks of its array and connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// Filesystem to make; none for a raw device.
    pub filesystem: Option<&'static str>,
    /// In-sync copies below which the attachment is not `Ready`.
    pub min_in_sync: usize,
    /// I/O queues of each connection.
    pub io_queues: u16,
    /// Depth of each.
    pub queue_size: u16,
    /// Keep-alive in seconds.
    pub keep_alive: u16,
    /// Remote legs get no reads: the kernel cannot tell a slow path from a fast one.
    pub write_mostly: bool,
    /// The kernel makes a RAID1 a RAID10 in place.
    pub takeover: bool,
    /// The kernel's RAID10 keeps what an absent leg lacks while another leg is rebuilt.
    pub bitmap_raid10: bool,
    /// Write-intent bitmap of the array.
    pub bitmap: Bitmap,
    /// Array UUID.
    pub uuid: Uuid,
}

/// A leg of the volume.
#[derive(Clone, Debug)]
pub struct Leg<'a> {
    /// The object.
    pub replica: &'a MeshReplica,
    /// What this node sees of it, where it is local.
    pub local: Option<&'a LegFacts>,
}

/// A start that failed and is being undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What failed and why.
    pub message: String,
    /// What was found must be looked at by a person.
    pub conflict: bool,
}

/// Why the last step failed, for the conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The step, as it is displayed.
    pub step: String,
    /// Condition reason.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// What the daemon process remembers of one epoch of an attachment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Epoch of which all this is.
    pub epoch: i64,
    /// This process made or adopted the array of the epoch: it is never made a second time.
    pub assembled: bool,
    /// This process created the array from legs that were proved blank.
    pub fresh: bool,
    /// The device was wiped by this process.
    pub wiped: bool,
    /// The filesystem was made by this process.
    pub made: bool,
    /// What the device holds, as last looked at.
    pub content: Option<Content>,
    /// Exports that this process disconnected: rule 9 forbids a second connection of one grant.
    pub burnt: BTreeSet<String>,
    /// Leg devices (by NQN, or partition UUID) whose superblock this process erased since they were last members.
    pub erased: BTreeSet<String>,
    /// How often a leg's return by the bitmap was refused, by leg device as in `erased`; after [`super::RETURNS`] it is rebuilt in full.
    pub refused: BTreeMap<String, u32>,
    /// The in-sync set with which the operator began the epoch, as far as this process saw it: the legs of it that the start
    /// leaves out may return by the bitmap.
    pub begun_with: BTreeSet<String>,
    /// How fast the rebuild that is under way may go.
    pub pace: Option<Pace>,
    /// Legs whose drives fail, and why.
    pub failing: BTreeMap<String, String>,
    /// Kernel names of members, as long as their devices were there to tell.
    pub names: BTreeMap<String, String>,
    /// The start failed.
    pub failed: Option<Failure>,
    /// Why MD acknowledges writes after a failure before that is recorded, although the kernel could wait.
    pub ungated: Option<String>,
    /// Nobody is left who could see how the writes end that the array of an epoch that is over holds.
    pub evicted: bool,
    /// Why that cannot be shown, if it was tried in vain.
    pub stuck: Option<String>,
    /// Connections that are being deleted, which can take a minute: nothing waits for it.
    pub leaving: BTreeSet<String>,
    /// The slow step that is running.
    pub slow: Option<String>,
    /// The outcome of a write of the record is unknown.
    pub unsettled: bool,
    /// The last step failed.
    pub trouble: Option<Trouble>,
}

/// Everything that decides the next step of an attachment.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// This node's name.
    pub me: &'a str,
    /// This daemon process.
    pub incarnation: &'a str,
    /// The newest known object.
    pub attachment: &'a MeshAttachment,
    /// What the volume asks; absent until the operator resolved it.
    pub params: Option<&'a Params>,
    /// All legs of the volume, by slot.
    pub legs: &'a [Leg<'a>],
    /// The volume's array on this node.
    pub array: Option<&'a ArrayFacts>,
    /// What the array has to do.
    pub traffic: &'a Traffic,
    /// Every connection of ours on this node.
    pub connections: &'a [ConnectionFacts],
    /// NQNs of connections that were not live for longer than the hold time.
    pub held: &'a BTreeSet<String>,
    /// The start set was not reachable for too long.
    pub overdue: bool,
    /// What this process remembers.
    pub memory: &'a Memory,
    /// For condition transitions.
    pub now: &'a Time,
}

/// Whether the device is that of the member, by its kernel name.
fn named(device: &Path, member: &str) -> bool {
    device.file_name().is_some_and(|name| name.to_str() == Some(member))
}

impl<'a> Leg<'a> {
    /// Name of the leg.
    pub fn name(&self) -> &'a str {
        self.replica.metadata.name.as_deref().unwrap_or_default()
    }

    pub(super) fn uid(&self) -> &'a str {
        self.replica.metadata.uid.as_deref().unwrap_or_default()
    }

    pub(super) fn slot(&self) -> u32 {
        u32::try_from(self.replica.spec.slot).unwrap_or(0)
    }

    /// The mirror set that it is of: legs of one set hold the same blocks.
    pub(super) fn set(&self) -> i32 {
        self.replica.spec.mirror_set
    }

    /// The leg's export of this epoch, under the very NQN that its grant gives it.
    pub(super) fn export(&self, epoch: i64) -> Option<&'a meshstor_crds::Export> {
        let export = self.replica.status.as_ref()?.export.as_ref()?;
        let right = export.epoch == epoch && export.nqn == naming::export_nqn(self.uid(), epoch, export.grant);
        right.then_some(export)
    }

    /// The grant of this epoch was served and its export is gone: nothing comes of waiting for it.
    pub(super) fn spent(&self, epoch: i64) -> bool {
        let (Some(grant), Some(status)) = (&self.replica.spec.grant, &self.replica.status) else { return false };
        self.local.is_none()
            && grant.epoch == epoch
            && status.export.is_none()
            && status.revoked_below.unwrap_or(0) >= epoch
            && status.spent_grant.unwrap_or(0) >= grant.number
    }

    /// The local partition, once the ledger says that this epoch's own array may take it.
    fn ready_partition(&self, epoch: i64) -> Option<PathBuf> {
        let facts = self.local?;
        let ledger = facts.ledger.as_ref().filter(|l| l.epoch == epoch && l.local_epoch == epoch && !l.blank);
        ledger.and(facts.partition.as_ref()).map(|p| p.device.clone())
    }

    fn partition(&self) -> Option<&'a Path> {
        self.local?.partition.as_ref().map(|p| p.device.as_path())
    }
}

impl<'a> View<'a> {
    pub(super) fn term(&self) -> Option<&'a Term> {
        self.attachment.status.as_ref()?.term.as_ref()
    }

    pub(super) fn status(&self) -> MeshAttachmentStatus {
        self.attachment.status.clone().unwrap_or_default()
    }

    pub(super) fn epoch(&self) -> i64 {
        self.term().map_or(0, |t| t.epoch)
    }

    pub(super) fn wanted(&self) -> bool {
        self.attachment.runs_on() == Some(self.me)
    }

    /// Where the filesystem is to be mounted: nowhere while the array runs for a copy alone.
    pub(super) fn mount_path(&self) -> Option<&'a String> {
        let spec = &self.attachment.spec;
        spec.mount_path.as_ref().filter(|_| spec.node.as_deref() == Some(self.me))
    }

    /// The epoch is this node's, claimed by this process.
    pub(super) fn own(&self) -> bool {
        let mine = |t: &Term| t.writer.as_ref().is_some_and(|w| w.incarnation == self.incarnation);
        self.term().is_some_and(|t| t.node == self.me && t.phase == TermPhase::Running && mine(t))
    }

    pub(super) fn ended(&self) -> bool {
        let ended = self.attachment.status.as_ref().and_then(|s| s.ended.as_ref());
        ended.is_some_and(|e| e.epoch == self.epoch())
    }

    pub(super) fn in_set(&self, leg: &str) -> bool {
        self.term().is_some_and(|t| t.in_sync.iter().any(|l| l == leg))
    }

    /// The record says that the leg may return by the bitmap.
    pub(super) fn named(&self, leg: &str) -> bool {
        self.term().is_some_and(|t| t.bitmap_usable.iter().any(|l| l == leg))
    }

    /// Bits of this volume's bitmap stay set on this kernel until every leg has what they stand for. That is shown for the
    /// classic bitmap alone; RAID10 of some kernels forgets bits of a leg that is away while another one is rebuilt.
    pub(super) fn keeps_bits(&self) -> bool {
        let initialised = self.term().is_some_and(|t| t.initialised);
        let right = |p: &Params| p.bitmap == Bitmap::Internal && (p.bitmap_raid10 || !self.striped());
        initialised && self.params.is_some_and(right)
    }

    pub(super) fn retired(&self, leg: &str) -> bool {
        self.term().is_some_and(|t| t.retired.iter().any(|l| l == leg))
    }

    /// The leg of S whose place `leg` takes.
    pub(super) fn gives_way(&self, leg: &Leg<'_>) -> Option<&'a Leg<'a>> {
        let old = leg.replica.spec.replaces.as_deref().filter(|old| self.in_set(old))?;
        self.legs.iter().find(|l| l.name() == old)
    }

    /// The leg is outside S for good: it is retired, or another of S has its place.
    pub(super) fn left(&self, leg: &Leg<'_>) -> bool {
        let heir = |l: &&Leg<'_>| l.replica.spec.replaces.as_deref() == Some(leg.name());
        !self.in_set(leg.name()) && (self.retired(leg.name()) || self.start_set().any(|l| heir(&l)))
    }

    /// The legs of S that exist as objects.
    pub(super) fn start_set(&self) -> impl Iterator<Item = &'a Leg<'a>> {
        self.legs.iter().filter(|l| self.in_set(l.name()))
    }

    /// Slots and mirror sets of the array, and the bytes of it on each leg.
    ///
    /// Legs that hold the same blocks are never taken into one array from one node: one failure would take them all. That
    /// is checked of S, and where the array is still to be made, of all legs.
    ///
    /// # Errors
    /// [`Unsound`] names the legs.
    pub(super) fn shape(&self) -> Result<(Geometry, u64), Unsound> {
        let replicas = || self.legs.iter().map(|l| l.replica);
        geometry::spans_nodes(self.start_set().map(|l| l.replica))?;
        let shape = match Geometry::of_legs(replicas()) {
            Err(_) if self.term().is_some_and(|t| t.initialised) => Geometry::about(replicas()),
            other => other?,
        };
        let sizes = replicas().map(|r| u64::try_from(r.spec.size_bytes).unwrap_or(0));
        Ok((shape, sizes.min().unwrap_or(0).saturating_sub(HEADROOM)))
    }

    /// A member that the kernel has in a slot of another mirror set than its leg's: the array is not what its superblocks
    /// and objects say, and must not be used.
    pub(super) fn misplaced(&self) -> Option<String> {
        let array = self.array?;
        if !self.striped() {
            return None;
        }
        self.legs.iter().find_map(|leg| {
            let slot = self.member(leg)?.slot?;
            let found = array.set_slots.map(|n| slot / n);
            let right = found.is_some_and(|set| i32::try_from(set) == Ok(leg.set()));
            (!right).then(|| format!("leg {} of mirror set {} is in slot {slot} of the array", leg.name(), leg.set()))
        })
    }

    /// Whether remote legs are to get no reads. A RAID10 knows no such members: there it would be a word that nobody keeps.
    pub(super) fn avoids_remote(&self) -> Option<bool> {
        Some(self.params?.write_mostly && !self.striped())
    }

    /// There are several mirror sets: the array is a RAID10.
    pub(super) fn striped(&self) -> bool {
        self.legs.iter().any(|l| l.set() > 0)
    }

    /// The smallest number of legs of `names` in any mirror set.
    pub(super) fn copies(&self, names: &[String]) -> usize {
        geometry::copies(self.legs.iter().map(|l| l.replica), |r| {
            r.metadata.name.as_ref().is_some_and(|n| names.contains(n))
        })
    }

    /// Every connection to the leg, of whatever grant.
    pub(super) fn connections_of(&self, leg: &Leg<'_>) -> impl Iterator<Item = &'a ConnectionFacts> {
        let uid = leg.uid().to_owned();
        self.connections.iter().filter(move |c| Nqn::parse(&c.nqn).is_some_and(|n| n.leg_uid == uid))
    }

    /// Deletes the first of these connections that is not being deleted already.
    pub(super) fn release<'c>(&self, mut all: impl Iterator<Item = &'c ConnectionFacts>) -> Option<super::Step> {
        let first = all.find(|c| !self.memory.leaving.contains(&c.nqn))?;
        Some(super::Step::Disconnect { nqn: first.nqn.clone() })
    }

    /// Connections to legs of this volume.
    pub(super) fn all_connections(&self) -> impl Iterator<Item = &'a ConnectionFacts> {
        self.legs.iter().flat_map(|l| self.connections_of(l))
    }

    /// The connection under the leg's current export.
    pub(super) fn current(&self, leg: &Leg<'_>) -> Option<&'a ConnectionFacts> {
        let nqn = &leg.export(self.epoch())?.nqn;
        self.connections.iter().find(|c| c.nqn == *nqn)
    }

    /// The device through which the leg can be used now.
    pub(super) fn device(&self, leg: &Leg<'_>) -> Option<PathBuf> {
        if leg.local.is_some() {
            return leg.ready_partition(self.epoch());
        }
        self.current(leg).filter(|c| c.state == ControllerState::Live)?.device.clone()
    }

    /// A mirror set has no leg of S that this epoch can reach ever again: each was served by a target that has restarted, and a leg of S gets
    /// no second grant. What is held stays held until the epoch is over.
    pub(super) fn stranded(&self) -> bool {
        let sets: BTreeSet<i32> = self.start_set().map(Leg::set).collect();
        let lost = |set: &i32| self.start_set().filter(|l| l.set() == *set).all(|l| l.spent(self.epoch()));
        sets.iter().any(lost)
    }

    /// The array was not assembled by a daemon of this boot, as far as its local legs tell.
    pub(super) fn stranger(&self) -> bool {
        let held = |f: &LegFacts| f.held_by_stranger && f.held_by.as_ref() == self.array.map(|a| &a.device);
        self.legs.iter().filter_map(|l| l.local).any(held)
    }

    /// Whether writes to the leg hang.
    pub(super) fn holds(&self, leg: &Leg<'_>) -> bool {
        self.connections_of(leg).any(|c| self.held.contains(&c.nqn))
    }

    /// The leg of a member: by the device that bears its name now, else by the name as it was remembered.
    pub(super) fn owner(&self, member: &MemberFacts) -> Option<&'a Leg<'a>> {
        self.owner_of(&member.name)
    }

    /// The same by the member's kernel name.
    pub(super) fn owner_of(&self, member: &str) -> Option<&'a Leg<'a>> {
        let bears = |leg: &&Leg<'_>| {
            leg.partition().is_some_and(|d| named(d, member))
                || self.connections_of(leg).filter_map(|c| c.device.as_deref()).any(|d| named(d, member))
        };
        let remembered = || self.memory.names.get(member);
        self.legs
            .iter()
            .find(bears)
            .or_else(|| self.legs.iter().find(|l| Some(l.name()) == remembered().map(String::as_str)))
    }

    /// The leg's member; one that works before one that failed.
    pub(super) fn member(&self, leg: &Leg<'_>) -> Option<&'a MemberFacts> {
        let mine = |m: &&MemberFacts| self.owner(m).is_some_and(|l| l.name() == leg.name());
        let members = &self.array?.members;
        members.iter().filter(mine).min_by_key(|m| m.faulty)
    }

    /// The leg's drive fails: it is used as long as it is in sync, and not taken back.
    pub(super) fn failing(&self, leg: &Leg<'_>) -> bool {
        let trusted = leg.replica.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(TRUST_DRIVE));
        let said = leg.replica.status.as_ref().is_some_and(|s| conditions::is_true(&s.conditions, conditions::FAILING));
        !trusted && (said || self.memory.failing.contains_key(leg.name()))
    }

    /// The leg is a member, in a slot, that MD counts as in sync. (One that is about to return is called so before it has its slot.)
    pub(super) fn works(&self, leg: &Leg<'_>) -> bool {
        self.member(leg).is_some_and(|m| m.in_sync && !m.faulty && m.slot.is_some())
    }

    /// Every leg of S works.
    pub(super) fn set_works(&self) -> bool {
        let works = |name: &String| self.legs.iter().any(|l| l.name() == name && self.works(l));
        self.term().is_some_and(|t| t.in_sync.iter().all(works))
    }

    /// It works, and by the path that the leg has now. MD goes on to count a member as in sync whose device was deleted, until a write to it
    /// fails, and then acknowledges that write without it: what MD says of such a member is no proof that it holds anything.
    pub(super) fn reached(&self, leg: &Leg<'_>) -> bool {
        let leaves = self.current(leg).is_some_and(|c| self.memory.leaving.contains(&c.nqn));
        let device = self.device(leg).filter(|_| !leaves);
        let bears = |m: &MemberFacts| device.as_ref().is_some_and(|d| named(d, &m.name));
        self.works(leg) && self.member(leg).is_some_and(bears)
    }

    /// A member that MD has not failed although nothing of this node bears its name any more.
    pub(super) fn severed(&self, leg: &Leg<'_>) -> Option<&'a MemberFacts> {
        let mut paths = self.connections_of(leg).filter_map(|c| c.device.as_deref());
        let member = self.member(leg).filter(|m| !m.faulty && leg.local.is_none())?;
        (!paths.any(|d| named(d, &member.name))).then_some(member)
    }

    /// The epoch for which the array was assembled, as its members' paths say; none where they do not all agree.
    pub(super) fn array_epoch(&self) -> Option<i64> {
        let mut epochs: Vec<i64> = self.array?.members.iter().flat_map(|m| self.member_epoch(m)).collect();
        epochs.sort_unstable();
        epochs.dedup();
        if let [epoch] = epochs.as_slice() { Some(*epoch) } else { None }
    }

    fn member_epoch(&self, member: &MemberFacts) -> Option<i64> {
        let leg = self.owner(member)?;
        if leg.partition().is_some_and(|d| named(d, &member.name)) {
            return leg.local?.ledger.as_ref().map(|l| l.local_epoch);
        }
        let connection =
            self.connections_of(leg).find(|c| c.device.as_deref().is_some_and(|d| named(d, &member.name)))?;
        Nqn::parse(&connection.nqn).map(|n| n.epoch)
    }

    /// The names of members that can be told now, to be remembered for when their devices are gone.
    pub fn names(&self) -> BTreeMap<String, String> {
        let members = self.array.map_or(&[][..], |a| &a.members);
        members.iter().filter_map(|m| Some((m.name.clone(), self.owner(m)?.name().to_owned()))).collect()
    }

    /// What each leg that is in sync has to do.
    pub fn legs_io(&self) -> BTreeMap<String, Io> {
        let of = |leg: &Leg<'_>| {
            let member = self.member(leg).filter(|m| m.in_sync && !m.faulty)?;
            Some((leg.name().to_owned(), *self.traffic.members.get(&member.name)?))
        };
        self.legs.iter().filter_map(of).collect()
    }

    /// Exports that no connection of this node uses: with an adopted array nobody knows whether one did before.
    pub fn unconnected(&self) -> BTreeSet<String> {
        let exports = self.legs.iter().filter_map(|l| l.export(self.epoch()));
        exports.map(|e| e.nqn.clone()).filter(|n| !self.connections.iter().any(|c| c.nqn == *n)).collect()
    }

    /// The leg's visible export was connected before and was disconnected: it needs a new grant (rule 9).
    pub(super) fn burnt(&self, leg: &Leg<'_>) -> bool {
        let burnt = |e: &meshstor_crds::Export| self.memory.burnt.contains(&e.nqn);
        leg.export(self.epoch()).is_some_and(burnt) && self.current(leg).is_none()
    }
}
