//! One array: its name, its shape, who has which slot, and which legs the volume starts from. Pure.

use super::found::{Found, Member, Told};
use super::plan::{Fate, Line, Options, VolumePlan};
use super::refusal::Refusal;
use super::seats::{Seated, leg_name, seats, slot};
use super::standing::{Standing, standings, unfound};
use meshstor_crds::geometry::HEADROOM;
use meshstor_crds::naming::{self, HOMEHOST};
use meshstor_crds::{AdoptedLeg, Adoption, Geometry, MIB, MeshVolume, MeshVolumeSpec, VOLUME_FINALIZER};
use std::collections::{BTreeMap, BTreeSet};

/// What the epoch of the record has over the highest that was found, where some legs could not be asked: more than a volume comes
/// to in years, so that no epoch is used twice.
const MARGIN: i64 = 1_000_000;

/// The name of the volume of `legs`, as far as it can be told.
pub fn volume(legs: &[&Found], options: &Options) -> String {
    let labelled = legs.iter().find_map(|leg| leg.named()).map(|(volume, ..)| volume.to_owned());
    let metadata = || legs.iter().find_map(|leg| leg.member.as_ref()?.name.split_once(':'));
    options.name.clone().or(labelled).or_else(|| metadata().map(|(_, name)| name.to_owned())).unwrap_or_default()
}

/// The plan for the array `array` of `legs`.
pub fn array(array: &str, legs: &[&Found], options: &Options) -> VolumePlan {
    let volume = volume(legs, options);
    let mut standings = standings(legs);
    let mut refusals = start_from(legs, &mut standings, options);
    refusals.extend(sound(&volume, legs));
    refusals.extend(legs.iter().filter_map(|leg| {
        let by = leg.in_use.clone()?;
        Some(Refusal::InUse { partition: leg.place(), by })
    }));
    let Some(shape) = legs.iter().find_map(|leg| leg.member.as_ref()) else {
        return VolumePlan { volume, array: None, lines: Vec::new(), made: Err(vec![Refusal::NeverWritten]) };
    };
    let seats = seats(&volume, legs, &standings, options, &mut refusals);
    let lines = lines(&volume, legs, &standings, &seats);
    let made = if refusals.is_empty() { adopt(&volume, shape, legs, &seats, &lines, options) } else { Err(refusals) };
    VolumePlan { volume, array: Some(array.to_owned()), lines, made: made.map(Box::new) }
}

/// A person's word on the in-sync set goes before the superblocks', but not for what cannot hold everything.
fn start_from(legs: &[&Found], standings: &mut [Standing], options: &Options) -> Vec<Refusal> {
    let chosen = &options.start_from;
    if chosen.is_empty() {
        return Vec::new();
    }
    let refuse = |leg: &str, why: &str| Refusal::StartFrom { leg: leg.to_owned(), why: why.to_owned() };
    let mut refusals: Vec<Refusal> = chosen
        .iter()
        .filter_map(|name| match legs.iter().filter(|leg| leg.label == *name).count() {
            0 => Some(refuse(name, "it was not found")),
            1 => None,
            _ => Some(refuse(name, "several partitions have this label")),
        })
        .collect();
    for (leg, standing) in legs.iter().zip(standings) {
        match (chosen.contains(&leg.label), &*standing) {
            (true, Standing::Filling | Standing::NoSlot | Standing::NoSuperblock) => {
                refusals.push(refuse(&leg.label, &standing.to_string()));
            }
            (true, _) => *standing = Standing::InSync,
            (false, Standing::InSync) => *standing = Standing::Missing(vec!["--start-from".to_owned()]),
            (false, _) => {}
        }
    }
    refusals
}

/// Names, shapes and sizes agree with each other, and with what MeshStor makes.
fn sound(volume: &str, legs: &[&Found]) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let name = format!("{HOMEHOST}:{}", naming::array_name(volume));
    let shape = |m: &Member| (m.level, m.slots, m.set_slots(), m.component);
    let first = legs.iter().find_map(|leg| leg.member.as_ref()).map(shape);
    if volume.is_empty() || volume.len() > 52 || !dns(volume) {
        refusals.push(Refusal::BadName(volume.to_owned()));
    }
    for leg in legs {
        let odd = |what: String| Refusal::Shape { partition: leg.place(), what };
        let labelled = match leg.named() {
            Some((of, ..)) => of == volume,
            None => leg.is_cut() && leg_name(volume, leg).is_some_and(|name| name.starts_with(&leg.label)),
        };
        let metadata = leg.member.as_ref().map_or(name.as_str(), |m| m.name.as_str());
        if !labelled || metadata != name {
            let (partition, label) = (leg.place(), leg.label.clone());
            refusals.push(Refusal::Names { partition, label, name: metadata.to_owned() });
        }
        let Some(member) = &leg.member else { continue };
        let (level, slots, set, component) = shape(member);
        let copies =
            (2..=4).contains(&set) && slots.is_multiple_of(set.max(1)) && (1..=8).contains(&(slots / set.max(1)));
        if Some(shape(member)) != first || !copies || (level == 1) != (slots == set) || ![1, 10].contains(&level) {
            refusals
                .push(odd(format!("level {level}, {slots} slots, {set} of a mirror set, {component} bytes a member")));
        }
        if component + HEADROOM != leg.bytes || !component.is_multiple_of(MIB) {
            refusals.push(odd(format!("{} bytes for members of {component}", leg.bytes)));
        }
        let own = i32::try_from(member.slot.unwrap_or(0)).ok();
        // MD puts a leg that comes back into the first free slot of a RAID1, where all slots are alike.
        let right = member.slot.is_none() || level == 1 || own == slot(leg);
        if !right || slot(leg).is_some_and(|s| u32::try_from(s).is_ok_and(|s| s >= slots)) {
            refusals.push(Refusal::Slot { partition: leg.place(), found: member.slot.unwrap_or(0) });
        }
    }
    refusals
}

fn dns(name: &str) -> bool {
    let part = |p: &str| {
        let inner = p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        !p.is_empty() && inner && !p.starts_with('-') && !p.ends_with('-')
    };
    name.split('.').all(part)
}

fn lines(volume: &str, legs: &[&Found], standings: &[Standing], seats: &BTreeMap<i32, Seated<'_>>) -> Vec<Line> {
    let of = |(leg, standing): (&&Found, &Standing)| {
        let seated = seats.values().any(|s| s.found.partition == leg.partition && s.found.node == leg.node);
        let name = leg_name(volume, leg).filter(|_| seated);
        Line { found: (*leg).clone(), standing: standing.clone(), fate: name.map_or(Fate::Left, Fate::Leg) }
    };
    legs.iter().zip(standings).map(of).collect()
}

/// The volume that takes the array over.
fn adopt(
    volume: &str,
    shape: &Member,
    legs: &[&Found],
    seats: &BTreeMap<i32, Seated<'_>>,
    lines: &[Line],
    options: &Options,
) -> Result<MeshVolume, Vec<Refusal>> {
    let mut refusals = Vec::new();
    let width = shape.slots / shape.set_slots();
    let copies = copies(shape, seats, options, &mut refusals);
    let geometry = Geometry::new(copies, width);
    let seats = kept(copies, shape, seats);
    let in_sync: Vec<&Member> = seats.values().filter(|s| s.in_sync).filter_map(|s| s.found.member.as_ref()).collect();
    let all: Vec<&Member> = legs.iter().filter_map(|leg| leg.member.as_ref()).collect();
    let unfound = unfound(&in_sync, &all);
    if !options.accept_missing {
        refusals.extend(unfound.iter().map(|slot| Refusal::NotFound { slot: *slot }));
    }
    refusals.extend((0..width).filter_map(|set| uncovered(set, shape, &seats, lines)));
    let mut adopted: Vec<AdoptedLeg> =
        seats.iter().filter_map(|(slot, seat)| leg(volume, shape, *slot, seat)).collect();
    adopted.extend(
        geometry.legs().filter(|(slot, set)| free(copies, &seats, *slot, *set, shape)).map(|at| lost(volume, at)),
    );
    adopted.sort_by_key(|leg| leg.slot);
    refusals.extend(one_node(&adopted));
    let Some(filesystem) = options.filesystem else {
        refusals.push(Refusal::Filesystem);
        return Err(refusals);
    };
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let known = unfound.is_empty() && adopted.iter().all(|leg| leg.partition_uuid.is_some());
    let spec = MeshVolumeSpec {
        capacity: format!("{}Mi", shape.component * u64::from(width) / MIB),
        replica_count: i32::try_from(copies).unwrap_or(1),
        stripe_width: i32::try_from(width).unwrap_or(1),
        filesystem,
        policy: options.policy.clone(),
        bitmap: in_sync.iter().find_map(|m| m.bitmap),
        preferred_node: None,
        adopts: Some(Adoption {
            array_uuid: shape.array.clone(),
            epoch: epoch(legs, known).max(options.epoch_at_least),
            retired: retired(volume, legs, &adopted),
            legs: adopted,
        }),
    };
    let mut object = MeshVolume::new(volume, spec);
    object.metadata.finalizers = Some(vec![VOLUME_FINALIZER.to_owned()]);
    Ok(object)
}

/// Copies: as many as a mirror set has slots, but for the array of a single copy, which has a second slot that stays empty.
fn copies(shape: &Member, seats: &BTreeMap<i32, Seated<'_>>, options: &Options, refusals: &mut Vec<Refusal>) -> u32 {
    let slots = shape.set_slots();
    let mut sets: BTreeMap<u32, (usize, usize)> = BTreeMap::new();
    for (slot, seated) in seats {
        let set = sets.entry(shape.set_of(u32::try_from(*slot).unwrap_or(0))).or_default();
        *set = (set.0 + 1, set.1 + usize::from(seated.in_sync));
    }
    let (most, most_good) = sets.values().fold((0, 0), |(a, b), (all, good)| (a.max(*all), b.max(*good)));
    match options.copies {
        None if slots == 2 && most < 2 && !options.accept_missing => refusals.push(Refusal::Copies),
        Some(1) if slots == 2 && most_good < 2 => return 1,
        Some(asked) if asked != slots => refusals.push(Refusal::BadCopies { asked, slots, legs: most }),
        _ => {}
    }
    slots
}

/// The seats that the volume has: of a single copy's mirror set one, that of its leg in sync.
fn kept<'a>(copies: u32, shape: &Member, seats: &BTreeMap<i32, Seated<'a>>) -> BTreeMap<i32, Seated<'a>> {
    let beside = |slot: i32| {
        let set = shape.set_of(u32::try_from(slot).unwrap_or(0));
        seats.iter().any(|(s, seat)| seat.in_sync && *s != slot && shape.set_of(u32::try_from(*s).unwrap_or(0)) == set)
    };
    let stays = |slot: i32, seat: &Seated<'_>| copies > 1 || seat.in_sync || !beside(slot);
    seats.iter().filter(|(slot, seat)| stays(**slot, seat)).map(|(slot, seat)| (*slot, *seat)).collect()
}

/// Whether no leg has the place `slot` of mirror set `set`.
fn free(copies: u32, seats: &BTreeMap<i32, Seated<'_>>, slot: i32, set: i32, shape: &Member) -> bool {
    let of = |s: i32| i32::try_from(shape.set_of(u32::try_from(s).unwrap_or(0))).ok();
    if copies == 1 { !seats.keys().any(|s| of(*s) == Some(set)) } else { !seats.contains_key(&slot) }
}

/// Why mirror set `set` cannot be started.
fn uncovered(set: u32, shape: &Member, seats: &BTreeMap<i32, Seated<'_>>, lines: &[Line]) -> Option<Refusal> {
    let of = |slot: Option<i32>| slot.and_then(|s| u32::try_from(s).ok()).is_some_and(|s| shape.set_of(s) == set);
    if seats.iter().any(|(slot, seat)| of(Some(*slot)) && seat.in_sync) {
        return None;
    }
    let accused = |line: &&Line| matches!(line.standing, Standing::Missing(_) | Standing::Behind);
    let legs: Vec<String> = lines
        .iter()
        .filter(|line| of(slot(&line.found)) && accused(line))
        .map(|line| format!("{}: {}", line.found.place(), line.standing))
        .collect();
    Some(if legs.is_empty() { Refusal::NoCopy(set) } else { Refusal::Ambiguous { set, legs } })
}

fn leg(volume: &str, shape: &Member, slot: i32, seat: &Seated<'_>) -> Option<AdoptedLeg> {
    Some(AdoptedLeg {
        name: leg_name(volume, seat.found)?,
        slot,
        mirror_set: i32::try_from(shape.set_of(u32::try_from(slot).ok()?)).ok()?,
        node: seat.found.node.clone(),
        drive: seat.found.drive.clone(),
        partition_uuid: Some(seat.found.partition.clone()),
        in_sync: seat.in_sync,
    })
}

/// A leg of which nothing was found: an object without a node, so that another takes its place.
fn lost(volume: &str, (slot, mirror_set): (i32, i32)) -> AdoptedLeg {
    let name = naming::leg(volume, slot);
    let (node, drive) = (naming::lost(&name), naming::lost(&name));
    AdoptedLeg { name, slot, mirror_set, node, drive, partition_uuid: None, in_sync: false }
}

fn one_node(legs: &[AdoptedLeg]) -> Vec<Refusal> {
    let mut seen: BTreeMap<(i32, &str), &AdoptedLeg> = BTreeMap::new();
    let mut refusals = Vec::new();
    for leg in legs {
        if let Some(other) = seen.insert((leg.mirror_set, &leg.node), leg) {
            refusals.push(Refusal::OneNode(format!(
                "{} and {} hold the same blocks and are both on {}",
                leg.name, other.name, leg.node
            )));
        }
    }
    refusals
}

/// Names that were found and are no leg's: none of them is ever given to another leg.
fn retired(volume: &str, legs: &[&Found], adopted: &[AdoptedLeg]) -> Vec<String> {
    let names: BTreeSet<String> = legs.iter().filter_map(|leg| leg_name(volume, leg)).collect();
    names.into_iter().filter(|name| adopted.iter().all(|leg| leg.name != *name)).collect()
}

/// No lower than any epoch that a leg was told of. Whoever could not be asked may have been told of more.
fn epoch(legs: &[&Found], known: bool) -> i64 {
    let of = |leg: &&Found| match leg.told {
        Told::Of { epoch, .. } => Some(epoch),
        Told::Unknown => None,
    };
    let highest = legs.iter().filter_map(of).max().unwrap_or(0);
    let all = known && legs.iter().all(|leg| of(leg).is_some());
    if all { highest.max(1) } else { highest.saturating_add(MARGIN) }
}
