//! Steps 6, 10 and 11 of the protocol: who may use a leg.

use super::action::Action;
use super::world::{World, confirmed};
use super::{budget, reasons, seats};
use crate::node;
use kube::ResourceExt as _;
use meshstor_crds::{Grant, MeshReplica, Term, TermPhase};
use std::time::Duration;

/// Gives, renews and takes back grants of the record's epoch.
pub fn plan(world: &World) -> Vec<Action> {
    let Some(term) = world.term() else { return Vec::new() };
    if world.ended().is_some() {
        return clear_all(world);
    }
    let here = world.wanted() == Some(term.node.as_str());
    if !here || !matches!(term.phase, TermPhase::Started | TermPhase::Running) {
        return Vec::new();
    }
    world.legs.iter().filter_map(|leg| one(world, term, leg)).collect()
}

fn clear_all(world: &World) -> Vec<Action> {
    let granted = world.legs.iter().filter(|leg| leg.spec.grant.is_some());
    granted.map(|leg| Action::ClearGrant { leg: leg.name_any() }).collect()
}

fn one(world: &World, term: &Term, leg: &MeshReplica) -> Option<Action> {
    let name = leg.name_any();
    let inside = term.in_sync.contains(&name);
    if term.retired.contains(&name) || !(inside || reasons::candidate(world, leg)) {
        let idle = leg.spec.grant.is_some() && term.phase == TermPhase::Running && !inside;
        // Its consumer lets go of the path before the target closes the export.
        let idle = idle && seats::member(world, leg).is_none();
        return idle.then_some(Action::ClearGrant { leg: name });
    }
    let told = leg.spec.epoch == term.epoch && confirmed(leg, term.epoch);
    if !told || world.node_ready(&leg.spec.node).is_err() {
        return None;
    }
    if world.clocks.idle_in.get(&name).is_some_and(Duration::is_zero) {
        return Some(Action::ClearGrant { leg: name });
    }
    // Whoever is outside S is rebuilt: that has a budget, and nothing comes of it where the drive fails.
    let waits = world.clocks.waits.contains(&name) && !inside;
    let hopeless = budget::fails(leg) && !inside;
    if let Some(grant) = leg.spec.grant.as_ref().filter(|g| g.copy_later && !waits && !hopeless && !spent(term, leg)) {
        return Some(Action::SetGrant { leg: name, grant: Grant { copy_later: false, ..grant.clone() } });
    }
    let due = leg.spec.grant.is_none() || spent(term, leg);
    // In a running epoch a leg of S has had its grant: a second one would let a leg back in without a rebuild (I6).
    let first_of_started = term.phase == TermPhase::Started && leg.spec.grant.is_none();
    let outside_of_running = term.phase == TermPhase::Running && !inside;
    let closed = leg.status.as_ref().is_none_or(|s| s.export.is_none());
    let held = hopeless || (waits && !world.clocks.ahead.contains(&name));
    if !due || !closed || held || !(first_of_started || outside_of_running) {
        return None;
    }
    let host_nqn = node::find(&world.nodes, &term.node).and_then(node::host_nqn)?.to_owned();
    let (epoch, consumer) = (term.epoch, term.node.clone());
    let grant = Grant { epoch, number: next_number(leg), consumer, host_nqn, copy_later: waits };
    Some(Action::SetGrant { leg: name, grant })
}

/// Whether the target has served the grant on an earlier boot and shows no export of it. A leg on the consumer itself
/// is never exported: it keeps its grant for the whole epoch.
fn spent(term: &Term, leg: &MeshReplica) -> bool {
    let (Some(grant), Some(status)) = (&leg.spec.grant, &leg.status) else { return false };
    let served = status.spent_grant.is_some_and(|spent| spent >= grant.number);
    leg.spec.node != term.node && served && status.export.is_none()
}

/// A number that no export of the leg has ever had.
pub fn next_number(leg: &MeshReplica) -> i64 {
    let spent = leg.status.as_ref().and_then(|s| s.spent_grant).unwrap_or(0);
    let exported = leg.status.as_ref().and_then(|s| s.export.as_ref()).map_or(0, |e| e.grant);
    let given = leg.spec.grant.as_ref().map_or(0, |g| g.number);
    spent.max(given).max(exported) + 1
}
