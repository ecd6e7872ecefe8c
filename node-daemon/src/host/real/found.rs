//! What a leg says of itself when no object names it: its place and label in the partition table, its MD superblock, its ledger entry.
//!
//! All of it is read from the whole drive, past every cache: the kernel need not have the partition.

use super::super::{FoundFacts, LegRef, Result, SuperLeg};
use super::direct::{Access, Direct};
use super::error::{Doing, busy, conflict};
use super::gpt::LEG_TYPE;
use super::{RealHost, bits, disk, superblock, sysfs};
use std::io;
use std::path::{Path, PathBuf};

/// The superblock of the partition that begins at byte `at` of a drive, with the kind of its bitmap; what is there instead is said.
fn member(disk: &Direct, at: u64) -> io::Result<std::result::Result<Option<SuperLeg>, String>> {
    let bytes = disk.read(at + superblock::OFFSET, superblock::BYTES)?;
    if let Err(why) = superblock::decode(&bytes) {
        return Ok(Err(why.to_owned()));
    }
    let Some(mut found) = superblock::member(&bytes) else { return Ok(Ok(None)) };
    if let Some(bitmap) = superblock::bitmap_at(&bytes) {
        found.bitmap = bits::kind(&disk.read(at + bitmap, 4096)?);
    }
    Ok(Ok(Some(found)))
}

impl RealHost {
    pub(super) fn found_leg(&self, leg: &LegRef) -> Result<Option<FoundFacts>> {
        let action = || format!("read leg {} of drive {}", leg.uuid, leg.drive);
        let drive = self.drive(&leg.drive)?;
        let Some((_, entry)) = drive.table()?.find(leg.uuid).filter(|(_, e)| e.kind == LEG_TYPE) else {
            return Ok(None);
        };
        let (first_byte, size) = (entry.first * drive.sector, entry.sectors() * drive.sector);
        let kernel = disk::KernelView::of(&self.config.sys, &self.config.dev, &drive.name)?;
        let device = kernel.device_at(&entry, drive.sector).map(Path::to_owned);
        // A ledger that is gone or damaged is no error here: it is what there is to say of the leg.
        let ledger = self.ledger(&drive).ok();
        let found = ledger.as_ref().and_then(|l| l.get(leg.uuid).cloned());
        let disk = disk::open(&drive.path, Access::Read)?;
        Ok(Some(FoundFacts {
            first_byte,
            size,
            superblock: member(&disk, first_byte).doing(action)?,
            ledger_lost: found.is_none() && ledger.is_none_or(|l| l.lost),
            ledger: found,
            exports: self.exports_over(device.as_deref())?,
            device,
            label: entry.name,
        }))
    }

    /// Erases the superblock, then the partition. With the kernel's own partition that is done over an exclusive descriptor, so that
    /// nobody takes it meanwhile; one that the kernel does not have nobody can use. One that it has otherwise is left alone.
    pub(super) fn discard_leg(&self, leg: &LegRef) -> Result<()> {
        let action = || format!("erase leg {} of drive {}", leg.uuid, leg.drive);
        let Some(found) = self.found_leg(leg)? else { return self.remove_partition(leg) };
        if let Some(export) = found.exports.first() {
            return Err(busy(action(), format!("exported as {export}")));
        }
        let drive = self.drive(&leg.drive)?;
        let Some((number, entry)) = drive.table()?.find(leg.uuid) else { return self.remove_partition(leg) };
        let kernel = disk::KernelView::of(&self.config.sys, &self.config.dev, &drive.name)?;
        let there: Vec<&str> = kernel.overlapping(&entry, drive.sector).collect();
        for name in &there {
            if let Some(user) = self.users_of(&self.config.dev.join(name))?.first() {
                return Err(busy(action(), user));
            }
        }
        match (kernel.partition(number, &entry, drive.sector)?, there.as_slice()) {
            (Some(partition), [_]) => self.erase_superblock(&partition.device)?,
            (None, []) => {
                let disk = disk::open(&drive.path, Access::Write)?;
                let at = found.first_byte + superblock::OFFSET;
                disk.write(at, &[0u8; superblock::BYTES]).and_then(|()| disk.sync()).doing(action)?;
            }
            (_, others) => {
                let what = format!("the kernel has {} in its place, and not as the table says", others.join(" and "));
                return Err(conflict(action(), what));
            }
        }
        self.remove_partition(leg)
    }

    /// Every subsystem of nvmet that opens a device, ours or not.
    fn exports_over(&self, device: Option<&Path>) -> Result<Vec<String>> {
        let Some(device) = device else { return Ok(vec![]) };
        let subsystems = self.nvmet("subsystems");
        let mut over = vec![];
        for nqn in sysfs::names(&subsystems)? {
            for namespace in sysfs::names(subsystems.join(&nqn).join("namespaces"))? {
                let file = subsystems.join(&nqn).join("namespaces").join(namespace).join("device_path");
                let path = sysfs::read(file)?.map(PathBuf::from);
                // Another name of the same node opens the same device.
                let same = |path: &PathBuf| path == device || std::fs::canonicalize(path).is_ok_and(|p| p == device);
                if path.as_ref().is_some_and(same) {
                    over.push(nqn.clone());
                }
            }
        }
        Ok(over)
    }
}
