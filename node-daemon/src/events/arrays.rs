//! Which arrays there are, and of which members, by the directories that MD makes for them. MD tells of both by uevents.
//!
//! `/proc/mdstat` says the same and can be waited on, but it is not read: it takes a mutex of each array's bitmap, which MD holds while
//! the bitmap is written, and that write may wait for a leg that does not answer. Whoever reads it then cannot even be killed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

/// Members of each array, by its kernel name.
pub(super) type Arrays = BTreeMap<String, BTreeSet<String>>;

/// The arrays of `/sys`.
///
/// # Errors
/// When a directory cannot be read; one that goes meanwhile is not there.
pub(super) fn arrays(sys: &Path) -> io::Result<Arrays> {
    let block = sys.join("block");
    let mut found = Arrays::new();
    for array in names(&block)?.into_iter().filter(|name| name.starts_with("md")) {
        let entries = names(&block.join(&array).join("md"))?;
        let members = entries.iter().filter_map(|entry| entry.strip_prefix("dev-")).map(str::to_owned).collect();
        found.insert(array, members);
    }
    Ok(found)
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        other => other?,
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Arrays that are not what they were, with the members that they had or have.
pub(super) fn changed(before: &Arrays, now: &Arrays) -> BTreeSet<String> {
    let differs = |name: &&String| before.get(*name) != now.get(*name);
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).filter(differs).collect();
    let members = names.iter().flat_map(|name| [before.get(*name), now.get(*name)]).flatten().flatten();
    members.chain(names.iter().copied()).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arrays: &[(&str, &[&str])]) -> Arrays {
        let set = |members: &[&str]| members.iter().map(|m| (*m).to_owned()).collect();
        arrays.iter().map(|(name, members)| ((*name).to_owned(), set(members))).collect()
    }

    #[test]
    fn an_array_comes_and_goes_with_its_members() {
        let two = of(&[("md127", &["ubda2"]), ("md100", &["nvme0n1", "ubdb3"])]);
        let names = |before: &Arrays, now: &Arrays| changed(before, now).into_iter().collect::<Vec<_>>();
        let all = ["md100", "md127", "nvme0n1", "ubda2", "ubdb3"];
        assert_eq!(names(&Arrays::new(), &two), all);
        assert_eq!(names(&two, &Arrays::new()), all);
        assert!(names(&two, &two).is_empty());
        let less = of(&[("md127", &[]), ("md100", &["nvme0n1", "ubdb3"])]);
        assert_eq!(names(&two, &less), ["md127", "ubda2"]);
    }

    #[test]
    fn they_are_read_from_directories() {
        let sys = std::env::temp_dir().join(format!("meshstor-arrays-{}", std::process::id()));
        for dir in ["block/md100/md/dev-nvme0n1", "block/md100/md/bitmap", "block/ubda", "block/md_d0"] {
            std::fs::create_dir_all(sys.join(dir)).unwrap();
        }
        assert_eq!(arrays(&sys).unwrap(), of(&[("md100", &["nvme0n1"]), ("md_d0", &[])]));
        std::fs::remove_dir_all(&sys).unwrap();
        assert!(arrays(&sys).unwrap().is_empty());
    }
}
