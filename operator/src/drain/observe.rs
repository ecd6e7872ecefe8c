//! Everything that drains and guards are about, read afresh for each round.

use super::guard::{NAMESPACE, TEMPLATE};
use super::world::{Settings, World, active};
use crate::context::Context;
use crate::error::Error;
use crate::node::{self, Face};
use crate::placement::Promises;
use crate::volume::clocks::Clocks;
use crate::volume::world::World as Volume;
use k8s_openapi::api::core::v1::{Node, Pod, PodTemplate};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use meshstor_crds::{MeshAttachment, MeshNode, MeshReplica, MeshVolume, NodeDrain, ReplicaSetPolicy};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Reads the world. Reads without a `resourceVersion` are linearizable: a decision to let a node go is never made from a cache.
///
/// # Errors
/// [`Error::Api`].
pub async fn observe(ctx: &Context, settings: &Settings) -> Result<World, Error> {
    let drains: Vec<NodeDrain> = all(&Api::all(ctx.client.clone()), "drains").await?;
    let busy: BTreeSet<String> = drains.iter().filter(|d| active(d)).map(|d| d.spec.node.clone()).collect();
    let faces: Vec<Node> = all(&Api::all(ctx.client.clone()), "nodes").await?;
    let faces: BTreeMap<String, Face> =
        faces.iter().filter(|n| n.metadata.deletion_timestamp.is_none()).map(|n| (n.name_any(), Face::of(n))).collect();
    let nodes: Vec<MeshNode> = all(&Api::all(ctx.client.clone()), "MeshNodes").await?;
    let nodes: Vec<Arc<MeshNode>> =
        nodes.into_iter().filter(|n| n.metadata.deletion_timestamp.is_none()).map(Arc::new).collect();
    let templates: Api<PodTemplate> = Api::namespaced(ctx.client.clone(), NAMESPACE);
    let template = templates.get_opt(TEMPLATE).await.map_err(Error::api(format!("read PodTemplate {TEMPLATE}")))?;
    let pods: Vec<Pod> = all(&Api::namespaced(ctx.client.clone(), NAMESPACE), "guards").await?;
    let budgets: Vec<PodDisruptionBudget> = all(&Api::namespaced(ctx.client.clone(), NAMESPACE), "budgets").await?;
    let now = ctx.clock.timestamp();
    let volumes = if busy.is_empty() {
        Vec::new()
    } else {
        let all_drains: Vec<Arc<NodeDrain>> = drains.iter().cloned().map(Arc::new).collect();
        volumes(ctx, &Around { nodes: &nodes, faces: &faces, drains: &all_drains, domain: &settings.domain, now })
            .await?
    };
    Ok(World { nodes, faces, drains, volumes, pods, budgets, template, settings: settings.clone(), now })
}

/// What is around every volume.
struct Around<'a> {
    nodes: &'a [Arc<MeshNode>],
    faces: &'a BTreeMap<String, Face>,
    drains: &'a [Arc<NodeDrain>],
    domain: &'a str,
    now: jiff::Timestamp,
}

/// The volumes that have to do with a drained node. Legs are read before the records, as [`Volume`] wants it.
async fn volumes(ctx: &Context, around: &Around<'_>) -> Result<Vec<Volume>, Error> {
    let legs: Vec<MeshReplica> = all(&Api::all(ctx.client.clone()), "legs").await?;
    let records: Vec<MeshAttachment> = all(&Api::all(ctx.client.clone()), "attachments").await?;
    let volumes: Vec<MeshVolume> = all(&Api::all(ctx.client.clone()), "volumes").await?;
    let policies: Vec<ReplicaSetPolicy> = all(&Api::all(ctx.client.clone()), "policies").await?;
    let mut by_volume: HashMap<String, Vec<MeshReplica>> = HashMap::new();
    for leg in legs {
        by_volume.entry(leg.spec.volume_uid.clone()).or_default().push(leg);
    }
    let mut records: HashMap<String, MeshAttachment> = records.into_iter().map(|a| (a.name_any(), a)).collect();
    let busy: BTreeSet<&str> = around.drains.iter().filter(|d| active(d)).map(|d| d.spec.node.as_str()).collect();
    let each = volumes.into_iter().filter_map(|volume| {
        let uid = volume.uid()?;
        let mut legs = by_volume.remove(&uid).unwrap_or_default();
        legs.sort_by_key(|leg| leg.spec.slot);
        let ours = |a: &MeshAttachment| a.owner_references().iter().any(|o| o.uid == uid);
        let attachment = records.remove(&volume.name_any()).filter(ours);
        let policy = policies.iter().find(|p| p.name_any() == volume.spec.policy_name()).cloned();
        let world = world(volume, uid, policy, attachment, legs, around);
        busy.iter().any(|node| super::volumes::concerns(&world, node)).then_some(world)
    });
    Ok(each.collect())
}

fn world(
    volume: MeshVolume,
    uid: String,
    policy: Option<ReplicaSetPolicy>,
    attachment: Option<MeshAttachment>,
    legs: Vec<MeshReplica>,
    around: &Around<'_>,
) -> Volume {
    let term = attachment.as_ref().and_then(|a| a.status.as_ref()?.term.as_ref());
    let used: BTreeSet<String> =
        legs.iter().map(|leg| leg.spec.node.clone()).chain(term.map(|t| t.node.clone())).collect();
    let there = |name: &String| {
        let node = node::find(around.nodes, name);
        node.is_some_and(|n| around.faces.contains_key(name) || node::ready(n, around.now).is_ok())
    };
    let tainted = around.faces.iter().filter(|(_, face)| face.out_of_service);
    Volume {
        volume,
        uid,
        policy,
        attachment,
        foreign_attachment: false,
        legs,
        foreign_legs: Vec::new(),
        promises: Promises::default(),
        nodes: around.nodes.to_vec(),
        out_of_service: tainted.map(|(name, _)| name.clone()).collect(),
        labels: used.iter().filter_map(|n| Some((n.clone(), around.faces.get(n)?.labels.clone()))).collect(),
        domain: around.domain.into(),
        gone_nodes: used.into_iter().filter(|name| !there(name)).collect(),
        drains: around.drains.to_vec(),
        clocks: Clocks::default(),
        now: around.now,
    }
}

async fn all<K>(api: &Api<K>, what: &str) -> Result<Vec<K>, Error>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let list = api.list(&ListParams::default()).await.map_err(Error::api(format!("list {what}")))?;
    Ok(list.items)
}
