//! `/proc/self/mountinfo`. Pure.

use std::path::PathBuf;

/// Mount points of the file systems on the device `major:minor`, in the order of the table.
pub(super) fn points(mountinfo: &str, device: &str) -> Vec<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(2);
            let (number, _root, point) = (fields.next()?, fields.next()?, fields.next()?);
            (number == device).then(|| PathBuf::from(unescape(point)))
        })
        .collect()
}

/// The device `major:minor` that is on top at a mount point.
pub(super) fn device_at(mountinfo: &str, at: &std::path::Path) -> Option<String> {
    let on = |line: &str| {
        let mut fields = line.split(' ').skip(2);
        let (number, _root, point) = (fields.next()?, fields.next()?, fields.next()?);
        (std::path::Path::new(&unescape(point)) == at).then(|| number.to_owned())
    };
    mountinfo.lines().filter_map(on).next_back()
}

/// Undoes the kernel's `\040` for space, tab, newline and backslash.
pub(super) fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        match octal.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TABLE: &str = "36 35 9:100 / /mnt/a\\040b rw,noatime master:1 - xfs /dev/md100 rw\n\
                         37 35 0:5 / /dev rw - devtmpfs devtmpfs rw\n38 35 9:100 / /pods/x rw - xfs /dev/md100 rw\n";

    #[test]
    fn every_mount_point_of_a_device() {
        assert_eq!(points(TABLE, "9:100"), [PathBuf::from("/mnt/a b"), PathBuf::from("/pods/x")]);
        assert_eq!(device_at(TABLE, "/dev".as_ref()), Some("0:5".to_owned()));
    }

    proptest! {
        #[test]
        fn a_kernel_escaped_path_comes_back(path in "/[ -~]{0,30}") {
            let escaped: String = path
                .chars()
                .map(|c| if " \t\n\\".contains(c) { format!("\\{:03o}", u32::from(c)) } else { c.to_string() })
                .collect();
            prop_assert_eq!(unescape(&escaped), path);
        }

        #[test]
        fn any_text_is_read(text in ".{0,60}") {
            let _ = (points(&text, "9:1"), unescape(&text));
        }
    }
}
