//! Where legs go: a chain of named filters, then a choice that keeps legs apart and evens out the drives. Pure and
//! deterministic.

mod drives;
mod filters;
mod near;
mod space;
mod spread;
pub mod standing;
mod stripe;
#[cfg(test)]
mod tests;

pub use space::Promises;

use crate::node;
use filters::Dropped;
use jiff::Timestamp;
use kube::ResourceExt as _;
use meshstor_crds::{Bitmap, Drive, Filesystem, Geometry, MeshNode, MeshReplica, Placement, Transport};
use near::Near;
use spread::{Found, Rules};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::sync::Arc;

/// What is to be placed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Slots without a leg, each with its mirror set.
    pub slots: &'a [(i32, i32)],
    /// Copies and mirror sets of the array.
    pub geometry: Geometry,
    /// Its bitmap, never `auto`.
    pub bitmap: Bitmap,
    /// Fabric between its nodes.
    pub transport: Transport,
    /// Partition size in bytes.
    pub size: u64,
    /// Filesystem that a consumer will make.
    pub filesystem: Filesystem,
    /// The legs of the volume beside which they go.
    pub placed: &'a [MeshReplica],
    /// All legs of the volume, those that leave too: their drives get no other.
    pub taken: &'a [MeshReplica],
    /// The policy's rules. Labels are those of the `MeshNode` objects.
    pub rules: &'a Placement,
    /// Node that gets the first leg where it passes all filters and no rule speaks for another.
    pub preferred: Option<&'a str>,
}

/// Everything that placement may look at.
#[derive(Clone, Copy, Debug)]
pub struct Cluster<'a> {
    /// All nodes.
    pub nodes: &'a [Arc<MeshNode>],
    /// What all legs of all volumes take of drives.
    pub promises: &'a Promises,
    /// Nodes that are being drained, each with the drain.
    pub drained: &'a BTreeMap<String, String>,
    /// The time for heartbeats.
    pub now: Timestamp,
}

/// One leg's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Slot in the array.
    pub slot: i32,
    /// Its mirror set.
    pub mirror_set: i32,
    /// Node's name.
    pub node: String,
    /// Identity of the drive.
    pub drive: String,
}

/// Why a leg could not be placed, node by node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    head: String,
    dropped: Vec<(String, Dropped)>,
}

impl Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.head)?;
        for (i, (node, dropped)) in self.dropped.iter().enumerate() {
            write!(f, "{}{node}: {dropped}", if i == 0 { ": " } else { "; " })?;
        }
        Ok(())
    }
}

/// A drive that passed every filter.
#[derive(Clone, Copy, Debug)]
struct Candidate<'a> {
    free: u64,
    /// Percent of the drive that is used or promised.
    fill: u8,
    /// For how many mirror sets its node still has drives, where that is to be evened out; 0 where it is not.
    spare: usize,
    /// Its node is to have the first leg if it can.
    preferred: bool,
    /// How far its node is from where the volume is used, in classes of µs; 0 where that is nothing to placement.
    far: i32,
    node: &'a MeshNode,
    drive: &'a Drive,
}

impl<'a> Candidate<'a> {
    /// Best first: that of the node with most drives left, the nearest, the least full, that with most room, then by name of node
    /// and of drive.
    fn order(&self) -> (Reverse<usize>, i32, u8, Reverse<u64>, &'a str, &'a str) {
        (Reverse(self.spare), self.far, self.fill, Reverse(self.free), self.node(), &self.drive.id)
    }

    fn node(&self) -> &'a str {
        name(self.node)
    }

    fn sector(&self) -> i32 {
        self.drive.logical_sector_size
    }
}

fn name(node: &MeshNode) -> &str {
    node.metadata.name.as_deref().unwrap_or_default()
}

/// Places every slot of `request`, or none.
///
/// # Errors
/// A [`Refusal`] that names for each node the filter that dropped it.
pub fn place(request: &Request<'_>, cluster: &Cluster<'_>) -> Result<Vec<Spot>, Refusal> {
    if request.geometry.width() > 1 {
        return stripe::place(request, cluster);
    }
    let pinned = filters::pinned_sector(request.taken, cluster.nodes);
    let rules = Rules::of(request.rules, request.placed, |name| node::find(cluster.nodes, name));
    let (mut fits, dropped) = sieve(request, cluster, &rules, pinned);
    let best = choose(request, cluster, &rules, &mut fits);
    if best.chosen.len() < request.slots.len() {
        return Err(refusal(request, &fits, best, dropped));
    }
    Ok(request
        .slots
        .iter()
        .zip(best.chosen)
        .map(|((slot, set), c)| Spot {
            slot: *slot,
            mirror_set: *set,
            node: c.node().to_owned(),
            drive: c.drive.id.clone(),
        })
        .collect())
}

/// The best arrangement, near where the volume is used; where nobody says from where that is, the first copy is the best place.
fn choose<'a>(
    request: &Request<'_>,
    cluster: &Cluster<'_>,
    rules: &Rules<'_>,
    fits: &mut [Candidate<'a>],
) -> Found<'a> {
    let count = request.slots.len();
    let around = |fits: &mut [Candidate<'a>], first: &str| {
        Near::of(Some(first), cluster.nodes).mark(fits);
        fits.iter_mut().for_each(|c| c.preferred = c.node() == first);
        arrange(rules, fits, count)
    };
    if !near::floats(request) {
        Near::of(near::centre(request), cluster.nodes).mark(fits);
        return arrange(rules, fits, count);
    }
    // The best drive of all is nearly always the first of the best arrangement: one search less.
    let Some(first) = fits.iter().min_by_key(|c| c.order()).map(Candidate::node) else { return Found::default() };
    let found = around(fits, first);
    if found.chosen.first().map(Candidate::node) == Some(first) && found.chosen.len() == count {
        return found;
    }
    Near::of(None, cluster.nodes).mark(fits);
    fits.iter_mut().for_each(|c| c.preferred = false);
    let plain = arrange(rules, fits, count);
    let Some(first) = plain.chosen.first().map(Candidate::node) else { return plain };
    let again = around(fits, first);
    if again.chosen.len() < plain.chosen.len() { plain } else { again }
}

/// The most legs of one sector size, then one on the preferred node, then the nearest nodes and the emptiest drives; among equals the
/// smaller sector size, which comes first.
fn arrange<'a>(rules: &Rules<'_>, fits: &[Candidate<'a>], count: usize) -> Found<'a> {
    let sectors: BTreeSet<i32> = fits.iter().map(Candidate::sector).collect();
    let options = sectors.iter().map(|sector| spread::choose(rules, fits, *sector, count));
    let worth = |found: &Found<'_>| {
        (Reverse(found.chosen.len()), !found.chosen.iter().any(|c| c.preferred), found.far_and_full())
    };
    options.min_by_key(worth).unwrap_or_default()
}

/// Of each node that passes all filters the best drive of each sector size, and each dropped node with the filter that
/// did it.
fn sieve<'a>(
    request: &Request<'_>,
    cluster: &Cluster<'a>,
    rules: &Rules<'_>,
    pinned: Option<i32>,
) -> (Vec<Candidate<'a>>, Vec<(String, Dropped)>) {
    let (mut fits, mut dropped) = (Vec::new(), Vec::new());
    for node in cluster.nodes {
        let drives = filters::node(node, request, rules, cluster)
            .and_then(|()| filters::drives(node, request, cluster.promises, pinned));
        match drives {
            Ok(mut candidates) => {
                candidates.sort_by_key(|c| (c.sector(), c.order()));
                candidates.dedup_by_key(|c| c.sector());
                fits.append(&mut candidates);
            }
            Err(why) => dropped.push((node.name_any(), why)),
        }
    }
    (fits, dropped)
}

/// Nodes that would fit, but not beside the best choice, are dropped by what keeps them apart.
fn refusal(
    request: &Request<'_>,
    fits: &[Candidate<'_>],
    best: Found<'_>,
    mut dropped: Vec<(String, Dropped)>,
) -> Refusal {
    let chosen: BTreeSet<&str> = best.chosen.iter().map(Candidate::node).collect();
    // A node has a candidate for each sector size; they are neighbours.
    let mut others: Vec<&str> = fits.iter().map(Candidate::node).filter(|n| !chosen.contains(n)).collect();
    others.dedup();
    let sector = best.chosen.first().map_or(0, Candidate::sector);
    dropped.extend(others.into_iter().map(|n| {
        let clash = best.clashes.get(n).map(|why| filters::spread(why));
        (n.to_owned(), clash.unwrap_or_else(|| filters::other_sector(sector)))
    }));
    dropped.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let total = chosen.len() + dropped.len();
    let head = format!("{}/{total} nodes are available, {} needed", chosen.len(), request.slots.len());
    Refusal { head, dropped }
}
