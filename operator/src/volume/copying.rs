//! Copies of a volume that nobody uses: an array is what copies, so the operator has one run on some node while a leg is to be filled, and
//! nothing is mounted there. Pure.
//!
//! Whoever wants the volume goes before it: the array is then taken down like any other, under the same rules. Only legs that were placed
//! to take the place of another are filled in this way; one that was away and is back is copied to when the volume is attached.

use super::action::Action;
use super::budget;
use super::reasons::why;
use super::seats::{self, Seat, inside};
use super::world::{World, prepared};
use crate::drain::leaving;
use crate::drain::world::active;
use kube::ResourceExt as _;
use meshstor_crds::{MeshReplica, TermPhase};

/// The step towards where an array is to run for a copy, if another node or none is.
pub fn plan(world: &World) -> Option<Action> {
    let (now, next) = (world.copied_on(), turn(world));
    let change = now != next.as_deref() && (next.is_none() || free(world)) && !marks(world);
    change.then_some(Action::CopyOn { node: next })
}

/// No epoch runs that somebody else began.
fn free(world: &World) -> bool {
    world.term().is_none() || world.over() || world.only_copies()
}

/// That the epoch is there for a copy alone is what it may be given up by: it is not forgotten while it may come to that.
fn marks(world: &World) -> bool {
    let begun = world.term().is_some_and(|t| t.phase != TermPhase::Revoking) && world.ended().is_none();
    let hangs = world.asked().is_some() || world.term().is_some_and(|t| world.node_ready(&t.node).is_err());
    world.only_copies() && begun && hangs
}

/// [`place`], once the budget has room for one of the legs.
fn turn(world: &World) -> Option<String> {
    let waits = |leg: &&MeshReplica| world.clocks.waits.contains(&leg.name_any());
    let legs = unfilled(world);
    let held = world.copied_on().is_none() && !legs.is_empty() && legs.iter().all(waits);
    if held { None } else { place(world) }
}

/// The node on which an array is to run for a copy: of those that hold what is copied, then of those that get it, the first that can, and
/// a drained one last of all. None while somebody wants the volume, while there is nothing to copy, or while a leg of S that stays is on a
/// node that does not answer: an epoch without it would be one copy less.
pub fn place(world: &World) -> Option<String> {
    if world.attachment.is_none()
        || world.deleting()
        || world.asked().is_some()
        || !needed(world)
        || absent(world).is_some()
    {
        return None;
    }
    let drained = |node: &str| world.drains.iter().any(|d| active(d) && d.spec.node == node);
    let mut nodes: Vec<&str> = sources(world).chain(unfilled(world)).map(|leg| leg.spec.node.as_str()).collect();
    nodes.sort_by_key(|node| (drained(node), world.copied_on() != Some(node)));
    nodes.into_iter().find(|node| world.willing(node)).map(str::to_owned)
}

/// Why there is something to copy and no array runs for it, for people.
pub fn obstacle(world: &World) -> Option<String> {
    if world.wanted().is_some() || !needed(world) {
        return None;
    }
    let silent = absent(world).map(|leg| format!("{} on {} does not answer", leg.name_any(), leg.spec.node));
    silent.or_else(|| place(world).is_none().then(|| "none of its nodes can run it".to_owned()))
}

/// The legs that have what is copied.
fn sources(world: &World) -> impl Iterator<Item = &MeshReplica> {
    world.legs.iter().filter(|leg| if world.term().is_some() { inside(world, leg) } else { true })
}

/// A leg of S that is to stay, on a node that does not answer.
fn absent(world: &World) -> Option<&MeshReplica> {
    sources(world).find(|leg| why(world, leg).is_none() && world.node_ready(&leg.spec.node).is_err())
}

fn needed(world: &World) -> bool {
    unbegun(world) || !unfilled(world).is_empty()
}

/// Nothing was ever written, and a leg is to move: the array is made whole first, for what is copied is an array's.
fn unbegun(world: &World) -> bool {
    let begun = world.term().is_some_and(|t| t.initialised || t.phase == TermPhase::Retired) || world.record_lost();
    let made = world.volume.spec.adopts.is_none() && !world.legs.is_empty() && world.legs.iter().all(prepared);
    !begun && made && world.legs.iter().any(|leg| leaving::leaves(world, leg))
}

/// The legs that were placed to take the place of another, are there, and have not everything yet.
pub fn unfilled(world: &World) -> Vec<&MeshReplica> {
    let able = |leg: &&MeshReplica| world.node_ready(&leg.spec.node).is_ok() && !budget::fails(leg);
    seats::record(world)
        .map(|_| seats::seats(world).iter().filter_map(|seat| heir(world, seat)).filter(able).collect())
        .unwrap_or_default()
}

fn heir<'a>(world: &World, seat: &Seat<'a>) -> Option<&'a MeshReplica> {
    if seat.heirs.iter().any(|heir| inside(world, heir)) {
        return None;
    }
    if !inside(world, seat.holder) {
        return Some(seat.holder).filter(|leg| leg.spec.replaces.is_some() && prepared(leg));
    }
    // One that is made anew while the array runs is waited for.
    let newest = seat.heirs.last().copied().filter(|_| world.copied_on().is_some());
    why(world, seat.holder).and(seat.ready_heir().or(newest))
}
