//! What drains asked for when volumes were last woken for them: a volume is woken when that is another thing, and not for each word of a status.

use super::world::released;
use kube::ResourceExt as _;
use meshstor_crds::{NodeDrain, NodeDrainSpec};
use std::collections::HashMap;

/// Of a UID: the spec, whether it is being deleted, whether its node may go.
type Ask = (Option<String>, NodeDrainSpec, bool, bool);

/// By name of a drain: what it asked for.
#[derive(Debug, Default)]
pub struct Asked(HashMap<String, Ask>);

impl Asked {
    /// Whether a drain asks for something else than before, now that it was touched; `known` is the one of its name that there is now. One that is gone
    /// asks for nothing any more, and another one of the same name is another one.
    pub fn changed(&mut self, drain: &NodeDrain, known: Option<&NodeDrain>) -> bool {
        let Some(now) = known.filter(|known| known.metadata.uid == drain.metadata.uid) else {
            self.0.remove(&drain.name_any());
            return true;
        };
        let deleted = now.metadata.deletion_timestamp.is_some();
        let new = (now.metadata.uid.clone(), now.spec.clone(), deleted, released(now));
        self.0.insert(drain.name_any(), new.clone()) != Some(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshstor_crds::DrainMode;

    fn drain(uid: &str, mode: DrainMode) -> NodeDrain {
        let spec = serde_json::from_value(serde_json::json!({ "node": "n1", "mode": mode })).unwrap();
        let mut drain = NodeDrain::new("empty", spec);
        drain.metadata.uid = Some(uid.to_owned());
        drain
    }

    /// I4: nothing waits for the next slow look when a drain ends, or another begins under its name.
    #[test]
    fn a_drain_of_the_name_of_one_that_ended_is_another() {
        let mut asked = Asked::default();
        let (first, again) = (drain("1", DrainMode::Evacuate), drain("2", DrainMode::Evacuate));
        assert!(asked.changed(&first, Some(&first)));
        assert!(!asked.changed(&first, Some(&first)), "a word of its status");
        assert!(asked.changed(&first, None), "it is gone");
        assert!(asked.changed(&again, Some(&again)));
        assert!(!asked.changed(&again, Some(&again)));
        assert!(asked.changed(&again, Some(&drain("3", DrainMode::Evacuate))), "gone, and another is there already");
    }

    #[test]
    fn what_else_it_asks_for_counts() {
        let mut asked = Asked::default();
        let mut one = drain("1", DrainMode::Maintenance);
        assert!(asked.changed(&one, Some(&one)));
        one.spec.return_within_seconds += 1;
        assert!(asked.changed(&one, Some(&one)));
        one.metadata.deletion_timestamp = Some(meshstor_crds::Time(jiff::Timestamp::UNIX_EPOCH));
        assert!(asked.changed(&one, Some(&one)));
        assert!(!asked.changed(&one, Some(&one)));
    }
}
