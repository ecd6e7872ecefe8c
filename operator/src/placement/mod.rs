//! Where legs go: a chain of named filters, then a choice of the drive with most room. Pure and deterministic.

mod filters;
mod space;
#[cfg(test)]
mod tests;

pub use space::Promises;

use filters::Dropped;
use jiff::Timestamp;
use kube::ResourceExt as _;
use meshstor_crds::{Filesystem, MeshNode, MeshReplica};
use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::sync::Arc;

/// What is to be placed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Slots without a leg.
    pub slots: &'a [i32],
    /// Partition size in bytes.
    pub size: u64,
    /// Filesystem that a consumer will make.
    pub filesystem: Filesystem,
    /// The legs that the volume already has.
    pub placed: &'a [MeshReplica],
}

/// Everything that placement may look at.
#[derive(Clone, Copy, Debug)]
pub struct Cluster<'a> {
    /// All nodes.
    pub nodes: &'a [Arc<MeshNode>],
    /// All legs of all volumes: those without a partition hold a promise.
    pub replicas: &'a [MeshReplica],
    /// The time for heartbeats.
    pub now: Timestamp,
}

/// One leg's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Slot in the array.
    pub slot: i32,
    /// Node's name.
    pub node: String,
    /// Identity of the drive.
    pub drive: String,
}

/// Why a leg could not be placed, node by node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    fitting: usize,
    wanted: usize,
    dropped: Vec<(String, Dropped)>,
}

impl Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.fitting + self.dropped.len();
        write!(f, "{}/{total} nodes are available, {} needed", self.fitting, self.wanted)?;
        for (i, (node, dropped)) in self.dropped.iter().enumerate() {
            write!(f, "{}{node}: {dropped}", if i == 0 { ": " } else { "; " })?;
        }
        Ok(())
    }
}

/// A drive that passed every filter.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    free: u64,
    node: String,
    drive: String,
    sector: i32,
}

/// Places every slot of `request`, or none.
///
/// # Errors
/// A [`Refusal`] that names for each node the filter that dropped it.
pub fn place(request: &Request<'_>, cluster: &Cluster<'_>) -> Result<Vec<Spot>, Refusal> {
    let promises = Promises::of(cluster.replicas);
    let pinned = filters::pinned_sector(request.placed, cluster.nodes);
    let (fits, dropped) = sieve(request, cluster, &promises, pinned);
    let sectors: BTreeSet<i32> = fits.iter().map(|c| c.sector).collect();
    let mut options: Vec<Vec<Candidate>> = sectors.iter().map(|s| choose(&fits, *s, request.slots.len())).collect();
    // Most room first; among equals the smaller sector size, for the sort is stable.
    options.sort_by_key(|o| std::cmp::Reverse((o.len(), o.iter().map(|c| c.free).sum::<u64>())));
    let best = options.into_iter().next().unwrap_or_default();
    if best.len() < request.slots.len() {
        return Err(refusal(request, &fits, &best, dropped));
    }
    Ok(request.slots.iter().zip(best).map(|(slot, c)| Spot { slot: *slot, node: c.node, drive: c.drive }).collect())
}

/// The drives that pass all filters, and each dropped node with the filter that did it.
fn sieve(
    request: &Request<'_>,
    cluster: &Cluster<'_>,
    promises: &Promises,
    pinned: Option<i32>,
) -> (Vec<Candidate>, Vec<(String, Dropped)>) {
    let (mut fits, mut dropped) = (Vec::new(), Vec::new());
    for node in cluster.nodes {
        match filters::node(node, request, cluster.now).and_then(|()| filters::drives(node, request, promises, pinned))
        {
            Ok(mut candidates) => fits.append(&mut candidates),
            Err(why) => dropped.push((node.name_any(), why)),
        }
    }
    dropped.sort_by(|a, b| a.0.cmp(&b.0));
    (fits, dropped)
}

/// Up to `count` drives of one sector size on `count` nodes: most free first, ties by name of node, then of drive.
fn choose(fits: &[Candidate], sector: i32, count: usize) -> Vec<Candidate> {
    let mut same: Vec<&Candidate> = fits.iter().filter(|c| c.sector == sector).collect();
    same.sort_by(|a, b| b.free.cmp(&a.free).then_with(|| a.node.cmp(&b.node)).then_with(|| a.drive.cmp(&b.drive)));
    let mut taken = BTreeSet::new();
    same.into_iter().filter(|c| taken.insert(c.node.clone())).take(count).cloned().collect()
}

/// Nodes that would fit, but not beside the best choice, are dropped by their sector size.
fn refusal(
    request: &Request<'_>,
    fits: &[Candidate],
    best: &[Candidate],
    mut dropped: Vec<(String, Dropped)>,
) -> Refusal {
    let chosen: BTreeSet<&str> = best.iter().map(|c| c.node.as_str()).collect();
    let others: BTreeSet<&str> = fits.iter().map(|c| c.node.as_str()).filter(|n| !chosen.contains(n)).collect();
    let sector = best.first().map_or(0, |c| c.sector);
    dropped.extend(others.into_iter().map(|n| (n.to_owned(), filters::other_sector(sector))));
    dropped.sort_by(|a, b| a.0.cmp(&b.0));
    Refusal { fitting: best.len(), wanted: request.slots.len(), dropped }
}
