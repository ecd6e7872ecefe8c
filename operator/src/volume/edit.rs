//! The objects as an action leaves them; pure, so that a simulation writes exactly what the operator writes.

use super::action::Action;
use super::world::World;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::Resource as _;
use meshstor_crds::conditions::{self, Want};
use meshstor_crds::{
    MeshAttachment, MeshAttachmentSpec, MeshReplica, MeshReplicaSpec, MeshVolume, REPLICA_FINALIZER, Term,
    VOLUME_FINALIZER, naming,
};
use std::collections::BTreeMap;

/// The owner reference of everything that belongs to the volume.
fn owner(world: &World) -> Option<Vec<OwnerReference>> {
    world.volume.controller_owner_ref(&()).map(|owner| vec![owner])
}

/// Argo CD looks past what `ignoreResourceUpdates` names in objects that are in git, and in others only if they say so themselves.
fn dependent() -> BTreeMap<String, String> {
    [(naming::ARGO_IGNORE_UPDATES.to_owned(), "true".to_owned())].into()
}

/// A new leg, held by its daemon's finalizer from the start.
pub fn new_leg(world: &World, name: &str, spec: &MeshReplicaSpec) -> MeshReplica {
    let mut leg = MeshReplica::new(name, spec.clone());
    leg.metadata.owner_references = owner(world);
    leg.metadata.finalizers = Some(vec![REPLICA_FINALIZER.to_owned()]);
    leg.metadata.annotations = Some(dependent());
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
    attachment.metadata.annotations = Some(dependent());
    attachment
}

/// The attachment with a new record; the rest of its status is its consumer's and stays. But of a new epoch nobody has said that it is
/// `Ready`, and whoever was the consumer may never say anything again (I7).
pub fn with_term(attachment: &MeshAttachment, term: &Term, now: &Time) -> MeshAttachment {
    let mut new = attachment.clone();
    let status = new.status.get_or_insert_default();
    let old = status.term.replace(term.clone());
    if old.is_some_and(|old| old.epoch != term.epoch) {
        let why = format!("epoch {} begins on node {}; those before it are being revoked", term.epoch, term.node);
        let want = [(conditions::READY, false), (conditions::RECONCILING, true)]
            .map(|(type_, status)| Want::new(type_, status, conditions::REASON_REVOKING, why.clone()));
        let said = conditions::apply(&status.conditions, &want, attachment.metadata.generation, now);
        let of_an_epoch = [conditions::READY, conditions::RECONCILING, conditions::STALLED];
        status.conditions.retain(|c| !of_an_epoch.contains(&c.type_.as_str()));
        status.conditions.extend(said);
    }
    new
}

/// The attachment with another node on which the array runs for a copy; the rest of its status stays.
pub fn with_copy_on(attachment: &MeshAttachment, node: Option<&str>) -> MeshAttachment {
    let mut new = attachment.clone();
    new.status.get_or_insert_default().copy_on = node.map(str::to_owned);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::fixtures::{attached, now};

    /// I7: a consumer that was given up says nothing any more; what it said last is not true of the next epoch.
    #[test]
    fn a_new_epoch_is_not_ready_by_the_word_of_the_last() {
        let world = attached();
        let mut attachment = world.attachment.clone().unwrap();
        let ready = [Want::new(conditions::READY, true, conditions::REASON_ATTACHED, "")];
        let status = attachment.status.as_mut().unwrap();
        status.conditions = conditions::apply(&[], &ready, None, &Time(now()));
        let term = status.term.clone().unwrap();
        let same = with_term(&attachment, &Term { initialised: true, ..term.clone() }, &Time(now()));
        assert!(conditions::is_true(&same.status.unwrap().conditions, conditions::READY));
        let next = with_term(&attachment, &Term { epoch: term.epoch + 1, ..term }, &Time(now()));
        let said = next.status.unwrap().conditions;
        assert!(!conditions::is_true(&said, conditions::READY), "{said:?}");
        assert!(conditions::is_true(&said, conditions::RECONCILING), "{said:?}");
        assert_eq!(said.len(), 2);
    }
}
