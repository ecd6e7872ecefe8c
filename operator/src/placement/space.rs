//! How much room a drive really has: its free extents, less what is promised to legs that are not partitions yet.

use meshstor_crds::{Drive, MeshReplica};
use std::collections::BTreeMap;

/// What legs take of drives, by node and drive.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    /// Bytes of legs without a partition: it is not known which extent they will get.
    pending: BTreeMap<(String, String), u64>,
    /// `(first byte, bytes)` of partitions that a node's free extents may not show yet.
    taken: BTreeMap<(String, String), Vec<(u64, u64)>>,
}

impl Promises {
    /// The promises of `replicas`.
    pub fn of(replicas: &[MeshReplica]) -> Self {
        let mut promises = Self::default();
        for leg in replicas {
            let key = (leg.spec.node.clone(), leg.spec.drive.clone());
            match leg.status.as_ref().and_then(|s| s.partition.as_ref()) {
                Some(p) => promises.taken.entry(key).or_default().push((bytes(p.first_byte), bytes(p.size_bytes))),
                None => *promises.pending.entry(key).or_default() += bytes(leg.spec.size_bytes),
            }
        }
        promises
    }

    /// Bytes of the largest leg that surely still fits `drive`: its largest extent less everything that is pending,
    /// for the pending ones may all be cut from that extent.
    pub fn room(&self, node: &str, drive: &Drive) -> u64 {
        let key = (node.to_owned(), drive.id.clone());
        let taken = self.taken.get(&key).map_or(&[][..], Vec::as_slice);
        let largest = drive.free_extents.iter().map(|e| rest(bytes(e.first_byte), bytes(e.size_bytes), taken)).max();
        largest.unwrap_or(0).saturating_sub(self.pending.get(&key).copied().unwrap_or(0))
    }
}

fn bytes(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// The largest piece of `[first, first + size)` that none of `taken` touches.
fn rest(first: u64, size: u64, taken: &[(u64, u64)]) -> u64 {
    let end = first.saturating_add(size);
    let mut cuts: Vec<(u64, u64)> = taken.iter().map(|(at, len)| (*at, at.saturating_add(*len))).collect();
    cuts.retain(|(from, to)| *from < end && *to > first);
    cuts.sort_unstable();
    let (mut at, mut best) = (first, 0);
    for (from, to) in cuts {
        best = best.max(from.saturating_sub(at));
        at = at.max(to);
    }
    best.max(end.saturating_sub(at))
}

#[cfg(test)]
mod tests {
    use super::rest;

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
            assert_eq!(rest(100, 100, &taken), want, "{taken:?}");
        }
    }
}
