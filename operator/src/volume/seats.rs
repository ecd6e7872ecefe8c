//! Who has a place, and who is to have it.
//!
//! A *seat* is one copy of one mirror set: the leg that has it, and the *heirs* that were placed to take it
//! (`MeshReplica.spec.replaces`). Retired legs have no seat.

use super::world::{World, prepared};
use kube::ResourceExt as _;
use meshstor_crds::{MemberState, MeshReplica, Term, TermPhase, naming};

/// One copy of one mirror set.
#[derive(Clone, Debug)]
pub struct Seat<'a> {
    /// The leg that has it.
    pub holder: &'a MeshReplica,
    /// Those that are to have it, the newest last.
    pub heirs: Vec<&'a MeshReplica>,
}

impl<'a> Seat<'a> {
    /// All of them.
    pub fn legs(&self) -> impl Iterator<Item = &'a MeshReplica> {
        std::iter::once(self.holder).chain(self.heirs.iter().copied())
    }

    /// The newest heir whose partition is there.
    pub fn ready_heir(&self) -> Option<&'a MeshReplica> {
        self.heirs.iter().rev().find(|heir| prepared(heir)).copied()
    }
}

/// The record of a volume whose legs may be replaced: its array was made whole once, and it is not about to go.
pub fn record(world: &World) -> Option<&Term> {
    let fit = |t: &&Term| t.initialised && t.phase != TermPhase::Retired && !world.deleting();
    world.term().filter(fit)
}

/// Whether the record says that the leg is never used again.
pub fn retired(world: &World, leg: &MeshReplica) -> bool {
    world.term().is_some_and(|t| t.phase == TermPhase::Retired || t.retired.contains(&leg.name_any()))
}

/// Every seat, by mirror set and slot.
pub fn seats(world: &World) -> Vec<Seat<'_>> {
    let live = || world.legs.iter().filter(|leg| !retired(world, leg));
    let heir_of = |leg: &MeshReplica| leg.spec.replaces.clone().filter(|of| live().any(|l| l.name_any() == *of));
    let holders = live().filter(|leg| heir_of(leg).is_none());
    holders
        .map(|holder| {
            let name = holder.name_any();
            let mut heirs: Vec<_> = live().filter(|leg| heir_of(leg).as_ref() == Some(&name)).collect();
            heirs.sort_by_key(|leg| naming::generation(&leg.name_any()));
            Seat { holder, heirs }
        })
        .collect()
}

/// Whether the leg is in S.
pub fn inside(world: &World, leg: &MeshReplica) -> bool {
    world.in_sync().contains(&leg.name_any())
}

/// What the running array has of the leg.
pub fn member(world: &World, leg: &MeshReplica) -> Option<MemberState> {
    world.array()?.members.iter().find(|m| m.leg == leg.name_any()).map(|m| m.state)
}
