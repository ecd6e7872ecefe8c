//! The data path, a step at a time: writes and flushes of an application on their way to each member, drives that lose
//! what was not flushed when the power goes, and I/O that is inside a target when its path breaks.
//!
//! An array has [`BLOCKS`] blocks. Every write has a value of its own, higher than all before: what a leg holds says
//! how far it got. An application has one write at a time to a block, as a filesystem has.

use uuid::Uuid;

use super::super::FailureGate;
use super::FakeFabric;
use super::world::World;
use crate::ids::Nqn;

/// Blocks of each array.
pub const BLOCKS: usize = 3;

/// What the blocks of a leg hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// As a reader sees it: with the drive's cache.
    pub seen: [u64; BLOCKS],
    /// As it is after a power cut that loses the cache.
    pub durable: [u64; BLOCKS],
}

/// What happened on the data path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IoEvent {
    /// A write or a flush reached a leg.
    Landed {
        /// The array's UUID.
        array: Uuid,
        /// The leg's partition.
        leg: Uuid,
        /// The node that sent it.
        from: String,
        /// The epoch of the path that it took.
        epoch: i64,
    },
    /// An array was started.
    Assembled {
        /// The array's UUID.
        array: Uuid,
        /// The node that runs it.
        node: String,
        /// The epochs of its members' paths.
        epochs: Vec<i64>,
        /// Its members' partitions.
        legs: Vec<Uuid>,
    },
    /// The application was told that its write is done.
    Acked {
        /// The array's UUID.
        array: Uuid,
        /// On which node.
        node: String,
        /// Where.
        block: usize,
        /// What.
        value: u64,
    },
    /// The application was told that its flush is done.
    Flushed {
        /// The array's UUID.
        array: Uuid,
        /// As [`FakeFabric::flush`] answered.
        id: u64,
    },
}

/// Ways in which a kernel or its administrator breaks what the protocol leans on, to see that it is noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quirks {
    /// Connections fail fast: MD drops a member whose path does not answer, before anybody has recorded that.
    pub fast_fail: bool,
    /// A member that is added counts as in sync at once.
    pub trusting_add: bool,
    /// An export is taken down without waiting for what is inside the target.
    pub no_barrier: bool,
    /// Something restores the exports of before when a node boots.
    pub keeps_exports: bool,
    /// Kernels have the failure gate.
    pub failure_gate: bool,
    /// It says that it holds, and does not.
    pub leaky_gate: bool,
    /// A stop that is refused has written a superblock before.
    pub half_refusals: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Write { block: usize, value: u64 },
    Flush,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// At the consumer: held for as long as the path does not answer.
    Queued,
    /// Inside the target.
    Inside,
    /// The member has it.
    Done,
    /// It has it, and is still copied to: that alone is no success (`raid1_end_write_request`).
    Aside,
    /// MD goes on without the member.
    Failed,
}

#[derive(Clone, Debug)]
struct Part {
    leg: Uuid,
    home: String,
    nqn: Option<String>,
    name: String,
    at: At,
}

/// A request of an application.
#[derive(Clone, Debug)]
pub(super) struct Io {
    id: u64,
    pub(super) node: String,
    pub(super) array: Uuid,
    kind: Kind,
    parts: Vec<Part>,
    /// Who asked for it is there to see how it ends.
    seen: bool,
}

/// A request inside a target; it lands there whatever has become of its path, unless the target loses power.
#[derive(Clone, Debug)]
pub(super) struct Inside {
    io: u64,
    from: String,
    pub(super) target: String,
    nqn: String,
    array: Uuid,
    leg: Uuid,
    kind: Kind,
}

enum Move {
    Land(usize, usize),
    Enter(usize, usize),
    Fail(usize, usize),
    Drop(usize, usize),
    Arrive(usize),
}

impl FakeFabric {
    /// An application writes to a block of an array that is mounted: answers with the value.
    pub fn issue(&self, node: &str, array: Uuid, block: usize) -> Option<u64> {
        let mut world = self.world();
        let busy = |io: &Io| {
            io.array == array && io.node == node && matches!(io.kind, Kind::Write { block: b, .. } if b == block)
        };
        if world.ios.iter().any(busy) {
            return None;
        }
        let value = world.next_io + 1;
        world.submit(node, array, Kind::Write { block, value })
    }

    /// An application flushes: everything that was acknowledged to it before is to be durable.
    pub fn flush(&self, node: &str, array: Uuid) -> Option<u64> {
        self.world().submit(node, array, Kind::Flush)
    }

    /// What an application reads, from one of the members that MD reads from.
    pub fn read_block(&self, node: &str, array: Uuid, block: usize, pick: usize) -> Option<u64> {
        let mut world = self.world();
        let members = world.readable(node, array);
        let (home, leg) = members.get(pick % members.len().max(1))?.clone();
        world.leg_bytes(&home, leg).map(|b| b.blocks.seen[block])
    }

    /// One request goes one step on its way; `choose` picks among so many. False when none can.
    pub fn carry(&self, choose: &mut dyn FnMut(usize) -> usize) -> bool {
        self.world().carry(choose)
    }

    /// What happened on the data path since the last call.
    pub fn io_events(&self) -> Vec<IoEvent> {
        std::mem::take(&mut self.world().io_events)
    }

    /// Requests of applications on the node that are not done.
    pub fn pending(&self, node: &str) -> usize {
        self.world().ios.iter().filter(|io| io.node == node).count()
    }

    /// What a leg holds.
    pub fn blocks(&self, node: &str, leg: Uuid) -> Option<Blocks> {
        self.world().leg_bytes(node, leg).map(|b| b.blocks)
    }

    /// The power goes, and with it what drives had in their caches: of each block the drive had written that back in
    /// time if `kept` says so.
    pub fn power_cut(&self, node: &str, kept: &mut dyn FnMut() -> bool) {
        let mut world = self.world();
        world.kill(node);
        let legs = world.nodes.get_mut(node).map(|n| n.legs.values_mut());
        for leg in legs.into_iter().flatten() {
            let blocks = &mut leg.bytes.blocks;
            for block in 0..BLOCKS {
                let left = if kept() { blocks.seen[block] } else { blocks.durable[block] };
                (blocks.seen[block], blocks.durable[block]) = (left, left);
            }
        }
    }

    /// Packets from one node to another are dropped, or pass again.
    pub fn cut_one_way(&self, from: &str, to: &str, cut: bool) {
        let pair = (from.to_owned(), to.to_owned());
        let cuts = &mut self.world().cuts;
        if cut {
            cuts.insert(pair)
        } else {
            cuts.remove(&pair)
        };
    }

    /// Whether MD counts a leg's member as in sync, and reaches it.
    pub fn healthy(&self, node: &str, array: Uuid, leg: Uuid) -> bool {
        self.world().readable(node, array).iter().any(|(_, found)| *found == leg)
    }

    /// The partition of a member's leg.
    pub fn member_leg(&self, node: &str, array: Uuid, name: &str) -> Option<Uuid> {
        let world = self.world();
        let found = world.nodes.get(node)?.arrays.iter().find(|a| a.spec.uuid == array)?;
        found.members.iter().find(|m| m.name == name).map(|m| m.leg)
    }

    /// From now on kernels behave so.
    pub fn set_quirks(&self, quirks: Quirks) {
        self.world().quirks = quirks;
    }
}

impl World {
    fn submit(&mut self, node: &str, array: Uuid, kind: Kind) -> Option<u64> {
        let mounted = |a: &&super::world::Array| a.spec.uuid == array && !a.mounts.is_empty() && !a.stranger;
        let found = self.nodes.get(node)?.arrays.iter().find(mounted)?;
        let part = |m: &super::world::Member| Part {
            leg: m.leg,
            home: m.node.clone(),
            nqn: m.nqn.clone(),
            name: m.name.clone(),
            at: At::Queued,
        };
        let parts = found.members.iter().filter(|m| !m.faulty).map(part).collect();
        self.next_io += 1;
        self.ios.push(Io { id: self.next_io, node: node.to_owned(), array, kind, parts, seen: true });
        Some(self.next_io)
    }

    /// Whether a write to the array is on its way: nothing is copied past it.
    pub(super) fn writing(&self, node: &str, array: Uuid) -> bool {
        self.ios.iter().any(|io| io.node == node && io.array == array)
    }

    fn readable(&self, node: &str, array: Uuid) -> Vec<(String, Uuid)> {
        let found = self.nodes.get(node).and_then(|n| n.arrays.iter().find(|a| a.spec.uuid == array));
        let members = found.iter().flat_map(|a| &a.members);
        let good = members.filter(|m| m.in_sync && !m.faulty && self.reaches(node, m));
        good.map(|m| (m.node.clone(), m.leg)).collect()
    }

    fn moves(&self) -> Vec<Move> {
        let mut moves: Vec<Move> = (0..self.inside.len()).map(Move::Arrive).collect();
        for (i, io) in self.ios.iter().enumerate() {
            let array = self.nodes.get(&io.node).and_then(|n| n.arrays.iter().find(|a| a.spec.uuid == io.array));
            for (p, part) in io.parts.iter().enumerate().filter(|(_, p)| p.at == At::Queued) {
                let member = array.and_then(|a| a.members.iter().find(|m| m.name == part.name && m.nqn == part.nqn));
                let open = |nqn: &String| self.enters(&io.node, &part.home, nqn);
                match (member, &part.nqn) {
                    (None, _) => moves.push(Move::Fail(i, p)),
                    (Some(m), _) if m.faulty || self.severed(&io.node, m) => moves.push(Move::Fail(i, p)),
                    (Some(_), None) => moves.push(Move::Land(i, p)),
                    (Some(_), Some(nqn)) if open(nqn) => moves.push(Move::Enter(i, p)),
                    _ if self.quirks.fast_fail => moves.push(Move::Drop(i, p)),
                    _ => {}
                }
            }
        }
        moves
    }

    /// Whether a request that is sent now enters the target; its answer may still be lost.
    fn enters(&self, from: &str, target: &str, nqn: &str) -> bool {
        let conns = self.nodes.get(from).map(|n| n.conns.as_slice()).unwrap_or_default();
        let there = self
            .nodes
            .get(target)
            .is_some_and(|n| n.up && n.exports.iter().any(|e| e.facts.nqn == nqn && e.facts.listening.is_some()));
        there && conns.iter().any(|c| c.nqn == nqn) && !self.cuts.contains(&(from.to_owned(), target.to_owned()))
    }

    fn carry(&mut self, choose: &mut dyn FnMut(usize) -> usize) -> bool {
        let mut moves = self.moves();
        if moves.is_empty() {
            return false;
        }
        match moves.swap_remove(choose(moves.len())) {
            Move::Land(i, p) => {
                let (io, part) = (&self.ios[i], &self.ios[i].parts[p]);
                let (from, home, leg, array, kind) = (io.node.clone(), part.home.clone(), part.leg, io.array, io.kind);
                let epoch = self.nodes.get(&home).and_then(|n| n.ledger.get(&leg)).map_or(0, |l| l.local_epoch);
                self.land(&home, leg, array, kind, from, epoch);
                self.ios[i].parts[p].at = self.landed(i, p);
            }
            Move::Enter(i, p) => {
                let (io, part) = (&self.ios[i], &self.ios[i].parts[p]);
                let (from, target, nqn) = (io.node.clone(), part.home.clone(), part.nqn.clone().unwrap_or_default());
                let inside = Inside { io: io.id, from, target, nqn, array: io.array, leg: part.leg, kind: io.kind };
                self.inside.push(inside);
                self.ios[i].parts[p].at = At::Inside;
            }
            Move::Fail(i, p) => {
                let (node, array, name) =
                    (self.ios[i].node.clone(), self.ios[i].array, self.ios[i].parts[p].name.clone());
                self.ios[i].parts[p].at = At::Failed;
                self.notice(&node, Some((array, &name)));
            }
            Move::Drop(i, p) => {
                let (node, array, name) =
                    (self.ios[i].node.clone(), self.ios[i].array, self.ios[i].parts[p].name.clone());
                self.fail(&node, array, &name);
            }
            Move::Arrive(i) => self.arrive(i),
        }
        self.complete();
        true
    }

    /// A request inside a target reaches the drive. Who sent it hears of it only if the path still is what it was; else
    /// it is sent again when the path is back. Only then: between two connections of one grant the target finishes what
    /// the first one left (rule 9), which this fake takes for granted.
    fn arrive(&mut self, index: usize) {
        let inside = self.inside.remove(index);
        let epoch = Nqn::parse(&inside.nqn).map_or(0, |n| n.epoch);
        self.land(&inside.target, inside.leg, inside.array, inside.kind, inside.from.clone(), epoch);
        let conns = self.nodes.get(&inside.from).map(|n| n.conns.clone()).unwrap_or_default();
        let heard = conns.iter().any(|c| c.nqn == inside.nqn && self.live(&inside.from, c));
        let sent = |p: &Part| p.at == At::Inside && p.nqn.as_deref() == Some(&inside.nqn);
        let Some(i) = self.ios.iter().position(|io| io.id == inside.io) else { return };
        let Some(p) = self.ios[i].parts.iter().position(sent) else { return };
        self.ios[i].parts[p].at = if heard { self.landed(i, p) } else { At::Queued };
    }

    /// What a request of `ios` is that its member has.
    fn landed(&self, io: usize, part: usize) -> At {
        let (io, part) = (&self.ios[io], &self.ios[io].parts[part]);
        let array = self.nodes.get(&io.node).and_then(|n| n.arrays.iter().find(|a| a.spec.uuid == io.array));
        let counts = array.is_some_and(|a| a.members.iter().any(|m| m.name == part.name && m.in_sync));
        if counts { At::Done } else { At::Aside }
    }

    /// The barrier: what is inside a target under an NQN has landed when this returns. Nobody hears of it.
    pub(super) fn drain(&mut self, target: &str, nqn: &str) {
        if self.quirks.no_barrier {
            return;
        }
        while let Some(index) = self.inside.iter().position(|i| i.target == target && i.nqn == nqn) {
            self.arrive(index);
        }
    }

    fn land(&mut self, home: &str, leg: Uuid, array: Uuid, kind: Kind, from: String, epoch: i64) {
        let Some(bytes) = self.leg_bytes(home, leg) else { return };
        match kind {
            // Its mark is there before it, and whoever takes it away flushes first.
            Kind::Write { block, value } => (bytes.blocks.seen[block], bytes.dirty) = (value, true),
            Kind::Flush => bytes.blocks.durable = bytes.blocks.seen,
        }
        self.io_events.push(IoEvent::Landed { array, leg, from, epoch });
    }

    /// MD answers the application when every member has a request that MD does not go on without.
    pub(super) fn complete(&mut self) {
        let ended = |io: &Io| io.parts.iter().all(|p| matches!(p.at, At::Done | At::Aside | At::Failed));
        let all = std::mem::take(&mut self.ios);
        let (done, going) = all.into_iter().partition(|io| ended(io) && !self.gated(&io.node, io.array));
        self.ios = going;
        let done: Vec<Io> = done;
        for io in done {
            let refused = self.gate(&io.node, io.array) == Some(&FailureGate::Refused);
            if refused || !io.seen || !io.parts.iter().any(|p| p.at == At::Done) {
                continue;
            }
            self.io_events.push(match io.kind {
                Kind::Write { block, value } => IoEvent::Acked { array: io.array, node: io.node, block, value },
                Kind::Flush => IoEvent::Flushed { array: io.array, id: io.id },
            });
        }
    }

    fn gate(&self, node: &str, array: Uuid) -> Option<&FailureGate> {
        let found = self.nodes.get(node)?.arrays.iter().find(|a| a.spec.uuid == array);
        found.and_then(|a| a.gate.as_ref())
    }

    /// What has ended well is held.
    pub(super) fn gated(&self, node: &str, array: Uuid) -> bool {
        matches!(self.gate(node, array), Some(FailureGate::Holding(_))) && !self.quirks.leaky_gate
    }

    /// Whoever used the array is dead: nobody sees how its requests end.
    pub(super) fn blind(&mut self, node: &str, array: Uuid) {
        self.ios.iter_mut().filter(|io| io.node == node && io.array == array).for_each(|io| io.seen = false);
    }

    /// The member's connection is deleted: what is sent to it fails.
    pub(super) fn severed(&self, node: &str, member: &super::world::Member) -> bool {
        let conns = self.nodes.get(node).map(|n| n.conns.as_slice()).unwrap_or_default();
        member.nqn.as_ref().is_some_and(|nqn| !conns.iter().any(|c| c.nqn == *nqn))
    }

    /// MD writes to members whose connection is deleted, of its own or for somebody, and drops them: all of the node's, or one.
    pub(super) fn notice(&mut self, node: &str, only: Option<(Uuid, &str)>) {
        let arrays = self.nodes.get(node).map(|n| n.arrays.clone()).unwrap_or_default();
        let members = arrays.iter().flat_map(|a| a.members.iter().map(|m| (a.spec.uuid, m)));
        let lost: Vec<(Uuid, String)> = members
            .filter(|(array, m)| only.is_none_or(|(of, name)| of == *array && name == m.name))
            .filter(|(_, m)| !m.faulty && self.severed(node, m))
            .map(|(array, m)| (array, m.name.clone()))
            .collect();
        for (array, name) in lost {
            self.fail(node, array, &name);
            let arrays = self.nodes.get_mut(node).map(|n| n.arrays.iter_mut());
            let members = arrays.into_iter().flatten().filter(|a| a.spec.uuid == array).flat_map(|a| &mut a.members);
            members.filter(|m| m.name == name).for_each(|m| m.gone = true);
        }
    }

    /// What of a node's data path a power cut takes away: what it had sent is gone unless it is inside another target.
    pub(super) fn forget_io(&mut self, node: &str) {
        self.ios.retain(|io| io.node != node);
        self.inside.retain(|i| i.target != node);
        for part in self.ios.iter_mut().flat_map(|io| &mut io.parts).filter(|p| p.home == node && p.at == At::Inside) {
            part.at = At::Queued;
        }
    }

    /// Tells of an array that was started.
    pub(super) fn started(&mut self, node: &str, array: Uuid, members: &[super::world::Member]) {
        let local = |leg: &Uuid| self.nodes.get(node).and_then(|n| n.ledger.get(leg)).map_or(0, |l| l.local_epoch);
        let epoch = |m: &super::world::Member| match &m.nqn {
            Some(nqn) => Nqn::parse(nqn).map_or(0, |n| n.epoch),
            None => local(&m.leg),
        };
        let (epochs, legs) = members.iter().map(|m| (epoch(m), m.leg)).unzip();
        self.io_events.push(IoEvent::Assembled { array, node: node.to_owned(), epochs, legs });
    }

    /// After an unclean stop members may differ in what was not acknowledged: MD copies one of them to the others.
    pub(super) fn resync(&mut self, members: &[super::world::Member]) {
        let Some((first, rest)) = members.split_first() else { return };
        let Some(seen) = self.leg_bytes(&first.node, first.leg).map(|b| b.blocks.seen) else { return };
        for member in rest.iter().filter(|m| m.slot != first.slot) {
            if let Some(bytes) = self.leg_bytes(&member.node, member.leg) {
                bytes.blocks.seen = seen;
            }
        }
    }
}
