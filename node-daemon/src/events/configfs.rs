//! Changes of nvmet's configfs by anybody, through inotify.
//!
//! The kernel tells of what comes through system calls: `mkdir`, `rmdir`, links, writes to attributes (checked on 7.3). The
//! directories that a `mkdir` brings with it are not told of; they are watched as soon as their parent is seen.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use meshstor_crds::naming::EXPORT_NQN_PREFIX;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use super::News;

/// The watches.
#[derive(Debug)]
pub(super) struct Configfs {
    nvmet: PathBuf,
    ports: RangeInclusive<u16>,
    fd: OwnedFd,
    /// Directories by watch, relative to nvmet's.
    dirs: HashMap<i32, PathBuf>,
}

impl Configfs {
    /// Watches exports below `nvmet` with these ports, as far as they are there.
    pub(super) fn open(nvmet: PathBuf, ports: RangeInclusive<u16>) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let mut new = Self { nvmet, ports, fd, dirs: HashMap::new() };
        new.arm();
        Ok(new)
    }

    /// Watches all that is there; what is watched already stays so.
    pub(super) fn arm(&mut self) {
        for top in ["subsystems", "ports"] {
            self.watch(Path::new(top));
        }
    }

    /// Whether nothing is watched, for instance because the module was not there.
    pub(super) fn is_idle(&self) -> bool {
        self.dirs.is_empty()
    }

    /// All that has happened. What is new is watched before it is told of, so whoever looks now misses nothing after it.
    pub(super) fn drain(&mut self) -> News {
        let mut happened = Vec::new();
        let mut missed = false;
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut reader = inotify::Reader::new(&self.fd, &mut buffer);
        while let Ok(event) = reader.next() {
            missed |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            let name = event.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            happened.push((event.wd(), event.events(), name));
        }
        let mut news = News { missed, ..News::default() };
        for (watch, what, name) in happened {
            let Some(dir) = self.dirs.get(&watch).cloned() else { continue };
            if what.contains(ReadFlags::IGNORED) {
                self.dirs.remove(&watch);
            }
            if what.contains(ReadFlags::CREATE | ReadFlags::ISDIR) {
                self.watch(&dir.join(&name));
            }
            news = news.and(News::of(self.exports(&dir, &name)));
        }
        if missed {
            self.arm();
        }
        news
    }

    /// Watches a directory, and those below it that belong to exports.
    fn watch(&mut self, dir: &Path) {
        if !self.belongs(dir) {
            return;
        }
        let what = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MODIFY | WatchFlags::ONLYDIR;
        // Gone again, or not there yet: its parent tells.
        let Ok(watch) = inotify::add_watch(&self.fd, self.nvmet.join(dir), what) else { return };
        self.dirs.insert(watch, dir.to_owned());
        let below = std::fs::read_dir(self.nvmet.join(dir)).into_iter().flatten().flatten();
        for entry in below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
            self.watch(&dir.join(entry.file_name()));
        }
    }

    /// Whether a directory is a part of an export of ours.
    fn belongs(&self, dir: &Path) -> bool {
        let parts: Vec<&str> = dir.iter().filter_map(|p| p.to_str()).collect();
        let is_ours = |port: &str| port.parse().is_ok_and(|p: u16| self.ports.contains(&p));
        match parts.as_slice() {
            ["subsystems" | "ports"] => true,
            ["subsystems", nqn] => nqn.starts_with(EXPORT_NQN_PREFIX),
            ["subsystems", _, "namespaces" | "allowed_hosts"] | ["subsystems", _, "namespaces", _] => true,
            ["ports", port] => is_ours(port),
            ["ports", port, "subsystems"] => is_ours(port),
            _ => false,
        }
    }

    /// The exports that a change of `name` in `dir` is about.
    fn exports(&self, dir: &Path, name: &str) -> Vec<String> {
        let parts: Vec<&str> = dir.iter().filter_map(|p| p.to_str()).collect();
        let found = match parts.as_slice() {
            ["subsystems"] | ["ports", _, "subsystems"] => vec![name.to_owned()],
            ["subsystems", nqn, ..] => vec![(*nqn).to_owned()],
            ["ports", _] => {
                let links = std::fs::read_dir(self.nvmet.join(dir).join("subsystems")).into_iter().flatten().flatten();
                links.filter_map(|link| link.file_name().into_string().ok()).collect()
            }
            _ => vec![],
        };
        found.into_iter().filter(|nqn| nqn.starts_with(EXPORT_NQN_PREFIX)).collect()
    }
}

impl AsFd for Configfs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, remove_dir_all, remove_file, write};

    struct Bench {
        dir: PathBuf,
        watched: Configfs,
    }

    impl Bench {
        /// A tree as configfs would have it, on an ordinary file system.
        fn new(test: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("meshstor-configfs-{test}-{}", std::process::id()));
            create_dir_all(dir.join("subsystems")).unwrap();
            create_dir_all(dir.join("ports")).unwrap();
            Self { watched: Configfs::open(dir.clone(), 42000..=42999).unwrap(), dir }
        }

        fn told(&mut self) -> Vec<String> {
            self.watched.drain().names.into_iter().collect()
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            let _ = remove_dir_all(&self.dir);
        }
    }

    #[test]
    fn whatever_happens_to_an_export_of_ours_is_told_by_its_nqn() {
        let mut bench = Bench::new("ours");
        let nqn = format!("{EXPORT_NQN_PREFIX}u-1:e1:g1");
        let (export, port) = (bench.dir.join("subsystems").join(&nqn), bench.dir.join("ports/42001"));
        create_dir_all(export.join("namespaces/1")).unwrap();
        create_dir_all(port.join("subsystems")).unwrap();
        let ours = [nqn.clone()];
        assert_eq!(bench.told(), ours, "it is there");
        assert!(bench.told().is_empty());
        write(export.join("namespaces/1/enable"), "0").unwrap();
        assert_eq!(bench.told(), ours, "an attribute");
        write(port.join("subsystems").join(&nqn), "").unwrap();
        assert_eq!(bench.told(), ours, "its listener");
        write(port.join("addr_trsvcid"), "1").unwrap();
        assert_eq!(bench.told(), ours, "an attribute of its port");
        remove_file(port.join("subsystems").join(&nqn)).unwrap();
        assert_eq!(bench.told(), ours);
        remove_dir_all(&export).unwrap();
        assert_eq!(bench.told(), ours);
    }

    #[test]
    fn what_was_there_before_is_watched_and_what_is_foreign_is_not() {
        let mut bench = Bench::new("foreign");
        let nqn = format!("{EXPORT_NQN_PREFIX}u-1:e1:g1");
        create_dir_all(bench.dir.join("subsystems").join(&nqn).join("namespaces/1")).unwrap();
        create_dir_all(bench.dir.join("subsystems/nqn.other/namespaces/1")).unwrap();
        create_dir_all(bench.dir.join("ports/900")).unwrap();
        bench.watched = Configfs::open(bench.dir.clone(), 42000..=42999).unwrap();
        write(bench.dir.join("subsystems/nqn.other/namespaces/1/enable"), "0").unwrap();
        write(bench.dir.join("ports/900/addr_trtype"), "tcp").unwrap();
        assert!(bench.told().is_empty());
        write(bench.dir.join("subsystems").join(&nqn).join("namespaces/1/enable"), "0").unwrap();
        assert_eq!(bench.told(), [nqn]);
    }
}
