//! MD arrays as they are, from sysfs alone: opening the device of an array with a hung leg can hang.
//!
//! Which arrays are ours is noted in `/run/meshstor/arrays/<uuid>` (the kernel name) before one is made or assembled. An
//! array without a note (the notes were lost) is ours if a member on one of our drives says so in its superblock.
//!
//! MD learns that a member's device is gone from the next I/O that fails, so an idle array says `in_sync` of it for as
//! long as you like. Such a member is reported as what it is: faulty, and its slot as degraded.

use super::super::{ArrayFacts, MemberFacts, Result, SuperFacts};
use super::direct::{Access, Direct};
use super::error::Doing;
use super::superblock::{self, Superblock};
use super::{RealHost, mdstate, sysfs};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// The part of a metadata name before the colon.
pub(super) const HOMEHOST: &str = "meshstor";

/// Reads an MD superblock with direct I/O.
pub(super) fn read_superblock(device: &Path) -> std::io::Result<Option<Superblock>> {
    let bytes = Direct::open(device, Access::Read)?.read(superblock::OFFSET, superblock::BYTES)?;
    Ok(superblock::decode(&bytes))
}

/// Whether the device of the member with this directory is gone: its link leads nowhere.
pub(super) fn is_gone(member: &Path) -> bool {
    member.exists() && std::fs::canonicalize(member.join("block")).is_err()
}

impl RealHost {
    pub(super) fn all_arrays(&self) -> Vec<ArrayFacts> {
        let notes = self.array_notes();
        let arrays = sysfs::names(self.config.sys.join("block")).into_iter().filter(|n| n.starts_with("md"));
        arrays.filter_map(|name| self.array_facts(&name, &notes)).collect()
    }

    /// The array with this UUID, if it is ours. An array that says that it has another UUID is not looked at further.
    pub(super) fn array_with(&self, uuid: Uuid) -> Option<ArrayFacts> {
        let notes = self.array_notes();
        let other = |name: &str| {
            let text = sysfs::read(self.config.sys.join("block").join(name).join("md/uuid"));
            text.and_then(|t| Uuid::parse_str(&t).ok()).is_some_and(|found| !found.is_nil() && found != uuid)
        };
        let arrays = sysfs::names(self.config.sys.join("block")).into_iter().filter(|n| n.starts_with("md"));
        arrays.filter(|name| !other(name)).find_map(|name| self.array_facts(&name, &notes).filter(|a| a.uuid == uuid))
    }

    /// Kernel names by array UUID.
    pub(super) fn array_notes(&self) -> BTreeMap<Uuid, String> {
        let dir = self.config.run.join("arrays");
        sysfs::names(&dir)
            .into_iter()
            .filter_map(|file| Some((Uuid::parse_str(&file).ok()?, sysfs::read(dir.join(file))?)))
            .collect()
    }

    pub(super) fn array_note(&self, uuid: Uuid) -> PathBuf {
        self.config.run.join("arrays").join(uuid.to_string())
    }

    fn array_facts(&self, name: &str, notes: &BTreeMap<Uuid, String>) -> Option<ArrayFacts> {
        let block = self.config.sys.join("block").join(name);
        let md = block.join("md");
        let state = sysfs::read(md.join("array_state"))?;
        let (members, gone) = self.members(&md);
        if state == "clear" && members.is_empty() {
            return None;
        }
        let uuid = self.our_uuid(name, &md, &members, notes)?;
        // A stop takes the members away one by one, after the state: members that were read from an array that does not run any
        // more are no lost legs.
        let state = sysfs::read(md.join("array_state"))
            .map_or_else(String::new, |now| if mdstate::is_running(&now) { state } else { now });
        // While a reshape runs: `4 (2)`.
        let slots = sysfs::read(md.join("raid_disks"))?.split(' ').next()?.parse().ok()?;
        let action = sysfs::read(md.join("sync_action")).unwrap_or_default();
        Some(ArrayFacts {
            uuid,
            device: self.config.dev.join(name),
            running: mdstate::is_running(&state),
            slots,
            set_slots: mdstate::set_slots(&sysfs::read(md.join("level"))?, sysfs::number(md.join("layout")), slots),
            frozen: action == "frozen",
            bitmap: mdstate::bitmap(
                sysfs::read(md.join("bitmap_type")).as_deref(),
                sysfs::read(md.join("bitmap/location")).as_deref(),
            ),
            latency_balance: sysfs::number(md.join("latency_balance")).map(|on: u8| on == 1),
            degraded: sysfs::number(md.join("degraded")).unwrap_or(0) + gone,
            members,
            sync: mdstate::sync(
                &action,
                sysfs::read(md.join("sync_completed")).as_deref(),
                sysfs::number(md.join("sync_speed")),
            ),
            mounts: self.mounts_of(&block),
        })
    }

    /// Members, and how many of them MD still takes for in sync although their device is gone.
    fn members(&self, md: &Path) -> (Vec<MemberFacts>, u32) {
        let mut unnoticed = 0;
        let mut members = vec![];
        for dir in sysfs::names(md) {
            let Some(name) = dir.strip_prefix("dev-") else { continue };
            let dir = md.join(&dir);
            let state = sysfs::read(dir.join("state")).unwrap_or_default();
            let slot = sysfs::read(dir.join("slot"));
            let mut member = mdstate::member(name, &state, slot.as_deref(), sysfs::number(dir.join("latency_ewma_ns")));
            if !member.faulty && is_gone(&dir) {
                unnoticed += u32::from(member.in_sync);
                member.faulty = true;
                member.in_sync = false;
            }
            members.push(member);
        }
        (members, unnoticed)
    }

    /// The array's UUID if it is ours. An array that does not run has no UUID in sysfs; there the note speaks.
    fn our_uuid(&self, name: &str, md: &Path, members: &[MemberFacts], notes: &BTreeMap<Uuid, String>) -> Option<Uuid> {
        let kernel = sysfs::read(md.join("uuid")).and_then(|u| Uuid::parse_str(&u).ok()).filter(|u| !u.is_nil());
        match kernel {
            Some(uuid) if notes.contains_key(&uuid) => return Some(uuid),
            None => {
                if let Some((uuid, _)) = notes.iter().find(|(_, noted)| *noted == name) {
                    return Some(*uuid);
                }
            }
            Some(_) => {}
        }
        let local = members.iter().find_map(|m| self.local_superblock(&m.name))?;
        let ours = local.name.strip_prefix(HOMEHOST).is_some_and(|rest| rest.starts_with(':'));
        (ours && kernel.is_none_or(|k| k == local.uuid)).then_some(local.uuid)
    }

    /// The superblock of a member that is a partition of a matching drive: never of a remote leg, whose path may hang.
    fn local_superblock(&self, member: &str) -> Option<Superblock> {
        let block = self.config.sys.join("class/block").join(member);
        if !block.join("partition").exists() {
            return None;
        }
        let drive = std::fs::canonicalize(&block).ok()?.parent()?.file_name()?.to_str()?.to_owned();
        let node = self.config.dev.join(&drive);
        let matches = self.config.drive_patterns.iter().any(|p| super::pattern::matches(p, &node.to_string_lossy()));
        if !matches {
            return None;
        }
        read_superblock(&sysfs::device_node(&self.config.dev, &block)?).ok().flatten()
    }

    pub(super) fn examine_device(&self, device: &Path) -> Result<Option<SuperFacts>> {
        let found = read_superblock(device).doing(|| format!("read the MD superblock of {}", device.display()))?;
        Ok(found.map(|sb| SuperFacts { uuid: sb.uuid, events: sb.events }))
    }
}
