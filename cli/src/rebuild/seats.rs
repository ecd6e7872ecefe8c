//! Who has each slot, and under which name. Pure.

use super::found::Found;
use super::plan::Options;
use super::refusal::Refusal;
use super::standing::Standing;
use meshstor_crds::naming;
use std::collections::{BTreeMap, BTreeSet};

/// A leg in its seat.
#[derive(Clone, Copy)]
pub struct Seated<'a> {
    /// The leg.
    pub found: &'a Found,
    /// It holds every acknowledged write.
    pub in_sync: bool,
}

/// Slot of the leg's object: that of its name.
pub fn slot(leg: &Found) -> Option<i32> {
    let labelled = leg.named().map(|(_, slot, _)| slot);
    labelled.or_else(|| leg.member.as_ref()?.slot.and_then(|slot| i32::try_from(slot).ok()))
}

/// Name of the leg's object.
pub fn leg_name(volume: &str, leg: &Found) -> Option<String> {
    if leg.named().is_some() { Some(leg.label.clone()) } else { slot(leg).map(|slot| naming::leg(volume, slot)) }
}

fn generation(leg: &Found) -> u32 {
    leg.named().map_or(0, |(.., generation)| generation)
}

/// Who has each slot.
pub fn seats<'a>(
    volume: &str,
    legs: &[&'a Found],
    standings: &[Standing],
    options: &Options,
    refusals: &mut Vec<Refusal>,
) -> BTreeMap<i32, Seated<'a>> {
    let mut by_slot: BTreeMap<i32, Vec<Seated<'a>>> = BTreeMap::new();
    for (leg, standing) in legs.iter().zip(standings) {
        if let Some(slot) = slot(leg).filter(|_| leg_name(volume, leg).is_some()) {
            let seated = Seated { found: leg, in_sync: *standing == Standing::InSync };
            by_slot.entry(slot).or_default().push(seated);
        }
    }
    let mut seats = BTreeMap::new();
    for (slot, candidates) in by_slot {
        match holder(&candidates, options) {
            Ok(seated) => drop(seats.insert(slot, seated)),
            Err(refusal) => refusals.push(refusal),
        }
    }
    // In a RAID1 labels and slots may differ, but no two members have one slot.
    let mut taken: BTreeMap<u32, &Found> = BTreeMap::new();
    for seated in seats.values().filter(|s| s.in_sync) {
        let slot = seated.found.member.as_ref().and_then(|m| m.slot);
        if let Some(other) = slot.and_then(|slot| taken.insert(slot, seated.found)) {
            refusals.push(Refusal::Contested(vec![other.place(), seated.found.place()]));
        }
    }
    seats
}

/// The one of several partitions of a slot that the volume has. Two of one device number were never in the array together, so the
/// one that was made later took the other's place when that had left for good.
fn holder<'a>(candidates: &[Seated<'a>], options: &Options) -> Result<Seated<'a>, Refusal> {
    let good: Vec<&Seated<'a>> = candidates.iter().filter(|c| c.in_sync).collect();
    let number = |c: &Seated<'_>| c.found.member.as_ref().and_then(|m| m.number);
    let numbers: BTreeSet<Option<u32>> = good.iter().map(|c| number(c)).collect();
    let places = || candidates.iter().map(|c| c.found.place()).collect();
    let from = if good.is_empty() { candidates.iter().collect() } else { good };
    let newest = from.iter().map(|c| generation(c.found)).max().unwrap_or(0);
    let mut newest = from.iter().filter(|c| generation(c.found) == newest);
    match (newest.next(), newest.next()) {
        (Some(one), None)
            if numbers.len() < 2 && (options.start_from.is_empty() || from.len() == 1 || !one.in_sync) =>
        {
            Ok(**one)
        }
        _ => Err(Refusal::Contested(places())),
    }
}
