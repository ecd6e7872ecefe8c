//! The hands: each action is one guarded write with the `resourceVersion` that the plan was made from.

use super::action::Action;
use super::action::Plan;
use super::world::World;
use super::{edit, events, guard};
use crate::MANAGER;
use crate::context::Context;
use crate::error::Error;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Resource, ResourceExt as _};
use meshstor_crds::{MeshAttachment, MeshReplica, MeshVolume, MeshVolumeStatus};
use tracing::info;

/// Does the actions in order and stops at the first that fails; what was left is derived anew by the next run.
///
/// # Errors
/// [`Error::Guard`] for a step that breaks a safety rule, [`Error::Api`] for a write that failed or whose outcome is
/// unknown.
pub async fn apply(world: &World, plan: &Plan, ctx: &Context) -> Result<(), Error> {
    for action in &plan.actions {
        guard::check(world, action).map_err(|broken| Error::Guard { action: action.to_string(), broken })?;
    }
    for action in &plan.actions {
        let epoch = world.term().map_or(0, |t| t.epoch);
        // Before the write: a log that ends at a crash names the step that may have happened, not only those that did.
        info!(epoch, leg = leg_of(action), "{action}");
        write(world, action, ctx).await?;
    }
    Ok(())
}

fn leg_of(action: &Action) -> Option<&str> {
    match action {
        Action::CreateReplica { leg, .. }
        | Action::SetReplicaEpoch { leg, .. }
        | Action::SetGrant { leg, .. }
        | Action::ClearGrant { leg }
        | Action::ReleaseReplica { leg }
        | Action::DeleteReplica { leg } => Some(leg),
        _ => None,
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

async fn write(world: &World, action: &Action, ctx: &Context) -> Result<(), Error> {
    let failed = Error::api(action.to_string());
    let legs: Api<MeshReplica> = Api::all(ctx.client.clone());
    let attachments: Api<MeshAttachment> = Api::all(ctx.client.clone());
    let volumes: Api<MeshVolume> = Api::all(ctx.client.clone());
    match action {
        Action::AddFinalizer | Action::RemoveFinalizer => {
            let volume = edit::with_finalizer(&world.volume, *action == Action::AddFinalizer);
            volumes.replace(&world.name(), &params(), &volume).await.map(drop).map_err(failed)?;
            deleted(world, action, ctx).await;
            Ok(())
        }
        Action::CreateReplica { leg, spec } => {
            legs.create(&params(), &edit::new_leg(world, leg, spec)).await.map(drop).map_err(failed)
        }
        Action::CreateAttachment => {
            attachments.create(&params(), &edit::new_attachment(world)).await.map(drop).map_err(failed)
        }
        Action::WriteTerm(term) => {
            let attachment = edit::with_term(observed(world.attachment.as_ref(), world)?, term, &Time(world.now));
            attachments.replace_status(&world.name(), &params(), &attachment).await.map_err(failed)?;
            for notice in events::of_term(world, term) {
                ctx.tell(&world.volume.object_ref(&()), &notice).await;
            }
            Ok(())
        }
        Action::CopyOn { node } => {
            let attachment = edit::with_copy_on(observed(world.attachment.as_ref(), world)?, node.as_deref());
            attachments.replace_status(&world.name(), &params(), &attachment).await.map(drop).map_err(failed)?;
            if let Some(notice) = node.as_deref().map(events::copying) {
                ctx.tell(&world.volume.object_ref(&()), &notice).await;
            }
            Ok(())
        }
        Action::SetReplicaEpoch { leg, .. } | Action::SetGrant { leg, .. } | Action::ClearGrant { leg } => {
            let new = edit::leg_after(observed(world.leg(leg), world)?, action);
            legs.replace(leg, &params(), &new).await.map(drop).map_err(failed)
        }
        Action::DeleteReplica { leg } => {
            let params = exactly(observed(world.leg(leg), world)?);
            legs.delete(leg, &params).await.map(drop).map_err(failed)
        }
        Action::ReleaseReplica { leg } => {
            let new = edit::let_go(observed(world.leg(leg), world)?);
            legs.replace(leg, &params(), &new).await.map(drop).map_err(failed)
        }
        Action::ReleaseAttachment => {
            let attachment = edit::released(observed(world.attachment.as_ref(), world)?);
            attachments.replace(&world.name(), &params(), &attachment).await.map(drop).map_err(failed)
        }
        Action::DeleteAttachment => {
            let params = exactly(observed(world.attachment.as_ref(), world)?);
            attachments.delete(&world.name(), &params).await.map(drop).map_err(failed)
        }
    }
}

/// An object that the plan saw; without a `resourceVersion` a replace would not be a compare-and-swap.
fn observed<'a, K: Resource<DynamicType = ()>>(object: Option<&'a K>, world: &World) -> Result<&'a K, Error> {
    let field = "resourceVersion";
    let missing = || Error::Incomplete { object: format!("an object of volume {}", world.name()), field };
    object.filter(|o| o.meta().resource_version.is_some()).ok_or_else(missing)
}

/// Deletes this very object in this very state, or nothing.
fn exactly<K: Resource>(object: &K) -> DeleteParams {
    let (resource_version, uid) = (object.meta().resource_version.clone(), object.meta().uid.clone());
    DeleteParams::background().preconditions(Preconditions { resource_version, uid })
}

async fn deleted(world: &World, action: &Action, ctx: &Context) {
    if *action == Action::RemoveFinalizer {
        ctx.forget(&world.uid);
        ctx.tell(&world.volume.object_ref(&()), &events::Notice::normal("Deleted", "every leg was wiped")).await;
    }
}

/// Writes the status if it changed, then tells what changed for people.
///
/// # Errors
/// [`Error::Api`].
pub async fn update_status(world: &World, status: MeshVolumeStatus, ctx: &Context) -> Result<(), Error> {
    let old = world.volume.status.clone().unwrap_or_default();
    let going = world.deleting() && world.volume.finalizers().is_empty();
    if going || old == status {
        return Ok(());
    }
    let patch = serde_json::json!({
        "apiVersion": MeshVolume::api_version(&()), "kind": MeshVolume::kind(&()),
        "metadata": {"name": world.name(), "uid": world.uid}, "status": status,
    });
    let volumes: Api<MeshVolume> = Api::all(ctx.client.clone());
    let params = PatchParams::apply(MANAGER).force();
    let name = world.name();
    match volumes.patch_status(&name, &params, &Patch::Apply(&patch)).await {
        // The finalizer was just removed and the volume with it.
        Err(kube::Error::Api(answer)) if answer.code == 404 && world.deleting() => return Ok(()),
        answer => answer.map(drop).map_err(Error::api(format!("write status of volume {name}")))?,
    }
    for notice in events::notices(&old, &status) {
        ctx.tell(&world.volume.object_ref(&()), &notice).await;
    }
    Ok(())
}
