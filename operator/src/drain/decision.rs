//! Which nodes may go: every drain's volumes, and one failure domain at a time. Pure.

use super::volumes;
use super::world::{World, released};
use kube::ResourceExt as _;
use meshstor_crds::{DrainVolume, NodeDrain};
use std::collections::BTreeSet;

/// What a drain waits for.
#[derive(Clone, Debug)]
pub struct Decision<'a> {
    /// The drain.
    pub drain: &'a NodeDrain,
    /// Volumes that are not ready for it.
    pub waits: Vec<DrainVolume>,
    /// Volumes that have to do with its node.
    pub total: usize,
    /// The most of them at one time since it was made.
    pub most: usize,
    /// Another drain, of another failure domain, that let its node go and has not ended.
    pub turn: Option<&'a NodeDrain>,
    /// There is no such `MeshNode`.
    pub unknown: bool,
    /// Its node may go.
    pub released: bool,
}

/// What is to be said of every drain, the oldest first.
///
/// Each drain that lets its node go counts for those after it as if the node were down already: two that would be safe alone need not be
/// so together.
pub fn decide(world: &World) -> Vec<Decision<'_>> {
    let mut going: BTreeSet<String> = BTreeSet::new();
    let (first, then): (Vec<_>, Vec<_>) = world.active().into_iter().partition(|d| released(d));
    going.extend(first.iter().filter(|d| holds(world, d)).map(|d| d.spec.node.clone()));
    let mut holders: Vec<&NodeDrain> = first.iter().copied().filter(|d| holds(world, d)).collect();
    let mut decisions: Vec<Decision<'_>> = Vec::new();
    for drain in first.into_iter().chain(then) {
        let mut decision = look(world, drain, &going);
        let apart = |other: &&&NodeDrain| {
            other.spec.node != drain.spec.node && world.domain(&other.spec.node) != world.domain(&drain.spec.node)
        };
        decision.turn = holders.iter().find(apart).copied().filter(|_| holds(world, drain));
        decision.released = if released(drain) {
            // Whoever was let pass may be gone already: that cannot be taken back.
            decision.waits.is_empty() || !guarded(world, &drain.spec.node)
        } else {
            decision.waits.is_empty() && decision.turn.is_none() && !decision.unknown
        };
        if decision.released && !released(drain) && holds(world, drain) {
            going.insert(drain.spec.node.clone());
            holders.push(drain);
        }
        decisions.push(decision);
    }
    decisions
}

fn look<'a>(world: &World, drain: &'a NodeDrain, going: &BTreeSet<String>) -> Decision<'a> {
    let node = &drain.spec.node;
    let others: BTreeSet<String> = going.iter().filter(|other| *other != node).cloned().collect();
    let concerned = || world.volumes.iter().filter(|v| volumes::concerns(v, node) && !v.deleting());
    let mut waits: Vec<DrainVolume> = concerned().filter_map(|v| volumes::waits(v, drain, &others)).collect();
    waits.sort_by(|a, b| a.name.cmp(&b.name));
    let unknown = world.node(node).is_none();
    let total = concerned().count();
    let before = drain.status.as_ref().and_then(|s| s.volumes_total).and_then(|n| usize::try_from(n).ok());
    Decision { drain, waits, total, most: total.max(before.unwrap_or(0)), turn: None, unknown, released: false }
}

/// Whether legs that may still be used are on the drain's node: only then it matters that it goes.
fn holds(world: &World, drain: &NodeDrain) -> bool {
    world.volumes.iter().any(|v| volumes::holds(v, &drain.spec.node))
}

/// Whether a guard of the node is there that nobody has evicted.
pub fn guarded(world: &World, node: &str) -> bool {
    world.pods.iter().any(|pod| super::guard::of(pod, node) && pod.metadata.deletion_timestamp.is_none())
}

/// Whether the guard of `node` lets pass: it was cordoned, and a drain has let it go.
pub fn open(world: &World, decisions: &[Decision<'_>], node: &str) -> bool {
    world.cordoned(node) && decisions.iter().any(|d| d.released && d.drain.spec.node == node)
}

/// Name of the drain, for others' messages.
pub fn named(drain: &NodeDrain) -> String {
    format!("{} ({})", drain.spec.node, drain.name_any())
}
