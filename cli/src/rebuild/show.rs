//! What is printed of plans, for people.

use super::found::Told;
use super::plan::{Fate, Line, VolumePlan};
use kube::ResourceExt as _;
use meshstor_crds::MeshVolume;
use std::fmt::Write as _;

/// Everything of `plans`, and the volumes that an earlier run did not come to the end of.
pub fn text(plans: &[VolumePlan], unfinished: &[&MeshVolume]) -> String {
    let rest = |v: &&MeshVolume| format!("Volume {} lacks objects: an earlier run was stopped\n", v.name_any());
    let rest: String = unfinished.iter().map(rest).collect();
    if plans.is_empty() && unfinished.is_empty() {
        return "Nothing was found: no node reports a partition of a leg that belongs to no object.\n".to_owned();
    }
    rest + &plans.iter().map(one).collect::<Vec<_>>().join("\n")
}

fn one(plan: &VolumePlan) -> String {
    let mut out = String::new();
    let array = plan.array.as_ref().map(|uuid| format!(" (array {uuid})")).unwrap_or_default();
    let _ = writeln!(out, "Volume {}{array}", plan.volume);
    let rows: Vec<[String; 7]> = plan.lines.iter().map(row).collect();
    let head = ["LEG", "NODE", "DRIVE", "SLOT", "EPOCH", "EVENTS", "STANDING"].map(str::to_owned);
    let all: Vec<&[String; 7]> = std::iter::once(&head).chain(&rows).collect();
    let width = |at: usize| all.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    for row in all {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(out, "  {}", cells.join("  ").trim_end());
    }
    match &plan.made {
        Ok(volume) => {
            let spec = &volume.spec;
            let legs = spec.adopts.as_ref().map_or(&[][..], |adopts| &adopts.legs);
            let good: Vec<&str> = legs.iter().filter(|leg| leg.in_sync).map(|leg| leg.name.as_str()).collect();
            let lost: Vec<&str> = legs.iter().filter(|l| l.partition_uuid.is_none()).map(|l| l.name.as_str()).collect();
            let epoch = spec.adopts.as_ref().map_or(0, |adopts| adopts.epoch);
            let _ = writeln!(
                out,
                "  Becomes: {}, {} copies over {} drives each; starts from {} after epoch {epoch}",
                spec.capacity,
                spec.replica_count,
                spec.stripe_width,
                good.join(", ")
            );
            if !lost.is_empty() {
                let _ = writeln!(out, "  Not found, replaced by others: {}", lost.join(", "));
            }
        }
        Err(refusals) => {
            for refusal in refusals {
                let _ = writeln!(out, "  Refused: {refusal}");
            }
        }
    }
    out
}

fn row(line: &Line) -> [String; 7] {
    let found = &line.found;
    let number = |n: Option<u64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let epoch = match found.told {
        Told::Of { epoch, .. } => epoch.to_string(),
        Told::Unknown => "unknown".to_owned(),
    };
    let left = if line.fate == Fate::Left { "; another has its place, it stays in quarantine" } else { "" };
    [
        found.label.clone(),
        found.node.clone(),
        found.drive.clone(),
        number(found.member.as_ref().and_then(|m| m.slot).map(u64::from)),
        epoch,
        number(found.member.as_ref().map(|m| m.events)),
        format!("{}{left}", line.standing),
    ]
}
