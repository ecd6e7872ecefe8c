//! Who must leave, why, and who may take the place meanwhile.

use super::placed;
use super::seats::{inside, member, record, retired, seats};
use super::world::{World, prepared};
use crate::drain::leaving;
use kube::ResourceExt as _;
use meshstor_crds::{MemberState, MeshReplica, conditions, geometry};
use std::time::Duration;

/// Why a leg is to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Somebody said so: `spec.replace`, or the object was deleted.
    Asked,
    /// Its drive fails, or is gone from its node.
    Failing,
    /// It is away, and its `MeshNode` was deleted.
    NodeDeleted,
    /// Its node is drained, and its drain asks for it.
    Drained,
    /// It is away for longer than the policy waits.
    Away,
    /// It breaks a rule of the policy, which lets it be moved for that.
    Misplaced,
}

impl Why {
    /// The condition's reason.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Asked => conditions::REASON_ASKED,
            Self::Failing => conditions::REASON_DRIVE_FAILING,
            Self::NodeDeleted => conditions::REASON_NODE_DELETED,
            Self::Drained => conditions::REASON_DRAINING,
            Self::Away => conditions::REASON_LEG_MISSING,
            Self::Misplaced => conditions::REASON_POLICY_VIOLATED,
        }
    }
}

/// Why the leg is to be replaced, if it is.
pub fn why(world: &World, leg: &MeshReplica) -> Option<Why> {
    record(world)?;
    let failing = leg.status.as_ref().is_some_and(|s| conditions::is_true(&s.conditions, conditions::FAILING));
    let away = !inside(world, leg) && member(world, leg) != Some(MemberState::Rebuilding);
    match () {
        () if leg.spec.replace || leg.metadata.deletion_timestamp.is_some() => Some(Why::Asked),
        () if failing || (away && drive_gone(world, leg)) => Some(Why::Failing),
        () if world.gone(&leg.spec.node) && (away || rests(world, leg)) => Some(Why::NodeDeleted),
        () if leaving::leaves(world, leg) => Some(Why::Drained),
        () if away && overdue_in(world, leg).is_some_and(|left| left.is_zero()) => Some(Why::Away),
        () if placed::moves(world, leg) => Some(Why::Misplaced),
        () => None,
    }
}

/// A leg of S that nobody would miss: no epoch runs, and others of S, on nodes that answer, have every block.
fn rests(world: &World, leg: &MeshReplica) -> bool {
    let others = |other: &MeshReplica| {
        inside(world, other) && other.name_any() != leg.name_any() && world.node_ready(&other.spec.node).is_ok()
    };
    inside(world, leg) && world.asked().is_none() && world.over() && geometry::copies(&world.legs, others) > 0
}

/// The drive is not among those that its node, which answers, reports.
pub fn drive_gone(world: &World, leg: &MeshReplica) -> bool {
    let node = crate::node::find(&world.nodes, &leg.spec.node).filter(|_| world.node_ready(&leg.spec.node).is_ok());
    let drives = node.and_then(|n| n.status.as_ref()).map(|s| &s.drives);
    drives.is_some_and(|drives| !drives.is_empty() && drives.iter().all(|d| d.id != leg.spec.drive))
}

/// Nothing has been heard of the leg's node since the leg is away: it is no place for another leg, however young its last word is.
pub fn silent(world: &World, leg: &MeshReplica) -> bool {
    let legs = world.volume.status.as_ref().map_or(&[][..], |s| &s.legs);
    let since = legs.iter().find(|l| l.name == leg.name_any()).and_then(|l| l.missing_since.as_ref());
    let node = crate::node::find(&world.nodes, &leg.spec.node).and_then(|n| n.status.as_ref());
    let beat = node.and_then(|s| s.heartbeat.as_ref());
    matches!((since, beat), (Some(since), Some(beat)) if beat.0 < since.0)
}

/// How long until the leg has been away for as long as the policy waits; none where it is not away, or waits for ever.
///
/// The start of that time is in the volume's status, so that a restart of the operator does not begin it anew.
pub fn overdue_in(world: &World, leg: &MeshReplica) -> Option<Duration> {
    let status = world.volume.status.as_ref()?;
    let timeout = status.resolved.as_ref().map(|r| r.missing_member_timeout_seconds).filter(|s| *s > 0)?;
    let since = status.legs.iter().find(|l| l.name == leg.name_any())?.missing_since.as_ref()?;
    let away = world.now.duration_since(since.0).as_secs();
    let left = Duration::from_secs(u64::try_from(timeout.saturating_sub(away)).unwrap_or(0));
    Some(leaving::awaited(world, leg).map_or(left, |rests| rests.max(left)))
}

/// Whether the leg is away: outside S, nothing is copied to it, and it is not just being made by a node that answers.
pub fn away(world: &World, leg: &MeshReplica) -> bool {
    let made = prepared(leg) || world.node_ready(&leg.spec.node).is_err();
    let copied = member(world, leg) == Some(MemberState::Rebuilding);
    record(world).is_some() && !retired(world, leg) && !inside(world, leg) && !copied && made && !waits(world, leg)
}

/// Whether the leg, on a node that answers, waits for something else than its own return: for its holder, for the volume to be
/// attached, for another leg that is being copied to, or for a grant.
fn waits(world: &World, leg: &MeshReplica) -> bool {
    let heir = seats(world).iter().any(|seat| seat.heirs.iter().any(|heir| heir.name_any() == leg.name_any()));
    let turn = world.array().is_some_and(|array| array.resync.is_none())
        && leg.spec.grant.as_ref().is_some_and(|g| !g.copy_later);
    (heir || !turn) && world.node_ready(&leg.spec.node).is_ok()
}

/// Whether the leg may have a grant although it is outside S: a seat has one candidate at a time.
pub fn candidate(world: &World, leg: &MeshReplica) -> bool {
    let name = leg.name_any();
    // One that was asked to leave may still come back until its heir is there: there may be no other place.
    let unwelcome = |leg: &MeshReplica| why(world, leg) == Some(Why::Failing);
    seats(world).iter().any(|seat| {
        let heir_in = seat.heirs.iter().any(|heir| inside(world, heir));
        if seat.holder.name_any() == name {
            return !heir_in && !unwelcome(leg);
        }
        // While the holder is in S its heir is filled beside it; else the holder is retired first.
        let taken = inside(world, seat.holder) && why(world, seat.holder).is_some();
        let ready = seat.ready_heir().is_some_and(|heir| heir.name_any() == name);
        taken
            && !heir_in
            && !unwelcome(leg)
            && (ready || member(world, leg).is_some())
            && seat.heirs.iter().any(|h| h.name_any() == name)
    })
}
