//! A leg that was away comes back by the classic bitmap (rule 7).
//!
//! What the leg lacks is marked in the array's bitmap; what the leg alone has (writes of a consumer that was cut off, or what a power
//! cut took from its drive before it was flushed) is marked in its own. A mark is on a drive before what it stands for is written
//! there, and leaves it after that was flushed there: the kernel writes bitmaps with PREFLUSH and FUA (7.3, `md_write_metadata`).
//!
//! The order, with nothing being rebuilt from the first to the last of it (`sync_action` is `frozen`):
//! 1. the leg's own marks are set in the array, and are seen on the drive of every member in sync: from its addition on the leg's
//!    own bitmap is overwritten by the array's;
//! 2. the leg is bound, called in sync, and put into its slot, which makes it one that is rebuilt by the bitmap (7.3, `slot_store`);
//!    mdadm, and the kernel's own re-add, would look at event counters, which prove nothing;
//! 3. all marks are set once more: now they go to the leg too, so that they are on its drive before anything is copied.
//!
//! A daemon that dies on the way leaves an array that is frozen; `thaw` takes the leg out again.

use super::super::{ArrayMember, Result};
use super::assemble::{has_lost_device, kernel_name, member_fails, owned_flags};
use super::bits::{self, Header};
use super::direct::{Access, Direct};
use super::error::{Doing, busy, conflict, failed};
use super::{RealHost, mdstate, superblock, sysfs};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// A device's superblock and bitmap.
struct Marks {
    uuid: Uuid,
    slot: Option<u32>,
    header: Header,
    set: BTreeSet<u64>,
}

/// Reads past every cache; none where there is no array's member with a classic bitmap.
fn marks(device: &Path) -> io::Result<Option<Marks>> {
    let disk = Direct::open(device, Access::Read)?;
    let bytes = disk.read(superblock::OFFSET, superblock::BYTES)?;
    let (Ok(Some(sb)), Some(at)) = (superblock::decode(&bytes), superblock::bitmap_at(&bytes)) else { return Ok(None) };
    let Some(header) = bits::header(&disk.read(at, 4096)?) else { return Ok(None) };
    let set = bits::set(&header, &disk.read(at, header.bytes())?);
    Ok(set.map(|set| Marks { uuid: sb.uuid, slot: superblock::slot(&bytes), header, set }))
}

impl RealHost {
    pub(super) fn return_member(&self, array: &Path, member: &ArrayMember) -> Result<()> {
        let action = || format!("take {} back into {}", member.device.display(), array.display());
        let name = kernel_name(&member.device).ok_or_else(|| failed(action(), "no such device"))?;
        let state = self.member_file(array, &name, "state");
        if let Some(faulty) = member_fails(&state)? {
            return match faulty || has_lost_device(&state)? {
                true => Err(busy(action(), "a failed member has its name: remove that first")),
                false => Ok(()),
            };
        }
        let block = self.block_of(array)?.ok_or_else(|| failed(action(), "the kernel does not have it"))?;
        let own = self.own_marks(&block.join("md"), member, action)?;
        let sync = block.join("md/sync_action");
        if sysfs::need(&sync)? != "idle" {
            return Err(busy(action(), "something is copied"));
        }
        // Before anything is changed: nobody else may have the leg.
        Direct::open(&member.device, Access::Exclusive).map(drop).doing(action)?;
        sysfs::write(&sync, "frozen").doing(action)?;
        match self.placed(&block.join("md"), member, &name, &own, action) {
            Ok(()) => sysfs::write(&sync, "recover").doing(action),
            Err(why) => self.thaw_array(array).and(Err(why)),
        }
    }

    /// The marks of a leg that is of this array and slot, and has marks that can be believed.
    fn own_marks(&self, md: &Path, member: &ArrayMember, action: impl Fn() -> String) -> Result<Marks> {
        let own = marks(&member.device).doing(&action)?;
        let own = own.ok_or_else(|| conflict(action(), "it has no superblock with a bitmap that can be believed"))?;
        if self.kernel_uuid(md)? != Some(own.uuid) || own.header.uuid != own.uuid {
            return Err(conflict(action(), format!("its superblock names array {}", own.uuid)));
        }
        if own.slot != Some(member.slot) {
            return Err(conflict(action(), format!("its superblock says slot {:?}, not {}", own.slot, member.slot)));
        }
        if sysfs::need_number::<u64>(md.join("bitmap/chunksize"))? != own.header.chunk {
            return Err(conflict(action(), format!("its bitmap has chunks of {} bytes", own.header.chunk)));
        }
        if sysfs::need(md.join("resync_start"))? != "none" {
            return Err(busy(action(), "the array must be resynced first"));
        }
        Ok(own)
    }

    fn placed(
        &self,
        md: &Path,
        member: &ArrayMember,
        name: &str,
        own: &Marks,
        action: impl Fn() -> String + Copy,
    ) -> Result<()> {
        mark(md, &own.set, action)?;
        let survivors = self.in_sync_devices(md)?;
        if survivors.is_empty() {
            return Err(failed(action(), "no member is in sync"));
        }
        let mut all = BTreeSet::new();
        for device in &survivors {
            all.extend(seen(device, own, &own.set, action)?);
        }
        let file = |what: &str| md.join(format!("dev-{name}")).join(what);
        let number = sysfs::device_number(&self.config.sys.join("class/block").join(name))?;
        let (major, minor) = number.ok_or_else(|| failed(action(), "the kernel does not have the device"))?;
        sysfs::write(md.join("new_dev"), &format!("{major}:{minor}")).doing(action)?;
        sysfs::write(file("state"), "insync").doing(action)?;
        sysfs::write(file("slot"), &member.slot.to_string()).doing(action)?;
        let state = sysfs::needed(file("state"), "list of flags", owned_flags)?;
        let there = sysfs::needed(file("slot"), "slot", mdstate::slot)? == Some(member.slot);
        if !there || state.iter().any(|f| f == "in_sync" || f == "faulty") {
            return Err(failed(action(), format!("in its slot the kernel says {state:?} of it")));
        }
        if member.write_mostly {
            sysfs::write(file("state"), "writemostly").doing(action)?;
        }
        mark(md, &all, action)?;
        seen(&member.device, own, &all, action).map(drop)
    }

    /// Device nodes of the members that MD counts as in sync.
    ///
    /// # Errors
    /// One cannot be told, or found: its marks would not be seen.
    fn in_sync_devices(&self, md: &Path) -> Result<Vec<PathBuf>> {
        let mut devices = vec![];
        for dir in sysfs::need_names(md)?.iter().filter(|n| n.starts_with("dev-")) {
            let state = sysfs::needed(md.join(dir).join("state"), "list of flags", owned_flags)?;
            if !state.iter().any(|f| f == "in_sync") {
                continue;
            }
            let block = self.config.sys.join("class/block").join(dir.strip_prefix("dev-").unwrap_or(dir));
            let node = sysfs::device_node(&self.config.dev, &block)?;
            devices.push(node.ok_or_else(|| failed(format!("find {}", block.display()), "it is gone"))?);
        }
        Ok(devices)
    }
}

/// Sets marks in the array, which writes them to the drives of all members; the array stays as resynced as it was.
fn mark(md: &Path, chunks: &BTreeSet<u64>, action: impl Fn() -> String + Copy) -> Result<()> {
    for piece in bits::pieces(chunks) {
        sysfs::write(md.join("bitmap_set_bits"), &piece).doing(action)?;
    }
    // The kernel takes marks that are set by hand for an array whose members differ, and would resync them.
    sysfs::write(md.join("resync_start"), "none").doing(action)
}

/// What is marked on a device, once `wanted` is among it.
fn seen(
    device: &Path,
    own: &Marks,
    wanted: &BTreeSet<u64>,
    action: impl Fn() -> String + Copy,
) -> Result<BTreeSet<u64>> {
    let found = marks(device).doing(action)?.filter(|m| m.uuid == own.uuid && m.header == own.header);
    let found = found.ok_or_else(|| failed(action(), format!("{} has another bitmap", device.display())))?;
    match wanted.difference(&found.set).next() {
        None => Ok(found.set),
        Some(chunk) => Err(failed(action(), format!("chunk {chunk} is not marked on {}", device.display()))),
    }
}
