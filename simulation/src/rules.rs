//! What a real API server refuses of the objects that the protocol leans on: the rules of the definitions, and those of
//! the admission policies, said once more. Nobody of ours may ever send what they forbid.

use meshstor_crds::{MeshAttachment, MeshReplica, Term, TermPhase};

/// Who writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// An operator.
    Operator,
    /// The daemon of a node.
    Daemon(String),
    /// A person.
    Person,
}

fn must(holds: bool, rule: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(rule.to_owned()) }
}

fn within(a: &[String], b: &[String]) -> bool {
    a.iter().all(|l| b.contains(l))
}

/// Rules of a `MeshAttachment`.
pub(crate) fn attachment(old: Option<&MeshAttachment>, new: &MeshAttachment, by: &By) -> Result<(), String> {
    let Some(old) = old else { return Ok(()) };
    let term = |a: &MeshAttachment| a.status.as_ref().and_then(|s| s.term.clone());
    let ended = |a: &MeshAttachment| a.status.as_ref().and_then(|s| s.ended.as_ref()).map(|e| e.epoch);
    if *by == By::Person {
        return must(old.status == new.status, "I2: people do not write the record");
    }
    must(old.spec == new.spec, "the spec is a person's")?;
    must(ended(new) >= ended(old), "status.ended only grows")?;
    must(ended(new).is_none() || ended(new) <= term(new).map(|t| t.epoch), "an epoch ended that never began")?;
    match (term(old), term(new)) {
        (None, None) => Ok(()),
        (Some(_), None) => Err("I2: the record is never removed".to_owned()),
        (None, Some(new)) => must(new.epoch == 1 && new.phase == TermPhase::Revoking, "I2: the first record"),
        (Some(old), Some(new)) => record(&old, &new).and_then(|()| author(&old, &new, by)),
    }
}

fn record(old: &Term, new: &Term) -> Result<(), String> {
    let same = new.epoch == old.epoch;
    let next = new.epoch == old.epoch + 1 && new.phase == TermPhase::Revoking && old.phase != TermPhase::Retired;
    must(same || next, "I2: the epoch grows by one and begins with Revoking; none follows Retired")?;
    must(!same || new.node == old.node, "I2: the node changes only with the epoch")?;
    let goes = matches!(
        (old.phase, new.phase),
        (TermPhase::Revoking, TermPhase::Started | TermPhase::Retired) | (TermPhase::Started, TermPhase::Running)
    );
    must(!same || new.phase == old.phase || goes, "I2: the phase goes one way")?;
    must(!new.in_sync.is_empty(), "I1: S is never empty")?;
    let running = same && old.phase == TermPhase::Running && new.phase == TermPhase::Running;
    must(within(&new.in_sync, &old.in_sync) || running, "I6: S grows only in a running epoch")?;
    must(within(&old.retired, &new.retired), "rule 8: retired never shrinks")?;
    must(!new.in_sync.iter().any(|l| new.retired.contains(l)), "I6: a retired leg is never in S")?;
    must(new.initialised || !old.initialised, "initialised never goes back")
}

fn author(old: &Term, new: &Term, by: &By) -> Result<(), String> {
    match by {
        By::Daemon(node) => {
            must(old.node == *node && new.epoch == old.epoch, "I2: a daemon writes the record of its own epoch")?;
            must(new.retired == old.retired, "rule 8: the operator retires")?;
            let claims = (old.phase, new.phase) == (TermPhase::Started, TermPhase::Running);
            must(claims || new.phase == old.phase, "I2: a daemon claims, and nothing else of the phase")
        }
        By::Operator => {
            must(within(&new.in_sync, &old.in_sync), "I6: the operator never adds to S")?;
            must(within(&new.bitmap_usable, &old.bitmap_usable), "rule 7: the operator vouches for no bitmap")?;
            must(new.phase != TermPhase::Running || old.phase == TermPhase::Running, "I2: only a daemon claims")
        }
        By::Person => Ok(()),
    }
}

/// Rules of a `MeshReplica`.
pub(crate) fn replica(old: Option<&MeshReplica>, new: &MeshReplica, by: &By) -> Result<(), String> {
    let Some(old) = old else { return must(*by == By::Operator, "legs are the operator's") };
    if let By::Daemon(node) = by {
        must(*node == old.spec.node, "a daemon writes the legs of its own node")?;
        must(old.spec == new.spec, "the spec of a leg is the operator's")?;
    }
    let (was, is) = (old.status.clone().unwrap_or_default(), new.status.clone().unwrap_or_default());
    must(is.revoked_below >= was.revoked_below, "revokedBelow only grows")?;
    must(is.spent_grant >= was.spent_grant, "spentGrant only grows")?;
    must(new.spec.epoch >= old.spec.epoch, "a leg's epoch only grows")?;
    let Some(grant) = &new.spec.grant else { return Ok(()) };
    must(grant.epoch == new.spec.epoch, "I2: a grant is of the newest epoch")?;
    let Some(before) = &old.spec.grant else { return Ok(()) };
    must(grant.number >= before.number, "rule 1: grants only grow")?;
    must(grant.number > before.number || grant.consumer == before.consumer, "rule 1: a grant is one consumer's")
}
