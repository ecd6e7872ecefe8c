//! MD arrays as they are, from sysfs alone: opening the device of an array with a hung leg can hang.
//!
//! Which arrays are ours is noted in `/run/meshstor/arrays/<uuid>` (the kernel name) before one is made or assembled. An
//! array without a note (the notes were lost) is ours if a member on one of our drives says so in its superblock.
//!
//! MD learns that a member's device is gone from the next I/O that fails, so an idle array says `in_sync` of it for as
//! long as you like. Such a member is reported as what it is: faulty, and its slot as degraded.

use super::super::{ArrayFacts, HostError, MemberFacts, Result, SuperFacts};
use super::direct::{Access, Direct};
use super::error::{Doing, failed};
use super::mdstate::ArrayState;
use super::superblock::{self, Superblock};
use super::{RealHost, mdstate, sysfs};
use meshstor_crds::naming::HOMEHOST;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// `metadata_version` of arrays of ours.
const METADATA: &str = "1.2";

/// Reads an MD superblock with direct I/O; none where there are zeros.
///
/// # Errors
/// Also of what is neither zeros nor a whole superblock: nobody can say that such a device never was of an array.
pub(super) fn read_superblock(device: &Path) -> std::io::Result<Option<Superblock>> {
    let bytes = Direct::open(device, Access::Read)?.read(superblock::OFFSET, superblock::BYTES)?;
    superblock::decode(&bytes).map_err(std::io::Error::other)
}

/// Whether the device of the member with this directory is gone: its link leads nowhere.
pub(super) fn is_gone(member: &Path) -> Result<bool> {
    Ok(sysfs::exists(member)? && !sysfs::exists(member.join("block"))?)
}

impl RealHost {
    /// Every array of ours.
    ///
    /// # Errors
    /// One cannot be read, or it cannot be told whose it is.
    pub(super) fn all_arrays(&self) -> Result<Vec<ArrayFacts>> {
        let notes = self.array_notes()?;
        let mut all = vec![];
        for name in self.md_names()? {
            all.extend(self.array_facts(&name, &notes)?);
        }
        Ok(all)
    }

    /// The array with this UUID, if it is ours. An array that says that it has another UUID is not looked at further, and one
    /// that does not say it is only in the way where the wanted one is nowhere else and no note says that it is another.
    pub(super) fn array_with(&self, uuid: Uuid) -> Result<Option<ArrayFacts>> {
        let notes = self.array_notes()?;
        let mut unknown = None;
        for name in self.md_names()? {
            let noted_as_another = || notes.iter().any(|(noted, n)| *n == name && *noted != uuid);
            let found = match self.kernel_uuid(&self.md_dir(&name)) {
                Ok(Some(other)) if other != uuid => continue,
                Err(_) if noted_as_another() => continue,
                Ok(_) => self.array_facts(&name, &notes),
                Err(error) => Err(error),
            };
            match found {
                Ok(Some(array)) if array.uuid == uuid => return Ok(Some(array)),
                Ok(_) => {}
                Err(error) => unknown = Some(error),
            }
        }
        unknown.map_or(Ok(None), Err)
    }

    fn md_names(&self) -> Result<Vec<String>> {
        let names = sysfs::need_names(self.config.sys.join("block"))?;
        Ok(names.into_iter().filter(|n| n.starts_with("md")).collect())
    }

    fn md_dir(&self, name: &str) -> PathBuf {
        self.config.sys.join("block").join(name).join("md")
    }

    /// Kernel names by array UUID. What `sysfs::replace` left half made is no note yet.
    pub(super) fn array_notes(&self) -> Result<BTreeMap<Uuid, String>> {
        let dir = self.config.run.join("arrays");
        let mut notes = BTreeMap::new();
        for file in sysfs::names(&dir)? {
            let Ok(uuid) = Uuid::parse_str(&file) else { continue };
            let name = |t: &String| t.strip_prefix("md").and_then(sysfs::digits::<u32>).is_some();
            // None: it was taken away since it was listed.
            let Some(note) = sysfs::parsed(dir.join(&file), "name of an array", |t| Some(t.to_owned()).filter(name))?
            else {
                continue;
            };
            notes.insert(uuid, note);
        }
        Ok(notes)
    }

    pub(super) fn array_note(&self, uuid: Uuid) -> PathBuf {
        self.config.run.join("arrays").join(uuid.to_string())
    }

    /// What is read of an array that is just being started or stopped does not fit together: it is read again.
    fn array_facts(&self, name: &str, notes: &BTreeMap<Uuid, String>) -> Result<Option<ArrayFacts>> {
        let mut last = Ok(None);
        sysfs::wait_for(self.config.settling, || {
            last = self.array_now(name, notes);
            last.is_ok().then_some(())
        });
        last
    }

    fn array_now(&self, name: &str, notes: &BTreeMap<Uuid, String>) -> Result<Option<ArrayFacts>> {
        let md = self.md_dir(name);
        let Some(state) = self.array_state(&md)? else { return Ok(None) };
        let devices: Vec<String> =
            sysfs::names(&md)?.iter().filter_map(|dir| dir.strip_prefix("dev-")).map(str::to_owned).collect();
        if state == ArrayState::Clear && devices.is_empty() {
            return Ok(None);
        }
        let Some(uuid) = self.our_uuid(name, &md, &devices, notes)? else { return Ok(None) };
        let (members, unnoticed) = self.members(&md, &devices)?;
        let facts = self.facts_of(name, uuid, state == ArrayState::Running, members, unnoticed)?;
        // A stop takes the members away one by one, after the state: members that were read from an array that does not run any
        // more are no lost legs.
        let Some(now) = self.array_state(&md)? else { return Ok(None) };
        match (now == ArrayState::Running) == facts.running {
            true => Ok(Some(facts)),
            false => Err(failed(format!("look at {name}"), "it is being started or stopped")),
        }
    }

    /// None where there is no array (any more).
    fn array_state(&self, md: &Path) -> Result<Option<ArrayState>> {
        let file = md.join("array_state");
        match unless_deleted(sysfs::parsed(&file, "state of an array", mdstate::array_state))? {
            Found::Not if sysfs::exists(md)? => Err(sysfs::bad(&file, "it is not there")),
            Found::Not | Found::Deleted => Ok(None),
            Found::Is(state) => Ok(Some(state)),
        }
    }

    /// An array that does not run has no level, no slots and nothing that is synchronised, or what it had.
    fn facts_of(
        &self,
        name: &str,
        uuid: Uuid,
        running: bool,
        members: Vec<MemberFacts>,
        unnoticed: u32,
    ) -> Result<ArrayFacts> {
        let block = self.config.sys.join("block").join(name);
        let md = block.join("md");
        let raid_disks = |t: &str| if t.is_empty() && !running { Some(0) } else { mdstate::reshaped(t) };
        let slots = sysfs::needed(md.join("raid_disks"), "number of slots", raid_disks)?;
        if let Some(beyond) = members.iter().find(|m| running && m.slot.is_some_and(|slot| slot >= slots)) {
            return Err(sysfs::bad(
                md.join("raid_disks"),
                format!("{slots} slots, but {} is in slot {:?}", beyond.name, beyond.slot),
            ));
        }
        let level = |t: &str| mdstate::level(t).filter(|word| !(running && word.is_empty()));
        let level = sysfs::needed(md.join("level"), "level", level)?;
        let layout = sysfs::parsed(md.join("layout"), "layout", mdstate::reshaped)?;
        let degraded = sysfs::number::<u32>(md.join("degraded"))?;
        let word = |t: &str| mdstate::action(t).map(|_| t.to_owned());
        let action = sysfs::parsed(md.join("sync_action"), "sync action", word)?;
        // Not there before an array was started, and then as long as it runs.
        let there = |file: &str| sysfs::bad(md.join(file), "it is not there");
        let degraded = degraded.or((!running).then_some(0)).ok_or_else(|| there("degraded"))?;
        let action = action.or((!running).then(String::new)).ok_or_else(|| there("sync_action"))?;
        let completed = sysfs::parsed(md.join("sync_completed"), "progress", mdstate::completed)?;
        let speed = sysfs::parsed(md.join("sync_speed"), "speed", mdstate::speed)?;
        let hold = sysfs::parsed(md.join("sync_max"), "end of a copy", mdstate::hold)?;
        let hold = if hold.is_none() && running { Err(there("sync_max"))? } else { hold };
        let suspended = |file: &str| match sysfs::number::<u64>(md.join(file))? {
            None if running => Err(there(file)),
            found => Ok(found.unwrap_or(0)),
        };
        let (suspend_lo, suspend_hi) = (suspended("suspend_lo")?, suspended("suspend_hi")?);
        let chosen = sysfs::parsed(md.join("bitmap_type"), "choice of a bitmap", mdstate::chosen)?;
        let location = sysfs::parsed(md.join("bitmap/location"), "place of a bitmap", mdstate::location)?;
        Ok(ArrayFacts {
            uuid,
            device: self.config.dev.join(name),
            running,
            slots,
            set_slots: mdstate::set_slots(&level, layout, slots),
            frozen: action == "frozen",
            bitmap: mdstate::bitmap(chosen.as_deref(), location.as_deref()),
            latency_balance: sysfs::parsed(md.join("latency_balance"), "0, 1 or n/a", mdstate::balance)?.flatten(),
            degraded: degraded.saturating_add(unnoticed),
            members,
            sync: mdstate::sync(&action, completed.unwrap_or_default(), speed.unwrap_or_default()),
            sync_max: hold.unwrap_or_default(),
            suspended: mdstate::suspended(suspend_lo, suspend_hi),
            failure_gate: self.gate_of(&md)?,
            mounts: self.mounts_of(&block)?,
        })
    }

    /// Members, and how many of them MD still takes for in sync although their device is gone.
    fn members(&self, md: &Path, devices: &[String]) -> Result<(Vec<MemberFacts>, u32)> {
        let mut unnoticed = 0;
        let mut members = vec![];
        for name in devices {
            let dir = md.join(format!("dev-{name}"));
            let Some(mut member) = member(&dir, name)? else { continue };
            if !member.faulty && is_gone(&dir)? {
                unnoticed += u32::from(member.in_sync);
                member.faulty = true;
                member.in_sync = false;
            }
            members.push(member);
        }
        Ok((members, unnoticed))
    }

    /// The array's UUID as the kernel says it; none for an array that does not run, which has only zeros.
    pub(super) fn kernel_uuid(&self, md: &Path) -> Result<Option<Uuid>> {
        let file = md.join("uuid");
        match unless_deleted(sysfs::parsed(&file, "UUID", |t| Uuid::parse_str(t).ok()))? {
            Found::Not if sysfs::exists(md)? => Err(sysfs::bad(&file, "it is not there")),
            Found::Not | Found::Deleted => Ok(None),
            Found::Is(uuid) => Ok(Some(uuid).filter(|u| !u.is_nil())),
        }
    }

    /// The array's UUID if it is ours. An array that does not run has no UUID in sysfs; there the note speaks.
    fn our_uuid(
        &self,
        name: &str,
        md: &Path,
        devices: &[String],
        notes: &BTreeMap<Uuid, String>,
    ) -> Result<Option<Uuid>> {
        let kernel = self.kernel_uuid(md)?;
        let noted = match kernel {
            Some(uuid) => notes.contains_key(&uuid).then_some(uuid),
            None => notes.iter().find(|(_, noted)| *noted == name).map(|(uuid, _)| *uuid),
        };
        // Other metadata is not ours, and has other bytes where ours has its superblock.
        if noted.is_some() || sysfs::need(md.join("metadata_version"))? != METADATA {
            return Ok(noted);
        }
        let mut local = None;
        for device in devices {
            local = local.or(self.local_superblock(device)?);
        }
        let ours = |sb: &Superblock| sb.name.strip_prefix(HOMEHOST).is_some_and(|rest| rest.starts_with(':'));
        Ok(local.filter(ours).map(|sb| sb.uuid).filter(|uuid| kernel.is_none_or(|k| k == *uuid)))
    }

    /// The superblock of a member that is a partition of a matching drive: never of a remote leg, whose path may hang.
    fn local_superblock(&self, member: &str) -> Result<Option<Superblock>> {
        let block = self.config.sys.join("class/block").join(member);
        if !sysfs::exists(block.join("partition"))? {
            return Ok(None);
        }
        let path = std::fs::canonicalize(&block).doing(|| format!("find the drive of {member}"))?;
        let drive = path.parent().and_then(Path::file_name).unwrap_or_default();
        let node = self.config.dev.join(drive);
        let matches = self.config.drive_patterns.iter().any(|p| super::pattern::matches(p, &node.to_string_lossy()));
        match sysfs::device_node(&self.config.dev, &block)? {
            Some(node) if matches => {
                read_superblock(&node).doing(|| format!("read the MD superblock of {}", node.display()))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn examine_device(&self, device: &Path) -> Result<Option<SuperFacts>> {
        let found = read_superblock(device).doing(|| format!("read the MD superblock of {}", device.display()))?;
        Ok(found.map(|sb| SuperFacts { uuid: sb.uuid, events: sb.events }))
    }
}

/// A member from its directory; none when the kernel has let go of it.
fn member(dir: &Path, name: &str) -> Result<Option<MemberFacts>> {
    let own = |text: &str| mdstate::flags(text).map(|flags| flags.into_iter().map(str::to_owned).collect::<Vec<_>>());
    let flags = sysfs::parsed(dir.join("state"), "state of a member", own)?;
    let slot = sysfs::parsed(dir.join("slot"), "slot", mdstate::slot)?;
    match (flags, slot) {
        (Some(flags), Some(slot)) => {
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            let latency = sysfs::number(dir.join("latency_ewma_ns"))?;
            Ok(Some(mdstate::member(name, &flags, slot, latency)))
        }
        _ if sysfs::exists(dir)? => Err(sysfs::bad(dir, "its state or its slot is not there")),
        _ => Ok(None),
    }
}

/// What a file of an array gave.
enum Found<T> {
    Is(T),
    Not,
    /// The array is being deleted: MD then answers every reader so (`md_attr_show`), and nothing else makes it.
    Deleted,
}

fn unless_deleted<T>(read: Result<Option<T>>) -> Result<Found<T>> {
    match read {
        Ok(Some(value)) => Ok(Found::Is(value)),
        Ok(None) => Ok(Found::Not),
        Err(HostError::Busy { .. }) => Ok(Found::Deleted),
        Err(error) => Err(error),
    }
}
