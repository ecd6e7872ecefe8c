//! The seam to the API server: cached reads, quorum reads, guarded writes.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{ListParams, PostParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, Resource};
use meshstor_crds::{MeshAttachment, MeshNode, MeshReplica, MeshVolume};

use super::error::ClusterError;

/// Result of a call of [`Cluster`].
pub type Answer<'a, T> = BoxFuture<'a, Result<T, ClusterError>>;

/// What happened, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// It deserves a look.
    pub warning: bool,
    /// CamelCase.
    pub reason: &'static str,
    /// For people.
    pub note: String,
}

/// Everything that the daemon's workers read from and write to the API server.
///
/// A `read_` is a GET without `resourceVersion`: linearizable. A `write_` replaces the whole object's status, guarded
/// by the `resourceVersion` in it.
pub trait Cluster: Send + Sync {
    /// From the cache.
    fn attachment(&self, name: &str) -> Option<Arc<MeshAttachment>>;
    /// From the cache.
    fn replica(&self, name: &str) -> Option<Arc<MeshReplica>>;
    /// From the cache.
    fn volume(&self, name: &str) -> Option<Arc<MeshVolume>>;
    /// From the cache: every leg of the volume, on whatever node, by slot.
    fn replicas_of(&self, volume: &str) -> Vec<Arc<MeshReplica>>;
    /// From the cache: every leg of every volume, on whatever node.
    fn replicas(&self) -> Vec<Arc<MeshReplica>>;
    /// From the cache.
    fn attachments(&self) -> Vec<Arc<MeshAttachment>>;
    /// With a quorum.
    fn read_attachment(&self, name: String) -> Answer<'_, Option<MeshAttachment>>;
    /// With a quorum.
    fn read_replica(&self, name: String) -> Answer<'_, Option<MeshReplica>>;
    /// Every leg there is, with a quorum.
    fn list_replicas(&self) -> Answer<'_, Vec<MeshReplica>>;
    /// Every attachment there is, with a quorum.
    fn list_attachments(&self) -> Answer<'_, Vec<MeshAttachment>>;
    /// Every volume there is, with a quorum.
    fn list_volumes(&self) -> Answer<'_, Vec<MeshVolume>>;
    /// With a quorum.
    fn read_node(&self, name: String) -> Answer<'_, Option<MeshNode>>;
    /// From the cache.
    fn volumes(&self) -> Vec<Arc<MeshVolume>>;
    /// Replaces the status.
    fn write_attachment(&self, object: MeshAttachment) -> Answer<'_, MeshAttachment>;
    /// Replaces the status.
    fn write_replica(&self, object: MeshReplica) -> Answer<'_, MeshReplica>;
    /// Replaces the object, for its finalizers.
    fn release_replica(&self, object: MeshReplica) -> Answer<'_, ()>;
    /// Publishes an event; its loss is no error.
    fn notice(&self, about: &MeshAttachment, notice: Notice);
    /// Publishes an event about a node; its loss is no error.
    fn notice_node(&self, about: &MeshNode, notice: Notice);
}

/// Longest time for one request; after that its outcome is unknown.
const PATIENCE: Duration = Duration::from_secs(10);

/// The real one.
pub struct KubeCluster {
    /// For everything else.
    pub client: Client,
    /// Cache.
    pub attachments: Store<MeshAttachment>,
    /// Cache.
    pub replicas: Store<MeshReplica>,
    /// Cache.
    pub volumes: Store<MeshVolume>,
    recorder: Recorder,
}

impl KubeCluster {
    /// Over the caches that the watches fill.
    pub fn new(
        client: Client,
        node: &str,
        attachments: Store<MeshAttachment>,
        replicas: Store<MeshReplica>,
        volumes: Store<MeshVolume>,
    ) -> Self {
        let reporter = Reporter { controller: "meshstor-node-daemon".to_owned(), instance: Some(node.to_owned()) };
        let recorder = Recorder::new(client.clone(), reporter);
        Self { client, attachments, replicas, volumes, recorder }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = kube::core::ClusterResourceScope>,
        K::DynamicType: Default,
    {
        Api::all(self.client.clone())
    }
}

/// Objects of one answer: a list of thousands comes in pieces, all of one version.
const PIECE: u32 = 500;

/// Every object of a kind. Without a `resourceVersion` the first piece is as new as a quorum read, and the others are of its version.
async fn list<K>(api: Api<K>, what: &str) -> Result<Vec<K>, ClusterError>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let mut all = vec![];
    let mut params = ListParams::default().limit(PIECE);
    loop {
        let piece = ask(what.to_owned(), api.list(&params)).await?;
        let next = piece.metadata.continue_.clone().filter(|token| !token.is_empty());
        all.extend(piece.items);
        match next {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}

/// Runs a request within [`PATIENCE`] and tells a definite refusal from an unknown outcome.
pub(super) async fn ask<T>(
    what: String,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ClusterError> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(ClusterError::Conflict(what)),
        Ok(Err(kube::Error::Api(status))) if (400..500).contains(&status.code) && status.code != 408 => {
            Err(ClusterError::Refused(what, status.message.clone()))
        }
        Ok(Err(error)) => Err(ClusterError::Unknown(what, error.to_string())),
        Err(_) => Err(ClusterError::Unknown(what, "no answer in time".to_owned())),
    }
}

fn name<K: Resource>(object: &K) -> String {
    object.meta().name.clone().unwrap_or_default()
}

impl Cluster for KubeCluster {
    fn attachment(&self, name: &str) -> Option<Arc<MeshAttachment>> {
        self.attachments.get(&ObjectRef::new(name))
    }

    fn replica(&self, name: &str) -> Option<Arc<MeshReplica>> {
        self.replicas.get(&ObjectRef::new(name))
    }

    fn volume(&self, name: &str) -> Option<Arc<MeshVolume>> {
        self.volumes.get(&ObjectRef::new(name))
    }

    fn replicas_of(&self, volume: &str) -> Vec<Arc<MeshReplica>> {
        let mut legs: Vec<_> = self.replicas.state().into_iter().filter(|r| r.spec.volume == volume).collect();
        legs.sort_by_key(|r| r.spec.slot);
        legs
    }

    fn replicas(&self) -> Vec<Arc<MeshReplica>> {
        self.replicas.state()
    }

    fn attachments(&self) -> Vec<Arc<MeshAttachment>> {
        self.attachments.state()
    }

    fn read_attachment(&self, name: String) -> Answer<'_, Option<MeshAttachment>> {
        let api = self.api::<MeshAttachment>();
        Box::pin(async move { ask(format!("attachment {name}"), api.get_opt(&name)).await })
    }

    fn read_replica(&self, name: String) -> Answer<'_, Option<MeshReplica>> {
        let api = self.api::<MeshReplica>();
        Box::pin(async move { ask(format!("replica {name}"), api.get_opt(&name)).await })
    }

    fn list_replicas(&self) -> Answer<'_, Vec<MeshReplica>> {
        Box::pin(list(self.api::<MeshReplica>(), "replicas"))
    }

    fn list_attachments(&self) -> Answer<'_, Vec<MeshAttachment>> {
        Box::pin(list(self.api::<MeshAttachment>(), "attachments"))
    }

    fn list_volumes(&self) -> Answer<'_, Vec<MeshVolume>> {
        Box::pin(list(self.api::<MeshVolume>(), "volumes"))
    }

    fn read_node(&self, name: String) -> Answer<'_, Option<MeshNode>> {
        let api = self.api::<MeshNode>();
        Box::pin(async move { ask(format!("node {name}"), api.get_opt(&name)).await })
    }

    fn volumes(&self) -> Vec<Arc<MeshVolume>> {
        self.volumes.state()
    }

    fn write_attachment(&self, object: MeshAttachment) -> Answer<'_, MeshAttachment> {
        let (api, name) = (self.api::<MeshAttachment>(), name(&object));
        Box::pin(async move {
            ask(format!("attachment {name}"), api.replace_status(&name, &PostParams::default(), &object)).await
        })
    }

    fn write_replica(&self, object: MeshReplica) -> Answer<'_, MeshReplica> {
        let (api, name) = (self.api::<MeshReplica>(), name(&object));
        Box::pin(async move {
            ask(format!("replica {name}"), api.replace_status(&name, &PostParams::default(), &object)).await
        })
    }

    fn release_replica(&self, object: MeshReplica) -> Answer<'_, ()> {
        let (api, name) = (self.api::<MeshReplica>(), name(&object));
        Box::pin(async move {
            ask(format!("replica {name}"), api.replace(&name, &PostParams::default(), &object)).await.map(drop)
        })
    }

    fn notice(&self, about: &MeshAttachment, notice: Notice) {
        self.publish(about.object_ref(&()), notice);
    }

    fn notice_node(&self, about: &MeshNode, notice: Notice) {
        self.publish(about.object_ref(&()), notice);
    }
}

impl KubeCluster {
    fn publish(&self, reference: ObjectReference, notice: Notice) {
        let recorder = self.recorder.clone();
        tokio::spawn(async move {
            let type_ = if notice.warning { EventType::Warning } else { EventType::Normal };
            let event = Event {
                type_,
                reason: notice.reason.to_owned(),
                note: Some(notice.note.chars().take(1000).collect()),
                action: notice.reason.to_owned(),
                secondary: None,
            };
            let sent = ask("event".to_owned(), recorder.publish(&event, &reference)).await;
            if let Err(error) = sent {
                tracing::debug!(%error, "event not published");
            }
        });
    }
}
