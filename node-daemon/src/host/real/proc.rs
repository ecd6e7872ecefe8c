//! `/proc/<pid>`, as far as it tells who uses a device and who will never see anything any more. Pure.

use super::sysfs::digits;

/// Bit of `SIGKILL` in the masks of `/proc/<pid>/status`.
const SIGKILL: u64 = 1 << 8;
/// `PF_EXITING` of `include/linux/sched.h`: the task is in `do_exit()` and returns to user space no more.
const PF_EXITING: u64 = 0x4;

/// Whether a task will never return to user space: it is dead, or exits, or a `SIGKILL` waits for it. What cannot be read is not
/// taken for dead.
pub(super) fn is_doomed(stat: &str, status: &str) -> bool {
    let mask = |name: &str| {
        let text = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
        u64::from_str_radix(text.trim(), 16).ok()
    };
    let pending = ["SigPnd", "ShdPnd"].iter().any(|name| mask(name).is_some_and(|m| m & SIGKILL != 0));
    // The name in brackets may have any character, brackets too.
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or_else(Vec::new, |(_, rest)| rest.split(' ').collect());
    let dead = fields.first().is_some_and(|state| ["Z", "X", "x"].contains(state));
    let exiting = fields.get(6).and_then(|f| f.parse::<u64>().ok()).is_some_and(|f| f & PF_EXITING != 0);
    pending || dead || exiting
}

/// Name of a process, by its `stat`.
pub(super) fn name(stat: &str) -> &str {
    let inside = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(") "));
    inside.map_or("?", |(name, _)| name)
}

/// Whether `/proc/<pid>/maps` has a file of the device; none where a line is not the kernel's, or the last one was cut short.
pub(super) fn maps(maps: &str, major: u32, minor: u32) -> Option<bool> {
    let hex = |text: &str| u32::from_str_radix(text, 16).ok();
    let device = |line: &str| {
        let (a, b) = line.split_ascii_whitespace().nth(3)?.split_once(':')?;
        Some((hex(a)?, hex(b)?))
    };
    let whole = maps.is_empty() || maps.ends_with('\n');
    let devices: Option<Vec<_>> = maps.lines().map(device).collect();
    devices.filter(|_| whole).map(|found| found.contains(&(major, minor)))
}

/// The mount of an open file, by its `fdinfo`.
pub(super) fn mount_id(fdinfo: &str) -> Option<&str> {
    fdinfo.lines().find_map(|l| l.strip_prefix("mnt_id:")).map(str::trim)
}

/// The device `major:minor` of a mount, by its number in a `mountinfo`.
pub(super) fn device_of_mount<'a>(mountinfo: &'a str, id: &str) -> Option<&'a str> {
    let mut lines = mountinfo.lines().map(|line| line.split(' '));
    lines.find_map(|mut fields| (fields.next()? == id).then(|| fields.nth(1))?)
}

/// File systems of a `mountinfo` that are made of directories of others (overlayfs and its like), with their options.
pub(super) fn stacked(mountinfo: &str) -> Vec<(&str, &str)> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut fields = after.split(' ');
            let (kind, source, options) = (fields.next()?, fields.next()?, fields.next()?);
            let point = before.split(' ').nth(4)?;
            match kind {
                "overlay" => Some((point, options)),
                "ecryptfs" => Some((point, source)),
                _ => None,
            }
        })
        .collect()
}

/// Files and devices in `/proc/swaps`, escaped as the kernel does it.
pub(super) fn swaps(table: &str) -> Vec<&str> {
    table.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().next()).collect()
}

/// Loop devices and the device on which the file of each is, as losetup lists them; none where it says anything else.
pub(super) fn loops(list: &str) -> Option<Vec<(&str, (u32, u32))>> {
    let device = |line: &'_ str| -> Option<(u32, u32)> {
        let (major, minor) = line.trim().split_once(':')?;
        Some((digits(major.trim())?, digits(minor.trim())?))
    };
    let whole = list.is_empty() || list.ends_with('\n');
    let read = |line| {
        let (name, back): (&str, &str) = str::split_once(line, ' ')?;
        Some((name, device(back)?))
    };
    whole.then(|| list.lines().map(read).collect()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SLEEPS: &str = "42 (a) b) c) D 1 42 42 0 -1 4194560 120 0 0 0 1 2 0 0 20 0 1 0 9 0 0";

    fn status(own: &str, shared: &str) -> String {
        format!("Name:\tx\nState:\tD (disk sleep)\nSigPnd:\t{own}\nShdPnd:\t{shared}\nSigBlk:\t0000000000000100\n")
    }

    /// I1: who may still see the outcome of a write is never taken for dead.
    #[test]
    fn only_who_returns_no_more_is_doomed() {
        let (none, kill, term) = ("0000000000000000", "0000000000000100", "0000000000004000");
        assert!(!is_doomed(SLEEPS, &status(none, none)));
        assert!(!is_doomed(SLEEPS, &status(term, term)));
        assert!(is_doomed(SLEEPS, &status(kill, none)));
        assert!(is_doomed(SLEEPS, &status(none, kill)));
        assert!(is_doomed(&SLEEPS.replace(" D ", " Z "), &status(none, none)));
        assert!(is_doomed(&SLEEPS.replace("4194560", "4194564"), &status(none, none)));
        assert!(!is_doomed("", "") && !is_doomed("42 (x", "SigPnd:\tzz\n"));
        assert_eq!((name(SLEEPS), name("")), ("a) b) c", "?"));
    }

    #[test]
    fn files_of_a_device_are_found_where_they_are_mapped() {
        let text = "7f00-7f01 r--s 00000000 09:64 131 /data/a b\n7f02-7f03 rw-p 00000000 00:00 0 [heap]\n";
        assert_eq!(maps(text, 9, 100), Some(true));
        assert!([maps(text, 9, 64), maps(text, 100, 9), maps("", 0, 0)].iter().all(|found| *found == Some(false)));
        // What is not whole says of nobody that he has no file.
        let at = text.find("7f02").unwrap();
        assert_eq!((maps(&text[..at + 30], 9, 64), maps("7f00-7f01 r--s\n", 9, 64)), (None, None));
    }

    #[test]
    fn a_mount_is_known_by_its_number() {
        let table =
            "36 35 9:100 / /mnt/a rw - ext4 /dev/md100 rw\n37 35 0:40 / /m rw - overlay o rw,lowerdir=/mnt/a/l\n";
        assert_eq!(mount_id("pos:\t0\nflags:\t02\nmnt_id:\t36\nino:\t2\n"), Some("36"));
        assert_eq!(device_of_mount(table, "36"), Some("9:100"));
        assert_eq!(device_of_mount(table, "3"), None);
        assert_eq!(stacked(table), [("/m", "rw,lowerdir=/mnt/a/l")]);
        let swap = "Filename\tType\tSize\tUsed\tPriority\n/swap\\040file file 4 0 -2\n";
        assert_eq!(swaps(swap), ["/swap\\040file"]);
        assert_eq!(
            loops("/dev/loop0 9:100\n/dev/loop1   8:1\n"),
            Some(vec![("/dev/loop0", (9, 100)), ("/dev/loop1", (8, 1))])
        );
        assert_eq!((loops("/dev/loop0 9:10"), loops("/dev/loop0\n"), loops("")), (None, None, Some(vec![])));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(?s).{0,200}", other in "(?s).{0,60}") {
            let _ = (is_doomed(&text, &other), name(&text), maps(&text, 9, 1), mount_id(&text));
            let _ = (device_of_mount(&text, &other), stacked(&text), swaps(&text));
        }

        /// A mask that is cut short or bent does not kill anybody in our eyes unless it says so.
        #[test]
        fn a_bent_mask_is_not_death(mask in "[0-9a-f]{0,20}") {
            let says = u64::from_str_radix(&mask, 16).is_ok_and(|m| m & SIGKILL != 0);
            prop_assert_eq!(is_doomed(SLEEPS, &status(&mask, "0")), says);
        }
    }
}
