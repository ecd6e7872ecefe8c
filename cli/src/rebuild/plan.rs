//! From what was found to volumes that take it over, or to why not. Pure.

use super::assemble;
use super::found::Found;
use super::refusal::Refusal;
use super::standing::Standing;
use meshstor_crds::{Filesystem, MeshVolume};
use std::collections::{BTreeMap, BTreeSet};

/// What a person says beside what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The volume's name, where labels were too short for it.
    pub name: Option<String>,
    /// Copies, where they cannot be told.
    pub copies: Option<u32>,
    /// Filesystem, for mounts.
    pub filesystem: Option<Filesystem>,
    /// The volume's policy.
    pub policy: Option<String>,
    /// Legs that were not found are given up, with what only they have.
    pub accept_missing: bool,
    /// The in-sync set, as a person knows it.
    pub start_from: BTreeSet<String>,
    /// The record begins with this epoch or a later one.
    pub epoch_at_least: i64,
}

/// What becomes of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It becomes a leg, under this name.
    Leg(String),
    /// Another has its place: it stays in quarantine.
    Left,
}

/// One partition of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What was found.
    pub found: Found,
    /// What it is worth.
    pub standing: Standing,
    /// What becomes of it.
    pub fate: Fate,
}

/// One array that was found, and what is made of it.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumePlan {
    /// Its volume, as far as that is known.
    pub volume: String,
    /// Array UUID; none where no superblock was found.
    pub array: Option<String>,
    /// Its partitions.
    pub lines: Vec<Line>,
    /// The object that is made, from which all others follow; or why it is not.
    pub made: Result<Box<MeshVolume>, Vec<Refusal>>,
}

/// One plan for each array that was found, and one for each volume of which there are only partitions without a superblock.
pub fn plan(found: &[Found], options: &Options) -> Vec<VolumePlan> {
    let mut arrays: BTreeMap<&str, Vec<&Found>> = BTreeMap::new();
    for leg in found {
        if let Some(member) = &leg.member {
            arrays.entry(&member.array).or_default().push(leg);
        }
    }
    let names: Vec<(String, &str)> =
        arrays.iter().map(|(array, legs)| (assemble::volume(legs, options), *array)).collect();
    let mut orphans: BTreeMap<String, Vec<&Found>> = BTreeMap::new();
    for leg in found.iter().filter(|leg| leg.member.is_none()) {
        let volume = leg.named().map_or_else(|| leg.label.clone(), |(volume, ..)| volume.to_owned());
        // Whose it is where two arrays have one name nobody can tell.
        let mut of = names.iter().filter(|(name, _)| *name == volume);
        match (of.next().and_then(|(_, array)| arrays.get_mut(array)), of.next()) {
            (Some(legs), None) => legs.push(leg),
            _ => orphans.entry(volume).or_default().push(leg),
        }
    }
    let whole = arrays.into_iter().map(|(array, legs)| assemble::array(array, &legs, options));
    let empty = orphans.into_iter().map(|(volume, legs)| VolumePlan {
        volume,
        array: None,
        lines: legs.into_iter().map(orphan).collect(),
        made: Err(vec![Refusal::NeverWritten]),
    });
    whole.chain(empty).collect()
}

fn orphan(leg: &Found) -> Line {
    Line { found: leg.clone(), standing: Standing::NoSuperblock, fate: Fate::Left }
}
