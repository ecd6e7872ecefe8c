//! Drives: which there are, who they are, and what is free on them.

use super::super::{Content, DriveFacts, DriveFault, Result, Unusable};
use super::RealHost;
use super::command::Tool;
use super::direct::{Access, Direct, MIB};
use super::disk::{self, Found};
use super::error::{Doing, conflict, failed};
use super::gpt::{Entry, LEDGER_TYPE, LEG_TYPE, Table};
use super::ledger::{self, Ledger};
use super::{pattern, sysfs};
use meshstor_crds::naming::EXPORT_NQN_PREFIX;
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// What a drive holds.
#[derive(Clone)]
pub(super) enum Holds {
    /// A GPT; the flag says that all its copies are whole.
    Table(Table, bool),
    /// Nothing at all: no signature, no table, zeros at both ends.
    Nothing,
    /// Something that must be left alone.
    Unusable(Unusable),
}

/// How the bytes of a drive are looked at: node, size, sector.
type Look = fn(&Path, u64, u64) -> io::Result<Holds>;

/// A drive that matches a pattern.
#[derive(Clone)]
pub(super) struct Drive {
    /// As [`DriveFacts::id`].
    pub id: String,
    /// Kernel name.
    pub name: String,
    pub path: PathBuf,
    pub size: u64,
    pub sector: u64,
    pub holds: Holds,
}

impl Drive {
    /// Its table, or why there is none.
    pub fn table(&self) -> Result<&Table> {
        match &self.holds {
            Holds::Table(table, _) => Ok(table),
            Holds::Nothing => Err(failed(format!("use drive {}", self.id), "it has no partition table yet")),
            Holds::Unusable(u) => Err(failed(format!("use drive {}", self.id), &u.why)),
        }
    }

    /// First byte and length of a partition of the ledger type.
    pub fn ledger_at(&self) -> Option<u64> {
        let table = self.table().ok()?;
        let entry = table.entries().map(|(_, e)| e).find(|e| e.kind == LEDGER_TYPE)?;
        let size = entry.sectors() * self.sector;
        (size >= ledger::SIZE).then_some(entry.first * self.sector)
    }
}

impl RealHost {
    /// Every matching drive.
    ///
    /// # Errors
    /// The kernel's list of drives cannot be read. A drive of which something cannot be read is unusable.
    pub(super) fn scan(&self) -> Result<Vec<Drive>> {
        self.scan_with(inspect)
    }

    /// As [`RealHost::scan`], but of a drive without a table it does not find out why: no program is run.
    pub(super) fn scan_tables(&self) -> Result<Vec<Drive>> {
        self.scan_with(table_only)
    }

    /// Two drives with one identity (a cloned table) are both unusable.
    fn scan_with(&self, look: Look) -> Result<Vec<Drive>> {
        let names = sysfs::need_names(self.config.sys.join("block"))?;
        let mut drives: Vec<Drive> = names.into_iter().filter_map(|name| self.drive_of(name, look)).collect();
        let ids: Vec<String> = drives.iter().map(|d| d.id.clone()).collect();
        for drive in &mut drives {
            if ids.iter().filter(|id| **id == drive.id).count() > 1 {
                drive.holds = no_identity(
                    "another drive has the same identity: if it is a copy, wipe it, or give it other GUIDs (sgdisk --randomize-guids)",
                );
            }
        }
        Ok(drives)
    }

    /// None for what is no drive of ours, or gone.
    fn drive_of(&self, name: String, look: Look) -> Option<Drive> {
        let node = self.config.dev.join(&name);
        if !self.config.drive_patterns.iter().any(|p| pattern::matches(p, &node.to_string_lossy())) {
            return None;
        }
        let found = match self.is_free(&name) {
            Ok(true) => self.look_at(&name, look),
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        };
        // Nobody knows whose it is and what is on it: it keeps its node's name, and is left alone.
        found.unwrap_or_else(|error| {
            let (id, holds) = (format!("dev-{name}"), other(error.to_string()));
            Some(Drive { id, path: node, name, size: 0, sector: 512, holds })
        })
    }

    /// The drive with this identity.
    pub(super) fn drive(&self, id: &str) -> Result<Drive> {
        self.scan_tables()?
            .into_iter()
            .find(|d| d.id == id)
            .ok_or_else(|| failed(format!("find drive {id}"), "no matching drive has this identity"))
    }

    /// A whole drive that nobody uses as a whole, and that is not itself a leg from elsewhere.
    fn is_free(&self, name: &str) -> Result<bool> {
        let block = self.config.sys.join("block").join(name);
        Ok(!sysfs::flag(block.join("hidden"))?.unwrap_or(false)
            && sysfs::names(block.join("holders"))?.is_empty()
            && self.mounts_of(&block)?.is_empty()
            && !(name.starts_with("nvme") && self.may_be_ours_from_elsewhere(name)?))
    }

    /// A leg that this node reaches over NVMe-oF looks like a blank drive and would be given a table of its own. Whose
    /// subsystem cannot be read is taken for one.
    fn may_be_ours_from_elsewhere(&self, name: &str) -> Result<bool> {
        let nqn = sysfs::read(self.config.sys.join("block").join(name).join("device/subsysnqn"))?;
        Ok(nqn.is_none_or(|nqn| nqn.is_empty() || nqn.starts_with(EXPORT_NQN_PREFIX)))
    }

    /// None when it is gone.
    fn look_at(&self, name: &str, look: Look) -> Result<Option<Drive>> {
        let block = self.config.sys.join("block").join(name);
        let Some(size) = sysfs::sectors(block.join("size"))? else { return Ok(None) };
        let sector = sysfs::need_number(block.join("queue/logical_block_size"))?;
        let path = self.config.dev.join(name);
        let read_only = sysfs::flag(block.join("ro"))?.unwrap_or(false);
        let holds = if size == 0 {
            other("it has no medium")
        } else if read_only {
            other("it is read-only")
        } else if !SECTORS.contains(&sector) {
            Holds::Unusable(unusable(DriveFault::SectorSize, wrong_sector(sector)))
        } else {
            look(&path, size, sector).unwrap_or_else(|e| other(format!("read its partition table: {e}")))
        };
        let (id, holds) = match (self.identity(name)?, holds) {
            (Some(id), holds) => (id, holds),
            (None, Holds::Table(table, whole)) => (format!("gpt-{}", table.primary.disk), Holds::Table(table, whole)),
            (None, Holds::Unusable(u)) if size > 0 => (format!("dev-{name}"), Holds::Unusable(nameless(u))),
            // It gets a table, and with it an identity; or there is nothing in it to be identified.
            (None, holds) => (format!("dev-{name}"), holds),
        };
        Ok(Some(Drive { id, name: name.to_owned(), path, size, sector, holds }))
    }

    /// What the hardware calls itself.
    ///
    /// # Errors
    /// One of its names cannot be read: the next best would make another drive of it.
    fn identity(&self, name: &str) -> Result<Option<String>> {
        let block = self.config.sys.join("block").join(name);
        for file in ["wwid", "device/wwid", "serial", "device/serial"] {
            if let Some(id) = sysfs::label(block.join(file))?.filter(|id| is_identity(id)) {
                return Ok(Some(id.split_whitespace().collect::<Vec<_>>().join("_")));
            }
        }
        Ok(None)
    }

    /// Gives every blank drive a table and a ledger, and mends the damaged copy of a table of ours.
    pub(super) fn prepare_drives(&self) -> Result<Vec<Drive>> {
        let needs = |d: &Drive| match &d.holds {
            Holds::Nothing => true,
            Holds::Table(_, whole) => !whole && d.ledger_at().is_some(),
            Holds::Unusable(_) => false,
        };
        let scanned = self.scan()?;
        if !scanned.iter().any(needs) {
            return Ok(scanned);
        }
        for drive in scanned.into_iter().filter(needs) {
            let lock = self.drive_lock(&drive.name);
            let _guard = lock.hold();
            // Looked at again under the lock: a table read before it may lack what another thread has added since.
            let Some(drive) = self.drive_of(drive.name, inspect).filter(needs) else { continue };
            let result = match &drive.holds {
                Holds::Table(table, _) => mend(&drive, table),
                _ => initialise(&drive),
            };
            // One bad drive must not hide the others: the next scan says what is wrong with it.
            if let Err(e) = result {
                tracing::warn!(drive = drive.id, error = %e, "prepare the drive");
            }
        }
        self.scan()
    }

    /// Sees that the drive has a ledger partition; the caller holds the drive's lock.
    pub(super) fn ensure_ledger(&self, drive: &Drive, table: &mut Table) -> Result<()> {
        if drive.ledger_at().is_some() {
            return Ok(());
        }
        let action = || format!("make a ledger on drive {}", drive.id);
        if table.entries().any(|(_, e)| e.kind == LEG_TYPE) {
            return Err(conflict(action(), "the drive has legs, but their ledger is gone"));
        }
        let disk = disk::open(&drive.path, Access::Write)?;
        let at = table
            .free()
            .into_iter()
            .find(|free| free.end - free.start >= ledger::SIZE)
            .ok_or_else(|| failed(action(), "no free 4 MiB"))?
            .start;
        // Both copies before the entry: a ledger partition always is an initialised ledger.
        ledger::initialise(&disk, at).doing(action)?;
        let number = table
            .add(&ledger_entry(at, drive.sector))
            .ok_or_else(|| failed(action(), "the partition table is full"))?;
        disk::write_table(&disk, drive.size, table).doing(action)?;
        self.show_ledger(drive, table, number);
        Ok(())
    }

    /// The kernel is told of the ledger for the administrator's eyes only: we reach it through the whole drive.
    fn show_ledger(&self, drive: &Drive, table: &Table, number: u32) {
        let Some((_, entry)) = table.entries().find(|(n, _)| *n == number) else { return };
        if let Err(e) = disk::tell_kernel(&self.config.sys, &self.config.dev, &drive.name, number, &entry, drive.sector)
        {
            tracing::debug!(drive = drive.id, error = %e, "show the ledger partition to the kernel");
        }
    }

    pub(super) fn drive_facts(&self, drive: &Drive) -> DriveFacts {
        let (mut free, unusable) = match &drive.holds {
            Holds::Table(table, _) => (table.free(), None),
            Holds::Nothing => {
                (vec![], Some(unusable(DriveFault::Other, "it is blank and could not be given a partition table")))
            }
            Holds::Unusable(unusable) => (vec![], Some(unusable.clone())),
        };
        free.sort_by_key(|f| (std::cmp::Reverse(f.end - f.start), f.start));
        DriveFacts {
            id: drive.id.clone(),
            path: drive.path.clone(),
            // For people, who can do without.
            model: sysfs::label(self.config.sys.join("block").join(&drive.name).join("device/model")).ok().flatten(),
            size: drive.size,
            sector: u32::try_from(drive.sector).unwrap_or(512),
            free: free.into_iter().map(|f| (f.start, f.end - f.start)).collect(),
            unusable,
        }
    }
}

/// Bytes that a logical sector may have.
const SECTORS: [u64; 2] = [512, 4096];

fn unusable(fault: DriveFault, why: impl Into<String>) -> Unusable {
    Unusable { fault, why: why.into() }
}

fn other(why: impl Into<String>) -> Holds {
    Holds::Unusable(unusable(DriveFault::Other, why))
}

fn no_identity(why: &str) -> Holds {
    Holds::Unusable(unusable(DriveFault::NoStableIdentity, why))
}

fn wrong_sector(sector: u64) -> String {
    format!("its logical sectors have {sector} bytes, not 512 or 4096: give it a format with such (nvme format --lbaf)")
}

/// A drive that says nothing of itself and has no table either: its name of this boot is no identity.
fn nameless(what: Unusable) -> Unusable {
    match what.fault {
        DriveFault::Other => unusable(
            DriveFault::NoStableIdentity,
            format!("it has neither WWID nor serial number nor GPT; {}", what.why),
        ),
        _ => what,
    }
}

/// UML's drives have the serial `(null)`, cheap ones all zeros.
fn is_identity(text: &str) -> bool {
    text != "(null)" && text.chars().any(|c| c.is_ascii_alphanumeric() && c != '0')
}

fn inspect(path: &Path, size: u64, sector: u64) -> io::Result<Holds> {
    match table_only(path, size, sector)? {
        Holds::Nothing => without_table(path, size),
        held => Ok(held),
    }
}

/// Takes every drive without a table for one that holds nothing.
fn table_only(path: &Path, size: u64, sector: u64) -> io::Result<Holds> {
    let disk = Direct::open(path, Access::Read)?;
    let Found::Table(table, whole) = disk::read_table(&disk, size, sector)? else { return Ok(Holds::Nothing) };
    // A backup copy at the end says nothing when something else has taken the start.
    if !whole && !disk::primary_is_ours_or_blank(&disk, sector)? {
        return Ok(other("its primary partition table was overwritten"));
    }
    Ok(Holds::Table(table, whole))
}

fn without_table(path: &Path, size: u64) -> io::Result<Holds> {
    let answer =
        Tool::new("blkid").arg("-p").arg("-o").arg("export").arg(path).answer(None).map_err(io::Error::other)?;
    Ok(match super::fs::signature(&answer) {
        Content::Filesystem(what) | Content::Other(what) => {
            other(format!("it has no GPT, but holds {what}: wipe it to use it"))
        }
        Content::Blank if size < 16 * MIB => other("it is smaller than 16 MiB"),
        Content::Blank if Direct::open(path, Access::Read)?.ends_are_zero(size)? => Holds::Nothing,
        Content::Blank => other("it has no GPT, and its first and last MiB are not zeros: wipe it to use it"),
    })
}

/// Claims the drive (nobody mounts it or puts it into an array meanwhile) and writes ledger, then table.
fn initialise(drive: &Drive) -> Result<()> {
    let action = || format!("give drive {} a partition table", drive.id);
    let disk = disk::open(&drive.path, Access::Exclusive)?;
    if !disk.ends_are_zero(drive.size).doing(action)? {
        return Err(conflict(action(), "it is not blank"));
    }
    let mut table =
        Table::blank(drive.size, drive.sector, Uuid::new_v4()).ok_or_else(|| failed(action(), "it is too small"))?;
    // Outside the first and the last MiB: a crash before the table is written leaves the drive blank by our own rule.
    ledger::initialise(&disk, MIB).doing(action)?;
    table.add(&ledger_entry(MIB, drive.sector)).ok_or_else(|| failed(action(), "the table is full"))?;
    disk::write_table(&disk, drive.size, &table).doing(action)
}

fn mend(drive: &Drive, table: &Table) -> Result<()> {
    let action = || format!("mend the partition table of drive {}", drive.id);
    let disk = disk::open(&drive.path, Access::Write)?;
    tracing::warn!(drive = drive.id, "one copy of the partition table is damaged: written again from the other");
    disk::write_table(&disk, drive.size, table).doing(action)
}

fn ledger_entry(at: u64, sector: u64) -> Entry {
    Entry {
        kind: LEDGER_TYPE,
        uuid: Uuid::new_v4(),
        first: at / sector,
        last: (at + ledger::SIZE) / sector - 1,
        name: "meshstor-ledger".to_owned(),
    }
}

impl RealHost {
    /// The drive's ledger.
    pub(super) fn ledger(&self, drive: &Drive) -> Result<Ledger> {
        let action = || format!("read the ledger of drive {}", drive.id);
        let Some(at) = drive.ledger_at() else {
            return match drive.table()?.entries().any(|(_, e)| e.kind == LEG_TYPE) {
                true => Err(conflict(action(), "the drive has legs, but their ledger is gone")),
                false => Ok(Ledger::default()),
            };
        };
        let disk = disk::open(&drive.path, Access::Read)?;
        ledger::read(&disk, at).doing(action)?.ok_or_else(|| conflict(action(), "both copies are damaged"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drive_without_a_name_of_its_own_is_unusable_for_that_before_what_it_holds() {
        let nameless = |fault| nameless(unusable(fault, "it holds ext4"));
        let found = nameless(DriveFault::Other);
        assert_eq!(found.fault, DriveFault::NoStableIdentity);
        assert!(
            found.why.contains("neither WWID nor serial number nor GPT") && found.why.contains("ext4"),
            "{}",
            found.why
        );
        // No table would help it.
        assert_eq!(nameless(DriveFault::SectorSize).fault, DriveFault::SectorSize);
    }

    #[test]
    fn what_says_nothing_is_no_identity() {
        assert!(["(null)", "0000000000", "  ", ""].iter().all(|text| !is_identity(text)));
        assert!(["eui.0025385b21404321", "S4EVNX0N"].iter().all(|text| is_identity(text)));
    }
}
