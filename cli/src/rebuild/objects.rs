//! The objects of a volume that takes legs over, all of them from its own `spec.adopts`: so whoever is interrupted goes on. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource as _, ResourceExt as _};
use meshstor_crds::geometry::HEADROOM;
use meshstor_crds::{
    AdoptedLeg, Adoption, Ended, EndedReason, Geometry, MeshAttachment, MeshAttachmentSpec, MeshAttachmentStatus,
    MeshReplica, MeshReplicaSpec, MeshVolume, REPLICA_FINALIZER, ReplicaSetPolicySpec, Term, TermPhase,
    VOLUME_FINALIZER, naming, quantity,
};

fn owner(volume: &MeshVolume) -> Option<Vec<OwnerReference>> {
    volume.controller_owner_ref(&()).map(|owner| vec![owner])
}

/// The attachment: wanted nowhere.
pub fn attachment(volume: &MeshVolume) -> MeshAttachment {
    let spec = MeshAttachmentSpec { node: None, mount_path: None, lost: None };
    let mut attachment = MeshAttachment::new(&volume.name_any(), spec);
    attachment.metadata.owner_references = owner(volume);
    attachment.metadata.finalizers = Some(vec![VOLUME_FINALIZER.to_owned()]);
    attachment
}

/// The attachment's status: an epoch that has ended, of an array that was made whole, with the legs that hold everything. So the next
/// epoch begins as every other does: each leg closes what it may still serve, says so, and only then anything starts.
///
/// Its consumer is a node that nobody is: no daemon has anything to tear down or to report for it.
pub fn record(volume: &str, adopts: &Adoption) -> MeshAttachmentStatus {
    let in_sync = adopts.legs.iter().filter(|leg| leg.in_sync).map(|leg| leg.name.clone()).collect();
    let term = Term {
        epoch: adopts.epoch,
        node: naming::lost(volume),
        phase: TermPhase::Running,
        in_sync,
        // The superblocks do not say of whom the bitmaps are proof: whoever is outside is rebuilt in full.
        bitmap_usable: Vec::new(),
        retired: adopts.retired.clone(),
        initialised: true,
        writer: None,
    };
    let ended = Ended { epoch: adopts.epoch, reason: EndedReason::ArrayGone };
    MeshAttachmentStatus { term: Some(term), ended: Some(ended), ..MeshAttachmentStatus::default() }
}

/// The objects of the legs, but for those that the record has retired. None of a volume without a UID, a capacity, or legs to take over.
pub fn replicas(volume: &MeshVolume, term: &Term, policy: &ReplicaSetPolicySpec) -> Vec<MeshReplica> {
    let (Some(adopts), Some(uid)) = (&volume.spec.adopts, &volume.metadata.uid) else { return Vec::new() };
    let Ok(capacity) = quantity::bytes(&volume.spec.capacity) else { return Vec::new() };
    let bytes = Geometry::of_spec(&volume.spec).component(capacity).saturating_add(HEADROOM);
    let needed = adopts.legs.iter().filter(|leg| !term.retired.contains(&leg.name) && term.phase != TermPhase::Retired);
    let object = |leg: &AdoptedLeg| {
        let spec = MeshReplicaSpec {
            volume: volume.name_any(),
            volume_uid: uid.clone(),
            slot: leg.slot,
            mirror_set: leg.mirror_set,
            node: leg.node.clone(),
            drive: leg.drive.clone(),
            size_bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            // Told of one already: a partition that is not there is never made, and what is there is never zeroed.
            epoch: adopts.epoch,
            grant: None,
            transport: policy.transport,
            io_queues: policy.connection.io_queues,
            replaces: None,
            overwritten: false,
            replace: false,
            array_uuid: Some(adopts.array_uuid.clone()),
            partition_uuid: leg.partition_uuid.clone(),
        };
        let mut replica = MeshReplica::new(&leg.name, spec);
        replica.metadata.owner_references = owner(volume);
        replica.metadata.finalizers = Some(vec![REPLICA_FINALIZER.to_owned()]);
        replica
    };
    needed.map(object).collect()
}
