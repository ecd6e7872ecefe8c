//! How much room a drive really has: its free extents, less what is promised to legs that are not partitions yet.

use foldhash::HashMap;
use meshstor_crds::{Drive, MeshReplica};

/// What legs take of drives, by node and drive.
#[derive(Clone, Debug, Default)]
pub struct Promises(HashMap<String, Vec<(String, Promised)>>);

/// What legs take of the drives of one node.
#[derive(Clone, Copy, Debug)]
pub struct OnNode<'p>(&'p [(String, Promised)]);

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

impl Promises {
    /// The promises of `replicas`.
    pub fn of<'a>(replicas: impl IntoIterator<Item = &'a MeshReplica>) -> Self {
        let mut promises = Self::default();
        for leg in replicas {
            let promised = promises.promised(&leg.spec.node, &leg.spec.drive);
            match leg.status.as_ref().and_then(|s| s.partition.as_ref()) {
                Some(p) => promised.taken.push((bytes(p.first_byte), bytes(p.size_bytes))),
                None => promised.pending += bytes(leg.spec.size_bytes),
            }
        }
        promises
    }

    /// What is promised of `drive`, to be added to. A node has few drives.
    fn promised(&mut self, node: &str, drive: &str) -> &mut Promised {
        let drives = self.0.entry(node.to_owned()).or_default();
        let at = drives.iter().position(|(of, _)| of == drive).unwrap_or_else(|| {
            drives.push((drive.to_owned(), Promised::default()));
            drives.len() - 1
        });
        &mut drives[at].1
    }

    /// Those on `node`.
    pub fn on(&self, node: &str) -> OnNode<'_> {
        OnNode(self.0.get(node).map_or(&[], Vec::as_slice))
    }
}

impl OnNode<'_> {
    /// Bytes of the largest leg that surely still fits `drive`: its largest extent less everything that is pending,
    /// for the pending ones may all be cut from that extent. And how much of it is used or promised, in whole percent.
    pub fn room_and_fill(self, drive: &Drive) -> (u64, u8) {
        let promised = self.0.iter().find(|(id, _)| *id == drive.id).map_or(NOTHING, |(_, promised)| promised);
        let Promised { pending, taken } = promised;
        let (mut largest, mut sum) = (0u64, 0u64);
        for extent in &drive.free_extents {
            for_each_piece(bytes(extent.first_byte), bytes(extent.size_bytes), taken, |piece| {
                largest = largest.max(piece);
                sum = sum.saturating_add(piece);
            });
        }
        let size = bytes(drive.size_bytes).max(1);
        let used = size.saturating_sub(sum.saturating_sub(*pending));
        let percent = u128::from(used) * 100 / u128::from(size);
        (largest.saturating_sub(*pending), u8::try_from(percent).unwrap_or(100))
    }
}

fn bytes(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Gives the length of each piece of `[first, first + size)` that none of `taken` touches.
fn for_each_piece(first: u64, size: u64, taken: &[(u64, u64)], mut give: impl FnMut(u64)) {
    let end = first.saturating_add(size);
    let cuts = taken.iter().map(|(at, len)| (*at, at.saturating_add(*len)));
    let mut cuts = cuts.filter(|(from, to)| *from < end && *to > first).peekable();
    // Mostly there is nothing to sort, and this is done for every extent of the cluster.
    if cuts.peek().is_none() {
        return give(size);
    }
    let mut cuts: Vec<(u64, u64)> = cuts.collect();
    cuts.sort_unstable();
    let mut at = first;
    for (from, to) in cuts {
        give(from.saturating_sub(at));
        at = at.max(to);
    }
    give(end.saturating_sub(at));
}

#[cfg(test)]
mod tests {
    use super::for_each_piece;

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
            let mut largest = 0;
            for_each_piece(100, 100, &taken, |piece| largest = largest.max(piece));
            assert_eq!(largest, want, "{taken:?}");
        }
    }
}
