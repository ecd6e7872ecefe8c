//! Writes as the API server's audit log has them: who, what, and whether it was accepted.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::lab::Lab;

/// What a write is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// A volume, its legs, or its attachment.
    Volume,
    /// A `MeshNode`: a heartbeat, or what is free on its drives.
    Node,
    /// An event for people.
    Event,
    /// A Lease.
    Lease,
    /// Anything else: the control plane's own.
    Other,
}

/// A write that the API server answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Write {
    /// What it is for.
    pub purpose: Purpose,
    /// Account, and the node of a daemon.
    pub who: String,
    /// Verb.
    pub verb: String,
    /// Resource, with its subresource.
    pub resource: String,
    /// Name of the object.
    pub name: String,
    /// HTTP status.
    pub code: u64,
}

impl Write {
    /// Whether it was accepted.
    pub fn accepted(&self) -> bool {
        self.code < 300
    }

    /// Whether it was the operator's.
    pub fn by_operator(&self) -> bool {
        self.who == "meshstor-operator"
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { who, verb, resource, name, code, .. } = self;
        write!(f, "{who}: {verb} {resource} {name}")?;
        if self.accepted() { Ok(()) } else { write!(f, " (refused: {code})") }
    }
}

/// All writes so far, in the order of their answers. The lab must have been brought up with [`crate::control_plane::Audit::Everything`].
pub fn writes(lab: &Lab) -> Result<Vec<Write>> {
    let text = std::fs::read_to_string(&lab.control.audit).context("read the audit log")?;
    // Its last line may be half written.
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(events.filter(|event| event["stage"] == "ResponseComplete").map(|event| write_of(&event)).collect())
}

/// Each write once, with how often it was made.
pub fn counted<'a>(writes: impl Iterator<Item = &'a Write>) -> Vec<String> {
    let mut counts = BTreeMap::<&Write, usize>::new();
    writes.for_each(|write| *counts.entry(write).or_default() += 1);
    counts.into_iter().map(|(write, n)| if n == 1 { write.to_string() } else { format!("{write} ×{n}") }).collect()
}

fn write_of(event: &Value) -> Write {
    let object = &event["objectRef"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, resource) = (text(&object["apiGroup"]), text(&object["resource"]));
    let purpose = match (&*group, &*resource) {
        ("meshstor.io", "meshnodes") => Purpose::Node,
        ("meshstor.io", _) => Purpose::Volume,
        ("events.k8s.io", _) | (_, "events") => Purpose::Event,
        (_, "leases") => Purpose::Lease,
        _ => Purpose::Other,
    };
    let user = text(&event["user"]["username"]);
    let account = user.rsplit(':').next().unwrap_or_default().to_owned();
    let node = text(&event["user"]["extra"]["authentication.kubernetes.io/node-name"][0]);
    let sub = text(&object["subresource"]);
    Write {
        purpose,
        who: if node.is_empty() { account } else { format!("{account} of {node}") },
        verb: text(&event["verb"]),
        resource: if sub.is_empty() { resource } else { format!("{resource}/{sub}") },
        name: text(&object["name"]),
        code: event["responseStatus"]["code"].as_u64().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_says_who_wrote_what() {
        let event = json!({
            "verb": "update", "responseStatus": { "code": 409 },
            "objectRef": { "apiGroup": "meshstor.io", "resource": "meshreplicas", "subresource": "status", "name": "v-0" },
            "user": { "username": "system:serviceaccount:meshstor-system:meshstor-node-daemon",
                "extra": { "authentication.kubernetes.io/node-name": ["n1"] } },
        });
        let write = write_of(&event);
        assert_eq!(write.to_string(), "meshstor-node-daemon of n1: update meshreplicas/status v-0 (refused: 409)");
        assert_eq!((write.purpose, write.by_operator()), (Purpose::Volume, false));
        let ok = Write { code: 200, ..write };
        assert_eq!(counted([&ok, &ok].into_iter()), ["meshstor-node-daemon of n1: update meshreplicas/status v-0 ×2"]);
    }
}
