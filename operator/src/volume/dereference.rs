//! Everything that decides about a volume, read in the order that makes a stale answer harmless.

use super::world::World;
use crate::context::Context;
use crate::error::Error;
use crate::node::{self, Face};
use crate::placement::Promises;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use kube::core::PartialObjectMeta;
use kube::{Resource, ResourceExt as _};
use meshstor_crds::{MeshAttachment, MeshNode, MeshReplica, MeshVolume, ReplicaSetPolicy};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How long one reconcile waits for the first list of nodes.
const NODES_WAIT: Duration = Duration::from_secs(10);

/// Reads the world of volume `name`, or nothing when there is no such volume. Reads without a `resourceVersion` are
/// linearizable; nodes come from a cache unless something is to be placed, for they only hint.
///
/// # Errors
/// [`Error::Api`].
pub async fn dereference(name: &str, ctx: &Context) -> Result<Option<World>, Error> {
    // Before the first list of nodes has come all of them would look unknown.
    let both = futures::future::join(ctx.nodes.wait_until_ready(), ctx.drains.wait_until_ready());
    // Without the drains a leg could be replaced that only rests.
    if !matches!(tokio::time::timeout(NODES_WAIT, both).await, Ok((Ok(()), Ok(())))) {
        return Err(Error::NoNodes);
    }
    let volumes: Api<MeshVolume> = Api::all(ctx.client.clone());
    let Some(volume) = volumes.get_opt(name).await.map_err(Error::api(format!("read volume {name}")))? else {
        return Ok(None);
    };
    let missing = || Error::Incomplete { object: format!("volume {name}"), field: "uid" };
    let uid = volume.uid().ok_or_else(missing)?;
    // Legs first: what the record then says is never older than what is known of a leg, so that a leg outside of S
    // was outside of S after it was seen with a spent grant.
    let (legs, foreign_legs) = legs(name, &uid, ctx).await?;
    let (attachment, foreign_attachment) = attachment(name, &uid, ctx).await?;
    let policy = policy(volume.spec.policy_name(), ctx).await?;
    let placing = attachment.is_none() && volume.metadata.deletion_timestamp.is_none();
    let (nodes, promises) = if placing { cluster(ctx).await? } else { (ctx.nodes.state(), Promises::default()) };
    let clocks = ctx.observe(&uid, attachment.as_ref(), &legs, ctx.clock.instant());
    let now = ctx.clock.timestamp();
    let out_of_service = out_of_service(attachment.as_ref(), &legs, ctx).await?;
    let gone_nodes = gone_nodes(attachment.as_ref(), &legs, &nodes, ctx).await?;
    let labels = ctx.labels(&legs);
    Ok(Some(World {
        volume,
        uid,
        policy,
        attachment,
        foreign_attachment,
        legs,
        foreign_legs,
        promises,
        nodes,
        out_of_service,
        gone_nodes,
        labels,
        domain: ctx.domain.clone(),
        drains: ctx.drains.state(),
        clocks,
        now,
    }))
}

/// Which nodes of the volume bear the out-of-service taint: those that were heard to are read with a quorum, for the taint may be gone.
async fn out_of_service(
    attachment: Option<&MeshAttachment>,
    legs: &[MeshReplica],
    ctx: &Context,
) -> Result<Vec<String>, Error> {
    let term = attachment.and_then(|a| a.status.as_ref()).and_then(|s| s.term.as_ref());
    let copy_on = attachment.and_then(|a| a.status.as_ref()).and_then(|s| s.copy_on.as_deref());
    let wanted = attachment.and_then(|a| a.spec.node.as_deref());
    let named = wanted.into_iter().chain(copy_on).chain(term.map(|t| t.node.as_str()));
    let nodes: BTreeSet<&str> = named.chain(legs.iter().map(|leg| leg.spec.node.as_str())).collect();
    let api: Api<Node> = Api::all(ctx.client.clone());
    let mut tainted = Vec::new();
    for name in nodes.into_iter().filter(|name| ctx.may_be_out_of_service(name)) {
        let node = api.get_opt(name).await.map_err(Error::api(format!("read node {name}")))?;
        if node.is_some_and(|node| Face::of(&node).out_of_service) {
            tainted.push(name.to_owned());
        }
    }
    Ok(tainted)
}

/// Takes a fresh look at all nodes and all legs: something is to be placed.
///
/// # Errors
/// [`Error::Api`].
pub async fn survey(world: &mut World, ctx: &Context) -> Result<(), Error> {
    (world.nodes, world.promises) = cluster(ctx).await?;
    Ok(())
}

/// Which nodes of the legs and of the record are gone for good. Those that the cache has and that answer are not asked about.
async fn gone_nodes(
    attachment: Option<&MeshAttachment>,
    legs: &[MeshReplica],
    nodes: &[Arc<MeshNode>],
    ctx: &Context,
) -> Result<Vec<String>, Error> {
    let term = attachment.and_then(|a| a.status.as_ref()).and_then(|s| s.term.as_ref());
    let named = legs.iter().map(|leg| leg.spec.node.as_str()).chain(term.map(|t| t.node.as_str()));
    let names: BTreeSet<&str> = named.collect();
    let now = ctx.clock.timestamp();
    // Where Kubernetes has no nodes at all nobody deletes them.
    let answers = |name: &str| node::find(nodes, name).is_some_and(|n| !ctx.has_faces() || node::ready(n, now).is_ok());
    let api: Api<MeshNode> = Api::all(ctx.client.clone());
    let kubernetes: Api<Node> = Api::all(ctx.client.clone());
    let mut gone = Vec::new();
    for name in names.into_iter().filter(|name| !answers(name)) {
        let failed = || Error::api(format!("read node {name}"));
        let left = match api.get_opt(name).await.map_err(failed())? {
            None => true,
            Some(node) if node::ready(&node, now).is_err() => {
                kubernetes.get_metadata_opt(name).await.map_err(failed())?.is_none()
            }
            Some(_) => false,
        };
        if left {
            gone.push(name.to_owned());
        }
    }
    Ok(gone)
}

async fn legs(name: &str, uid: &str, ctx: &Context) -> Result<(Vec<MeshReplica>, Vec<String>), Error> {
    let api: Api<MeshReplica> = Api::all(ctx.client.clone());
    let params = ListParams::default().fields(&format!("spec.volume={name}"));
    let all = api.list(&params).await.map_err(Error::api(format!("list the legs of volume {name}")))?;
    let (mut ours, foreign): (Vec<_>, Vec<_>) = all.items.into_iter().partition(|leg| leg.spec.volume_uid == uid);
    ours.sort_by_key(|leg| leg.spec.slot);
    Ok((ours, foreign.iter().map(MeshReplica::name_any).collect()))
}

async fn attachment(name: &str, uid: &str, ctx: &Context) -> Result<(Option<MeshAttachment>, bool), Error> {
    let api: Api<MeshAttachment> = Api::all(ctx.client.clone());
    let found = api.get_opt(name).await.map_err(Error::api(format!("read attachment {name}")))?;
    let (ours, foreign): (Option<_>, Option<_>) = match found {
        Some(a) if a.owner_references().iter().any(|o| o.uid == uid) => (Some(a), None),
        other => (None, other),
    };
    Ok((ours, foreign.is_some()))
}

async fn policy(name: &str, ctx: &Context) -> Result<Option<ReplicaSetPolicy>, Error> {
    let api: Api<ReplicaSetPolicy> = Api::all(ctx.client.clone());
    api.get_opt(name).await.map_err(Error::api(format!("read policy {name}")))
}

async fn cluster(ctx: &Context) -> Result<(Vec<Arc<MeshNode>>, Promises), Error> {
    // Legs before nodes: a partition that a node's free extents lack is then known from its leg.
    let promises = Promises::of(&all::<MeshReplica>(ctx).await?);
    let mut nodes = all::<MeshNode>(ctx).await?;
    let kubernetes = all::<PartialObjectMeta<Node>>(ctx).await?;
    node::label(&mut nodes, &kubernetes);
    Ok((nodes.into_iter().map(Arc::new).collect(), promises))
}

async fn all<K>(ctx: &Context) -> Result<Vec<K>, Error>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::all(ctx.client.clone());
    let list = api.list(&ListParams::default()).await.map_err(Error::api(format!("list {}", K::plural(&()))))?;
    Ok(list.items)
}
