//! How much an array and its members have to do, and how fast it may rebuild. From sysfs alone; nothing here can hang.

use super::super::{Io, Result, Traffic};
use super::error::Doing;
use super::sysfs::digits;
use super::{RealHost, sysfs};
use std::collections::BTreeMap;
use std::path::Path;

/// A device's file `stat` (`Documentation/block/stat.rst`): reads, their milliseconds, writes, theirs; later numbers are not looked at.
fn io(stat: &str) -> Option<Io> {
    let numbers: Vec<u64> = stat.split_whitespace().map(digits).collect::<Option<_>>()?;
    let number = |at: usize| numbers.get(at).copied();
    Some(Io { count: number(0)?.saturating_add(number(4)?), milliseconds: number(3)?.saturating_add(number(7)?) })
}

/// `sync_speed_max` in KiB/s: `200000 (system)` is not the array's own.
fn own_limit(text: &str) -> Option<Option<u64>> {
    match text.split_once(' ')? {
        (number, "(local)") => digits(number).map(Some),
        (number, "(system)") => digits::<u64>(number).map(|_| None),
        _ => None,
    }
}

impl RealHost {
    pub(super) fn traffic_of(&self, array: &Path) -> Result<Traffic> {
        let Some(block) = self.block_of(array)? else { return Ok(Traffic::default()) };
        let md = block.join("md");
        let mut members = BTreeMap::new();
        for name in sysfs::names(&md)?.iter().filter_map(|n| n.strip_prefix("dev-")) {
            // The device of a member can be gone.
            let stat = self.config.sys.join("class/block").join(name).join("stat");
            members.extend(sysfs::parsed(stat, "count of requests", io)?.map(|io| (name.to_owned(), io)));
        }
        Ok(Traffic {
            io: sysfs::parsed(block.join("stat"), "count of requests", io)?.unwrap_or_default(),
            members,
            rebuild_limit: sysfs::parsed(md.join("sync_speed_max"), "limit", own_limit)?.flatten(),
        })
    }

    pub(super) fn set_rebuild_limit(&self, array: &Path, kib: Option<u64>) -> Result<()> {
        let Some(block) = self.block_of(array)? else { return Ok(()) };
        let word = kib.map_or_else(|| "system".to_owned(), |kib| kib.to_string());
        let action = || format!("limit the rebuild of {}", array.display());
        sysfs::write(block.join("md/sync_speed_max"), &word).doing(action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_the_kernel_counts() {
        let stat = "     120        3     4096       25       80        0     2048      975        0      700     1000        0";
        assert_eq!(io(stat), Some(Io { count: 200, milliseconds: 1000 }));
        assert_eq!(own_limit("32768 (local)"), Some(Some(32768)));
        assert_eq!(own_limit("200000 (system)"), Some(None));
        assert_eq!(
            (io("1 2 3"), io("1 2 3 4 5 6 7 x"), own_limit("200000"), own_limit("1 (other)")),
            (None, None, None, None)
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in ".{0,80}") {
            let _ = (io(&text), own_limit(&text));
        }
    }
}
