//! Small files of the kernel: sysfs, procfs, configfs.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A table of procfs, which comes in as many reads as the kernel likes; none when it cannot be read.
pub(super) fn table(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The trimmed text of an attribute of sysfs or configfs; none when it is absent, empty or cannot be read.
pub(super) fn read(path: impl AsRef<Path>) -> Option<String> {
    // An attribute is at most a page, so one `read` mostly gives it all; `read_to_string` would ask for its size first and once
    // more for its end.
    let mut file = fs::File::open(path).ok()?;
    let mut page = [0; 4096];
    let length = file.read(&mut page).ok()?;
    let mut bytes = page.get(..length)?.to_vec();
    if length == page.len() {
        file.read_to_end(&mut bytes).ok()?;
    }
    let text = String::from_utf8(bytes).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// A number in an attribute.
pub(super) fn number<T: std::str::FromStr>(path: impl AsRef<Path>) -> Option<T> {
    read(path)?.parse().ok()
}

/// One `write(2)` to an attribute that exists.
pub(super) fn write(path: impl AsRef<Path>, value: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// Names in a directory, sorted; none when it is not there.
pub(super) fn names(dir: impl AsRef<Path>) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return vec![];
    };
    let mut names: Vec<String> = entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Device node of something in `/sys/class/block`, by the name that the kernel gave the node.
pub(super) fn device_node(dev: &Path, block: &Path) -> Option<PathBuf> {
    let uevent = read(block.join("uevent"))?;
    let name = uevent.lines().find_map(|l| l.strip_prefix("DEVNAME="))?;
    Some(dev.join(name))
}

/// Whether a device node is that of this device and not of an earlier one with the same name.
pub(super) fn is_node_of(node: &Path, block: &Path) -> bool {
    let Ok(found) = fs::metadata(node) else { return false };
    let number = found.rdev();
    read(block.join("dev")) == Some(format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number)))
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
