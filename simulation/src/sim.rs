//! The run: nodes, processes, and rounds in which everybody has a turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::Resource as _;
use meshstor_crds::identity;
use meshstor_crds::{DrainMode, MeshAttachment, MeshVolume, NodeDrain, NodeDrainSpec, Term};
use meshstor_node_daemon::host::Host as _;
use meshstor_node_daemon::host::crash::CrashPoint;
use meshstor_node_daemon::host::fake::io::{BLOCKS, Quirks};
use meshstor_node_daemon::host::fake::{FakeFabric, FakeHost};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::api::State;
use crate::clock::Clock;
use crate::daemon::{Daemon, Polled, Start, address};
use crate::diary::Diary;
use crate::net::Net;
use crate::operator::Operator;
use crate::oracle::{Looked, Oracle};
use crate::rules::By;
use crate::{Bug, Options, Outcome};

pub(crate) const VOLUME: &str = "v";
pub(crate) const NODES: [&str; 3] = ["n1", "n2", "n3"];
const DRIVE: u64 = 64 << 30;
/// Where the filesystem is mounted.
const MOUNT: &str = "/mnt/v";

pub(crate) struct Sim<'r> {
    pub(crate) rng: fastrand::Rng,
    pub(crate) clock: Arc<Clock>,
    pub(crate) net: Arc<Net>,
    pub(crate) fabric: FakeFabric,
    pub(crate) hosts: BTreeMap<&'static str, FakeHost>,
    pub(crate) daemons: BTreeMap<&'static str, Daemon>,
    pub(crate) operators: Vec<Operator>,
    pub(crate) runtime: &'r Runtime,
    pub(crate) oracle: Oracle,
    pub(crate) options: Options,
    /// Nodes without power.
    pub(crate) down: BTreeSet<&'static str>,
    pub(crate) uid: String,
    pub(crate) array: Uuid,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    started: u64,
    /// An application writes where the volume is mounted.
    pub(crate) writes: bool,
    /// Nothing goes wrong now.
    calm: bool,
    /// What a person who moves legs does next; none in a run without one.
    pub(crate) moves: Option<fastrand::Rng>,
    /// An array runs for a copy alone.
    copies: bool,
}

impl<'r> Sim<'r> {
    pub(crate) fn new(seed: u64, options: Options, runtime: &'r Runtime) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let clock = Arc::new(Clock::new());
        let mut state = State { now: Some(clock.time()), ..State::default() };
        state.log = options.log.then(Diary::default);
        let copies = [1, 2, 2, 2, 2, 2, 3, 3, 3, 3][rng.usize(0..10)];
        let spec = serde_json::json!({"capacity": "512Mi", "replicaCount": copies});
        let made = serde_json::from_value(spec)
            .ok()
            .and_then(|spec| state.create(MeshVolume::new(VOLUME, spec), &By::Person).ok());
        let uid = made.and_then(|v| v.metadata.uid.clone()).unwrap_or_default();
        let fabric = FakeFabric::default();
        fabric.set_quirks(Quirks {
            fast_fail: options.bug == Some(Bug::FailsBeforeRecording),
            trusting_add: options.bug == Some(Bug::ReturnsWithoutRebuild),
            no_barrier: options.bug == Some(Bug::SkipsRevokeWait),
            keeps_exports: options.bug == Some(Bug::ServesSpentGrant),
            half_refusals: options.bug == Some(Bug::RefusesHalfway),
            failure_gate: options.gate,
            leaky_gate: options.bug == Some(Bug::AcknowledgesWhileHolding),
        });
        let hosts = NODES.map(|node| (node, fabric.node(node, &address(node), DRIVE)));
        let mut sim = Self {
            rng,
            clock,
            net: Net::new(state),
            fabric,
            hosts: hosts.into(),
            daemons: BTreeMap::new(),
            operators: Vec::new(),
            runtime,
            oracle: Oracle::default(),
            options,
            down: BTreeSet::new(),
            array: identity::derived_array(&uid),
            uid,
            counts: BTreeMap::new(),
            started: 0,
            writes: true,
            calm: false,
            moves: (seed >= crate::MOVES).then(|| fastrand::Rng::with_seed(!seed)),
            copies: false,
        };
        NODES.iter().for_each(|node| sim.start(node, CrashPoint::never()));
        sim.start_operator(CrashPoint::never());
        sim
    }

    /// Fault phase, then heal phase.
    pub(crate) fn whole(&mut self) -> Result<(), String> {
        if self.rng.u8(0..10) < 7 {
            let node = self.any_node();
            self.calm(12)?;
            self.want(Some(node));
            self.calm(14)?;
        }
        self.fault_phase()?;
        self.heal_phase()
    }

    pub(crate) fn outcome(self, failure: Option<String>) -> Outcome {
        let (log, refusals) = {
            let mut state = self.net.state();
            (state.log.take().map(|log| log.lines()).unwrap_or_default(), state.refusals)
        };
        let mut counts = self.counts;
        counts.insert("step refused by a host", refusals);
        counts.insert("flushes acknowledged", self.oracle.flushed);
        Outcome { failure, log, counts }
    }

    pub(crate) fn say(&mut self, what: impl FnOnce() -> String) {
        if self.options.log {
            let millis = self.clock.millis();
            let line = format!("{:>6}.{:03} {}", millis / 1000, millis % 1000, what());
            self.net.state().log.iter_mut().for_each(|log| log.push(line.clone()));
        }
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
        self.say(|| what.to_owned());
    }

    pub(crate) fn any_node(&mut self) -> &'static str {
        NODES[self.rng.usize(0..NODES.len())]
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.net.state().now = Some(self.clock.time());
    }

    /// Starts a daemon on a node that has power, where none runs.
    pub(crate) fn start(&mut self, node: &'static str, point: Arc<CrashPoint>) {
        if self.down.contains(node) || self.daemons.contains_key(node) {
            return;
        }
        self.started += 1;
        let start = Start {
            node,
            incarnation: format!("{node}-{}", self.started),
            host: &self.hosts[node],
            fabric: &self.fabric,
            net: &self.net,
            clock: &self.clock,
            point,
            trusting: self.options.bug == Some(Bug::IgnoresUnknownOutcome),
            reclaims: self.options.bug == Some(Bug::AssemblesTwice),
        };
        if let Ok(daemon) = Daemon::start(start) {
            daemon.beat();
            self.daemons.insert(node, daemon);
        }
    }

    pub(crate) fn start_operator(&mut self, point: Arc<CrashPoint>) {
        self.started += 1;
        let name = format!("operator-{}", self.started);
        let crowded = self.volume().filter(|_| self.options.crowded);
        self.operators.push(Operator::start(name, &self.net, &self.clock, point, crowded.as_deref(), self.runtime));
    }

    /// A process that came to its crash point is gone.
    pub(crate) fn bury(&mut self) {
        let dead: Vec<_> = self.daemons.iter().filter(|(_, d)| d.point.dead()).map(|(n, _)| *n).collect();
        for node in dead {
            self.daemons.remove(node);
            self.count("daemon died at an effect");
        }
        let alive = self.operators.len();
        self.operators.retain(|o| !o.point.dead());
        (self.operators.len()..alive).for_each(|_| self.count("operator died at an effect"));
    }

    pub(crate) fn power_cut(&mut self, node: &'static str) {
        self.daemons.remove(node);
        self.down.insert(node);
        let mut rng = self.rng.fork();
        self.fabric.power_cut(node, &mut || rng.bool());
        self.say(|| format!("{node} loses power"));
    }

    pub(crate) fn boot(&mut self, node: &'static str) {
        if self.down.remove(node) {
            self.fabric.boot(node);
            self.say(|| format!("{node} boots"));
        }
    }

    pub(crate) fn volume(&self) -> Option<Arc<MeshVolume>> {
        self.net.state().volumes.get(VOLUME)
    }

    pub(crate) fn attachment(&self) -> Option<Arc<MeshAttachment>> {
        self.net.state().attachments.get(VOLUME)
    }

    pub(crate) fn term(&self) -> Option<Term> {
        self.net.state().attachments.term(VOLUME)
    }

    fn person(&mut self, change: impl FnOnce(&mut MeshAttachment)) {
        let Some(old) = self.attachment() else { return };
        let mut next = (*old).clone();
        change(&mut next);
        drop(self.net.state().replace(next, false, &By::Person));
    }

    /// A person wants the volume on a node, or nowhere.
    pub(crate) fn want(&mut self, node: Option<&'static str>) {
        self.say(|| format!("wanted on {node:?}"));
        self.person(|a| {
            a.spec.node = node.map(str::to_owned);
            a.spec.mount_path = node.map(|_| MOUNT.to_owned());
        });
    }

    /// A person says that the consumer is lost, which may be wrong.
    pub(crate) fn give_up(&mut self) {
        let Some(term) = self.term() else { return };
        self.say(|| format!("{} is given up in epoch {}", term.node, term.epoch));
        let lost = meshstor_crds::LostConsumer { node: term.node, epoch: term.epoch };
        self.person(|a| a.spec.lost = Some(lost));
    }

    /// A person asks a leg to leave its place, or takes that back.
    pub(crate) fn move_some_leg(&mut self) {
        let Some(rng) = &mut self.moves else { return };
        if rng.u32(0..1000) >= 15 {
            return;
        }
        let mut state = self.net.state();
        let legs: Vec<_> = state.replicas.objects.values().cloned().collect();
        let Some(leg) = rng.choice(&legs) else { return };
        let mut next = (**leg).clone();
        next.spec.replace = !next.spec.replace;
        let asked = next.spec.replace;
        let name = next.metadata.name.clone().unwrap_or_default();
        let done = state.replace(next, false, &By::Person).is_ok();
        drop(state);
        if done {
            self.say(|| format!("{name} is asked to {}", if asked { "leave" } else { "stay" }));
            self.count("leg asked to leave or stay");
        }
    }

    /// A person drains a node, for good or for a while, or ends that.
    pub(crate) fn drain_some_node(&mut self) {
        let Some(rng) = &mut self.moves else { return };
        if rng.u32(0..1000) >= 10 {
            return;
        }
        let node = NODES[rng.usize(0..NODES.len())];
        let mode = if rng.u8(0..3) == 0 { DrainMode::Maintenance } else { DrainMode::Evacuate };
        let mut state = self.net.state();
        let ended = state.delete::<NodeDrain>(node, None, None).is_ok();
        if !ended {
            drop(state.create(NodeDrain::new(node, NodeDrainSpec::of(node, mode)), &By::Person));
        }
        drop(state);
        self.say(
            || if ended { format!("the drain of {node} is ended") } else { format!("{node} is drained: {mode:?}") },
        );
        self.count(if ended { "drain ended" } else { "node drained" });
    }

    /// Every drain is ended.
    pub(crate) fn end_drains(&mut self) {
        let mut state = self.net.state();
        let names: Vec<String> = state.drains.objects.keys().cloned().collect();
        names.iter().for_each(|name| drop(state.delete::<NodeDrain>(name, None, None)));
    }

    /// Nodes that are to be emptied, and how many are drained in all.
    pub(crate) fn drained(&self) -> (Vec<String>, usize) {
        let state = self.net.state();
        let evacuate = |d: &&Arc<NodeDrain>| d.spec.mode == DrainMode::Evacuate;
        let emptied = state.drains.objects.values().filter(evacuate).map(|d| d.spec.node.clone());
        (emptied.collect(), state.drains.objects.len())
    }

    pub(crate) fn delete(&mut self) {
        self.say(|| "the volume is deleted".to_owned());
        drop(self.net.state().delete::<MeshVolume>(VOLUME, None, None));
    }

    pub(crate) fn deleting(&self) -> bool {
        self.volume().is_none_or(|v| v.meta().deletion_timestamp.is_some())
    }

    /// The application writes, flushes and reads, wherever the volume is mounted.
    pub(crate) fn application(&mut self, node: &'static str) -> Result<(), String> {
        let block = self.rng.usize(0..BLOCKS);
        match self.rng.u8(0..10) {
            0..=5 if self.writes => {
                if let Some(value) = self.fabric.issue(node, self.array, block) {
                    self.oracle.issued(block, value);
                    self.say(|| format!("{node} writes {value} to block {block}"));
                }
            }
            6..=7 if self.writes => {
                if let Some(id) = self.fabric.flush(node, self.array) {
                    self.oracle.flush_sent(node, id);
                    self.say(|| format!("{node} flushes ({id})"));
                }
            }
            _ => self.reads(node, block)?,
        }
        Ok(())
    }

    /// Whoever is cut off may read its own past: only the consumer of a running epoch is held to what it reads.
    fn reads(&mut self, node: &'static str, block: usize) -> Result<(), String> {
        let shown = self.attachment().and_then(|a| {
            let (status, term) = (a.status.as_ref()?, a.status.as_ref()?.term.as_ref()?);
            let array = status.array.as_ref().filter(|a| a.epoch == term.epoch && a.device.is_some())?;
            let ended = status.ended.as_ref().is_some_and(|e| e.epoch == term.epoch);
            (term.node == node && !ended).then_some(array.epoch)
        });
        let pick = self.rng.usize(0..3);
        let value = self.fabric.read_block(node, self.array, block, pick);
        match (shown, value) {
            (Some(_), Some(value)) if self.oracle.errored.is_none() => self.oracle.read(block, value),
            _ => Ok(()),
        }
    }

    /// The oracle looks.
    pub(crate) fn look(&mut self) -> Result<(), String> {
        let since = self.operators.iter().filter(|o| o.busy()).map(|o| o.since);
        let since = since.chain(self.operators.iter().map(|o| o.since)).min().unwrap_or(0);
        let errored = self.oracle.errored.clone();
        let recorded = errored.filter(|leg| self.term().is_none_or(|t| !t.in_sync.contains(leg)));
        if recorded.is_some() {
            self.oracle.errored = None;
        }
        let answers: Vec<&str> = self.daemons.keys().copied().collect();
        let calm = self.calm.then_some(answers.as_slice());
        let copies = self
            .attachment()
            .is_some_and(|a| a.status.as_ref().is_some_and(|s| s.copy_on.is_some() && s.array.is_some()));
        if copies && !self.copies {
            self.count("copied while nobody used it");
        }
        self.copies = copies;
        let looked = Looked { fabric: &self.fabric, uid: &self.uid, array: self.array, since, calm };
        self.oracle.check(looked, &mut self.net.state())
    }

    /// So many rounds without a fault.
    pub(crate) fn calm(&mut self, rounds: u32) -> Result<(), String> {
        for _ in 0..rounds {
            self.round(Duration::from_secs(2))?;
        }
        Ok(())
    }

    /// Everybody has a turn, and nothing goes wrong; answers whether anything was done.
    pub(crate) fn round(&mut self, pass: Duration) -> Result<bool, String> {
        self.advance(pass);
        self.net.set_immediate(true);
        while self.net.pending() > 0 {
            if !self.net.deliver(0, true) {
                self.net.lose(0);
            }
        }
        for node in NODES {
            self.start(node, CrashPoint::never());
        }
        if self.operators.is_empty() {
            self.start_operator(CrashPoint::never());
        }
        self.daemons.values().for_each(Daemon::beat);
        let before = self.net.state().changed;
        // What was sent before has ended; a reconcile that goes on still knows what was then.
        let calm = self.operators.iter().all(|o| !o.busy());
        self.look()?;
        self.calm = calm;
        let turns = self.everybody();
        self.calm = false;
        let acted = turns?;
        self.bury();
        let after = self.net.state().changed;
        Ok(acted || after != before)
    }

    fn everybody(&mut self) -> Result<bool, String> {
        self.operate()?;
        let mut acted = false;
        for node in NODES {
            acted |= self.serve(node)?;
        }
        self.io()?;
        Ok(acted)
    }

    fn operate(&mut self) -> Result<(), String> {
        let Some(volume) = self.volume() else { return Ok(()) };
        for operator in &mut self.operators {
            operator.watch(usize::MAX);
            for _ in 0..50 {
                if operator.turn(&volume, self.runtime)? || operator.point.dead() {
                    break;
                }
            }
        }
        self.look()
    }

    /// Every worker of a node has turns until it settles.
    fn serve(&mut self, node: &'static str) -> Result<bool, String> {
        let mut acted = false;
        let Some(daemon) = self.daemons.get_mut(node) else { return Ok(false) };
        daemon.at_once(true);
        while daemon.work() {}
        daemon.cache.lock().map_err(|e| e.to_string())?.watch(&self.net.state(), usize::MAX);
        for name in daemon.workers() {
            for _ in 0..12 {
                let Some(daemon) = self.daemons.get_mut(node).filter(|d| !d.point.dead()) else { return Ok(true) };
                daemon.cache.lock().map_err(|e| e.to_string())?.watch(&self.net.state(), usize::MAX);
                let polled = daemon.turn(&name)?;
                self.look()?;
                if polled == Polled::Settled {
                    break;
                }
                acted = true;
            }
        }
        Ok(acted)
    }

    /// The application goes on, and everything that it sent arrives where it can.
    fn io(&mut self) -> Result<(), String> {
        for node in NODES {
            for _ in 0..3 {
                self.application(node)?;
                self.look()?;
            }
        }
        for _ in 0..60 {
            let rng = &mut self.rng;
            if !self.fabric.carry(&mut |n| rng.usize(0..n)) {
                break;
            }
            self.look()?;
        }
        NODES.iter().for_each(|node| self.fabric.complete_rebuilds(node));
        self.look()
    }

    /// Whether anything of the volume is on a node.
    pub(crate) fn litter(&self, node: &str) -> bool {
        let host = &self.hosts[node];
        let some = |n: Result<usize, _>| n.is_ok_and(|n: usize| n > 0);
        some(host.arrays().map(|a| a.len()).map_err(drop)) || some(host.connections().map(|c| c.len()).map_err(drop))
    }
}
