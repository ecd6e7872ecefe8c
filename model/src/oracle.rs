//! What may never be, looked for after every step.

use crate::machine::Protocol;
use crate::state::{State, Violation, each, only};

impl Protocol {
    pub(crate) fn look(&self, s: &mut State) {
        if s.broken.is_none() && Self::lost(s) {
            s.broken = Some(Violation::Lost);
        }
        if s.broken.is_none() && self.bounds.heals && self.heal(s).is_none() {
            s.broken = Some(Violation::Stranded);
        }
    }

    /// I1, I6: whatever a reader of the newest epoch may be given is what the application wrote last, or is writing.
    fn lost(s: &State) -> bool {
        let node = s.record.node;
        let Some(array) = Self::array(s, node).filter(|a| a.published && a.epoch == s.record.epoch) else {
            return false;
        };
        each(array.members)
            .filter(|leg| Self::reaches(s, node, *leg))
            .any(|leg| s.legal & only(s.legs[usize::from(leg)].holds) == 0)
    }
}
