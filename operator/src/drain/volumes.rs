//! How far one volume is with one drain: the smallest question of a drain. Pure.

use super::leaving::{copies_without, least, moves, policy};
use crate::volume::copying;
use crate::volume::replacing;
use crate::volume::seats::{member, retired};
use crate::volume::world::World;
use kube::ResourceExt as _;
use meshstor_crds::{
    DrainMode, DrainPolicy, DrainVolume, DrainVolumeState, MemberState, MeshReplica, NodeDrain, conditions, geometry,
};
use std::collections::BTreeSet;

/// Longest message of a volume, in characters; the type's bound.
const MESSAGE_MAX: usize = 512;

/// What a drain waits for at a volume; none when it waits for nothing.
pub fn waits(world: &World, drain: &NodeDrain, going: &BTreeSet<String>) -> Option<DrainVolume> {
    if let Some(moving) = moving(world, drain) {
        return Some(moving);
    }
    if !allowed(world, drain)
        && let Some(short) = short(world, drain, going)
    {
        return Some(short);
    }
    used(world, drain)
}

fn said(world: &World, state: DrainVolumeState, message: &str) -> DrainVolume {
    DrainVolume { name: world.name(), state, message: message.chars().take(MESSAGE_MAX).collect(), resync: None }
}

/// Whether the policy lets the node go whatever copies are left.
fn allowed(world: &World, drain: &NodeDrain) -> bool {
    let here = world.legs.iter().any(|leg| leg.spec.node == drain.spec.node && !retired(world, leg));
    match policy(world) {
        _ if !here => true,
        DrainPolicy::AlwaysAllow => true,
        DrainPolicy::AllowIfReplicaIsStopped => !in_use(world),
        _ => false,
    }
}

/// Whether an array of the volume runs somewhere, or is about to.
fn in_use(world: &World) -> bool {
    world.wanted().is_some() || !world.over() && world.term().is_some()
}

/// A leg that is to leave the node and is still there.
fn moving(world: &World, drain: &NodeDrain) -> Option<DrainVolume> {
    let node = &drain.spec.node;
    let here: Vec<&MeshReplica> = world.legs.iter().filter(|leg| leg.spec.node == *node).collect();
    let leg = here.iter().find(|leg| !retired(world, leg)).or(here.first())?;
    if retired(world, leg) {
        let what = format!("{} is wiped, then {node} has nothing of the volume", leg.name_any());
        return (drain.spec.mode == DrainMode::Evacuate).then(|| said(world, DrainVolumeState::Moving, &what));
    }
    if !moves(world, drain) {
        return None;
    }
    if let Some(why) = stuck(world) {
        let remedy = "free room on another node, add one, or delete the drain";
        return Some(said(
            world,
            DrainVolumeState::Blocked,
            &format!("{} cannot move: {why}; {remedy}", leg.name_any()),
        ));
    }
    let takes = |heir: &&MeshReplica| heir.spec.replaces.as_ref() == Some(&leg.name_any()) && !retired(world, heir);
    let Some(heir) = world.legs.iter().find(takes) else {
        if let Some(why) = copying::obstacle(world) {
            let what = format!("{} cannot move: its array was never made whole, and {why}", leg.name_any());
            return Some(said(world, DrainVolumeState::Blocked, &what));
        }
        let what = format!("a place for another {} is looked for", leg.name_any());
        return Some(said(world, DrainVolumeState::Moving, &what));
    };
    let to = format!("{} on {} takes the place of {}", heir.name_any(), heir.spec.node, leg.name_any());
    if let Some(why) = copying::obstacle(world) {
        let remedy = "mend that, or delete the drain";
        return Some(said(world, DrainVolumeState::Blocked, &format!("{to}, and nobody can copy: {why}; {remedy}")));
    }
    Some(copied(world, heir, &to))
}

/// Why no place was found for a leg that is to leave, by the volume's own word.
fn stuck(world: &World) -> Option<&str> {
    let conditions = world.volume.status.as_ref().map_or(&[][..], |s| &s.conditions);
    let replacing = conditions.iter().find(|c| c.type_ == conditions::REPLACING && c.status == "False");
    replacing.map(|c| c.message.as_str())
}

fn copied(world: &World, heir: &MeshReplica, to: &str) -> DrainVolume {
    let mut said = said(world, DrainVolumeState::Moving, &format!("{to}: {}", replacing::stage(world, heir)));
    if member(world, heir) == Some(MemberState::Rebuilding) {
        said.resync = world.array().and_then(|a| a.resync.clone());
    }
    said
}

/// Too few copies would be left without the nodes that go.
fn short(world: &World, drain: &NodeDrain, going: &BTreeSet<String>) -> Option<DrainVolume> {
    let node = &drain.spec.node;
    let mut without = going.clone();
    without.insert(node.clone());
    let (left, least) = (copies_without(world, &without), least(world));
    if left >= least {
        return None;
    }
    let elsewhere = |leg: &MeshReplica| !without.contains(&leg.spec.node);
    let live = || world.legs.iter().filter(|leg| !retired(world, leg));
    let rule = format!("without {node} {left} copies of it are in sync, minInSync is {least}");
    let best = geometry::copies(live(), elsewhere);
    if best >= least {
        return Some(said(world, DrainVolumeState::Waiting, &format!("{rule}: waiting until more are")));
    }
    if without.len() > 1 && geometry::copies(live(), |leg| leg.spec.node != *node) >= least {
        let others: Vec<&str> = going.iter().map(String::as_str).filter(|n| n != node).collect();
        let what = format!("{rule}: waiting until {} is back", others.join(", "));
        return Some(said(world, DrainVolumeState::Waiting, &what));
    }
    let remedy = "make a NodeDrain of mode Evacuate, which moves its legs, or give it a policy with drainPolicy block-for-eviction, or \
                  always-allow to let it stand still meanwhile";
    Some(said(world, DrainVolumeState::Blocked, &format!("{rule}; {remedy}")))
}

/// The array runs on the node, or is wanted there.
fn used(world: &World, drain: &NodeDrain) -> Option<DrainVolume> {
    let node = &drain.spec.node;
    let runs = world.term().is_some_and(|term| term.node == *node) && !world.over();
    let what = match (runs, world.wanted() == Some(node.as_str())) {
        (_, true) if world.asked().is_none() => "its array runs there until a copy of it is made",
        (_, true) => "it is wanted there: end what uses it, or want it elsewhere",
        (true, false) => "its array there is being taken down",
        (false, false) => return None,
    };
    Some(said(world, DrainVolumeState::ConsumerPresent, what))
}

/// Whether the volume has anything to do with `node`.
pub fn concerns(world: &World, node: &str) -> bool {
    let here = world.legs.iter().any(|leg| leg.spec.node == node);
    let runs = world.term().is_some_and(|term| term.node == node) && world.ended().is_none();
    here || runs || world.wanted() == Some(node)
}

/// Whether a leg of the volume that may still be used is on `node`.
pub fn holds(world: &World, node: &str) -> bool {
    world.legs.iter().any(|leg| leg.spec.node == node && !retired(world, leg))
}
