//! `/proc/self/mountinfo`. Pure.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use super::sysfs::digits;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// Major and minor number of what is mounted.
    pub device: (u32, u32),
    /// Where.
    pub point: PathBuf,
}

/// The whole table, in its order.
///
/// # Errors
/// A line is not what the kernel writes, or the table does not end where a line does: what is mounted may be missing.
pub(super) fn table(mountinfo: &[u8]) -> Result<Vec<Mount>, String> {
    let Some(lines) = mountinfo.strip_suffix(b"\n") else {
        return Err("it does not end where a line does".to_owned());
    };
    let read = |line: &[u8]| mount(line).ok_or_else(|| format!("{:?} is no mount", String::from_utf8_lossy(line)));
    lines.split(|b| *b == b'\n').map(read).collect()
}

/// `36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/root rw` (`Documentation/filesystems/proc.rst`).
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let mut ascii = || std::str::from_utf8(fields.next()?).ok();
    let (_id, _parent): (u32, u32) = (digits(ascii()?)?, digits(ascii()?)?);
    let (major, minor) = ascii()?.split_once(':')?;
    let device = (digits(major)?, digits(minor)?);
    let (_root, point, _options) = (fields.next()?, fields.next()?, fields.next()?);
    // Optional fields, the separator, then type, source and options of the file system.
    let rest = fields.skip_while(|field| *field != b"-").count();
    (point.starts_with(b"/") && rest >= 4).then(|| Mount { device, point: unescape(point) })
}

/// Where a device is mounted, in the order of the table.
pub(super) fn points(table: &[Mount], device: (u32, u32)) -> impl DoubleEndedIterator<Item = &PathBuf> {
    table.iter().filter(move |m| m.device == device).map(|m| &m.point)
}

/// The device that is on top at a mount point.
pub(super) fn device_at(table: &[Mount], at: &Path) -> Option<(u32, u32)> {
    table.iter().rev().find(|m| m.point == at).map(|m| m.device)
}

/// Undoes the kernel's `\040` for space, tab, newline and backslash.
pub(super) fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        match octal.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TABLE: &str = "36 35 9:100 / /mnt/a\\040b rw,noatime master:1 - xfs /dev/md100 rw\n\
                         37 35 0:5 / /dev rw - devtmpfs devtmpfs rw\n38 35 9:100 / /pods/x rw - xfs /dev/md100 rw\n";

    #[test]
    fn every_mount_point_of_a_device() {
        let table = table(TABLE.as_bytes()).unwrap();
        let points: Vec<_> = points(&table, (9, 100)).cloned().collect();
        assert_eq!(points, [PathBuf::from("/mnt/a b"), PathBuf::from("/pods/x")]);
        assert_eq!(device_at(&table, "/dev".as_ref()), Some((0, 5)));
    }

    #[test]
    fn a_mount_point_that_is_no_text_hides_no_other() {
        let mut odd = b"39 35 0:9 / /mnt/\xff\xfe rw - tmpfs  rw\n".to_vec();
        odd.extend(TABLE.as_bytes());
        assert_eq!(points(&table(&odd).unwrap(), (9, 100)).count(), 2);
    }

    proptest! {
        #[test]
        fn a_kernel_escaped_path_comes_back(path in "/[ -~]{0,30}") {
            let escaped: String = path
                .chars()
                .map(|c| if " \t\n\\".contains(c) { format!("\\{:03o}", u32::from(c)) } else { c.to_string() })
                .collect();
            prop_assert_eq!(unescape(escaped.as_bytes()), PathBuf::from(path));
        }

        /// I2: a table that was cut short never says that a device is not mounted.
        #[test]
        fn a_table_is_whole_or_an_error(at in any::<prop::sample::Index>()) {
            let at = at.index(TABLE.len());
            let cut = table(&TABLE.as_bytes()[..at]);
            prop_assert!(cut.is_err() || TABLE[..at].ends_with('\n'), "{:?}", cut);
        }

        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (table(&bytes), unescape(&bytes));
        }
    }
}
