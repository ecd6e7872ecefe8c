//! The table of mounts, which can be waited on: where arrays are mounted. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// MD's major number of block devices (`Documentation/admin-guide/devices.txt`).
const MD_MAJOR: &str = "9:";

/// Mounts of arrays by the array's kernel name; mounts of everything else come and go with pods and say nothing.
pub(super) fn of_arrays(mountinfo: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut mounts = BTreeMap::<String, BTreeSet<String>>::new();
    for line in mountinfo.lines() {
        let mut fields = line.split(' ').skip(2);
        let minor = fields.next().and_then(|number| number.strip_prefix(MD_MAJOR));
        if let (Some(minor), Some(point)) = (minor, fields.nth(1)) {
            mounts.entry(format!("md{minor}")).or_default().insert(point.to_owned());
        }
    }
    mounts
}

/// Arrays that are not mounted as they were.
pub(super) fn changed(
    before: &BTreeMap<String, BTreeSet<String>>,
    now: &BTreeMap<String, BTreeSet<String>>,
) -> BTreeSet<String> {
    before.keys().chain(now.keys()).filter(|name| before.get(*name) != now.get(*name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_of_arrays_are_news() {
        let none = "37 35 0:5 / /dev rw - devtmpfs devtmpfs rw\n";
        let one = format!("{none}36 35 9:100 / /mnt/a rw,noatime master:1 - xfs /dev/md100 rw\n");
        let two =
            format!("{one}38 35 9:100 / /pods/x rw - xfs /dev/md100 rw\n39 35 98:1 / /x rw - ext4 /dev/ubda1 rw\n");
        let news = |a: &str, b: &str| changed(&of_arrays(a), &of_arrays(b)).into_iter().collect::<Vec<_>>();
        assert_eq!(news(none, &one), ["md100"]);
        assert_eq!(news(&two, &one), ["md100"]);
        assert!(news(&two, &two.replace("/x rw - ext4", "/y rw - ext4")).is_empty());
        assert!(of_arrays("36 35 9:1").is_empty());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(before in "[ -~\n]{0,80}", now in "[ 0-9:/a-z\n-]{0,80}") {
            let (before, now) = (of_arrays(&before), of_arrays(&now));
            proptest::prop_assert!(changed(&now, &now).is_empty());
            proptest::prop_assert_eq!(changed(&before, &now), changed(&now, &before));
        }
    }
}
