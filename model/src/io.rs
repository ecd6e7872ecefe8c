//! Writes on their way to the legs and back. An application has one write at a time; each is flushed.

use crate::bounds::Clause;
use crate::machine::Protocol;
use crate::state::{Array, Inside, Legs, Path, State, Violation, each, only};

impl Protocol {
    /// Whether the array's path to a member carries I/O now.
    pub(crate) fn reaches(s: &State, node: u8, leg: u8) -> bool {
        node == leg || matches!(s.nodes[usize::from(node)].paths[usize::from(leg)], Path::Live(_))
    }

    pub(crate) fn array(s: &State, node: u8) -> Option<Array> {
        s.nodes[usize::from(node)].array
    }

    fn put_array(s: &mut State, node: u8, array: Array) {
        s.nodes[usize::from(node)].array = Some(array);
    }

    pub(crate) fn full(&self, array: &Array) -> bool {
        array.members.count_ones() >= u32::from(self.bounds.slots) && array.rebuilding == 0
    }

    /// Sets or clears the block's bit in the bitmaps of these legs.
    pub(crate) fn mark(s: &mut State, legs: Legs, dirty: bool) {
        each(legs).for_each(|leg| s.legs[usize::from(leg)].dirty = dirty);
    }

    pub(crate) fn issue(&self, s: &State, node: u8) -> Option<State> {
        let mut array = Self::array(s, node).filter(|a| a.published && a.write == 0)?;
        if s.issued >= self.bounds.writes {
            return None;
        }
        let mut next = *s;
        next.issued += 1;
        (array.write, array.done, array.flushed) = (next.issued, 0, 0);
        // What an epoch writes that was followed by another must never be seen.
        if array.epoch >= s.shown {
            next.legal |= only(next.issued);
        }
        Self::put_array(&mut next, node, array);
        Some(next)
    }

    /// A leg's bit is on its drive before the write is. (A real kernel waits for the bits of all members before the first write.)
    pub(crate) fn put(&self, s: &State, node: u8, leg: u8) -> Option<State> {
        let mut array = Self::array(s, node).filter(|a| a.write != 0)?;
        let pending = (array.members | array.rebuilding) & !array.done & only(leg) != 0;
        if !pending || !Self::reaches(s, node, leg) || s.legs[usize::from(leg)].inside.is_some() {
            return None;
        }
        let mut next = *s;
        let write = Inside { write: array.write, epoch: array.epoch, node };
        next.legs[usize::from(leg)].dirty = true;
        if node == leg {
            self.store(&mut next, leg, write);
            array.done |= only(leg);
            Self::put_array(&mut next, node, array);
        } else {
            next.legs[usize::from(leg)].inside = Some(write);
        }
        Some(next)
    }

    /// I2: a leg takes nothing of an epoch that it has confirmed to be over.
    pub(crate) fn store(&self, s: &mut State, leg: u8, write: Inside) {
        let of = &mut s.legs[usize::from(leg)];
        of.holds = write.write;
        if !self.bounds.volatile {
            of.flushed = of.holds;
        }
        if write.epoch < of.confirmed {
            s.broken = Some(Violation::TwoWriters);
        }
    }

    pub(crate) fn land(&self, s: &State, leg: u8) -> Option<State> {
        let write = s.legs[usize::from(leg)].inside.filter(|_| s.nodes[usize::from(leg)].up)?;
        let mut next = *s;
        next.legs[usize::from(leg)].inside = None;
        self.store(&mut next, leg, write);
        let waits = |a: &Array| a.write == write.write && a.epoch == write.epoch;
        if let Some(mut array) = Self::array(s, write.node).filter(waits)
            && Self::reaches(s, write.node, leg)
        {
            array.done |= only(leg);
            Self::put_array(&mut next, write.node, array);
        }
        Some(next)
    }

    /// Nobody hears of it.
    pub(crate) fn land_left(&self, s: &State, leg: u8) -> Option<State> {
        let write = s.legs[usize::from(leg)].left.filter(|_| s.nodes[usize::from(leg)].up)?;
        let mut next = *s;
        next.legs[usize::from(leg)].left = None;
        self.store(&mut next, leg, write);
        Some(next)
    }

    pub(crate) fn flush(&self, s: &State, node: u8, leg: u8) -> Option<State> {
        let mut array = Self::array(s, node).filter(|a| self.bounds.volatile && a.write != 0)?;
        let all = array.members | array.rebuilding;
        if !Self::reaches(s, node, leg) || all & !array.done != 0 || all & !array.flushed & only(leg) == 0 {
            return None;
        }
        let mut next = *s;
        let of = &mut next.legs[usize::from(leg)];
        of.flushed = of.holds;
        array.flushed |= only(leg);
        Self::put_array(&mut next, node, array);
        Some(next)
    }

    /// The application knows that it is written: nothing older may be read again. A write that is gone already was promised in vain.
    fn promise(s: &mut State, write: u8) {
        if s.legal & only(write) != 0 {
            s.legal &= !(only(write) - 1);
        } else if write > s.acknowledged {
            s.broken = Some(Violation::Lost);
        }
        s.acknowledged = s.acknowledged.max(write);
    }

    pub(crate) fn acknowledge(&self, s: &State, node: u8) -> Option<State> {
        let mut array = Self::array(s, node).filter(|a| a.write != 0)?;
        let all = array.members | array.rebuilding;
        let done = if self.bounds.volatile { array.done & array.flushed } else { array.done };
        let agreed = if self.bounds.gate { array.agreed } else { 0 };
        if (all | agreed) & !done != 0 {
            return None;
        }
        let mut next = *s;
        Self::promise(&mut next, array.write);
        (array.write, array.done, array.flushed) = (0, 0, 0);
        if self.full(&array) {
            let reached = each(array.members).filter(|leg| Self::reaches(s, node, *leg)).map(only).sum();
            Self::mark(&mut next, reached, false);
        }
        Self::put_array(&mut next, node, array);
        Some(next)
    }

    /// An array whose epoch is over is taken down; its held write ends, and nobody is left who could see how.
    pub(crate) fn fence(&self, s: &State, node: u8) -> Option<State> {
        let array = Self::array(s, node).filter(|a| a.epoch < s.record.epoch)?;
        let mut next = *s;
        if self.lacks(Clause::HoldersKilledFirst) && array.write != 0 {
            Self::promise(&mut next, array.write);
        }
        Self::down(&mut next, node);
        Some(next)
    }
}
