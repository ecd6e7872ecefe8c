//! Wake-ups from the kernel: `poll()` on the sysfs attributes of a running array.
//!
//! MD notifies `array_state`, `degraded` and `sync_action`. The kernel has no such event for a controller that goes
//! from `live` to `connecting`: as long as there are remote connections, their state is looked at once a second.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Called when something about an array may have changed.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Ends its watch when it is dropped.
#[derive(Debug, Default)]
pub struct Watch(Arc<AtomicBool>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Who tells when arrays change.
pub trait Wakeups: Send + Sync {
    /// Calls `wake` after each change of `array` (`/dev/mdN`) until the watch is dropped or the array is gone.
    fn watch(&self, array: &Path, wake: Wake) -> Watch;
}

/// The kernel's own.
#[derive(Debug, Default)]
pub struct SysfsWakeups;

/// Attributes of `/sys/block/mdN/md` that MD notifies.
const ATTRIBUTES: [&str; 3] = ["array_state", "degraded", "sync_action"];
/// Seconds between two looks at whether the watch was dropped.
const LOOK: i64 = 5;

impl Wakeups for SysfsWakeups {
    fn watch(&self, array: &Path, wake: Wake) -> Watch {
        let watch = Watch::default();
        let name = array.file_name().map(PathBuf::from).unwrap_or_default();
        let (dir, over) = (Path::new("/sys/block").join(name).join("md"), Arc::clone(&watch.0));
        std::thread::spawn(move || follow(&dir, &over, &wake));
        watch
    }
}

fn follow(dir: &Path, over: &AtomicBool, wake: &Wake) {
    while !over.load(Ordering::Relaxed) {
        // Opened anew each time: the read arms the next notification. The wake-up comes after that, so that a change
        // while somebody looks at the array is told once more.
        let Some(files) = open(dir) else { return wake() };
        wake();
        if !changed(&files, over) {
            return;
        }
    }
}

/// Waits for a change; false when the watch is over.
fn changed(files: &[File], over: &AtomicBool) -> bool {
    let timeout = Timespec { tv_sec: LOOK, tv_nsec: 0 };
    while !over.load(Ordering::Relaxed) {
        let mut fds: Vec<PollFd<'_>> = files.iter().map(|f| PollFd::new(f, PollFlags::PRI | PollFlags::ERR)).collect();
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return true,
            Err(_) => return false,
        }
    }
    false
}

fn open(dir: &Path) -> Option<Vec<File>> {
    ATTRIBUTES.iter().map(|a| armed(&dir.join(a))).collect()
}

fn armed(path: &Path) -> Option<File> {
    let mut file = File::open(path).ok()?;
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    Some(file)
}

/// Wake-ups on command, for tests.
#[derive(Default)]
pub struct FakeWakeups(Mutex<Vec<(PathBuf, Wake)>>);

impl FakeWakeups {
    /// Wakes whoever watches the array.
    pub fn fire(&self, array: &Path) {
        let watched = self.0.lock().map(|w| w.clone()).unwrap_or_default();
        watched.iter().filter(|(a, _)| a == array).for_each(|(_, wake)| wake());
    }
}

impl Wakeups for FakeWakeups {
    fn watch(&self, array: &Path, wake: Wake) -> Watch {
        if let Ok(mut watched) = self.0.lock() {
            watched.push((array.to_owned(), wake));
        }
        Watch::default()
    }
}
