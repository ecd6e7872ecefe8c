//! The operator's process: two controllers and the rounds of the drains on one client, as long as it leads.

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Node;
use kube::client::ClientBuilder;
use kube::runtime::controller::{Config, Controller};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, watcher};
use kube::runtime::{WatchStreamExt as _, reflector as reflect};
use kube::{Api, Client, ResourceExt as _};
use meshstor_crds::{
    DrainMode, MeshAttachment, MeshNode, MeshReplica, MeshVolume, NodeDrain, ReplicaSetPolicy, WATCH_SECONDS,
};
use meshstor_operator::context::Context;
use meshstor_operator::drain::asked::Asked;
use meshstor_operator::drain::world::Settings;
use meshstor_operator::leader::{Elector, Leadership};
use meshstor_operator::node::{Digest, Face};
use meshstor_operator::{drain, policy, volume};
use std::collections::HashMap;
use std::fmt::Display;
use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::signal::unix::{SignalKind, signal};
use tower::filter::FilterLayer;
use tracing_subscriber::EnvFilter;

/// Volumes that are reconciled at once.
const CONCURRENCY: u16 = 16;

/// Assigns legs, moves records through their epochs, and says how volumes are.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Args {
    #[command(subcommand)]
    other: Option<Other>,
    /// How log lines are written; what is logged follows RUST_LOG.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "MESHSTOR_LOG_FORMAT")]
    log_format: LogFormat,
    /// Name of this copy among all that run: its pod's.
    #[arg(long, env = "POD_NAME")]
    name: String,
    /// Namespace of the Lease: its pod's.
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: String,
    /// Node label whose values are failure domains: one is down for maintenance at a time. A node without it is one of its own.
    #[arg(long, default_value = "topology.kubernetes.io/zone")]
    failure_domain_label: String,
    /// The drain that a cordon starts.
    #[arg(long, value_enum, default_value_t = OnCordon::Maintenance)]
    on_cordon: OnCordon,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnCordon {
    /// The node goes down and comes back: no data is moved, unless the policy of a volume asks for it.
    Maintenance,
    /// Every leg leaves.
    Evacuate,
    /// None: `kubectl drain` waits for a NodeDrain that somebody makes.
    Nothing,
}

/// What has a program of its own instead of the operator's.
#[derive(Debug, clap::Subcommand)]
enum Other {
    /// Does nothing until it is told to end: the pod that guards a node.
    Guard,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(Other::Guard) = args.other {
        shutdown().await;
        return Ok(());
    }
    start_log(args.log_format);
    let settings = Settings {
        domain: args.failure_domain_label,
        on_cordon: match args.on_cordon {
            OnCordon::Maintenance => Some(DrainMode::Maintenance),
            OnCordon::Evacuate => Some(DrainMode::Evacuate),
            OnCordon::Nothing => None,
        },
    };
    let config = kube::Config::infer().await.context("find the API server")?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), me = args.name, "started");
    let leadership = Leadership::default();
    let plain = Client::try_from(config.clone()).context("make a client")?;
    let elector = Elector::new(plain, &args.namespace, args.name, leadership.clone());
    // Whatever a reconcile does: it writes nothing when another operator may lead.
    let pass = FilterLayer::new(move |request| leadership.pass(request));
    let client = ClientBuilder::try_from(config).context("make a client")?.with_layer(&pass).build();
    loop {
        let lease = tokio::select! {
            lease = elector.take() => lease,
            () = shutdown() => return Ok(()),
        };
        tokio::select! {
            () = elector.keep(lease) => {}
            () = reconcile(&client, &settings) => break,
        }
    }
    elector.give_back().await.context("give the Lease back")
}

/// Until this process is told to end.
async fn shutdown() {
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => drop(terminate.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminate => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// Everything, by connections that are not deaf for long.
fn any() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// Runs the controllers until this process is told to end.
async fn reconcile(client: &Client, settings: &Settings) {
    let (nodes, writer) = reflector::store::<MeshNode>();
    let heard = reflect(writer, watcher(Api::all(client.clone()), any()));
    let heard = heard.default_backoff().touched_objects();
    let (drains, writer) = reflector::store::<NodeDrain>();
    let asked = reflect(writer, watcher(Api::all(client.clone()), any()));
    let asked = asked.default_backoff().touched_objects();
    let volumes = Controller::new(Api::<MeshVolume>::all(client.clone()), any());
    let (room, rooms) = futures::channel::mpsc::unbounded();
    let ctx =
        Context::new(client.clone(), nodes, drains, volumes.store()).with_domain(&settings.domain).with_room(room);
    let ctx = Arc::new(ctx);
    let volumes = run_volumes(volumes.reconcile_on(rooms), heard, asked, client, ctx.clone());
    let drains = async {
        tokio::select! {
            () = drain::rounds::run(&ctx, settings) => {}
            () = shutdown() => {}
        }
    };
    tokio::join!(volumes, run_policies(client, ctx.clone()), drains);
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(std::io::stdout().is_terminal());
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

async fn run_volumes(
    controller: Controller<MeshVolume>,
    nodes: impl Stream<Item = watcher::Result<MeshNode>> + Send + 'static,
    drains: impl Stream<Item = watcher::Result<NodeDrain>> + Send + 'static,
    client: &Client,
    ctx: Arc<Context>,
) {
    let (by_policy, by_node) = (controller.store(), controller.store());
    let (by_face, by_drain, known) = (controller.store(), controller.store(), ctx.drains.clone());
    let (digests, faces, asked) = (Mutex::default(), Mutex::default(), Mutex::default());
    let policies = Mutex::new(policy::Seen::default());
    let service = ctx.clone();
    let kubernetes = watcher(Api::<Node>::all(client.clone()), any()).default_backoff().touched_objects();
    controller
        .with_config(Config::default().concurrency(CONCURRENCY))
        .watches(Api::<MeshReplica>::all(client.clone()), any(), |leg| Some(ObjectRef::new(&leg.spec.volume)))
        .watches(Api::<MeshAttachment>::all(client.clone()), any(), |a| Some(ObjectRef::new(&a.name_any())))
        .watches(Api::<ReplicaSetPolicy>::all(client.clone()), any(), move |p| {
            let matters = policies.lock().unwrap_or_else(PoisonError::into_inner).matters(&p);
            if matters { volumes_of(&by_policy, &p) } else { Vec::new() }
        })
        .watches_stream(nodes, move |node| volumes_after(&by_node, &digests, &node))
        .watches_stream(drains, move |drain| volumes_after_drain(&by_drain, &known, &asked, &drain))
        .watches_stream(kubernetes, move |node| {
            let face = Face::of(&node);
            let there = node.metadata.deletion_timestamp.is_none();
            service.note_face(&node.name_any(), there.then(|| face.clone()));
            volumes_after_face(&by_face, &faces, &node, face)
        })
        .shutdown_on_signal()
        .run(volume::reconcile, volume::on_error, ctx)
        .for_each(|outcome| async { note(outcome.map(drop)) })
        .await;
}

async fn run_policies(client: &Client, ctx: Arc<Context>) {
    Controller::new(Api::<ReplicaSetPolicy>::all(client.clone()), any())
        .shutdown_on_signal()
        .run(policy::reconcile, policy::on_error, ctx)
        .for_each(|outcome| async { note(outcome.map(drop)) })
        .await;
}

/// A failed reconcile was logged with its class already; this is for the watches themselves.
fn note(outcome: Result<(), impl Display>) {
    if let Err(failure) = outcome {
        tracing::debug!("{failure}");
    }
}

fn volumes_of(volumes: &Store<MeshVolume>, policy: &ReplicaSetPolicy) -> Vec<ObjectRef<MeshVolume>> {
    let name = policy.name_any();
    let uses = volumes.state_filter(|v: &MeshVolume| v.spec.policy_name() == name);
    uses.iter().map(|v| ObjectRef::from_obj(v.as_ref())).collect()
}

/// All volumes, when something of `node` changed that is more than a heartbeat.
fn volumes_after(
    volumes: &Store<MeshVolume>,
    digests: &Mutex<HashMap<String, Digest>>,
    node: &MeshNode,
) -> Vec<ObjectRef<MeshVolume>> {
    let new = Digest::of(node);
    let old = digests.lock().unwrap_or_else(PoisonError::into_inner).insert(node.name_any(), new.clone());
    let same = node.metadata.deletion_timestamp.is_none() && old.is_some_and(|old| !old.matters(&new));
    if same { Vec::new() } else { all(volumes) }
}

/// All volumes, when what matters of a Kubernetes node changed.
fn volumes_after_face(
    volumes: &Store<MeshVolume>,
    faces: &Mutex<HashMap<String, Face>>,
    node: &Node,
    new: Face,
) -> Vec<ObjectRef<MeshVolume>> {
    let old = faces.lock().unwrap_or_else(PoisonError::into_inner).insert(node.name_any(), new.clone());
    if old == Some(new) { Vec::new() } else { all(volumes) }
}

/// The volumes with a leg on the drain's node, when it asks for something else than before, or is gone.
fn volumes_after_drain(
    volumes: &Store<MeshVolume>,
    drains: &Store<NodeDrain>,
    asked: &Mutex<Asked>,
    drain: &NodeDrain,
) -> Vec<ObjectRef<MeshVolume>> {
    let known = drains.get(&ObjectRef::from_obj(drain));
    if !asked.lock().unwrap_or_else(PoisonError::into_inner).changed(drain, known.as_deref()) {
        return Vec::new();
    }
    let here = |v: &MeshVolume| v.status.iter().flat_map(|s| &s.legs).any(|leg| leg.node == drain.spec.node);
    volumes.state_filter(here).iter().map(|v| ObjectRef::from_obj(v.as_ref())).collect()
}

fn all(volumes: &Store<MeshVolume>) -> Vec<ObjectRef<MeshVolume>> {
    volumes.state().iter().map(|v| ObjectRef::from_obj(v.as_ref())).collect()
}
