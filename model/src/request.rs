//! What a consumer's daemon asks of the record, and what it knows when it has the answer.

use crate::bounds::Clause;
use crate::machine::Protocol;
use crate::state::{Change, Daemon, Path, Phase, Record, Request, State, only};

impl Protocol {
    /// Changes of the record that make sense now, each from a fresh read of it.
    pub(crate) fn send(&self, s: &State, node: u8, change: Change) -> Option<State> {
        let (of, record) = (&s.nodes[usize::from(node)], &s.record);
        let daemon = &of.daemon;
        if !of.up || record.node != node || daemon.request.is_some() {
            return None;
        }
        let running = of.array.filter(|a| a.epoch == record.epoch && record.phase == Phase::Running);
        let own = running.filter(|a| daemon.settled && daemon.epoch == a.epoch);
        let sensible = match change {
            Change::Claim(seen) => {
                record.phase == Phase::Started && of.array.is_none() && (!seen || record.left_out != 0)
            }
            Change::Remove(leg) => own.is_some_and(|a| {
                let gone = a.members & only(leg) == 0 || matches!(of.paths[usize::from(leg)], Path::Held(_));
                gone && daemon.in_sync & only(leg) != 0 && daemon.in_sync != only(leg)
            }),
            Change::Add(leg) => {
                let free = !daemon.in_sync & !record.retired & only(leg) != 0;
                own.is_some_and(|a| a.members & only(leg) != 0 && free)
            }
            Change::Forget => own.is_some() && daemon.bitmap_usable != 0,
            Change::Settle => running.is_some() && !daemon.settled,
            // A node that booted finds no array either. Otherwise only `stop` says this.
            Change::Ended => {
                let none = of.array.is_none() && !daemon.may_assemble && !record.clean;
                self.lacks(Clause::CleanStopNotBelieved) && record.phase == Phase::Running && none
            }
        };
        if !sensible {
            return None;
        }
        let set = match change {
            Change::Remove(leg) => record.in_sync & !only(leg),
            Change::Add(leg) => record.in_sync | only(leg),
            _ => record.in_sync,
        };
        let mut next = *s;
        let request = Request { change, set, epoch: record.epoch, current: true, set_current: true };
        let of = &mut next.nodes[usize::from(node)];
        of.daemon.request = Some(request);
        if let (Change::Add(leg), Some(array)) = (change, &mut of.array) {
            // Before it is recorded: the kernel's set is never smaller than S.
            array.agreed |= only(leg);
        }
        Some(next)
    }

    /// The record after a request, when the API server takes it.
    fn taken(&self, record: &Record, request: &Request) -> Option<Record> {
        let of_set = matches!(request.change, Change::Remove(_) | Change::Add(_));
        let current = if of_set && self.lacks(Clause::OneObject) {
            request.set_current
        } else {
            request.current || (of_set && self.lacks(Clause::ReplacedWhole))
        };
        if !current {
            return None;
        }
        let mut next = *record;
        match request.change {
            Change::Claim(seen) => {
                (next.phase, next.clean) = (Phase::Running, false);
                next.bitmap_usable |= if seen { record.left_out } else { 0 };
                next.left_out = 0;
            }
            Change::Remove(leg) => {
                next.in_sync = request.set;
                next.bitmap_usable |= only(leg);
            }
            Change::Add(leg) => {
                next.in_sync = request.set;
                next.bitmap_usable &= !only(leg);
            }
            Change::Forget => next.bitmap_usable = 0,
            Change::Settle => {}
            Change::Ended => next.clean = true,
        }
        Some(next)
    }

    /// What a daemon knows after a definite write of its own.
    pub(crate) fn learned(daemon: &mut Daemon, record: &Record, change: Change) {
        daemon.epoch = record.epoch;
        (daemon.in_sync, daemon.bitmap_usable) = (record.in_sync, record.bitmap_usable);
        daemon.settled = true;
        daemon.may_assemble |= matches!(change, Change::Claim(_));
    }

    pub(crate) fn arrive(&self, s: &State, node: u8) -> Option<State> {
        let request = s.nodes[usize::from(node)].daemon.request.filter(|_| s.nodes[usize::from(node)].up)?;
        let mut next = *s;
        next.nodes[usize::from(node)].daemon.request = None;
        let taken = self.taken(&s.record, &request);
        if let Some(record) = taken {
            Self::written(&mut next, record);
        }
        let of = &mut next.nodes[usize::from(node)];
        match taken {
            Some(record) if request.change != Change::Ended => {
                Self::learned(&mut of.daemon, &record, request.change);
                if matches!(request.change, Change::Claim(_)) {
                    // What was connected for an older epoch is of no use.
                    of.paths = Default::default();
                }
            }
            _ => of.daemon.settled = false,
        }
        Some(next)
    }

    /// An unknown outcome: nothing is known until another write of the same process has a definite one.
    pub(crate) fn give_up(&self, s: &State, node: u8) -> Option<State> {
        let request = s.nodes[usize::from(node)].daemon.request?;
        if s.used.timeouts >= self.bounds.timeouts {
            return None;
        }
        let mut next = *s;
        next.used.timeouts += 1;
        let of = &mut next.nodes[usize::from(node)];
        of.late = Some(request);
        of.daemon.request = None;
        of.daemon.settled = false;
        if self.lacks(Clause::DefiniteOutcome) {
            of.daemon.in_sync = request.set;
            of.daemon.settled = of.array.is_some();
        }
        if self.lacks(Clause::NoOtherWrite) {
            of.daemon.in_sync = s.record.in_sync;
            of.daemon.settled = of.array.is_some();
        }
        Some(next)
    }

    pub(crate) fn arrive_late(&self, s: &State, node: u8) -> Option<State> {
        let request = s.nodes[usize::from(node)].late?;
        let mut next = *s;
        next.nodes[usize::from(node)].late = None;
        if let Some(record) = self.taken(&s.record, &request) {
            Self::written(&mut next, record);
        }
        Some(next)
    }
}
