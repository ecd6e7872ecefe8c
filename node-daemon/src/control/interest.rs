//! Who depends on what of the kernel, by the kernel's names: so that news wakes whom it concerns and nobody else.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::events::News;

/// Whom a worker serves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A `MeshReplica`.
    Leg(String),
    /// A `MeshAttachment`.
    Attachment(String),
}

/// What every worker saw when it last looked.
#[derive(Debug, Default)]
pub struct Interests(Mutex<HashMap<Key, Option<BTreeSet<String>>>>);

/// Whom a piece of news concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Concerned {
    /// Workers that must look.
    pub keys: BTreeSet<Key>,
    /// An array or a controller is among it that no attachment's worker knows.
    pub strangers: bool,
}

impl Interests {
    /// The worker depends on these things; none: it found nothing of its own, so whatever drive comes may bring it.
    pub fn set(&self, key: Key, names: Option<BTreeSet<String>>) {
        self.all().insert(key, names);
    }

    /// The worker is gone.
    pub fn forget(&self, key: &Key) {
        self.all().remove(key);
    }

    /// Whom it concerns.
    pub fn concerned(&self, news: &News) -> Concerned {
        let all = self.all();
        let knows = |names: &BTreeSet<String>, changed: &String| {
            names.contains(changed) || names.iter().any(|n| is_partition_of(n, changed))
        };
        let asks = |names: &Option<BTreeSet<String>>| match names {
            _ if news.missed => true,
            Some(names) => news.names.iter().any(|changed| knows(names, changed)),
            None => news.drives,
        };
        let keys = all.iter().filter(|(_, names)| asks(names)).map(|(key, _)| key.clone()).collect();
        let attachments: Vec<_> = all.iter().filter(|(k, _)| matches!(k, Key::Attachment(_))).collect();
        let known = |name: &String| attachments.iter().any(|(_, names)| names.iter().any(|n| n.contains(name)));
        let stranger = |name: &&String| (name.starts_with("md") || name.starts_with("nvme")) && !known(name);
        Concerned { keys, strangers: news.missed || news.names.iter().any(|n| stranger(&n)) }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Key, Option<BTreeSet<String>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kernel name of a device node.
pub fn kernel_name(device: &Path) -> Option<String> {
    device.file_name().and_then(|n| n.to_str()).map(str::to_owned)
}

/// `ubda3` of `ubda`, `nvme0n1p3` of `nvme0n1`.
fn is_partition_of(name: &str, drive: &str) -> bool {
    let Some(rest) = name.strip_prefix(drive) else { return false };
    // After a digit the kernel puts a `p`.
    let digit = drive.ends_with(|c: char| c.is_ascii_digit());
    let Some(number) = (if digit { rest.strip_prefix('p') } else { Some(rest) }) else { return false };
    !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names<const N: usize>(names: [&str; N]) -> Option<BTreeSet<String>> {
        Some(names.map(str::to_owned).into())
    }

    fn leg(name: &str) -> Key {
        Key::Leg(name.to_owned())
    }

    fn some() -> Interests {
        let interests = Interests::default();
        interests.set(leg("v-0"), names(["ubda2", "nqn:v-0"]));
        interests.set(leg("w-0"), names(["ubdb12", "md100"]));
        interests.set(leg("gone-0"), None);
        interests.set(Key::Attachment("w".to_owned()), names(["md100", "nvme3", "nvme3n1"]));
        interests
    }

    fn woken(news: &News) -> Vec<Key> {
        some().concerned(news).keys.into_iter().collect()
    }

    #[test]
    fn news_wakes_whom_it_concerns_and_nobody_else() {
        assert_eq!(woken(&News::of(["nqn:v-0"])), [leg("v-0")]);
        assert_eq!(woken(&News::of(["md100"])), [leg("w-0"), Key::Attachment("w".to_owned())]);
        assert_eq!(woken(&News::of(["nvme3"])), [Key::Attachment("w".to_owned())]);
        assert!(woken(&News::of(["md127", "loop7", "ubdb1", "nqn:other"])).is_empty());
        assert_eq!(woken(&News::missed()).len(), 4);
    }

    #[test]
    fn a_drive_concerns_its_legs_and_those_that_have_none() {
        let drive = |name: &str| News { drives: true, ..News::of([name]) };
        assert_eq!(woken(&drive("ubda")), [leg("gone-0"), leg("v-0")]);
        assert_eq!(woken(&drive("ubdb12")), [leg("gone-0"), leg("w-0")]);
        assert_eq!(woken(&drive("ubdb1")), [leg("gone-0")]);
        assert_eq!(woken(&drive("ubdc")), [leg("gone-0")]);
        assert!(is_partition_of("nvme0n1p3", "nvme0n1") && !is_partition_of("nvme0n1p3", "nvme0"));
    }

    #[test]
    fn arrays_and_controllers_that_no_attachment_knows_are_strangers() {
        let interests = some();
        let strangers = |name: &str| interests.concerned(&News::of([name])).strangers;
        assert!(strangers("md127") && strangers("nvme9"));
        assert!(!strangers("md100") && !strangers("nvme3") && !strangers("ubda2"));
        interests.forget(&Key::Attachment("w".to_owned()));
        assert!(strangers("md100"), "a leg's word does not serve the volume");
    }
}
