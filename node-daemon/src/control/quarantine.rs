//! The hands of the quarantine: looks for what belongs to no object, keeps it, and does what a person said.
//!
//! A cache that is behind must not make litter of everything: a thing is believed to belong to no object after two looks,
//! [`Timing::doubt`](super::context::Timing::doubt) apart, at each of which lists that were read with a quorum did not name it. The
//! same lists are read once more before anything is done to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use meshstor_crds::{MeshNode, Quarantined};

use super::cluster::Notice;
use super::context::Context;
use super::error::TurnError;
use crate::host::{ArrayFacts, ConnectionFacts, Host, HostError, LegRef, Result as HostResult};
use crate::quarantine::{Claims, Inspected, Kept, Plan, Step, Thing, plan, refused};

/// Several reasons to look at once are one.
const GATHER: Duration = Duration::from_secs(1);
/// A look asks for every process whether it uses each thing: so many times as long as one took there is none, whatever is told.
const REST: u32 = 4;
/// But no longer.
const LONGEST: Duration = Duration::from_secs(60);
/// When it is looked whether things are still in use: nothing tells that a file was closed.
const USED: Duration = Duration::from_secs(30);
/// When it is looked again at what a person wants wiped and what is in use.
const AGAIN: Duration = Duration::from_secs(10);

/// Looks until the process ends.
pub async fn keep(ctx: Arc<Context>, client: Client) {
    let told = Arc::clone(&ctx);
    tokio::spawn(async move { listen(&told, client).await });
    let mut keeper = Keeper::new(Arc::clone(&ctx));
    let mut tries = 0;
    loop {
        let begun = Instant::now();
        let pause = match keeper.turn().await {
            Ok(pause) => {
                tries = 0;
                pause
            }
            Err(error) => {
                tracing::warn!(node = %ctx.node, %error, "look for what belongs to no object");
                tries += 1;
                error.class().backoff(tries)
            }
        };
        let rest = (begun.elapsed() * REST).clamp(GATHER, LONGEST);
        drop(tokio::time::timeout(pause, ctx.litter.notified()).await);
        tokio::time::sleep(rest).await;
    }
}

/// Rings when a person changes what is to be wiped.
async fn listen(ctx: &Context, client: Client) {
    let node = watcher::watch_object(Api::<MeshNode>::all(client), &ctx.node).default_backoff();
    let mut node = Box::pin(node);
    let mut known = vec![];
    while let Some(next) = node.next().await {
        let wipe = match next {
            Ok(object) => object.map(|node| node.spec.wipe).unwrap_or_default(),
            Err(error) => {
                tracing::debug!(%error, "watch of the node interrupted");
                continue;
            }
        };
        if wipe != known {
            known = wipe;
            ctx.litter.notify_one();
        }
    }
}

/// What of ours is on the node, kind by kind, as far as it can be seen.
struct Here {
    arrays: HostResult<Vec<ArrayFacts>>,
    connections: HostResult<Vec<ConnectionFacts>>,
    exports: HostResult<Vec<String>>,
    legs: HostResult<Vec<LegRef>>,
}

impl Here {
    /// Everything that was seen; and whether a kind could not be, by the part of an identity that tells it.
    fn things(self) -> (Vec<Thing>, Vec<&'static str>) {
        let (mut things, mut unseen) = (vec![], vec![]);
        take(self.arrays, "array/", |a| Thing::Array(Box::new(a)), &mut things, &mut unseen);
        take(self.connections, "connection/", Thing::Connection, &mut things, &mut unseen);
        take(self.exports, "export/", Thing::Export, &mut things, &mut unseen);
        take(self.legs, "partition/", Thing::Partition, &mut things, &mut unseen);
        (things, unseen)
    }
}

fn take<T>(
    seen: HostResult<Vec<T>>,
    kind: &'static str,
    thing: fn(T) -> Thing,
    things: &mut Vec<Thing>,
    unseen: &mut Vec<&'static str>,
) {
    match seen {
        Ok(all) => things.extend(all.into_iter().map(thing)),
        Err(error) => {
            tracing::warn!(%error, kind, "look for what belongs to no object");
            unseen.push(kind);
        }
    }
}

/// Keeps the quarantine of this node.
pub struct Keeper {
    ctx: Arc<Context>,
    /// Since when things were seen that no object names, and that are not believed to belong to nobody yet.
    suspects: BTreeMap<String, Instant>,
    /// By identity; none before the node's object was read.
    items: Option<BTreeMap<String, Quarantined>>,
}

impl Keeper {
    /// Remembers nothing yet.
    pub fn new(ctx: Arc<Context>) -> Self {
        Self { ctx, suspects: BTreeMap::new(), items: None }
    }

    /// What is in quarantine, as it was last published.
    pub fn kept(&self) -> Kept {
        self.ctx.quarantined().unwrap_or_default()
    }

    /// Looks, and does what is to be done; answers when to look again if nothing is told.
    ///
    /// # Errors
    /// The node or the API server does not answer. Nothing is believed or done then.
    pub async fn turn(&mut self) -> Result<Duration, TurnError> {
        let here = self.ctx.blocking(|host| Ok(look(host))).await?;
        let (things, unseen) = here.things();
        let cached = self.cached();
        let mut strays: Vec<Thing> = things.into_iter().filter(|thing| !cached.has(thing)).collect();
        let mut old = self.items.clone().unwrap_or_default();
        let again = if unseen.is_empty() { self.ctx.timing.full } else { AGAIN };
        if strays.is_empty() && self.items.as_ref().is_some_and(BTreeMap::is_empty) {
            self.suspects.clear();
            self.publish(&unseen);
            return Ok(again);
        }
        // Its daemon makes the object: without one there is nobody to tell.
        let Some(node) = self.ctx.cluster.read_node(self.ctx.node.clone()).await? else { return Ok(AGAIN) };
        if self.items.is_none() {
            let status = node.status.clone().unwrap_or_default();
            old = status.quarantine.into_iter().map(|item| (item.id.clone(), item)).collect();
        }
        let claims = self.claims(cached, &strays, &old).await?;
        strays.retain(|thing| !claims.has(thing));
        let waits = self.doubt(&mut strays, &old);
        let closely =
            move |host: &dyn Host| Ok(strays.into_iter().filter_map(|s| inspect(host, s)).collect::<Vec<_>>());
        let seen = self.ctx.blocking(closely).await?;
        let mut plan = plan(&self.ctx.node, &seen, &old, &node.spec.wipe, &self.ctx.now());
        // What could not be seen is as it was.
        let kept = old.iter().filter(|(id, _)| unseen.iter().any(|kind| id.starts_with(kind)));
        for (id, item) in kept {
            plan.items.entry(id.clone()).or_insert_with(|| item.clone());
        }
        let done = self.carry_out(&mut plan).await?;
        self.tell(&node, &old, &plan.items, &done);
        let used = plan.items.values().any(|item| item.in_use.is_some());
        let wanted = plan.items.keys().any(|id| node.spec.wipe.contains(id));
        self.items = Some(plan.items);
        self.publish(&unseen);
        Ok(match (done.is_empty(), waits, wanted) {
            (false, ..) => Duration::from_secs(1),
            (_, Some(wait), _) => wait,
            (_, _, true) => AGAIN,
            _ if used => again.min(USED),
            _ => again,
        })
    }

    /// What objects name, by the caches.
    fn cached(&self) -> Claims {
        let cluster = &self.ctx.cluster;
        let mut claims = Claims::default();
        cluster.replicas().iter().for_each(|leg| claims.leg(leg));
        cluster.volumes().iter().for_each(|volume| claims.volume(volume));
        cluster.attachments().iter().for_each(|attachment| claims.attachment(attachment));
        claims
    }

    /// The same and what quorum reads name, if anything depends on it: what is in quarantine already may be named by a cache only.
    async fn claims(
        &self,
        mut claims: Claims,
        strays: &[Thing],
        old: &BTreeMap<String, Quarantined>,
    ) -> Result<Claims, TurnError> {
        if strays.iter().all(|thing| old.contains_key(&thing.id())) {
            return Ok(claims);
        }
        self.read(&mut claims).await?;
        Ok(claims)
    }

    async fn read(&self, claims: &mut Claims) -> Result<(), TurnError> {
        // In the order in which they are made: whose volume comes after it was looked for has no legs yet either.
        self.ctx.cluster.list_volumes().await?.iter().for_each(|volume| claims.volume(volume));
        self.ctx.cluster.list_attachments().await?.iter().for_each(|attachment| claims.attachment(attachment));
        self.ctx.cluster.list_replicas().await?.iter().for_each(|leg| claims.leg(leg));
        Ok(())
    }

    /// Leaves out what was not seen for long enough, and at two looks; answers when the first of it will have been.
    fn doubt(&mut self, strays: &mut Vec<Thing>, old: &BTreeMap<String, Quarantined>) -> Option<Duration> {
        let (now, doubt) = (self.ctx.surroundings.instant(), self.ctx.timing.doubt);
        let mut young = BTreeMap::new();
        strays.retain(|thing| {
            let id = thing.id();
            let since = self.suspects.get(&id).copied();
            let believed = old.contains_key(&id) || since.is_some_and(|since| now.duration_since(since) >= doubt);
            if !believed {
                young.insert(id, since.unwrap_or(now));
            }
            believed
        });
        self.suspects = young;
        self.suspects.values().map(|since| doubt.saturating_sub(now.duration_since(*since))).min()
    }

    /// Does each step that quorum reads still allow; answers with what became of each.
    async fn carry_out(&self, plan: &mut Plan) -> Result<Vec<(String, Step)>, TurnError> {
        let mut done = vec![];
        for step in std::mem::take(&mut plan.steps) {
            let (id, mut claims) = (step.thing().id(), self.cached());
            self.read(&mut claims).await?;
            if claims.has(step.thing()) {
                plan.items.remove(&id);
                continue;
            }
            tracing::warn!(node = %self.ctx.node, id, ?step, "what no object names is taken away");
            let what = step.clone();
            match self.ctx.blocking(move |host| act(host, what.thing())).await {
                Ok(()) => {
                    plan.items.remove(&id);
                    done.push((id, step));
                }
                Err(TurnError::Host(HostError::Crashed)) => return Err(HostError::Crashed.into()),
                Err(error) => {
                    tracing::warn!(node = %self.ctx.node, id, %error, "what no object names stays");
                    if let Some(item) = plan.items.get_mut(&id).filter(|_| matches!(step, Step::Wipe(_))) {
                        item.message = refused(&item.message, &error.to_string());
                    }
                }
            }
        }
        Ok(done)
    }

    /// Events: what came, what went and why, what was refused anew.
    fn tell(
        &self,
        node: &MeshNode,
        old: &BTreeMap<String, Quarantined>,
        new: &BTreeMap<String, Quarantined>,
        done: &[(String, Step)],
    ) {
        let tell = |warning, reason, note| self.ctx.cluster.notice_node(node, Notice { warning, reason, note });
        for (id, item) in new {
            let before = old.get(id);
            let told = before.is_some_and(|b| b.message == item.message);
            if item.message.starts_with("not wiped:") && !told && done.is_empty() {
                tell(true, "WipeRefused", format!("{id}: {}", item.message));
            } else if before.is_none() {
                tell(true, "Quarantined", format!("{id}: {}", item.message));
            }
        }
        for (id, step) in done {
            match step {
                Step::Wipe(_) => tell(false, "Wiped", format!("{id}: spec.wipe named it")),
                Step::Release(_) => tell(false, "Released", format!("{id}: no object names it and nobody used it")),
            }
        }
        let gone = old.keys().filter(|id| !new.contains_key(*id) && !done.iter().any(|(done, _)| done == *id));
        gone.for_each(|id| tell(false, "Released", format!("{id}: an object names it, or it is gone")));
    }

    fn publish(&mut self, unseen: &[&str]) {
        let items = self.items.get_or_insert_default();
        let mut items: Vec<Quarantined> = items.values().cloned().collect();
        items.sort_by(|a, b| (a.since.0, &a.id).cmp(&(b.since.0, &b.id)));
        let unseen = (!unseen.is_empty()).then(|| format!("it could not be looked for: {}", unseen.join(", ")));
        self.ctx.note_quarantined(Kept { items, unseen });
    }
}

fn look(host: &dyn Host) -> Here {
    Here { arrays: host.arrays(), connections: host.connections(), exports: host.exports(), legs: host.legs() }
}

/// Who uses it, and of a partition what it says; none where it is gone.
fn inspect(host: &dyn Host, thing: Thing) -> Option<Inspected> {
    let (users, found) = match &thing {
        Thing::Array(array) => (host.users(&array.device), None),
        Thing::Connection(c) => (c.device.as_deref().map_or(Ok(vec![]), |device| host.users(device)), None),
        Thing::Export(nqn) => (guests(host, nqn), None),
        Thing::Partition(leg) => match host.found(leg) {
            Ok(Some(found)) => {
                let users = found.device.as_deref().map_or(Ok(vec![]), |device| host.users(device));
                let exports = found.exports.iter().map(|nqn| format!("export {nqn}"));
                (users.map(|users| users.into_iter().chain(exports).collect()), Some(Ok(found)))
            }
            Ok(None) => return None,
            Err(error) => (Ok(vec![format!("it cannot be told who ({error})")]), Some(Err(error.to_string()))),
        },
    };
    let users = users.unwrap_or_else(|error| vec![format!("it cannot be told who ({error})")]);
    Some(Inspected { thing, users, found })
}

/// Who is connected to an export.
fn guests(host: &dyn Host, nqn: &str) -> HostResult<Vec<String>> {
    let Some(export) = host.export_named(nqn)? else { return Ok(vec![]) };
    let connected = host.is_connected(&export)?;
    Ok(connected
        .then(|| format!("host {}, which is connected", export.host_nqn.as_deref().unwrap_or("unknown")))
        .into_iter()
        .collect())
}

/// Takes a thing away, unless somebody uses it by now.
fn act(host: &dyn Host, thing: &Thing) -> HostResult<()> {
    let busy = |user: String| Err(HostError::Busy { action: format!("take away {}", thing.id()), cause: user });
    match thing {
        Thing::Array(array) => match host.users(&array.device)?.into_iter().next() {
            Some(user) => busy(user),
            None => host.stop_array(&array.device),
        },
        Thing::Connection(connection) => host.release(&connection.nqn),
        Thing::Export(nqn) => match guests(host, nqn)?.into_iter().next() {
            Some(user) => busy(user),
            None => host.revoke(nqn),
        },
        Thing::Partition(leg) => host.discard(leg),
    }
}
