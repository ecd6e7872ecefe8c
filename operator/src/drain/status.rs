//! What a drain says of itself. Pure.

use super::decision::{Decision, named};
use super::world::World;
use meshstor_crds::conditions::{self, Want};
use meshstor_crds::{DrainMode, DrainVolume, DrainVolumeState, NodeDrainStatus, Time};

/// Volumes that a status names, the type's bound.
const VOLUMES_MAX: usize = 64;

/// The status that says `decision`.
pub fn status(world: &World, decision: &Decision<'_>) -> NodeDrainStatus {
    let drain = decision.drain;
    let old = drain.status.clone().unwrap_or_default();
    let generation = drain.metadata.generation;
    let since = old.released_at.unwrap_or(Time(world.now));
    NodeDrainStatus {
        observed_generation: generation,
        conditions: conditions::apply(&old.conditions, &wants(decision), generation, &Time(world.now)),
        released_at: decision.released.then_some(since),
        volumes_total: i32::try_from(decision.most).ok(),
        volumes_ready: Some(format!("{}/{}", decision.most - decision.waits.len(), decision.most)),
        volumes: decision.waits.iter().take(VOLUMES_MAX).cloned().collect(),
    }
}

fn wants(decision: &Decision<'_>) -> Vec<Want> {
    let (beside, reason, message) = verdict(decision);
    let ready = Want::new(conditions::READY, beside.is_none(), reason, message.clone());
    let beside = beside.map(|type_| Want::new(type_, true, reason, message));
    [Some(ready), beside].into_iter().flatten().collect()
}

/// The condition beside `Ready=False`, none where it is true; the reason and the message of both.
fn verdict(decision: &Decision<'_>) -> (Option<&'static str>, &'static str, String) {
    let (node, total) = (&decision.drain.spec.node, decision.total);
    if decision.unknown {
        let message = format!("there is no MeshNode {node}: delete this drain, or mend spec.node by making another");
        return (Some(conditions::STALLED), conditions::REASON_NOT_FOUND, message);
    }
    if decision.released {
        let message = match decision.drain.spec.mode {
            DrainMode::Evacuate => format!("nothing of MeshStor's is left on {node}"),
            DrainMode::Maintenance => format!("{node} may go: every one of its {total} volumes is safe without it"),
        };
        return (None, conditions::REASON_SUCCEEDED, message);
    }
    let of = |state| decision.waits.iter().filter(move |w| w.state == state);
    let going = |reason, message| (Some(conditions::RECONCILING), reason, message);
    if let Some(first) = of(DrainVolumeState::Blocked).next() {
        return (Some(conditions::STALLED), conditions::REASON_BLOCKED, told(decision, first));
    }
    if let Some(first) = of(DrainVolumeState::Moving).max_by_key(|w| w.resync.as_ref().map(|r| r.percent)) {
        return going(conditions::REASON_MOVING, told(decision, first));
    }
    if let Some(first) = of(DrainVolumeState::Waiting).next() {
        return going(conditions::REASON_TOO_FEW_COPIES, told(decision, first));
    }
    if let Some(first) = of(DrainVolumeState::ConsumerPresent).next() {
        return going(conditions::REASON_CONSUMER_PRESENT, told(decision, first));
    }
    let message = match decision.turn {
        Some(other) => {
            format!("{} may be down: one failure domain at a time, so {node} waits until that drain ends", named(other))
        }
        None => format!("{node} is looked at"),
    };
    going(conditions::REASON_OTHER_DOMAIN, message)
}

fn told(decision: &Decision<'_>, first: &DrainVolume) -> String {
    let done = decision.most - decision.waits.len();
    let resync = first.resync.as_ref();
    let percent = resync.map(|r| format!(", {} %", r.percent)).unwrap_or_default();
    let left = resync.and_then(|r| r.remaining_seconds).map(|s| format!(", about {s} s left")).unwrap_or_default();
    format!("{done} of {} volumes are ready; {}: {}{percent}{left}", decision.most, first.name, first.message)
}
