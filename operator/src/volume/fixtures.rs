//! A placed volume of two legs on three ready nodes, for tests to bend.

use super::clocks::Clocks;
use super::world::World;
use crate::placement::Promises;
use jiff::Timestamp;
use kube::ResourceExt as _;
use meshstor_crds::{
    ArrayStatus, Grant, LegPartition, Member, MemberState, MeshAttachment, MeshAttachmentSpec, MeshNode, MeshNodeSpec,
    MeshNodeStatus, MeshReplica, MeshReplicaStatus, MeshVolume, Term, TermPhase, Time, VOLUME_FINALIZER, conditions,
};
use std::sync::Arc;

pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

pub(crate) fn node(name: &str, beat: Timestamp) -> Arc<MeshNode> {
    let mut node = MeshNode::new(name, MeshNodeSpec::default());
    let ready = [conditions::Want::new(conditions::READY, true, conditions::REASON_OK, "")];
    node.status = Some(MeshNodeStatus {
        conditions: conditions::apply(&[], &ready, None, &Time(beat)),
        host_nqn: Some(format!("nqn.host.{name}")),
        heartbeat: Some(Time(beat)),
        ..MeshNodeStatus::default()
    });
    Arc::new(node)
}

/// A leg of 520 MiB that is blank and was never told of an epoch.
pub(crate) fn leg(slot: i32, node: &str) -> MeshReplica {
    let spec = serde_json::json!({
        "volume": "v", "volumeUid": "u", "slot": slot, "node": node, "drive": "d", "sizeBytes": 520 << 20,
    });
    let mut leg = MeshReplica::new(&format!("v-{slot}"), serde_json::from_value(spec).unwrap());
    let partition = LegPartition { uuid: "0".repeat(36), first_byte: 0, size_bytes: 520 << 20, blank: true };
    leg.status = Some(MeshReplicaStatus { partition: Some(partition), ..MeshReplicaStatus::default() });
    leg
}

/// Placed, prepared, never attached.
pub(crate) fn detached() -> World {
    let spec = serde_json::json!({"capacity": "512Mi", "replicaCount": 2});
    let mut volume = MeshVolume::new("v", serde_json::from_value(spec).unwrap());
    volume.metadata.finalizers = Some(vec![VOLUME_FINALIZER.into()]);
    let spec = MeshAttachmentSpec { node: None, mount_path: None, lost: None };
    World {
        volume,
        uid: "u".into(),
        policy: None,
        attachment: Some(MeshAttachment::new("v", spec)),
        foreign_attachment: false,
        legs: vec![leg(0, "n1"), leg(1, "n2")],
        foreign_legs: Vec::new(),
        promises: Promises::default(),
        nodes: ["n1", "n2", "n3"].map(|name| node(name, now())).to_vec(),
        out_of_service: Vec::new(),
        gone_nodes: Vec::new(),
        labels: Default::default(),
        domain: "topology.kubernetes.io/zone".into(),
        drains: Vec::new(),
        clocks: Clocks::default(),
        now: now(),
    }
}

/// The world with a record, and wanted where the record is; every leg has confirmed its epoch.
pub(crate) fn with_term(epoch: i64, phase: TermPhase, in_sync: &[&str]) -> World {
    let mut world = detached();
    let term = Term {
        epoch,
        node: "n1".into(),
        phase,
        in_sync: in_sync.iter().map(|s| (*s).to_owned()).collect(),
        bitmap_usable: Vec::new(),
        retired: Vec::new(),
        initialised: true,
        writer: None,
    };
    let attachment = world.attachment.as_mut().unwrap();
    attachment.spec.node = Some("n1".into());
    attachment.status.get_or_insert_default().term = Some(term);
    for leg in &mut world.legs {
        leg.spec.epoch = epoch;
        let status = leg.status.get_or_insert_default();
        status.revoked_below = Some(epoch);
        status.partition.as_mut().unwrap().blank = false;
    }
    world
}

/// Attached on n1 with both legs in sync.
pub(crate) fn attached() -> World {
    let mut world = with_term(3, TermPhase::Running, &["v-0", "v-1"]);
    let members = ["v-0", "v-1"].map(|leg| (leg, MemberState::InSync));
    show(&mut world, &members);
    for leg in &mut world.legs {
        let host_nqn = "nqn.host.n1".into();
        leg.spec.grant = Some(Grant { epoch: 3, number: 1, consumer: "n1".into(), host_nqn, copy_later: false });
    }
    world
}

/// What the consumer shows of its array.
pub(crate) fn show(world: &mut World, members: &[(&str, MemberState)]) {
    let member =
        |(leg, state): &(&str, MemberState)| Member { leg: (*leg).into(), state: *state, latency_ewma_ns: None };
    let status = world.attachment.as_mut().unwrap().status.as_mut().unwrap();
    let epoch = status.term.as_ref().unwrap().epoch;
    let members = members.iter().map(member).collect();
    let device = Some("/dev/md/v".into());
    status.array = Some(ArrayStatus { epoch, device, mount_path: None, members, resync: None });
}

/// The leg of that name, to bend.
pub(crate) fn leg_mut<'a>(world: &'a mut World, name: &str) -> &'a mut MeshReplica {
    world.legs.iter_mut().find(|leg| leg.name_any() == name).unwrap()
}

/// The record, to bend.
pub(crate) fn term_mut(world: &mut World) -> &mut Term {
    world.attachment.as_mut().unwrap().status.as_mut().unwrap().term.as_mut().unwrap()
}

/// The node stops answering.
pub(crate) fn silence(world: &mut World, name: &str) {
    world.nodes.retain(|n| n.name_any() != name);
    world.nodes.push(node(name, Timestamp::from_second(1_000_000 - 80).unwrap()));
}
