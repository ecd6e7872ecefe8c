//! Legs: partitions of our type, by UUID.

use super::super::{LedgerEntry, LegFacts, LegRef, Part, PartitionFacts, Result};
use super::direct::{Access, Direct, MIB};
use super::drives::Drive;
use super::error::{Doing, busy, conflict, failed};
use super::gpt::{Entry, LEG_TYPE};
use super::zero::zero_device;
use super::{RealHost, disk, ledger, sysfs};
use std::path::{Path, PathBuf};

impl RealHost {
    pub(super) fn leg_facts(&self, leg: &LegRef) -> Result<LegFacts> {
        let drive = self.drive(&leg.drive)?;
        let found = drive.table()?.find(leg.uuid);
        let ledger = self.ledger(&drive)?;
        let entry = ledger.get(leg.uuid).cloned();
        if found.is_some() && entry.is_none() && ledger.lost {
            return Err(conflict(
                format!("read the ledger entry of leg {}", leg.uuid),
                "it was lost with both copies of the ledger",
            ));
        }
        let kernel = self.kernel_view(&drive.name)?;
        let partition = match &found {
            Some((number, entry)) => kernel.partition(*number, entry, drive.sector)?.map(|kernel| (kernel, entry)),
            None => None,
        };
        // Held is held, whatever the kernel calls what is there, and though its device node is not to be seen.
        let held_by = match &found {
            Some((_, entry)) => self.holder_of(&kernel, entry, drive.sector)?,
            None => None,
        };
        let all: Vec<Entry> = drive.table()?.entries().map(|(_, e)| e).collect();
        if let Some(unknown) = kernel.without(&all, drive.sector)
            && found.is_none()
            && entry.is_some()
        {
            return Err(conflict(
                format!("find the partition of leg {}", leg.uuid),
                format!(
                    "the table does not have it, and the kernel has {unknown}, which the table does not have either"
                ),
            ));
        }
        let device = partition.as_ref().map(|(kernel, _)| kernel.device.clone());
        Ok(LegFacts {
            held_by_stranger: held_by.as_deref().map(|array| self.is_noted(array)).transpose()? == Some(false),
            held_by,
            exports: self.exports_of(leg.uuid, device.as_deref())?,
            partition: partition.map(|(kernel, entry)| PartitionFacts {
                device: kernel.device,
                first_byte: entry.first * drive.sector,
                size: bytes(entry, drive.sector),
            }),
            ledger: entry,
        })
    }

    fn kernel_view(&self, drive: &str) -> Result<disk::KernelView> {
        disk::KernelView::of(&self.config.sys, &self.config.dev, drive)
    }

    /// The array that holds a partition which the kernel has in the place of this entry.
    fn holder_of(&self, kernel: &disk::KernelView, entry: &Entry, sector: u64) -> Result<Option<PathBuf>> {
        let mut holder = None;
        for name in kernel.overlapping(entry, sector) {
            holder = holder.or(self.array_holding(name)?);
        }
        Ok(holder)
    }

    /// Every leg on a usable drive, also one that the kernel does not know yet.
    pub(super) fn all_legs(&self) -> Result<Vec<LegRef>> {
        let of = |drive: Drive| {
            let entries: Vec<Entry> = drive.table().map(|t| t.entries().map(|(_, e)| e).collect()).unwrap_or_default();
            let id = drive.id;
            entries.into_iter().filter(|e| e.kind == LEG_TYPE).map(move |e| LegRef { drive: id.clone(), uuid: e.uuid })
        };
        Ok(self.scan_tables()?.into_iter().flat_map(of).collect())
    }

    fn array_holding(&self, partition: &str) -> Result<Option<PathBuf>> {
        let class = self.config.sys.join("class/block");
        let holders = sysfs::need_names(class.join(partition).join("holders"))?;
        match holders.into_iter().find(|h| h.starts_with("md")) {
            Some(md) => sysfs::device_node(&self.config.dev, &class.join(md)),
            None => Ok(None),
        }
    }

    /// Whether an array is one that was noted before it was started: no other is ours.
    fn is_noted(&self, array: &Path) -> Result<bool> {
        let name = array.file_name().unwrap_or_default();
        Ok(self.array_notes()?.values().any(|noted| name == noted.as_str()))
    }

    pub(super) fn make_partition(&self, leg: &LegRef, size: u64, label: &str) -> Result<()> {
        let action = || format!("create partition {} on drive {}", leg.uuid, leg.drive);
        let size = size.next_multiple_of(MIB);
        let name = self.drive(&leg.drive)?.name;
        let lock = self.drive_lock(&name);
        let _guard = lock.hold();
        let drive = self.drive(&leg.drive)?;
        let mut table = drive.table()?.clone();
        let (number, entry) = match table.find(leg.uuid) {
            Some((_, e)) if e.kind != LEG_TYPE => {
                return Err(conflict(action(), "a partition of another type has this UUID"));
            }
            Some((_, e)) if bytes(&e, drive.sector) != size => {
                return Err(conflict(
                    action(),
                    format!("it exists with {} bytes, {size} are wanted", bytes(&e, drive.sector)),
                ));
            }
            Some(found) => found,
            None => {
                self.ensure_ledger(&drive, &mut table)?;
                let free = table.free().into_iter().find(|free| free.end - free.start >= size);
                let at = free.ok_or_else(|| failed(action(), format!("no free extent of {size} bytes")))?.start;
                let entry = Entry {
                    kind: LEG_TYPE,
                    uuid: leg.uuid,
                    first: at / drive.sector,
                    last: (at + size) / drive.sector - 1,
                    name: label.to_owned(),
                };
                let number = table.add(&entry).ok_or_else(|| failed(action(), "the partition table is full"))?;
                let whole = disk::open(&drive.path, Access::Write)?;
                clear_ends(&whole, at, size).doing(action)?;
                self.adopt_in_lost_ledger(leg)?;
                disk::write_table(&whole, drive.size, &table).doing(action)?;
                (number, entry)
            }
        };
        disk::tell_kernel(&self.config.sys, &self.config.dev, &drive.name, number, &entry, drive.sector).map(|_| ())
    }

    /// In a ledger that was lost, a leg without an entry is one whose entry is lost: a new leg must have one.
    fn adopt_in_lost_ledger(&self, leg: &LegRef) -> Result<()> {
        let drive = self.drive(&leg.drive)?;
        match (drive.ledger_at(), self.ledger(&drive)) {
            (Some(_), Ok(ledger)) if ledger.lost => self.change_ledger(&drive, |l| {
                l.legs.entry(leg.uuid.to_string()).or_default();
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn put_ledger_entry(&self, leg: &LegRef, entry: &LedgerEntry) -> Result<()> {
        let drive = self.drive(&leg.drive)?;
        let lock = self.drive_lock(&drive.name);
        let _guard = lock.hold();
        self.change_ledger(&drive, |l| {
            l.legs.insert(leg.uuid.to_string(), entry.clone());
        })
    }

    /// The caller holds the drive's lock.
    fn change_ledger(&self, drive: &Drive, change: impl FnOnce(&mut ledger::Ledger)) -> Result<()> {
        let action = || format!("write the ledger of drive {}", drive.id);
        let at = drive.ledger_at().ok_or_else(|| conflict(action(), "the drive has no ledger"))?;
        let whole = disk::open(&drive.path, Access::Write)?;
        ledger::update(&whole, at, change).doing(action)
    }

    pub(super) fn remove_partition(&self, leg: &LegRef) -> Result<()> {
        let action = || format!("delete partition {} on drive {}", leg.uuid, leg.drive);
        let drive = self.drive(&leg.drive)?;
        let lock = self.drive_lock(&drive.name);
        let _guard = lock.hold();
        let drive = self.drive(&leg.drive)?;
        let mut table = drive.table()?.clone();
        if let Some((number, entry)) = table.find(leg.uuid) {
            if entry.kind != LEG_TYPE {
                return Err(conflict(action(), "a partition of another type has this UUID"));
            }
            let kernel = self.kernel_view(&drive.name)?;
            self.refuse_in_use(leg, &kernel, &entry, drive.sector, action)?;
            if kernel.partition(number, &entry, drive.sector)?.is_some() {
                disk::forget_in_kernel(&self.config.dev, &drive.name, number)?;
            }
            table.remove(number);
            let whole = disk::open(&drive.path, Access::Write)?;
            disk::write_table(&whole, drive.size, &table).doing(action)?;
        }
        // Last: a partition without its entry would look like a new leg.
        match drive.ledger_at() {
            Some(_) => self.change_ledger(&drive, |l| {
                l.legs.remove(&leg.uuid.to_string());
            }),
            None => Ok(()),
        }
    }

    fn refuse_in_use(
        &self,
        leg: &LegRef,
        kernel: &disk::KernelView,
        entry: &Entry,
        sector: u64,
        action: impl Fn() -> String,
    ) -> Result<()> {
        let device = kernel.device_at(entry, sector);
        if let Some(export) = self.exports_of(leg.uuid, device)?.first() {
            return Err(busy(action(), format!("exported as {}", export.nqn)));
        }
        match self.holder_of(kernel, entry, sector)? {
            Some(md) => Err(busy(action(), format!("a member of {}", md.display()))),
            None => Ok(()),
        }
    }

    pub(super) fn zero_leg(&self, leg: &LegRef, part: Part, progress: &dyn Fn(u8)) -> Result<()> {
        let action = || format!("zero leg {}", leg.uuid);
        let facts = self.leg_facts(leg)?;
        let partition = facts.partition.ok_or_else(|| failed(action(), "it has no partition"))?;
        if let Some(export) = facts.exports.first() {
            return Err(busy(action(), format!("exported as {}", export.nqn)));
        }
        zero_device(&partition.device, &part.ranges(partition.size), progress)
    }

    /// Size of a block device in bytes.
    pub(super) fn size_of(&self, device: &Path) -> Result<u64> {
        let action = || format!("find the size of {}", device.display());
        let name = std::fs::canonicalize(device).doing(action)?;
        let name = name.file_name().unwrap_or_default();
        let size = sysfs::sectors(self.config.sys.join("class/block").join(name).join("size"))?;
        size.ok_or_else(|| failed(action(), "it is no block device"))
    }
}

/// What an earlier partition left at the ends of an extent (an MD superblock) must not be seen by anybody's udev rules
/// in the moment when the new one appears.
fn clear_ends(whole: &Direct, at: u64, size: u64) -> std::io::Result<()> {
    let zeros = vec![0u8; MIB as usize];
    whole.write(at, &zeros)?;
    whole.write(at + size - MIB, &zeros)?;
    whole.sync()
}

fn bytes(entry: &Entry, sector: u64) -> u64 {
    (entry.last + 1 - entry.first) * sector
}
