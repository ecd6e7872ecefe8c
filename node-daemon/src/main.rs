//! `meshstor-node-daemon`: one on each node that holds legs or attaches volumes.

use std::collections::HashMap;
use std::fs::File;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Parser, ValueEnum};
use kube::Client;
use meshstor_crds::capability;
use meshstor_node_daemon::control::cluster::KubeCluster;
use meshstor_node_daemon::control::context::{Context, Timing};
use meshstor_node_daemon::control::dispatch::{Dispatch, caches};
use meshstor_node_daemon::control::interest::Interests;
use meshstor_node_daemon::control::surroundings::Process;
use meshstor_node_daemon::control::{fabric, node, quarantine};
use meshstor_node_daemon::events;
use meshstor_node_daemon::host::real::{RealConfig, RealHost, detach_if_asked};
use meshstor_node_daemon::host::{Host, NodeFacts};
use meshstor_node_daemon::wake::SysfsWakeups;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tracing_subscriber::EnvFilter;

/// MeshStor's node daemon: prepares and exports legs, assembles and mounts volumes.
#[derive(Parser, Debug)]
#[command(version, about)]
struct Options {
    /// Name of this node.
    #[arg(long, env = "NODE_NAME")]
    node_name: String,
    /// IP address at which exports listen; may be repeated.
    #[arg(long = "address", env = "MESHSTOR_ADDRESS", value_delimiter = ',')]
    addresses: Vec<String>,
    /// Glob of the drives that MeshStor may use, such as `/dev/nvme*n1`; may be repeated.
    #[arg(long = "drives", env = "MESHSTOR_DRIVES", value_delimiter = ',')]
    drives: Vec<String>,
    /// TCP ports of exports.
    #[arg(long, default_value = "42000-42999", value_parser = ports)]
    ports: RangeInclusive<u16>,
    /// How often everything is looked at although nothing was told, in seconds: for what the kernel has no event for.
    #[arg(long, env = "MESHSTOR_FULL_LOOK_SECONDS", default_value = "300", value_parser = clap::value_parser!(u32).range(10..))]
    full_look_seconds: u32,
    /// How to log.
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// Directory of the daemon's lock.
    #[arg(long, default_value = "/run/meshstor")]
    state_dir: PathBuf,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum LogFormat {
    Text,
    Json,
}

fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').ok_or("write it like 42000-42999")?;
    let number = |t: &str| t.trim().parse::<u16>().map_err(|e| format!("{t}: {e}"));
    let (first, last) = (number(first)?, number(last)?);
    if first == 0 || first > last { Err("the range is empty".to_owned()) } else { Ok(first..=last) }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let Some(done) = detach_if_asked(&args) {
        return done;
    }
    let options = Options::parse();
    log(options.log_format);
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

fn run(options: Options) -> anyhow::Result<()> {
    let _lock = lock(&options.state_dir)?;
    let host = real(&options);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // A thread for each call that hangs with its drive or path.
        .max_blocking_threads(4096)
        .build()
        .context("start the runtime")?;
    let served = runtime.block_on(serve(options, Arc::new(host)));
    // Calls that hang must not keep the process: the kernel goes on without it.
    runtime.shutdown_background();
    served
}

/// One daemon a node. The lock is open in every tool that the daemon runs, too (it has no close-on-exec flag): a new
/// daemon waits until the last `mdadm` of an old one is gone.
fn lock(dir: &Path) -> anyhow::Result<File> {
    use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
    std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let path = dir.join("daemon.lock");
    let fd = open(&path, OFlags::RDWR | OFlags::CREATE, Mode::from_raw_mode(0o600))
        .with_context(|| format!("open {}", path.display()))?;
    if flock(&fd, FlockOperation::NonBlockingLockExclusive).is_err() {
        tracing::info!(lock = %path.display(), "waits until the other daemon of this node is gone");
        flock(&fd, FlockOperation::LockExclusive).with_context(|| format!("lock {}", path.display()))?;
    }
    Ok(File::from(fd))
}

fn real(options: &Options) -> RealHost {
    let mut config = RealConfig::new(options.drives.clone(), options.ports.clone());
    config.run.clone_from(&options.state_dir);
    config.node.clone_from(&options.node_name);
    RealHost::new(config)
}

async fn serve(options: Options, host: Arc<RealHost>) -> anyhow::Result<()> {
    let probe = Arc::clone(&host);
    let facts = tokio::task::spawn_blocking(move || probe.node()).await?.context("look at the node")?;
    let mut config = kube::Config::infer().await.context("find the API server")?;
    // A repeated write could land twice; outcomes are settled by the workers.
    config.default_retry = false;
    let client = Client::try_from(config).context("make a client")?;
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        ended = work(options, host, facts, client) => ended,
        _ = term.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

async fn work(options: Options, host: Arc<RealHost>, facts: NodeFacts, client: Client) -> anyhow::Result<()> {
    // Before the first look: what changes after it is told.
    let news = events::listen(host.sources()).context("listen to the kernel")?;
    let (caches, changes) = caches(&client).await.context("fill the caches")?;
    let name = options.node_name.clone();
    let cluster = KubeCluster::new(client.clone(), &name, caches.attachments, caches.replicas, caches.volumes);
    let can = |wanted: &str| facts.capabilities.iter().any(|(name, there, _)| *there && name == wanted);
    let ctx = Arc::new(Context {
        node: name,
        incarnation: uuid::Uuid::new_v4().to_string(),
        boot_id: facts.boot_id.clone(),
        addresses: options.addresses,
        host,
        cluster: Arc::new(cluster),
        surroundings: Arc::new(Process),
        latency_balance: can(capability::LATENCY_BALANCE),
        takeover: can(capability::TAKEOVER),
        bitmap_raid10: can(capability::BITMAP_RAID10),
        wakeups: Arc::new(SysfsWakeups::start("/sys".into()).context("watch the kernel")?),
        interests: Interests::default(),
        timing: Timing { full: Duration::from_secs(options.full_look_seconds.into()), ..Timing::default() },
        override_addresses: Mutex::default(),
        rdma: Mutex::new(facts.rdma),
        stuck: Mutex::default(),
        quarantine: Mutex::default(),
        fabric: Mutex::default(),
        litter: Notify::new(),
        node_changed: Notify::new(),
        gates: Mutex::new(HashMap::new()),
    });
    tracing::info!(node = %ctx.node, incarnation = %ctx.incarnation, "serving");
    tokio::spawn(node::keep(Arc::clone(&ctx), client.clone()));
    tokio::spawn(fabric::keep(Arc::clone(&ctx), client.clone()));
    tokio::spawn(quarantine::keep(Arc::clone(&ctx), client));
    Dispatch::new(ctx).run(changes, news).await;
    Err(anyhow!("the watches ended"))
}
