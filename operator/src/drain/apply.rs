//! The hands of the drains: each action is one guarded write.

use super::guard::{FINALIZER, NAMESPACE};
use super::plan::Action;
use crate::MANAGER;
use crate::context::Context;
use crate::error::Error;
use crate::volume::events::Notice;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Resource as _, ResourceExt as _};
use meshstor_crds::{NodeDrain, NodeDrainStatus, conditions};

/// Does the actions in order. One that fails keeps none of the others from being done but for those that let a node go: of these none is
/// done after a failure, for what they rely on may not be written.
///
/// # Errors
/// The first that failed.
pub async fn apply(actions: &[Action], ctx: &Context) -> Result<(), Error> {
    let mut first = Ok(());
    for action in actions {
        if first.is_err() && lets_go(action) {
            continue;
        }
        tracing::info!("{action}");
        if let Err(failure) = write(action, ctx).await {
            first = first.and(Err(failure));
        }
    }
    first
}

fn lets_go(action: &Action) -> bool {
    matches!(action, Action::LetPodGo { .. } | Action::SetBudget { open: true, .. })
}

fn params() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

fn exactly(uid: &str) -> DeleteParams {
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }
}

async fn write(action: &Action, ctx: &Context) -> Result<(), Error> {
    let failed = Error::api(action.to_string());
    let drains: Api<NodeDrain> = Api::all(ctx.client.clone());
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), NAMESPACE);
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(ctx.client.clone(), NAMESPACE);
    let done = match action {
        Action::CreateDrain { drain } => drains.create(&params(), drain).await.map(drop),
        Action::DeleteDrain { name, uid } => drains.delete(name, &exactly(uid)).await.map(drop),
        Action::WriteStatus { drain, status } => {
            let new = NodeDrain { status: Some((**status).clone()), ..(**drain).clone() };
            let written = drains.replace_status(&drain.name_any(), &params(), &new).await;
            if written.is_ok() {
                tell(drain, status, ctx).await;
            }
            written.map(drop)
        }
        Action::CreatePod { pod } => pods.create(&params(), pod).await.map(drop),
        Action::DeletePod { name, uid } => pods.delete(name, &exactly(uid)).await.map(drop),
        Action::LetPodGo { pod } => {
            let mut new = (**pod).clone();
            new.finalizers_mut().retain(|f| f != FINALIZER);
            pods.replace(&pod.name_any(), &params(), &new).await.map(drop)
        }
        Action::SetBudget { budget, .. } => {
            let params = PatchParams::apply(MANAGER).force();
            budgets.patch(&budget.name_any(), &params, &Patch::Apply(budget)).await.map(drop)
        }
        Action::DeleteBudget { name } => budgets.delete(name, &DeleteParams::default()).await.map(drop),
    };
    match done {
        Err(kube::Error::Api(answer)) if answer.code == 404 && removes(action) => Ok(()),
        done => done.map_err(failed),
    }
}

fn removes(action: &Action) -> bool {
    matches!(action, Action::DeleteDrain { .. } | Action::DeletePod { .. } | Action::DeleteBudget { .. })
}

/// Tells what changed for people.
async fn tell(drain: &NodeDrain, new: &NodeDrainStatus, ctx: &Context) {
    let ready = |s: &NodeDrainStatus| s.conditions.iter().find(|c| c.type_ == conditions::READY).cloned();
    let before = drain.status.as_ref().and_then(ready).map(|c| c.reason);
    let Some(now) = ready(new).filter(|now| before.as_ref() != Some(&now.reason)) else { return };
    let stalled = conditions::is_true(&new.conditions, conditions::STALLED);
    let notice = if stalled { Notice::warning } else { Notice::normal };
    ctx.tell(&drain.object_ref(&()), &notice(&now.reason, now.message)).await;
}
