//! `ReplicaSetPolicy`: says whether what it asks for is there.

use crate::MANAGER;
use crate::context::Context;
use crate::error::Error;
use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Resource as _, ResourceExt as _};
use meshstor_crds::conditions::{self, Want};
use meshstor_crds::{Bitmap, ReplicaSetPolicy, ReplicaSetPolicySpec, ReplicaSetPolicyStatus, Time, Transport};
use std::sync::Arc;

/// The fields of `policy` that ask for what nothing realises yet.
pub fn not_implemented(policy: &ReplicaSetPolicySpec) -> Vec<String> {
    let fields = [
        (policy.bitmap == Bitmap::Lockless, "spec.bitmap=lockless"),
        (policy.bitmap == Bitmap::None, "spec.bitmap=none"),
        (policy.transport == Transport::Rdma, "spec.transport=rdma"),
    ];
    fields.into_iter().filter(|(asked, _)| *asked).map(|(_, field)| field.to_owned()).collect()
}

/// The status of `policy`.
pub fn status(policy: &ReplicaSetPolicy, now: Timestamp) -> ReplicaSetPolicyStatus {
    let missing = not_implemented(&policy.spec);
    let wants = if missing.is_empty() {
        vec![Want::new(conditions::READY, true, conditions::REASON_OK, "volumes may use it")]
    } else {
        let message = format!("not implemented: {}; volumes of this policy are not placed", missing.join(", "));
        let want = |type_, status| Want::new(type_, status, conditions::REASON_NOT_IMPLEMENTED, message.clone());
        vec![want(conditions::READY, false), want(conditions::STALLED, true)]
    };
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

    #[test]
    fn names_every_field_that_is_not_there() {
        assert_eq!(not_implemented(&ReplicaSetPolicySpec::default()), Vec::<String>::new());
        let mut spec = ReplicaSetPolicySpec { bitmap: Bitmap::Lockless, ..ReplicaSetPolicySpec::default() };
        spec.transport = Transport::Rdma;
        let policy = ReplicaSetPolicy::new("p", spec);
        let status = status(&policy, Timestamp::UNIX_EPOCH);
        let message = &status.conditions[0].message;
        assert_eq!((status.conditions.len(), status.conditions[0].status.as_str()), (2, "False"));
        for field in ["spec.bitmap=lockless", "spec.transport=rdma"] {
            assert!(message.contains(field), "{message}");
        }
    }
}
