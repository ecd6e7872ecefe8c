//! Places for legs of a volume whose copies are striped: each on a drive of its own, and no two of a mirror set on one node.

use super::filters::{self, Dropped};
use super::near::{self, Near};
use super::spread::{self, Rules};
use super::{Candidate, Cluster, Refusal, Request, Spot, name};
use crate::node;
use kube::ResourceExt as _;
use meshstor_crds::{MeshNode, MeshReplica};
use std::collections::{BTreeMap, BTreeSet};

/// A node that passes the filters, with its drives of one sector size that fit, best first.
struct Offer<'a> {
    node: &'a MeshNode,
    drives: Vec<Candidate<'a>>,
}

impl<'a> Offer<'a> {
    fn of_sector(&self, sector: i32) -> Self {
        let drives = self.drives.iter().filter(|c| c.sector() == sector).copied().collect();
        Self { node: self.node, drives }
    }

    /// Its best drive, worth the more the more of `sets` the node has drives for.
    fn best(&self, sets: usize) -> Option<Candidate<'a>> {
        Some(Candidate { spare: self.drives.len().min(sets), ..*self.drives.first()? })
    }
}

/// As [`super::place`].
///
/// A copy is on one node where that can be: then only as many nodes as there are copies can harm the volume, and a
/// consumer with a copy reads all of it from its own drives. Else set by set, from the nodes with most drives left:
/// without required labels that finds a place whenever there is one.
pub(super) fn place(request: &Request<'_>, cluster: &Cluster<'_>) -> Result<Vec<Spot>, Refusal> {
    let spots = place_near(request, cluster, near::centre(request))?;
    let Some(first) = spots.first().map(|spot| spot.node.as_str()).filter(|_| near::floats(request)) else {
        return Ok(spots);
    };
    let again = Request { preferred: Some(first), ..*request };
    Ok(place_near(&again, cluster, Some(first)).unwrap_or_else(|_| spots.clone()))
}

/// As [`place`], near a node.
fn place_near(request: &Request<'_>, cluster: &Cluster<'_>, centre: Option<&str>) -> Result<Vec<Spot>, Refusal> {
    let near = Near::of(centre, cluster.nodes);
    let pinned = filters::pinned_sector(request.taken, cluster.nodes);
    let (mut offers, mut dropped) = (Vec::new(), Vec::new());
    for node in cluster.nodes {
        match filters::node_alone(node, request, cluster) {
            Ok(()) => {
                let (mut drives, short) = filters::each_drive(node, request, cluster.promises, pinned);
                near.mark(&mut drives);
                dropped.extend(filters::drives_short(&drives, &short).map(|why| (node.name_any(), why)));
                offers.push(Offer { node, drives });
            }
            Err(why) => dropped.push((node.name_any(), why)),
        }
    }
    let sectors: BTreeSet<i32> = offers.iter().flat_map(|o| &o.drives).map(Candidate::sector).collect();
    let mut most = Vec::new();
    for sector in sectors {
        let same: Vec<Offer<'_>> = offers.iter().map(|o| o.of_sector(sector)).collect();
        let spots =
            whole_copies(request, cluster, &same, sector).unwrap_or_else(|| set_by_set(request, cluster, same, sector));
        if spots.len() == request.slots.len() {
            return Ok(spots);
        }
        if spots.len() > most.len() {
            most = spots;
        }
    }
    Err(refusal(request, cluster, &offers, &most, dropped))
}

/// Every copy on one node, with a drive for each set.
fn whole_copies(request: &Request<'_>, cluster: &Cluster<'_>, offers: &[Offer<'_>], sector: i32) -> Option<Vec<Spot>> {
    if !request.taken.is_empty() {
        return None;
    }
    let width = usize::try_from(request.geometry.width()).ok()?;
    let rules = Rules::of(request.rules, &[], |name| node::find(cluster.nodes, name));
    // The drive that takes part and fits worst speaks for its node.
    let wide = offers.iter().filter(|o| rules.broken_by(o.node).is_none());
    let fits: Vec<Candidate<'_>> = wide.filter_map(|o| o.drives.get(width - 1).copied()).collect();
    let copies = request.slots.len() / width;
    let chosen = spread::choose(&rules, &fits, sector, copies).chosen;
    if chosen.len() < copies {
        return None;
    }
    let at = |(at, (slot, set)): (usize, &(i32, i32))| {
        let node = chosen[at % copies].node();
        let offer = offers.iter().find(|o| name(o.node) == node)?;
        let drive = offer.drives.get(usize::try_from(*set).ok()?)?;
        Some(spot(*slot, *set, drive))
    };
    request.slots.iter().enumerate().map(at).collect()
}

fn spot(slot: i32, mirror_set: i32, on: &Candidate<'_>) -> Spot {
    Spot { slot, mirror_set, node: on.node().to_owned(), drive: on.drive.id.clone() }
}

/// As many legs as can be had, set by set.
fn set_by_set(request: &Request<'_>, cluster: &Cluster<'_>, mut offers: Vec<Offer<'_>>, sector: i32) -> Vec<Spot> {
    let mut sets: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for (slot, set) in request.slots {
        sets.entry(*set).or_default().push(*slot);
    }
    let mut spots = Vec::new();
    let mut left = sets.len();
    for (set, slots) in sets {
        let beside: Vec<MeshReplica> =
            request.placed.iter().filter(|leg| leg.spec.mirror_set == set).cloned().collect();
        let rules = Rules::of(request.rules, &beside, |name| node::find(cluster.nodes, name));
        let free = |o: &&Offer<'_>| {
            beside.iter().all(|leg| leg.spec.node != name(o.node)) && rules.broken_by(o.node).is_none()
        };
        let fits: Vec<Candidate<'_>> = offers.iter().filter(free).filter_map(|o| o.best(left)).collect();
        for (slot, taken) in slots.into_iter().zip(spread::choose(&rules, &fits, sector, slots_of(request, set)).chosen)
        {
            spots.push(spot(slot, set, &taken));
            let offer = offers.iter_mut().find(|o| name(o.node) == taken.node());
            offer.into_iter().for_each(|o| o.drives.retain(|c| c.drive.id != taken.drive.id));
        }
        left -= 1;
    }
    spots
}

fn slots_of(request: &Request<'_>, set: i32) -> usize {
    request.slots.iter().filter(|(_, of)| *of == set).count()
}

/// Says of every node which of its drives fit, and of what the others are short.
fn refusal(
    request: &Request<'_>,
    cluster: &Cluster<'_>,
    offers: &[Offer<'_>],
    most: &[Spot],
    mut dropped: Vec<(String, Dropped)>,
) -> Refusal {
    let rules = Rules::of(request.rules, &[], |name| node::find(cluster.nodes, name));
    for offer in offers {
        let node = name(offer.node);
        if let Some(why) = rules.broken_by(offer.node) {
            dropped.push((node.to_owned(), filters::spread(&why)));
        } else if !dropped.iter().any(|(of, _)| of == node) {
            dropped.push((node.to_owned(), filters::drives_fit(&offer.drives)));
        }
    }
    dropped.sort_by(|a, b| a.0.cmp(&b.0));
    let head = format!(
        "{} of {} legs can be placed, each on a drive of its own and those of a mirror set on different nodes",
        most.len(),
        request.slots.len()
    );
    Refusal { head, dropped }
}
