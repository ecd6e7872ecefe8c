//! `/proc/mdstat`, which can be waited on: MD tells there of arrays that start and stop and of members that come, fail and go.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

/// The first line of each array, by its kernel name: its state and its members.
pub(super) fn arrays(text: &str) -> BTreeMap<String, String> {
    let of = |line: &str| {
        let (name, rest) = line.split_once(" : ")?;
        name.starts_with("md").then(|| (name.to_owned(), rest.to_owned()))
    };
    text.lines().filter_map(of).collect()
}

/// Arrays whose line is not what it was, with the members that they had or have.
pub(super) fn changed(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> BTreeSet<String> {
    let differs = |name: &&String| before.get(*name) != now.get(*name);
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).filter(differs).collect();
    let lines = names.iter().flat_map(|name| [before.get(*name), now.get(*name)]).flatten();
    let members = lines.flat_map(|line| line.split(' ')).filter_map(|word| word.split_once('[')).map(|(name, _)| name);
    members.map(str::to_owned).chain(names.iter().map(|name| (*name).clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONE: &str = "Personalities : [raid0] [raid1] [raid10] \nunused devices: <none>\n";
    const TWO: &str = "Personalities : [raid1] \nmd127 : active (auto-read-only) raid1 ubda2[0]\n      64512 blocks super 1.2 [2/1] [U_]\n\
                       md100 : active raid1 nvme0n1[1](W)(F) ubdb3[0]\n      64512 blocks super 1.2 [2/2] [UU]\n\nunused devices: <none>\n";

    fn names(before: &str, now: &str) -> Vec<String> {
        changed(&arrays(before), &arrays(now)).into_iter().collect()
    }

    #[test]
    fn an_array_comes_and_goes_with_its_members() {
        assert_eq!(names(NONE, TWO), ["md100", "md127", "nvme0n1", "ubda2", "ubdb3"]);
        assert_eq!(names(TWO, NONE), names(NONE, TWO));
        assert_eq!(names(TWO, &TWO.replace("ubda2[0]", "")), ["md127", "ubda2"]);
    }

    #[test]
    fn progress_is_no_news() {
        assert!(names(TWO, &TWO.replace("[UU]", "[UU]\n      [>....]  resync =  0.0% (1/64512)")).is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_read(before in "[ -~\n]{0,80}", now in "[ -~\n]{0,80}") {
            let (before, now) = (arrays(&before), arrays(&now));
            prop_assert!(changed(&now, &now).is_empty());
            prop_assert_eq!(changed(&before, &now), changed(&now, &before));
        }
    }
}
