//! A volume's status as a pure function of what was observed. It never lies upward (I7).

use super::action::{Plan, Refusal};
use super::validate::Settled;
use super::verdict::{self, Picture, Verdict};
use super::world::{World, prepared};
use super::{kernels, placed, reasons, replacing};
use kube::ResourceExt as _;
use meshstor_crds::conditions::{self, Want};
use meshstor_crds::geometry;
use meshstor_crds::{LegState, MemberState, MeshReplica, MeshVolumeStatus, ResolvedPolicy, TermPhase, Time, VolumeLeg};

/// The status of `world`.
pub fn status(world: &World, settled: &Result<Settled, Refusal>, plan: &Plan) -> MeshVolumeStatus {
    let old = world.volume.status.clone().unwrap_or_default();
    let resolved = old.resolved.or_else(|| settled.as_ref().ok().map(|s| s.resolved.clone()));
    let picture = picture(world, resolved.as_ref());
    let verdict = verdict(world, settled, plan, &picture);
    let mut wants = verdict.wants();
    wants.extend([degraded(world, &picture), resynced(world, &picture)]);
    wants.push(kernels::attachable_anywhere(world, resolved.as_ref()));
    wants.push(placed::condition(world, resolved.as_ref()));
    wants.extend(kernels::of_consumer(world, &old.conditions));
    wants.extend(replacing::condition(world, plan.unplaced.as_ref()));
    if world.deleting()
        && world.wanted().is_some()
        && !wants.iter().any(|w| w.type_ != conditions::READY && is_progress(w))
    {
        let message = "wanted on a node; clear the attachment's spec.node to let it go";
        wants.push(Want::new(conditions::RECONCILING, true, conditions::REASON_STILL_ATTACHED, message));
    }
    let generation = world.volume.metadata.generation;
    MeshVolumeStatus {
        observed_generation: generation,
        conditions: conditions::apply(&old.conditions, &wants, generation, &Time(world.now)),
        resolved,
        legs: world.legs.iter().map(|leg| volume_leg(world, leg)).collect(),
        copies: (!world.legs.is_empty()).then(|| format!("{}/{}", picture.copies, picture.wanted)),
        consumer: consumer(world),
        policy_generation: world.policy.as_ref().and_then(|policy| policy.metadata.generation),
        resync: world.array().and_then(|a| a.resync.as_ref()).map(|r| format!("{}%", r.percent)),
    }
}

fn is_progress(want: &Want) -> bool {
    want.type_ == conditions::RECONCILING || want.type_ == conditions::STALLED
}

fn picture(world: &World, resolved: Option<&ResolvedPolicy>) -> Picture {
    let count = |n: i32| usize::try_from(n).unwrap_or(0);
    let running = world.term().filter(|t| t.phase == TermPhase::Running && world.ended().is_none());
    let rebuilds = |a: &meshstor_crds::ArrayStatus| {
        a.resync.is_some() || a.members.iter().any(|m| m.state == MemberState::Rebuilding)
    };
    Picture {
        copies: geometry::copies(&world.legs, |leg| leg_state(world, leg) == LegState::InSync),
        wanted: count(world.volume.spec.replica_count),
        min_in_sync: resolved.map_or(1, |r| count(r.min_in_sync)).max(1),
        blind: running.is_some_and(|t| world.node_ready(&t.node).is_err()),
        rebuilding: world.array().is_some_and(rebuilds),
    }
}

fn verdict(world: &World, settled: &Result<Settled, Refusal>, plan: &Plan, picture: &Picture) -> Verdict {
    let ends = world.deleting() && world.wanted().is_none();
    let blocked = plan.blocked.as_ref().or(settled.as_ref().err().filter(|_| !ends));
    let Some(refusal) = blocked else { return observed(world, picture) };
    let now = match (&world.attachment, observed(world, picture)) {
        // A refused change leaves a placed volume as it is: say how it is, and that it is not what the spec asks.
        (Some(_), Verdict::Ready(_, how) | Verdict::Going(_, how)) => format!("; meanwhile {how}"),
        (Some(_), Verdict::Stuck(reason, how) | Verdict::Unknown(reason, how)) => format!("; besides {reason}: {how}"),
        (None, _) => String::new(),
    };
    Verdict::Stuck(refusal.reason, format!("{}{now}", refusal.message))
}

fn observed(world: &World, picture: &Picture) -> Verdict {
    match &world.attachment {
        Some(_) => verdict::placed(world, picture),
        None if world.deleting() => {
            let message = format!("waiting until {} legs are wiped", world.legs.len());
            Verdict::Going(conditions::REASON_DELETING, message)
        }
        None => Verdict::Going(conditions::REASON_PREPARING, "choosing nodes and drives".to_owned()),
    }
}

fn consumer(world: &World) -> Option<String> {
    let term = world.term().filter(|t| t.phase == TermPhase::Running && world.ended().is_none())?;
    world.array().map(|_| term.node.clone())
}

fn volume_leg(world: &World, leg: &MeshReplica) -> VolumeLeg {
    let (name, state) = (leg.name_any(), leg_state(world, leg));
    let before = world.volume.status.as_ref().and_then(|s| s.legs.iter().find(|l| l.name == name));
    let since = before.and_then(|l| l.missing_since.clone()).unwrap_or(Time(world.now));
    let missing_since = reasons::away(world, leg).then_some(since);
    let (node, drive) = (leg.spec.node.clone(), leg.spec.drive.clone());
    VolumeLeg { name, slot: leg.spec.slot, node, drive, state, missing_since }
}

/// How a leg is: in sync only if the record says so and no running array contradicts it.
fn leg_state(world: &World, leg: &MeshReplica) -> LegState {
    let name = leg.name_any();
    let Some(term) = world.term() else {
        return if prepared(leg) { LegState::InSync } else { LegState::Preparing };
    };
    if term.retired.contains(&name) || term.phase == TermPhase::Retired {
        return LegState::Retired;
    }
    let member = world.array().map(|a| a.members.iter().find(|m| m.leg == name).map(|m| m.state));
    match (term.in_sync.contains(&name), member) {
        (true, None | Some(Some(MemberState::InSync | MemberState::Failing))) => LegState::InSync,
        (_, Some(Some(MemberState::Rebuilding))) => LegState::Rebuilding,
        (false, _) if !prepared(leg) => LegState::Preparing,
        _ => LegState::Missing,
    }
}

/// Why it makes no sense to count copies, if it does not.
fn no_copies_yet_or_no_more(world: &World) -> Option<(&'static str, &'static str)> {
    let retired = world.term().is_some_and(|t| t.phase == TermPhase::Retired);
    let made = !world.legs.is_empty() && world.legs.iter().all(prepared);
    match world.term() {
        _ if retired || (world.deleting() && world.legs.is_empty()) => {
            Some((conditions::REASON_DELETING, "its legs are being wiped"))
        }
        None if !made => Some((conditions::REASON_PREPARING, "its legs are not made yet")),
        _ => None,
    }
}

fn degraded(world: &World, picture: &Picture) -> Want {
    let said = |status, reason, message: String| Want { type_: conditions::DEGRADED, status, reason, message };
    let of = format!("{} of {} copies are in sync", picture.copies, picture.wanted);
    if let Some((reason, message)) = no_copies_yet_or_no_more(world) {
        return said(None, reason, message.to_owned());
    }
    match (picture.copies < picture.wanted, picture.blind) {
        (true, _) if picture.rebuilding => said(Some(true), conditions::REASON_REBUILDING, of),
        (true, _) => said(Some(true), conditions::REASON_LEG_MISSING, of),
        (false, true) => said(None, conditions::REASON_CONSUMER_UNREACHABLE, format!("last known: {of}")),
        (false, false) => said(Some(false), conditions::REASON_OK, of),
    }
}

fn resynced(world: &World, picture: &Picture) -> Want {
    let said = |status, reason, message: &str| Want {
        type_: conditions::RESYNCED,
        status,
        reason,
        message: message.to_owned(),
    };
    if let Some((reason, message)) = no_copies_yet_or_no_more(world) {
        return said(None, reason, message);
    }
    if picture.blind {
        return said(None, conditions::REASON_CONSUMER_UNREACHABLE, "the consumer does not answer");
    }
    if picture.rebuilding {
        return said(Some(false), conditions::REASON_REBUILDING, &progress(world));
    }
    let waits: Vec<&str> = world.clocks.waits.iter().map(String::as_str).collect();
    if !waits.is_empty() {
        let message = format!("{} could be rebuilt, and waits until fewer other legs are", waits.join(", "));
        return said(Some(false), conditions::REASON_REBUILD_WAITS, &message);
    }
    if picture.copies < picture.wanted {
        return said(Some(false), conditions::REASON_LEG_MISSING, "a leg is missing and must be rebuilt");
    }
    said(Some(true), conditions::REASON_OK, "every copy is in sync")
}

/// What is copied, how far it is, and when it should end, as the consumer last said it.
fn progress(world: &World) -> String {
    let array = world.array();
    let legs = array.iter().flat_map(|a| &a.members).filter(|m| m.state == MemberState::Rebuilding);
    let legs: Vec<&str> = legs.map(|m| m.leg.as_str()).collect();
    let what = if legs.is_empty() { "a resync runs".to_owned() } else { format!("{} is copied to", legs.join(", ")) };
    let Some(resync) = array.and_then(|a| a.resync.as_ref()) else { return what };
    let mib = |bytes: i64| bytes >> 20;
    let bytes = resync.done_bytes.zip(resync.total_bytes);
    let bytes = bytes.map(|(done, all)| format!(", {} of {} MiB", mib(done), mib(all)));
    let speed = resync.bytes_per_second.map(|speed| format!(", {} MiB/s", mib(speed)));
    let left = resync.remaining_seconds.map(|seconds| format!(", about {seconds} s left"));
    let rest: String = [bytes, speed, left].into_iter().flatten().collect();
    format!("{what}: {} %{rest}", resync.percent)
}
