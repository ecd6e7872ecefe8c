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
fn kernel_partitions(sys: &Path, dev: &Path, drive: &str) -> Vec<KernelPartition> {
    let dir = sys.join("block").join(drive);
    let partition = |name: String| {
        let block = dir.join(&name);
        Some(KernelPartition {
            number: sysfs::number(block.join("partition"))?,
            // sysfs counts in 512 bytes, whatever the sector of the drive.
            first_byte: sysfs::number::<u64>(block.join("start"))? * 512,
            size: sysfs::number::<u64>(block.join("size"))? * 512,
            device: sysfs::device_node(dev, &block)?,
            name,
        })
    };
    sysfs::names(&dir).into_iter().filter_map(partition).collect()
}

/// The kernel's partition for an entry: by number *and* extent, for a table may have changed behind the kernel's back.
pub(super) fn kernel_partition(
    sys: &Path,
    dev: &Path,
    drive: &str,
    number: u32,
    entry: &Entry,
    sector: u64,
) -> Option<KernelPartition> {
    kernel_partitions(sys, dev, drive).into_iter().find(|p| {
        p.number == number
            && p.first_byte == entry.first * sector
            && p.size == (entry.last - entry.first + 1) * sector
            && sysfs::is_node_of(&p.device, &sys.join("class/block").join(&p.name))
    })
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
    let look = || kernel_partition(sys, dev, drive, number, entry, sector);
    if let Some(there) = look() {
        return Ok(there);
    }
    let known = kernel_partitions(sys, dev, drive).iter().any(|p| p.number == number);
    let how = if known { "--update" } else { "--add" };
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
