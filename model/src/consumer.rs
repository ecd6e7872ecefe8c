//! A consumer's daemon: what it does to its array, once the record says so.

use crate::bounds::Clause;
use crate::machine::Protocol;
use crate::state::{Array, Change, Inside, Legs, Node, Path, Phase, Request, State, Violation, each, only};

impl Protocol {
    /// A grant that was connected once is not connected again.
    pub(crate) fn connect(&self, s: &State, node: u8, leg: u8) -> Option<State> {
        let (of, export) = (&s.nodes[usize::from(node)], s.legs[usize::from(leg)].export?);
        let own = export.consumer == node && export.epoch == of.daemon.epoch;
        let fresh = export.number > of.let_go[usize::from(leg)] || self.lacks(Clause::ReturnAfterBarrier);
        if !of.up || !own || !fresh || of.paths[usize::from(leg)] != Path::None {
            return None;
        }
        let mut next = *s;
        next.nodes[usize::from(node)].paths[usize::from(leg)] = Path::Live(export.number);
        Some(next)
    }

    /// A leg that the daemon may use for its epoch now.
    fn usable(&self, s: &State, node: u8, leg: u8) -> bool {
        let epoch = s.nodes[usize::from(node)].daemon.epoch;
        let of = &s.legs[usize::from(leg)];
        if node == leg {
            // It has a grant as others do, and is used without an export.
            let early = self.lacks(Clause::ExportAfterConfirmation) || self.lacks(Clause::StartAfterConfirmation);
            let granted = of.confirmed >= epoch || early;
            return of.epoch == epoch && granted;
        }
        of.export.is_some_and(|export| export.epoch == epoch) && Self::reaches(s, node, leg)
    }

    /// MD makes the members alike before anybody reads.
    pub(crate) fn assemble(&self, s: &State, node: u8, members: Legs, from: u8) -> Option<State> {
        let of = &s.nodes[usize::from(node)];
        let mut next = *s;
        let daemon = &mut next.nodes[usize::from(node)].daemon;
        if self.lacks(Clause::OneAssembly) && !daemon.may_assemble && daemon.request.is_none() {
            let own = s.record.node == node && s.record.phase == Phase::Running;
            if own && daemon.epoch == 0 {
                Self::learned(daemon, &s.record, Change::Settle);
                daemon.may_assemble = true;
                return of.up.then_some(next);
            }
        }
        let ready = of.up && of.array.is_none() && daemon.may_assemble && members & !daemon.in_sync == 0;
        if !ready || !each(members).all(|leg| self.usable(s, node, leg)) {
            return None;
        }
        daemon.may_assemble = false;
        let epoch = daemon.epoch;
        let (holds, dirty) = (s.legs[usize::from(from)].holds, s.legs[usize::from(from)].dirty);
        for leg in each(members) {
            let of = &mut next.legs[usize::from(leg)];
            if of.holds != holds {
                self.store(&mut next, leg, Inside { write: holds, epoch, node });
            }
            let of = &mut next.legs[usize::from(leg)];
            (of.flushed, of.dirty) = (holds, dirty);
        }
        let array = Array { epoch, members, agreed: members, ..Array::default() };
        if self.full(&array) {
            Self::mark(&mut next, members, false);
        }
        next.nodes[usize::from(node)].array = Some(array);
        Some(next)
    }

    /// From here on somebody reads: what the newest epoch shows is what there is.
    pub(crate) fn publish(&self, s: &State, node: u8) -> Option<State> {
        let daemon = &s.nodes[usize::from(node)].daemon;
        let mut array = Self::array(s, node).filter(|a| !a.published && a.epoch == daemon.epoch)?;
        let recorded = daemon.settled && daemon.request.is_none() && daemon.in_sync == array.members;
        if !recorded && !self.lacks(Clause::RecordBeforePublish) {
            return None;
        }
        array.published = true;
        let mut next = *s;
        next.nodes[usize::from(node)].array = Some(array);
        if array.epoch == s.record.epoch {
            let seen = each(array.members).map(|leg| only(s.legs[usize::from(leg)].holds)).fold(0, |a, b| a | b);
            if seen & !s.legal != 0 {
                next.broken = Some(Violation::Lost);
            }
            (next.legal, next.shown) = (seen, array.epoch);
        }
        Some(next)
    }

    /// Whether this process knows that the leg is recorded away, or never was in.
    fn recorded_away(&self, s: &State, node: u8, leg: u8) -> bool {
        let daemon = &s.nodes[usize::from(node)].daemon;
        let alone = daemon.request.is_none() || self.lacks(Clause::NoOtherWrite);
        let own = alone && Self::array(s, node).is_some_and(|a| a.epoch == daemon.epoch);
        self.lacks(Clause::RecordThenFail) || (own && daemon.settled && daemon.in_sync & only(leg) == 0)
    }

    fn gone(s: &mut State, node: u8, leg: u8) {
        let of = &mut s.nodes[usize::from(node)];
        if let Some(array) = &mut of.array {
            array.members &= !only(leg);
            array.rebuilding &= !only(leg);
            array.agreed &= !only(leg);
        }
        Self::disconnect(of, leg);
    }

    /// The path is gone, and its grant is not connected again.
    pub(crate) fn disconnect(of: &mut Node, leg: u8) {
        let path = std::mem::take(&mut of.paths[usize::from(leg)]);
        if let Path::Live(number) | Path::Held(number) = path {
            let last = &mut of.let_go[usize::from(leg)];
            *last = number.max(*last);
        }
    }

    /// `delete_controller`, and MD fails the member by itself.
    pub(crate) fn let_go(&self, s: &State, node: u8, leg: u8) -> Option<State> {
        let array = Self::array(s, node)?;
        let of = &s.nodes[usize::from(node)];
        let held = matches!(of.paths[usize::from(leg)], Path::Held(_));
        let dropped = array.agreed & !array.members & only(leg) != 0;
        let part = (array.members | array.rebuilding | array.agreed) & only(leg) != 0;
        if !part || !(held || dropped) || !self.recorded_away(s, node, leg) || array.members == only(leg) {
            return None;
        }
        let mut next = *s;
        Self::gone(&mut next, node, leg);
        Some(next)
    }

    pub(crate) fn let_go_undead(&self, s: &State, node: u8, leg: u8) -> Option<State> {
        let of = &s.nodes[usize::from(node)];
        if of.undead & only(leg) == 0 || of.array.is_none_or(|a| a.members == only(leg)) {
            return None;
        }
        let mut next = *s;
        next.nodes[usize::from(node)].undead = 0;
        Self::cut(&mut next, leg, node)?;
        Self::gone(&mut next, node, leg);
        Some(next)
    }

    /// Rule 7.
    pub(crate) fn come_back(&self, s: &State, node: u8, leg: u8) -> Option<State> {
        let daemon = &s.nodes[usize::from(node)].daemon;
        let mut array = Self::array(s, node).filter(|a| a.published && a.write == 0 && a.rebuilding == 0)?;
        let slots = u32::from(self.bounds.slots);
        let free = (array.members | array.agreed | daemon.in_sync | s.record.retired) & only(leg) == 0;
        let own = daemon.settled && daemon.request.is_none() && daemon.epoch == array.epoch;
        if !own || !self.usable(s, node, leg) || !free || array.members.count_ones() >= slots {
            return None;
        }
        let fills = array.members.count_ones() + 1 == slots;
        if fills && daemon.bitmap_usable & !only(leg) != 0 && !self.lacks(Clause::BitmapForgotten) {
            return None;
        }
        let mut next = *s;
        let first = array.members.trailing_zeros() as usize;
        let by_bitmap = daemon.bitmap_usable & only(leg) != 0;
        let own_bits = by_bitmap && !self.lacks(Clause::BitmapUnion) && s.legs[usize::from(leg)].dirty;
        let dirty = s.legs[first].dirty || own_bits;
        Self::mark(&mut next, array.members | only(leg), dirty);
        array.rebuilding = only(leg);
        next.nodes[usize::from(node)].array = Some(array);
        Some(next)
    }

    /// Writes of the block wait while it is copied, and copying waits for them.
    pub(crate) fn rebuilt(&self, s: &State, node: u8) -> Option<State> {
        let mut array = Self::array(s, node).filter(|a| a.rebuilding != 0 && a.write == 0)?;
        let leg = array.rebuilding.trailing_zeros() as u8;
        let first = array.members.trailing_zeros() as u8;
        if !self.usable(s, node, leg) || !Self::reaches(s, node, first) {
            return None;
        }
        let mut next = *s;
        let of = &s.legs[usize::from(first)];
        let by_bitmap = s.nodes[usize::from(node)].daemon.bitmap_usable & only(leg) != 0;
        if !by_bitmap || of.dirty {
            self.store(&mut next, leg, Inside { write: of.holds, epoch: array.epoch, node });
            next.legs[usize::from(leg)].flushed = of.holds;
        }
        array.members |= only(leg);
        array.rebuilding = 0;
        if self.full(&array) {
            Self::mark(&mut next, array.members, false);
        }
        next.nodes[usize::from(node)].array = Some(array);
        Some(next)
    }

    /// Nothing is left of the array and of its paths.
    pub(crate) fn down(s: &mut State, node: u8) {
        let of = &mut s.nodes[usize::from(node)];
        (of.array, of.daemon.may_assemble, of.undead) = (None, false, 0);
        of.paths = Default::default();
        for leg in &mut s.legs {
            // What was on its way inside a target still is.
            if leg.inside.is_some_and(|w| w.node == node) && leg.left.is_none() {
                leg.left = leg.inside.take();
            }
        }
    }

    pub(crate) fn stop(&self, s: &State, node: u8) -> Option<State> {
        let array = Self::array(s, node).filter(|a| a.write == 0)?;
        if s.used.stops >= self.bounds.stops {
            return None;
        }
        let mut next = *s;
        next.used.stops += 1;
        Self::down(&mut next, node);
        let (of, record) = (&mut next.nodes[usize::from(node)], &s.record);
        of.daemon.settled = false;
        let said = self.lacks(Clause::CleanStopNotBelieved) || self.lacks(Clause::CleanStopNotRequired);
        if said && array.epoch == record.epoch && of.daemon.request.is_none() {
            let (change, set) = (Change::Ended, record.in_sync);
            let request = Request { change, set, epoch: record.epoch, current: true, set_current: true };
            of.daemon.request = Some(request);
        }
        Some(next)
    }
}
