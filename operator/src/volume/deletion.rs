//! Step 13 of the protocol: every leg is told and confirms, the record retires, then objects go in order.

use super::action::Action;
use super::action::Plan;
use super::placing::lost_record;
use super::terms;
use super::world::{World, confirmed};
use kube::ResourceExt as _;
use meshstor_crds::{MeshReplica, Term, TermPhase, VOLUME_FINALIZER};

/// The steps of a volume that is being deleted and is wanted nowhere.
pub fn plan(world: &World) -> Plan {
    match world.term() {
        None if world.record_lost() => Plan::blocked(lost_record()),
        None => Plan::of(remove(world)),
        Some(term) if term.phase == TermPhase::Retired => Plan::of(remove(world)),
        Some(term) => Plan::of(retire(world, term)),
    }
}

fn retire(world: &World, term: &Term) -> Vec<Action> {
    let write = |term: Term| vec![Action::WriteTerm(Box::new(term))];
    match term.phase {
        TermPhase::Revoking => {
            let told = terms::tell(world);
            let all = told.is_empty() && world.legs.iter().all(|leg| confirmed(leg, term.epoch) || world.silent(leg));
            if all { write(Term { phase: TermPhase::Retired, ..term.clone() }) } else { told }
        }
        _ if world.over() => write(terms::successor(term, &term.node)),
        _ => Vec::new(),
    }
}

/// Legs, then the attachment, then the volume: each only when the ones before are observed gone.
fn remove(world: &World) -> Vec<Action> {
    if !world.legs.is_empty() {
        let of = |leg: &MeshReplica| match leg.metadata.deletion_timestamp {
            None => Some(Action::DeleteReplica { leg: leg.name_any() }),
            Some(_) => world.gone(&leg.spec.node).then(|| Action::ReleaseReplica { leg: leg.name_any() }),
        };
        return world.legs.iter().filter_map(of).collect();
    }
    match &world.attachment {
        Some(a) if a.metadata.deletion_timestamp.is_none() => vec![Action::DeleteAttachment],
        Some(a) if a.finalizers().iter().any(|f| f == VOLUME_FINALIZER) => vec![Action::ReleaseAttachment],
        Some(_) => Vec::new(),
        None if world.volume.finalizers().iter().any(|f| f == VOLUME_FINALIZER) => vec![Action::RemoveFinalizer],
        None => Vec::new(),
    }
}
