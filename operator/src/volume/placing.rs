//! Step 1 of the protocol: legs get their places, then the attachment is made.

use super::action::{Action, Plan, Refusal};
use super::validate::{self, Settled};
use super::world::World;
use crate::drain::world::active;
use crate::placement::{self, Cluster, Request, Spot};
use kube::ResourceExt as _;
use meshstor_crds::{Bitmap, MeshReplica, MeshReplicaSpec, Placement, Term, VOLUME_FINALIZER, conditions, naming};

/// The steps until the attachment exists. The finalizer comes first, then the resolved policy in the status, then
/// all legs, then the attachment: its presence says that placement is complete.
pub fn plan(world: &World, settled: &Settled) -> Plan {
    if let Some(refusal) = hindrance(world) {
        return Plan::blocked(refusal);
    }
    if world.deleting() {
        return Plan::default();
    }
    if !world.volume.finalizers().iter().any(|f| f == VOLUME_FINALIZER) {
        return Plan::of(vec![Action::AddFinalizer]);
    }
    if world.volume.status.as_ref().is_none_or(|s| s.resolved.is_none()) {
        return Plan::default();
    }
    let empty = |(slot, _): &(i32, i32)| !world.legs.iter().any(|leg| leg.spec.slot == *slot);
    let slots: Vec<(i32, i32)> = settled.geometry.legs().filter(empty).collect();
    match spots(world, settled, &slots) {
        Ok(spots) => Plan::of(creations(world, settled, spots)),
        Err(refusal) => Plan::blocked(refusal),
    }
}

/// Other objects that stand in the way; they are not touched.
fn hindrance(world: &World) -> Option<Refusal> {
    let conflict = |message: String| Some(Refusal::new(conditions::REASON_CONFLICT, message));
    if world.record_lost() {
        return Some(lost_record());
    }
    if world.foreign_attachment {
        return conflict(format!("a MeshAttachment {} exists that is not this volume's; delete it", world.name()));
    }
    match world.foreign_legs.first() {
        Some(leg) => conflict(format!("MeshReplica {leg} is of an earlier volume of this name; it must go first")),
        None => unadopted(world),
    }
}

/// A volume that takes legs over has none made, and its record is begun by a person's command: nobody else may say which legs hold
/// what was written. No epoch follows that record before the object of each leg is there: without one a mirror set could be missing
/// from the start set, and nobody would notice.
pub fn unadopted(world: &World) -> Option<Refusal> {
    let adopts = world.volume.spec.adopts.as_ref().filter(|_| !world.deleting())?;
    let lacking = |term: &Term| {
        let there = |name: &String| world.leg(name).is_some() || term.retired.contains(name);
        term.epoch <= adopts.epoch && !adopts.legs.iter().all(|leg| there(&leg.name))
    };
    let name = world.name();
    let message = format!(
        "the volume takes over the legs that spec.adopts names, and not all of its objects are there: run \
         `meshstor rebuild-objects --volume {name} --apply`"
    );
    world.term().is_none_or(lacking).then(|| Refusal::new(conditions::REASON_ADOPTING, message))
}

/// An epoch is never used again, so a record that was deleted by hand cannot be begun anew.
pub fn lost_record() -> Refusal {
    let message = "the record (MeshAttachment status.term) is gone although legs were granted; restore it from a backup, \
                   or copy the data away and delete the volume and its legs by hand";
    Refusal::new(conditions::REASON_CONFLICT, message)
}

fn spots(world: &World, settled: &Settled, slots: &[(i32, i32)]) -> Result<Vec<Spot>, Refusal> {
    spots_beside(world, settled, slots, &world.legs, world.volume.spec.preferred_node.as_deref())
}

fn spots_beside(
    world: &World,
    settled: &Settled,
    slots: &[(i32, i32)],
    placed: &[MeshReplica],
    preferred: Option<&str>,
) -> Result<Vec<Spot>, Refusal> {
    let rules = rules(world)?;
    let request = Request {
        slots,
        geometry: settled.geometry,
        bitmap: settled.resolved.bitmap,
        transport: settled.resolved.transport,
        size: settled.size,
        filesystem: world.volume.spec.filesystem,
        placed,
        taken: &world.legs,
        rules: &rules,
        preferred,
    };
    let drained = world.drains.iter().filter(|d| active(d)).map(|d| (d.spec.node.clone(), d.name_any())).collect();
    let cluster = Cluster { nodes: &world.nodes, promises: &world.promises, drained: &drained, now: world.now };
    let unschedulable =
        |refusal: placement::Refusal| Refusal::new(conditions::REASON_UNSCHEDULABLE, refusal.to_string());
    placement::place(&request, &cluster).map_err(unschedulable)
}

/// The rules of placement are not frozen: what is still to be placed follows the policy as it is now.
fn rules(world: &World) -> Result<Placement, Refusal> {
    validate::policy(world).map(|policy| policy.placement)
}

fn creations(world: &World, settled: &Settled, spots: Vec<Spot>) -> Vec<Action> {
    let legs = spots.into_iter().map(|spot| Action::CreateReplica {
        leg: naming::leg(&world.name(), spot.slot),
        spec: Box::new(leg_spec(world, settled, spot)),
    });
    legs.chain([Action::CreateAttachment]).collect()
}

/// A leg that nobody was told of yet.
pub fn leg_spec(world: &World, settled: &Settled, spot: Spot) -> MeshReplicaSpec {
    MeshReplicaSpec {
        volume: world.name(),
        volume_uid: world.uid.clone(),
        slot: spot.slot,
        mirror_set: spot.mirror_set,
        node: spot.node,
        drive: spot.drive,
        size_bytes: i64::try_from(settled.size).unwrap_or(i64::MAX),
        epoch: 0,
        grant: None,
        transport: settled.resolved.transport,
        io_queues: settled.resolved.io_queues,
        replaces: None,
        overwritten: false,
        replace: false,
        array_uuid: world.volume.spec.adopts.as_ref().map(|adopts| adopts.array_uuid.clone()),
        partition_uuid: None,
    }
}

/// Whether a member that is new to an array with such a bitmap is copied to everywhere: where the lockless one says that nothing was ever
/// written, nothing is.
pub fn all_copied(bitmap: Bitmap) -> bool {
    bitmap != Bitmap::Lockless
}

/// A place for the leg that takes a seat beside the legs that stay, on a drive that no leg of the volume has.
///
/// # Errors
/// A [`Refusal`] that names for each node the filter that dropped it.
pub fn heir(world: &World, settled: &Settled, slot: (i32, i32), staying: &[MeshReplica]) -> Result<Spot, Refusal> {
    let mut spots = spots_beside(world, settled, &[slot], staying, world.asked())?;
    spots.pop().ok_or_else(|| Refusal::new(conditions::REASON_UNSCHEDULABLE, "no place was found"))
}
