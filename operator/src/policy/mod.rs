//! `ReplicaSetPolicy`: says what it comes to.

use crate::MANAGER;
use crate::context::Context;
use crate::error::Error;
use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Resource as _, ResourceExt as _};
use meshstor_crds::conditions::{self, Want};
use meshstor_crds::{Bitmap, ReplicaSetPolicy, ReplicaSetPolicyStatus, Time};
use std::sync::Arc;

/// What it costs to have no bitmap, for the conditions of policies and volumes.
pub const WITHOUT_BITMAP: &str =
    "; without a bitmap all of an array is copied after a crash of its consumer, and all of a leg each time it returns";

/// The status of `policy`.
pub fn status(policy: &ReplicaSetPolicy, now: Timestamp) -> ReplicaSetPolicyStatus {
    let mut message = "volumes may use it".to_owned();
    if policy.spec.bitmap == Bitmap::None {
        message += WITHOUT_BITMAP;
    }
    let wants = [Want::new(conditions::READY, true, conditions::REASON_OK, message)];
    let old = policy.status.as_ref().map_or(&[][..], |s| &s.conditions);
    let generation = policy.metadata.generation;
    ReplicaSetPolicyStatus {
        observed_generation: generation,
        conditions: conditions::apply(old, &wants, generation, &Time(now)),
    }
}

/// Writes the status of one policy if it changed.
///
/// # Errors
/// [`Error::Api`].
pub async fn reconcile(policy: Arc<ReplicaSetPolicy>, ctx: Arc<Context>) -> Result<Action, Error> {
    let new = status(&policy, Timestamp::now());
    if policy.metadata.deletion_timestamp.is_some() || policy.status.as_ref() == Some(&new) {
        return Ok(Action::await_change());
    }
    let name = policy.name_any();
    let api: Api<ReplicaSetPolicy> = Api::all(ctx.client.clone());
    let patch = serde_json::json!({
        "apiVersion": ReplicaSetPolicy::api_version(&()), "kind": ReplicaSetPolicy::kind(&()), "status": new,
    });
    let params = PatchParams::apply(MANAGER).force();
    let answer = api.patch_status(&name, &params, &Patch::Apply(&patch)).await;
    answer.map_err(Error::api(format!("write status of policy {name}")))?;
    Ok(Action::await_change())
}

/// What to do after an error: its class decides.
#[allow(clippy::needless_pass_by_value, reason = "the signature is the controller's")]
pub fn on_error(policy: Arc<ReplicaSetPolicy>, failure: &Error, _: Arc<Context>) -> Action {
    tracing::warn!(policy = %policy.name_any(), class = failure.class().name(), "{failure}");
    Action::requeue(failure.class().requeue())
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshstor_crds::ReplicaSetPolicySpec;

    #[test]
    fn a_policy_says_what_no_bitmap_costs() {
        let said = |bitmap| {
            let spec = ReplicaSetPolicySpec { bitmap, ..ReplicaSetPolicySpec::default() };
            status(&ReplicaSetPolicy::new("p", spec), Timestamp::UNIX_EPOCH).conditions[0].message.clone()
        };
        assert_eq!(said(Bitmap::Auto), "volumes may use it");
        assert!(said(Bitmap::None).contains("copied after a crash"), "{}", said(Bitmap::None));
    }
}
