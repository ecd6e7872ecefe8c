//! The thread that listens: to the kernel's messages, configfs and the table of mounts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::RangeInclusive;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc;

use super::configfs::Configfs;
use super::uevent::Uevents;
use super::{News, arrays, mountinfo};

/// All that is told within this time of the first is one piece of news: making an export alone is a dozen changes.
pub const GATHER: Duration = Duration::from_millis(200);
/// A member is bound to an array that does not run yet without a word: what MD has is read once more, so long after its last word.
const BOUND: Duration = Duration::from_secs(2);

/// Where to listen, and what concerns us.
#[derive(Clone)]
pub struct Sources {
    /// `/proc`, of the mount namespace in which we mount.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
    /// `/sys/kernel/config`.
    pub configfs: PathBuf,
    /// TCP ports of exports.
    pub ports: RangeInclusive<u16>,
    /// Whether a whole drive, by its kernel name, is one that the daemon may use.
    pub is_drive: std::sync::Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

/// Starts the thread, which ends with the receiver. What changes from the return of this on is told.
///
/// # Errors
/// When the kernel gives no socket for its messages, or no thread.
pub fn listen(sources: Sources) -> io::Result<mpsc::Receiver<News>> {
    let (tell, told) = mpsc::channel(16);
    let mut ear = Ear::new(sources)?;
    std::thread::Builder::new().name("events".to_owned()).spawn(move || {
        while !tell.is_closed() {
            let news = ear.hear();
            if !news.is_empty() && tell.blocking_send(news).is_err() {
                return;
            }
        }
    })?;
    Ok(told)
}

struct Ear {
    sources: Sources,
    uevents: Uevents,
    /// None where the kernel has no inotify.
    configfs: Option<Configfs>,
    arrays: arrays::Arrays,
    mountinfo: Option<File>,
    mounts: BTreeMap<String, BTreeSet<String>>,
    /// When to read what MD has once more.
    again: Option<Instant>,
}

impl Ear {
    fn new(sources: Sources) -> io::Result<Self> {
        let uevents = Uevents::open()?;
        let configfs = Configfs::open(sources.configfs.join("nvmet"), sources.ports.clone());
        let configfs = configfs.inspect_err(|error| tracing::warn!(%error, "configfs is not watched")).ok();
        let mountinfo = File::open(sources.proc.join("self/mountinfo")).ok();
        let mut ear = Self {
            sources,
            uevents,
            configfs,
            arrays: arrays::Arrays::new(),
            mountinfo,
            mounts: BTreeMap::new(),
            again: None,
        };
        // What is there now is no news.
        let _ = (ear.arrays(), ear.mounts());
        Ok(ear)
    }

    /// Sleeps until something is told, waits for what comes with it, and gives all of it.
    fn hear(&mut self) -> News {
        self.sleep();
        // The sources keep what comes meanwhile.
        let _ = poll(&mut [], Timespec::try_from(GATHER).ok().as_ref());
        let mut news = self.uevents.drain(self.sources.is_drive.as_ref());
        if let Some(configfs) = &mut self.configfs {
            if configfs.is_idle() {
                configfs.arm();
            }
            news = news.and(configfs.drain());
        }
        // A member that is bound or fails is told of by the array's own message, or by none.
        let told = news.names.iter().any(|n| n.starts_with("md"));
        let due = self.again.is_some_and(|at| at <= Instant::now());
        let mut md = if told || due || news.missed { self.arrays() } else { News::default() };
        md.names.extend(news.names.iter().filter(|n| n.starts_with("md")).cloned());
        let now = Instant::now();
        self.again = if md.is_empty() { self.again.filter(|at| *at > now) } else { Some(now + BOUND) };
        news.and(md).and(self.mounts())
    }

    /// Returns when a source has something to tell, or it is time to read what MD has.
    fn sleep(&self) {
        let mut fds = vec![PollFd::new(&self.uevents, PollFlags::IN)];
        fds.extend(self.configfs.iter().map(|c| PollFd::from_borrowed_fd(c.as_fd(), PollFlags::IN)));
        // ERR comes unasked; a table has it only with PRI, when it has changed.
        fds.extend(self.mountinfo.iter().map(|table| PollFd::from_borrowed_fd(table.as_fd(), PollFlags::PRI)));
        let left = self.again.map(|at| at.saturating_duration_since(Instant::now()));
        let left = left.and_then(|t| Timespec::try_from(t).ok());
        let _ = poll(&mut fds, left.as_ref());
    }

    /// Arrays that changed since the last call, with their members.
    fn arrays(&mut self) -> News {
        match arrays::arrays(&self.sources.sys) {
            Ok(now) => {
                let before = std::mem::replace(&mut self.arrays, now);
                News::of(arrays::changed(&before, &self.arrays))
            }
            Err(error) => unread("the arrays of sysfs", &error),
        }
    }

    /// Arrays whose mounts changed since the last call.
    fn mounts(&mut self) -> News {
        match read(&self.sources.proc.join("self/mountinfo")) {
            Ok(None) => News::default(),
            Ok(Some((_, text))) => {
                let before = std::mem::replace(&mut self.mounts, mountinfo::of_arrays(&text));
                News::of(mountinfo::changed(&before, &self.mounts))
            }
            Err(error) => unread("mountinfo", &error),
        }
    }
}

/// A table that cannot be read tells of nothing: everybody looks.
fn unread(table: &str, error: &io::Error) -> News {
    tracing::warn!(table, %error, "not read");
    News::missed()
}

/// A table; none without the module that makes it. Names in it need not be text: one of them must not hide the others.
fn read(path: &Path) -> io::Result<Option<(File, String)>> {
    let mut bytes = Vec::new();
    let read = |mut file: File| file.read_to_end(&mut bytes).map(|_| file);
    match File::open(path).and_then(read) {
        Ok(file) => Ok(Some((file, String::from_utf8_lossy(&bytes).into_owned()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_cannot_be_read_is_not_an_empty_one() {
        let dir = std::env::temp_dir();
        assert!(read(&dir).is_err());
        assert!(read(&dir.join("meshstor-nothing-has-this-name")).unwrap().is_none());
        let file = dir.join(format!("meshstor-mountinfo-{}", std::process::id()));
        std::fs::write(&file, b"1 2 9:100 / /mnt/a rw - xfs a rw\n3 2 0:9 / /mnt/\xff rw - tmpfs b rw\n").unwrap();
        let (_, text) = read(&file).unwrap().unwrap();
        assert!(mountinfo::of_arrays(&text).contains_key("md100"));
        std::fs::remove_file(file).unwrap();
    }
}
