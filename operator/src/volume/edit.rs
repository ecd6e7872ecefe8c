//! The objects as an action leaves them; pure, so that a simulation writes exactly what the operator writes.

use super::action::Action;
use super::world::World;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource as _;
use meshstor_crds::{
    MeshAttachment, MeshAttachmentSpec, MeshReplica, MeshReplicaSpec, MeshVolume, REPLICA_FINALIZER, Term,
    VOLUME_FINALIZER,
};

/// The owner reference of everything that belongs to the volume.
fn owner(world: &World) -> Option<Vec<OwnerReference>> {
    world.volume.controller_owner_ref(&()).map(|owner| vec![owner])
}

/// A new leg, held by its daemon's finalizer from the start.
pub fn new_leg(world: &World, name: &str, spec: &MeshReplicaSpec) -> MeshReplica {
    let mut leg = MeshReplica::new(name, spec.clone());
    leg.metadata.owner_references = owner(world);
    leg.metadata.finalizers = Some(vec![REPLICA_FINALIZER.to_owned()]);
    leg
}

/// The new attachment: wanted nowhere, no record.
pub fn new_attachment(world: &World) -> MeshAttachment {
    let spec = MeshAttachmentSpec { node: None, mount_path: None, lost: None };
    let mut attachment = MeshAttachment::new(&world.name(), spec);
    attachment.metadata.owner_references = owner(world);
    // Without it `kubectl delete --cascade=foreground` of the volume would take the record away first, and daemons
    // may wipe legs that have no record.
    attachment.metadata.finalizers = Some(vec![VOLUME_FINALIZER.to_owned()]);
    attachment
}

/// The attachment with a new record; the rest of its status is its consumer's and stays.
pub fn with_term(attachment: &MeshAttachment, term: &Term) -> MeshAttachment {
    let mut new = attachment.clone();
    new.status.get_or_insert_default().term = Some(term.clone());
    new
}

/// The leg after `action`, for the actions that change a leg's spec.
pub fn leg_after(leg: &MeshReplica, action: &Action) -> MeshReplica {
    let mut new = leg.clone();
    match action {
        Action::SetReplicaEpoch { epoch, .. } => {
            new.spec.epoch = *epoch;
            new.spec.grant = None;
        }
        Action::SetGrant { grant, .. } => new.spec.grant = Some(grant.clone()),
        Action::ClearGrant { .. } => new.spec.grant = None,
        _ => {}
    }
    new
}

/// The leg without its daemon's finalizer: there is no daemon any more.
pub fn let_go(leg: &MeshReplica) -> MeshReplica {
    let mut new = leg.clone();
    new.metadata.finalizers.get_or_insert_default().retain(|f| f != REPLICA_FINALIZER);
    new
}

/// The attachment without the operator's finalizer.
pub fn released(attachment: &MeshAttachment) -> MeshAttachment {
    let mut new = attachment.clone();
    new.metadata.finalizers.get_or_insert_default().retain(|f| f != VOLUME_FINALIZER);
    new
}

/// The volume with or without the operator's finalizer.
pub fn with_finalizer(volume: &MeshVolume, held: bool) -> MeshVolume {
    let mut new = volume.clone();
    let finalizers = new.metadata.finalizers.get_or_insert_default();
    finalizers.retain(|f| f != VOLUME_FINALIZER);
    if held {
        finalizers.push(VOLUME_FINALIZER.to_owned());
    }
    new
}
