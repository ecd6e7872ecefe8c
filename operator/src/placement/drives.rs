//! Which drives a policy's rules leave: each rule by name, one after another.

use super::filters::{Dropped, drop_by};
use kube::ResourceExt as _;
use meshstor_crds::{Drive, MeshNode, Placement, quantity};
use std::collections::{BTreeMap, BTreeSet};

/// A rule: its name, and what of a drive is against it.
struct Rule {
    filter: &'static str,
    against: fn(&MeshNode, &Drive, &Placement) -> Option<String>,
}

const RULES: [Rule; 4] = [
    Rule { filter: "DriveModel", against: model },
    Rule { filter: "DriveSize", against: size },
    Rule { filter: "DriveSector", against: sector },
    Rule { filter: "DriveSelector", against: labels },
];

/// The drives of `node` that pass every rule.
///
/// # Errors
/// The first rule that leaves none, and what each drive that was left before it has instead.
pub(super) fn wanted<'a>(
    node: &MeshNode,
    drives: Vec<&'a Drive>,
    rules: &Placement,
) -> Result<Vec<&'a Drive>, Dropped> {
    let mut left = drives;
    for rule in &RULES {
        let looked: Vec<_> = left.into_iter().map(|drive| (drive, (rule.against)(node, drive, rules))).collect();
        left = looked.iter().filter(|(_, against)| against.is_none()).map(|(drive, _)| *drive).collect();
        if left.is_empty() {
            let found: BTreeSet<String> = looked.into_iter().filter_map(|(_, against)| against).collect();
            let found: Vec<String> = found.into_iter().collect();
            return Err(drop_by(rule.filter, format!("has {}", found.join(", "))));
        }
    }
    Ok(left)
}

/// Why one drive of `node` does not pass.
pub(super) fn unwanted(node: &MeshNode, drive: &Drive, rules: &Placement) -> Option<String> {
    RULES.iter().find_map(|rule| (rule.against)(node, drive, rules)).map(|found| format!("has {found}"))
}

fn model(_: &MeshNode, drive: &Drive, rules: &Placement) -> Option<String> {
    let wanted = &rules.drive_models;
    let named = wanted.is_empty() || drive.model.as_ref().is_some_and(|m| wanted.contains(m));
    (!named).then(|| drive.model.clone().unwrap_or_else(|| "unknown".to_owned()))
}

/// A bound that is no quantity passed no admission, and binds nobody.
fn size(_: &MeshNode, drive: &Drive, rules: &Placement) -> Option<String> {
    let bound = |text: &Option<String>| text.as_ref().and_then(|t| quantity::bytes(t).ok());
    let has = u64::try_from(drive.size_bytes).unwrap_or(0);
    let small = bound(&rules.drive_min_size).is_some_and(|least| has < least);
    let large = bound(&rules.drive_max_size).is_some_and(|most| has > most);
    (small || large).then(|| format!("{} bytes", drive.size_bytes))
}

fn sector(_: &MeshNode, drive: &Drive, rules: &Placement) -> Option<String> {
    let wanted = &rules.drive_sector_sizes;
    let right = wanted.is_empty() || wanted.contains(&drive.logical_sector_size);
    (!right).then(|| format!("{}-byte logical sectors", drive.logical_sector_size))
}

fn labels(node: &MeshNode, drive: &Drive, rules: &Placement) -> Option<String> {
    let none = BTreeMap::new();
    let said = node.spec.drives.iter().find(|d| d.id == drive.id).map_or(&none, |d| &d.labels);
    let (key, value) = rules.drive_selector.iter().find(|(key, value)| said.get(*key) != Some(value))?;
    let found = said.get(key).map_or_else(|| format!("no {key}"), |other| format!("{key}={other}"));
    Some(format!("{found}, not {value:?} (label it in spec.drives of MeshNode {})", node.name_any()))
}
