//! The verifying writer: a per-block counter log, as an oracle of what may be read after any fault.
//!
//! Batch `b` (from 1) writes a set of blocks that follows from seed and `b` alone; each block names itself, the batch and the
//! seed, and carries a checksum. Before a batch is written, `i b` is made durable in a journal outside the volume; after its
//! `fsync`, `f b start end`. So the journal says for each block the newest batch that was *flushed* with it (the floor) and the
//! newest that was *issued*: any value between the two is legal, anything else is a lost or an invented write.

mod journal;
mod pattern;
mod scan;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};

pub use journal::{Flush, Journal};
pub use pattern::{Block, Shape};
pub use scan::{Found, Run, Scan, Verdict};

/// Size of a block in bytes: what a page cache writes at once.
pub const BLOCK: usize = 4096;

/// What and where the writer writes.
pub struct Target {
    /// A file, or a block device.
    pub path: PathBuf,
    /// Go around the page cache.
    pub direct: bool,
    /// Which blocks, in which batches.
    pub shape: Shape,
}

impl Target {
    fn open(&self, write: bool) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(write).create(write && !self.path.starts_with("/dev"));
        if self.direct {
            options.custom_flags(i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap_or(0));
        }
        options.open(&self.path)
    }

    /// Writes batches after the last one of the journal until `stop` exists or `batches` are written.
    pub fn write(&self, journal: &Path, stop: &Path, batches: u64, pause: Duration) -> Result<u64> {
        let file = self.open(true).with_context(|| format!("open {}", self.path.display()))?;
        let first = Journal::read(journal)?.issued + 1;
        if first == 1 && self.path.is_file() {
            file.set_len(self.shape.blocks * BLOCK as u64)?;
            file.sync_all()?;
        }
        let mut out = journal::Writer::open(journal)?;
        for batch in first..first.saturating_add(batches) {
            if stop.exists() {
                return Ok(batch - 1);
            }
            out.issue(batch)?;
            let began = SystemTime::now();
            if let Err(error) = self.write_batch(&file, batch) {
                out.failed(batch, &error)?;
                bail!("batch {batch}: {error}");
            }
            out.flushed(batch, began, SystemTime::now())?;
            crate::wait::pause(pause);
        }
        Ok(first + batches - 1)
    }

    fn write_batch(&self, file: &File, batch: u64) -> io::Result<()> {
        let mut buffer = Aligned::new();
        for number in self.shape.batch(batch) {
            Block { number, batch, seed: self.shape.seed }.encode(buffer.bytes());
            file.write_all_at(buffer.bytes(), number * BLOCK as u64)?;
        }
        file.sync_all()
    }

    /// Reads every block.
    pub fn scan(&self) -> Result<Scan> {
        let file = self.open(false).with_context(|| format!("open {}", self.path.display()))?;
        Scan::of(&file, self.shape.blocks)
    }

    /// Reads every block and holds it against the journal. Gives the number of blocks that hold a batch.
    pub fn verify(&self, journal: &Path) -> Result<u64> {
        let journal = Journal::read(journal)?;
        let said = format!("journal: {journal}");
        self.scan()?.judge(&[Run { shape: self.shape, journal }]).check().context(said)
    }
}

/// One block, aligned as direct I/O wants it.
struct Aligned {
    space: Vec<u8>,
    start: usize,
}

impl Aligned {
    fn new() -> Self {
        let space = vec![0; 2 * BLOCK];
        let start = space.as_ptr().align_offset(BLOCK);
        Self { space, start }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.space[self.start..self.start + BLOCK]
    }
}

#[cfg(test)]
mod tests;
