//! The writer's journal, a text file on the share of the guest with its machine: it outlives the guest's power.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;

/// One flushed batch; times on the guest's clock, which is the machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flush {
    /// The batch.
    pub batch: u64,
    /// When its first write was issued.
    pub began: SystemTime,
    /// When its `fsync` returned.
    pub ended: SystemTime,
}

/// What a journal says.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// The newest batch that may have reached the volume.
    pub issued: u64,
    /// All flushes in order. A batch without one, because the guest lost its power or an error came, may be on the volume or not.
    pub flushes: Vec<Flush>,
    /// Errors that the writer met.
    pub errors: Vec<String>,
}

impl Journal {
    /// Reads a journal; one that is not there is empty, and a last line that was cut off does not count.
    pub fn read(path: &Path) -> Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        let mut journal = Self::default();
        for line in text.split_inclusive('\n').filter_map(|l| l.strip_suffix('\n')) {
            journal.take(line);
        }
        Ok(journal)
    }

    fn take(&mut self, line: &str) {
        let numbers: Vec<u64> = line.split(' ').skip(1).map_while(|word| word.parse().ok()).collect();
        match (line.chars().next(), numbers.as_slice()) {
            (Some('i'), [batch]) => self.issued = self.issued.max(*batch),
            (Some('f'), [batch, began, ended]) => {
                self.flushes.push(Flush { batch: *batch, began: time(*began), ended: time(*ended) });
            }
            (Some('e'), _) => self.errors.push(line.to_owned()),
            _ => {}
        }
    }

    /// The newest batch that was acknowledged as durable.
    pub fn flushed(&self) -> u64 {
        self.flushes.last().map_or(0, |flush| flush.batch)
    }

    /// The flush that took longest: a stall.
    pub fn longest(&self) -> Option<Flush> {
        self.longest_since(UNIX_EPOCH)
    }

    /// Of those that ended after `since` the one that took longest.
    pub fn longest_since(&self, since: SystemTime) -> Option<Flush> {
        let later = self.flushes.iter().filter(|f| f.ended > since);
        later.max_by_key(|f| f.ended.duration_since(f.began).unwrap_or_default()).copied()
    }
}

impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "issued {}, flushed {}, {} errors", self.issued, self.flushed(), self.errors.len())
    }
}

fn time(nanoseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanoseconds)
}

/// Nanoseconds since 1970.
fn nanoseconds(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

/// Appends to a journal.
pub(super) struct Writer {
    file: File,
}

impl Writer {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::options().create(true).append(true).open(path)? })
    }

    /// Durable before it returns: what is on the volume but not here would look invented.
    pub(super) fn issue(&mut self, batch: u64) -> io::Result<()> {
        self.append(&format!("i {batch}\n"))
    }

    /// May be lost with the guest's power: that only lowers the floor.
    pub(super) fn flushed(&mut self, batch: u64, began: SystemTime, ended: SystemTime) -> io::Result<()> {
        self.append(&format!("f {batch} {} {}\n", nanoseconds(began), nanoseconds(ended)))
    }

    pub(super) fn failed(&mut self, batch: u64, error: &io::Error) -> io::Result<()> {
        self.append(&format!("e {batch} {error}\n"))
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        self.file.write_all(line.as_bytes())?;
        self.file.sync_data()
    }
}
