//! The operator, and the API server's compare-and-swap.

use crate::bounds::Clause;
use crate::machine::Protocol;
use crate::state::{Grant, Legs, Phase, Record, State, WIPED, each, only};

impl Protocol {
    pub(crate) fn lacks(&self, clause: Clause) -> bool {
        self.bounds.without == Some(clause)
    }

    /// Whoever has read the record before has an old version now.
    pub(crate) fn written(s: &mut State, record: Record) {
        let set_changed = s.record.in_sync != record.in_sync;
        s.record = record;
        for node in &mut s.nodes {
            for request in [&mut node.daemon.request, &mut node.late].into_iter().flatten() {
                request.current = false;
                request.set_current &= !set_changed;
            }
        }
    }

    fn view(s: &State, old: bool) -> &Record {
        if old { &s.old } else { &s.record }
    }

    /// Whenever it likes: no clause trusts that the old epoch is over.
    pub(crate) fn new_epoch(&self, s: &State, node: u8) -> Option<State> {
        let again = self.lacks(Clause::EpochNeverUsedAgain);
        let asked = s.record.clean || !self.lacks(Clause::CleanStopNotRequired);
        if !asked || (s.record.phase == Phase::Revoking && s.record.node == node) {
            return None;
        }
        let epoch = if again { 1 } else { s.record.epoch + 1 };
        let mut next = *s;
        Self::written(&mut next, Record { epoch, node, phase: Phase::Revoking, left_out: 0, ..s.record });
        (epoch <= self.bounds.epochs).then_some(next)
    }

    /// One write: what of S has confirmed, and `Started`.
    pub(crate) fn start(&self, s: &State, legs: Legs) -> Option<State> {
        let record = &s.record;
        let nodes = 0..self.bounds.nodes;
        let confirmed = nodes.filter(|l| s.legs[usize::from(*l)].confirmed >= record.epoch).map(only);
        let confirmed: Legs = confirmed.sum();
        let believed = self.lacks(Clause::CleanStopNotBelieved) && record.clean;
        let from = if self.lacks(Clause::StartAfterConfirmation) || believed {
            record.in_sync
        } else if self.lacks(Clause::OperatorNeverAdds) {
            confirmed & !record.retired
        } else {
            record.in_sync & confirmed
        };
        if legs == 0 || legs & !from != 0 {
            return None;
        }
        let mut next = *s;
        if believed {
            // Nobody is asked: as if each leg had answered.
            for leg in each(legs) {
                let of = &mut next.legs[usize::from(leg)];
                (of.told, of.epoch, of.confirmed, of.grant) = (record.epoch, record.epoch, record.epoch, None);
            }
        }
        let left_out = record.in_sync & !legs;
        Self::written(&mut next, Record { phase: Phase::Started, in_sync: legs, left_out, ..*record });
        Some(next)
    }

    /// A leg is told of an epoch once; the old grant goes in the same write.
    pub(crate) fn tell(&self, s: &State, leg: u8, old: bool) -> Option<State> {
        let epoch = Self::view(s, old).epoch;
        let mut next = *s;
        let of = &mut next.legs[usize::from(leg)];
        if of.told >= epoch {
            return None;
        }
        of.told = epoch;
        of.before = if self.bounds.stale { of.grant } else { None };
        of.grant = None;
        Some(next)
    }

    /// A leg that is not the consumer's own needs an export, with a number of its own.
    pub(crate) fn grant(&self, s: &State, leg: u8, old: bool) -> Option<State> {
        let record = Self::view(s, old);
        let mut next = *s;
        let of = &mut next.legs[usize::from(leg)];
        let confirmed = of.confirmed >= record.epoch || self.lacks(Clause::ExportAfterConfirmation);
        let wanted = record.phase != Phase::Revoking && record.node != leg && record.retired & only(leg) == 0;
        if !wanted || of.told != record.epoch || !confirmed {
            return None;
        }
        let number = match of.grant {
            None => of.spent + 1,
            // Only a leg that is recorded away gets another one.
            Some(grant) => {
                let spent = of.spent >= grant.number && of.export.is_none();
                let away = record.phase == Phase::Running && record.in_sync & only(leg) == 0;
                (spent && away).then_some(grant.number + 1)?
            }
        };
        of.before = if self.bounds.stale { of.grant } else { None };
        of.grant = Some(Grant { number, epoch: record.epoch, consumer: record.node });
        Some(next)
    }

    pub(crate) fn retire(&self, s: &State, leg: u8) -> Option<State> {
        let record = &s.record;
        if (record.in_sync | record.retired) & only(leg) != 0
            || record.retired.count_ones() >= u32::from(self.bounds.retired)
        {
            return None;
        }
        let mut next = *s;
        let retired = record.retired | only(leg);
        let bitmap_usable = record.bitmap_usable & !only(leg);
        Self::written(&mut next, Record { retired, bitmap_usable, ..*record });
        Some(next)
    }

    /// Done by the leg's daemon, once nobody uses it.
    pub(crate) fn wipe(&self, s: &State, leg: u8, old: bool) -> Option<State> {
        let record = Self::view(s, old);
        let retired = if self.lacks(Clause::RetireBeforeWipe) {
            self.bounds.retired > 0 && record.in_sync & only(leg) == 0
        } else {
            record.retired & only(leg) != 0
        };
        let node = &s.nodes[usize::from(leg)];
        let held = node.array.is_some_and(|a| (a.members | a.rebuilding) & only(leg) != 0);
        let mut next = *s;
        let of = &mut next.legs[usize::from(leg)];
        if !retired || !node.up || held || of.export.is_some() || of.holds == WIPED {
            return None;
        }
        (of.holds, of.flushed) = (WIPED, WIPED);
        Some(next)
    }
}
