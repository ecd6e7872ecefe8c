//! I4: with the faults over, everybody does what is to be done, and the volume runs.

use crate::bounds::Bounds;
use crate::machine::{Action, Protocol};
use crate::state::{Change, Phase, State, only};
use stateright::Model as _;

/// More steps than anything needs that converges.
const LIMIT: usize = 120;
/// Epochs that it may take: what hangs on a last leg whose grant is spent needs another.
const EPOCHS: u8 = 3;

impl Protocol {
    /// The steps from here to a volume that runs where it is wanted, its write acknowledged; nothing when it does not get there.
    #[must_use]
    pub fn heal(self, state: &State) -> Option<Vec<Action>> {
        let bounds = Bounds { epochs: state.record.epoch + EPOCHS, losses: u8::MAX, heals: false, ..self.bounds };
        let (free, mut now, mut steps) = (Self { bounds }, *state, Vec::new());
        while !Self::runs(&now) {
            let (action, next) = free.helpful(&now)?;
            steps.push(action);
            now = next;
            if steps.len() > LIMIT || now.broken.is_some() {
                return None;
            }
        }
        Some(steps)
    }

    fn runs(s: &State) -> bool {
        let array = Self::array(s, s.record.node);
        s.record.phase == Phase::Running
            && array.is_some_and(|a| a.published && a.epoch == s.record.epoch && a.write == 0)
    }

    /// The first step, in the order of the protocol, that changes anything; another epoch when there is none.
    fn helpful(&self, s: &State) -> Option<(Action, State)> {
        let mut all = Vec::new();
        self.messages(&mut all);
        self.legs(s, &mut all);
        self.consumer(s, &mut all);
        all.push(Action::NewEpoch(s.record.node));
        all.push(Action::NewEpoch((s.record.node + 1) % self.bounds.nodes));
        all.into_iter().find_map(|action| Some((action, self.next_state(s, action)?)))
    }

    fn messages(&self, all: &mut Vec<Action>) {
        for n in 0..self.bounds.nodes {
            all.extend([Action::Boot(n), Action::Land(n), Action::LandLeft(n), Action::Arrive(n)]);
            all.extend([Action::ArriveLate(n), Action::Fence(n)]);
        }
    }

    fn legs(&self, s: &State, all: &mut Vec<Action>) {
        let nodes = 0..self.bounds.nodes;
        for leg in nodes.clone() {
            all.extend([Action::Tell(leg, false), Action::Learn(leg)]);
            let over = s.legs[usize::from(leg)].export.is_some_and(|e| e.epoch < s.record.epoch);
            all.extend(over.then_some(Action::Close(leg)));
            all.push(Action::Confirm(leg));
        }
        if s.record.phase == Phase::Revoking {
            let confirmed = nodes.clone().filter(|l| s.legs[usize::from(*l)].confirmed >= s.record.epoch);
            all.push(Action::Start(s.record.in_sync & confirmed.map(only).sum::<u8>()));
        }
        all.extend(nodes.flat_map(|leg| [Action::Grant(leg, false), Action::Export(leg, false)]));
    }

    fn consumer(&self, s: &State, all: &mut Vec<Action>) {
        let node = s.record.node;
        let of = &s.nodes[usize::from(node)];
        for leg in 0..self.bounds.nodes {
            let paths = [Action::Connect(node, leg), Action::Reconnect(node, leg)];
            all.extend(paths);
        }
        all.extend([Change::Claim(false), Change::Settle].map(|change| Action::Send(node, change)));
        let first = of.daemon.in_sync.trailing_zeros() as u8;
        all.push(Action::Assemble(node, of.daemon.in_sync, first));
        for leg in 0..self.bounds.nodes {
            all.extend([Action::Send(node, Change::Remove(leg)), Action::LetGo(node, leg)]);
        }
        all.push(Action::Publish(node));
        for leg in 0..self.bounds.nodes {
            all.extend([Action::Put(node, leg), Action::Flush(node, leg)]);
        }
        all.push(Action::Acknowledge(node));
    }
}
