//! How near nodes are to where a volume is used, by what they have measured of the fabric.

use super::{Candidate, Request, name};
use crate::node;
use foldhash::HashMap;
use meshstor_crds::{FABRIC_PEERS_MAX, FabricLatency, FabricPeer, MeshNode};
use std::sync::Arc;

/// Nodes around one of them; all are as near where there is none.
pub(super) struct Near<'a> {
    centre: Option<&'a MeshNode>,
    /// What it has measured, by node.
    measured: HashMap<&'a str, i32>,
    /// Whether it has measured as many as it ever will: then what others have measured of it is the same, and nobody reads thousands of
    /// lists for a few more.
    done: bool,
}

/// Farther than any class: nobody has measured it.
const UNKNOWN: i32 = i32::MAX;

impl<'a> Near<'a> {
    pub(super) fn of(centre: Option<&str>, nodes: &'a [Arc<MeshNode>]) -> Self {
        let centre = centre.and_then(|name| node::find(nodes, name));
        let all = centre.map_or(&[][..], peers);
        let measured = all.iter().map(|peer| (peer.node.as_str(), peer.latency_microseconds)).collect();
        Self { centre, measured, done: all.len() >= FABRIC_PEERS_MAX }
    }

    /// Tells each candidate how far it is.
    pub(super) fn mark(&self, candidates: &mut [Candidate<'_>]) {
        candidates.iter_mut().for_each(|c| c.far = self.far(c.node));
    }

    /// Class of the way between `other` and the centre, in µs: as the centre measured it, else, where it may still do so, as the other did.
    fn far(&self, other: &MeshNode) -> i32 {
        match self.centre {
            None => 0,
            Some(centre) if name(centre) == name(other) => 0,
            Some(centre) => {
                let theirs = || if self.done { None } else { measured(other, name(centre)) };
                self.measured.get(name(other)).copied().or_else(theirs).unwrap_or(UNKNOWN)
            }
        }
    }

    /// The same for people; none where nobody has measured it, and where there is no way to speak of.
    pub(super) fn way(&self, other: &MeshNode) -> Option<String> {
        let centre = self.centre.filter(|centre| name(centre) != name(other))?;
        let far = self.far(other);
        (far < UNKNOWN).then(|| format!("{far} µs from {}", name(centre)))
    }
}

fn peers(node: &MeshNode) -> &[FabricPeer] {
    node.status.as_ref().map_or(&[], |s| &s.fabric)
}

/// Daemons report in the order of names; one that does not has measured nothing here.
fn measured(from: &MeshNode, to: &str) -> Option<i32> {
    let all = peers(from);
    all.binary_search_by(|peer| peer.node.as_str().cmp(to)).ok().map(|at| all[at].latency_microseconds)
}

fn prefers(request: &Request<'_>) -> bool {
    request.rules.fabric_latency == FabricLatency::Prefer
}

/// Where the volume is used or will be, else the node of its first leg; none where that is nothing to placement.
pub(super) fn centre<'a>(request: &Request<'a>) -> Option<&'a str> {
    let first = || request.placed.first().map(|leg| leg.spec.node.as_str());
    request.preferred.or_else(first).filter(|_| prefers(request))
}

/// Whether the first of several new legs says where it is best to be near, because nothing else does.
pub(super) fn floats(request: &Request<'_>) -> bool {
    request.slots.len() > 1 && prefers(request) && centre(request).is_none()
}
