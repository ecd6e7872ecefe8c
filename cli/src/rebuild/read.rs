//! What is read from the API server: what the nodes report, and which volumes are there. Quorum reads, all of them.

use super::found::{Found, Member, Told};
use super::plan::{Options, VolumePlan, plan};
use super::refusal::Refusal;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use meshstor_crds::{
    FoundLeg, MeshAttachment, MeshNode, MeshReplica, MeshVolume, QuarantineKind, Quarantined, TermPhase, conditions,
    identity, naming,
};
use std::collections::{BTreeMap, BTreeSet};

/// A node's word is believed for this long; its daemon renews it every 30 s.
const HEARTBEAT_SECONDS: i64 = 75;

/// What there is.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// What the nodes report.
    pub found: Vec<Found>,
    /// Array UUIDs of the volumes that are there, with their names.
    pub arrays: BTreeMap<String, String>,
    /// Names of the volumes, attachments and legs that are there.
    pub names: BTreeSet<String>,
    /// Volumes that take legs over and lack objects: an earlier run was stopped.
    pub unfinished: Vec<MeshVolume>,
}

/// Reads everything.
///
/// # Errors
/// Those of the API server.
pub async fn cluster(client: &Client) -> Result<Cluster, kube::Error> {
    let all = ListParams::default();
    // The nodes first: what was made meanwhile is then known as made.
    let nodes = Api::<MeshNode>::all(client.clone()).list(&all).await?.items;
    let replicas = Api::<MeshReplica>::all(client.clone()).list(&all).await?.items;
    let attachments = Api::<MeshAttachment>::all(client.clone()).list(&all).await?.items;
    let volumes = Api::<MeshVolume>::all(client.clone()).list(&all).await?.items;
    Ok(look(&nodes, &replicas, &attachments, volumes, jiff::Timestamp::now()))
}

/// The same from what was read. Pure.
pub fn look(
    nodes: &[MeshNode],
    replicas: &[MeshReplica],
    attachments: &[MeshAttachment],
    volumes: Vec<MeshVolume>,
    now: jiff::Timestamp,
) -> Cluster {
    let mut found: Vec<Found> = nodes.iter().flat_map(|node| of_node(node, now)).collect();
    found.retain(|leg| !replicas.iter().any(|r| identity::partition(r).to_string() == leg.partition));
    let array = |v: &MeshVolume| Some((identity::array_of(v)?.to_string(), v.name_any()));
    let names = volumes.iter().map(|v| v.name_any()).chain(attachments.iter().map(|a| a.name_any()));
    Cluster {
        found,
        arrays: volumes.iter().filter_map(array).collect(),
        names: names.chain(replicas.iter().map(|r| r.spec.volume.clone())).collect(),
        unfinished: volumes.into_iter().filter(|v| is_unfinished(v, replicas, attachments)).collect(),
    }
}

fn is_unfinished(volume: &MeshVolume, replicas: &[MeshReplica], attachments: &[MeshAttachment]) -> bool {
    let (name, uid) = (volume.name_any(), volume.uid().unwrap_or_default());
    let Some(adopts) = volume.spec.adopts.as_ref().filter(|_| volume.metadata.deletion_timestamp.is_none()) else {
        return false;
    };
    let attachment = attachments.iter().find(|a| a.name_any() == name);
    let Some(term) = attachment.and_then(|a| a.status.as_ref()?.term.as_ref()) else { return true };
    let there = |leg: &str| replicas.iter().any(|r| r.name_any() == leg && r.spec.volume_uid == uid);
    let over = |leg: &String| term.phase == TermPhase::Retired || term.retired.contains(leg);
    adopts.legs.iter().any(|leg| !over(&leg.name) && !there(&leg.name))
}

/// The partitions of legs that a node has in quarantine.
fn of_node(node: &MeshNode, now: jiff::Timestamp) -> Vec<Found> {
    let Some(status) = &node.status else { return Vec::new() };
    let beat = status.heartbeat.as_ref().map_or(i64::MAX, |beat| now.duration_since(beat.0).as_secs());
    let silent = beat > HEARTBEAT_SECONDS || !conditions::is_true(&status.conditions, conditions::READY);
    let silent = silent.then(|| format!("node {} does not answer or is not ready, so nobody knows", node.name_any()));
    let runs = |array: &str| {
        let arrays = status.quarantine.iter().filter(|q| q.kind == QuarantineKind::Array);
        arrays.into_iter().find(|q| q.id == format!("array/{array}")).map(|q| {
            q.in_use.clone().unwrap_or_else(|| format!("its array runs: {}", q.path.clone().unwrap_or_default()))
        })
    };
    let partitions = status.quarantine.iter().filter(|q| q.kind == QuarantineKind::Partition);
    partitions
        .filter_map(|q| {
            let mut found = partition(&node.name_any(), q)?;
            let array = found.member.as_ref().map(|m| m.array.clone());
            found.in_use = found.in_use.or_else(|| array.and_then(|a| runs(&a))).or_else(|| silent.clone());
            Some(found)
        })
        .collect()
}

fn partition(node: &str, item: &Quarantined) -> Option<Found> {
    let leg = item.leg.as_ref();
    let told = leg.and_then(|leg| leg.ledger_epoch.map(|epoch| (epoch, leg.ledger_blank.unwrap_or(false))));
    Some(Found {
        node: node.to_owned(),
        drive: item.drive.clone()?,
        partition: item.id.strip_prefix("partition/")?.to_lowercase(),
        label: item.label.clone().unwrap_or_default(),
        bytes: u64::try_from(item.size_bytes?).ok()?,
        in_use: item.in_use.clone(),
        member: leg.and_then(member),
        told: told.map_or(Told::Unknown, |(epoch, blank)| Told::Of { epoch, blank }),
    })
}

/// What a superblock says; none where something of it is missing.
fn member(leg: &FoundLeg) -> Option<Member> {
    let small = |n: Option<i64>| n.and_then(|n| u32::try_from(n).ok());
    Some(Member {
        array: leg.array_uuid.clone()?.to_lowercase(),
        name: leg.array_name.clone()?,
        level: leg.level?,
        slots: small(leg.slots)?,
        near: small(leg.near_copies),
        number: small(leg.number),
        slot: small(leg.slot),
        roles: leg.roles.iter().map(|slot| u32::try_from(*slot).ok()).collect(),
        filling: leg.rebuilding,
        events: u64::try_from(leg.events?).ok()?,
        component: u64::try_from(leg.component_bytes?).ok()?,
        bitmap: leg.bitmap,
    })
}

/// What was found of one volume, by its name, the name that its array has for it, or the UUID of that. What a person says holds for that alone.
pub fn only(found: &[Found], volume: &str) -> Vec<Found> {
    let mut plans = plan(found, &Options::default());
    plans.retain(|plan| {
        plan.array.as_deref() == Some(volume)
            || [plan.volume.clone(), naming::array_name(&plan.volume)].contains(&volume.to_owned())
    });
    plans.into_iter().flat_map(|plan| plan.lines).map(|line| line.found).collect()
}

/// The plans, refused where objects of the same name or array are there.
pub fn plans(cluster: &Cluster, options: &Options) -> Vec<VolumePlan> {
    let mut plans = plan(&cluster.found, options);
    let twice: Vec<String> = plans.iter().filter(|p| p.array.is_some()).map(|p| p.volume.clone()).collect();
    for plan in &mut plans {
        let of_array = plan.array.as_ref().and_then(|array| cluster.arrays.get(array));
        let taken = match of_array {
            Some(volume) => Some(format!(
                "MeshVolume {volume} has this array: what was found is left over of it, and is of no use any more or is still to be taken over"
            )),
            None if cluster.names.contains(&plan.volume) => {
                Some(format!("objects of another volume {} are there: delete that first, with its data", plan.volume))
            }
            None if plan.array.is_some() && twice.iter().filter(|v| **v == plan.volume).count() > 1 => {
                Some(format!("several arrays are of a volume {}: name one by its UUID, --volume UUID", plan.volume))
            }
            None => None,
        };
        if let Some(why) = taken {
            let mut refusals = std::mem::replace(&mut plan.made, Err(Vec::new())).err().unwrap_or_default();
            refusals.insert(0, Refusal::Taken(why));
            plan.made = Err(refusals);
        }
    }
    plans
}
