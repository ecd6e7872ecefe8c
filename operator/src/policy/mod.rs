//! `ReplicaSetPolicy`: says what it comes to.

use crate::MANAGER;
use crate::context::Context;
use crate::error::Error;
use crate::volume::events::Notice;
use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Resource as _, ResourceExt as _};
use meshstor_crds::conditions::{self, Want};
use meshstor_crds::{Bitmap, MeshVolume, Rebalance, ReplicaSetPolicy, ReplicaSetPolicyStatus, Time};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// What it costs to have no bitmap, for the conditions of policies and volumes.
pub const WITHOUT_BITMAP: &str =
    "; without a bitmap all of an array is copied after a crash of its consumer, and all of a leg each time it returns";

/// How often a policy looks what its volumes say.
const LOOK: Duration = Duration::from_secs(10);
/// Volumes that are named in a message.
const NAMED: usize = 10;

/// What the volumes of a policy say of it.
struct Said<'a> {
    /// All of them.
    all: usize,
    /// Those that are not as it wants them.
    broken: Vec<&'a str>,
    /// Those that do not know, or have not answered this generation of it.
    open: usize,
}

fn said<'a>(policy: &ReplicaSetPolicy, volumes: &'a [Arc<MeshVolume>]) -> Said<'a> {
    let name = policy.name_any();
    let mut said = Said { all: 0, broken: Vec::new(), open: 0 };
    for volume in volumes.iter().filter(|v| v.spec.policy_name() == name) {
        let status = volume.status.as_ref();
        let listed = status.map_or(&[][..], |s| &s.conditions);
        let placed = listed.iter().find(|c| c.type_ == conditions::PLACED_BY_POLICY).map(|c| c.status.as_str());
        let fresh = status.is_some_and(|s| {
            let itself = s.observed_generation == volume.metadata.generation;
            itself && s.policy_generation == policy.metadata.generation
        });
        said.all += 1;
        match placed {
            Some("True") if fresh => {}
            Some("False") if fresh => said.broken.extend(volume.metadata.name.as_deref()),
            _ => said.open += 1,
        }
    }
    said.broken.sort_unstable();
    said
}

/// I7: true only when every volume has said so of the policy as it is now.
fn placed(policy: &ReplicaSetPolicy, said: &Said<'_>) -> Want {
    let Said { all, broken, open } = said;
    let want = |status, reason, message| Want { type_: conditions::PLACED_BY_POLICY, status, reason, message };
    match (broken.is_empty(), open) {
        (true, 0) => want(Some(true), conditions::REASON_OK, format!("its {all} volumes are as it says")),
        (true, _) => {
            let message = format!("{open} of {all} volumes have not said yet whether they are as it says");
            want(None, conditions::REASON_PREPARING, message)
        }
        (false, _) => {
            let some = broken.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
            let more = if broken.len() > NAMED { ", …" } else { "" };
            let then = match policy.spec.rebalance {
                Rebalance::Allowed => "what can be moved is moved",
                Rebalance::Never => "spec.rebalance: Allowed lets their legs be moved",
            };
            let message = format!("{} of {all} volumes are not as it says: {some}{more}; {then}", broken.len());
            want(Some(false), conditions::REASON_POLICY_VIOLATED, message)
        }
    }
}

/// The status of `policy`, with what its volumes say.
pub fn status(policy: &ReplicaSetPolicy, volumes: &[Arc<MeshVolume>], now: Timestamp) -> ReplicaSetPolicyStatus {
    let mut message = "volumes may use it".to_owned();
    if policy.spec.bitmap == Bitmap::None {
        message += WITHOUT_BITMAP;
    }
    let said = said(policy, volumes);
    let wants = [Want::new(conditions::READY, true, conditions::REASON_OK, message), placed(policy, &said)];
    let old = policy.status.as_ref().map_or(&[][..], |s| &s.conditions);
    let generation = policy.metadata.generation;
    ReplicaSetPolicyStatus {
        observed_generation: generation,
        conditions: conditions::apply(old, &wants, generation, &Time(now)),
        volumes: i32::try_from(said.all).ok(),
        violated: i32::try_from(said.broken.len()).ok(),
    }
}

/// The news for people: volumes are not as the policy says any more.
fn news(old: Option<&ReplicaSetPolicyStatus>, new: &ReplicaSetPolicyStatus) -> Option<Notice> {
    let more = new.violated.unwrap_or(0) > old.and_then(|s| s.violated).unwrap_or(0);
    let said = new.conditions.iter().find(|c| c.type_ == conditions::PLACED_BY_POLICY)?;
    more.then(|| Notice::warning(&said.reason, said.message.clone()))
}

/// Writes the status of one policy if it changed.
///
/// # Errors
/// [`Error::Api`].
pub async fn reconcile(policy: Arc<ReplicaSetPolicy>, ctx: Arc<Context>) -> Result<Action, Error> {
    let new = status(&policy, &ctx.volumes(), ctx.clock.timestamp());
    if policy.metadata.deletion_timestamp.is_some() || policy.status.as_ref() == Some(&new) {
        return Ok(Action::requeue(LOOK));
    }
    let name = policy.name_any();
    let api: Api<ReplicaSetPolicy> = Api::all(ctx.client.clone());
    let patch = serde_json::json!({
        "apiVersion": ReplicaSetPolicy::api_version(&()), "kind": ReplicaSetPolicy::kind(&()), "status": new,
    });
    let params = PatchParams::apply(MANAGER).force();
    let answer = api.patch_status(&name, &params, &Patch::Apply(&patch)).await;
    answer.map_err(Error::api(format!("write status of policy {name}")))?;
    if let Some(notice) = news(policy.status.as_ref(), &new) {
        ctx.tell(&policy.object_ref(&()), &notice).await;
    }
    Ok(Action::requeue(LOOK))
}

/// Of a policy: UID, generation and status.
type Sight = (Option<String>, Option<i64>, Option<ReplicaSetPolicyStatus>);

/// What volumes were last woken for, by policy: whose status alone has changed since wakes nobody, for it only says what they say.
#[derive(Debug, Default)]
pub struct Seen(HashMap<String, Sight>);

impl Seen {
    /// Whether the volumes of `policy` need a look, now that it was touched. Its deletion shows it as it was last.
    pub fn matters(&mut self, policy: &ReplicaSetPolicy) -> bool {
        let metadata = &policy.metadata;
        let new = (metadata.uid.clone(), metadata.generation, policy.status.clone());
        let old = self.0.insert(policy.name_any(), new.clone());
        old.is_none_or(|old| (&old.0, old.1) != (&new.0, new.1) || old.2 == new.2)
    }
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
    use meshstor_crds::{MeshVolumeStatus, ReplicaSetPolicySpec};

    fn volume(name: &str, policy: Option<&str>, placed: Option<bool>) -> Arc<MeshVolume> {
        let spec = serde_json::json!({"capacity": "64Mi", "replicaCount": 1, "policy": policy});
        let mut volume = MeshVolume::new(name, serde_json::from_value(spec).unwrap());
        let want = Want { type_: conditions::PLACED_BY_POLICY, status: placed, reason: "R", message: String::new() };
        let said = conditions::apply(&[], &[want], None, &Time(Timestamp::UNIX_EPOCH));
        volume.status = Some(MeshVolumeStatus { conditions: said, ..MeshVolumeStatus::default() });
        Arc::new(volume)
    }

    /// I7: it counts what its volumes say, and news are only of more of them.
    #[test]
    fn a_policy_says_which_volumes_are_not_as_it_wants_them() {
        let mut policy = ReplicaSetPolicy::new("p", ReplicaSetPolicySpec::default());
        let said =
            |policy: &ReplicaSetPolicy, volumes: &[Arc<MeshVolume>]| status(policy, volumes, Timestamp::UNIX_EPOCH);
        let message = |s: &ReplicaSetPolicyStatus| s.conditions[1].message.clone();
        let good = [
            volume("a", Some("p"), Some(true)),
            volume("b", Some("p"), Some(true)),
            volume("c", Some("q"), Some(false)),
        ];
        let one = said(&policy, &good);
        assert_eq!((one.volumes, one.violated, one.conditions[1].status.as_str()), (Some(2), Some(0), "True"));
        assert!(news(None, &one).is_none());
        let open = said(&policy, &[good[0].clone(), volume("b", Some("p"), None)]);
        assert_eq!((open.conditions[1].status.as_str(), open.violated), ("Unknown", Some(0)));
        policy.metadata.generation = Some(2);
        let late = said(&policy, &good);
        assert_eq!(late.conditions[1].status, "Unknown", "they have answered the policy as it was: {late:?}");
        policy.metadata.generation = None;
        let mut turned = good.to_vec();
        Arc::make_mut(&mut turned[0]).metadata.generation = Some(2);
        assert_eq!(said(&policy, &turned).conditions[1].status, "Unknown", "it has not looked at this policy yet");
        let mut bad = good.to_vec();
        bad.extend([volume("y", Some("p"), Some(false)), volume("x", Some("p"), Some(false))]);
        let two = said(&policy, &bad);
        assert_eq!((two.volumes, two.violated), (Some(4), Some(2)));
        assert!(
            message(&two).starts_with("2 of 4 volumes are not as it says: x, y; spec.rebalance: Allowed"),
            "{}",
            message(&two)
        );
        assert!(news(Some(&one), &two).is_some_and(|n| n.warning) && news(Some(&two), &two).is_none());
        policy.spec.rebalance = Rebalance::Allowed;
        assert!(message(&said(&policy, &bad)).ends_with("what can be moved is moved"));
        let many: Vec<_> = (0..30).map(|n| volume(&format!("v{n:02}"), Some("p"), Some(false))).collect();
        assert!(message(&said(&policy, &many)).contains("v09, …;"));
    }

    #[test]
    fn what_a_policy_says_of_its_volumes_wakes_none_of_them() {
        let mut seen = Seen::default();
        let mut policy = ReplicaSetPolicy::new("p", ReplicaSetPolicySpec::default());
        (policy.metadata.uid, policy.metadata.generation) = (Some("1".into()), Some(1));
        assert!(seen.matters(&policy), "it is new");
        policy.status = Some(status(&policy, &[], Timestamp::UNIX_EPOCH));
        assert!(!seen.matters(&policy), "its status");
        assert!(seen.matters(&policy), "it was deleted, or listed anew");
        policy.metadata.generation = Some(2);
        assert!(seen.matters(&policy), "its spec");
        policy.metadata.uid = Some("2".into());
        assert!(seen.matters(&policy), "another of its name");
    }

    #[test]
    fn a_policy_says_what_no_bitmap_costs() {
        let said = |bitmap| {
            let spec = ReplicaSetPolicySpec { bitmap, ..ReplicaSetPolicySpec::default() };
            status(&ReplicaSetPolicy::new("p", spec), &[], Timestamp::UNIX_EPOCH).conditions[0].message.clone()
        };
        assert_eq!(said(Bitmap::Auto), "volumes may use it");
        assert!(said(Bitmap::None).contains("copied after a crash"), "{}", said(Bitmap::None));
    }
}
