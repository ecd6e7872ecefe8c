//! The state of all nodes, and what happens to them from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use uuid::Uuid;

use super::super::{ArraySpec, Content, ExportFacts, FailureGate, HostError, LedgerEntry, Result, SuperLeg};
use super::io::{Blocks, Inside, Io, IoEvent, Quirks};

/// What a leg's bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bytes {
    pub(super) content: Content,
    pub(super) stamp: u64,
    pub(super) superblock: Option<(Uuid, u64)>,
    /// The rest of its superblock.
    pub(super) told: Option<SuperLeg>,
    pub(super) blocks: Blocks,
    /// Its slot, as its superblock says it.
    pub(super) slot: u32,
    /// Its own bitmap: it may differ from the others.
    pub(super) dirty: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Leg {
    pub(super) device: PathBuf,
    pub(super) label: String,
    pub(super) first_byte: u64,
    pub(super) size: u64,
    pub(super) bytes: Bytes,
}

#[derive(Clone, Debug)]
pub(super) struct Exported {
    /// Its consumer came in: the door is shut behind it.
    pub(super) used: bool,
    pub(super) leg: Uuid,
    pub(super) facts: ExportFacts,
}

#[derive(Clone, Debug)]
pub(super) struct Conn {
    pub(super) nqn: String,
    pub(super) number: u32,
    pub(super) target: String,
    pub(super) leg: Uuid,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) node: String,
    pub(super) leg: Uuid,
    /// Reached through this connection; local without one.
    pub(super) nqn: Option<String>,
    pub(super) slot: u32,
    pub(super) in_sync: bool,
    pub(super) faulty: bool,
    /// Its device is gone, and MD keeps it all the same, for it is the last: a look says that it failed.
    pub(super) gone: bool,
    pub(super) write_mostly: bool,
    /// It is copied to only where the bitmap says so.
    pub(super) by_bitmap: bool,
    /// It is filled beside the member that has its slot.
    pub(super) replacement: bool,
    /// Everything up to the hold was copied to it.
    pub(super) copied: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Array {
    pub(super) spec: ArraySpec,
    pub(super) device: PathBuf,
    pub(super) members: Vec<Member>,
    pub(super) mounts: Vec<PathBuf>,
    /// Nobody of ours assembled it.
    pub(super) stranger: bool,
    /// Somebody has it open.
    pub(super) open: bool,
    /// Limit of its rebuild in KiB/s.
    pub(super) limit: Option<u64>,
    /// Rebuilds wait before their end.
    pub(super) held: bool,
    /// Writes are held.
    pub(super) suspended: bool,
    /// Where the kernel has one.
    pub(super) gate: Option<FailureGate>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) up: bool,
    pub(super) boot: u32,
    pub(super) address: String,
    pub(super) drive: String,
    pub(super) bytes: u64,
    pub(super) next_byte: u64,
    pub(super) next_number: u32,
    pub(super) legs: BTreeMap<Uuid, Leg>,
    pub(super) ledger: BTreeMap<Uuid, LedgerEntry>,
    pub(super) exports: Vec<Exported>,
    /// What was exported when the power went.
    pub(super) exported: Vec<Exported>,
    pub(super) conns: Vec<Conn>,
    pub(super) arrays: Vec<Array>,
}

#[derive(Default)]
pub(super) struct World {
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) cuts: BTreeSet<(String, String)>,
    pub(super) acked: BTreeMap<Uuid, u64>,
    pub(super) issued: BTreeMap<Uuid, u64>,
    pub(super) exports_made: u64,
    pub(super) quirks: Quirks,
    pub(super) ios: Vec<Io>,
    pub(super) inside: Vec<Inside>,
    pub(super) next_io: u64,
    /// Number of the last failure that a gate has noted.
    pub(super) failures: u32,
    pub(super) io_events: Vec<IoEvent>,
}

pub(super) fn host_nqn(node: &str) -> String {
    format!("nqn.2014-08.org.nvmexpress:uuid:{node}")
}

fn no_node(node: &str) -> HostError {
    HostError::Failed { action: format!("reach node {node}"), cause: "it is down".to_owned() }
}

impl World {
    pub(super) fn add_node(&mut self, node: &str, address: &str, bytes: u64) {
        let new = Node {
            up: true,
            boot: 1,
            address: address.to_owned(),
            drive: format!("{node}-drive"),
            bytes,
            next_byte: 1 << 20,
            ..Node::default()
        };
        self.nodes.insert(node.to_owned(), new);
    }

    pub(super) fn node(&self, node: &str) -> Result<&Node> {
        self.nodes.get(node).filter(|n| n.up).ok_or_else(|| no_node(node))
    }

    pub(super) fn node_mut(&mut self, node: &str) -> Result<&mut Node> {
        self.nodes.get_mut(node).filter(|n| n.up).ok_or_else(|| no_node(node))
    }

    pub(super) fn kill(&mut self, node: &str) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.up = false;
            node.exported = std::mem::take(&mut node.exports);
            node.conns.clear();
            node.arrays.clear();
        }
        self.forget_io(node);
    }

    pub(super) fn boot(&mut self, node: &str) {
        let kept = self.quirks.keeps_exports;
        if let Some(node) = self.nodes.get_mut(node) {
            node.up = true;
            node.boot += 1;
            if kept {
                node.exports = std::mem::take(&mut node.exported);
            }
        }
    }

    pub(super) fn cut(&mut self, a: &str, b: &str, cut: bool) {
        for pair in [(a.to_owned(), b.to_owned()), (b.to_owned(), a.to_owned())] {
            if cut {
                self.cuts.insert(pair);
            } else {
                self.cuts.remove(&pair);
            }
        }
    }

    /// Whether I/O of a connection reaches its leg.
    pub(super) fn live(&self, from: &str, conn: &Conn) -> bool {
        let open = |e: &Exported| {
            let heard = e.facts.enabled && e.facts.listening.is_some();
            e.facts.nqn == conn.nqn && heard && e.facts.host_nqn.as_deref() == Some(&host_nqn(from))
        };
        let (there, back) = ((from.to_owned(), conn.target.clone()), (conn.target.clone(), from.to_owned()));
        let cut = self.cuts.contains(&there) || self.cuts.contains(&back);
        !cut && self.nodes.get(&conn.target).is_some_and(|n| n.up && n.exports.iter().any(open))
    }

    /// Whether I/O of a member reaches its leg.
    pub(super) fn reaches(&self, from: &str, member: &Member) -> bool {
        let Some(nqn) = &member.nqn else { return true };
        let conns = self.nodes.get(from).map(|n| n.conns.as_slice()).unwrap_or_default();
        conns.iter().any(|c| c.nqn == *nqn && self.live(from, c))
    }

    pub(super) fn leg_bytes(&mut self, node: &str, leg: Uuid) -> Option<&mut Bytes> {
        Some(&mut self.nodes.get_mut(node)?.legs.get_mut(&leg)?.bytes)
    }
}
