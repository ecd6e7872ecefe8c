//! Steps 3, 4 and 5 of the protocol: the record moves to its next epoch, the legs are told, and the epoch starts.

use super::action::Action;
use super::clocks::{GIVEN_UP_GRACE, REVOKE_GRACE};
use super::world::{World, blank, confirmed, zeros};
use kube::ResourceExt as _;
use meshstor_crds::geometry;
use meshstor_crds::{EndedReason, MeshReplica, Term, TermPhase};
use std::time::Duration;

/// The record of a volume that never had one: it starts from all legs, each proved to be zeros.
pub fn first(world: &World) -> Option<Term> {
    let node = world.wanted().filter(|node| world.willing(node))?;
    // A volume that goes is never begun: a record that nobody retires would keep it for ever.
    let begun = world.term().is_some() || world.volume.spec.adopts.is_some();
    if world.deleting() || begun || world.legs.is_empty() || !world.legs.iter().all(zeros) {
        return None;
    }
    Some(Term {
        epoch: 1,
        node: node.to_owned(),
        phase: TermPhase::Revoking,
        in_sync: world.legs.iter().map(MeshReplica::name_any).collect(),
        bitmap_usable: Vec::new(),
        retired: Vec::new(),
        initialised: false,
        writer: None,
    })
}

/// The record of the next epoch, when the old one is over and another is needed.
pub fn next(world: &World) -> Option<Term> {
    let term = world.term().filter(|t| t.phase != TermPhase::Retired)?;
    let node = match world.wanted() {
        // Wanted nowhere, and its consumer given up: cut it off at the legs, once.
        None => (world.given_up() && world.ended().is_none() && term.phase != TermPhase::Revoking)
            .then_some(term.node.as_str())?,
        Some(node) if node == term.node => restart(world).then_some(node)?,
        Some(node) => world.over().then_some(node)?,
    };
    let willing = world.wanted().is_none() || world.willing(node);
    willing.then(|| successor(term, node))
}

/// Whether the epoch of the node that is wanted must be followed by another on the same node.
fn restart(world: &World) -> bool {
    match world.ended() {
        Some(EndedReason::StartFailed) => world.clocks.retry_in == Duration::ZERO,
        Some(EndedReason::Detached | EndedReason::ArrayGone) => true,
        None => world.given_up(),
    }
}

/// `epoch + 1` on `node`: everything else stays, but no daemon has claimed it.
pub fn successor(term: &Term, node: &str) -> Term {
    Term { epoch: term.epoch + 1, node: node.to_owned(), phase: TermPhase::Revoking, writer: None, ..term.clone() }
}

/// Tells each leg of the record's epoch; the old grant goes in the same write.
pub fn tell(world: &World) -> Vec<Action> {
    let Some(term) = world.term() else { return Vec::new() };
    // A leg that is still being made would take itself for one that was used.
    let made = |leg: &&MeshReplica| leg.spec.epoch > 0 || blank(leg);
    let late = world.legs.iter().filter(|leg| leg.spec.epoch < term.epoch).filter(made);
    late.map(|leg| Action::SetReplicaEpoch { leg: leg.name_any(), epoch: term.epoch }).collect()
}

/// What the legs of S say to the record's epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// They have confirmed.
    pub confirmed: Vec<String>,
    /// They have not, and are on the node whose array the record's epoch takes over, which somebody gave up, or on one that is out of
    /// service: they are hardly waited for.
    pub given_up: Vec<String>,
    /// They have not, and their node answers: they are waited for.
    pub awaited: Vec<String>,
    /// They have not, and their node does not answer.
    pub silent: Vec<String>,
}

/// Sorts S by what its legs say to the record's epoch.
pub fn answers(world: &World) -> Answers {
    let mut answers = Answers::default();
    let Some(term) = world.term() else { return answers };
    for name in &term.in_sync {
        let leg = world.leg(name);
        let list = match leg {
            Some(leg) if confirmed(leg, term.epoch) => &mut answers.confirmed,
            Some(leg) if world.abandoned(&leg.spec.node) => &mut answers.given_up,
            Some(leg) if world.node_ready(&leg.spec.node).is_ok() => &mut answers.awaited,
            _ => &mut answers.silent,
        };
        list.push(name.clone());
    }
    answers
}

/// Whether `legs` have a copy of every block: one of each mirror set at least. Without it nothing can start.
pub fn covers(world: &World, legs: &[String]) -> bool {
    geometry::copies(&world.legs, |leg| legs.contains(&leg.name_any())) > 0
}

/// The record with its start set, once S has confirmed – or, after the grace of each, what of S is neither on silent nodes nor
/// given up.
pub fn start(world: &World) -> Option<Term> {
    let term = world.term().filter(|t| t.phase == TermPhase::Revoking)?;
    let here = world.wanted() == Some(term.node.as_str()) && world.node_ready(&term.node).is_ok();
    let answers = answers(world);
    let waited = |late: &[String], grace| late.is_empty() || world.clocks.revoking_for >= grace;
    let patient = waited(&answers.silent, REVOKE_GRACE) && waited(&answers.given_up, GIVEN_UP_GRACE);
    if !here || !patient || !covers(world, &answers.confirmed) || !answers.awaited.is_empty() {
        return None;
    }
    let usable = term.bitmap_usable.clone();
    Some(Term { phase: TermPhase::Started, in_sync: answers.confirmed, bitmap_usable: usable, ..term.clone() })
}
