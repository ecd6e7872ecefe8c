//! Replacement of legs, rules 7 and 8: another leg is placed, the old one is retired, and wiped when the other has its seat.
//!
//! A leg that stays away is retired as soon as its heir is prepared and *before* that has a grant, so that no seat ever has two
//! candidates: should the old one come back then, it finds itself retired. A leg of S that is to leave stays in S, and in the
//! array, until the consumer has recorded its heir in its stead; only then is it retired. What is retired is wiped only when a
//! leg of S has its seat: until then its old bytes are what a person could still look into.

use super::action::{Action, Plan, Refusal};
use super::reasons::{self, Why, why};
use super::seats::{self, Seat, inside, member, record, retired};
use super::validate::Settled;
use super::world::{World, blank, prepared};
use super::{placing, terms};
use kube::ResourceExt as _;
use meshstor_crds::conditions::{self, Want};
use meshstor_crds::{MemberState, MeshReplica, Term, naming};

/// Names that `status.term.retired` has room for.
pub const RETIRED_MAX: usize = 128;

/// The steps towards seats that are taken by legs that are there; a refusal says why an heir cannot be placed.
pub fn plan(world: &World, settled: &Result<Settled, Refusal>) -> Plan {
    if let Some(term) = retirement(world) {
        return Plan::of(vec![Action::WriteTerm(Box::new(term))]);
    }
    let mut plan = Plan::of(removals(world));
    match (heir(world, settled), full(world)) {
        (_, Some(refusal)) => plan.unplaced = Some(refusal),
        (Some(Ok(action)), None) => plan.actions.push(action),
        (Some(Err(refusal)), None) => plan.unplaced = Some(refusal),
        (None, None) => {}
    }
    plan
}

/// Whether an heir is to be placed: then the world needs all nodes and all legs.
pub fn places(world: &World) -> bool {
    vacant(world).is_some() && full(world).is_none()
}

/// No name can be retired any more, so no leg can be replaced.
fn full(world: &World) -> Option<Refusal> {
    let count = world.term().map_or(0, |t| t.retired.len());
    let message =
        format!("{count} legs of this volume were replaced and the record has no room for another name: copy the data");
    (count >= RETIRED_MAX && vacant(world).is_some()).then(|| Refusal::new(conditions::REASON_INVALID, message))
}

/// The seat whose newest leg must be replaced, and why.
fn vacant(world: &World) -> Option<(Seat<'_>, Why)> {
    seats::seats(world).into_iter().find_map(|seat| {
        let reason = why(world, seat.holder)?;
        let newest = seat.legs().last().filter(|newest| why(world, newest).is_some())?;
        let taken =
            seat.heirs.iter().any(|heir| inside(world, heir)) || (!seat.heirs.is_empty() && inside(world, newest));
        (!taken).then_some((seat, reason))
    })
}

/// The record with the legs that nobody needs any more in `retired`.
fn retirement(world: &World) -> Option<Term> {
    let term = record(world).filter(|_| terms::start(world).is_none())?;
    let room = RETIRED_MAX.saturating_sub(term.retired.len());
    let over: Vec<String> = seats::seats(world)
        .iter()
        .flat_map(|seat| superfluous(world, seat))
        .map(MeshReplica::name_any)
        .take(room)
        .collect();
    (!over.is_empty()).then(|| retire(term, over))
}

/// `term` with `legs` retired, which takes them out of `bitmapUsable` too.
pub fn retire(term: &Term, legs: Vec<String>) -> Term {
    let mut new = term.clone();
    new.bitmap_usable.retain(|leg| !legs.contains(leg));
    new.retired.extend(legs);
    new
}

/// The legs of a seat that will never be used again.
fn superfluous<'a>(world: &World, seat: &Seat<'a>) -> Vec<&'a MeshReplica> {
    // What is still in the array is let go of by the consumer first.
    let loose = |leg: &&'a MeshReplica| !inside(world, leg) && member(world, leg).is_none();
    if seat.heirs.iter().any(|heir| inside(world, heir)) {
        return seat.legs().filter(loose).collect();
    }
    let filled = seat.heirs.iter().copied().find(|heir| member(world, heir).is_some());
    let heir = filled.or(seat.ready_heir());
    let others = || seat.heirs.iter().copied().filter(|leg| heir.is_some_and(|h| h.name_any() != leg.name_any()));
    match (inside(world, seat.holder), why(world, seat.holder)) {
        // It came back, or may stay after all.
        (true, None) => seat.heirs.iter().copied().filter(loose).collect(),
        (true, Some(_)) => others().filter(loose).collect(),
        (false, Some(reason)) if heir.is_some() => {
            // What is just being copied to is not given up for having been away.
            let copied = member(world, seat.holder) == Some(MemberState::Rebuilding) && reason == Why::Away;
            if copied { Vec::new() } else { std::iter::once(seat.holder).chain(others().filter(loose)).collect() }
        }
        _ => Vec::new(),
    }
}

/// Whether the bytes of a retired leg are nobody's last resort: it has none, or a leg of S has its seat.
pub fn may_be_wiped(world: &World, leg: &MeshReplica) -> bool {
    let alone = world.volume.spec.replica_count == 1;
    let seat = |l: &&MeshReplica| {
        l.spec.mirror_set == leg.spec.mirror_set && (alone || l.spec.slot == leg.spec.slot) && inside(world, l)
    };
    blank(leg) || world.legs.iter().any(|l| seat(&l))
}

/// Retired legs are deleted; their daemons wipe them. Of a node that is gone for good nobody can: the object goes alone.
fn removals(world: &World) -> Vec<Action> {
    let of = |leg: &MeshReplica| {
        let name = leg.name_any();
        match leg.metadata.deletion_timestamp {
            None => may_be_wiped(world, leg).then_some(Action::DeleteReplica { leg: name }),
            Some(_) => world.gone(&leg.spec.node).then_some(Action::ReleaseReplica { leg: name }),
        }
    };
    world.legs.iter().filter(|leg| retired(world, leg)).filter_map(of).collect()
}

/// The heir of the next seat that needs one, on the best place that is left.
fn heir(world: &World, settled: &Result<Settled, Refusal>) -> Option<Result<Action, Refusal>> {
    let (seat, _) = vacant(world)?;
    let settled = match settled {
        Ok(settled) => settled,
        Err(refusal) => return Some(Err(refusal.clone())),
    };
    let slot = (slot(world, seat.holder), seat.holder.spec.mirror_set);
    let staying: Vec<MeshReplica> = world
        .legs
        .iter()
        .filter(|leg| !retired(world, leg) && seat.legs().all(|l| l.name_any() != leg.name_any()))
        .cloned()
        .collect();
    let name = naming::successor(&world.name(), slot.0, next_generation(world));
    let silent: Vec<&str> =
        seat.legs().filter(|leg| reasons::silent(world, leg)).map(|leg| leg.spec.node.as_str()).collect();
    let nodes = world.nodes.iter().filter(|node| !silent.contains(&node.name_any().as_str())).cloned().collect();
    let there = World { nodes, ..world.clone() };
    Some(placing::heir(&there, settled, slot, &staying).map(|spot| {
        let mut spec = placing::leg_spec(world, settled, spot);
        spec.replaces = Some(seat.holder.name_any());
        spec.overwritten = placing::all_copied(settled.resolved.bitmap);
        Action::CreateReplica { leg: name, spec: Box::new(spec) }
    }))
}

/// An heir gets the slot of its holder; that of a single copy the other slot of its set, which is empty.
fn slot(world: &World, holder: &MeshReplica) -> i32 {
    if world.volume.spec.replica_count == 1 { holder.spec.slot ^ 1 } else { holder.spec.slot }
}

/// A generation that no leg of the volume has ever had: whoever leaves is retired first, and `retired` never shrinks.
pub fn next_generation(world: &World) -> u32 {
    let retired = world.term().map_or(&[][..], |t| &t.retired).iter().map(|name| naming::generation(name));
    let there = world.legs.iter().map(|leg| naming::generation(&leg.name_any()));
    retired.chain(there).max().unwrap_or(0) + 1
}

/// What is said of replacements while there are any.
pub fn condition(world: &World, unplaced: Option<&Refusal>) -> Option<Want> {
    let said = |status, reason, message: String| Some(Want::new(conditions::REPLACING, status, reason, message));
    let seats = seats::seats(world);
    let all = || seats.iter().filter_map(|seat| Some((seat, why(world, seat.holder)?)));
    if let (Some(refusal), Some((seat, reason))) = (unplaced, all().next()) {
        let message = format!("{} ({}) cannot be replaced: {}", place(seat.holder), reason.reason(), refusal.message);
        return said(false, refusal.reason, message);
    }
    let mut news: Vec<String> = all().map(|(seat, _)| progress(world, seat)).collect();
    news.extend(
        world.legs.iter().filter(|leg| retired(world, leg) && record(world).is_some()).map(|leg| leaving(world, leg)),
    );
    let filled = |leg: &&MeshReplica| leg.spec.replaces.is_some() && !retired(world, leg) && !inside(world, leg);
    news.extend(seats.iter().map(|seat| seat.holder).filter(filled).map(|leg| waiting(world, leg)));
    let reason = all().next().map_or(conditions::REASON_LEG_MISSING, |(_, reason)| reason.reason());
    if news.is_empty() { None } else { said(true, reason, news.join("; ")) }
}

fn place(leg: &MeshReplica) -> String {
    format!("{} on {}", leg.name_any(), leg.spec.node)
}

fn progress(world: &World, seat: &Seat<'_>) -> String {
    match seat.heirs.last() {
        None => format!("a place for another {} is looked for", place(seat.holder)),
        Some(heir) => format!("{} takes the place of {}: {}", place(heir), place(seat.holder), stage(world, heir)),
    }
}

fn waiting(world: &World, leg: &MeshReplica) -> String {
    let of = leg.spec.replaces.as_deref().unwrap_or_default();
    format!("{} takes the place of {of}: {}", place(leg), stage(world, leg))
}

/// How far an heir is, for people.
pub fn stage(world: &World, heir: &MeshReplica) -> &'static str {
    match member(world, heir) {
        _ if !prepared(heir) => "it is being made",
        Some(MemberState::Rebuilding) => "it is being copied to",
        _ if world.wanted().is_none() => "it is copied to when a node can run the array",
        _ => "it waits for the array",
    }
}

fn leaving(world: &World, leg: &MeshReplica) -> String {
    let name = place(leg);
    match (&leg.metadata.deletion_timestamp, world.node_ready(&leg.spec.node)) {
        (None, _) => format!("{name} is retired, and wiped when another leg has its place"),
        (Some(_), Ok(())) if reasons::drive_gone(world, leg) => format!(
            "{name} is wiped when its drive is back; if that is destroyed, take the finalizer from its MeshReplica by hand"
        ),
        (Some(_), Ok(())) => format!("{name} is being wiped"),
        (Some(_), Err(why)) => {
            format!("{name} is wiped when its node is back ({why}); if it never comes, delete its MeshNode")
        }
    }
}
