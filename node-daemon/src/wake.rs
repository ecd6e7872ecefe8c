//! Wake-ups from the kernel, by one thread for all volumes.
//!
//! MD notifies `array_state`, `degraded`, `sync_action`, `failure_gate` (where it has one) and the `state` of each member: the thread sleeps in `poll()` on those. An
//! array goes from `clean` to `active` and back with every burst of writes; nobody is woken for that. The kernel has no such
//! event for a controller that goes from `live` to `connecting`; once a second the thread reads the `state` of each through a file
//! that stays open, which is one system call a controller. Nobody is woken as long as all of them are live; whose controller is not
//! is woken every time, so that one that was back for a moment is not missed.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// Called when something about a volume may have changed.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// What of the kernel one volume's worker must hear of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Its array, `/dev/mdN`.
    pub array: Option<PathBuf>,
    /// Kernel names of the array's members.
    pub members: Vec<String>,
    /// Its controllers, with the NQN of each: the kernel uses names again.
    pub controllers: Vec<(String, String)>,
}

/// Ends its watch when it is dropped.
#[derive(Debug, Default)]
pub struct Watch {
    over: Arc<AtomicBool>,
    bell: Option<Arc<OwnedFd>>,
}

impl Watch {
    /// Whether something that was watched is gone: nothing more is told, and whoever still has an array there watches it anew.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.bell.iter().for_each(|bell| ring(bell));
    }
}

/// Who tells when arrays and controllers change.
pub trait Wakeups: Send + Sync {
    /// Calls `wake` once, and after each change of `watched` until the watch is dropped.
    fn watch(&self, watched: &Watched, wake: Wake) -> Watch;
}

/// The kernel's own.
#[derive(Debug)]
pub struct SysfsWakeups {
    sys: PathBuf,
    bell: Arc<OwnedFd>,
    entries: Entries,
}

/// Attributes of `/sys/block/mdN/md` that MD notifies.
const ATTRIBUTES: [&str; 4] = ["array_state", "degraded", "sync_action", "failure_gate"];
/// Between two looks at the controllers.
const LOOK: Duration = Duration::from_secs(1);

type Entries = Arc<Mutex<Vec<Arc<Entry>>>>;

/// One watch.
struct Entry {
    over: Arc<AtomicBool>,
    array: Vec<File>,
    /// What the attributes said when they were last armed.
    said: Mutex<Vec<Option<String>>>,
    /// `state` of each controller; nothing for one that was gone already.
    controllers: Vec<Option<File>>,
    wake: Wake,
}

impl SysfsWakeups {
    /// Starts the thread, which ends with the process.
    ///
    /// # Errors
    /// When the kernel gives no event file descriptor.
    pub fn start(sys: PathBuf) -> std::io::Result<Self> {
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let entries = Entries::default();
        let (heard, served) = (Arc::clone(&bell), Arc::clone(&entries));
        std::thread::Builder::new().name("wakeups".to_owned()).spawn(move || serve(&heard, &served))?;
        Ok(Self { sys, bell, entries })
    }
}

impl Wakeups for SysfsWakeups {
    fn watch(&self, watched: &Watched, wake: Wake) -> Watch {
        let over = Arc::new(AtomicBool::new(false));
        let name = watched.array.as_ref().and_then(|a| a.file_name());
        let dir = name.map(|name| self.sys.join("block").join(name).join("md"));
        let members = watched.members.iter().map(|name| format!("dev-{name}/state"));
        let attributes = ATTRIBUTES.iter().map(ToString::to_string).chain(members);
        let array: Vec<File> =
            dir.map(|dir| attributes.filter_map(|a| File::open(dir.join(a)).ok()).collect()).unwrap_or_default();
        let said = Mutex::new(array.iter().map(armed).collect());
        let controller =
            |(name, _): &(String, String)| File::open(self.sys.join("class/nvme").join(name).join("state")).ok();
        let controllers = watched.controllers.iter().map(controller).collect();
        let entry = Entry { over: Arc::clone(&over), array, said, controllers, wake: Arc::clone(&wake) };
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(entry));
        ring(&self.bell);
        // What changed between the caller's look and the arming is told now.
        wake();
        Watch { over, bell: Some(Arc::clone(&self.bell)) }
    }
}

/// What an attribute says; the read arms its next notification. The states between which writes move an array are one.
fn armed(file: &File) -> Option<String> {
    let mut text = [0; 64];
    let length = file.read_at(&mut text, 0).ok()?;
    let text = String::from_utf8_lossy(text.get(..length)?).trim().to_owned();
    Some(if ["clean", "active", "active-idle", "write-pending"].contains(&&*text) { "serves".to_owned() } else { text })
}

fn ring(bell: &OwnedFd) {
    // Full means that it rings already.
    let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
}

fn serve(bell: &OwnedFd, entries: &Entries) {
    let mut looked = Instant::now();
    loop {
        let current = {
            let mut entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.retain(|e| !e.over.load(Ordering::Relaxed));
            entries.clone()
        };
        let remote = current.iter().any(|e| !e.controllers.is_empty());
        let fired = wait(bell, &current, remote.then(|| LOOK.saturating_sub(looked.elapsed())));
        for (entry, fired) in current.iter().zip(fired) {
            // Armed before the wake-up: a change while somebody looks at the array is told once more.
            if fired && entry.says_else() {
                (entry.wake)();
            }
        }
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            current.iter().filter(|e| !e.all_live()).for_each(|e| (e.wake)());
        }
    }
}

/// Waits for a change, for the bell, or for the time to be over; says of whose array something was told.
fn wait(bell: &OwnedFd, entries: &[Arc<Entry>], timeout: Option<Duration>) -> Vec<bool> {
    let mut fds = vec![PollFd::new(bell, PollFlags::IN)];
    let all = entries.iter().flat_map(|e| &e.array);
    fds.extend(all.map(|file| PollFd::new(file, PollFlags::PRI | PollFlags::ERR)));
    let timeout = timeout.and_then(|t| Timespec::try_from(t).ok());
    if poll(&mut fds, timeout.as_ref()).is_err() {
        return vec![false; entries.len()];
    }
    if !fds[0].revents().is_empty() {
        let _ = rustix::io::read(bell, &mut [0; 8]);
    }
    let mut rest = fds[1..].iter();
    entries.iter().map(|e| rest.by_ref().take(e.array.len()).filter(|f| !f.revents().is_empty()).count() > 0).collect()
}

impl Entry {
    /// Whether the array's attributes say something else than when they were last armed; arms them again. An attribute that is gone
    /// ends the watch: `poll()` would return for it at once for ever.
    fn says_else(&self) -> bool {
        let now: Vec<_> = self.array.iter().map(armed).collect();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = now.contains(&None);
        if gone {
            self.over.store(true, Ordering::Relaxed);
        }
        let news = gone || *said != now;
        *said = now;
        news
    }

    /// Whether every controller is live. One that is gone is not.
    fn all_live(&self) -> bool {
        let live = |file: &File| {
            let mut text = [0; 16];
            let length = file.read_at(&mut text, 0).unwrap_or(0);
            text.get(..length).is_some_and(|t| t.starts_with(b"live"))
        };
        self.controllers.iter().all(|state| state.as_ref().is_some_and(live))
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("array", &self.array).finish_non_exhaustive()
    }
}

/// Wake-ups on command, for tests.
#[derive(Default)]
pub struct FakeWakeups(Mutex<Vec<(Watched, Wake)>>);

impl FakeWakeups {
    /// Wakes whoever watches the array.
    pub fn fire(&self, array: &Path) {
        let watched = self.0.lock().map(|w| w.clone()).unwrap_or_default();
        watched.iter().filter(|(w, _)| w.array.as_deref() == Some(array)).for_each(|(_, wake)| wake());
    }
}

impl Wakeups for FakeWakeups {
    fn watch(&self, watched: &Watched, wake: Wake) -> Watch {
        if let Ok(mut all) = self.0.lock() {
            all.push((watched.clone(), wake));
        }
        Watch::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};

    struct Bench {
        sys: PathBuf,
        wakeups: SysfsWakeups,
    }

    impl Bench {
        fn new(test: &str) -> Self {
            let sys = std::env::temp_dir().join(format!("meshstor-wake-{test}-{}", std::process::id()));
            std::fs::create_dir_all(sys.join("class/nvme/nvme0")).unwrap();
            std::fs::write(sys.join("class/nvme/nvme0/state"), "live\n").unwrap();
            Self { wakeups: SysfsWakeups::start(sys.clone()).unwrap(), sys }
        }

        fn watch(&self) -> (Watch, Receiver<()>) {
            let (sender, woken) = channel();
            let controllers = vec![("nvme0".to_owned(), "nqn".to_owned())];
            let sender = Mutex::new(sender);
            let wake = Arc::new(move || sender.lock().unwrap().send(()).unwrap_or_default());
            (self.wakeups.watch(&Watched { controllers, ..Watched::default() }, wake), woken)
        }

        fn state(&self, text: &str) {
            std::fs::write(self.sys.join("class/nvme/nvme0/state"), text).unwrap();
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.sys);
        }
    }

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn a_controller_wakes_as_long_as_it_is_not_live_and_never_while_it_is() {
        let bench = Bench::new("lost");
        let (_watch, woken) = bench.watch();
        woken.recv_timeout(SOON).unwrap();
        assert!(woken.recv_timeout(LOOK * 2).is_err(), "nobody is woken as long as it is live");
        bench.state("connecting\n");
        woken.recv_timeout(SOON).unwrap();
        woken.recv_timeout(SOON).unwrap();
        bench.state("live\n");
        // One that was on its way.
        let _ = woken.recv_timeout(LOOK);
        assert!(woken.recv_timeout(LOOK * 2).is_err());
    }

    #[test]
    fn an_array_says_something_else_only_if_it_matters() {
        let dir = std::env::temp_dir().join(format!("meshstor-wake-array-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("array_state");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write("clean\n");
        let array = vec![File::open(&path).unwrap()];
        let said = Mutex::new(array.iter().map(armed).collect());
        let entry = Entry { over: Arc::default(), array, said, controllers: vec![], wake: Arc::new(|| ()) };
        for (text, news) in
            [("active\n", false), ("clean\n", false), ("broken\n", true), ("broken\n", false), ("active\n", true)]
        {
            write(text);
            assert_eq!(entry.says_else(), news, "{text}");
        }
        assert!(!entry.over.load(Ordering::Relaxed));
        // A directory cannot be read, as an attribute that is gone cannot.
        let gone = Entry { array: vec![File::open(&dir).unwrap()], said: Mutex::default(), ..entry };
        assert!(gone.says_else() && gone.over.load(Ordering::Relaxed), "the watch is over");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_watch_that_was_dropped_wakes_nobody() {
        let bench = Bench::new("dropped");
        let (watch, woken) = bench.watch();
        woken.recv_timeout(SOON).unwrap();
        drop(watch);
        bench.state("connecting\n");
        assert!(woken.recv_timeout(LOOK * 2).is_err());
    }
}
