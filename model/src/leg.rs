//! A leg's own daemon and target: the only ones who can say that nobody writes to it.

use crate::bounds::Clause;
use crate::machine::Protocol;
use crate::state::{Leg, Path, State, only};

impl Protocol {
    /// The epoch is durable with the leg before anything is done by it.
    pub(crate) fn learn(&self, s: &State, leg: u8) -> Option<State> {
        let mut next = *s;
        let of = &mut next.legs[usize::from(leg)];
        if of.told <= of.epoch || !s.nodes[usize::from(leg)].up {
            return None;
        }
        of.epoch = of.told;
        Some(next)
    }

    /// Connections of the export hang from now on; what they left in the target is still there.
    pub(crate) fn close(&self, s: &State, leg: u8) -> Option<State> {
        let of = &s.legs[usize::from(leg)];
        let export = of.export.filter(|_| s.nodes[usize::from(leg)].up)?;
        let mut next = *s;
        let over = export.epoch < of.epoch || of.grant.is_some_and(|g| g.number > export.number);
        if !over {
            // Nobody uses it: the consumer has recorded the leg away.
            let away = s.record.in_sync & only(leg) == 0 && s.record.epoch == export.epoch;
            if !away || s.used.losses >= self.bounds.losses {
                return None;
            }
            next.used.losses += 1;
        }
        Self::cut(&mut next, leg, export.consumer)?;
        next.legs[usize::from(leg)].export = None;
        Some(next)
    }

    /// The path of a consumer to a leg holds from now on. Nothing, where two older connections' writes would be inside.
    pub(crate) fn cut(s: &mut State, leg: u8, consumer: u8) -> Option<()> {
        let of = &mut s.legs[usize::from(leg)];
        if of.inside.is_some() {
            if of.left.is_some() {
                return None;
            }
            of.left = of.inside.take();
        }
        let path = &mut s.nodes[usize::from(consumer)].paths[usize::from(leg)];
        if let Path::Live(number) = *path {
            *path = Path::Held(number);
        }
        Some(())
    }

    fn drained(of: &Leg) -> bool {
        of.inside.is_none() && of.left.is_none()
    }

    pub(crate) fn confirm(&self, s: &State, leg: u8) -> Option<State> {
        let (of, node) = (&s.legs[usize::from(leg)], &s.nodes[usize::from(leg)]);
        let open = of.export.is_some_and(|export| export.epoch < of.told);
        let held = node.array.is_some_and(|a| a.epoch < of.told && (a.members | a.rebuilding) & only(leg) != 0);
        let barrier = Self::drained(of) || self.lacks(Clause::Barrier);
        let free = !held || self.lacks(Clause::LocalLegFree);
        if !node.up || of.told <= of.confirmed || of.epoch < of.told || open || !barrier || !free {
            return None;
        }
        let mut next = *s;
        next.legs[usize::from(leg)].confirmed = of.told;
        Some(next)
    }

    /// The number is written to the drive before the export is there.
    pub(crate) fn export(&self, s: &State, leg: u8, before: bool) -> Option<State> {
        let of = &s.legs[usize::from(leg)];
        let grant = if before { of.before? } else { of.grant? };
        let new = grant.number > of.spent || self.lacks(Clause::GrantServedOnce);
        let drained = Self::drained(of) || self.lacks(Clause::ReturnAfterBarrier);
        let newest = grant.epoch >= of.epoch;
        if !s.nodes[usize::from(leg)].up || of.export.is_some() || !new || !drained || !newest {
            return None;
        }
        let mut next = *s;
        let of = &mut next.legs[usize::from(leg)];
        of.export = Some(grant);
        of.spent = of.spent.max(grant.number);
        Some(next)
    }
}
