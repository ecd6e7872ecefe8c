//! The operator as the protocol's text has it: just enough of steps 3 to 6 and 10 to 13.

use meshstor_crds::{Grant, MeshAttachment, MeshReplica, Term, TermPhase};

use super::api::State;

/// One round: at most one write for each object.
pub fn operate(state: &mut State, up: &dyn Fn(&str) -> bool) {
    for name in state.attachments.keys().cloned().collect::<Vec<_>>() {
        let object = state.attachments[&name].clone();
        let legs: Vec<MeshReplica> = state.replicas.values().filter(|r| r.spec.volume == name).cloned().collect();
        if let Some(next) = record(&object, &legs, up) {
            let mut object = object.clone();
            object.status.get_or_insert_default().term = Some(next);
            state.put_attachment(object).unwrap();
        }
        let object = state.attachments[&name].clone();
        for leg in legs {
            let spec = told(&object, &leg, up);
            if spec != leg.spec {
                let version = state.bump();
                let mut next = MeshReplica { spec, ..leg.clone() };
                next.metadata.resource_version = version;
                state.replicas.insert(leg.metadata.name.clone().unwrap(), next);
            }
        }
    }
}

fn over(object: &MeshAttachment, term: &Term) -> bool {
    let status = object.status.as_ref().unwrap();
    let lost = |l: &meshstor_crds::LostConsumer| l.node == term.node && l.epoch == term.epoch;
    status.ended.as_ref().is_some_and(|e| e.epoch == term.epoch) || object.spec.lost.as_ref().is_some_and(lost)
}

fn record(object: &MeshAttachment, legs: &[MeshReplica], up: &dyn Fn(&str) -> bool) -> Option<Term> {
    let name = |l: &MeshReplica| l.metadata.name.clone().unwrap();
    let Some(term) = object.status.as_ref().and_then(|s| s.term.clone()) else {
        let blank = |l: &MeshReplica| l.status.as_ref().and_then(|s| s.partition.as_ref()).is_some_and(|p| p.blank);
        let node = object.spec.node.clone().filter(|_| legs.iter().all(blank))?;
        return Some(Term {
            epoch: 1,
            node,
            phase: TermPhase::Revoking,
            in_sync: legs.iter().map(name).collect(),
            bitmap_usable: vec![],
            retired: vec![],
            initialised: false,
            writer: None,
        });
    };
    if term.phase == TermPhase::Revoking {
        let set: Vec<_> = legs.iter().filter(|l| term.in_sync.contains(&name(l))).collect();
        let confirmed = |l: &MeshReplica| l.status.as_ref().and_then(|s| s.revoked_below).unwrap_or(0) >= term.epoch;
        let waits = set.iter().any(|l| up(&l.spec.node) && !confirmed(l));
        let in_sync: Vec<_> = set.iter().filter(|l| confirmed(l)).map(|l| name(l)).collect();
        let start = !waits && !in_sync.is_empty();
        return start.then_some(Term { in_sync, phase: TermPhase::Started, ..term });
    }
    let node = object.spec.node.clone().filter(|_| over(object, &term))?;
    Some(Term { epoch: term.epoch + 1, node, phase: TermPhase::Revoking, writer: None, ..term })
}

fn told(object: &MeshAttachment, leg: &MeshReplica, up: &dyn Fn(&str) -> bool) -> meshstor_crds::MeshReplicaSpec {
    let mut spec = leg.spec.clone();
    let Some(term) = object.status.as_ref().and_then(|s| s.term.clone()) else { return spec };
    let status = leg.status.clone().unwrap_or_default();
    let made = status.partition.is_some_and(|p| p.blank) || spec.epoch > 0;
    if !made || term.retired.contains(leg.metadata.name.as_ref().unwrap()) {
        spec.grant = None;
        return spec;
    }
    if spec.epoch < term.epoch {
        spec.epoch = term.epoch;
        spec.grant = None;
        return spec;
    }
    if over(object, &term) {
        spec.grant = None;
    }
    let serves = matches!(term.phase, TermPhase::Started | TermPhase::Running) && !over(object, &term);
    if !serves || status.revoked_below.unwrap_or(0) < term.epoch || !up(&spec.node) {
        return spec;
    }
    let in_set = term.in_sync.contains(leg.metadata.name.as_ref().unwrap());
    let spent = spec.grant.as_ref().is_some_and(|g| status.spent_grant >= Some(g.number) && status.export.is_none());
    let renew = spent && !in_set && term.phase == TermPhase::Running;
    if spec.grant.is_none() || renew {
        let number = status.spent_grant.unwrap_or(0).max(spec.grant.as_ref().map_or(0, |g| g.number)) + 1;
        let host_nqn = format!("nqn.2014-08.org.nvmexpress:uuid:{}", term.node);
        spec.grant = Some(Grant { epoch: term.epoch, number, consumer: term.node, host_nqn, copy_later: false });
    }
    spec
}
