//! An API server that keeps objects, versions and its word; it can be away, and it can lose answers or delay writes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use meshstor_crds::{MeshAttachment, MeshNode, MeshReplica, MeshVolume, REPLICA_FINALIZER};

use crate::control::cluster::{Answer, Cluster, Notice};
use crate::control::error::ClusterError;
use crate::host::crash::CrashPoint;

#[derive(Default)]
pub struct State {
    pub version: u64,
    pub attachments: BTreeMap<String, MeshAttachment>,
    pub replicas: BTreeMap<String, MeshReplica>,
    pub volumes: BTreeMap<String, MeshVolume>,
    pub nodes: BTreeMap<String, MeshNode>,
    /// The daemons' caches lack every leg.
    pub blind: bool,
    pub notices: Vec<Notice>,
    /// Nothing is answered or done.
    pub away: bool,
    /// The next so many writes of attachments are done, and their answers lost.
    pub lose_answers: u32,
    /// The next so many writes of attachments are neither done nor answered, but may land later.
    pub delay: u32,
    pub delayed: Vec<MeshAttachment>,
    /// Every record ever written: for the oracle.
    pub history: Vec<MeshAttachment>,
}

impl State {
    pub fn bump(&mut self) -> Option<String> {
        self.version += 1;
        Some(self.version.to_string())
    }

    pub fn put_attachment(&mut self, mut object: MeshAttachment) -> Result<MeshAttachment, ClusterError> {
        let name = object.metadata.name.clone().unwrap();
        let old = &self.attachments[&name];
        if old.metadata.resource_version != object.metadata.resource_version {
            return Err(ClusterError::Conflict(name));
        }
        assert_ne!(old.status, object.status, "I4: a write that changes nothing was sent");
        check_transition(old, &object);
        object.spec = old.spec.clone();
        object.metadata = old.metadata.clone();
        object.metadata.resource_version = self.bump();
        self.attachments.insert(name, object.clone());
        self.history.push(object.clone());
        Ok(object)
    }

    /// Writes that were delayed land now, where their version still is the newest.
    pub fn land(&mut self) -> usize {
        let delayed = std::mem::take(&mut self.delayed);
        delayed.into_iter().filter(|o| self.put_attachment(o.clone()).is_ok()).count()
    }
}

/// The CEL rules of the record.
fn check_transition(old: &MeshAttachment, new: &MeshAttachment) {
    let term = |a: &MeshAttachment| a.status.as_ref().and_then(|s| s.term.clone());
    let (Some(old), new) = (term(old), term(new)) else { return };
    let new = new.expect("I2: the record is never removed");
    assert!(!new.in_sync.is_empty(), "I1: S became empty");
    assert!(new.epoch == old.epoch || new.epoch == old.epoch + 1, "I2: epoch {} to {}", old.epoch, new.epoch);
    let added = new.in_sync.iter().any(|l| !old.in_sync.contains(l));
    assert!(!added || (old.epoch == new.epoch && old.phase == new.phase), "I6: S grew outside a running epoch");
}

pub struct FakeCluster {
    pub state: Arc<Mutex<State>>,
    pub point: Arc<CrashPoint>,
}

impl FakeCluster {
    fn ask(&self) -> Result<MutexGuard<'_, State>, ClusterError> {
        let state = self.state.lock().unwrap();
        if state.away || self.point.dead() {
            return Err(ClusterError::Unknown("x".to_owned(), "away".to_owned()));
        }
        Ok(state)
    }

    /// A write is one effect: the process may die before it is sent or before it is answered.
    fn effect<T>(&self, write: impl FnOnce(&mut State) -> Result<T, ClusterError>) -> Result<T, ClusterError> {
        let mut state = self.ask()?;
        let done = self.point.around(|| write(&mut state));
        done.unwrap_or_else(|| Err(ClusterError::Unknown("x".to_owned(), "crashed".to_owned())))
    }
}

fn lost() -> ClusterError {
    ClusterError::Unknown("attachment".to_owned(), "no answer".to_owned())
}

impl Cluster for FakeCluster {
    fn attachment(&self, name: &str) -> Option<Arc<MeshAttachment>> {
        self.state.lock().unwrap().attachments.get(name).cloned().map(Arc::new)
    }
    fn replica(&self, name: &str) -> Option<Arc<MeshReplica>> {
        self.state.lock().unwrap().replicas.get(name).cloned().map(Arc::new)
    }
    fn volume(&self, name: &str) -> Option<Arc<MeshVolume>> {
        self.state.lock().unwrap().volumes.get(name).cloned().map(Arc::new)
    }
    fn replicas_of(&self, volume: &str) -> Vec<Arc<MeshReplica>> {
        let state = self.state.lock().unwrap();
        state.replicas.values().filter(|r| r.spec.volume == volume).cloned().map(Arc::new).collect()
    }
    fn replicas(&self) -> Vec<Arc<MeshReplica>> {
        let state = self.state.lock().unwrap();
        state.replicas.values().filter(|_| !state.blind).cloned().map(Arc::new).collect()
    }
    fn attachments(&self) -> Vec<Arc<MeshAttachment>> {
        self.state.lock().unwrap().attachments.values().cloned().map(Arc::new).collect()
    }
    fn read_attachment(&self, name: String) -> Answer<'_, Option<MeshAttachment>> {
        Box::pin(async move { Ok(self.ask()?.attachments.get(&name).cloned()) })
    }
    fn read_replica(&self, name: String) -> Answer<'_, Option<MeshReplica>> {
        Box::pin(async move { Ok(self.ask()?.replicas.get(&name).cloned()) })
    }
    fn list_replicas(&self) -> Answer<'_, Vec<MeshReplica>> {
        Box::pin(async move { Ok(self.ask()?.replicas.values().cloned().collect()) })
    }
    fn list_attachments(&self) -> Answer<'_, Vec<MeshAttachment>> {
        Box::pin(async move { Ok(self.ask()?.attachments.values().cloned().collect()) })
    }
    fn list_volumes(&self) -> Answer<'_, Vec<MeshVolume>> {
        Box::pin(async move { Ok(self.ask()?.volumes.values().cloned().collect()) })
    }
    fn read_node(&self, name: String) -> Answer<'_, Option<MeshNode>> {
        Box::pin(async move { Ok(self.ask()?.nodes.get(&name).cloned()) })
    }
    fn volumes(&self) -> Vec<Arc<MeshVolume>> {
        self.state.lock().unwrap().volumes.values().cloned().map(Arc::new).collect()
    }
    fn write_attachment(&self, object: MeshAttachment) -> Answer<'_, MeshAttachment> {
        let done = self.effect(|state| {
            if state.delay > 0 {
                state.delay -= 1;
                state.delayed.push(object);
                return Err(lost());
            }
            let written = state.put_attachment(object)?;
            if state.lose_answers > 0 {
                state.lose_answers -= 1;
                return Err(lost());
            }
            Ok(written)
        });
        Box::pin(async move { done })
    }
    fn write_replica(&self, mut object: MeshReplica) -> Answer<'_, MeshReplica> {
        let done = self.effect(|state| {
            let name = object.metadata.name.clone().unwrap();
            let Some(old) = state.replicas.get(&name).cloned() else { return Err(ClusterError::Conflict(name)) };
            if old.metadata.resource_version != object.metadata.resource_version {
                return Err(ClusterError::Conflict(name));
            }
            assert_ne!(old.status, object.status, "I4: a write that changes nothing was sent");
            object.metadata.resource_version = state.bump();
            state.replicas.insert(name, object.clone());
            Ok(object)
        });
        Box::pin(async move { done })
    }
    fn release_replica(&self, object: MeshReplica) -> Answer<'_, ()> {
        let done = self.effect(|state| {
            assert!(!object.metadata.finalizers.iter().flatten().any(|f| f == REPLICA_FINALIZER));
            state.replicas.remove(object.metadata.name.as_deref().unwrap());
            state.version += 1;
            Ok(())
        });
        Box::pin(async move { done })
    }
    fn notice(&self, _about: &MeshAttachment, notice: Notice) {
        self.state.lock().unwrap().notices.push(notice);
    }
    fn notice_node(&self, _about: &MeshNode, notice: Notice) {
        self.state.lock().unwrap().notices.push(notice);
    }
}
