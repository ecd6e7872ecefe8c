//! The API server as a daemon sees it: caches that are behind, reads with a quorum, guarded writes.

use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use meshstor_crds::{MeshAttachment, MeshNode, MeshReplica, MeshVolume, TermPhase};
use meshstor_node_daemon::control::cluster::{Answer, Cluster, Notice};
use meshstor_node_daemon::control::error::ClusterError;
use meshstor_node_daemon::host::Host;
use meshstor_node_daemon::host::crash::CrashPoint;
use meshstor_node_daemon::host::fake::FakeHost;

use crate::api::{self, Kind, Refused, State, Table};
use crate::daemon::{Objects, Replicas, Volumes};
use crate::net::Net;
use crate::rules::By;

/// What a process's watches have brought.
#[derive(Default)]
pub(crate) struct Cache {
    pub(crate) attachments: Objects<MeshAttachment>,
    pub(crate) replicas: Replicas,
    pub(crate) volumes: Volumes,
    seen: [usize; 3],
}

impl Cache {
    /// Each watch brings so many changes.
    pub(crate) fn watch(&mut self, state: &State, most: usize) {
        bring(&mut self.attachments, &state.attachments, &mut self.seen[0], most);
        bring(&mut self.replicas, &state.replicas, &mut self.seen[1], most);
        bring(&mut self.volumes, &state.volumes, &mut self.seen[2], most);
    }

    /// One of the watches brings so many changes.
    pub(crate) fn watch_one(&mut self, state: &State, which: usize, most: usize) {
        match which {
            0 => bring(&mut self.attachments, &state.attachments, &mut self.seen[0], most),
            1 => bring(&mut self.replicas, &state.replicas, &mut self.seen[1], most),
            _ => bring(&mut self.volumes, &state.volumes, &mut self.seen[2], most),
        }
    }
}

fn bring<K>(cache: &mut Objects<K>, table: &Table<K>, seen: &mut usize, most: usize) {
    let until = table.changes.len().min(seen.saturating_add(most));
    for (name, object) in &table.changes[*seen..until] {
        match object {
            Some(object) => cache.insert(name.clone(), Arc::clone(object)),
            None => cache.remove(name),
        };
    }
    *seen = until;
}

/// A process's view.
pub(crate) struct View {
    pub(crate) node: String,
    pub(crate) incarnation: String,
    pub(crate) net: Arc<Net>,
    pub(crate) cache: Arc<Mutex<Cache>>,
    pub(crate) point: Arc<CrashPoint>,
    pub(crate) host: FakeHost,
    /// A seeded bug: an unknown outcome is taken for success.
    pub(crate) trusting: bool,
    /// A seeded bug: a record that another process claimed is taken for one's own.
    pub(crate) reclaims: bool,
}

fn unknown(what: &str) -> ClusterError {
    ClusterError::Unknown(what.to_owned(), "no answer in time".to_owned())
}

fn error(what: &str, refused: Refused) -> ClusterError {
    match refused.code {
        409 => ClusterError::Conflict(what.to_owned()),
        _ => ClusterError::Refused(what.to_owned(), refused.message),
    }
}

/// A seeded bug: the object as it would be, had it been written.
fn as_if_written<K: Kind>(mut sent: K) -> K {
    let version = sent.meta().resource_version.as_ref().and_then(|v| v.parse::<u64>().ok());
    sent.meta_mut().resource_version = version.map(|v| (v + 1).to_string());
    sent
}

impl View {
    fn cached<T>(&self, look: impl FnOnce(&Cache) -> T) -> T {
        look(&self.cache.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn read<K: Kind>(&self, name: String) -> Answer<'static, Option<K>> {
        if self.point.dead() {
            return futures::future::ready(Err(unknown(&name))).boxed();
        }
        let asked = name.clone();
        let answer = self.net.ask(&self.node, move |state| K::table(state).get(&asked));
        async move { answer.await.map(|found| found.map(|o| (*o).clone())).ok_or_else(|| unknown(&name)) }.boxed()
    }

    fn list<K: Kind>(&self) -> Answer<'static, Vec<K>> {
        if self.point.dead() {
            return futures::future::ready(Err(unknown("a list"))).boxed();
        }
        let answer = self
            .net
            .ask(&self.node, |state| K::table(state).objects.values().map(|o| (**o).clone()).collect::<Vec<K>>());
        async move { answer.await.ok_or_else(|| unknown("a list")) }.boxed()
    }

    /// A write is one effect: the process may die before it is sent or before it is answered.
    fn write<K: Kind>(&self, object: K, status: bool) -> Answer<'static, K> {
        let name = object.meta().name.clone().unwrap_or_default();
        let (by, sent, trusting) = (By::Daemon(self.node.clone()), object.clone(), self.trusting);
        let send = || {
            self.net.ask(&self.node, move |state| {
                if let Some(log) = &mut state.log {
                    log.push(format!("    {by:?} writes"));
                }
                state.replace(object, status, &by)
            })
        };
        let Some(answer) = self.point.around(send) else {
            return futures::future::ready(Err(unknown(&name))).boxed();
        };
        async move {
            match answer.await {
                Some(Ok(written)) => Ok((*written).clone()),
                Some(Err(refused)) => Err(error(&name, refused)),
                None if trusting => Ok(as_if_written(sent)),
                None => Err(unknown(&name)),
            }
        }
        .boxed()
    }

    fn seen(&self, attachment: Arc<MeshAttachment>) -> Arc<MeshAttachment> {
        if !self.reclaims || self.host.arrays().is_ok_and(|a| !a.is_empty()) {
            return attachment;
        }
        let mut mine = (*attachment).clone();
        let term = mine.status.as_mut().and_then(|s| s.term.as_mut());
        if let Some(writer) = term.filter(|t| t.phase == TermPhase::Running).and_then(|t| t.writer.as_mut()) {
            writer.incarnation.clone_from(&self.incarnation);
        }
        Arc::new(mine)
    }
}

impl Cluster for View {
    fn attachment(&self, name: &str) -> Option<Arc<MeshAttachment>> {
        self.cached(|c| c.attachments.get(name).cloned()).map(|a| self.seen(a))
    }
    fn replica(&self, name: &str) -> Option<Arc<MeshReplica>> {
        self.cached(|c| c.replicas.get(name).cloned())
    }
    fn volume(&self, name: &str) -> Option<Arc<MeshVolume>> {
        self.cached(|c| c.volumes.get(name).cloned())
    }
    fn replicas_of(&self, volume: &str) -> Vec<Arc<MeshReplica>> {
        let mut legs = self.replicas();
        legs.retain(|r| r.spec.volume == volume);
        legs.sort_by_key(|r| r.spec.slot);
        legs
    }
    fn replicas(&self) -> Vec<Arc<MeshReplica>> {
        self.cached(|c| c.replicas.values().cloned().collect())
    }
    fn attachments(&self) -> Vec<Arc<MeshAttachment>> {
        self.cached(|c| c.attachments.values().cloned().collect())
    }
    fn read_attachment(&self, name: String) -> Answer<'_, Option<MeshAttachment>> {
        let read = self.read::<MeshAttachment>(name);
        async move { Ok(read.await?.map(|a| (*self.seen(Arc::new(a))).clone())) }.boxed()
    }
    fn read_replica(&self, name: String) -> Answer<'_, Option<MeshReplica>> {
        self.read(name)
    }
    fn list_replicas(&self) -> Answer<'_, Vec<MeshReplica>> {
        self.list()
    }
    fn list_attachments(&self) -> Answer<'_, Vec<MeshAttachment>> {
        self.list()
    }
    fn list_volumes(&self) -> Answer<'_, Vec<MeshVolume>> {
        self.list()
    }
    fn read_node(&self, name: String) -> Answer<'_, Option<MeshNode>> {
        self.read(name)
    }
    fn volumes(&self) -> Vec<Arc<MeshVolume>> {
        self.cached(|c| c.volumes.values().cloned().collect())
    }
    fn write_attachment(&self, object: MeshAttachment) -> Answer<'_, MeshAttachment> {
        self.write(object, true)
    }
    fn write_replica(&self, object: MeshReplica) -> Answer<'_, MeshReplica> {
        self.write(object, true)
    }
    fn release_replica(&self, object: MeshReplica) -> Answer<'_, ()> {
        let released = self.write(object, false);
        async move { released.await.map(drop) }.boxed()
    }
    fn notice(&self, _: &MeshAttachment, _: Notice) {}
    fn notice_node(&self, _: &MeshNode, _: Notice) {}
}

/// Whoever only looks needs no process.
impl api::Table<MeshAttachment> {
    pub(crate) fn term(&self, name: &str) -> Option<meshstor_crds::Term> {
        self.objects.get(name)?.status.as_ref()?.term.clone()
    }
}
