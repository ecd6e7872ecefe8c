//! What goes wrong, within the bounds.

use crate::bounds::Clause;
use crate::machine::Protocol;
use crate::state::{Daemon, Leg, Node, Path, State, each, only};

impl Protocol {
    pub(crate) fn lose(&self, s: &State, node: u8, leg: u8) -> Option<State> {
        let live = matches!(s.nodes[usize::from(node)].paths[usize::from(leg)], Path::Live(_));
        if !live || s.used.losses >= self.bounds.losses {
            return None;
        }
        let mut next = *s;
        next.used.losses += 1;
        Self::cut(&mut next, leg, node)?;
        Some(next)
    }

    /// The kernel does this by itself, as long as the export is there.
    pub(crate) fn reconnect(&self, s: &State, node: u8, leg: u8) -> Option<State> {
        let Path::Held(number) = s.nodes[usize::from(node)].paths[usize::from(leg)] else { return None };
        let of = &s.legs[usize::from(leg)];
        let served = of.export.is_some_and(|e| e.number == number && e.consumer == node);
        let shut = of.left.is_some() && !self.lacks(Clause::DoorBetweenConnections);
        if !served || shut {
            return None;
        }
        let mut next = *s;
        next.nodes[usize::from(node)].paths[usize::from(leg)] = Path::Live(number);
        Some(next)
    }

    /// A media error, a `nvme disconnect` by hand: MD asks nobody.
    pub(crate) fn error(&self, s: &State, node: u8, leg: u8) -> Option<State> {
        let mut array = Self::array(s, node)?;
        if s.used.errors >= self.bounds.errors || array.members & only(leg) == 0 || array.members == only(leg) {
            return None;
        }
        let mut next = *s;
        next.used.errors += 1;
        if node != leg {
            Self::cut(&mut next, leg, node)?;
            Self::disconnect(&mut next.nodes[usize::from(node)], leg);
        }
        array.members &= !only(leg);
        next.nodes[usize::from(node)].array = Some(array);
        Some(next)
    }

    /// Kernel and target are gone; a request of the daemon may still be on its way.
    pub(crate) fn crash(&self, s: &State, node: u8, lands: bool) -> Option<State> {
        let of = &s.nodes[usize::from(node)];
        if !of.up || s.used.crashes >= self.bounds.crashes {
            return None;
        }
        let mut next = *s;
        next.used.crashes += 1;
        let late = of.daemon.request.or(of.late);
        Self::down(&mut next, node);
        next.nodes[usize::from(node)] = Node { late, ..Node::default() };
        self.cut_off(&mut next, node, lands);
        Some(next)
    }

    fn cut_off(&self, s: &mut State, node: u8, lands: bool) {
        let inside = [s.legs[usize::from(node)].left, s.legs[usize::from(node)].inside];
        for write in inside.into_iter().flatten().filter(|_| lands) {
            self.store(s, node, write);
        }
        let volatile = self.bounds.volatile && !lands;
        let forgets = self.lacks(Clause::EpochWithTheLeg);
        let leg = &mut s.legs[usize::from(node)];
        *leg = Leg { inside: None, left: None, export: None, ..*leg };
        if volatile {
            leg.holds = leg.flushed;
        } else {
            leg.flushed = leg.holds;
        }
        if forgets {
            (leg.epoch, leg.spent) = (0, 0);
        }
        for other in &mut s.nodes {
            if let Path::Live(number) = other.paths[usize::from(node)] {
                other.paths[usize::from(node)] = Path::Held(number);
            }
        }
    }

    pub(crate) fn boot(&self, s: &State, node: u8) -> Option<State> {
        let mut next = *s;
        next.nodes[usize::from(node)].up = true;
        (!s.nodes[usize::from(node)].up).then_some(next)
    }

    /// The kernel goes on. The next process starts when the old one is really gone.
    pub(crate) fn kill(&self, s: &State, node: u8) -> Option<State> {
        let of = &s.nodes[usize::from(node)];
        let idle = of.daemon == Daemon::default();
        if !of.up || idle || s.used.kills >= self.bounds.kills {
            return None;
        }
        let mut next = *s;
        next.used.kills += 1;
        let undead = if self.lacks(Clause::OneProcess) {
            each(0b111).filter(|leg| self.let_go(s, node, *leg).is_some()).map(only).sum()
        } else {
            0
        };
        let of = &mut next.nodes[usize::from(node)];
        of.late = of.daemon.request.or(of.late);
        of.daemon = Daemon::default();
        of.undead |= undead;
        Some(next)
    }
}
