//! Arrays: which members they start from, what failing and rebuilding does, and what an application sees.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use meshstor_crds::{Bitmap, Geometry};
use uuid::Uuid;

use super::super::{
    ArrayFacts, ArrayMember, ArraySpec, Content, FailureGate, MemberFacts, MemberFailure, Result, SuperFacts, SuperLeg,
    SyncFacts, Traffic,
};
use super::world::{Array, Bytes, Member, World};
use super::{Write, busy, conflict, failed};

/// Percent at which a rebuild waits.
const HELD_AT: u64 = 90;

fn facts(array: &Array) -> ArrayFacts {
    let working = array.members.iter().filter(|m| m.in_sync && !m.faulty && !m.gone).count();
    let mut rebuilding = array.members.iter().filter(|m| !m.in_sync && !m.faulty).peekable();
    let done = if rebuilding.peek().is_some_and(|m| m.copied) { HELD_AT } else { 0 };
    let sync = SyncFacts { action: "recover".to_owned(), done, total: 100, speed_kib: 1 };
    let member = |m: &Member| MemberFacts {
        name: m.name.clone(),
        slot: (!m.faulty).then_some(m.slot),
        in_sync: m.in_sync && !m.faulty && !m.gone,
        faulty: m.faulty || m.gone,
        write_mostly: m.write_mostly,
        replacement: m.replacement,
        latency_ewma_ns: None,
    };
    ArrayFacts {
        uuid: array.spec.uuid,
        device: array.device.clone(),
        running: true,
        slots: array.spec.geometry.slots(),
        set_slots: Some(array.spec.geometry.set_slots()),
        frozen: false,
        bitmap: Some(array.spec.bitmap),
        latency_balance: None,
        degraded: array.spec.geometry.slots().saturating_sub(u32::try_from(working).unwrap_or(0)),
        members: array.members.iter().map(member).collect(),
        sync: rebuilding.peek().is_some().then_some(sync),
        sync_max: array.held.then_some(HELD_AT),
        suspended: array.suspended,
        failure_gate: array.gate.clone(),
        mounts: array.mounts.clone(),
    }
}

/// A member that was in sync has failed.
fn note_failure(gate: &mut Option<FailureGate>, number: u32, name: &str) {
    let failure = MemberFailure { number, member: name.to_owned() };
    match gate {
        Some(FailureGate::Holding(failures)) => failures.push(failure),
        Some(gate @ FailureGate::On) => *gate = FailureGate::Holding(vec![failure]),
        _ => {}
    }
}

impl World {
    pub(super) fn arrays(&self, node: &str) -> Result<Vec<ArrayFacts>> {
        Ok(self.node(node)?.arrays.iter().map(facts).collect())
    }

    pub(super) fn examine(&mut self, node: &str, device: &Path) -> Result<Option<SuperFacts>> {
        let (target, leg, _) = self.resolve(node, device)?;
        let found = self.leg_bytes(&target, leg).and_then(|b| b.superblock);
        Ok(found.map(|(uuid, events)| SuperFacts { uuid, events }))
    }

    /// What an array's first good member holds, or a bare leg.
    pub(super) fn content(&mut self, node: &str, device: &Path) -> Result<Content> {
        let (target, leg) = match self.node(node)?.arrays.iter().find(|a| a.device == device) {
            Some(array) => match array.members.iter().find(|m| m.in_sync && !m.faulty) {
                Some(m) if self.reaches(node, m) => (m.node.clone(), m.leg),
                _ => return failed("read the array", "its path hangs"),
            },
            None => self.resolve(node, device).map(|(target, leg, _)| (target, leg))?,
        };
        let bytes = self.leg_bytes(&target, leg).map(|b| b.content.clone());
        bytes.map_or_else(|| failed("read a device", "it is gone"), Ok)
    }

    fn join(&mut self, node: &str, member: &ArrayMember, in_sync: bool) -> Result<Member> {
        let (target, leg, nqn) = self.resolve(node, &member.device)?;
        let name = member.device.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let (slot, write_mostly) = (member.slot, member.write_mostly);
        Ok(Member {
            name,
            node: target,
            leg,
            nqn,
            slot,
            in_sync,
            faulty: false,
            gone: false,
            write_mostly,
            by_bitmap: false,
            replacement: false,
            copied: false,
        })
    }

    fn is_there(&self, node: &str, spec: &ArraySpec) -> Result<bool> {
        Ok(self.node(node)?.arrays.iter().any(|a| a.spec.uuid == spec.uuid))
    }

    pub(super) fn create_array(&mut self, node: &str, spec: &ArraySpec) -> Result<()> {
        if self.is_there(node, spec)? {
            return Ok(());
        }
        let members = spec.members.iter().map(|m| self.join(node, m, true)).collect::<Result<Vec<_>>>()?;
        for member in &members {
            if let Some(bytes) = self.leg_bytes(&member.node, member.leg) {
                (bytes.superblock, bytes.slot, bytes.dirty) = (Some((spec.uuid, 1)), member.slot, false);
            }
        }
        self.start(node, spec, members)
    }

    /// Members that missed an event are left out.
    pub(super) fn assemble(&mut self, node: &str, spec: &ArraySpec) -> Result<()> {
        if self.is_there(node, spec)? {
            return Ok(());
        }
        let all = spec.members.iter().map(|m| self.join(node, m, true)).collect::<Result<Vec<_>>>()?;
        let mut found = Vec::new();
        for member in all {
            match self.leg_bytes(&member.node, member.leg).and_then(|b| b.superblock) {
                Some((uuid, events)) if uuid == spec.uuid => found.push((events, member)),
                _ => return conflict("assemble an array", format!("{} is not of it", member.name)),
            }
        }
        let newest = found.iter().map(|(e, _)| *e).max().unwrap_or(0);
        let members: Vec<Member> = found.into_iter().filter(|(e, _)| *e == newest).map(|(_, m)| m).collect();
        self.resync(&members);
        self.start(node, spec, members)
    }

    fn start(&mut self, name: &str, spec: &ArraySpec, members: Vec<Member>) -> Result<()> {
        self.started(name, spec.uuid, &members);
        let gate = self.quirks.failure_gate.then_some(FailureGate::Off);
        let node = self.node_mut(name)?;
        node.next_number += 1;
        let device = PathBuf::from(format!("/dev/md{}", 100 + node.next_number));
        node.arrays.push(Array {
            spec: spec.clone(),
            device,
            members,
            mounts: Vec::new(),
            stranger: false,
            open: false,
            limit: None,
            held: false,
            suspended: false,
            gate,
        });
        self.bump(name, spec.uuid);
        Ok(())
    }

    /// A rule of udev takes a leg for a member of an array that nobody started, and somebody opens that.
    pub(super) fn steal(&mut self, home: &str, leg: Uuid) {
        let Some(node) = self.nodes.get_mut(home) else { return };
        let Some(found) = node.legs.get(&leg) else { return };
        let Some((uuid, _)) = found.bytes.superblock else { return };
        let name = found.device.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let (geometry, bitmap) = (Geometry::new(2, 1), Bitmap::Internal);
        let spec = ArraySpec { uuid, name: "by hand".to_owned(), geometry, members: vec![], size: found.size, bitmap };
        let (home, nqn) = (home.to_owned(), None);
        let (faulty, gone, write_mostly, replacement, copied, by_bitmap) = (false, false, false, false, false, false);
        let member = Member {
            name,
            node: home,
            leg,
            nqn,
            slot: 0,
            in_sync: true,
            faulty,
            gone,
            write_mostly,
            replacement,
            copied,
            by_bitmap,
        };
        let (device, mounts) = (PathBuf::from("/dev/md127"), Vec::new());
        node.arrays.push(Array {
            spec,
            device,
            members: vec![member],
            mounts,
            stranger: true,
            open: true,
            limit: None,
            held: false,
            suspended: false,
            gate: None,
        });
    }

    /// Mounts are detached and whoever used them dies; what uses the array from within the kernel stays.
    pub(super) fn evict(&mut self, node: &str, device: &Path) -> Result<Vec<String>> {
        let Some(array) = self.node_mut(node)?.arrays.iter_mut().find(|a| a.device == device) else {
            return Ok(vec![]);
        };
        if array.open {
            return Ok(vec!["block device dm-0".to_owned()]);
        }
        array.mounts.clear();
        let uuid = array.spec.uuid;
        self.blind(node, uuid);
        Ok(vec![])
    }

    /// Something of the kernel uses the array.
    pub(super) fn open(&mut self, name: &str, array: Uuid) {
        let arrays = self.nodes.get_mut(name).map(|n| n.arrays.iter_mut());
        arrays.into_iter().flatten().filter(|a| a.spec.uuid == array).for_each(|a| a.open = true);
    }

    /// Whoever had arrays of the node open has closed them.
    pub(super) fn close(&mut self, name: &str) {
        let arrays = self.nodes.get_mut(name).map(|n| n.arrays.iter_mut());
        arrays.into_iter().flatten().for_each(|a| a.open = false);
    }

    /// A new event in the superblocks of all members that work.
    fn bump(&mut self, node: &str, array: Uuid) {
        for member in self.good(node, array) {
            if let Some(bytes) = self.leg_bytes(&member.node, member.leg) {
                bytes.superblock = bytes.superblock.map(|(uuid, events)| (uuid, events + 1));
            }
        }
        self.tell(node, array);
    }

    /// The superblocks of all members that work say what the array is.
    fn tell(&mut self, node: &str, array: Uuid) {
        let found = self.nodes.get(node).and_then(|n| n.arrays.iter().find(|a| a.spec.uuid == array));
        let Some(spec) = found.map(|a| a.spec.clone()) else { return };
        let (good, clean) = (self.good(node, array), !self.writing(node, array));
        // The slot is the superblock's: an assembly is not told it.
        let slots: Vec<_> = good.iter().filter_map(|m| self.leg_bytes(&m.node, m.leg).map(|b| b.slot)).collect();
        let active: BTreeSet<u32> = slots.into_iter().collect();
        let near = spec.geometry.set_slots();
        let striped = spec.geometry.width() > 1;
        for member in good {
            if let Some(bytes) = self.leg_bytes(&member.node, member.leg) {
                bytes.told = Some(SuperLeg {
                    uuid: spec.uuid,
                    name: format!("meshstor:{}", spec.name),
                    level: if striped { 10 } else { 1 },
                    slots: spec.geometry.slots(),
                    near_copies: striped.then_some(near),
                    slot: Some(bytes.slot),
                    active_slots: active.iter().copied().collect(),
                    // A device of its own number for each slot: nobody takes one over here.
                    number: bytes.slot,
                    roles: (0..spec.geometry.slots()).map(|slot| active.contains(&slot).then_some(slot)).collect(),
                    rebuilding: !member.in_sync,
                    events: 0,
                    component: spec.size,
                    clean,
                    bitmap: Some(spec.bitmap),
                });
            }
        }
    }

    fn good(&self, node: &str, array: Uuid) -> Vec<Member> {
        let found = self.nodes.get(node).and_then(|n| n.arrays.iter().find(|a| a.spec.uuid == array));
        found.map(|a| a.members.iter().filter(|m| !m.faulty).cloned().collect()).unwrap_or_default()
    }

    pub(super) fn stop_array(&mut self, node: &str, device: &Path) -> Result<()> {
        let Some(array) = self.node(node)?.arrays.iter().find(|a| a.device == device) else { return Ok(()) };
        let uuid = array.spec.uuid;
        if let Some(why) = self.keeps(node, array) {
            if self.quirks.half_refusals {
                self.bump(node, uuid);
            }
            return busy("stop an array", why);
        }
        self.node_mut(node)?.arrays.retain(|a| a.device != device);
        Ok(())
    }

    /// What keeps an array from being stopped.
    fn keeps(&self, node: &str, array: &Array) -> Option<&'static str> {
        if !array.mounts.is_empty() {
            return Some("it is mounted");
        }
        if array.open || self.writing(node, array.spec.uuid) {
            return Some("somebody has it open");
        }
        let held = array.members.iter().any(|m| !m.faulty && !self.reaches(node, m) && !self.severed(node, m));
        held.then_some("its writes are held")
    }

    /// MD drops a member; the last one that works is kept.
    pub(super) fn fail(&mut self, node: &str, array: Uuid, name: &str) {
        let Some(n) = self.nodes.get_mut(node) else { return };
        let Some(found) = n.arrays.iter_mut().find(|a| a.spec.uuid == array) else { return };
        let of = |slot: u32| slot / found.spec.geometry.set_slots();
        let set = found.members.iter().find(|m| m.name == name).map(|m| of(m.slot));
        let others = found.members.iter().any(|m| m.name != name && Some(of(m.slot)) == set && m.in_sync && !m.faulty);
        let mut counted = false;
        for member in found.members.iter_mut().filter(|m| m.name == name && (others || !m.in_sync)) {
            counted |= member.in_sync;
            member.faulty = true;
            member.in_sync = false;
        }
        if counted {
            self.failures += 1;
            note_failure(&mut found.gate, self.failures, name);
        }
        self.bump(node, array);
    }

    pub(super) fn hold_failures(&mut self, node: &str, array: &Path) -> Result<()> {
        self.with_array(node, array, |a| {
            if a.gate == Some(FailureGate::Off) {
                a.gate = Some(FailureGate::On);
            }
        })
    }

    pub(super) fn agree(&mut self, node: &str, array: &Path, number: u32) -> Result<()> {
        self.with_array(node, array, |a| {
            let last = |failures: &Vec<MemberFailure>| failures.iter().all(|f| f.number <= number);
            if matches!(&a.gate, Some(FailureGate::Holding(failures)) if last(failures)) {
                a.gate = Some(FailureGate::On);
            }
        })?;
        self.complete();
        Ok(())
    }

    pub(super) fn refuse(&mut self, node: &str, array: &Path) -> Result<()> {
        self.with_array(node, array, |a| a.gate = Some(FailureGate::Refused))?;
        self.complete();
        Ok(())
    }

    pub(super) fn remove_member(&mut self, node: &str, array: &Path, name: &str) -> Result<()> {
        let node = self.node_mut(node)?;
        let Some(found) = node.arrays.iter_mut().find(|a| a.device == array) else { return Ok(()) };
        if found.members.iter().any(|m| m.name == name && !m.faulty) {
            return busy("remove a member", "it has not failed");
        }
        if matches!(&found.gate, Some(FailureGate::Holding(failures)) if failures.iter().any(|f| f.member == name)) {
            return busy("remove a member", "nobody has agreed to go on without it");
        }
        let slot = found.members.iter().find(|m| m.name == name).map(|m| m.slot);
        found.members.retain(|m| m.name != name);
        // What was filled beside it has the slot now.
        found.members.iter_mut().filter(|m| Some(m.slot) == slot).for_each(|m| m.replacement = false);
        Ok(())
    }

    pub(super) fn with_array(&mut self, node: &str, array: &Path, change: impl FnOnce(&mut Array)) -> Result<()> {
        let found = self.node_mut(node)?.arrays.iter_mut().find(|a| a.device == array);
        let Some(found) = found else { return failed("change an array", "no such array") };
        change(found);
        Ok(())
    }

    /// The store waits until what is in flight is done.
    pub(super) fn suspend(&mut self, node: &str, array: &Path) -> Result<()> {
        let found = self.node(node)?.arrays.iter().find(|a| a.device == array);
        if found.is_some_and(|a| a.members.iter().any(|m| !m.faulty && !self.reaches(node, m))) {
            return busy("suspend an array", "its writes are held");
        }
        self.with_array(node, array, |a| a.suspended = true)
    }

    pub(super) fn replace_member(&mut self, node: &str, array: &Path, old: &str, member: &ArrayMember) -> Result<()> {
        let new = self.join(node, member, false)?;
        let blank = self.leg_bytes(&new.node, new.leg).is_some_and(|b| b.superblock.is_none());
        let found = self.node(node)?.arrays.iter().find(|a| a.device == array);
        let Some(found) = found else { return failed("replace a member", "no such array") };
        if found.members.iter().any(|m| m.leg == new.leg && !m.faulty) {
            return Ok(());
        }
        let Some(slot) = found.members.iter().find(|m| m.name == old && m.in_sync && !m.faulty).map(|m| m.slot) else {
            return busy("replace a member", "it does not work");
        };
        if !blank {
            return conflict("replace a member", "the new one has a superblock");
        }
        let uuid = found.spec.uuid;
        if let Some(bytes) = self.leg_bytes(&new.node, new.leg) {
            bytes.superblock = Some((uuid, 0));
        }
        self.with_array(node, array, |a| {
            a.held = true;
            a.members.push(Member { slot, replacement: true, ..new });
        })?;
        self.tell(node, uuid);
        Ok(())
    }

    pub(super) fn expel_member(&mut self, node: &str, array: &Path, name: &str) -> Result<()> {
        let Some(uuid) = self.node(node)?.arrays.iter().find(|a| a.device == array).map(|a| a.spec.uuid) else {
            return Ok(());
        };
        self.fail(node, uuid, name);
        Ok(())
    }

    pub(super) fn zero_superblock(&mut self, node: &str, device: &Path) -> Result<()> {
        let (target, leg, _) = self.resolve(node, device)?;
        if self.nodes.values().flat_map(|n| &n.arrays).flat_map(|a| &a.members).any(|m| m.leg == leg && !m.faulty) {
            return busy("erase a superblock", "an array holds the leg");
        }
        if let Some(bytes) = self.leg_bytes(&target, leg) {
            bytes.superblock = None;
        }
        Ok(())
    }

    pub(super) fn add_member(&mut self, node: &str, array: &Path, member: &ArrayMember) -> Result<()> {
        let new = self.join(node, member, false)?;
        let Some(bytes) = self.leg_bytes(&new.node, new.leg) else { return failed("add a member", "it is gone") };
        let blank = bytes.superblock.is_none();
        let found = self.node_mut(node)?.arrays.iter_mut().find(|a| a.device == array);
        let Some(found) = found else { return failed("add a member", "no such array") };
        if found.members.iter().any(|m| m.leg == new.leg && !m.faulty) {
            return Ok(());
        }
        if !blank {
            return conflict("add a member", "it has a superblock");
        }
        let taken = found.members.iter().any(|m| m.slot == new.slot && !m.faulty);
        if found.spec.geometry.width() > 1 && taken {
            return busy("add a member", "its slot is taken");
        }
        let uuid = found.spec.uuid;
        let (target, leg, slot) = (new.node.clone(), new.leg, new.slot);
        found.members.push(new);
        if let Some(bytes) = self.leg_bytes(&target, leg) {
            (bytes.superblock, bytes.slot, bytes.dirty) = (Some((uuid, 0)), slot, true);
        }
        self.tell(node, uuid);
        Ok(())
    }

    pub(super) fn traffic(&self, node: &str, array: &Path) -> Result<Traffic> {
        let found = self.node(node)?.arrays.iter().find(|a| a.device == array);
        Ok(Traffic { rebuild_limit: found.and_then(|a| a.limit), ..Traffic::default() })
    }

    pub(super) fn limit_rebuild(&mut self, node: &str, array: &Path, kib: Option<u64>) -> Result<()> {
        let arrays = &mut self.node_mut(node)?.arrays;
        arrays.iter_mut().filter(|a| a.device == array).for_each(|a| a.limit = kib);
        Ok(())
    }

    /// The leg's own mark is set on every member, and then the array's on the leg.
    pub(super) fn readd_member(&mut self, node: &str, array: &Path, member: &ArrayMember) -> Result<()> {
        let action = "take a leg back";
        let new = Member { by_bitmap: true, ..self.join(node, member, false)? };
        let Some(own) = self.leg_bytes(&new.node, new.leg).cloned() else { return failed(action, "it is gone") };
        let Some(found) = self.node(node)?.arrays.iter().find(|a| a.device == array).cloned() else {
            return failed(action, "no such array");
        };
        if found.members.iter().any(|m| m.leg == new.leg && !m.faulty) {
            return Ok(());
        }
        if own.superblock.is_none_or(|(uuid, _)| uuid != found.spec.uuid) || own.slot != new.slot {
            return conflict(action, "its superblock is not the array's, or of another slot");
        }
        if found.spec.bitmap != Bitmap::Internal {
            return conflict(action, "it has no classic bitmap");
        }
        if found.members.iter().any(|m| m.slot == new.slot && !m.faulty) {
            return failed(action, "its slot is taken");
        }
        let good: Vec<Member> = found.members.iter().filter(|m| m.in_sync && !m.faulty).cloned().collect();
        let marked = |m: &Member| self.nodes.get(&m.node)?.legs.get(&m.leg).map(|l| l.bytes.dirty);
        let dirty = own.dirty || good.iter().any(|m| marked(m) == Some(true));
        for of in good.iter().chain([&new]) {
            if let Some(bytes) = self.leg_bytes(&of.node, of.leg) {
                bytes.dirty = dirty;
            }
        }
        let arrays = &mut self.node_mut(node)?.arrays;
        arrays.iter_mut().filter(|a| a.device == array).for_each(|a| a.members.push(new.clone()));
        Ok(())
    }

    /// An array that is whole, and has written everything, clears its bitmap.
    fn clear_marks(&mut self, node: &str, array: Uuid) {
        let found = self.nodes.get(node).and_then(|n| n.arrays.iter().find(|a| a.spec.uuid == array));
        let Some(found) = found.cloned() else { return };
        let good: Vec<&Member> = found.members.iter().filter(|m| m.in_sync && !m.faulty).collect();
        if u32::try_from(good.len()).unwrap_or(0) < found.spec.geometry.slots() || self.writing(node, array) {
            return;
        }
        for member in good.into_iter().filter(|m| self.reaches(node, m)).cloned().collect::<Vec<_>>() {
            if let Some(bytes) = self.leg_bytes(&member.node, member.leg) {
                // A mark goes from a drive after what it stands for was flushed there.
                (bytes.dirty, bytes.blocks.durable) = (false, bytes.blocks.seen);
            }
        }
    }

    pub(super) fn complete_rebuilds(&mut self, node: &str) {
        self.notice(node, None);
        let Some(arrays) = self.nodes.get(node).map(|n| n.arrays.clone()) else { return };
        for array in arrays {
            let of = |slot: u32| slot / array.spec.geometry.set_slots();
            for member in array.members.iter().filter(|m| !m.in_sync && !m.faulty) {
                if self.writing(node, array.spec.uuid) && !self.quirks.trusting_add {
                    continue;
                }
                // Nothing is read from a member whose path does not answer.
                let good =
                    |m: &&Member| of(m.slot) == of(member.slot) && m.in_sync && !m.faulty && self.reaches(node, m);
                let source = array.members.iter().find(good);
                let bytes = source.and_then(|m| self.leg_bytes(&m.node, m.leg)).map(|b| b.clone());
                let Some(bytes) = bytes else { continue };
                if self.reaches(node, member) {
                    self.rebuilt(node, &array, member, &bytes);
                }
            }
        }
    }

    /// Copied to up to the hold, or to the end: then the member whose place it takes is failed.
    fn rebuilt(&mut self, node: &str, array: &Array, member: &Member, bytes: &Bytes) {
        let (uuid, held, trusting) = (array.spec.uuid, array.held, self.quirks.trusting_add);
        if let Some(old) = self.leg_bytes(&member.node, member.leg).filter(|_| !trusting) {
            if !member.by_bitmap || bytes.dirty {
                old.clone_from(bytes);
                // MD flushes a member before its superblock says that it is whole.
                old.blocks.durable = old.blocks.seen;
            }
            (old.superblock, old.slot, old.dirty) = (bytes.superblock, member.slot, bytes.dirty);
        }
        let arrays = self.nodes.get_mut(node).map(|n| n.arrays.iter_mut());
        for found in arrays.into_iter().flatten().filter(|a| a.spec.uuid == uuid) {
            for other in &mut found.members {
                let new = other.name == member.name;
                if new && held {
                    other.copied = true;
                } else if new {
                    (other.in_sync, other.copied) = (true, false);
                } else if !held && member.replacement && other.slot == member.slot {
                    if other.in_sync {
                        self.failures += 1;
                        note_failure(&mut found.gate, self.failures, &other.name);
                    }
                    (other.in_sync, other.faulty) = (false, true);
                }
            }
        }
        if !held {
            self.clear_marks(node, uuid);
            self.bump(node, uuid);
        }
    }

    /// Writes a content through the array to all its members.
    pub(super) fn put(&mut self, node: &str, device: &Path, content: Content) -> Result<()> {
        let Some(array) = self.node(node)?.arrays.iter().find(|a| a.device == device).cloned() else {
            return failed("write the array", "no such array");
        };
        if array.members.iter().any(|m| !m.faulty && !self.reaches(node, m)) {
            return failed("write the array", "its path hangs");
        }
        for member in array.members.iter().filter(|m| !m.faulty) {
            if let Some(bytes) = self.leg_bytes(&member.node, member.leg) {
                (bytes.content, bytes.dirty) = (content.clone(), true);
            }
        }
        self.clear_marks(node, array.spec.uuid);
        Ok(())
    }

    pub(super) fn mount(&mut self, node: &str, device: &Path, filesystem: &str, at: &Path) -> Result<()> {
        if self.content(node, device)? != Content::Filesystem(filesystem.to_owned()) {
            return conflict("mount", format!("no {filesystem} is there"));
        }
        let array = self.node_mut(node)?.arrays.iter_mut().find(|a| a.device == device);
        match array {
            Some(array) if !array.mounts.iter().any(|m| m == at) => array.mounts.push(at.to_owned()),
            Some(_) => {}
            None => return failed("mount", "no such array"),
        }
        Ok(())
    }

    pub(super) fn app_write(&mut self, node: &str, array: Uuid) -> Write {
        let members = self.good(node, array);
        if members.is_empty() {
            return Write::Refused;
        }
        let arrays = self.nodes.get(node).map(|n| n.arrays.as_slice()).unwrap_or_default();
        let found = arrays.iter().find(|a| a.spec.uuid == array);
        if found.is_some_and(|a| a.gate == Some(FailureGate::Refused)) {
            return Write::Refused;
        }
        if found.is_some_and(|a| a.suspended) {
            return Write::Held;
        }
        // A stamp of its own for every write, acknowledged or not.
        let next = self.issued.get(&array).copied().unwrap_or(0) + 1;
        self.issued.insert(array, next);
        let mut held = false;
        self.notice(node, None);
        let there: Vec<Member> = members.into_iter().filter(|m| !self.severed(node, m)).collect();
        if there.is_empty() {
            return Write::Refused;
        }
        for member in &there {
            if !self.reaches(node, member) {
                held = true;
            } else if let Some(bytes) = self.leg_bytes(&member.node, member.leg) {
                (bytes.stamp, bytes.dirty) = (next, true);
            }
        }
        if held || self.gated(node, array) {
            return Write::Held;
        }
        self.clear_marks(node, array);
        self.acked.insert(array, next);
        Write::Acked
    }

    pub(super) fn app_read(&mut self, node: &str, array: Uuid) -> Option<u64> {
        let members = self.good(node, array);
        let source = members.into_iter().find(|m| m.in_sync && self.reaches(node, m))?;
        self.leg_bytes(&source.node, source.leg).map(|b| b.stamp)
    }
}
