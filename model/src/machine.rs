//! The state machine for the checker: which actions there are, and what it watches.

use crate::bounds::Bounds;
use crate::state::{Change, NODES, Phase, Record, State, Used, Violation, only};
use crate::state::{Legs, Node};
use stateright::{Model, Property};

/// The protocol within bounds.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// How far.
    pub bounds: Bounds,
}

/// One step of somebody. Numbers are nodes and legs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The operator: the next epoch, on a node.
    NewEpoch(u8),
    /// The operator: fixes the start set.
    Start(Legs),
    /// The operator: tells a leg of the epoch of the record, or of an older one.
    Tell(u8, bool),
    /// The operator: gives a leg to the consumer of the record, or of an older one.
    Grant(u8, bool),
    /// The operator: a leg will never be used again.
    Retire(u8),
    /// A leg's daemon: wipes it, by the record or an older one.
    Wipe(u8, bool),
    /// Somebody's view of the record stays as it is now.
    Age,
    /// A leg's daemon: writes the epoch to its drive.
    Learn(u8),
    /// A leg's daemon: closes an export that is over.
    Close(u8),
    /// A leg's daemon: says that no I/O of older epochs can land.
    Confirm(u8),
    /// A leg's daemon: serves a grant; or the one before, which is what it read last.
    Export(u8, bool),
    /// A consumer's daemon: sends a change of the record.
    Send(u8, Change),
    /// The change arrives, and so does the answer.
    Arrive(u8),
    /// The answer is not waited for any longer.
    GiveUp(u8),
    /// A change arrives that nobody waits for.
    ArriveLate(u8),
    /// A consumer's daemon: connects a leg.
    Connect(u8, u8),
    /// A consumer's daemon: starts the array from these legs; resync copies from this one.
    Assemble(u8, Legs, u8),
    /// A consumer's daemon: shows the device.
    Publish(u8),
    /// A consumer's daemon: lets a leg go.
    LetGo(u8, u8),
    /// A process that should be dead lets a leg go.
    LetGoUndead(u8, u8),
    /// A consumer's daemon: adds a leg that was away.
    ComeBack(u8, u8),
    /// MD: a leg is rebuilt.
    Rebuilt(u8),
    /// A consumer's daemon: stops the array.
    Stop(u8),
    /// A consumer's daemon: takes an array down whose epoch is over.
    Fence(u8),
    /// The application: writes and flushes.
    Issue(u8),
    /// A write goes to a leg.
    Put(u8, u8),
    /// A write reaches the drive.
    Land(u8),
    /// A write of an older connection reaches the drive.
    LandLeft(u8),
    /// A flush of a leg.
    Flush(u8, u8),
    /// The write is acknowledged.
    Acknowledge(u8),
    /// A connection is lost.
    Lose(u8, u8),
    /// The kernel connects again.
    Reconnect(u8, u8),
    /// MD drops a member by itself.
    Error(u8, u8),
    /// A node loses power; what is inside its target reaches the drive, or does not.
    Crash(u8, bool),
    /// It boots.
    Boot(u8),
    /// A daemon is killed, and another starts.
    Kill(u8),
}

/// What came of a check.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Different states seen.
    pub states: usize,
    /// The shortest way to a violation, one action a line.
    pub broken: Option<(Violation, Vec<String>)>,
}

impl Protocol {
    /// Goes through everything that can happen within the bounds, breadth first: as deep as `depth` steps, or as far as the
    /// first violation.
    ///
    /// # Panics
    /// Never by itself; a panic of a worker of the checker is passed on.
    #[must_use]
    pub fn check(self, threads: usize, depth: Option<usize>) -> Verdict {
        use stateright::Checker as _;
        // The checker counts the first state as one, and looks at none that is as deep as its target.
        let depth = depth.map_or(usize::MAX, |steps| steps + 2);
        let checker = self.checker().threads(threads).target_max_depth(depth).spawn_bfs().join();
        let broken = checker.discovery("nothing is broken").map(|path| {
            let last = *path.last_state();
            let steps = path.into_actions().iter().map(|action| format!("{action:?}")).collect();
            (last.broken.unwrap_or(Violation::Lost), steps)
        });
        Verdict { states: checker.unique_state_count(), broken }
    }

    fn first(&self) -> State {
        let all = (1 << self.bounds.slots) - 1;
        let record = Record {
            epoch: 1,
            node: 0,
            phase: Phase::Started,
            in_sync: all,
            bitmap_usable: 0,
            retired: 0,
            left_out: 0,
            clean: true,
        };
        let mut state = State {
            record,
            old: record,
            nodes: [Node::default(); NODES],
            legs: Default::default(),
            used: Used::default(),
            issued: 0,
            acknowledged: 0,
            legal: 1,
            shown: 0,
            broken: None,
        };
        for n in 0..usize::from(self.bounds.nodes) {
            state.nodes[n].up = true;
            let leg = &mut state.legs[n];
            (leg.told, leg.confirmed, leg.epoch) = (1, 1, 1);
        }
        state
    }

    fn each_node(&self) -> impl Iterator<Item = u8> + use<> {
        0..self.bounds.nodes
    }

    fn operator(&self, state: &State, all: &mut Vec<Action>) {
        all.extend(self.each_node().map(Action::NewEpoch));
        if state.record.phase == Phase::Revoking {
            all.extend((1..1 << self.bounds.nodes).map(Action::Start));
        }
        let views: &[bool] = if self.bounds.stale { &[false, true] } else { &[false] };
        for leg in self.each_node() {
            for &old in views {
                all.extend([Action::Tell(leg, old), Action::Grant(leg, old), Action::Wipe(leg, old)]);
                all.push(Action::Export(leg, old));
            }
            all.extend([Action::Retire(leg), Action::Learn(leg), Action::Close(leg), Action::Confirm(leg)]);
            all.extend([Action::Land(leg), Action::LandLeft(leg)]);
        }
        if self.bounds.stale {
            all.push(Action::Age);
        }
    }

    fn node(&self, state: &State, node: u8, all: &mut Vec<Action>) {
        let of = &state.nodes[usize::from(node)];
        if !of.up {
            all.extend([Action::Boot(node), Action::ArriveLate(node)]);
            return;
        }
        all.extend([Action::Crash(node, true), Action::Crash(node, false), Action::Kill(node)]);
        all.extend([Action::Arrive(node), Action::GiveUp(node), Action::ArriveLate(node)]);
        if of.daemon.request.is_none() && state.record.node == node {
            let changes = [Change::Claim(true), Change::Claim(false), Change::Forget, Change::Settle, Change::Ended];
            all.extend(changes.map(|change| Action::Send(node, change)));
        }
        for leg in self.each_node() {
            all.extend([Action::Connect(node, leg), Action::Lose(node, leg), Action::Reconnect(node, leg)]);
            if of.array.is_some() {
                all.extend([Change::Remove(leg), Change::Add(leg)].map(|change| Action::Send(node, change)));
                all.extend([Action::LetGo(node, leg), Action::LetGoUndead(node, leg), Action::ComeBack(node, leg)]);
                all.extend([Action::Put(node, leg), Action::Flush(node, leg), Action::Error(node, leg)]);
            }
        }
        if of.array.is_some() {
            all.extend([Action::Publish(node), Action::Rebuilt(node), Action::Stop(node), Action::Fence(node)]);
            all.extend([Action::Issue(node), Action::Acknowledge(node)]);
        } else {
            for members in 1..1 << self.bounds.nodes {
                let from = self.each_node().filter(|leg| members & only(*leg) != 0);
                all.extend(from.map(|leg| Action::Assemble(node, members, leg)));
            }
        }
    }

    fn step(&self, s: &State, action: Action) -> Option<State> {
        match action {
            Action::NewEpoch(node) => self.new_epoch(s, node),
            Action::Start(legs) => self.start(s, legs),
            Action::Tell(leg, old) => self.tell(s, leg, old),
            Action::Grant(leg, old) => self.grant(s, leg, old),
            Action::Retire(leg) => self.retire(s, leg),
            Action::Wipe(leg, old) => self.wipe(s, leg, old),
            Action::Age => (s.old != s.record).then_some(State { old: s.record, ..*s }),
            Action::Learn(leg) => self.learn(s, leg),
            Action::Close(leg) => self.close(s, leg),
            Action::Confirm(leg) => self.confirm(s, leg),
            Action::Export(leg, old) => self.export(s, leg, old),
            Action::Send(node, change) => self.send(s, node, change),
            Action::Arrive(node) => self.arrive(s, node),
            Action::GiveUp(node) => self.give_up(s, node),
            Action::ArriveLate(node) => self.arrive_late(s, node),
            Action::Connect(node, leg) => self.connect(s, node, leg),
            Action::Assemble(node, members, from) => self.assemble(s, node, members, from),
            Action::Publish(node) => self.publish(s, node),
            Action::LetGo(node, leg) => self.let_go(s, node, leg),
            Action::LetGoUndead(node, leg) => self.let_go_undead(s, node, leg),
            Action::ComeBack(node, leg) => self.come_back(s, node, leg),
            Action::Rebuilt(node) => self.rebuilt(s, node),
            Action::Stop(node) => self.stop(s, node),
            Action::Fence(node) => self.fence(s, node),
            Action::Issue(node) => self.issue(s, node),
            Action::Put(node, leg) => self.put(s, node, leg),
            Action::Land(leg) => self.land(s, leg),
            Action::LandLeft(leg) => self.land_left(s, leg),
            Action::Flush(node, leg) => self.flush(s, node, leg),
            Action::Acknowledge(node) => self.acknowledge(s, node),
            Action::Lose(node, leg) => self.lose(s, node, leg),
            Action::Reconnect(node, leg) => self.reconnect(s, node, leg),
            Action::Error(node, leg) => self.error(s, node, leg),
            Action::Crash(node, lands) => self.crash(s, node, lands),
            Action::Boot(node) => self.boot(s, node),
            Action::Kill(node) => self.kill(s, node),
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.first()]
    }

    fn actions(&self, state: &State, all: &mut Vec<Action>) {
        if state.broken.is_none() {
            self.operator(state, all);
            self.each_node().for_each(|node| self.node(state, node, all));
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = self.step(state, action)?;
        self.look(&mut next);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("nothing is broken", |_, state: &State| state.broken.is_none())]
    }
}
