//! Which of the found legs hold every acknowledged write, by their superblocks alone.
//!
//! What makes this possible is rule 5: before a write is acknowledged without a leg, MD has written into the superblocks of all
//! that have it that this leg is no member. So a leg that lacks something is called missing by every leg that has it. From
//! that:
//!
//! - A leg that *nobody* calls missing holds everything, if at least one leg that does was found. Whether one was: see [`unfound`].
//! - Who was called missing only by legs that are themselves called missing by such a leg, and is known to all of those,
//!   came back after that.
//! - The number of a device may be given to another when it has left, so a leg that left long ago can look like its heir. While it was
//!   away its event counter stood still: who lags behind the others by more than a write that a power cut tore does not hold
//!   everything. That is the only use of it, and it only makes the set smaller: that one keeps up proves nothing (rule 7).

use super::found::{Found, Member};
use std::fmt::{self, Display};

/// What a leg is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It holds every acknowledged write.
    InSync,
    /// These legs, by their labels, call it missing.
    Missing(Vec<String>),
    /// It was being filled.
    Filling,
    /// It had no slot: it was a spare, or had failed.
    NoSlot,
    /// Its event counter lags behind.
    Behind,
    /// It has no superblock: it was never in an array, or was about to be filled anew.
    NoSuperblock,
}

impl Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InSync => write!(f, "in sync: nobody whose word counts calls it missing"),
            Self::Missing(by) => write!(f, "out: called missing by {}", by.join(", ")),
            Self::Filling => write!(f, "out: it was being filled"),
            Self::NoSlot => write!(f, "out: it was a spare, or had failed"),
            Self::Behind => write!(f, "out: its superblock is older than the others'"),
            Self::NoSuperblock => write!(f, "out: it has no superblock"),
        }
    }
}

/// The standing of each of `legs`, which are of one array.
pub fn standings(legs: &[&Found]) -> Vec<Standing> {
    let mut standings: Vec<Standing> = legs.iter().map(|leg| alone(leg, legs)).collect();
    let heard = |standings: &[Standing], i: usize| standings[i] == Standing::InSync;
    let base: Vec<&Member> =
        (0..legs.len()).filter(|i| heard(&standings, *i)).filter_map(|i| legs[i].member.as_ref()).collect();
    for (i, leg) in legs.iter().enumerate() {
        let Some(member) = &leg.member else { continue };
        if matches!(standings[i], Standing::Missing(_)) && came_back(member, &base, legs) {
            standings[i] = Standing::InSync;
        }
    }
    let highest = base.iter().map(|member| member.events).max().unwrap_or(0);
    for (standing, leg) in standings.iter_mut().zip(legs) {
        let events = leg.member.as_ref().map_or(0, |member| member.events);
        if *standing == Standing::InSync && events.saturating_add(1) < highest {
            *standing = Standing::Behind;
        }
    }
    standings
}

/// By what each says of itself, and all others say of it.
fn alone(leg: &Found, legs: &[&Found]) -> Standing {
    let Some(member) = &leg.member else { return Standing::NoSuperblock };
    match (member.slot, member.filling) {
        (None, _) => return Standing::NoSlot,
        (_, true) => return Standing::Filling,
        _ => {}
    }
    let by: Vec<String> = accusers(member, legs).map(|other| other.label.clone()).collect();
    if by.is_empty() { Standing::InSync } else { Standing::Missing(by) }
}

fn accusers<'a>(member: &'a Member, legs: &'a [&Found]) -> impl Iterator<Item = &'a Found> {
    legs.iter().copied().filter(move |other| other.member.as_ref().is_some_and(|other| !other.knows(member)))
}

/// All who call it missing are called missing by somebody of `base`, and all of `base` know it.
fn came_back(member: &Member, base: &[&Member], legs: &[&Found]) -> bool {
    let refuted = |other: &Found| other.member.as_ref().is_some_and(|other| base.iter().any(|b| !b.knows(other)));
    !base.is_empty() && base.iter().all(|b| b.knows(member)) && accusers(member, legs).all(refuted)
}

/// Slots of which a leg of `in_sync` says that they had a member which was not found: that one may have gone on alone.
///
/// Where there is none, a leg that holds everything is among those found. For suppose that it is not: of the members that a leg of
/// `in_sync` knew some went on without it; these were found, and would call it missing.
pub fn unfound(in_sync: &[&Member], all: &[&Member]) -> Vec<u32> {
    let there = |number: usize, slot: u32| {
        all.iter().any(|m| m.slot == Some(slot) && m.number.and_then(|n| usize::try_from(n).ok()) == Some(number))
    };
    let lacking = |member: &&Member| {
        let roles = member.roles.iter().enumerate();
        roles.filter_map(|(n, slot)| slot.filter(|slot| !there(n, *slot))).collect::<Vec<_>>()
    };
    let mut slots: Vec<u32> = in_sync.iter().flat_map(lacking).collect();
    slots.sort_unstable();
    slots.dedup();
    slots
}
