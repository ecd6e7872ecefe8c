//! The hands of one attachment: observe, plan, do one step.
//!
//! A slow step (one that may hang with a leg's path) runs on a thread of its own while the planning goes on, so that
//! the loss that it waits for is recorded all the same.

use std::sync::Arc;
use std::time::Instant;

use meshstor_crds::{MeshAttachment, TermPhase};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Notify, OwnedMutexGuard, oneshot};

use super::cluster::Notice;
use super::context::{Again, Context, Turn, newest};
use super::effect::{self, Found, perform};
use super::error::{Class, ClusterError, TurnError, host as class_of};
use super::health::Health;
use super::interest::{Key, kernel_name};
use super::observe::{Seen, Silence, Waiting, look};
use crate::attachment::{DROPPED, Memory, Pace, Step, View, plan, record, report_now};
use crate::host::{ControllerState, HostError};
use crate::wake::{Watch, Watched};

struct Slow {
    step: Step,
    result: oneshot::Receiver<Result<Found, HostError>>,
    /// It came before it was asked for.
    came: Option<Result<Found, HostError>>,
}

impl Slow {
    /// Whether it has ended; one that died without a result failed.
    fn ended(&mut self) -> bool {
        if self.came.is_none() {
            self.came = match self.result.try_recv() {
                Ok(result) => Some(result),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Closed) => Some(died()),
            };
        }
        self.came.is_some()
    }
}

fn died() -> Result<Found, HostError> {
    Err(HostError::Failed { action: "run a step".to_owned(), cause: "it ended without a result".to_owned() })
}

/// Rung when it goes, however the step ended.
struct Bell(Arc<Notify>);

impl Drop for Bell {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// A step that failed and is not tried again yet.
struct Resting {
    step: String,
    until: Instant,
    tries: u32,
}

/// Serves one attachment on this node.
pub struct AttachmentWorker {
    ctx: Arc<Context>,
    name: String,
    wake: Arc<Notify>,
    latest: Option<MeshAttachment>,
    memory: Memory,
    /// `resourceVersion` under which a write of unknown outcome was sent.
    sent_under: Option<String>,
    silence: Silence,
    /// How long the start set has been waited for.
    waiting: Waiting,
    slow: Option<Slow>,
    /// Connections that are being deleted: MD may write to other legs first, and their loss is recorded meanwhile.
    leaving: Vec<Slow>,
    resting: Option<Resting>,
    health: Health,
    /// When requests were last counted for the pace of a rebuild.
    paced: Option<Instant>,
    /// What of the kernel is watched, if anything.
    pub watched: Option<(Watched, Watch)>,
}

impl AttachmentWorker {
    /// For the `MeshAttachment` of that name; `wake` is rung when a slow step ends.
    pub fn new(ctx: Arc<Context>, name: String, wake: Arc<Notify>) -> Self {
        Self {
            ctx,
            name,
            wake,
            latest: None,
            memory: Memory::default(),
            sent_under: None,
            silence: Silence::default(),
            waiting: Waiting::default(),
            slow: None,
            leaving: Vec::new(),
            resting: None,
            health: Health::default(),
            paced: None,
            watched: None,
        }
    }

    /// Observes, plans, and does the one next step.
    ///
    /// # Errors
    /// [`TurnError`] when the step failed.
    pub async fn turn(&mut self) -> Result<Turn, TurnError> {
        let Some(object) = newest(self.ctx.cluster.attachment(&self.name), self.latest.as_ref()) else {
            tracing::info!(node = %self.ctx.node, volume = %self.name, "the attachment is gone; its worker ends and touches nothing");
            return Ok(Turn::Gone);
        };
        self.epoch(&object);
        self.harvest(&object)?;
        let seen = look(&self.ctx, &object).await?;
        let step = self.planned(&object, &seen);
        let again = self.again(&object, &seen);
        self.step(&object, &seen, step, again).await
    }

    /// Memory is of one epoch; a slow step of the old one ends first.
    fn epoch(&mut self, object: &MeshAttachment) {
        let term = object.status.as_ref().and_then(|s| s.term.as_ref());
        let epoch = term.map_or(0, |t| t.epoch);
        if self.memory.epoch != epoch && self.slow.is_none() {
            let names = std::mem::take(&mut self.memory.names);
            let failing = std::mem::take(&mut self.memory.failing);
            let leaving = std::mem::take(&mut self.memory.leaving);
            self.memory =
                Memory { epoch, names, leaving, failing, unsettled: self.memory.unsettled, ..Memory::default() };
            self.waiting = Waiting::default();
        }
        let begins = term.filter(|t| t.phase == TermPhase::Revoking && t.epoch == self.memory.epoch);
        self.memory.begun_with.extend(begins.into_iter().flat_map(|t| t.in_sync.iter().cloned()));
    }

    /// Takes the result of a slow step that has ended.
    fn harvest(&mut self, object: &MeshAttachment) -> Result<(), TurnError> {
        while let Some(at) = self.leaving.iter_mut().position(Slow::ended) {
            let gone = self.leaving.swap_remove(at);
            if let Step::Disconnect { nqn } = &gone.step {
                self.memory.leaving.remove(nqn);
            }
            self.finished(object, &gone.step, gone.came.unwrap_or_else(died))?;
        }
        let Some(slow) = self.slow.take_if(Slow::ended) else { return Ok(()) };
        self.memory.slow = None;
        self.finished(object, &slow.step, slow.came.unwrap_or_else(died))
    }

    fn finished(
        &mut self,
        object: &MeshAttachment,
        step: &Step,
        result: Result<Found, HostError>,
    ) -> Result<(), TurnError> {
        match result {
            Ok(found) => {
                effect::remember(&mut self.memory, step, found);
                self.resting = None;
                self.tell(object, step);
                Ok(())
            }
            Err(HostError::Crashed) => Err(HostError::Crashed.into()),
            Err(error) => {
                self.failed(object, step, &error);
                Ok(())
            }
        }
    }

    fn failed(&mut self, object: &MeshAttachment, step: &Step, error: &HostError) {
        tracing::warn!(node = %self.ctx.node, volume = %self.name, epoch = self.memory.epoch, %step, %error, "failed");
        let published = object.status.as_ref().and_then(|s| s.array.as_ref()).is_some_and(|a| a.device.is_some());
        effect::regret(&mut self.memory, step, error, published);
        if matches!(step, Step::HoldFailures { .. }) {
            let note = format!("{error}: writes are acknowledged as by a stock kernel");
            self.ctx.cluster.notice(object, Notice { warning: true, reason: "FailureGateOff", note });
            return;
        }
        self.rest(step, class_of(error));
        if class_of(error) == Class::Blocked {
            let note = format!("{step}: {error}");
            self.ctx.cluster.notice(object, Notice { warning: true, reason: "StepRefused", note });
        }
    }

    fn rest(&mut self, step: &Step, class: Class) {
        let step = step.to_string();
        let tries = self.resting.as_ref().filter(|r| r.step == step).map_or(0, |r| r.tries + 1);
        self.resting = Some(Resting { step, until: self.ctx.surroundings.instant() + class.backoff(tries), tries });
    }

    fn tell(&self, object: &MeshAttachment, step: &Step) {
        if let Some(notice) = effect::notice(step, object) {
            self.ctx.cluster.notice(object, notice);
        }
    }

    fn planned(&mut self, object: &MeshAttachment, seen: &Seen) -> Step {
        let held = self.held(seen);
        let overdue = self.overdue(seen);
        self.pace(seen);
        self.measure(object, seen);
        let step = self.with_view(object, seen, &held, overdue, |view| (plan(view), view.names()));
        let (step, names) = step;
        self.memory.names.extend(names);
        let trouble = self.memory.trouble.as_ref();
        if trouble.is_some_and(|t| t.step != step.to_string()) && !matches!(step, Step::Report(_)) {
            self.memory.trouble = None;
        }
        if self.is_resting(&step) {
            return self.with_view(object, seen, &held, overdue, report_now);
        }
        step
    }

    /// NQNs of connections that were not live for longer than the hold time.
    fn held(&mut self, seen: &Seen) -> std::collections::BTreeSet<String> {
        self.silence.held(&seen.connections, self.ctx.timing.hold, self.ctx.surroundings.instant())
    }

    fn is_resting(&self, step: &Step) -> bool {
        let rests = |r: &Resting| r.step == step.to_string() && self.ctx.surroundings.instant() < r.until;
        self.resting.as_ref().is_some_and(rests)
    }

    /// How fast the rebuild that is under way may go, after one more window.
    fn pace(&mut self, seen: &Seen) {
        if seen.array.as_ref().is_none_or(|a| a.sync.is_none()) {
            (self.memory.pace, self.paced) = (None, None);
            return;
        }
        let now = self.ctx.surroundings.instant();
        if self.paced.is_some_and(|at| now.duration_since(at) < self.ctx.timing.pace) {
            return;
        }
        self.paced = Some(now);
        let io = seen.traffic.io;
        self.memory.pace = Some(self.memory.pace.map_or_else(|| Pace::first(io), |pace| pace.next(io)));
    }

    /// Which legs' drives fail, by what MD did to them and by how long they take.
    fn measure(&mut self, object: &MeshAttachment, seen: &Seen) {
        let now = self.ctx.surroundings.instant();
        let none = std::collections::BTreeSet::new();
        let legs = self.with_view(object, seen, &none, false, |view| view.legs_io());
        if let Some(array) = &seen.array {
            self.health.measure(&legs, array.sync.is_some(), now);
        }
        let failing = self.health.failing(now);
        for (leg, why) in failing.iter().filter(|(leg, _)| !self.memory.failing.contains_key(*leg)) {
            let note = format!("the drive of leg {leg} fails: {why}");
            tracing::warn!(node = %self.ctx.node, volume = %self.name, "{note}");
            self.ctx.cluster.notice(object, Notice { warning: true, reason: "DriveFailing", note });
        }
        self.memory.failing = failing;
    }

    /// The start set has been waited for, and no more of it came for too long. A start that is only slow goes on: given up, it would
    /// begin again and be as slow.
    fn overdue(&mut self, seen: &Seen) -> bool {
        if self.memory.assembled {
            return false;
        }
        let now = self.ctx.surroundings.instant();
        self.waiting.since(seen.reached(self.memory.epoch), now) >= self.ctx.timing.start
    }

    fn with_view<T>(
        &self,
        object: &MeshAttachment,
        seen: &Seen,
        held: &std::collections::BTreeSet<String>,
        overdue: bool,
        look: impl FnOnce(&View<'_>) -> T,
    ) -> T {
        let legs = seen.legs();
        look(&View {
            me: &self.ctx.node,
            incarnation: &self.ctx.incarnation,
            attachment: object,
            params: seen.params.as_ref(),
            legs: &legs,
            array: seen.array.as_ref(),
            traffic: &seen.traffic,
            connections: &seen.connections,
            held,
            overdue,
            memory: &self.memory,
            now: &self.ctx.now(),
        })
    }

    /// Says on the node's object that only a reboot lets go of the volume, while that is so.
    fn note_stuck(&self, seen: &Seen) {
        let stuck = self.memory.stuck.clone().filter(|_| seen.array.is_some());
        self.ctx.note_stuck(&self.name, stuck);
    }

    async fn step(
        &mut self,
        object: &MeshAttachment,
        seen: &Seen,
        step: Step,
        again: Again,
    ) -> Result<Turn, TurnError> {
        self.note_kernel(seen);
        self.note_stuck(seen);
        if step == Step::Settled {
            return Ok(Turn::Settled(if self.resting.is_some() { Again::Tick } else { again }));
        }
        tracing::info!(node = %self.ctx.node, volume = %self.name, epoch = self.memory.epoch, %step);
        if step == Step::Settle {
            return self.settle(object, seen).await;
        }
        let held = self.held(seen);
        let written = self.with_view(object, seen, &held, false, |view| {
            record::next(view, &step).map(|status| (status, view.unconnected()))
        })?;
        match written {
            (Some(status), unconnected) => {
                self.write(object, status).await?;
                if let Step::RecordLoss { leg, why } = &step
                    && *why == DROPPED
                {
                    self.health.dropped(leg, self.ctx.surroundings.instant());
                }
                if step == Step::Adopt {
                    self.memory.assembled = true;
                    self.memory.burnt.extend(unconnected);
                }
                self.tell(object, &step);
                Ok(Turn::Acted)
            }
            (None, _) if step.slow() => self.start(object, step, again).await,
            (None, _) if matches!(step, Step::Disconnect { .. }) => Ok(self.disconnect(step)),
            (None, _) => self.quick(object, step).await,
        }
    }

    /// Has the kernel's changes of what is here rung in.
    fn note_kernel(&mut self, seen: &Seen) {
        let controllers = seen.connections.iter().map(|c| (c.controller.clone(), c.nqn.clone())).collect();
        let members = seen.array.iter().flat_map(|a| &a.members).map(|m| m.name.clone()).collect();
        let now = Watched { array: seen.array.as_ref().map(|a| a.device.clone()), members, controllers };
        let devices = seen.connections.iter().filter_map(|c| c.device.as_deref());
        let devices = devices.chain(now.array.as_deref()).filter_map(kernel_name);
        let controllers = now.controllers.iter().map(|(name, _)| name.clone());
        let names = devices.chain(controllers).chain(now.members.iter().cloned()).collect();
        self.ctx.interests.set(Key::Attachment(self.name.clone()), Some(names));
        if self.watched.as_ref().is_none_or(|(watched, watch)| *watched != now || watch.is_over()) {
            let (wake, wakeups) = (Arc::clone(&self.wake), Arc::clone(&self.ctx.wakeups));
            let ring = move || wake.notify_one();
            let watch = (now != Watched::default()).then(|| wakeups.watch(&now, Arc::new(ring)));
            self.watched = watch.map(|watch| (now, watch));
        }
    }

    /// When to look again if nothing is told. Time alone changes what is to be done where a leg does not answer, which is held
    /// against the clock, where a rebuild moves without an event, and where a start waits for its legs. A volume that runs on live
    /// connections is told of everything but of what its kernel measures. A leg that is held is looked at again when the hold time is over:
    /// looks that come as often as it is long would miss its end by a moment, and find it one look later.
    fn again(&self, object: &MeshAttachment, seen: &Seen) -> Again {
        if let Some(due) = self.silence.due(self.ctx.timing.hold, self.ctx.surroundings.instant()) {
            return Again::In(due);
        }
        let silent = seen.connections.iter().any(|c| c.state != ControllerState::Live);
        let rebuilding = seen.array.as_ref().is_some_and(|a| a.sync.is_some());
        let term = object.status.as_ref().and_then(|s| s.term.as_ref()).filter(|t| t.node == self.ctx.node);
        let starting =
            term.is_some_and(|t| matches!(t.phase, TermPhase::Started | TermPhase::Running)) && seen.array.is_none();
        // How long each leg takes is told by nobody.
        let measured = seen.array.is_some();
        match (silent || rebuilding || starting, measured) {
            (true, _) => Again::Tick,
            (false, true) => Again::Measure,
            (false, false) => Again::Full,
        }
    }

    /// What a lost leg needs; it is awaited here.
    async fn quick(&mut self, object: &MeshAttachment, step: Step) -> Result<Turn, TurnError> {
        let doing = step.clone();
        let result = self.ctx.blocking(move |host| Ok(perform(host, &doing))).await?;
        self.finished(object, &step, result)?;
        Ok(Turn::Acted)
    }

    /// Starts to delete a connection. Where the legs of a node are lost one after another MD waits for the second while the first is
    /// deleted: nothing here waits for either.
    fn disconnect(&mut self, step: Step) -> Turn {
        if let Step::Disconnect { nqn } = &step {
            self.memory.burnt.insert(nqn.clone());
            self.memory.leaving.insert(nqn.clone());
        }
        let slow = self.apart(step, None);
        self.leaving.push(slow);
        Turn::Acted
    }

    /// Starts a slow step; one that takes a local leg passes the volume's gate and is planned again behind it.
    async fn start(&mut self, object: &MeshAttachment, step: Step, again: Again) -> Result<Turn, TurnError> {
        let mut guard: Option<OwnedMutexGuard<()>> = None;
        if step.needs_gate() {
            let Ok(passed) = self.ctx.gate(&self.name).try_lock_owned() else {
                return Ok(Turn::Settled(Again::Tick));
            };
            guard = Some(passed);
            let seen = look(&self.ctx, object).await?;
            if self.planned(object, &seen) != step {
                return Ok(Turn::Acted);
            }
        }
        self.memory.slow = Some(step.to_string());
        self.slow = Some(self.apart(step, guard));
        Ok(Turn::Settled(again))
    }

    /// Does a step on a thread of its own.
    fn apart(&self, step: Step, guard: Option<OwnedMutexGuard<()>>) -> Slow {
        let (host, wake, doing) = (Arc::clone(&self.ctx.host), Arc::clone(&self.wake), step.clone());
        let (answer, result) = oneshot::channel();
        self.ctx.surroundings.apart(Box::new(move || {
            // Rung last: the result is there, or will never be.
            let _bell = Bell(wake);
            let answer = answer;
            let done = perform(host.as_ref(), &doing);
            drop(guard);
            drop(answer.send(done));
        }));
        Slow { step, result, came: None }
    }

    /// Writes the whole status. An unknown outcome is settled before anything else is done.
    async fn write(
        &mut self,
        object: &MeshAttachment,
        status: meshstor_crds::MeshAttachmentStatus,
    ) -> Result<(), TurnError> {
        let mut next = object.clone();
        next.status = Some(status);
        match self.ctx.cluster.write_attachment(next).await {
            Ok(written) => {
                self.latest = Some(written);
                self.settled();
                Ok(())
            }
            Err(error @ ClusterError::Refused(..)) => Err(error.into()),
            Err(error @ ClusterError::Conflict(_)) => {
                // The version moved on: no write under the old one can land any more.
                self.reread().await?;
                self.settled();
                Err(error.into())
            }
            Err(error @ ClusterError::Unknown(..)) => {
                self.memory.unsettled = true;
                self.sent_under = object.metadata.resource_version.clone();
                Err(error.into())
            }
        }
    }

    fn settled(&mut self) {
        self.memory.unsettled = false;
        self.sent_under = None;
    }

    async fn reread(&mut self) -> Result<(), TurnError> {
        if let Some(read) = self.ctx.cluster.read_attachment(self.name.clone()).await? {
            self.latest = Some(read);
        }
        Ok(())
    }

    /// A quorum read that shows another version settles it; else one more write under the same version does, for only
    /// one of the two can land.
    async fn settle(&mut self, object: &MeshAttachment, seen: &Seen) -> Result<Turn, TurnError> {
        self.reread().await?;
        let current = self.latest.clone().unwrap_or_else(|| object.clone());
        let none = std::collections::BTreeSet::new();
        if current.metadata.resource_version != self.sent_under {
            self.settled();
            return Ok(Turn::Acted);
        }
        let status = self.with_view(&current, seen, &none, false, |view| record::next(view, &Step::Settle));
        match status {
            Ok(Some(status)) => self.write(&current, status).await?,
            // Not this process's record yet: whatever it does next to it is guarded by the same version.
            _ => self.settled(),
        }
        Ok(Turn::Acted)
    }

    /// Whether a slow step is running.
    pub fn busy(&self) -> bool {
        self.slow.is_some() || !self.leaving.is_empty()
    }

    /// Whether the running slow step has ended.
    pub fn done(&mut self) -> bool {
        self.slow.as_mut().is_some_and(Slow::ended) || self.leaving.iter_mut().any(Slow::ended)
    }

    /// Whether a step waits for its next try.
    pub fn resting(&self) -> bool {
        self.resting.as_ref().is_some_and(|r| self.ctx.surroundings.instant() < r.until)
    }
}
