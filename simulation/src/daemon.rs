//! One process of a node's daemon: its real workers, on the fake kernel and the fake API server. What the product does
//! with watches, wake-ups and threads (`control::dispatch`) the scheduler does here, in any order.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as Task, Poll, Waker};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use jiff::Timestamp;
use meshstor_crds::{MeshAttachment, MeshNode, MeshNodeSpec, MeshReplica, MeshVolume};
use meshstor_node_daemon::control::attachment::AttachmentWorker;
use meshstor_node_daemon::control::context::{Context, Timing, Turn};
use meshstor_node_daemon::control::error::{Class, TurnError};
use meshstor_node_daemon::control::interest::Interests;
use meshstor_node_daemon::control::leg::LegWorker;
use meshstor_node_daemon::control::node;
use meshstor_node_daemon::control::surroundings::{Job, Surroundings};
use meshstor_node_daemon::host::Host;
use meshstor_node_daemon::host::crash::{CrashHost, CrashPoint};
use meshstor_node_daemon::host::fake::{FakeFabric, FakeHost};
use meshstor_node_daemon::wake::FakeWakeups;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::cluster::{Cache, View};
use crate::net::Net;
use crate::rules::By;

/// The process's threads: what is to be done on them waits until the scheduler has it done.
pub(crate) struct Threads {
    clock: Arc<Clock>,
    jobs: Mutex<VecDeque<Job>>,
    /// Done as it comes, or when the scheduler says so.
    at_once: Mutex<bool>,
    fabric: FakeFabric,
    net: Arc<Net>,
    point: Arc<CrashPoint>,
}

impl Threads {
    /// I8: a job that the host refuses leaves arrays and legs as they were.
    fn run(&self, job: Job) {
        let (before, refused) = (self.fabric.standing(), self.point.refusals());
        job();
        if self.point.refusals() == refused {
            return;
        }
        let mut state = self.net.state();
        state.refusals += 1;
        let after = self.fabric.standing();
        if before != after {
            state.broken.push(format!("I8: a refusal left {after:?}, and there was {before:?}"));
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Surroundings for Threads {
    fn instant(&self) -> Instant {
        self.clock.instant()
    }

    fn timestamp(&self) -> Timestamp {
        self.clock.timestamp()
    }

    fn apart(&self, job: Job) {
        if *locked(&self.at_once) { self.run(job) } else { locked(&self.jobs).push_back(job) }
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        let (clock, until) = (Arc::clone(&self.clock), self.clock.instant() + time);
        let due = move |_: &mut Task<'_>| if clock.instant() >= until { Poll::Ready(()) } else { Poll::Pending };
        Box::pin(std::future::poll_fn(due))
    }
}

enum Worker {
    Leg(Box<LegWorker>),
    Attachment(Box<AttachmentWorker>),
}

type Going = Pin<Box<dyn Future<Output = (Worker, Result<Turn, TurnError>)> + Send>>;

/// A worker, or the turn that it is in.
struct Slot {
    worker: Option<Worker>,
    going: Option<Going>,
}

/// What a poll of a worker came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Polled {
    /// A turn has not ended yet.
    Going,
    /// A turn did a step, or failed.
    Acted,
    /// A turn found nothing to do.
    Settled,
}

/// A process.
pub(crate) struct Daemon {
    pub(crate) node: String,
    ctx: Arc<Context>,
    host: FakeHost,
    net: Arc<Net>,
    threads: Arc<Threads>,
    pub(crate) point: Arc<CrashPoint>,
    pub(crate) cache: Arc<Mutex<Cache>>,
    workers: BTreeMap<String, Slot>,
}

/// What a process is started with.
pub(crate) struct Start<'a> {
    pub(crate) node: &'a str,
    pub(crate) incarnation: String,
    pub(crate) host: &'a FakeHost,
    pub(crate) fabric: &'a FakeFabric,
    pub(crate) net: &'a Arc<Net>,
    pub(crate) clock: &'a Arc<Clock>,
    pub(crate) point: Arc<CrashPoint>,
    /// Seeded bugs of its dealings with the API server.
    pub(crate) trusting: bool,
    pub(crate) reclaims: bool,
}

impl Daemon {
    /// A new process, whose caches are filled.
    ///
    /// # Errors
    /// When the node is down.
    pub(crate) fn start(start: Start<'_>) -> Result<Self, String> {
        let facts = start.host.node().map_err(|e| e.to_string())?;
        let mut cache = Cache::default();
        cache.watch(&start.net.state(), usize::MAX);
        let cache = Arc::new(Mutex::new(cache));
        let threads = Arc::new(Threads {
            clock: Arc::clone(start.clock),
            jobs: Mutex::default(),
            at_once: Mutex::new(true),
            fabric: start.fabric.clone(),
            net: Arc::clone(start.net),
            point: Arc::clone(&start.point),
        });
        let view = View {
            node: start.node.to_owned(),
            incarnation: start.incarnation.clone(),
            net: Arc::clone(start.net),
            cache: Arc::clone(&cache),
            point: Arc::clone(&start.point),
            host: start.host.clone(),
            trusting: start.trusting,
            reclaims: start.reclaims,
        };
        let ctx = Context {
            node: start.node.to_owned(),
            incarnation: start.incarnation,
            boot_id: facts.boot_id,
            addresses: vec![address(start.node)],
            host: Arc::new(CrashHost::new(start.host.clone(), Arc::clone(&start.point))),
            cluster: Arc::new(view),
            surroundings: Arc::clone(&threads) as Arc<_>,
            latency_balance: false,
            takeover: false,
            bitmap_raid10: true,
            wakeups: Arc::new(FakeWakeups::default()),
            interests: Interests::default(),
            timing: Timing::default(),
            override_addresses: Mutex::default(),
            rdma: Mutex::default(),
            stuck: Mutex::default(),
            quarantine: Mutex::default(),
            fabric: Mutex::default(),
            litter: Notify::new(),
            node_changed: Notify::new(),
            gates: Mutex::default(),
        };
        Ok(Self {
            node: start.node.to_owned(),
            ctx: Arc::new(ctx),
            host: start.host.clone(),
            net: Arc::clone(start.net),
            threads,
            point: start.point,
            cache,
            workers: BTreeMap::new(),
        })
    }

    /// Host calls are done as they are made, or wait for [`Daemon::work`].
    pub(crate) fn at_once(&self, at_once: bool) {
        *locked(&self.threads.at_once) = at_once;
    }

    /// Does a host call that waits; answers whether there was one.
    pub(crate) fn work(&self) -> bool {
        let job = locked(&self.threads.jobs).pop_front();
        let there = job.is_some();
        job.into_iter().for_each(|job| self.threads.run(job));
        there
    }

    /// The workers that there should be, by the caches and by what is on the node.
    fn wanted(&self) -> Vec<String> {
        let cache = locked(&self.cache);
        let legs = cache.replicas.values().filter(|r| r.spec.node == self.node);
        let legs = legs.filter_map(|r| r.metadata.name.as_ref()).map(|name| format!("leg/{name}"));
        let here =
            self.host.arrays().is_ok_and(|a| !a.is_empty()) || self.host.connections().is_ok_and(|c| !c.is_empty());
        let term = |a: &MeshAttachment| a.status.as_ref().and_then(|s| s.term.as_ref()).map(|t| t.node.clone());
        let mine = |a: &&Arc<MeshAttachment>| here || term(a).as_deref() == Some(&self.node);
        let attachments = cache.attachments.values().filter(mine).filter_map(|a| a.metadata.name.as_ref());
        legs.chain(attachments.map(|name| format!("attachment/{name}"))).collect()
    }

    /// Names of all workers; those that are missing are made.
    pub(crate) fn workers(&mut self) -> Vec<String> {
        for name in self.wanted() {
            let ctx = Arc::clone(&self.ctx);
            self.workers.entry(name.clone()).or_insert_with(|| {
                let worker = match name.split_once('/') {
                    Some(("leg", name)) => Worker::Leg(Box::new(LegWorker::new(ctx, name.to_owned()))),
                    Some((_, name)) => {
                        Worker::Attachment(Box::new(AttachmentWorker::new(ctx, name.to_owned(), Arc::default())))
                    }
                    None => return Slot { worker: None, going: None },
                };
                Slot { worker: Some(worker), going: None }
            });
        }
        self.workers.keys().cloned().collect()
    }

    /// Goes on with a worker's turn, or begins one.
    ///
    /// # Errors
    /// What no fault explains: a step that the record's rules or the API forbid.
    pub(crate) fn turn(&mut self, name: &str) -> Result<Polled, String> {
        let Some(slot) = self.workers.get_mut(name) else { return Ok(Polled::Settled) };
        if slot.going.is_none() {
            let Some(worker) = slot.worker.take() else { return Ok(Polled::Settled) };
            slot.going = Some(Box::pin(one(worker)));
        }
        let Some(going) = slot.going.as_mut() else { return Ok(Polled::Settled) };
        let Poll::Ready((worker, turn)) = going.as_mut().poll(&mut Task::from_waker(Waker::noop())) else {
            return Ok(Polled::Going);
        };
        slot.going = None;
        let busy = matches!(&worker, Worker::Attachment(a) if a.busy() || a.resting());
        slot.worker = Some(worker);
        match turn {
            Ok(Turn::Settled(_)) => Ok(if busy { Polled::Acted } else { Polled::Settled }),
            Ok(Turn::Gone) => {
                if !busy {
                    self.workers.remove(name);
                }
                Ok(Polled::Settled)
            }
            Err(error) if error.class() == Class::Bug && !self.point.dead() => {
                Err(format!("{} {name}: {error}", self.node))
            }
            Ok(Turn::Acted) | Err(_) => Ok(Polled::Acted),
        }
    }

    /// Says that the node lives, as the product says it.
    pub(crate) fn beat(&self) {
        if !self.net.reaches(&self.node) || self.point.dead() {
            return;
        }
        let Ok(mut facts) = self.host.node() else { return };
        for name in ["raid1", "raid10", "nvmet-tcp", "nvme-tcp", "mdadm", "nft"] {
            if !facts.capabilities.iter().any(|(n, _, _)| n == name) {
                facts.capabilities.push((name.to_owned(), true, String::new()));
            }
        }
        let mut state = self.net.state();
        let by = By::Daemon(self.node.clone());
        let known = match state.get::<MeshNode>(&self.node) {
            Ok(known) => Ok(known),
            Err(_) => state.create(MeshNode::new(&self.node, MeshNodeSpec::default()), &by),
        };
        let Ok(known) = known else { return };
        let old = known.status.clone().unwrap_or_default();
        let mut next = (*known).clone();
        next.status = Some(node::status(
            &old,
            &Ok(facts),
            &node::Known { stuck: self.ctx.stuck(), quarantine: self.ctx.quarantined(), fabric: self.ctx.fabric() },
            vec![address(&self.node)],
            Some(1),
            &self.ctx.now(),
        ));
        drop(state.replace(next, true, &by));
    }
}

async fn one(mut worker: Worker) -> (Worker, Result<Turn, TurnError>) {
    let turn = match &mut worker {
        Worker::Leg(leg) => leg.turn().await,
        Worker::Attachment(attachment) => attachment.turn().await,
    };
    (worker, turn)
}

/// Fabric address of `n1`, `n2`, …
pub(crate) fn address(node: &str) -> String {
    format!("10.0.0.{}", node.trim_start_matches('n'))
}

/// What the kinds of the caches have in common.
pub(crate) type Objects<K> = BTreeMap<String, Arc<K>>;
pub(crate) type Replicas = Objects<MeshReplica>;
pub(crate) type Volumes = Objects<MeshVolume>;
