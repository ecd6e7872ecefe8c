//! How a volume is, in one word and a message: the decision behind `Ready`, `Reconciling` and `Stalled`.

use super::clocks::REVOKE_GRACE;
use super::terms::{self, Answers};
use super::world::{World, prepared};
use crate::policy::WITHOUT_BITMAP;
use kube::ResourceExt as _;
use meshstor_crds::conditions::{self, Want};
use meshstor_crds::geometry;
use meshstor_crds::{Bitmap, EndedReason, MeshReplica, Term, TermPhase};

/// The numbers behind the conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// The smallest number of legs in any mirror set that hold every acknowledged write and, where an array runs, are seen in sync.
    pub copies: usize,
    /// Copies that the spec asks for.
    pub wanted: usize,
    /// Copies below which the volume is not ready.
    pub min_in_sync: usize,
    /// Whether the consumer of a running epoch does not answer: what it reported is old.
    pub blind: bool,
    /// Whether a rebuild or resync runs, as last reported.
    pub rebuilding: bool,
}

/// What `Ready` says, and which of `Reconciling` and `Stalled` stands beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As wanted.
    Ready(&'static str, String),
    /// Not yet; work goes on.
    Going(&'static str, String),
    /// Not, and work cannot go on without a person.
    Stuck(&'static str, String),
    /// It cannot be known (I7), and a person must say.
    Unknown(&'static str, String),
}

impl Verdict {
    /// The conditions.
    pub fn wants(&self) -> Vec<Want> {
        let both = |ready: Option<bool>, beside: Option<&'static str>, reason: &'static str, message: &String| {
            let ready = Want { type_: conditions::READY, status: ready, reason, message: message.clone() };
            let beside = beside.map(|type_| Want::new(type_, true, reason, message.clone()));
            [Some(ready), beside].into_iter().flatten().collect()
        };
        match self {
            Self::Ready(reason, message) => both(Some(true), None, reason, message),
            Self::Going(reason, message) => both(Some(false), Some(conditions::RECONCILING), reason, message),
            Self::Stuck(reason, message) => both(Some(false), Some(conditions::STALLED), reason, message),
            Self::Unknown(reason, message) => both(None, Some(conditions::STALLED), reason, message),
        }
    }
}

/// The verdict on a volume that has its attachment.
pub fn placed(world: &World, picture: &Picture) -> Verdict {
    if world.deleting() && world.wanted().is_none() {
        return deleting(world);
    }
    match (world.wanted(), world.term()) {
        (None, None) => able(world, picture, "never attached yet"),
        (None, Some(_)) if world.over() => able(world, picture, "detached"),
        (None, Some(term)) => leaving(world, term),
        (Some(node), _) if world.asked().is_none() => copied(world, picture, node),
        (Some(node), None) => first_attach(world, node),
        (Some(node), Some(term)) if term.node != node && !world.over() => leaving(world, term),
        (Some(node), Some(term)) if term.node != node => unready_node(world, node, "to attach there"),
        (Some(_), Some(term)) => here(world, term, picture),
    }
}

fn deleting(world: &World) -> Verdict {
    match world.term() {
        Some(term) if term.phase == TermPhase::Revoking => {
            let late: Vec<&MeshReplica> = world
                .legs
                .iter()
                .filter(|leg| !super::world::confirmed(leg, term.epoch) && !world.silent(leg))
                .collect();
            let message = format!("waiting until {} confirm that nobody can write to them", names(&late));
            let stuck = world.clocks.revoking_for >= REVOKE_GRACE;
            if stuck && !late.is_empty() {
                Verdict::Stuck(conditions::REASON_UNCONFIRMED, message)
            } else {
                Verdict::Going(conditions::REASON_DELETING, message)
            }
        }
        Some(term) if term.phase != TermPhase::Retired && !world.over() => leaving(world, term),
        _ if world.record_lost() => {
            let refusal = super::placing::lost_record();
            Verdict::Stuck(refusal.reason, refusal.message)
        }
        _ => Verdict::Going(conditions::REASON_DELETING, format!("waiting until {} legs are wiped", world.legs.len())),
    }
}

fn names(legs: &[&MeshReplica]) -> String {
    let each: Vec<String> = legs.iter().map(|leg| format!("{} on {}", leg.name_any(), leg.spec.node)).collect();
    if each.is_empty() { "all legs".to_owned() } else { each.join(", ") }
}

/// Wanted nowhere: ready when it could be attached with enough copies now.
fn able(world: &World, picture: &Picture, how: &str) -> Verdict {
    if let Some(verdict) = preparing(world) {
        return verdict;
    }
    let in_sync = |leg: &&MeshReplica| world.term().is_none_or(|t| t.in_sync.contains(&leg.name_any()));
    let (up, down): (Vec<&MeshReplica>, Vec<&MeshReplica>) =
        world.legs.iter().filter(in_sync).partition(|leg| world.node_ready(&leg.spec.node).is_ok());
    let ready = |leg: &MeshReplica| up.iter().any(|up| up.name_any() == leg.name_any());
    let copies = geometry::copies(&world.legs, ready);
    let message = format!("{how}; {copies} of {} copies are on ready nodes", picture.wanted);
    if copies >= picture.min_in_sync {
        Verdict::Ready(conditions::REASON_DETACHED, message)
    } else {
        let message = format!("{message}, minInSync is {}; not ready: {}", picture.min_in_sync, names(&down));
        Verdict::Going(conditions::REASON_TOO_FEW_COPIES, message)
    }
}

/// Wanted nowhere, and run on `node` for a copy: ready as if it were not, unless the array shows that copies are fewer.
fn copied(world: &World, picture: &Picture, node: &str) -> Verdict {
    let how = with_daemon(world, format!("detached, and its array runs on {node} for a copy"));
    match able(world, picture, &how) {
        Verdict::Ready(_, message) if picture.copies < picture.min_in_sync => {
            let message = format!("{message}, minInSync is {}; {} are in sync", picture.min_in_sync, picture.copies);
            Verdict::Going(conditions::REASON_TOO_FEW_COPIES, message)
        }
        verdict => verdict,
    }
}

/// The legs that are still being made, if any.
fn preparing(world: &World) -> Option<Verdict> {
    let waiting: Vec<&MeshReplica> =
        world.legs.iter().filter(|leg| !prepared(leg) && leg.spec.replaces.is_none()).collect();
    if waiting.is_empty() {
        return None;
    }
    for leg in &waiting {
        let all = leg.status.as_ref().map_or(&[][..], |s| &s.conditions);
        if let Some(c) = all.iter().find(|c| c.type_ == conditions::STALLED && c.status == "True") {
            let message = format!("leg {} on {}: {}: {}", leg.name_any(), leg.spec.node, c.reason, c.message);
            return Some(Verdict::Stuck(conditions::REASON_HOST_ERROR, message));
        }
    }
    let percent = |leg: &&MeshReplica| leg.status.as_ref().and_then(|s| s.zeroed_percent).unwrap_or(0);
    let least = waiting.iter().map(percent).min().unwrap_or(0);
    let message = format!(
        "{} of {} legs are zeroed; the slowest is at {least} %",
        world.legs.len() - waiting.len(),
        world.legs.len()
    );
    Some(Verdict::Going(conditions::REASON_PREPARING, message))
}

/// The epoch's consumer is to take its array down.
fn leaving(world: &World, term: &Term) -> Verdict {
    match world.node_ready(&term.node) {
        Ok(()) => {
            let message = format!("waiting until {} has taken the array of epoch {} down", term.node, term.epoch);
            Verdict::Going(conditions::REASON_DETACHING, with_daemon(world, message))
        }
        Err(why) => Verdict::Stuck(conditions::REASON_CONSUMER_UNREACHABLE, unreachable(term, &why)),
    }
}

fn unreachable(term: &Term, why: &crate::node::NotReady) -> String {
    let (node, epoch) = (&term.node, term.epoch);
    format!(
        "consumer {node}: {why}; if it is lost for good, taint the node {taint}=nodeshutdown:NoExecute and want the volume elsewhere, \
         or set spec.lost={{node: {node}, epoch: {epoch}}} on the attachment",
        taint = crate::node::OUT_OF_SERVICE
    )
}

/// The message, and what the consumer's daemon says is wrong.
fn with_daemon(world: &World, message: String) -> String {
    let conditions = world.attachment.as_ref().and_then(|a| a.status.as_ref()).map_or(&[][..], |s| &s.conditions);
    match conditions.iter().find(|c| c.type_ == conditions::READY && c.status != "True" && !c.message.is_empty()) {
        Some(c) => format!("{message}; {}: {}", c.reason, c.message),
        None => message,
    }
}

fn first_attach(world: &World, node: &str) -> Verdict {
    if world.record_lost() {
        let refusal = super::placing::lost_record();
        return Verdict::Stuck(refusal.reason, refusal.message);
    }
    preparing(world).unwrap_or_else(|| unready_node(world, node, "to attach there"))
}

/// The record is about to move to `node`; that waits until the node answers.
fn unready_node(world: &World, node: &str, what: &str) -> Verdict {
    match world.node_ready(node) {
        Ok(()) => match world.can_run(node) {
            Ok(()) => Verdict::Going(conditions::REASON_ATTACHING, format!("attaching on {node}")),
            Err(why) => Verdict::Stuck(
                conditions::REASON_MISSING_CAPABILITY,
                format!("{node} cannot run it: {why}; attach it on another node"),
            ),
        },
        Err(crate::node::NotReady::Unknown) => {
            Verdict::Stuck(conditions::REASON_NOT_FOUND, format!("wanted on {node}: there is no MeshNode of that name"))
        }
        Err(why) => Verdict::Going(conditions::REASON_NO_HEARTBEAT, format!("waiting for {node} {what}: {why}")),
    }
}

/// Wanted on the record's own node.
fn here(world: &World, term: &Term, picture: &Picture) -> Verdict {
    match (world.ended(), term.phase) {
        (Some(EndedReason::StartFailed), _) => {
            let (n, wait) = (world.clocks.failures, world.clocks.retry_in.as_secs());
            let message = format!("start of epoch {} failed ({n} in a row); next try in {wait} s", term.epoch);
            Verdict::Going(conditions::REASON_ATTACHING, with_daemon(world, message))
        }
        (Some(_), _) => unready_node(world, &term.node, "to attach again"),
        (None, TermPhase::Retired) => Verdict::Going(conditions::REASON_DELETING, "its record is retired".to_owned()),
        (None, TermPhase::Revoking) => revoking(world, term),
        (None, _) => match world.node_ready(&term.node) {
            Err(why) => Verdict::Unknown(conditions::REASON_CONSUMER_UNREACHABLE, unreachable(term, &why)),
            Ok(()) => running(world, term, picture),
        },
    }
}

fn revoking(world: &World, term: &Term) -> Verdict {
    let Answers { confirmed, given_up, awaited, silent } = terms::answers(world);
    let late = awaited.iter().chain(&silent).chain(&given_up);
    let waiting: Vec<&MeshReplica> = late.filter_map(|name| world.leg(name)).collect();
    let message = format!("epoch {}: {} confirmed; waiting for {}", term.epoch, confirmed.len(), names(&waiting));
    if !terms::covers(world, &confirmed) && world.clocks.revoking_for >= REVOKE_GRACE {
        let remedy = "bring one of these nodes back; a leg of every mirror set must confirm before anything may start";
        return Verdict::Stuck(conditions::REASON_UNCONFIRMED, format!("{message}; {remedy}"));
    }
    match world.node_ready(&term.node) {
        Ok(()) => Verdict::Going(conditions::REASON_REVOKING, message),
        Err(_) => unready_node(world, &term.node, "to attach there"),
    }
}

fn running(world: &World, term: &Term, picture: &Picture) -> Verdict {
    let array = world.array();
    let asked = world.attachment.as_ref().and_then(|a| a.spec.mount_path.as_ref());
    let shown = array.is_some_and(|a| a.device.is_some() && (asked.is_none() || a.mount_path.as_ref() == asked));
    if !shown {
        let what = if array.is_some_and(|a| a.device.is_some()) { "mounting" } else { "assembling" };
        let message = with_daemon(world, format!("{} is {what} epoch {}", term.node, term.epoch));
        return Verdict::Going(conditions::REASON_ATTACHING, message);
    }
    let mut message = format!("attached on {} with {} of {} copies", term.node, picture.copies, picture.wanted);
    if world.volume.status.as_ref().and_then(|s| s.resolved.as_ref()).is_some_and(|r| r.bitmap == Bitmap::None) {
        message += WITHOUT_BITMAP;
    }
    if picture.copies >= picture.min_in_sync {
        Verdict::Ready(conditions::REASON_ATTACHED, message)
    } else {
        let message = format!("{message}, minInSync is {}", picture.min_in_sync);
        Verdict::Going(conditions::REASON_TOO_FEW_COPIES, message)
    }
}
