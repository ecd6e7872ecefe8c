//! The hand that makes the objects. The order is what keeps everybody off the data: the volume says what it takes over, so the operator places
//! nothing; then the record, so that no leg may be wiped and none is blank; the legs come last. Stopped anywhere and run again it goes on.

use super::objects;
use kube::api::{Api, PostParams};
use kube::{Client, Resource, ResourceExt as _};
use meshstor_crds::{Adoption, MeshAttachment, MeshVolume, ReplicaSetPolicy, ReplicaSetPolicySpec, Term};
use serde_json::json;
use std::fmt::Debug;

/// Why objects were not made.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server refused, or did not answer.
    #[error("{action}: {source}")]
    Api {
        /// Verb and object.
        action: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// An object of that name is another's.
    #[error("{0} is there already and is not of this volume; nothing of it was changed")]
    Foreign(String),
    /// The policy that was named is not there.
    #[error("there is no ReplicaSetPolicy {0}: make it first, or leave --policy out")]
    NoPolicy(String),
}

fn api(action: impl Into<String>) -> impl FnOnce(kube::Error) -> ApplyError {
    let action = action.into();
    move |source| ApplyError::Api { action, source: Box::new(source) }
}

/// Makes `wanted` and everything that follows from it, and says what was made, for people.
///
/// # Errors
/// [`ApplyError`]; what was made before stays, and the next run goes on from there.
pub async fn apply(client: &Client, wanted: &MeshVolume) -> Result<Vec<String>, ApplyError> {
    let mut made = Vec::new();
    let policy = policy(client, wanted).await?;
    let volume = create(client, wanted, &mut made).await?;
    let name = volume.name_any();
    // What is there counts, not what this run would have made.
    let (Some(adopts), Some(_)) = (volume.spec.adopts.clone(), volume.uid()) else {
        return Err(ApplyError::Foreign(format!("MeshVolume {name}")));
    };
    if wanted.spec.adopts.as_ref().is_some_and(|new| new.array_uuid != adopts.array_uuid) {
        return Err(ApplyError::Foreign(format!("MeshVolume {name}")));
    }
    let attachment = create(client, &objects::attachment(&volume), &mut made).await?;
    owned(&attachment, &volume)?;
    let term = record(client, &name, &adopts, attachment, &mut made).await?;
    for replica in objects::replicas(&volume, &term, &policy) {
        let there = create(client, &replica, &mut made).await?;
        owned(&there, &volume)?;
    }
    Ok(made)
}

async fn policy(client: &Client, volume: &MeshVolume) -> Result<ReplicaSetPolicySpec, ApplyError> {
    let name = volume.spec.policy_name();
    let found: Option<ReplicaSetPolicy> =
        Api::all(client.clone()).get_opt(name).await.map_err(api(format!("read policy {name}")))?;
    match (found, &volume.spec.policy) {
        (Some(policy), _) => Ok(policy.spec),
        (None, None) => Ok(ReplicaSetPolicySpec::default()),
        (None, Some(name)) => Err(ApplyError::NoPolicy(name.clone())),
    }
}

fn owned<K: Resource<DynamicType = ()>>(object: &K, volume: &MeshVolume) -> Result<(), ApplyError> {
    let uid = volume.uid().unwrap_or_default();
    let ours = object.owner_references().iter().any(|owner| owner.uid == uid);
    if ours { Ok(()) } else { Err(ApplyError::Foreign(format!("{} {}", K::kind(&()), object.name_any()))) }
}

/// Makes the object, or reads the one of its name.
async fn create<K>(client: &Client, object: &K, made: &mut Vec<String>) -> Result<K, ApplyError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let (objects, name): (Api<K>, _) = (Api::all(client.clone()), object.name_any());
    let what = format!("{} {name}", K::kind(&()));
    match objects.create(&PostParams::default(), object).await {
        Ok(new) => {
            made.push(format!("{what} created"));
            Ok(new)
        }
        Err(kube::Error::Api(answer)) if answer.code == 409 => {
            objects.get(&name).await.map_err(api(format!("read {what}")))
        }
        Err(error) => Err(api(format!("create {what}"))(error)),
    }
}

/// Begins the record where there is none: guarded by the version that was read, so that it is begun once.
async fn record(
    client: &Client,
    name: &str,
    adopts: &Adoption,
    attachment: MeshAttachment,
    made: &mut Vec<String>,
) -> Result<Term, ApplyError> {
    if let Some(term) = attachment.status.as_ref().and_then(|s| s.term.clone()) {
        return Ok(term);
    }
    let status = objects::record(name, adopts);
    let new = MeshAttachment { status: Some(status.clone()), ..attachment };
    let objects: Api<MeshAttachment> = Api::all(client.clone());
    let action = format!("begin the record of {name}");
    let written = objects.replace_status(name, &PostParams::default(), &new).await.map_err(api(action))?;
    made.push(format!("record of {name} begun: {}", json!(status.term)));
    let term = written.status.and_then(|s| s.term).or(status.term);
    term.ok_or_else(|| ApplyError::Foreign(format!("the record of {name}")))
}
