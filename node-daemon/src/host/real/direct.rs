//! Direct I/O on block devices: past every page cache, on the drive when a write returns and was synced.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Alignment that every drive accepts for memory; lengths and offsets only need the logical sector.
const ALIGN: usize = 4096;
/// One MiB.
pub(super) const MIB: u64 = 1 << 20;

/// How a device is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// To read.
    Read,
    /// To write, beside other users: the whole drive while its partitions are in use.
    Write,
    /// To write, and nobody else has claimed it: not mounted, no member of an array (`EBUSY` otherwise).
    Exclusive,
}

/// An open device.
pub(super) struct Direct(File);

impl Direct {
    /// Opens a block device with `O_DIRECT`.
    pub fn open(path: &Path, access: Access) -> io::Result<Self> {
        let flags = match access {
            Access::Exclusive => OFlags::DIRECT | OFlags::EXCL,
            _ => OFlags::DIRECT,
        };
        let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
        OpenOptions::new().read(true).write(access != Access::Read).custom_flags(flags).open(path).map(Direct)
    }

    /// The file itself, for `fallocate` and `fsync`.
    pub fn file(&self) -> &File {
        &self.0
    }

    /// Reads `len` bytes; both numbers are multiples of the sector.
    pub fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0u8; len + ALIGN];
        let at = aligned(&buffer);
        self.0.read_exact_at(&mut buffer[at..at + len], offset)?;
        buffer.copy_within(at..at + len, 0);
        buffer.truncate(len);
        Ok(buffer)
    }

    /// Writes whole sectors.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut buffer = vec![0u8; bytes.len() + ALIGN];
        let at = aligned(&buffer);
        buffer[at..at + bytes.len()].copy_from_slice(bytes);
        self.0.write_all_at(&buffer[at..at + bytes.len()], offset)
    }

    /// Flushes the drive's cache.
    pub fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    /// Whether `len` bytes read as zeros.
    pub fn is_zero(&self, offset: u64, len: u64) -> io::Result<bool> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        Ok(self.read(offset, len)?.iter().all(|b| *b == 0))
    }

    /// Whether the first and the last MiB of a device of `size` bytes read as zeros.
    pub fn ends_are_zero(&self, size: u64) -> io::Result<bool> {
        let len = MIB.min(size);
        Ok(self.is_zero(0, len)? && self.is_zero(size - len, len)?)
    }
}

fn aligned(buffer: &[u8]) -> usize {
    (ALIGN - buffer.as_ptr().addr() % ALIGN) % ALIGN
}
