//! What is news: transitions of a volume's status, each told once.

use super::world::World;
use meshstor_crds::{Condition, MeshVolumeStatus, Term, TermPhase, conditions};

/// An event to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// CamelCase reason, at most 128 characters.
    pub reason: String,
    /// For people, at most 1 kB.
    pub note: String,
    /// Whether it is a warning.
    pub warning: bool,
}

impl Notice {
    /// News.
    pub fn normal(reason: &str, note: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), note: cut(note.into()), warning: false }
    }

    /// News that may need somebody.
    pub fn warning(reason: &str, note: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), note: cut(note.into()), warning: true }
    }
}

/// The API server refuses notes over 1 kB.
fn cut(note: String) -> String {
    const NOTE_MAX: usize = 1000;
    if note.len() <= NOTE_MAX {
        return note;
    }
    let end = (0..=NOTE_MAX).rev().find(|at| note.is_char_boundary(*at)).unwrap_or(0);
    note[..end].to_owned()
}

fn find<'a>(status: &'a MeshVolumeStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|c| c.type_ == type_)
}

/// Whether `type_` has just become `value`; one seen for the first time has not become anything.
fn became<'a>(old: &MeshVolumeStatus, new: &'a MeshVolumeStatus, type_: &str, value: &str) -> Option<&'a Condition> {
    let before = find(old, type_)?;
    find(new, type_).filter(|c| c.status == value && before.status != value)
}

/// The news between two statuses.
pub fn notices(old: &MeshVolumeStatus, new: &MeshVolumeStatus) -> Vec<Notice> {
    let mut news = Vec::new();
    if old.legs.is_empty() && !new.legs.is_empty() {
        let places: Vec<String> = new.legs.iter().map(|l| format!("{} on {}", l.name, l.node)).collect();
        news.push(Notice::normal("Placed", places.join(", ")));
    }
    news.extend(stalled(old, new));
    news.extend(replacing(old, new));
    news.extend(attached(old, new));
    if old.consumer.is_some() && new.consumer.is_none() {
        news.push(Notice::normal("Detached", format!("from {}", old.consumer.as_deref().unwrap_or_default())));
    }
    let degraded = became(old, new, conditions::DEGRADED, "True");
    news.extend(degraded.map(|c| Notice::warning("Degraded", &c.message)));
    let broken = became(old, new, conditions::PLACED_BY_POLICY, "False");
    news.extend(broken.map(|c| Notice::warning(&c.reason, &c.message)));
    let resynced = became(old, new, conditions::RESYNCED, "True")
        .filter(|_| find(old, conditions::RESYNCED).is_some_and(|c| c.status == "False"));
    news.extend(resynced.map(|c| Notice::normal("Resynced", &c.message)));
    news
}

/// The news that an array runs on `node` for a copy.
pub fn copying(node: &str) -> Notice {
    Notice::normal("Copying", format!("its array runs on {node}, for a copy: nobody wants the volume at present"))
}

/// The news of the record that was just written: a move tells each of its steps.
pub fn of_term(world: &World, new: &Term) -> Vec<Notice> {
    let old = world.term();
    let mut news = Vec::new();
    let kept = old.map_or(&[][..], |t| &t.retired);
    let retired: Vec<&str> = new.retired.iter().filter(|l| !kept.contains(l)).map(String::as_str).collect();
    if !retired.is_empty() {
        return vec![Notice::normal("Retired", format!("{}: never used again, wiped in time", retired.join(", ")))];
    }
    match new.phase {
        TermPhase::Revoking => {
            if let Some(old) = old.filter(|_| world.given_up() && world.ended().is_none()) {
                let word = match () {
                    () if world.lost() => "spec.lost",
                    () if world.tainted(&old.node) => crate::node::OUT_OF_SERVICE,
                    () if world.gone(&old.node) => "its node was deleted",
                    () => "it does not answer, and its array ran for a copy alone",
                };
                let note =
                    format!("{} was given up in epoch {} ({word}): it is cut off at every leg", old.node, old.epoch);
                news.push(Notice::warning("ConsumerLost", note));
            }
            let note = format!(
                "epoch {} for {}: {} are asked to let go of older ones",
                new.epoch,
                new.node,
                new.in_sync.join(", ")
            );
            news.push(Notice::normal("Revoking", note));
        }
        TermPhase::Started => {
            let left: Vec<&str> =
                old.iter().flat_map(|t| &t.in_sync).filter(|l| !new.in_sync.contains(l)).map(String::as_str).collect();
            let without = if left.is_empty() {
                String::new()
            } else {
                format!("; without {}, which did not confirm", left.join(", "))
            };
            let note = format!("epoch {} on {} from {}{without}", new.epoch, new.node, new.in_sync.join(", "));
            news.push(Notice { warning: !left.is_empty(), ..Notice::normal("Started", note) });
        }
        TermPhase::Running | TermPhase::Retired => {}
    }
    news
}

fn stalled(old: &MeshVolumeStatus, new: &MeshVolumeStatus) -> Option<Notice> {
    let now = find(new, conditions::STALLED)?;
    let same = find(old, conditions::STALLED).is_some_and(|before| before.reason == now.reason);
    (!same).then(|| Notice::warning(&now.reason, &now.message))
}

/// The first word of a replacement, and each change of whether it can be had.
fn replacing(old: &MeshVolumeStatus, new: &MeshVolumeStatus) -> Option<Notice> {
    let now = find(new, conditions::REPLACING)?;
    let same = find(old, conditions::REPLACING).is_some_and(|before| before.status == now.status);
    let said = if now.status == "True" { Notice::normal } else { Notice::warning };
    (!same).then(|| said("Replacing", now.message.clone()))
}

fn attached(old: &MeshVolumeStatus, new: &MeshVolumeStatus) -> Option<Notice> {
    let is = |s: &MeshVolumeStatus| {
        find(s, conditions::READY).is_some_and(|c| c.status == "True" && c.reason == conditions::REASON_ATTACHED)
    };
    (is(new) && !(is(old) && old.consumer == new.consumer))
        .then(|| Notice::normal("Attached", format!("on {}", new.consumer.as_deref().unwrap_or_default())))
}
