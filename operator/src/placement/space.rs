//! How much room a drive really has: its free extents, less what is promised to legs that are not partitions yet.

use meshstor_crds::{Drive, MeshReplica};
use std::collections::HashMap;

/// What legs take of drives, by node and drive.
#[derive(Clone, Debug, Default)]
pub struct Promises<'a>(HashMap<&'a str, HashMap<&'a str, Promised>>);

/// What legs take of one drive.
#[derive(Clone, Debug, Default)]
struct Promised {
    /// Bytes of legs without a partition: it is not known which extent they will get.
    pending: u64,
    /// `(first byte, bytes)` of partitions that the node's free extents may not show yet.
    taken: Vec<(u64, u64)>,
}

/// Of a drive that no leg is on.
const NOTHING: &Promised = &Promised { pending: 0, taken: Vec::new() };

impl<'a> Promises<'a> {
    /// The promises of `replicas`.
    pub fn of(replicas: &'a [MeshReplica]) -> Self {
        let mut promises = Self::default();
        for leg in replicas {
            let promised = promises.0.entry(&leg.spec.node).or_default().entry(&leg.spec.drive).or_default();
            match leg.status.as_ref().and_then(|s| s.partition.as_ref()) {
                Some(p) => promised.taken.push((bytes(p.first_byte), bytes(p.size_bytes))),
                None => promised.pending += bytes(leg.spec.size_bytes),
            }
        }
        promises
    }

    fn on(&self, node: &str, drive: &Drive) -> &Promised {
        self.0.get(node).and_then(|drives| drives.get(drive.id.as_str())).unwrap_or(NOTHING)
    }

    /// Bytes of the largest leg that surely still fits `drive`: its largest extent less everything that is pending,
    /// for the pending ones may all be cut from that extent.
    pub fn room(&self, node: &str, drive: &Drive) -> u64 {
        self.free(node, drive).max().unwrap_or(0).saturating_sub(self.on(node, drive).pending)
    }

    /// How much of `drive` is used or promised, in whole percent.
    pub fn fill(&self, node: &str, drive: &Drive) -> u8 {
        let free = self.free(node, drive).sum::<u64>().saturating_sub(self.on(node, drive).pending);
        let size = bytes(drive.size_bytes).max(1);
        u8::try_from(u128::from(size.saturating_sub(free)) * 100 / u128::from(size)).unwrap_or(100)
    }

    /// The lengths of the runs of `drive` that are free of partitions.
    fn free(&self, node: &str, drive: &Drive) -> impl Iterator<Item = u64> {
        let taken = &self.on(node, drive).taken;
        drive.free_extents.iter().flat_map(|e| pieces(bytes(e.first_byte), bytes(e.size_bytes), taken))
    }
}

fn bytes(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// The lengths of the pieces of `[first, first + size)` that none of `taken` touches.
fn pieces(first: u64, size: u64, taken: &[(u64, u64)]) -> Vec<u64> {
    let end = first.saturating_add(size);
    let mut cuts: Vec<(u64, u64)> = taken.iter().map(|(at, len)| (*at, at.saturating_add(*len))).collect();
    cuts.retain(|(from, to)| *from < end && *to > first);
    cuts.sort_unstable();
    let (mut at, mut pieces) = (first, Vec::new());
    for (from, to) in cuts {
        pieces.push(from.saturating_sub(at));
        at = at.max(to);
    }
    pieces.push(end.saturating_sub(at));
    pieces
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn a_partition_cuts_the_extent_it_lies_in() {
        for (taken, want) in [
            (vec![], 100),
            (vec![(100, 20)], 80),
            (vec![(140, 20)], 40),
            (vec![(180, 50)], 80),
            (vec![(90, 200)], 0),
            (vec![(300, 10)], 100),
            (vec![(110, 10), (115, 45)], 40),
        ] {
            assert_eq!(pieces(100, 100, &taken).into_iter().max(), Some(want), "{taken:?}");
        }
    }
}
