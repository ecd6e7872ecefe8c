//! A partition table on its disk, and the kernel's view of it.

use super::super::Result;
use super::command::Tool;
use super::direct::{Access, Direct};
use super::error::{Doing, failed};
use super::gpt::{Entry, Header, Table, protective_mbr};
use super::sysfs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a device node may take to appear.
const NODE: Duration = Duration::from_secs(5);

/// What was found where a partition table belongs.
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// A table, and whether both copies and the protective MBR are whole.
    Table(Table, bool),
}

/// Reads the table from the primary copy, else from the backup in the disk's last sector.
pub(super) fn read_table(disk: &Direct, size: u64, sector: u64) -> io::Result<Found> {
    let last = (size / sector).saturating_sub(1);
    let primary = header_at(disk, 1, sector)?;
    let backup_at = primary.as_ref().map_or(last, |h| h.alternate.min(last));
    let backup = header_at(disk, backup_at, sector)?;
    let from = |header: &Option<Header>, other: &Option<Header>| -> io::Result<Option<Table>> {
        let Some(header) = header else { return Ok(None) };
        let end = header.entries_lba.saturating_mul(sector).saturating_add(header.entry_bytes() as u64);
        if header.last_usable > last || end > size {
            return Ok(None);
        }
        let padded = header.entry_bytes().next_multiple_of(sector as usize);
        let mut raw = disk.read(header.entries_lba * sector, padded)?;
        raw.truncate(header.entry_bytes());
        Ok(Table::assemble(sector, header, other.as_ref(), raw))
    };
    let (first, second) = (from(&primary, &backup)?, from(&backup, &primary)?);
    let mbr = !disk.is_zero(0, sector)?;
    // What the checksums say is whole can still be nonsense: nobody may count with it, or take it for no table at all.
    for table in first.iter().chain(&second) {
        if let Some(why) = table.nonsense() {
            return Err(io::Error::other(why));
        }
    }
    Ok(match (first, second) {
        (Some(one), Some(two)) => {
            let whole = mbr && one.raw() == two.raw();
            Found::Table(one, whole)
        }
        (Some(table), None) | (None, Some(table)) => Found::Table(table, false),
        (None, None) => Found::Nothing,
    })
}

/// Whether the primary copy may be written over: ours half written, or nothing at all.
pub(super) fn primary_is_ours_or_blank(disk: &Direct, sector: u64) -> io::Result<bool> {
    let header = disk.read(sector, sector as usize)?;
    Ok(header.starts_with(b"EFI PART") || header.iter().all(|b| *b == 0))
}

fn header_at(disk: &Direct, lba: u64, sector: u64) -> io::Result<Option<Header>> {
    let bytes = disk.read(lba * sector, sector as usize)?;
    Ok(Header::decode(&bytes, lba))
}

/// Writes both copies so that one of them is whole at every instant: first the backup, flushed, then the primary, whose
/// old self counts until it is gone. A protective MBR is written where there is none, last: the kernel looks no further
/// without it.
pub(super) fn write_table(disk: &Direct, size: u64, table: &Table) -> io::Result<()> {
    let sector = table.sector as usize;
    let mut raw = table.raw().to_vec();
    raw.resize(raw.len().next_multiple_of(sector), 0);
    for header in [&table.backup, &table.primary] {
        disk.write(header.entries_lba * table.sector, &raw)?;
        disk.write(header.lba * table.sector, &header.encode(sector))?;
        disk.sync()?;
    }
    if disk.is_zero(0, table.sector)? {
        disk.write(0, &protective_mbr(size, table.sector))?;
        disk.sync()?;
    }
    Ok(())
}

/// A partition as the kernel has it.
#[derive(Clone, Debug)]
pub(super) struct KernelPartition {
    /// Name in `/sys/class/block`.
    pub name: String,
    /// Its number.
    pub number: u32,
    /// Device node.
    pub device: PathBuf,
    first_byte: u64,
    size: u64,
}

/// Every partition that the kernel has of a drive.
pub(super) struct KernelView {
    sys: PathBuf,
    partitions: Vec<KernelPartition>,
}

impl KernelView {
    /// Looks at a drive.
    ///
    /// # Errors
    /// A partition cannot be read. It is not left out: then nobody would ask whether it is in use.
    pub fn of(sys: &Path, dev: &Path, drive: &str) -> Result<Self> {
        let dir = sys.join("block").join(drive);
        let mut partitions = vec![];
        // Partitions have the name of their drive in front.
        for name in sysfs::need_names(&dir)?.into_iter().filter(|n| n.starts_with(drive)) {
            let block = dir.join(&name);
            // sysfs counts in 512 bytes, whatever the sector of the drive.
            let (first, size) = (sysfs::sectors(block.join("start"))?, sysfs::sectors(block.join("size"))?);
            let node = sysfs::device_node(dev, &block)?;
            match (sysfs::number(block.join("partition"))?, first, size, node) {
                (Some(number), Some(first_byte), Some(size), Some(device)) => {
                    partitions.push(KernelPartition { name, number, device, first_byte, size });
                }
                _ if sysfs::exists(&block)? => return Err(sysfs::bad(block, "one of its attributes is not there")),
                _ => {}
            }
        }
        Ok(Self { sys: sys.to_owned(), partitions })
    }

    /// The partition for an entry: by number *and* extent, for a table may have changed behind the kernel's back.
    pub fn partition(&self, number: u32, entry: &Entry, sector: u64) -> Result<Option<KernelPartition>> {
        let right = |p: &&KernelPartition| {
            p.number == number && p.first_byte == entry.first * sector && p.size == entry.sectors() * sector
        };
        match self.partitions.iter().find(right) {
            Some(p) if sysfs::is_node_of(&p.device, &self.sys.join("class/block").join(&p.name))? => {
                Ok(Some(p.clone()))
            }
            _ => Ok(None),
        }
    }

    /// Names of the partitions that have a byte in common with the entry.
    pub fn overlapping(&self, entry: &Entry, sector: u64) -> impl Iterator<Item = &str> {
        let (first, end) = (entry.first * sector, (entry.last + 1) * sector);
        let common = move |p: &&KernelPartition| p.first_byte < end && first < p.first_byte.saturating_add(p.size);
        self.partitions.iter().filter(common).map(|p| p.name.as_str())
    }

    /// A partition that has no byte in common with any of the entries.
    pub fn without(&self, entries: &[Entry], sector: u64) -> Option<&str> {
        let known =
            |p: &&KernelPartition| entries.iter().any(|e| self.overlapping(e, sector).any(|name| name == p.name));
        self.partitions.iter().find(|p| !known(p)).map(|p| p.name.as_str())
    }

    /// The device node of what is in the place of the entry.
    pub fn device_at(&self, entry: &Entry, sector: u64) -> Option<&Path> {
        self.partitions.iter().find(|p| p.first_byte == entry.first * sector).map(|p| p.device.as_path())
    }

    fn knows(&self, number: u32) -> bool {
        self.partitions.iter().any(|p| p.number == number)
    }
}

/// Sees that the kernel has the partition, without touching the others of the drive, and waits for its device node.
pub(super) fn tell_kernel(
    sys: &Path,
    dev: &Path,
    drive: &str,
    number: u32,
    entry: &Entry,
    sector: u64,
) -> Result<KernelPartition> {
    let view = KernelView::of(sys, dev, drive)?;
    if let Some(there) = view.partition(number, entry, sector)? {
        return Ok(there);
    }
    let look = || KernelView::of(sys, dev, drive).and_then(|view| view.partition(number, entry, sector)).ok().flatten();
    let how = if view.knows(number) { "--update" } else { "--add" };
    Tool::new("partx").arg(how).arg("--nr").arg(number.to_string()).arg(dev.join(drive)).run()?;
    sysfs::wait_for(NODE, look)
        .ok_or_else(|| failed(format!("add partition {number} of {drive}"), "the kernel did not make its device node"))
}

/// Takes the partition from the kernel; refused (`Busy`) while anybody has it open.
pub(super) fn forget_in_kernel(dev: &Path, drive: &str, number: u32) -> Result<()> {
    Tool::new("partx").arg("--delete").arg("--nr").arg(number.to_string()).arg(dev.join(drive)).run()?;
    Ok(())
}

/// Opens a whole drive.
pub(super) fn open(path: &Path, access: Access) -> Result<Direct> {
    Direct::open(path, access).doing(|| format!("open {}", path.display()))
}
