//! One process of the operator: its real reconcile, on a client that talks to the fake API server.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use kube::Client;
use kube::client::Body;
use kube::runtime::controller::Action;
use kube::runtime::reflector::store::Writer;
use kube::runtime::{reflector, watcher};
use meshstor_crds::{
    DrainMode, LegState, MeshNode, MeshVolume, MeshVolumeStatus, NodeDrain, NodeDrainSpec, RebuildBudget, VolumeLeg,
};
use meshstor_node_daemon::host::crash::CrashPoint;
use meshstor_operator::context::Context;
use meshstor_operator::error::{Class, Error};
use meshstor_operator::volume;
use tokio::runtime::Runtime;

use crate::clock::Clock;
use crate::http::{Asked, response, serve};
use crate::net::Net;

/// The UID of another volume, whose rebuilds use up the budget of the cluster.
const NEIGHBOUR: &str = "uid-neighbour";
/// Reconciles after which those are over.
const CROWDED: u32 = 30;

type Run = Pin<Box<dyn Future<Output = Result<Action, Error>>>>;

/// A process.
pub(crate) struct Operator {
    pub(crate) name: String,
    net: Arc<Net>,
    ctx: Arc<Context>,
    nodes: Writer<MeshNode>,
    volumes: Writer<MeshVolume>,
    drains: Writer<NodeDrain>,
    /// How far its watches have come.
    seen: (usize, usize, usize),
    running: Option<Run>,
    /// Reconciles until the budget has room.
    crowded: u32,
    pub(crate) point: Arc<CrashPoint>,
    /// The version at which the reconcile that runs began.
    pub(crate) since: u64,
}

/// The client's transport: every request goes over the net, and writes are effects before or after which it may die.
fn client(name: &str, net: &Arc<Net>, point: &Arc<CrashPoint>) -> Client {
    let (net, point, name) = (Arc::clone(net), Arc::clone(point), name.to_owned());
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (net, point, name) = (Arc::clone(&net), Arc::clone(&point), name.clone());
        async move {
            let asked = Asked::of(request).await;
            let gone = || std::io::Error::other("no answer");
            let send = || {
                let asked = asked.clone();
                net.ask(&name, move |state| {
                    if asked.writes()
                        && let Some(log) = &mut state.log
                    {
                        log.push(format!("    operator {}", asked.line()));
                    }
                    serve(state, &asked)
                })
            };
            let sent = if asked.writes() { point.around(send) } else { (!point.dead()).then(send) };
            let answer = sent.ok_or_else(gone)?.await.ok_or_else(gone)?;
            Ok::<_, std::io::Error>(response(answer))
        }
    });
    Client::new(service, "default")
}

/// A volume elsewhere, with as many legs being rebuilt as a policy that says nothing allows in a cluster.
fn neighbour(like: &MeshVolume) -> MeshVolume {
    let leg = |slot: i32| VolumeLeg {
        name: format!("neighbour-{slot}"),
        slot,
        node: "elsewhere".to_owned(),
        drive: "d".to_owned(),
        state: LegState::Rebuilding,
        missing_since: None,
    };
    let mut volume = MeshVolume::new("neighbour", like.spec.clone());
    volume.metadata.uid = Some(NEIGHBOUR.to_owned());
    let legs = (0..RebuildBudget::default().max_concurrent).map(leg).collect();
    volume.status = Some(MeshVolumeStatus { legs, ..MeshVolumeStatus::default() });
    volume
}

impl Operator {
    /// A new process, whose caches are filled. In a crowded cluster nobody else may be rebuilt for a while.
    pub(crate) fn start(
        name: String,
        net: &Arc<Net>,
        clock: &Arc<Clock>,
        point: Arc<CrashPoint>,
        crowded: Option<&MeshVolume>,
        rt: &Runtime,
    ) -> Self {
        let _inside = rt.enter();
        let (nodes, node_writer) = reflector::store::<MeshNode>();
        let (volumes, volume_writer) = reflector::store::<MeshVolume>();
        // What a drain asks of volumes is theirs to do. That a node may go, and its guard, is not looked at here.
        let (drains, drain_writer) = reflector::store::<NodeDrain>();
        let client = client(&name, net, &point);
        let ctx = Context::new(client, nodes, drains, volumes).with_clock(Arc::clone(clock) as Arc<_>);
        let mut operator = Self {
            name,
            net: Arc::clone(net),
            ctx: Arc::new(ctx),
            nodes: node_writer,
            volumes: volume_writer,
            drains: drain_writer,
            seen: (0, 0, 0),
            running: None,
            crowded: if crowded.is_some() { CROWDED } else { 0 },
            point,
            since: 0,
        };
        operator.nodes.apply_watcher_event(&watcher::Event::Init);
        operator.nodes.apply_watcher_event(&watcher::Event::InitDone);
        operator.volumes.apply_watcher_event(&watcher::Event::Init);
        operator.volumes.apply_watcher_event(&watcher::Event::InitDone);
        operator.drains.apply_watcher_event(&watcher::Event::Init);
        operator.drains.apply_watcher_event(&watcher::Event::InitDone);
        operator.watch(usize::MAX);
        if let Some(volume) = crowded {
            operator.volumes.apply_watcher_event(&watcher::Event::Apply(neighbour(volume)));
        }
        operator
    }

    /// Its watches bring so many changes.
    pub(crate) fn watch(&mut self, most: usize) {
        let state = self.net.state();
        for (name, object) in state.nodes.changes.iter().skip(self.seen.0).take(most) {
            let event = object.as_ref().map(|o| watcher::Event::Apply((**o).clone()));
            let gone = || watcher::Event::Delete(MeshNode::new(name, Default::default()));
            self.nodes.apply_watcher_event(&event.unwrap_or_else(gone));
        }
        for (_, object) in state.volumes.changes.iter().skip(self.seen.1).take(most) {
            if let Some(object) = object {
                self.volumes.apply_watcher_event(&watcher::Event::Apply((**object).clone()));
            }
        }
        for (name, object) in state.drains.changes.iter().skip(self.seen.2).take(most) {
            let event = object.as_ref().map(|o| watcher::Event::Apply((**o).clone()));
            let gone = || watcher::Event::Delete(NodeDrain::new(name, NodeDrainSpec::of("", DrainMode::Evacuate)));
            self.drains.apply_watcher_event(&event.unwrap_or_else(gone));
        }
        let upto = |seen: usize, all: usize| all.min(seen.saturating_add(most));
        let (nodes, volumes) = (state.nodes.changes.len(), state.volumes.changes.len());
        let drains = state.drains.changes.len();
        self.seen = (upto(self.seen.0, nodes), upto(self.seen.1, volumes), upto(self.seen.2, drains));
    }

    pub(crate) fn busy(&self) -> bool {
        self.running.is_some()
    }

    /// Goes on with a reconcile, or begins one. Answers when one has ended.
    ///
    /// # Errors
    /// What no fault explains: the plan broke its own rules, or asked for what the API forbids.
    pub(crate) fn turn(&mut self, volume: &Arc<MeshVolume>, rt: &Runtime) -> Result<bool, String> {
        if self.running.is_none() {
            self.since = self.net.state().version;
            let (volume, ctx) = (Arc::clone(volume), Arc::clone(&self.ctx));
            self.running = Some(Box::pin(volume::reconcile(volume, ctx)));
        }
        let (net, Some(run)) = (&self.net, self.running.as_mut()) else { return Ok(false) };
        let ended = rt.block_on(async {
            let (mut sent, mut idle) = (net.sent(), 0);
            loop {
                if let Poll::Ready(ended) = futures::poll!(run.as_mut()) {
                    return Some(ended);
                }
                idle = if net.sent() == sent { idle + 1 } else { 0 };
                sent = net.sent();
                if idle > 2 {
                    return None;
                }
                tokio::task::yield_now().await;
            }
        });
        let Some(ended) = ended else { return Ok(false) };
        self.running = None;
        if self.crowded > 0 {
            self.crowded -= 1;
            if self.crowded == 0 {
                self.volumes.apply_watcher_event(&watcher::Event::Delete(neighbour(volume)));
                self.ctx.forget(NEIGHBOUR);
            }
        }
        match ended {
            Err(error)
                if matches!(error.class(), Class::Bug | Class::Invalid | Class::Blocked) && !self.point.dead() =>
            {
                Err(format!("{}: {error}", self.name))
            }
            _ => Ok(true),
        }
    }
}
