//! Names of what a node can do, as its daemon reports it in `MeshNode.status.kernel.capabilities` and the operator asks for it.

use crate::{Bitmap, Geometry, MeshNode};

/// MD runs RAID1.
pub const RAID1: &str = "raid1";
/// MD runs RAID10.
pub const RAID10: &str = "raid10";
/// MD has the lockless bitmap (`CONFIG_MD_LLBITMAP`, Linux 6.18), which is right for a RAID1.
pub const LLBITMAP: &str = "llbitmap";
/// The lockless bitmap is right for a RAID10 of more than two disks, too: a stock 7.3 leaves out data when it rebuilds.
pub const LLBITMAP_RAID10: &str = "llbitmap-raid10";
/// The classic bitmap of a RAID10 keeps what a leg lacks that is away while another leg is rebuilt: Linux 6.12 does not.
pub const BITMAP_RAID10: &str = "bitmap-raid10";
/// MD measures how long each member takes to answer reads, and chooses by it.
pub const LATENCY_BALANCE: &str = "md-latency-balance";
/// MD makes a RAID1 a RAID10 in place.
pub const TAKEOVER: &str = "md-raid10-takeover";
/// MD acknowledges nothing after a member has failed, until it is told that the failure is recorded (`md/failure_gate`).
pub const FAILURE_GATE: &str = "md-failure-gate";
/// NVMe over RDMA as a target and as a host.
pub const RDMA: &str = "nvme-rdma";

/// What a node's kernel needs to run an array: its level, and its bitmap where that is not the classic one.
pub fn of_array(geometry: Geometry, bitmap: Bitmap) -> impl Iterator<Item = &'static str> {
    let striped = geometry.width() > 1;
    let lockless = match (bitmap, striped) {
        (Bitmap::Lockless, true) => &[LLBITMAP, LLBITMAP_RAID10][..],
        (Bitmap::Lockless, false) => &[LLBITMAP][..],
        _ => &[],
    };
    std::iter::once(if striped { RAID10 } else { RAID1 }).chain(lockless.iter().copied())
}

/// Whether `node` can do `name`.
///
/// # Errors
/// What is missing, and what to do about it.
pub fn of_node(node: &MeshNode, name: &str) -> Result<(), String> {
    let kernel = node.status.as_ref().and_then(|s| s.kernel.as_ref());
    match kernel.and_then(|k| k.capabilities.iter().find(|c| c.name == name)) {
        Some(c) if c.supported => Ok(()),
        Some(c) => Err(format!("{name}: {}", c.message)),
        None => Err(format!("{name}: not reported")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_striped_array_asks_more_of_the_lockless_bitmap() {
        let asks = |width, bitmap| of_array(Geometry::new(2, width), bitmap).collect::<Vec<_>>();
        assert_eq!(asks(1, Bitmap::Internal), [RAID1]);
        assert_eq!(asks(1, Bitmap::Lockless), [RAID1, LLBITMAP]);
        assert_eq!(asks(2, Bitmap::None), [RAID10]);
        assert_eq!(asks(2, Bitmap::Lockless), [RAID10, LLBITMAP, LLBITMAP_RAID10]);
    }
}
