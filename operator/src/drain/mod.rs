//! `NodeDrain`: accepted and answered, but not carried out yet.

use crate::MANAGER;
use crate::context::Context;
use crate::error::Error;
use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Resource as _, ResourceExt as _};
use meshstor_crds::conditions::{self, Want};
use meshstor_crds::{NodeDrain, NodeDrainStatus, Time};
use std::sync::Arc;

/// The status of `drain`: nothing is done, and that is said.
pub fn status(drain: &NodeDrain, now: Timestamp) -> NodeDrainStatus {
    let message = format!(
        "draining is not implemented; nothing was changed. To keep new legs away set MeshNode {} spec.unschedulable, \
         and detach volumes by clearing their attachment's spec.node",
        drain.spec.node
    );
    let want = |type_, status| Want::new(type_, status, conditions::REASON_NOT_IMPLEMENTED, message.clone());
    let wants = [want(conditions::READY, false), want(conditions::STALLED, true)];
    let old = drain.status.as_ref().map_or(&[][..], |s| &s.conditions);
    let generation = drain.metadata.generation;
    NodeDrainStatus {
        observed_generation: generation,
        conditions: conditions::apply(old, &wants, generation, &Time(now)),
    }
}

/// Writes the status of one drain if it changed.
///
/// # Errors
/// [`Error::Api`].
pub async fn reconcile(drain: Arc<NodeDrain>, ctx: Arc<Context>) -> Result<Action, Error> {
    let new = status(&drain, Timestamp::now());
    if drain.metadata.deletion_timestamp.is_some() || drain.status.as_ref() == Some(&new) {
        return Ok(Action::await_change());
    }
    let name = drain.name_any();
    let api: Api<NodeDrain> = Api::all(ctx.client.clone());
    let patch = serde_json::json!({
        "apiVersion": NodeDrain::api_version(&()), "kind": NodeDrain::kind(&()), "status": new,
    });
    let params = PatchParams::apply(MANAGER).force();
    let answer = api.patch_status(&name, &params, &Patch::Apply(&patch)).await;
    answer.map_err(Error::api(format!("write status of drain {name}")))?;
    Ok(Action::await_change())
}

/// What to do after an error: its class decides.
#[allow(clippy::needless_pass_by_value, reason = "the signature is the controller's")]
pub fn on_error(drain: Arc<NodeDrain>, failure: &Error, _: Arc<Context>) -> Action {
    tracing::warn!(drain = %drain.name_any(), class = failure.class().name(), "{failure}");
    Action::requeue(failure.class().requeue())
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshstor_crds::{DrainMode, NodeDrainSpec};

    #[test]
    fn a_drain_is_refused_and_stays_still() {
        let mut drain = NodeDrain::new("d", NodeDrainSpec { node: "n1".into(), mode: DrainMode::Evacuate });
        let first = status(&drain, Timestamp::UNIX_EPOCH);
        assert!(conditions::is_true(&first.conditions, conditions::STALLED));
        drain.status = Some(first.clone());
        assert_eq!(status(&drain, Timestamp::from_second(99).unwrap()), first);
    }
}
