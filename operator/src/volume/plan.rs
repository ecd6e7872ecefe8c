//! The next safe steps of a volume, derived from what is observed.

use super::action::{Action, Plan, Refusal};
use super::clocks::{GIVEN_UP_GRACE, REVOKE_GRACE};
use super::validate::Settled;
use super::world::World;
use super::{copying, deletion, grants, placing, reasons, replacing, terms};
use crate::node;
use meshstor_crds::TermPhase;
use std::time::Duration;

/// The next steps. A refused spec stops placement; a placed volume is served on all the same.
pub fn plan(world: &World, settled: &Result<Settled, Refusal>) -> Plan {
    let retired = world.term().is_some_and(|t| t.phase == TermPhase::Retired);
    if world.deleting() && (retired || world.wanted().is_none()) {
        return copying::plan(world).map_or_else(|| deletion::plan(world), |action| Plan::of(vec![action]));
    }
    match (&world.attachment, settled) {
        (Some(_), _) => serve(world, settled),
        (None, Ok(settled)) => placing::plan(world, settled),
        (None, Err(refusal)) => Plan::blocked(refusal.clone()),
    }
}

/// Moves the record and the grants of a placed volume towards where it is wanted.
fn serve(world: &World, settled: &Result<Settled, Refusal>) -> Plan {
    if world.record_lost() {
        return Plan::blocked(placing::lost_record());
    }
    if let Some(refusal) = placing::unadopted(world) {
        return Plan::blocked(refusal);
    }
    if let Some(term) = terms::first(world).or_else(|| terms::next(world)) {
        return Plan::of(vec![Action::WriteTerm(Box::new(term))]);
    }
    if let Some(action) = copying::plan(world) {
        return Plan::of(vec![action]);
    }
    let replacing = replacing::plan(world, settled);
    // One write of the record, then another look.
    if replacing.actions.iter().any(|action| matches!(action, Action::WriteTerm(_))) {
        return replacing;
    }
    let mut actions = terms::tell(world);
    actions.extend(terms::start(world).map(|term| Action::WriteTerm(Box::new(term))));
    actions.extend(grants::plan(world));
    actions.extend(replacing.actions);
    Plan { actions, blocked: None, unplaced: replacing.unplaced }
}

/// Until the next grace of a revocation is over: the short one where a leg was given up.
fn grace_left(world: &World) -> Duration {
    let waited = world.clocks.revoking_for;
    let hurried = waited < GIVEN_UP_GRACE && !terms::answers(world).given_up.is_empty();
    let (grace, least) = if hurried { (GIVEN_UP_GRACE, 1) } else { (REVOKE_GRACE, 3) };
    grace.saturating_sub(waited).max(Duration::from_secs(least))
}

/// When to look again if nothing wakes us.
pub fn next_look(world: &World, plan: &Plan) -> Duration {
    const CALM: Duration = Duration::from_secs(120);
    const UNEASY: Duration = Duration::from_secs(15);
    // Whoever ends tells who is next; this is for what nobody saw.
    const BUDGET: Duration = Duration::from_secs(5);
    let awaited = world.wanted().is_some() || world.deleting();
    let revoking = awaited && world.term().is_some_and(|t| t.phase == TermPhase::Revoking);
    let used = world.legs.iter().map(|leg| leg.spec.node.as_str()).chain(world.wanted());
    let expiries = used.map(|name| {
        let left = node::find(&world.nodes, name).and_then(|n| node::expires_in(n, world.now));
        left.map_or(UNEASY, |left| left.saturating_add(Duration::from_secs(1)))
    });
    let others = [
        plan.blocked.is_some().then_some(UNEASY),
        (world.clocks.retry_in > Duration::ZERO).then_some(world.clocks.retry_in),
        world.clocks.idle_in.values().min().copied(),
        (!world.clocks.waits.is_empty()).then_some(BUDGET),
        revoking.then(|| grace_left(world)),
        plan.unplaced.is_some().then_some(UNEASY),
        world.legs.iter().filter_map(|leg| reasons::overdue_in(world, leg)).filter(|left| !left.is_zero()).min(),
        Some(CALM),
    ];
    expiries.chain(others.into_iter().flatten()).min().unwrap_or(CALM).max(Duration::from_secs(1))
}
