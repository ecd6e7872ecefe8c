//! Which legs a drain moves away, and which it leaves where they are. Pure; the volume's own planning asks it, and so does the drain's.

use super::world::active;
use crate::volume::seats::{inside, retired};
use crate::volume::world::{World, prepared};
use kube::ResourceExt as _;
use meshstor_crds::{DrainMode, DrainPolicy, MeshReplica, NodeDrain, geometry};
use std::collections::BTreeSet;
use std::time::Duration;

/// The drain policy of a volume, as its policy has it now.
pub fn policy(world: &World) -> DrainPolicy {
    world.policy.as_ref().map(|policy| policy.spec.drain_policy).unwrap_or_default()
}

/// Copies that are to stay in sync, whatever somebody wants of a node.
pub fn least(world: &World) -> usize {
    let resolved = world.volume.status.as_ref().and_then(|s| s.resolved.as_ref());
    resolved.map_or(1, |r| usize::try_from(r.min_in_sync).unwrap_or(1)).max(1)
}

/// The smallest number of legs in any mirror set that hold every acknowledged write, on nodes that answer and are not among `going`.
pub fn copies_without(world: &World, going: &BTreeSet<String>) -> usize {
    let good = |leg: &MeshReplica| {
        let whole = if world.term().is_some() { holds(world, leg) } else { prepared(leg) };
        whole && !going.contains(&leg.spec.node) && world.node_ready(&leg.spec.node).is_ok()
    };
    geometry::copies(world.legs.iter().filter(|leg| !retired(world, leg)), good)
}

/// In S, and not contradicted by a running array.
fn holds(world: &World, leg: &MeshReplica) -> bool {
    use meshstor_crds::MemberState::{Failing, InSync};
    let name = leg.name_any();
    let seen = world.array().map(|a| a.members.iter().find(|m| m.leg == name).map(|m| m.state));
    inside(world, leg) && matches!(seen, None | Some(Some(InSync | Failing)))
}

/// Whether `drain` asks for every leg of the volume on its node to be moved elsewhere.
pub fn moves(world: &World, drain: &NodeDrain) -> bool {
    let alone = || copies_without(world, &[drain.spec.node.clone()].into()) < least(world);
    match (drain.spec.mode, policy(world)) {
        (DrainMode::Evacuate, _) | (_, DrainPolicy::BlockForEviction) => true,
        (_, DrainPolicy::BlockForEvictionIfContainsLastReplica) => alone(),
        _ => false,
    }
}

/// Whether the leg is to leave its node because that is drained.
pub fn leaves(world: &World, leg: &MeshReplica) -> bool {
    world.drains.iter().any(|d| active(d) && d.spec.node == leg.spec.node && moves(world, d))
}

/// How much longer a leg whose node is away for maintenance is waited for, whatever the policy says; none where that was not agreed.
pub fn awaited(world: &World, leg: &MeshReplica) -> Option<Duration> {
    let drains = world.drains.iter().filter(|d| active(d) && d.spec.node == leg.spec.node);
    let of = |drain: &std::sync::Arc<NodeDrain>| {
        let since = drain.status.as_ref()?.released_at.as_ref()?;
        let left = drain.spec.return_within_seconds - world.now.duration_since(since.0).as_secs();
        (drain.spec.mode == DrainMode::Maintenance).then(|| Duration::from_secs(u64::try_from(left).unwrap_or(0)))
    };
    drains.filter_map(of).max()
}
