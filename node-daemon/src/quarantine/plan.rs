//! From what was looked at to what the node's status says, and to what is done. Pure.

use std::collections::BTreeMap;

use meshstor_crds::{FoundLeg, Quarantined, Time};
use uuid::Uuid;

use super::{Inspected, Thing};
use crate::host::FoundFacts;

/// Characters of a message, as the type bounds it.
const MESSAGE_MAX: usize = 1024;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Take down a connection that nobody uses. Nobody asked for it.
    Release(Thing),
    /// Erase, stop, close or take down what a person named.
    Wipe(Thing),
}

impl Step {
    /// What it is about.
    pub fn thing(&self) -> &Thing {
        match self {
            Self::Release(thing) | Self::Wipe(thing) => thing,
        }
    }
}

/// What the status says, and what is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// By identity.
    pub items: BTreeMap<String, Quarantined>,
    /// In the order in which things let go of each other.
    pub steps: Vec<Step>,
}

/// `old` is what was in quarantine before, `wipe` what a person named.
pub fn plan(node: &str, seen: &[Inspected], old: &BTreeMap<String, Quarantined>, wipe: &[String], now: &Time) -> Plan {
    let mut plan = Plan::default();
    for one in seen {
        let id = one.thing.id();
        let asked = wipe.contains(&id);
        let before = old.get(&id);
        // A line that was there before the thing was is of another time: it counts when it is written again.
        let spent = asked && before.is_none_or(|b| b.wipe_spent);
        let mut item = item(node, one, seen, before.map_or(now, |b| &b.since));
        item.wipe_spent = spent;
        let unused = one.users.is_empty();
        match (&one.thing, asked) {
            (Thing::Connection(_), _) if unused => plan.steps.push(Step::Release(one.thing.clone())),
            (_, true) if spent => {
                item.message = refused(
                    &item.message,
                    "spec.wipe named it before it was here: take the line out, and put it in again",
                );
            }
            (_, true) if unused => plan.steps.push(Step::Wipe(one.thing.clone())),
            (_, true) => item.message = refused(&item.message, "it is in use"),
            _ => {}
        }
        plan.items.insert(id, item);
    }
    plan.steps.sort_by_key(|step| step.thing().rank());
    plan
}

/// The message of an item that is not wiped although somebody asked for it.
pub fn refused(message: &str, why: &str) -> String {
    cut(&format!("not wiped: {why}. {message}"), MESSAGE_MAX)
}

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

fn some(text: &str, most: usize) -> Option<String> {
    Some(cut(text, most)).filter(|t| !t.is_empty())
}

fn item(node: &str, one: &Inspected, all: &[Inspected], now: &Time) -> Quarantined {
    let found = one.found.as_ref().and_then(|f| f.as_ref().ok());
    let volume = volume(one, all);
    let path = match &one.thing {
        Thing::Array(array) => Some(&array.device),
        Thing::Connection(connection) => connection.device.as_ref(),
        Thing::Export(_) => None,
        Thing::Partition(_) => found.and_then(|f| f.device.as_ref()),
    };
    let drive = match &one.thing {
        Thing::Partition(leg) => some(&leg.drive, 128),
        _ => None,
    };
    Quarantined {
        id: one.thing.id(),
        kind: one.thing.kind(),
        drive,
        path: path.and_then(|p| some(&p.display().to_string(), 128)),
        first_byte: found.map(|f| number(f.first_byte)),
        size_bytes: found.map(|f| number(f.size)),
        label: found.and_then(|f| some(&f.label, 64)),
        message: cut(&message(node, one, volume.as_deref()), MESSAGE_MAX),
        volume,
        since: now.clone(),
        leg: found.map(leg),
        in_use: some(&one.users.join("; "), 512),
        wipe_spent: false,
    }
}

/// By the superblock, else by the label; an array by a partition that is of it, an export by the one that it opens.
fn volume(one: &Inspected, all: &[Inspected]) -> Option<String> {
    let partitions = || all.iter().filter_map(|i| i.found.as_ref()?.as_ref().ok());
    let found = match &one.thing {
        Thing::Partition(_) => one.found.as_ref()?.as_ref().ok(),
        Thing::Array(array) => partitions().find(|f| array_of(f) == Some(array.uuid)),
        Thing::Export(nqn) => partitions().find(|f| f.exports.contains(nqn)),
        Thing::Connection(_) => None,
    }?;
    let named = found.superblock.as_ref().ok().and_then(|s| s.as_ref()?.name.strip_prefix("meshstor:"));
    let labelled = || found.label.rsplit_once('-').map(|(volume, _)| volume);
    named.or_else(labelled).and_then(|name| some(name, 64))
}

fn array_of(found: &FoundFacts) -> Option<Uuid> {
    found.superblock.as_ref().ok()?.as_ref().map(|s| s.uuid)
}

fn message(node: &str, one: &Inspected, volume: Option<&str>) -> String {
    let id = one.thing.id();
    let wipe = format!("meshstor quarantine wipe {node} {id}");
    let adopt = format!("meshstor rebuild-objects --volume {}", volume.unwrap_or("NAME"));
    match &one.thing {
        Thing::Partition(_) => {
            let doubt = match &one.found {
                Some(Err(error)) => format!("; it cannot be read: {error}"),
                Some(Ok(FoundFacts { superblock: Err(what), .. })) => {
                    format!("; at its superblock's place there is {what}")
                }
                _ => String::new(),
            };
            format!(
                "a partition of a leg that no MeshReplica names{doubt}. It is kept, for it may be all that is left of a volume. \
                 To make the objects of its volume again: {adopt}; to erase it: {wipe}"
            )
        }
        Thing::Array(_) => format!(
            "an array of a volume that no object names. It runs on, for whoever uses it. To make the objects of its volume again: {adopt}; \
             to stop it, which erases nothing: {wipe}"
        ),
        Thing::Export(_) => format!(
            "an export of a leg that no MeshReplica names. It stays open, for its host may come back to it with writes that it holds. To close \
             it, which erases nothing: {wipe}"
        ),
        Thing::Connection(_) => format!(
            "a connection to a leg that no MeshReplica names. It goes as soon as nobody uses it; to make the objects of its volume again: {adopt}"
        ),
    }
}

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// What a partition says, in the words of the API.
fn leg(found: &FoundFacts) -> FoundLeg {
    let ledger = found.ledger.as_ref();
    let bare = FoundLeg {
        ledger_epoch: ledger.map(|l| l.epoch),
        ledger_blank: ledger.map(|l| l.blank),
        ledger_spent_grant: ledger.map(|l| l.spent_grant),
        ledger_lost: found.ledger_lost,
        ..FoundLeg::default()
    };
    let Ok(Some(sb)) = &found.superblock else { return bare };
    FoundLeg {
        array_uuid: Some(sb.uuid.to_string()),
        array_name: some(&sb.name, 64),
        level: Some(sb.level),
        slots: Some(sb.slots.into()),
        near_copies: sb.near_copies.map(i64::from),
        slot: sb.slot.map(i64::from),
        active_slots: sb.active_slots.iter().take(384).map(|s| i64::from(*s)).collect(),
        number: Some(sb.number.into()),
        roles: sb.roles.iter().take(384).map(|r| r.map_or(-1, i64::from)).collect(),
        rebuilding: sb.rebuilding,
        events: Some(number(sb.events)),
        component_bytes: Some(number(sb.component)),
        bitmap: sb.bitmap,
        clean: Some(sb.clean),
        ..bare
    }
}
