//! How legs, slots and mirror sets of an array belong together. Pure.
//!
//! An array of `stripeWidth` 1 is a RAID1. A wider one is a RAID10 near-N of N × `stripeWidth` slots, in which N
//! neighbouring slots hold the same blocks: a *mirror set*. MD knows no array of one copy, so with `replicaCount` 1 each
//! set has a second slot that stays empty.

use crate::{MIB, MeshReplica};
use kube::ResourceExt as _;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a RAID10's chunk, as MISSION gives it for the documented product.
pub const CHUNK: u64 = 64 << 10;
/// What a partition has over its part of the capacity: MD metadata and headroom (`docs/explanation/protocol.md`, 1).
pub const HEADROOM: u64 = 8 * MIB;

/// Copies, and how many drives each is striped over. Neither is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    copies: u32,
    width: u32,
}

/// Why legs make no sound array.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsound {
    /// There are no legs, or the sets differ in their number of legs.
    #[error("mirror set {set} has {have} legs and not {want}")]
    Uneven {
        /// The set.
        set: i32,
        /// Its legs.
        have: usize,
        /// Those of the first set.
        want: usize,
    },
    /// A leg's slot is not of its mirror set, or another leg has it.
    #[error("slot {slot} of {leg} is not one of mirror set {set}, or another leg has it")]
    Slot {
        /// The leg.
        leg: String,
        /// Its slot.
        slot: i32,
        /// Its set.
        set: i32,
    },
    /// Two legs of a set are on one node, which is one failure away from losing both.
    #[error("{leg} and {other} hold the same blocks (mirror set {set}) and are both on {node}")]
    OneNode {
        /// One leg.
        leg: String,
        /// The other.
        other: String,
        /// Their set.
        set: i32,
        /// Their node.
        node: String,
    },
}

impl Geometry {
    /// `copies` copies, each striped over `width` drives; 0 counts as 1.
    pub fn new(copies: u32, width: u32) -> Self {
        Self { copies: copies.max(1), width: width.max(1) }
    }

    /// That of a volume's spec.
    pub fn of_spec(spec: &crate::MeshVolumeSpec) -> Self {
        let count = |n: i32| u32::try_from(n).unwrap_or(1);
        Self::new(count(spec.replica_count), count(spec.stripe_width))
    }

    /// Copies of every block.
    pub fn copies(self) -> u32 {
        self.copies
    }

    /// Mirror sets: 1 for a RAID1.
    pub fn width(self) -> u32 {
        self.width
    }

    /// Slots of each mirror set, at least 2: the near copies of a RAID10.
    pub fn set_slots(self) -> u32 {
        self.copies.max(2)
    }

    /// Slots of the array.
    pub fn slots(self) -> u32 {
        self.set_slots() * self.width
    }

    /// `(slot, mirror set)` of each leg, by slot.
    pub fn legs(self) -> impl Iterator<Item = (i32, i32)> {
        let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
        let in_set = move |set: u32| (0..self.copies).map(move |copy| set * self.set_slots() + copy);
        (0..self.width).flat_map(move |set| in_set(set).map(move |slot| (number(slot), number(set))))
    }

    /// Bytes of array data on each leg for a volume of `capacity` bytes: whole MiB, so that the array may come out up to
    /// `width` MiB larger.
    pub fn component(self, capacity: u64) -> u64 {
        capacity.div_ceil(u64::from(self.width)).next_multiple_of(MIB)
    }

    /// That of `legs`, which must be all of the array's.
    ///
    /// # Errors
    /// [`Unsound`] when they make no array in which every mirror set is whole and spans nodes.
    pub fn of_legs<'a>(legs: impl IntoIterator<Item = &'a MeshReplica>) -> Result<Self, Unsound> {
        let mut sets: BTreeMap<i32, Vec<&MeshReplica>> = BTreeMap::new();
        for leg in seated(legs) {
            sets.entry(leg.spec.mirror_set).or_default().push(leg);
        }
        let copies = sets.first_key_value().map_or(0, |(_, legs)| legs.len());
        for (want, (set, legs)) in (0..).zip(&sets) {
            if legs.len() != copies || *set != want {
                return Err(Unsound::Uneven {
                    set: want,
                    have: if *set == want { legs.len() } else { 0 },
                    want: copies,
                });
            }
        }
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let geometry = match copies {
            0 => return Err(Unsound::Uneven { set: 0, have: 0, want: 1 }),
            _ => Self::new(number(copies), number(sets.len())),
        };
        sets.values().try_for_each(|legs| geometry.check_set(legs))?;
        Ok(geometry)
    }

    /// The least that `legs` can be of, where some of an array's are gone and others take the place of some. For what is not made
    /// anew.
    pub fn about<'a>(legs: impl IntoIterator<Item = &'a MeshReplica>) -> Self {
        let mut sets: BTreeMap<i32, BTreeSet<i32>> = BTreeMap::new();
        for leg in legs {
            sets.entry(leg.spec.mirror_set).or_default().insert(leg.spec.slot);
        }
        let width = sets.keys().last().map_or(1, |last| u32::try_from(*last).unwrap_or(0) + 1);
        let copies = sets.values().map(BTreeSet::len).max().unwrap_or(1);
        Self::new(u32::try_from(copies).unwrap_or(u32::MAX), width)
    }

    fn check_set(self, legs: &[&MeshReplica]) -> Result<(), Unsound> {
        for (at, leg) in legs.iter().enumerate() {
            let (slot, set) = (leg.spec.slot, leg.spec.mirror_set);
            if self.set_of(slot) != Some(set) || legs[..at].iter().any(|l| l.spec.slot == slot) {
                return Err(Unsound::Slot { leg: leg.name_any(), slot, set });
            }
        }
        spans_nodes(legs.iter().copied())
    }

    /// The mirror set that a slot is of; none for one that the array does not have.
    pub fn set_of(self, slot: i32) -> Option<i32> {
        let slot = u32::try_from(slot).ok().filter(|s| *s < self.slots())?;
        i32::try_from(slot / self.set_slots()).ok()
    }
}

/// `legs` without those that are to take the place of one that is still there.
pub fn seated<'a>(legs: impl IntoIterator<Item = &'a MeshReplica>) -> Vec<&'a MeshReplica> {
    let all: Vec<&MeshReplica> = legs.into_iter().collect();
    let there = |name: &String| all.iter().any(|leg| leg.metadata.name.as_ref() == Some(name));
    all.iter().filter(|leg| !leg.spec.replaces.as_ref().is_some_and(there)).copied().collect()
}

/// Whether no two of `legs` that hold the same blocks are on one node; they need not be all of an array's.
///
/// # Errors
/// [`Unsound::OneNode`] names two that are.
pub fn spans_nodes<'a>(legs: impl IntoIterator<Item = &'a MeshReplica>) -> Result<(), Unsound> {
    let mut seen: BTreeMap<(i32, &str), &MeshReplica> = BTreeMap::new();
    // A leg and the one that takes its place may share a node: one of them leaves.
    for leg in seated(legs) {
        if let Some(other) = seen.insert((leg.spec.mirror_set, &leg.spec.node), leg) {
            let (node, set) = (leg.spec.node.clone(), leg.spec.mirror_set);
            return Err(Unsound::OneNode { leg: leg.name_any(), other: other.name_any(), set, node });
        }
    }
    Ok(())
}

/// The smallest number of `legs` in any mirror set that satisfy `good`: 0 without legs.
pub fn copies<'a>(legs: impl IntoIterator<Item = &'a MeshReplica>, good: impl Fn(&MeshReplica) -> bool) -> usize {
    let mut sets: BTreeMap<i32, usize> = BTreeMap::new();
    for leg in legs {
        *sets.entry(leg.spec.mirror_set).or_default() += usize::from(good(leg));
    }
    sets.into_values().min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(slot: i32, set: i32, node: &str) -> MeshReplica {
        let spec = serde_json::json!({
            "volume": "v", "volumeUid": "u", "slot": slot, "mirrorSet": set, "node": node, "drive": "d", "sizeBytes": MIB,
        });
        MeshReplica::new(&format!("v-{slot}"), serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn slots_of_every_shape() {
        let slots = |copies, width| Geometry::new(copies, width).legs().collect::<Vec<_>>();
        assert_eq!(slots(1, 1), [(0, 0)]);
        assert_eq!(slots(3, 1), [(0, 0), (1, 0), (2, 0)]);
        assert_eq!(slots(1, 3), [(0, 0), (2, 1), (4, 2)]);
        assert_eq!(slots(2, 2), [(0, 0), (1, 0), (2, 1), (3, 1)]);
        assert_eq!(slots(4, 8).len(), 32);
        for (copies, width) in (1..=4).flat_map(|c| (1..=8).map(move |w| (c, w))) {
            let geometry = Geometry::new(copies, width);
            let nodes = |(slot, set): (i32, i32)| leg(slot, set, &format!("n{}", slot % 4 + 4 * (slot / 8)));
            let legs: Vec<MeshReplica> = geometry.legs().map(nodes).collect();
            assert_eq!(
                Geometry::of_legs(&legs).as_ref().map(|g| g.slots()),
                Ok(geometry.slots()),
                "{copies} x {width}"
            );
        }
    }

    #[test]
    fn a_striped_volume_is_at_least_as_large_as_asked_for() {
        for width in 1..=8 {
            for mib in [64, 65, 512, 1000] {
                let component = Geometry::new(2, width).component(mib * MIB);
                let whole = component * u64::from(width);
                assert!(component.is_multiple_of(MIB) && whole >= mib * MIB && whole < (mib + u64::from(width)) * MIB);
            }
        }
    }

    #[test]
    fn legs_that_make_no_sound_array_are_refused() {
        let said = |legs: &[MeshReplica]| Geometry::of_legs(legs).unwrap_err().to_string();
        let four = |b: &str| vec![leg(0, 0, "a"), leg(1, 0, b), leg(2, 1, "a"), leg(3, 1, "b")];
        assert!(Geometry::of_legs(&four("b")).is_ok());
        assert_eq!(said(&four("a")), "v-1 and v-0 hold the same blocks (mirror set 0) and are both on a");
        assert_eq!(said(&four("b")[..3]), "mirror set 1 has 1 legs and not 2");
        assert_eq!(said(&[leg(2, 1, "a"), leg(3, 1, "b")]), "mirror set 0 has 0 legs and not 2");
        assert_eq!(said(&[]), "mirror set 0 has 0 legs and not 1");
        let wrong = [leg(0, 0, "a"), leg(2, 0, "b"), leg(1, 1, "a"), leg(3, 1, "b")];
        assert_eq!(said(&wrong), "slot 2 of v-2 is not one of mirror set 0, or another leg has it");
        assert!(said(&[leg(0, 0, "a"), leg(0, 0, "b")]).starts_with("slot 0 of v-0 is not one of mirror set 0"));
    }

    #[test]
    fn a_leg_that_takes_the_place_of_one_that_is_there_makes_no_other_shape() {
        let next = |slot: i32, set: i32, node: &str, of: &str| {
            let mut next = leg(slot, set, node);
            next.metadata.name = Some(format!("{of}.1"));
            next.spec.replaces = Some(of.to_owned());
            next
        };
        let both = [leg(0, 0, "a"), leg(1, 0, "b"), next(1, 0, "b", "v-1")];
        assert_eq!(Geometry::of_legs(&both), Ok(Geometry::new(2, 1)));
        assert_eq!(Geometry::about(&both), Geometry::new(2, 1));
        // The first is gone: then it counts itself.
        let after = [leg(0, 0, "a"), next(1, 0, "a", "v-1")];
        assert!(Geometry::of_legs(&after).unwrap_err().to_string().contains("are both on a"));
        // A single copy moves to the other slot of its set, and the array keeps its slots.
        let moved = [next(1, 0, "b", "v-0"), leg(2, 1, "a")];
        assert_eq!(Geometry::about(&moved).slots(), 4);
    }

    #[test]
    fn copies_are_those_of_the_worst_set() {
        let legs = [leg(0, 0, "a"), leg(1, 0, "b"), leg(2, 1, "a"), leg(3, 1, "b")];
        assert_eq!(copies(&legs, |_| true), 2);
        assert_eq!(copies(&legs, |l| l.spec.slot != 2), 1);
        assert_eq!(copies(&legs, |l| l.spec.mirror_set == 0), 0);
        assert_eq!(copies(&[], |_| true), 0);
    }
}
