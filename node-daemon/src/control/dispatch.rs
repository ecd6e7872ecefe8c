//! Watches and workers: one task for each leg of this node and for each attachment that concerns it.
//!
//! All `MeshReplica`s are watched for now: the consumer needs those of other nodes too, and their field selector is
//! the volume, which is not known beforehand.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use kube::runtime::reflector::store::Writer;
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client, Resource};
use meshstor_crds::naming::EXPORT_NQN_PREFIX;
use meshstor_crds::{MeshAttachment, MeshReplica, MeshVolume, WATCH_SECONDS, identity};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinError, JoinSet};

use super::attachment::AttachmentWorker;
use super::context::{Again, Context, Turn};
use super::error::TurnError;
use super::interest::Key;
use super::leg::LegWorker;
use super::observe::volume_uid;
use crate::events::News;
use crate::host::{ArrayFacts, ConnectionFacts, Host, HostError};
use crate::ids::Nqn;

/// An object of a watch that changed.
#[derive(Debug)]
pub enum Change {
    /// A leg, of that volume on that node.
    Replica {
        /// Its name.
        name: String,
        /// Its volume.
        volume: String,
        /// Its node.
        node: String,
    },
    /// A volume or an attachment.
    Volume(String),
}

/// Fills a cache from a watch and tells of every change.
pub fn watch<K>(client: &Client, writer: Writer<K>, changes: mpsc::Sender<Change>, tell: fn(&K) -> Change)
where
    K: Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let config = watcher::Config::default().timeout(WATCH_SECONDS);
    let stream = reflector(writer, watcher(Api::<K>::all(client.clone()), config));
    let mut stream = Box::pin(stream.default_backoff().touched_objects());
    tokio::spawn(async move {
        while let Some(next) = stream.next().await {
            match next {
                Ok(object) => drop(changes.send(tell(&object)).await),
                Err(error) => tracing::warn!(%error, "watch interrupted"),
            }
        }
    });
}

/// How a `MeshReplica` changes things.
pub fn replica(object: &MeshReplica) -> Change {
    Change::Replica {
        name: object.metadata.name.clone().unwrap_or_default(),
        volume: object.spec.volume.clone(),
        node: object.spec.node.clone(),
    }
}

/// How a `MeshAttachment` changes things.
pub fn attachment(object: &MeshAttachment) -> Change {
    Change::Volume(object.metadata.name.clone().unwrap_or_default())
}

/// How a `MeshVolume` changes things.
pub fn volume(object: &MeshVolume) -> Change {
    Change::Volume(object.metadata.name.clone().unwrap_or_default())
}

/// The workers of the process.
pub struct Dispatch {
    ctx: Arc<Context>,
    bells: HashMap<Key, Arc<Notify>>,
    workers: JoinSet<Key>,
    /// The look for leftovers that runs, at most one: it may hang with a drive, and must not keep the workers from being woken.
    looks: JoinSet<Result<Here, TurnError>>,
    /// Another was asked for meanwhile.
    again: bool,
}

/// What of ours is on this node, as far as it can be seen.
type Here = (Seen<ArrayFacts>, Seen<ConnectionFacts>);
type Seen<T> = Result<Vec<T>, HostError>;

impl Dispatch {
    /// Without workers yet.
    pub fn new(ctx: Arc<Context>) -> Self {
        Self { ctx, bells: HashMap::new(), workers: JoinSet::new(), looks: JoinSet::new(), again: false }
    }

    /// Serves changes of objects and of the kernel until one of the two watches ends.
    pub async fn run(mut self, mut changes: mpsc::Receiver<Change>, mut news: mpsc::Receiver<News>) {
        let mut sweep = tokio::time::interval(self.ctx.timing.full);
        loop {
            tokio::select! {
                change = changes.recv() => match change {
                    Some(change) => self.changed(&change),
                    None => return,
                },
                Some(ended) = self.workers.join_next() => match ended {
                    Ok(key) => self.ended(key),
                    // The process starts again rather than go on with a volume that nobody serves.
                    Err(error) => return tracing::error!(%error, "a worker died"),
                },
                told = news.recv() => match told {
                    Some(news) => self.heard(&news),
                    None => return tracing::error!("nobody listens to the kernel any more"),
                },
                Some(here) = self.looks.join_next() => self.found(here),
                _ = sweep.tick() => self.sweep(),
            }
        }
    }

    fn changed(&mut self, change: &Change) {
        match change {
            Change::Replica { name, volume, node } => {
                // What it named may belong to nobody now, and what belonged to nobody may be named by it.
                let gone = self.ctx.cluster.replica(name).is_none();
                if gone || self.ctx.quarantined().is_some_and(|kept| !kept.items.is_empty()) {
                    self.ctx.litter.notify_one();
                }
                if *node == self.ctx.node {
                    self.wake(Key::Leg(name.clone()), true);
                }
                self.volume(volume);
            }
            Change::Volume(name) => {
                self.volume(name);
                let ctx = Arc::clone(&self.ctx);
                for leg in ctx.cluster.replicas_of(name).iter().filter(|r| r.spec.node == ctx.node) {
                    self.wake(Key::Leg(leg.metadata.name.clone().unwrap_or_default()), true);
                }
            }
        }
    }

    /// Wakes whom the news concerns: a leg with its volume, for what holds it may be an array of its own. Nobody whom it does not
    /// concern is disturbed.
    fn heard(&mut self, news: &News) {
        let concerned = self.ctx.interests.concerned(news);
        if news.drives || news.missed {
            self.ctx.node_changed.notify_one();
        }
        let export = news.names.iter().any(|name| name.starts_with(EXPORT_NQN_PREFIX)) && concerned.keys.is_empty();
        if news.drives || export {
            self.ctx.litter.notify_one();
        }
        if news.drives || !concerned.keys.is_empty() {
            tracing::info!(node = %self.ctx.node, %news, workers = concerned.keys.len(), "the kernel tells of a change");
        }
        for key in concerned.keys {
            if let Key::Leg(name) = &key
                && let Some(leg) = self.ctx.cluster.replica(name)
            {
                self.volume(&leg.spec.volume);
            }
            self.wake(key, false);
        }
        if concerned.strangers {
            self.sweep();
        }
    }

    fn volume(&mut self, name: &str) {
        let found = self.ctx.cluster.attachment(name);
        let term = found.as_ref().and_then(|a| a.status.as_ref()).and_then(|s| s.term.as_ref());
        let mine = term.is_some_and(|t| t.node == self.ctx.node);
        self.wake(Key::Attachment(name.to_owned()), mine);
    }

    /// Rings the worker's bell; makes the worker where there is none and one is needed.
    fn wake(&mut self, key: Key, needed: bool) {
        if let Some(bell) = self.bells.get(&key) {
            return bell.notify_one();
        }
        if !needed {
            return;
        }
        let bell = Arc::new(Notify::new());
        self.bells.insert(key.clone(), Arc::clone(&bell));
        let ctx = Arc::clone(&self.ctx);
        self.workers.spawn(async move {
            match &key {
                Key::Leg(name) => serve_leg(ctx, name.clone(), &bell).await,
                Key::Attachment(name) => serve_attachment(ctx, name.clone(), bell).await,
            }
            key
        });
    }

    /// A worker whose object was gone. One of the same name may be there again.
    fn ended(&mut self, key: Key) {
        self.bells.remove(&key);
        self.ctx.interests.forget(&key);
        let again = match &key {
            Key::Leg(name) => self.ctx.cluster.replica(name).is_some_and(|r| r.spec.node == self.ctx.node),
            Key::Attachment(name) => self.ctx.cluster.attachment(name).is_some(),
        };
        if again {
            self.wake(key, true);
        }
    }

    /// Looks for what is on this node although no record names it: an older epoch's array. What belongs to nobody known is looked for
    /// beside it.
    fn sweep(&mut self) {
        self.ctx.litter.notify_one();
        self.again = !self.looks.is_empty();
        if !self.again {
            let ctx = Arc::clone(&self.ctx);
            let look = |host: &dyn Host| Ok((host.arrays(), host.connections()));
            self.looks.spawn(async move { ctx.blocking(look).await });
        }
    }

    /// Wakes whose leftovers were found.
    fn found(&mut self, here: Result<Result<Here, TurnError>, JoinError>) {
        if self.again {
            self.sweep();
        }
        let (arrays, connections) = match here {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return tracing::warn!(%error, "look for leftovers"),
            Err(error) => return tracing::warn!(%error, "look for leftovers"),
        };
        // Whose it is that cannot be read nobody can tell here: everybody looks.
        let unseen = arrays.is_err() || connections.is_err();
        let (arrays, connections) = (told(arrays), told(connections));
        for attachment in self.ctx.cluster.attachments() {
            let name = attachment.metadata.name.clone().unwrap_or_default();
            let legs = self.ctx.cluster.replicas_of(&name);
            let uuid = volume_uid(&attachment, &legs).map(|u| identity::array(&u, legs.iter().map(Arc::as_ref)));
            let uids: HashSet<_> = legs.iter().filter_map(|l| l.metadata.uid.as_deref()).collect();
            let connected = |nqn: &str| Nqn::parse(nqn).is_some_and(|n| uids.contains(n.leg_uid));
            if unseen || arrays.iter().any(|a| Some(a.uuid) == uuid) || connections.iter().any(|c| connected(&c.nqn)) {
                self.wake(Key::Attachment(name), true);
            }
        }
    }
}

/// What could be seen; the log has why not.
fn told<T>(seen: Seen<T>) -> Vec<T> {
    seen.unwrap_or_else(|error| {
        tracing::warn!(%error, "look for leftovers");
        vec![]
    })
}

async fn serve_leg(ctx: Arc<Context>, name: String, bell: &Notify) {
    let mut worker = LegWorker::new(Arc::clone(&ctx), name);
    let mut tries = 0;
    loop {
        let turn = worker.turn().await;
        if turn.as_ref().is_ok_and(|t| *t == Turn::Gone) {
            return;
        }
        pause(&ctx, bell, turn, &mut tries).await;
    }
}

async fn serve_attachment(ctx: Arc<Context>, name: String, bell: Arc<Notify>) {
    let mut worker = AttachmentWorker::new(Arc::clone(&ctx), name, Arc::clone(&bell));
    let mut tries = 0;
    loop {
        let turn = worker.turn().await;
        if turn.as_ref().is_ok_and(|t| *t == Turn::Gone) && !worker.busy() {
            return;
        }
        pause(&ctx, &bell, turn, &mut tries).await;
    }
}

/// Waits as the outcome of a turn asks for.
async fn pause(ctx: &Context, bell: &Notify, turn: Result<Turn, TurnError>, tries: &mut u32) {
    let (least, most) = match turn {
        Ok(Turn::Acted) => {
            *tries = 0;
            return;
        }
        Ok(Turn::Settled(Again::Tick) | Turn::Gone) => (Duration::ZERO, ctx.timing.tick),
        Ok(Turn::Settled(Again::In(time))) => (Duration::ZERO, time.min(ctx.timing.tick)),
        Ok(Turn::Settled(Again::Measure)) => (Duration::ZERO, ctx.timing.measure),
        Ok(Turn::Settled(Again::Full)) => (Duration::ZERO, ctx.timing.full),
        Err(error) => {
            tracing::warn!(node = %ctx.node, class = ?error.class(), %error, "turn failed");
            let wait = error.class().backoff(*tries);
            *tries += 1;
            (wait.min(ctx.timing.tick), wait)
        }
    };
    tokio::time::sleep(least).await;
    // A bell rung meanwhile is kept by `Notify`.
    drop(tokio::time::timeout(most.saturating_sub(least), bell.notified()).await);
}

/// Caches are filled and watches run.
///
/// # Errors
/// When a cache can never be filled.
pub async fn caches(client: &Client) -> Result<(Caches, mpsc::Receiver<Change>), reflector::store::WriterDropped> {
    let (sender, changes) = mpsc::channel(1024);
    let (attachments, a) = reflector::store();
    let (replicas, r) = reflector::store();
    let (volumes, v) = reflector::store();
    watch(client, a, sender.clone(), attachment);
    watch(client, r, sender.clone(), replica);
    watch(client, v, sender, volume);
    let filled =
        [attachments.wait_until_ready().await, replicas.wait_until_ready().await, volumes.wait_until_ready().await];
    futures::stream::iter(filled).try_collect::<Vec<()>>().await?;
    Ok((Caches { attachments, replicas, volumes }, changes))
}

/// The filled caches.
pub struct Caches {
    /// Attachments.
    pub attachments: reflector::Store<MeshAttachment>,
    /// Legs.
    pub replicas: reflector::Store<MeshReplica>,
    /// Volumes.
    pub volumes: reflector::Store<MeshVolume>,
}
