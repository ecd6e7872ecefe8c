//! The fault phase: the scheduler picks what happens next, and what goes wrong.

use std::sync::Arc;
use std::time::Duration;

use meshstor_crds::MeshReplica;
use meshstor_node_daemon::host::Host as _;
use meshstor_node_daemon::host::crash::CrashPoint;

use crate::daemon::Daemon;
use crate::sim::{NODES, Sim};

/// Steps of a fault phase.
const STEPS: u32 = 260;

/// How likely each kind of fault is in this run, in thousandths of a step; many runs lack most of them.
pub(crate) struct Mix {
    power: u32,
    kill: u32,
    api: u32,
    fabric: u32,
    operator: u32,
    lost: u32,
    error: u32,
    person: u32,
    delete: bool,
    /// Requests and host calls that take their time, in percent.
    slow: u32,
}

impl Mix {
    fn of(rng: &mut fastrand::Rng) -> Self {
        let mut some = |most: u32| if rng.bool() { rng.u32(1..=most) } else { 0 };
        Self {
            power: some(25),
            kill: some(30),
            api: some(20),
            fabric: some(25),
            operator: some(20),
            lost: some(300),
            error: some(8),
            person: some(25),
            slow: some(80),
            delete: rng.u8(0..10) == 0,
        }
    }
}

impl Sim<'_> {
    pub(crate) fn fault_phase(&mut self) -> Result<(), String> {
        let mix = Mix::of(&mut self.rng);
        for _ in 0..self.options.steps.unwrap_or(STEPS) {
            self.step(&mix)?;
            self.bury();
            self.look()?;
        }
        Ok(())
    }

    fn chance(&mut self, thousandths: u32) -> bool {
        self.rng.u32(0..1000) < thousandths
    }

    fn step(&mut self, mix: &Mix) -> Result<(), String> {
        let pass = if self.chance(20) { self.rng.u64(5_000..30_000) } else { self.rng.u64(10..700) };
        self.advance(Duration::from_millis(pass));
        let slow = self.rng.u32(0..100) < mix.slow;
        self.net.set_immediate(!slow);
        if self.oracle.errored.is_none() {
            self.fault(mix);
        }
        match self.rng.u32(0..100) {
            0..=39 => self.some_worker(slow)?,
            40..=49 => self.some_operator()?,
            50..=59 => self.some_request(mix),
            60..=69 => self.some_watch(),
            70..=84 => self.some_io()?,
            85..=89 => self.daemons.values().for_each(Daemon::beat),
            90..=93 => {
                let node = self.any_node();
                self.fabric.complete_rebuilds(node);
            }
            _ => self.some_start(mix),
        }
        Ok(())
    }

    fn some_worker(&mut self, slow: bool) -> Result<(), String> {
        let node = self.any_node();
        let Some(daemon) = self.daemons.get_mut(node) else { return Ok(()) };
        daemon.at_once(!slow);
        if slow && self.rng.bool() && daemon.work() {
            return Ok(());
        }
        let names = daemon.workers();
        if names.is_empty() {
            return Ok(());
        }
        let name = &names[self.rng.usize(0..names.len())];
        for _ in 0..self.rng.u32(1..4) {
            let Some(daemon) = self.daemons.get_mut(node).filter(|d| !d.point.dead()) else { break };
            daemon.turn(name)?;
            self.look()?;
        }
        Ok(())
    }

    fn some_operator(&mut self) -> Result<(), String> {
        if self.operators.is_empty() {
            return Ok(());
        }
        let Some(volume) = self.volume() else { return Ok(()) };
        let index = self.rng.usize(0..self.operators.len());
        self.operators[index].turn(&volume, self.runtime)?;
        let later = |leg: &Arc<MeshReplica>| leg.spec.grant.as_ref().is_some_and(|grant| grant.copy_later);
        if self.options.crowded && self.net.state().replicas.objects.values().any(later) {
            self.count("connected to, copied to later");
        }
        Ok(())
    }

    fn some_request(&mut self, mix: &Mix) {
        let waiting = self.net.pending();
        if waiting == 0 {
            return;
        }
        let index = self.rng.usize(0..waiting);
        if !self.chance(mix.lost) {
            self.net.deliver(index, true);
            return;
        }
        match self.rng.u8(0..3) {
            0 => {
                self.net.deliver(index, false);
                self.count("answer lost");
            }
            1 => {
                self.net.lose(index);
                self.count("request lost");
            }
            _ => {
                self.net.give_up(index);
                self.count("request late");
            }
        }
    }

    fn some_watch(&mut self) {
        let (node, most) = (self.any_node(), if self.rng.bool() { usize::MAX } else { self.rng.usize(1..4) });
        let which = self.rng.usize(0..4);
        if which == 3 && !self.operators.is_empty() {
            let index = self.rng.usize(0..self.operators.len());
            if self.net.hears(&self.operators[index].name) {
                self.operators[index].watch(most);
            }
        } else if let Some(daemon) = self.daemons.get(node).filter(|d| self.net.hears(&d.node)) {
            let mut cache = daemon.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            cache.watch_one(&self.net.state(), which, most);
        }
    }

    fn some_io(&mut self) -> Result<(), String> {
        let node = self.any_node();
        for _ in 0..self.rng.u32(1..3) {
            self.application(node)?;
        }
        for _ in 0..self.rng.u32(1..8) {
            let rng = &mut self.rng;
            self.fabric.carry(&mut |n| rng.usize(0..n));
            self.look()?;
        }
        Ok(())
    }

    /// Whatever is not there comes back, sooner or later.
    fn some_start(&mut self, mix: &Mix) {
        let node = self.any_node();
        match self.rng.u8(0..6) {
            0 => self.boot(node),
            1 => self.net.set_cut(node, false, false),
            2 => {
                let other = self.any_node();
                self.fabric.cut(node, other, false);
            }
            3 if self.operators.is_empty() => {
                let point = self.point(mix.operator);
                self.start_operator(point);
            }
            _ => {
                let point = self.point(mix.kill);
                self.start(node, point);
            }
        }
    }

    /// Where a new process dies; most do not.
    fn point(&mut self, rate: u32) -> std::sync::Arc<CrashPoint> {
        if rate == 0 || self.rng.bool() {
            return CrashPoint::never();
        }
        let k = self.rng.u64(1..20);
        if self.rng.bool() { CrashPoint::before(k) } else { CrashPoint::after(k) }
    }

    fn fault(&mut self, mix: &Mix) {
        let node = self.any_node();
        if self.chance(mix.power) && !self.down.contains(node) {
            self.power_cut(node);
            self.count("power cut");
        }
        if self.chance(mix.kill) && self.daemons.contains_key(node) {
            // What it had a thread or a tool do may be done all the same, before its lock is let go.
            if self.rng.bool() {
                self.daemons[node].work();
            }
            self.daemons.remove(node);
            self.count("daemon killed");
        }
        if self.chance(mix.api) {
            let deaf = self.rng.bool();
            self.net.set_cut(node, !deaf, deaf);
            self.count("API server out of reach");
        }
        if self.chance(mix.fabric) {
            let other = self.any_node();
            if other != node && self.rng.bool() {
                self.fabric.cut(node, other, true);
                self.count("nodes cut off from each other");
            } else if other != node {
                self.fabric.cut_one_way(node, other, true);
                self.count("packets dropped one way");
            }
        }
        self.operator_fault(mix);
        if self.chance(mix.error) {
            if self.options.gate { self.error_at_any_time() } else { self.drive_error() }
        }
        self.some_person(mix, node);
        self.move_some_leg();
        self.drain_some_node();
    }

    fn operator_fault(&mut self, mix: &Mix) {
        if !self.chance(mix.operator) {
            return;
        }
        match self.rng.u8(0..3) {
            0 if !self.operators.is_empty() => {
                let index = self.rng.usize(0..self.operators.len());
                self.operators.remove(index);
                self.count("operator killed");
            }
            1 if self.operators.len() < 2 => {
                let point = self.point(mix.operator);
                self.start_operator(point);
                self.count("second operator");
            }
            _ => {}
        }
    }

    /// A drive of a running array gives MD an error. Nothing else goes wrong until that is recorded: with a stock kernel
    /// that would be the window that `docs/explanation/safety.md` leaves open.
    fn drive_error(&mut self) {
        let Some(term) = self.term().filter(|t| t.in_sync.len() > 1) else { return };
        let Some(node) = NODES.into_iter().find(|n| *n == term.node) else { return };
        if !self.daemons.contains_key(node)
            || !self.net.hears(node)
            || self.net.pending() > 0
            || self.down.contains(node)
        {
            return;
        }
        let Ok(Some(array)) = self.hosts[node].array(self.array) else { return };
        let good: Vec<_> = array.members.iter().filter(|m| m.in_sync && !m.faulty).collect();
        if good.len() < 2 || good.len() != term.in_sync.len() {
            return;
        }
        let member = good[self.rng.usize(0..good.len())];
        let Some(leg) = self.fabric.member_leg(node, self.array, &member.name) else { return };
        let name = term.in_sync.iter().find(|l| meshstor_crds::identity::derived_partition(&self.uid, l) == leg);
        self.oracle.errored = name.cloned();
        self.fabric.fail_member(node, self.array, &member.name);
        self.count("drive error");
    }

    /// With the failure gate no error needs a window: a drive's, whatever else is wrong, or that of a path which a person takes away.
    fn error_at_any_time(&mut self) {
        let node = self.any_node();
        let Ok(Some(array)) = self.hosts[node].array(self.array) else { return };
        let good: Vec<_> = array.members.iter().filter(|m| m.in_sync && !m.faulty).collect();
        if good.is_empty() {
            return;
        }
        let member = good[self.rng.usize(0..good.len())];
        let paths = self.hosts[node].connections().unwrap_or_default();
        let path =
            paths.iter().find(|c| c.device.as_deref().and_then(|d| d.file_name()?.to_str()) == Some(&*member.name));
        match path.filter(|_| self.rng.bool()) {
            Some(path) if self.hosts[node].disconnect(&path.nqn).is_ok() => self.count("path taken away"),
            Some(_) => {}
            None => {
                self.fabric.fail_member(node, self.array, &member.name);
                self.count("drive error at any time");
            }
        }
    }

    fn some_person(&mut self, mix: &Mix, node: &'static str) {
        if !self.chance(mix.person) {
            return;
        }
        match self.rng.u8(0..8) {
            0..=3 => {
                self.want(Some(node));
                self.count("wanted elsewhere");
            }
            4 => {
                self.want(None);
                self.count("wanted nowhere");
            }
            5..=6 => {
                self.give_up();
                self.count("consumer given up");
            }
            _ if mix.delete => {
                self.delete();
                self.count("deleted");
            }
            _ => {}
        }
    }
}
