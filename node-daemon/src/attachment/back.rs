//! Legs that were away come back: protocol step 10, rule 7.

use meshstor_crds::Bitmap;

use super::{Leg, RETURNS, Step, View, replace, start};
use crate::host::{ArrayFacts, ArrayMember};

/// One leg at a time comes back: by the bitmap where the record says that it may, else by a full rebuild.
pub(super) fn step(view: &View<'_>, array: &ArrayFacts) -> Option<Step> {
    if !view.term()?.initialised {
        return None;
    }
    let outside = || view.legs.iter().filter(|l| !view.in_set(l.name()) && !view.left(l));
    if let Some(leg) = outside().find(|l| view.reached(l) && !view.holds(l)) {
        return Some(Step::RecordInSync { leg: leg.name().to_owned() });
    }
    let full = array.members.len() >= usize::try_from(array.slots).unwrap_or(usize::MAX);
    // A RAID10 takes a leg into a named slot only while nothing is copied.
    let full = full || (array.sync.is_some() && view.striped());
    if outside().any(|l| view.member(l).is_some()) {
        return None;
    }
    // What is filled beside a member needs no empty slot, but nothing else may be copied.
    let room = |leg: &&Leg<'_>| match replace::beside(view, leg) {
        Some(_) => array.sync.is_none() && array.sync_max.is_none(),
        None => !full,
    };
    // A leg whose drive fails would be lost again: it waits to be replaced.
    outside().filter(|leg| !view.failing(leg)).filter(room).find_map(|leg| one(view, array, leg))
}

fn one(view: &View<'_>, array: &ArrayFacts, leg: &Leg<'_>) -> Option<Step> {
    if leg.local.is_none() && view.current(leg).is_none() {
        return start::connect(view, leg);
    }
    if leg.local.is_some_and(|f| f.held_by.is_some()) {
        return None;
    }
    let device = view.device(leg)?;
    let name = leg.name().to_owned();
    let key = view.current(leg).map_or_else(|| name.clone(), |c| c.nqn.clone());
    let write_mostly = leg.local.is_none() && view.avoids_remote()?;
    let member = ArrayMember { device: device.clone(), slot: leg.slot(), write_mostly };
    let on = array.device.clone();
    // It is connected, erased, and waits for its turn.
    let later = leg.replica.spec.grant.as_ref().is_some_and(|g| g.copy_later);
    if later && (view.named(&name) || view.memory.erased.contains(&key)) {
        return None;
    }
    if let Some(step) = forget_others(view, array, &name).filter(|_| !later) {
        return Some(step);
    }
    if view.named(&name) {
        return match by_bitmap(view, array, &key) {
            // Bits that are set while something is copied would be lost to it.
            true if array.sync.is_some() => None,
            true => Some(Step::Readd { leg: name, key, device: on, member }),
            // Recorded first: a rebuild that is cut off leaves a superblock that looks like that of a leg that may return.
            false => Some(Step::Forget { legs: vec![name] }),
        };
    }
    if !view.memory.erased.contains(&key) {
        return Some(Step::ZeroSuperblock { leg: name, key, device });
    }
    if let Some(old) = replace::beside(view, leg) {
        let old = view.member(old).filter(|m| m.in_sync && !m.faulty)?.name.clone();
        return Some(Step::ReplaceMember { leg: name, device: on, old, member });
    }
    Some(Step::AddMember { leg: name, device: on, member })
}

fn by_bitmap(view: &View<'_>, array: &ArrayFacts, key: &str) -> bool {
    let refused = view.memory.refused.get(key).is_some_and(|n| *n >= RETURNS);
    view.keeps_bits() && array.bitmap == Some(Bitmap::Internal) && !refused
}

/// An array that is whole clears its bits: where the last slot may be filled now, they are no proof for any other leg.
fn forget_others(view: &View<'_>, array: &ArrayFacts, name: &str) -> Option<Step> {
    let fills = array.members.len() + 1 >= usize::try_from(array.slots).unwrap_or(0);
    let others: Vec<String> = view.term()?.bitmap_usable.iter().filter(|l| *l != name).cloned().collect();
    (fills && !others.is_empty()).then_some(Step::Forget { legs: others })
}
