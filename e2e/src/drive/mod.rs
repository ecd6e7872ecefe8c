//! Drives that a power cut really hurts: a guest's disk image behind a volatile write cache of the harness.
//!
//! What a guest wrote and did not flush is in the memory of this process ([`cache`]). Killing the guest is a power cut: it takes
//! all of that, or what chance leaves. Besides, a drive can be told to be slow, to fail, and to keep requests inside until it
//! is told to let them go: then they are carried out, at that moment and over whatever was written meanwhile.
//!
//! [`mount`] shows drives to User-Mode Linux as files. The kernel of the guests must carry out flushes and have many requests under
//! way in a drive: see `kernel/README.md`, patch 17 and `kernel/lab/drives`.

pub mod cache;
pub mod mount;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use cache::{Cache, Loss, Medium, Survival};

use crate::wait::pause;

/// What drives a guest has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriveKind {
    /// Files: what was written outlives the guest, flushed or not.
    #[default]
    Plain,
    /// Files behind a volatile write cache.
    Volatile,
}

impl DriveKind {
    /// What `MESHSTOR_DRIVES` says (`plain`, `volatile`), for a whole suite.
    pub fn from_environment() -> Self {
        match std::env::var("MESHSTOR_DRIVES").as_deref() {
            Ok("volatile") => Self::Volatile,
            _ => Self::Plain,
        }
    }
}

/// What a guest asks of a drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Bytes at a place.
    Read {
        /// Where.
        at: u64,
        /// How many.
        length: usize,
    },
    /// Puts bytes at a place.
    Write {
        /// Where.
        at: u64,
        /// The bytes.
        data: Vec<u8>,
    },
    /// Zeroes bytes.
    Zero {
        /// Where.
        at: u64,
        /// How many.
        length: u64,
    },
    /// All that was written shall outlive a power cut.
    Flush,
}

/// Kinds of requests that a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinds {
    /// Reads.
    Reads,
    /// Writes, and zeroing.
    Writes,
    /// Flushes.
    Flushes,
    /// All.
    All,
}

/// Which requests: of some kinds, that touch a range of bytes. A flush touches everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Which {
    /// The kinds.
    pub kinds: Kinds,
    /// The bytes.
    pub range: Range<u64>,
}

impl Which {
    /// Requests of these kinds anywhere.
    pub fn any(kinds: Kinds) -> Self {
        Self { kinds, range: 0..u64::MAX }
    }

    fn matches(&self, request: &Request) -> bool {
        let (kind, bytes) = match request {
            Request::Read { at, length } => (Kinds::Reads, *at..at + *length as u64),
            Request::Write { at, data } => (Kinds::Writes, *at..at + data.len() as u64),
            Request::Zero { at, length } => (Kinds::Writes, *at..at + length),
            Request::Flush => (Kinds::Flushes, 0..u64::MAX),
        };
        (self.kinds == Kinds::All || self.kinds == kind) && bytes.start < self.range.end && self.range.start < bytes.end
    }
}

/// How a drive behaves towards some requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Keeps at most so many of them inside, not carried out and not answered, until [`Drive::release`].
    Hold(Which, usize),
    /// Answers with an error, and does nothing.
    Fail(Which),
    /// Takes that long for each.
    Slow(Which, Duration),
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Now,
    After(Duration),
    Inside,
    Error,
}

/// The first rule that matches decides; one that holds takes no more than its number.
fn fate(faults: &mut [Fault], request: &Request) -> Fate {
    for fault in faults {
        match fault {
            Fault::Hold(which, room) if *room > 0 && which.matches(request) => {
                *room -= 1;
                return Fate::Inside;
            }
            Fault::Fail(which) if which.matches(request) => return Fate::Error,
            Fault::Slow(which, time) if which.matches(request) => return Fate::After(*time),
            _ => {}
        }
    }
    Fate::Now
}

/// An answer to a request: the bytes of a read, nothing for the others.
pub type Answer = io::Result<Vec<u8>>;
type Reply = Box<dyn FnOnce(Answer) + Send>;

/// What a drive has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads carried out.
    pub reads: u64,
    /// Writes carried out.
    pub writes: u64,
    /// Flushes carried out.
    pub flushes: u64,
    /// Requests answered with an error.
    pub errors: u64,
}

struct State {
    cache: Cache<Image>,
    faults: Vec<Fault>,
    inside: Vec<(Request, Reply)>,
    counts: Counts,
    /// Raised by each power cut: a request of an older one is never carried out.
    life: u64,
    on: bool,
}

/// A drive.
pub struct Drive {
    bytes: u64,
    state: Mutex<State>,
}

impl Drive {
    /// A drive over the image in `file`, without power.
    pub fn new(file: File) -> io::Result<Arc<Self>> {
        let bytes = file.metadata()?.len();
        let state = State {
            cache: Cache::new(Image(file)),
            faults: Vec::new(),
            inside: Vec::new(),
            counts: Counts::default(),
            life: 0,
            on: false,
        };
        Ok(Arc::new(Self { bytes, state: Mutex::new(state) }))
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives it power.
    pub fn power_on(&self) {
        self.state().on = true;
    }

    /// A power cut: what is inside is answered with an error and never carried out, and of what was not flushed `survival` decides.
    pub fn cut(&self, survival: Survival) -> io::Result<Loss> {
        let (loss, inside) = {
            let mut state = self.state();
            state.on = false;
            state.life += 1;
            (state.cache.cut(survival)?, std::mem::take(&mut state.inside))
        };
        for (_, reply) in inside {
            reply(Err(io::ErrorKind::NotConnected.into()));
        }
        Ok(loss)
    }

    /// Sets how it behaves from now on. What it holds stays inside until [`Drive::release`].
    pub fn set(&self, faults: Vec<Fault>) {
        self.state().faults = faults;
    }

    /// Carries out what it holds, in the order in which it came, and holds nothing any more. Gives how many requests that were.
    pub fn release(&self) -> usize {
        let (inside, life) = {
            let mut state = self.state();
            state.faults.retain(|fault| !matches!(fault, Fault::Hold(..)));
            (std::mem::take(&mut state.inside), state.life)
        };
        let count = inside.len();
        for (request, reply) in inside {
            reply(self.carry_out(&request, life));
        }
        count
    }

    /// How many requests it holds.
    pub fn inside(&self) -> usize {
        self.state().inside.len()
    }

    /// Pages that a power cut would take.
    pub fn unflushed(&self) -> usize {
        self.state().cache.unflushed()
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Takes a request; `reply` gets the answer, at once or later and from any thread.
    pub fn submit(self: &Arc<Self>, request: Request, reply: Reply) {
        let mut state = self.state();
        let life = state.life;
        match fate(&mut state.faults, &request) {
            _ if !state.on => {
                drop(state);
                reply(Err(io::ErrorKind::NotConnected.into()));
            }
            Fate::Inside => state.inside.push((request, reply)),
            Fate::Error => {
                state.counts.errors += 1;
                drop(state);
                reply(Err(io::Error::other("the drive fails")));
            }
            Fate::After(time) => {
                drop(state);
                let drive = Arc::clone(self);
                std::thread::spawn(move || {
                    pause(time);
                    reply(drive.carry_out(&request, life));
                });
            }
            Fate::Now => {
                drop(state);
                reply(self.carry_out(&request, life));
            }
        }
    }

    fn carry_out(&self, request: &Request, life: u64) -> Answer {
        let mut guard = self.state();
        let state = &mut *guard;
        if !state.on || state.life != life {
            return Err(io::ErrorKind::NotConnected.into());
        }
        match request {
            Request::Read { at, length } => {
                // As a file: short at the end.
                let left = usize::try_from(self.bytes.saturating_sub(*at)).unwrap_or(usize::MAX);
                let mut data = vec![0; (*length).min(left)];
                state.counts.reads += 1;
                state.cache.read(*at, &mut data).map(|()| data)
            }
            Request::Write { at, data } => {
                state.counts.writes += 1;
                state.cache.write(*at, data).map(|()| Vec::new())
            }
            Request::Zero { at, length } => {
                state.counts.writes += 1;
                state.cache.zero(*at, *length).map(|()| Vec::new())
            }
            Request::Flush => {
                state.counts.flushes += 1;
                state.cache.flush().map(|()| Vec::new())
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The image of a drive: what the host has in its page cache outlives the guest, so nothing is synced.
struct Image(File);

impl Medium for Image {
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < into.len() {
            match self.0.read_at(&mut into[done..], at + done as u64)? {
                // The last page of an image that ends within it.
                0 => {
                    into[done..].fill(0);
                    break;
                }
                count => done += count,
            }
        }
        Ok(())
    }

    /// Zeros where zeros are stay a hole: a new leg is zeroed, and costs no space.
    fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()> {
        if from.iter().all(|byte| *byte == 0) {
            let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
            return Ok(rustix::fs::fallocate(&self.0, flags, at, from.len() as u64)?);
        }
        self.0.write_all_at(from, at)
    }
}

#[cfg(test)]
mod tests;
