//! What reconciles share: the client, the nodes as last heard, clocks, and the recorder of events.

use crate::MANAGER;
use crate::drain::world::Settings;
use crate::node::{Face, Labels};
use crate::volume::budget;
use crate::volume::clocks::{Clocks, Memory};
use crate::volume::events::Notice;
use crate::volume::world::World;
use futures::channel::mpsc::UnboundedSender;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::reflector::{ObjectRef, Store};
use meshstor_crds::{Geometry, MeshAttachment, MeshNode, MeshReplica, MeshVolume, NodeDrain};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::OwnedMutexGuard;
use tracing::warn;

/// The clocks of the process; a simulation puts its own in their place.
pub trait Clock: Send + Sync {
    /// The monotonic one.
    fn instant(&self) -> Instant;
    /// The one on the wall.
    fn timestamp(&self) -> Timestamp;
}

/// Those of a real process.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn instant(&self) -> Instant {
        Instant::now()
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// Shared by all reconciles of the process.
pub struct Context {
    /// Client of the API server.
    pub client: Client,
    /// Nodes as last heard: hints.
    pub nodes: Store<MeshNode>,
    /// Drains as last heard: hints. What they ask of a leg is never a matter of safety.
    pub drains: Store<NodeDrain>,
    /// Clocks.
    pub clock: Arc<dyn Clock>,
    volumes: Store<MeshVolume>,
    recorder: Recorder,
    memories: Mutex<HashMap<String, Memory>>,
    rebuilds: Mutex<budget::Ledger>,
    /// Kubernetes nodes as last heard.
    faces: Mutex<HashMap<String, Face>>,
    /// Label of a node whose value is its failure domain.
    pub domain: Arc<str>,
    placing: Arc<tokio::sync::Mutex<()>>,
    /// Where it is said that there is room for a rebuild of a volume.
    room: Option<UnboundedSender<ObjectRef<MeshVolume>>>,
}

impl Context {
    /// A context; `volumes` is the controller's own cache.
    pub fn new(client: Client, nodes: Store<MeshNode>, drains: Store<NodeDrain>, volumes: Store<MeshVolume>) -> Self {
        let recorder = Recorder::new(client.clone(), MANAGER.into());
        let (memories, rebuilds, faces) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (clock, placing) = (Arc::new(SystemClock), Arc::default());
        let domain = Settings::default().domain.into();
        Self { client, nodes, drains, clock, volumes, recorder, memories, rebuilds, faces, domain, placing, room: None }
    }

    /// The same with another label for failure domains.
    #[must_use]
    pub fn with_domain(self, label: &str) -> Self {
        Self { domain: label.into(), ..self }
    }

    /// The same, which tells of volumes that a rebuild of another has made room for.
    #[must_use]
    pub fn with_room(self, room: UnboundedSender<ObjectRef<MeshVolume>>) -> Self {
        Self { room: Some(room), ..self }
    }

    /// The same by another clock.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// One volume is placed at a time, so that two never get the same room. A volume whose status shows all its
    /// legs is placed and needs no turn.
    pub async fn placing_turn(&self, volume: &str) -> Option<OwnedMutexGuard<()>> {
        let cached = self.volumes.get(&ObjectRef::new(volume));
        let placed = cached.is_some_and(|v| {
            let legs = v.status.as_ref().map_or(0, |s| s.legs.len());
            v.metadata.deletion_timestamp.is_some() || legs >= Geometry::of_spec(&v.spec).legs().count()
        });
        if placed { None } else { Some(self.turn().await) }
    }

    /// The turn itself, for a volume that is placed and needs another leg.
    pub async fn turn(&self) -> OwnedMutexGuard<()> {
        self.placing.clone().lock_owned().await
    }

    /// The clocks of the volume with that UID after what was observed at `now`.
    pub fn observe(
        &self,
        uid: &str,
        attachment: Option<&MeshAttachment>,
        legs: &[MeshReplica],
        now: Instant,
    ) -> Clocks {
        self.memories().entry(uid.to_owned()).or_default().observe(attachment, legs, now)
    }

    /// Takes note of what was heard of the Kubernetes node `name`; nothing when it is gone.
    pub fn note_face(&self, name: &str, face: Option<Face>) {
        let mut noted = self.faces.lock().unwrap_or_else(PoisonError::into_inner);
        match face {
            Some(face) => noted.insert(name.to_owned(), face),
            None => noted.remove(name),
        };
    }

    /// Whether the node was last heard of as out of service: a reason to read it, not to act.
    pub fn may_be_out_of_service(&self, name: &str) -> bool {
        self.faces.lock().unwrap_or_else(PoisonError::into_inner).get(name).is_some_and(|face| face.out_of_service)
    }

    /// Whether any Kubernetes node was heard of.
    pub fn has_faces(&self) -> bool {
        !self.faces.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The labels of the Kubernetes nodes of `legs` that were heard of.
    pub fn labels(&self, legs: &[MeshReplica]) -> BTreeMap<String, Labels> {
        let faces = self.faces.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |leg: &MeshReplica| Some((leg.spec.node.clone(), faces.get(&leg.spec.node)?.labels.clone()));
        legs.iter().filter_map(of).collect()
    }

    /// Legs of the volume whose rebuild must wait for that of others, and of these the ones that are next.
    pub fn budget(&self, world: &World) -> (BTreeSet<String>, BTreeSet<String>) {
        let mut ledger = self.rebuilds.lock().unwrap_or_else(PoisonError::into_inner);
        self.volumes.state().iter().for_each(|volume| ledger.heard(volume));
        let answer = ledger.observe(&world.uid, budget::rebuilds(world));
        self.tell_next(&ledger);
        answer
    }

    /// Those who could begin, or be the next, look again at once.
    fn tell_next(&self, ledger: &budget::Ledger) {
        for (room, next) in self.room.iter().flat_map(|room| ledger.next().into_iter().map(move |next| (room, next))) {
            // That nobody listens means that this process ends.
            let _ = room.unbounded_send(ObjectRef::new(&next));
        }
    }

    /// All volumes, as last heard.
    pub fn volumes(&self) -> Vec<Arc<MeshVolume>> {
        self.volumes.state()
    }

    /// Forgets a volume that is gone.
    pub fn forget(&self, uid: &str) {
        let mut ledger = self.rebuilds.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.forget(uid);
        self.tell_next(&ledger);
        drop(ledger);
        self.memories().remove(uid);
    }

    /// Clocks stay usable after a panic elsewhere: each is written whole.
    fn memories(&self) -> MutexGuard<'_, HashMap<String, Memory>> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes an event. It is news for people: that it fails changes nothing.
    pub async fn tell(&self, about: &ObjectReference, notice: &Notice) {
        let event = Event {
            type_: if notice.warning { EventType::Warning } else { EventType::Normal },
            reason: notice.reason.clone(),
            note: Some(notice.note.clone()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(failure) = self.recorder.publish(&event, about).await {
            warn!(reason = notice.reason, "publish event: {failure}");
        }
    }
}
