//! Hot replacement: a device is filled beside the member whose slot it takes, and nothing is degraded.
//!
//! What MD does by itself at the end is not what the safety rules want: when the new device has everything it marks that in sync and
//! the old one faulty, at once and without asking (`raid1_spare_active()`, `raid10_spare_active()` of 7.3). A write that
//! is acknowledged from then on is not on the old leg, which the record still names. So the copy is told beforehand to wait just
//! before its end (`sync_max`), all writes are held over the rest of it, and go on when the record names the new leg.

use super::super::{ArrayMember, Result};
use super::assemble::{kernel_name, member_fails};
use super::error::{Doing, busy, failed};
use super::{RealHost, mdstate, sysfs};
use std::path::Path;

/// The copy waits this many sectors before its end: one chunk of a RAID10, of which `sync_max` must be a multiple.
const REST: u64 = 128;
/// Above every sector that an array can have.
const ALL_SECTORS: &str = "9223372036854775807";

/// Where the copy waits, for a member of `kib` KiB of array data. Pure.
fn hold(kib: u64) -> u64 {
    (kib * 2).saturating_sub(1) / REST * REST
}

/// The flags of a member; none when it is no member (any more).
fn flags(state: &Path) -> Result<Option<Vec<String>>> {
    let own = |text: &str| mdstate::flags(text).map(|flags| flags.into_iter().map(str::to_owned).collect());
    sysfs::parsed(state, "state of a member", own)
}

impl RealHost {
    pub(super) fn replace(&self, array: &Path, old: &str, member: &ArrayMember) -> Result<()> {
        let action = || format!("replace {old} of {} by {}", array.display(), member.device.display());
        let file = |member: &str, name: &str| self.member_file(array, member, name);
        let new = kernel_name(&member.device).ok_or_else(|| failed(action(), "no such device"))?;
        let there = sysfs::exists(file(&new, "state"))?;
        match flags(&file(old, "state"))? {
            _ if there => {}
            Some(flags) if flags.iter().any(|f| f == "in_sync") => {}
            _ => return Err(busy(action(), "it is no member that works")),
        }
        self.join(array, member, |block, new| {
            let kib: u64 = sysfs::need_number(block.join("md/component_size"))?;
            let slot = sysfs::needed(file(old, "slot"), "slot", mdstate::slot)?;
            let slot = slot.ok_or_else(|| busy(action(), "it has no slot"))?;
            // Before anything is copied: it cannot be lowered while a copy runs.
            sysfs::write(block.join("md/sync_max"), &hold(kib).to_string()).doing(action)?;
            sysfs::write(file(old, "state"), "want_replacement").doing(action)?;
            sysfs::write(file(new, "slot"), &slot.to_string()).doing(action)
        })
    }

    /// Members that want a replacement and have none: an interrupted call asked for it.
    pub(super) fn forget_wishes(&self, block: &Path) -> Result<()> {
        let mut members = vec![];
        for dir in sysfs::need_names(block.join("md"))?.iter().filter(|n| n.starts_with("dev-")) {
            let dir = block.join("md").join(dir);
            let Some(flags) = flags(&dir.join("state"))? else { continue };
            let slot = sysfs::parsed(dir.join("slot"), "slot", mdstate::slot)?;
            members.push((dir, flags, slot));
        }
        let has = |flags: &[String], flag: &str| flags.iter().any(|f| f == flag);
        for (dir, flags, slot) in &members {
            let filled = members.iter().any(|(_, other, at)| at == slot && has(other, "replacement"));
            if has(flags, "want_replacement") && !filled {
                let file = dir.join("state");
                sysfs::write(&file, "-want_replacement").doing(|| format!("write {}", file.display()))?;
            }
        }
        Ok(())
    }

    pub(super) fn lift_hold(&self, array: &Path) -> Result<()> {
        self.md_attribute(array, "sync_max", "max")
    }

    pub(super) fn hold_writes(&self, array: &Path) -> Result<()> {
        self.md_attribute(array, "suspend_lo", "0")?;
        self.md_attribute(array, "suspend_hi", ALL_SECTORS)
    }

    pub(super) fn release_writes(&self, array: &Path) -> Result<()> {
        self.md_attribute(array, "suspend_hi", "0")
    }

    pub(super) fn md_attribute(&self, array: &Path, name: &str, value: &str) -> Result<()> {
        let action = || format!("write {value} to {name} of {}", array.display());
        let block = self.block_of(array)?.ok_or_else(|| failed(action(), "the kernel does not have it"))?;
        sysfs::write(block.join("md").join(name), value).doing(action)
    }

    pub(super) fn expel(&self, array: &Path, name: &str) -> Result<()> {
        let action = || format!("fail {name} of {}", array.display());
        let file = self.member_file(array, name, "state");
        let Some(faulty) = member_fails(&file)? else { return Ok(()) };
        if faulty { Ok(()) } else { sysfs::write(&file, "faulty").doing(action) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_waits_on_a_chunk_and_never_at_the_end() {
        for kib in [1 << 16, (1 << 16) + 4, (1 << 20) + 63] {
            let at = hold(kib);
            assert!(at.is_multiple_of(REST) && at < kib * 2 && at + 2 * REST > kib * 2, "{kib}: {at}");
        }
    }
}
