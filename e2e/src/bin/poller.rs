//! Watches the kernel from inside a guest: the states of NVMe controllers and of MD members, a line a change.
//!
//! `<ns of the last look that showed the old value> <ns of the first look that showed the new one> <path> <old> <new>`, with `-`
//! for "not there". A change that lasts less than one round of looks (about 2 ms in a guest) is not seen.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;

fn main() -> Result<()> {
    let mut seen: BTreeMap<PathBuf, (u128, String)> = BTreeMap::new();
    let mut out = std::io::stdout();
    loop {
        for path in states() {
            seen.entry(path).or_insert_with(|| (now(), "-".to_owned()));
        }
        for (path, (last, old)) in &mut seen {
            let before = now();
            let new =
                std::fs::read_to_string(path).map_or_else(|_| "-".to_owned(), |text| text.trim().replace(' ', "_"));
            if new != *old {
                writeln!(out, "{last} {} {} {old} {new}", now(), path.display())?;
                *old = new;
            }
            *last = before;
        }
        meshstor_e2e::wait::pause(Duration::from_millis(1));
    }
}

/// The files to look at, as far as they are there.
fn states() -> Vec<PathBuf> {
    let controllers = entries("/sys/class/nvme").into_iter().map(|dir| dir.join("state"));
    let arrays = entries("/sys/block").into_iter().filter(|dir| name(dir).starts_with("md")).map(|dir| dir.join("md"));
    let members = arrays.flat_map(entries).filter(|dir| name(dir).starts_with("dev-")).map(|dir| dir.join("state"));
    controllers.chain(members).collect()
}

fn entries(dir: impl AsRef<Path>) -> Vec<PathBuf> {
    std::fs::read_dir(dir).map(|all| all.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

fn name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}
