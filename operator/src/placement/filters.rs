//! The named filters: each says in one line why it drops a node.

use super::space::OnNode;
use super::spread::Rules;
use super::{Candidate, Cluster, Promises, Request};
use crate::node;
use jiff::Timestamp;
use kube::ResourceExt as _;
use meshstor_crds::{Drive, Filesystem, MIB, MeshNode, MeshReplica, Placement, Transport, capability};
use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::sync::Arc;

/// Capabilities that any node of a volume needs besides those of its array: as a target, or as a consumer.
const NEEDED: [&str; 3] = ["nvmet-tcp", "nvme-tcp", "mdadm"];

/// A filter's name and what it found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dropped {
    filter: &'static str,
    why: String,
}

impl Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.filter, self.why)
    }
}

pub(super) fn drop_by(filter: &'static str, why: impl Display) -> Dropped {
    Dropped { filter, why: why.to_string() }
}

/// The filters that look at a node as a whole.
pub(super) fn node(
    node: &MeshNode,
    request: &Request<'_>,
    rules: &Rules<'_>,
    cluster: &Cluster<'_>,
) -> Result<(), Dropped> {
    node_alone(node, request, cluster)?;
    one_leg_per_node(node, request.placed)?;
    rules.broken_by(node).map_or(Ok(()), |why| Err(spread(&why)))
}

/// Those of them that do not ask what else is on the node.
pub(super) fn node_alone(node: &MeshNode, request: &Request<'_>, cluster: &Cluster<'_>) -> Result<(), Dropped> {
    node_ready(node, cluster.now)?;
    node_schedulable(node, cluster)?;
    node_selected(node, request.rules)?;
    node_capable(node, request)?;
    node_fabric(node, request.transport)
}

/// A required rule of spreading that a node would break.
pub(super) fn spread(why: &str) -> Dropped {
    drop_by("Spread", why)
}

fn node_selected(node: &MeshNode, rules: &Placement) -> Result<(), Dropped> {
    let labels = node.labels();
    match rules.node_selector.iter().find(|(key, value)| labels.get(*key) != Some(value)) {
        Some((key, value)) => Err(node_selector(key, value, labels.get(key).map(String::as_str))),
        None => Ok(()),
    }
}

/// A node has another value of a label than it must have, or none.
pub(super) fn node_selector(key: &str, wanted: &str, has: Option<&str>) -> Dropped {
    let has = has.map_or_else(|| "absent".to_owned(), |has| format!("{has:?}"));
    drop_by("NodeSelector", format!("{key} must be {wanted:?}, is {has}"))
}

fn node_ready(node: &MeshNode, now: Timestamp) -> Result<(), Dropped> {
    node::ready(node, now).map_err(|why| drop_by("NodeReady", why))
}

fn node_schedulable(node: &MeshNode, cluster: &Cluster<'_>) -> Result<(), Dropped> {
    if let Some(drain) = cluster.drained.get(super::name(node)) {
        return Err(drop_by("NodeSchedulable", format!("NodeDrain {drain} drains it")));
    }
    match (node.spec.unschedulable, &node.metadata.deletion_timestamp) {
        (true, _) => Err(drop_by("NodeSchedulable", "spec.unschedulable is set")),
        (_, Some(_)) => Err(drop_by("NodeSchedulable", "it is being deleted")),
        _ => Ok(()),
    }
}

fn node_capable(node: &MeshNode, request: &Request<'_>) -> Result<(), Dropped> {
    let array = capability::of_array(request.geometry, request.bitmap);
    for name in array.chain(NEEDED) {
        capability::of_node(node, name).map_err(|why| drop_by("NodeCapable", why))?;
    }
    // What a daemon does not report of these is not held against its node.
    let kernel = node.status.as_ref().and_then(|s| s.kernel.as_ref());
    let reported = |name: &&str| kernel.is_some_and(|k| k.capabilities.iter().any(|c| c.name == *name));
    let mut others = ["nft"].into_iter().chain(mkfs(request.filesystem)).filter(reported);
    others.try_for_each(|name| capability::of_node(node, name).map_err(|why| drop_by("NodeCapable", why)))
}

/// RDMA cannot reach a node that has no address with it.
fn node_fabric(node: &MeshNode, transport: Transport) -> Result<(), Dropped> {
    let none = node.status.as_ref().is_none_or(|s| s.rdma_addresses.is_empty());
    match transport {
        Transport::Rdma if none => Err(drop_by("NodeFabric", "reports no RDMA address in status.rdmaAddresses")),
        _ => Ok(()),
    }
}

/// The tool's capability.
fn mkfs(filesystem: Filesystem) -> Option<&'static str> {
    match filesystem {
        Filesystem::Xfs => Some("mkfs.xfs"),
        Filesystem::Ext4 => Some("mkfs.ext4"),
        Filesystem::None => None,
    }
}

fn one_leg_per_node(node: &MeshNode, placed: &[MeshReplica]) -> Result<(), Dropped> {
    match placed.iter().find(|r| r.spec.node == super::name(node)) {
        Some(leg) => Err(drop_by("OneLegPerNode", format!("holds {}", leg.name_any()))),
        None => Ok(()),
    }
}

/// The drives of `node` that pass; when none does, the filter that the best of them failed.
pub(super) fn drives<'a>(
    node: &'a MeshNode,
    request: &Request<'_>,
    promises: &Promises,
    pinned: Option<i32>,
) -> Result<Vec<Candidate<'a>>, Dropped> {
    let all = node.status.as_ref().map_or(&[][..], |s| &s.drives);
    let usable: Vec<&Drive> = all.iter().filter(|d| d.unusable.is_none()).collect();
    if usable.is_empty() {
        return Err(drive_usable(all));
    }
    let holder =
        |d: &&Drive| request.taken.iter().find(|leg| leg.spec.node == super::name(node) && leg.spec.drive == d.id);
    let (held, usable): (Vec<&Drive>, Vec<&Drive>) = usable.into_iter().partition(|d| holder(d).is_some());
    if let (true, Some(leg)) = (usable.is_empty(), held.iter().find_map(holder)) {
        return Err(drop_by("DriveFree", format!("{} holds {}", leg.spec.drive, leg.name_any())));
    }
    let usable = super::drives::wanted(node, usable, request.rules)?;
    let right: Vec<&Drive> = usable.into_iter().filter(|d| pinned.is_none_or(|s| s == d.logical_sector_size)).collect();
    if right.is_empty() {
        return Err(other_sector(pinned.unwrap_or_default()));
    }
    let promised = promises.on(super::name(node));
    let room: Vec<Candidate<'_>> = right.into_iter().map(|drive| candidate(node, drive, request, promised)).collect();
    let fits: Vec<Candidate<'_>> = room.iter().filter(|c| c.free >= request.size).copied().collect();
    if fits.is_empty() { Err(free_extent(&room, request.size)) } else { Ok(fits) }
}

/// Every drive of `node` that passes, best first, and what each of the others is short of.
pub(super) fn each_drive<'a>(
    node: &'a MeshNode,
    request: &Request<'_>,
    promises: &Promises,
    pinned: Option<i32>,
) -> (Vec<Candidate<'a>>, Vec<String>) {
    let promised = promises.on(super::name(node));
    let short = |c: &Candidate<'_>| {
        let drive = c.drive;
        let holds = |leg: &&MeshReplica| leg.spec.node == super::name(node) && leg.spec.drive == drive.id;
        let unwanted = super::drives::unwanted(node, drive, request.rules);
        let other_sector = pinned.filter(|s| *s != drive.logical_sector_size);
        Some(match (&drive.unusable, request.taken.iter().find(holds), unwanted, other_sector) {
            (Some(why), ..) => why.clone(),
            (_, Some(leg), ..) => format!("holds {}", leg.name_any()),
            (.., Some(unwanted), _) => unwanted,
            (.., Some(sector)) => format!("{} bytes a sector, the other legs {sector}", drive.logical_sector_size),
            _ if c.free < request.size => free_extent(&[*c], request.size).why,
            _ => return None,
        })
    };
    let (mut fits, mut others) = (Vec::new(), Vec::new());
    for drive in node.status.as_ref().map_or(&[][..], |s| &s.drives) {
        let candidate = candidate(node, drive, request, promised);
        match short(&candidate) {
            Some(why) => others.push(format!("{}: {why}", drive.id)),
            None => fits.push(candidate),
        }
    }
    fits.sort_by_key(|c| (c.sector(), c.order()));
    (fits, others)
}

/// What drives of a node are short of, beside those that fit.
pub(super) fn drives_short(fits: &[Candidate<'_>], short: &[String]) -> Option<Dropped> {
    let some = if short.is_empty() && fits.is_empty() { vec!["no drives".to_owned()] } else { short.to_vec() };
    (!some.is_empty()).then(|| drop_by("Drives", format!("{}; {}", drives_fit(fits).why, some.join("; "))))
}

/// How many drives of a node fit.
pub(super) fn drives_fit(fits: &[Candidate<'_>]) -> Dropped {
    let sectors: BTreeSet<i32> = fits.iter().map(Candidate::sector).collect();
    let of = |sector: &i32| fits.iter().filter(|c| c.sector() == *sector).count();
    let each: Vec<String> = sectors.iter().map(|s| format!("{} with {s} bytes a sector", of(s))).collect();
    let mixed = if each.len() > 1 { format!(", {}", each.join(" and ")) } else { String::new() };
    drop_by("Drives", format!("{} {}{mixed}", fits.len(), if fits.len() == 1 { "fits" } else { "fit" }))
}

fn candidate<'a>(node: &'a MeshNode, drive: &'a Drive, request: &Request<'_>, promised: OnNode<'_>) -> Candidate<'a> {
    let (free, fill) = promised.room_and_fill(drive);
    let preferred = request.preferred == Some(super::name(node));
    Candidate { free, fill, spare: 0, preferred, far: 0, node, drive }
}

fn drive_usable(all: &[Drive]) -> Dropped {
    let first = all.iter().find_map(|d| d.unusable.as_ref().map(|why| format!("{}: {why}", d.id)));
    drop_by("DriveUsable", first.unwrap_or_else(|| "no drives".to_owned()))
}

fn free_extent(room: &[Candidate<'_>], size: u64) -> Dropped {
    let largest = room.iter().map(|c| c.free).max().unwrap_or(0);
    drop_by("FreeExtent", format!("largest free extent {} MiB < {} MiB", largest / MIB, size.div_ceil(MIB)))
}

/// MD mixes sector sizes only by rounding up, and a filesystem made on small sectors does not survive that.
pub(super) fn other_sector(wanted: i32) -> Dropped {
    drop_by("SectorSize", format!("no drive with room and the other legs' {wanted}-byte logical sectors"))
}

/// The sector size of the legs that are there already.
pub(super) fn pinned_sector(placed: &[MeshReplica], nodes: &[Arc<MeshNode>]) -> Option<i32> {
    placed.iter().find_map(|leg| {
        let drives = &node::find(nodes, &leg.spec.node)?.status.as_ref()?.drives;
        drives.iter().find(|d| d.id == leg.spec.drive).map(|d| d.logical_sector_size)
    })
}
