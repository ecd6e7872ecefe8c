//! The safety rules, stated once more and independently of the plan: a step that breaks one is never done.

use super::action::Action;
use super::grants::next_number;
use super::placing;
use super::reasons;
use super::replacing::{RETIRED_MAX, may_be_wiped, next_generation, retire};
use super::seats;
use super::terms;
use super::world::{World, confirmed, zeros};
use kube::ResourceExt as _;
use meshstor_crds::{Geometry, Grant, MeshReplica, MeshReplicaSpec, Term, TermPhase, VOLUME_FINALIZER, naming};

/// The rule that a step would have broken: a bug of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant}: {rule}")]
pub struct Broken {
    /// Invariant or rule of the safety rules.
    pub invariant: &'static str,
    /// What must hold.
    pub rule: &'static str,
}

type Verdict = Result<(), Broken>;

fn must(holds: bool, invariant: &'static str, rule: &'static str) -> Verdict {
    if holds { Ok(()) } else { Err(Broken { invariant, rule }) }
}

/// Whether `action` may be done in `world`.
///
/// # Errors
/// [`Broken`] names the rule.
pub fn check(world: &World, action: &Action) -> Verdict {
    match action {
        Action::AddFinalizer => must(!world.deleting(), "I4", "a volume that is being deleted gets no finalizer"),
        Action::RemoveFinalizer => remove_finalizer(world),
        Action::CreateReplica { leg, spec } => create(world, leg, spec),
        Action::CreateAttachment => {
            let begun = world.attachment.is_some() || world.record_lost() || world.volume.spec.adopts.is_some();
            must(!begun, "I2", "a record is begun once for a volume, and by a person where the volume takes legs over")
        }
        Action::WriteTerm(new) => term(world, new),
        Action::CopyOn { node } => {
            let idle = world.asked().is_none() && !world.deleting() && world.attachment.is_some();
            must(node.is_none() || idle, "I3", "an array runs for a copy alone only while nobody wants the volume")?;
            let free =
                world.over() || world.term().is_none_or(|t| node.as_deref() == Some(&t.node) || world.only_copies());
            must(node.is_none() || free, "rule 4", "an array runs for a copy when the epoch before is over")
        }
        Action::SetReplicaEpoch { leg, epoch } => with(world, leg, |leg| tell(world, leg, *epoch)),
        Action::SetGrant { leg, grant } => with(world, leg, |leg| set_grant(world, leg, grant)),
        Action::ClearGrant { leg } => with(world, leg, |leg| clear_grant(world, leg)),
        Action::DeleteReplica { leg } => with(world, leg, |leg| delete_leg(world, leg)),
        Action::ReleaseReplica { leg } => with(world, leg, |leg| release_leg(world, leg)),
        Action::DeleteAttachment | Action::ReleaseAttachment => {
            must(world.deleting() && world.legs.is_empty(), "rule 8", "the record goes after every leg")?;
            must(no_epoch_follows(world), "I2", "a record goes only when no epoch can follow")
        }
    }
}

fn create(world: &World, name: &str, spec: &MeshReplicaSpec) -> Verdict {
    let leaves = |leg: &&MeshReplica| seats::retired(world, leg) || spec.replaces.as_ref() == Some(&leg.name_any());
    let same_seat = |leg: &&MeshReplica| spec.replaces.is_some() && leg.spec.replaces == spec.replaces;
    let apart = |leg: &MeshReplica| leg.spec.mirror_set != spec.mirror_set || leg.spec.node != spec.node;
    let own = |leg: &MeshReplica| (&leg.spec.node, &leg.spec.drive) != (&spec.node, &spec.drive);
    let held = world.volume.finalizers().iter().any(|f| f == VOLUME_FINALIZER);
    must(held && !world.deleting(), "rule 8", "the volume is held before it has legs")?;
    must(world.legs.iter().filter(|l| !leaves(l) && !same_seat(l)).all(apart), "I1", "one leg of a mirror set a node")?;
    must(world.legs.iter().all(own), "I1", "one leg of a volume a drive")?;
    match &spec.replaces {
        None => {
            must(world.attachment.is_none(), "I6", "legs that replace nobody are made before the attachment only")?;
            must(
                world.volume.spec.adopts.is_none(),
                "I6",
                "a volume that takes legs over has none made in their stead",
            )?;
            must(world.legs.iter().all(|leg| leg.spec.slot != spec.slot), "I1", "one leg a slot")
        }
        Some(old) => {
            let resolved = world.volume.status.as_ref().and_then(|s| s.resolved.as_ref());
            must(
                !spec.overwritten || resolved.is_some_and(|r| placing::all_copied(r.bitmap)),
                "I6",
                "a lockless bitmap has what was never written skipped: there a leg begins as zeros",
            )?;
            let known = world.leg(old).filter(|leg| reasons::why(world, leg).is_some());
            must(
                known.is_some_and(|l| l.spec.mirror_set == spec.mirror_set),
                "I4",
                "only a leg that must leave is replaced",
            )?;
            must(naming::generation(name) == next_generation(world), "I6", "no name of a leg is used twice")
        }
    }
}

fn with(world: &World, name: &str, rule: impl FnOnce(&MeshReplica) -> Verdict) -> Verdict {
    world.leg(name).map_or_else(|| must(false, "I5", "only an observed leg is changed"), rule)
}

fn no_epoch_follows(world: &World) -> bool {
    match world.term() {
        Some(term) => term.phase == TermPhase::Retired,
        None => !world.record_lost() && world.wanted().is_none(),
    }
}

fn remove_finalizer(world: &World) -> Verdict {
    let empty = world.legs.is_empty() && world.attachment.is_none();
    must(world.deleting() && empty, "rule 8", "a volume goes after its legs and its record")
}

fn delete_leg(world: &World, leg: &MeshReplica) -> Verdict {
    let retired = world.term().is_some_and(|t| t.retired.contains(&leg.name_any()));
    let goes = world.deleting() && no_epoch_follows(world);
    must(retired || goes, "rule 8", "a leg is retired before it is wiped")?;
    must(goes || may_be_wiped(world, leg), "I1", "a retired leg is wiped when a leg of S has its seat")
}

fn release_leg(world: &World, leg: &MeshReplica) -> Verdict {
    let leaves = leg.metadata.deletion_timestamp.is_some() && world.gone(&leg.spec.node);
    must(leaves, "rule 8", "only a deleted leg whose node is gone for good is let go unwiped")?;
    let over = seats::retired(world, leg) || (world.deleting() && no_epoch_follows(world));
    must(over, "rule 8", "a leg is retired before its object goes")
}

fn term(world: &World, new: &Term) -> Verdict {
    let Some(old) = world.term() else { return first(world, new) };
    let within = |new: &[String], old: &[String]| new.iter().all(|leg| old.contains(leg));
    must(old.phase != TermPhase::Retired, "I2", "no epoch follows Retired")?;
    must(within(&old.retired, &new.retired), "rule 8", "retired only grows")?;
    must(within(&new.in_sync, &old.in_sync), "I6", "the operator never adds to S")?;
    must(within(&new.bitmap_usable, &old.bitmap_usable), "rule 7", "the operator never vouches for a bitmap")?;
    must(!new.in_sync.is_empty(), "I1", "S is never empty")?;
    must(!within_any(&new.in_sync, &new.retired), "I6", "a retired leg is never in S")?;
    must(new.initialised == old.initialised, "I1", "only the consumer says that a volume is initialised")?;
    if new.epoch == old.epoch { same_epoch(world, old, new) } else { next_epoch(world, old, new) }
}

fn within_any(a: &[String], b: &[String]) -> bool {
    a.iter().any(|leg| b.contains(leg))
}

fn first(world: &World, new: &Term) -> Verdict {
    let all = new.in_sync.len() == world.legs.len() && world.legs.iter().all(|l| new.in_sync.contains(&l.name_any()));
    let fresh = world.legs.iter().all(|leg| zeros(leg) && leg.spec.epoch == 0 && leg.spec.grant.is_none());
    must(world.attachment.is_some() && new.epoch == 1, "I2", "the first epoch is 1")?;
    must(new.phase == TermPhase::Revoking, "rule 2", "an epoch begins by revoking")?;
    must(world.volume.spec.adopts.is_none(), "I6", "the first record of a volume that takes legs over is a person's")?;
    must(
        !new.in_sync.is_empty() && all && fresh,
        "I6",
        "the first epoch starts from all legs, each proved to be zeros",
    )?;
    must(Geometry::of_legs(&world.legs).is_ok(), "I1", "every mirror set is whole and spans nodes")
}

fn next_epoch(world: &World, old: &Term, new: &Term) -> Verdict {
    must(new.epoch == old.epoch + 1, "I2", "the epoch grows by one")?;
    must(new.phase == TermPhase::Revoking, "rule 2", "an epoch begins by revoking")?;
    must(world.over(), "rule 4", "an epoch follows one that ended, is given up, or never started")?;
    must(
        placing::unadopted(world).is_none(),
        "I1",
        "a volume that takes legs over starts when all of them have objects",
    )?;
    must(new.in_sync == old.in_sync, "I1", "a new epoch keeps S")?;
    must(new.writer.is_none(), "rule 4", "nobody has claimed a new epoch")
}

/// The one change that the operator makes in any phase: legs that are outside S are retired.
fn retires(old: &Term, new: &Term) -> bool {
    let added: Vec<String> = new.retired.iter().filter(|leg| !old.retired.contains(leg)).cloned().collect();
    !added.is_empty() && *new == retire(old, added)
}

fn same_epoch(world: &World, old: &Term, new: &Term) -> Verdict {
    if retires(old, new) {
        return must(new.retired.len() <= RETIRED_MAX, "I4", "the record has room for so many retired legs");
    }
    must(
        old.phase == TermPhase::Revoking && new.node == old.node,
        "rule 4",
        "after Started the record is the consumer's",
    )?;
    let said = |name: &String| world.leg(name).is_some_and(|leg| confirmed(leg, old.epoch));
    match new.phase {
        TermPhase::Started => {
            must(terms::covers(world, &new.in_sync), "I1", "an epoch starts with a leg of every mirror set")?;
            must(new.in_sync.iter().all(said), "rule 3", "an epoch starts from S ∩ confirmed")
        }
        TermPhase::Retired => {
            must(world.deleting() && world.wanted().is_none(), "I3", "only a volume that goes is retired")?;
            let all = world.legs.iter().all(|leg| confirmed(leg, old.epoch) || world.silent(leg));
            must(all, "rule 8", "every leg has confirmed before the record retires")
        }
        TermPhase::Revoking | TermPhase::Running => must(false, "rule 4", "the operator writes Started or Retired"),
    }
}

fn tell(world: &World, leg: &MeshReplica, epoch: i64) -> Verdict {
    let recorded = world.term().is_some_and(|t| t.epoch == epoch);
    must(recorded, "I2", "a leg is told only of the record's epoch")?;
    must(epoch > leg.spec.epoch, "I2", "a leg's epoch only grows")
}

fn set_grant(world: &World, leg: &MeshReplica, grant: &Grant) -> Verdict {
    let name = leg.name_any();
    let Some(term) = world.term() else { return must(false, "I2", "a grant needs a record") };
    let second = leg.spec.grant.is_some() || term.phase == TermPhase::Running;
    let starting = matches!(term.phase, TermPhase::Started | TermPhase::Running) && world.ended().is_none();
    must(starting, "rule 2", "a grant needs a started epoch")?;
    must(grant.epoch == term.epoch && leg.spec.epoch == term.epoch, "I2", "a grant is for the newest epoch")?;
    must(grant.consumer == term.node, "I2", "a grant is for the record's consumer")?;
    must(confirmed(leg, term.epoch), "rule 2", "a leg is granted after it confirmed the epoch")?;
    must(!term.retired.contains(&name), "rule 8", "a retired leg is never granted")?;
    let alone = term.in_sync.contains(&name) || reasons::candidate(world, leg);
    must(alone, "rule 7", "a seat has one candidate at a time")?;
    must(!(second && term.in_sync.contains(&name)), "I6", "a leg of S never gets a second grant")?;
    must(
        !(grant.copy_later && term.in_sync.contains(&name)),
        "I1",
        "what a leg of S is to get is written to it at once",
    )?;
    if begins(leg, grant) {
        return Ok(());
    }
    must(grant.number >= next_number(leg), "rule 1", "a grant's number is new")?;
    let closed = leg.status.as_ref().is_none_or(|s| s.export.is_none());
    must(closed, "rule 9", "a new grant waits until the old export is gone")
}

/// The grant that the leg has, and now it may be copied to.
fn begins(leg: &MeshReplica, grant: &Grant) -> bool {
    leg.spec.grant.as_ref().is_some_and(|old| old.copy_later && *grant == Grant { copy_later: false, ..old.clone() })
}

fn clear_grant(world: &World, leg: &MeshReplica) -> Verdict {
    let outside = !world.in_sync().contains(&leg.name_any());
    let idle = world.term().is_some_and(|t| t.phase == TermPhase::Running) && outside;
    must(world.ended().is_some() || idle, "I3", "the grant of a leg in use is not taken back")
}
