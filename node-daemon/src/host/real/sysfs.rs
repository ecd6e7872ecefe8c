//! Small files of the kernel: sysfs, procfs, configfs.
//!
//! Each is read whole or it is an error that names file and value. "Not there" is only what the kernel says is not there: whoever
//! took what cannot be read for what is not there would confirm a revocation that did not happen.

use super::super::{HostError, Result};
use super::error::{Doing, failed};
use rustix::io::Errno;
use std::fmt::Display;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// A table of procfs for what is only asked whether it names something; none when it cannot be read.
pub(super) fn table(path: impl AsRef<Path>) -> Option<String> {
    fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// An error that names the file and what is wrong with it.
pub(super) fn bad(path: impl AsRef<Path>, why: impl Display) -> HostError {
    failed(format!("read {}", path.as_ref().display()), why)
}

/// What the kernel says of an object, or a process, that is not there (any more), and of nothing else.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
        || [Errno::NODEV, Errno::NXIO, Errno::SRCH].iter().any(|e| error.raw_os_error() == Some(e.raw_os_error()))
}

fn bytes(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // An attribute is at most a page, so one `read` mostly gives it all; `read_to_string` would ask for its size first and once
    // more for its end.
    let read = || {
        let mut file = fs::File::open(path)?;
        let mut page = [0; 4096];
        let length = file.read(&mut page)?;
        let mut bytes = page.get(..length).unwrap_or_default().to_vec();
        if length == page.len() {
            file.read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All of a table of procfs, of which names need not be text; none when there is no such table, or no such process.
pub(super) fn whole_table(path: impl AsRef<Path>) -> Result<Option<Vec<u8>>> {
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(bad(path, error)),
    }
}

/// The text of these bytes, whole or not at all. Pure.
fn text(bytes: Vec<u8>) -> std::result::Result<String, String> {
    let text = String::from_utf8(bytes).map_err(|e| format!("{} is no text", shown(&e.to_string())))?;
    match text.contains('\0') {
        true => Err(format!("{} has a zero byte", shown(&text))),
        false => Ok(text),
    }
}

/// The line that an attribute is: with its newline, for what has none was cut short. Pure.
fn line(bytes: Vec<u8>) -> std::result::Result<String, String> {
    let mut text = text(bytes)?;
    match text.pop() {
        None => Ok(text),
        Some('\n') => Ok(text),
        Some(last) => Err(format!("{} does not end as a line does", shown(&format!("{text}{last}")))),
    }
}

/// A value for an error: what is long says no more.
fn shown(value: &str) -> String {
    format!("{:?}", value.chars().take(64).collect::<String>())
}

/// The text of an attribute of sysfs, configfs or procfs without its newline; none when the kernel says that there is no such
/// thing. It may be empty, as some are.
///
/// # Errors
/// It cannot be read, is no text, or was cut short.
pub(super) fn read(path: impl AsRef<Path>) -> Result<Option<String>> {
    let path = path.as_ref();
    let found = bytes(path).doing(|| format!("read {}", path.display()))?;
    found.map(line).transpose().map_err(|why| bad(path, why))
}

/// As [`read`], of a file of an object that is there: that it is not is an error too.
pub(super) fn need(path: impl AsRef<Path>) -> Result<String> {
    read(&path)?.ok_or_else(|| bad(path, "it is not there"))
}

/// Text that people or hardware chose: trimmed, not empty, with a newline or without; none when it is absent or says nothing.
///
/// # Errors
/// It cannot be read, or is no text.
pub(super) fn label(path: impl AsRef<Path>) -> Result<Option<String>> {
    let path = path.as_ref();
    let found = bytes(path)
        .doing(|| format!("read {}", path.display()))?
        .map(text)
        .transpose()
        .map_err(|why| bad(path, why))?;
    Ok(found.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()))
}

/// An attribute as `parse` understands it, which is all of it or nothing; `what` is what it should have been.
pub(super) fn parsed<T>(path: impl AsRef<Path>, what: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
    let Some(text) = read(&path)? else { return Ok(None) };
    parse(&text).map(Some).ok_or_else(|| bad(path, format!("{} is no {what}", shown(&text))))
}

/// As [`parsed`], of a file of an object that is there.
pub(super) fn needed<T>(path: impl AsRef<Path>, what: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T> {
    parsed(&path, what, parse)?.ok_or_else(|| bad(path, "it is not there"))
}

/// Digits and nothing else. Pure.
pub(super) fn digits<T: FromStr>(text: &str) -> Option<T> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// A number in an attribute.
pub(super) fn number<T: FromStr>(path: impl AsRef<Path>) -> Result<Option<T>> {
    parsed(path, "number that can be", digits)
}

/// A number in an attribute of an object that is there.
pub(super) fn need_number<T: FromStr>(path: impl AsRef<Path>) -> Result<T> {
    needed(path, "number that can be", digits)
}

/// An attribute that is `0` or `1`.
pub(super) fn flag(path: impl AsRef<Path>) -> Result<Option<bool>> {
    parsed(path, "0 or 1", |text| match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    })
}

/// Bytes from an attribute that counts in 512 bytes, whatever the sector of the device.
pub(super) fn sectors(path: impl AsRef<Path>) -> Result<Option<u64>> {
    parsed(path, "number of sectors that can be", |text| digits::<u64>(text)?.checked_mul(512))
}

/// Whether something is there.
pub(super) fn exists(path: impl AsRef<Path>) -> Result<bool> {
    path.as_ref().try_exists().map_err(|e| bad(path, e))
}

/// One `write(2)` to an attribute that exists.
pub(super) fn write(path: impl AsRef<Path>, value: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// Names in a directory, sorted; none when the kernel says that it is not there.
///
/// # Errors
/// It cannot be read to its end: what is not listed is there all the same.
pub(super) fn names(dir: impl AsRef<Path>) -> Result<Vec<String>> {
    let read = || -> io::Result<Vec<String>> {
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        fs::read_dir(&dir)?.map(name).collect()
    };
    match read() {
        Ok(mut names) => {
            names.sort();
            Ok(names)
        }
        Err(error) if is_gone(&error) => Ok(vec![]),
        Err(error) => Err(bad(dir, error)),
    }
}

/// As [`names`], of a directory that must be there: without it nothing can be said of what is in it.
pub(super) fn need_names(dir: impl AsRef<Path>) -> Result<Vec<String>> {
    match exists(&dir)? {
        true => names(dir),
        false => Err(bad(dir, "it is not there")),
    }
}

/// Device node of something in `/sys/class/block`, by the name that the kernel gave the node; none when that is gone.
pub(super) fn device_node(dev: &Path, block: &Path) -> Result<Option<PathBuf>> {
    // Lines of names and values; a name of a node may have a directory in it (`mapper/x`), but leads nowhere else.
    let name = |text: &str| {
        let name = text.lines().find_map(|l| l.strip_prefix("DEVNAME="))?;
        (!name.is_empty() && !name.split('/').any(|part| part.is_empty() || part == "..")).then(|| name.to_owned())
    };
    let file = block.join("uevent");
    match parsed(&file, "event with a DEVNAME", name)? {
        None if exists(block)? => Err(bad(file, "it is not there")),
        name => Ok(name.map(|name| dev.join(name))),
    }
}

/// Whether a device node is that of this device and not of an earlier one with the same name.
pub(super) fn is_node_of(node: &Path, block: &Path) -> Result<bool> {
    let found = match fs::metadata(node) {
        Ok(found) => found,
        Err(error) if is_gone(&error) => return Ok(false),
        Err(error) => return Err(bad(node, error)),
    };
    Ok(device_number(block)?.is_some_and(|(major, minor)| {
        (major, minor) == (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()))
    }))
}

/// Major and minor number of something in `/sys/class/block`; none when it is gone.
pub(super) fn device_number(block: &Path) -> Result<Option<(u32, u32)>> {
    parsed(block.join("dev"), "device number", |text| {
        let (major, minor) = text.split_once(':')?;
        Some((digits(major)?, digits(minor)?))
    })
}

// Calls of `Host` block the thread of their volume by contract: there is no runtime to sleep in.
#[allow(clippy::disallowed_methods)]
/// Polls until `probe` answers, for at most `limit`.
pub(super) fn wait_for<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Writes a small file of ours so that a crash leaves the old one or the new one.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    // Not `with_extension`: names of ours contain dots.
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = fs::File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_is_whole_or_an_error() {
        assert_eq!(line(b"live\n".to_vec()), Ok("live".to_owned()));
        assert_eq!(line(vec![]), Ok(String::new()));
        for bytes in [&b"liv"[..], b"live\n\0", b"li\0ve\n", b"li\xffve\n"] {
            assert!(line(bytes.to_vec()).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_what_is_not_there() {
        // A directory in the place of a file can be opened and not read, by root too.
        let dir = std::env::temp_dir();
        assert!(read(&dir).is_err() && label(&dir).is_err() && names("/dev/null").is_err());
        let absent = dir.join("meshstor-nothing-has-this-name");
        assert_eq!((read(&absent).unwrap(), names(&absent).unwrap()), (None, vec![]));
        assert!(need(&absent).is_err() && need_names(&absent).is_err());
    }

    proptest! {
        #[test]
        fn digits_are_nothing_but_digits(number in any::<u64>(), more in "[^0-9]{1,3}") {
            prop_assert_eq!(digits(&number.to_string()), Some(number));
            prop_assert_eq!(digits::<u64>(&format!("{number}{more}")), None);
            prop_assert_eq!(digits::<u64>(&format!("{more}{number}")), None);
        }

        #[test]
        fn any_bytes_are_a_whole_line_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(text) = line(bytes.clone()) {
                let whole = format!("{text}\n").into_bytes();
                prop_assert!(bytes.is_empty() || bytes == whole);
                prop_assert!(!text.contains('\0'));
            }
        }
    }
}
