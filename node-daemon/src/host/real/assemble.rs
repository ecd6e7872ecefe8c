//! Making, assembling and changing MD arrays.

use super::super::{ArrayFacts, ArrayMember, ArraySpec, Result};
use super::command::Tool;
use super::direct::{Access, Direct};
use super::error::{Doing, busy, conflict, failed, unless_gone};
use super::md::{is_gone, read_superblock};
use super::mdstate::{self, ArrayState};
use super::superblock::BadBlockLog;
use super::{RealHost, superblock, sysfs};
use meshstor_crds::geometry::CHUNK;
use meshstor_crds::naming::{self, HOMEHOST};
use meshstor_crds::{Bitmap, Geometry};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// Lower numbers are left to the node's own arrays.
const FIRST_NUMBER: u32 = 100;
/// Data starts here: room for superblock, bitmap, and the chunk that a later reshape to RAID10 moves it back.
const DATA_OFFSET: &str = "4M";
/// How long the kernel may take to let go of something.
const PATIENCE: Duration = Duration::from_secs(5);

impl RealHost {
    pub(super) fn new_array(&self, spec: &ArraySpec) -> Result<()> {
        let action = || format!("create array {} of volume {}", spec.uuid, spec.name);
        if self.is_there(spec, action)? {
            return self.make_portable(spec, action);
        }
        self.check_floor(action)?;
        for member in &spec.members {
            let found = read_superblock(&member.device).doing(action)?;
            if found.is_some_and(|sb| sb.uuid != spec.uuid) {
                return Err(conflict(action(), format!("{} belongs to another array", member.device.display())));
            }
        }
        let device = self.claim_number(spec.uuid)?;
        let geometry = spec.geometry;
        let settings = self.config.run.join("mdadm.conf");
        // A member that cannot write a block must fail: MD would note the block, go on, and call it in sync.
        sysfs::replace(&settings, "CREATE bbl=no\n").doing(action)?;
        let mut tool = Tool::new("mdadm")
            .arg("--create")
            .arg(&device)
            .args(["--run", "--quiet", "--metadata=1.2", "--assume-clean"])
            .arg(format!("--config={}", settings.display()))
            .arg(format!("--bitmap={}", bitmap(spec.bitmap)))
            .arg(format!("--data-offset={DATA_OFFSET}"))
            .arg(format!("--size={}", spec.size / 1024))
            .arg(format!("--homehost={HOMEHOST}"))
            .arg(format!("--name={}", naming::array_name(&spec.name)))
            .arg(format!("--uuid={}", mdadm_uuid(spec.uuid)))
            .arg(format!("--raid-devices={}", geometry.slots()));
        if let Some(chunk) = bitmap_chunk(spec) {
            tool = tool.arg(format!("--bitmap-chunk={}", chunk / 1024));
        }
        for word in level(geometry) {
            tool = tool.arg(word);
        }
        for slot in 0..geometry.slots() {
            tool = match spec.members.iter().find(|m| m.slot == slot) {
                Some(member) => tool.arg(&member.device),
                None => tool.arg("missing"),
            };
        }
        tool.run()?;
        self.after_start(spec, action)?;
        self.make_portable(spec, action)
    }

    /// A kernel of 6.19 or newer writes the sector size into the superblocks of an array that it creates, and kernels up to 6.18
    /// do not assemble that. Legs of a volume have one sector size, so the field says nothing. Taken out while the array is
    /// stopped it stays out: the kernel writes what it read at assembly.
    fn make_portable(&self, spec: &ArraySpec, action: impl Fn() -> String + Copy) -> Result<()> {
        let array = self.array_with(spec.uuid)?.ok_or_else(|| failed(action(), "the kernel does not have it"))?;
        let block = self.block_of(&array.device)?.ok_or_else(|| failed(action(), "the kernel does not have it"))?;
        if sysfs::number::<u32>(block.join("md/logical_block_size"))?.unwrap_or(0) == 0 {
            return Ok(());
        }
        self.have_an_event(&array, spec, action)?;
        self.stop(&array.device)?;
        for member in &spec.members {
            let disk = Direct::open(&member.device, Access::Exclusive).doing(action)?;
            let bytes = disk.read(superblock::OFFSET, superblock::BYTES).doing(action)?;
            let new = superblock::portable(&bytes).ok_or_else(|| failed(action(), "a member has no superblock"))?;
            disk.write(superblock::OFFSET, &new).doing(action)?;
            disk.sync().doing(action)?;
        }
        self.start_array(spec)
    }

    /// Has the kernel count an event: an array that has had none is a new one at its next assembly too, and gets the field again.
    fn have_an_event(&self, array: &ArrayFacts, spec: &ArraySpec, action: impl Fn() -> String + Copy) -> Result<()> {
        let member = array.members.first().ok_or_else(|| failed(action(), "it has no members"))?;
        let file = self.member_file(&array.device, &member.name, "state");
        // A flag of a member is in all superblocks; set and taken back it changes nothing.
        let (other, same) = match member.write_mostly {
            true => ("-writemostly", "writemostly"),
            false => ("writemostly", "-writemostly"),
        };
        sysfs::write(&file, other).doing(action)?;
        sysfs::write(&file, same).doing(action)?;
        let counted = |m: &ArrayMember| read_superblock(&m.device).ok().flatten().is_some_and(|sb| sb.events > 0);
        sysfs::wait_for(PATIENCE, || spec.members.iter().all(counted).then_some(()))
            .ok_or_else(|| failed(action(), "the kernel did not write its superblocks"))
    }

    pub(super) fn start_array(&self, spec: &ArraySpec) -> Result<()> {
        let action = || format!("assemble array {} of volume {}", spec.uuid, spec.name);
        if self.is_there(spec, action)? {
            return Ok(());
        }
        self.check_floor(action)?;
        let newest = self.members_to_start_from(spec, action)?;
        for member in &spec.members {
            forget_bad_block_log(&member.device).doing(action)?;
        }
        let device = self.claim_number(spec.uuid)?;
        // `--run` starts it degraded; never `--force`, which takes stale members for good ones.
        let mut tool = Tool::new("mdadm")
            .arg("--assemble")
            .arg(&device)
            .args(["--run", "--quiet", "--config=none"])
            .arg(format!("--uuid={}", mdadm_uuid(spec.uuid)));
        for member in &spec.members {
            tool = tool.arg(&member.device);
        }
        let said = tool.answer(None)?;
        // The exit status of a degraded start differs between versions: what counts is what the kernel has.
        let Some(array) = self.array_with(spec.uuid)?.filter(|a| a.running) else {
            return Err(failed(action(), said.stderr));
        };
        // A newest member that mdadm passed over all the same: what runs may be the past (I6).
        if let Some(without) = newest.iter().find(|n| !array.members.iter().any(|m| m.name == **n)) {
            self.stop(&array.device)?;
            return Err(failed(action(), format!("started without {without}, stopped again: {}", said.stderr)));
        }
        self.after_start(spec, action)
    }

    /// Checks every member before anything is touched, and answers with those of the highest event count.
    ///
    /// mdadm skips a member that is busy and, with `--run`, starts from the rest: from a stale leg alone if it is the
    /// rest. So nobody may hold one of them.
    fn members_to_start_from(&self, spec: &ArraySpec, action: impl Fn() -> String) -> Result<Vec<String>> {
        let mut events = vec![];
        for member in &spec.members {
            let device = member.device.display();
            Direct::open(&member.device, Access::Exclusive).doing(|| format!("{}: claim {device}", action()))?;
            let name = kernel_name(&member.device).ok_or_else(|| failed(action(), format!("{device} is gone")))?;
            match read_superblock(&member.device).doing(&action)? {
                Some(sb) if sb.uuid == spec.uuid => events.push((sb.events, name)),
                Some(_) => return Err(conflict(action(), format!("{device} belongs to another array"))),
                None => return Err(conflict(action(), format!("{device} has no superblock"))),
            }
        }
        let highest = events.iter().map(|(events, _)| *events).max();
        Ok(events.into_iter().filter(|(events, _)| Some(*events) == highest).map(|(_, name)| name).collect())
    }

    /// True if the array runs from these members. What an earlier try left half made, and what somebody else (a rule of
    /// udev) made from members of ours, is stopped: only what was noted before it was started was started by us.
    fn is_there(&self, spec: &ArraySpec, action: impl Fn() -> String) -> Result<bool> {
        let Some(found) = self.array_with(spec.uuid)? else { return Ok(false) };
        let noted = self.array_notes()?.get(&spec.uuid).is_some_and(|n| found.device.file_name() == Some(n.as_ref()));
        if !found.running || !noted {
            self.stop(&found.device)?;
            return Ok(false);
        }
        let wanted: BTreeSet<String> = spec.members.iter().filter_map(|m| kernel_name(&m.device)).collect();
        match found.members.iter().all(|m| wanted.contains(&m.name)) {
            true => Ok(true),
            false => Err(conflict(action(), format!("{} runs from other members", found.device.display()))),
        }
    }

    /// Write-mostly of an earlier consumer is in the superblocks: set it to what is true here, at once. And nobody but
    /// the named members may be in the array.
    fn after_start(&self, spec: &ArraySpec, action: impl Fn() -> String) -> Result<()> {
        let array = self.array_with(spec.uuid)?.ok_or_else(|| failed(action(), "the kernel does not have it"))?;
        self.wait_node(&array)?;
        for member in &array.members {
            let wanted = spec.members.iter().find(|m| kernel_name(&m.device).as_deref() == Some(&member.name));
            let wanted =
                wanted.ok_or_else(|| conflict(action(), format!("{} is in it and was not named", member.name)))?;
            if wanted.write_mostly != member.write_mostly && !member.faulty {
                let flag = if wanted.write_mostly { "writemostly" } else { "-writemostly" };
                sysfs::write(self.member_file(&array.device, &member.name, "state"), flag).doing(&action)?;
            }
        }
        Ok(())
    }

    fn wait_node(&self, array: &ArrayFacts) -> Result<()> {
        let there = || array.device.exists().then_some(());
        sysfs::wait_for(PATIENCE, there)
            .ok_or_else(|| failed(format!("find {}", array.device.display()), "no device node"))
    }

    /// Chooses a number that nobody has and notes it before the kernel hears of the array: the note is what makes the
    /// array ours after a crash.
    fn claim_number(&self, uuid: Uuid) -> Result<PathBuf> {
        let _guard = self.lock_arrays();
        let notes = self.array_notes()?;
        // What cannot be looked at is not free.
        let free = |name: &String| matches!(sysfs::exists(self.config.sys.join("block").join(name)), Ok(false));
        let name = match notes.get(&uuid).filter(|n| free(n)) {
            Some(name) => name.clone(),
            None => (FIRST_NUMBER..)
                .map(|n| format!("md{n}"))
                .take(10_000)
                .find(|n| free(n) && !notes.values().any(|noted| noted == n))
                .ok_or_else(|| failed("choose a number for an array", "none is free"))?,
        };
        sysfs::replace(&self.array_note(uuid), &format!("{name}\n")).doing(|| format!("note array {uuid}"))?;
        Ok(self.config.dev.join(name))
    }

    pub(super) fn member_file(&self, array: &Path, member: &str, file: &str) -> PathBuf {
        let array = array.file_name().unwrap_or_default();
        self.config.sys.join("block").join(array).join("md").join(format!("dev-{member}")).join(file)
    }

    /// By sysfs and not by `mdadm --stop`, which opens the device.
    pub(super) fn stop(&self, device: &Path) -> Result<()> {
        let action = || format!("stop {}", device.display());
        let Some(block) = self.block_of(device)? else { return Ok(()) };
        if let Some(at) = self.mounts_of(&block)?.first() {
            return Err(busy(action(), format!("mounted at {}", at.display())));
        }
        let state = block.join("md/array_state");
        let notes = self.array_notes()?;
        let uuid =
            notes.into_iter().find(|(_, noted)| device.file_name() == Some(noted.as_ref())).map(|(uuid, _)| uuid);
        unless_gone(sysfs::write(&state, "clear")).doing(action)?;
        let clear = || sysfs::parsed(&state, "state of an array", mdstate::array_state);
        let gone = || matches!(clear(), Ok(None | Some(ArrayState::Clear))).then_some(());
        sysfs::wait_for(PATIENCE, gone).ok_or_else(|| busy(action(), "the kernel still has it"))?;
        match uuid {
            Some(uuid) => unless_gone(std::fs::remove_file(self.array_note(uuid))).doing(action),
            None => Ok(()),
        }
    }

    pub(super) fn drop_member(&self, array: &Path, name: &str) -> Result<()> {
        let action = || format!("remove {name} from {}", array.display());
        let file = self.member_file(array, name, "state");
        let Some(faulty) = member_fails(&file)? else { return Ok(()) };
        let slot = sysfs::parsed(self.member_file(array, name, "slot"), "slot", mdstate::slot)?;
        if !faulty && slot != Some(None) {
            if !has_lost_device(&file)? {
                return Err(busy(action(), "the kernel has not failed it"));
            }
            // An idle array has not noticed. This store hangs over a path that hangs, but not over one that is gone.
            sysfs::write(&file, "faulty").doing(action)?;
        }
        // EBUSY until the array's thread has taken the failed member out of its slot.
        let remove = || match unless_gone(sysfs::write(&file, "remove")) {
            Err(e) if e.kind() == ErrorKind::ResourceBusy => None,
            other => Some(other),
        };
        let done = sysfs::wait_for(PATIENCE, remove).ok_or_else(|| busy(action(), "the kernel still uses it"))?;
        match done {
            // The directory goes with the member, sometimes under the write.
            Err(_) if !file.exists() => Ok(()),
            other => other.doing(action),
        }
    }

    pub(super) fn erase_superblock(&self, device: &Path) -> Result<()> {
        let action = || format!("erase the MD superblock of {}", device.display());
        let open = Direct::open(device, Access::Exclusive).doing(action)?;
        open.write(superblock::OFFSET, &[0u8; superblock::BYTES]).doing(action)?;
        open.sync().doing(action)
    }

    pub(super) fn join_member(&self, array: &Path, member: &ArrayMember) -> Result<()> {
        self.join(array, member, |block, name| {
            if sysfs::needed(block.join("md/level"), "level", mdstate::level)? != "raid10" {
                return Ok(());
            }
            let file = self.member_file(array, name, "slot");
            sysfs::write(&file, &member.slot.to_string()).doing(|| format!("give {name} its slot"))
        })
    }

    /// Adds a device while nothing is rebuilt; `place` tells the kernel, by the array's directory and the new member's name, what
    /// it is for.
    pub(super) fn join(
        &self,
        array: &Path,
        member: &ArrayMember,
        place: impl FnOnce(&Path, &str) -> Result<()>,
    ) -> Result<()> {
        let action = || format!("add {} to {}", member.device.display(), array.display());
        let name = kernel_name(&member.device).ok_or_else(|| failed(action(), "no such device"))?;
        let file = self.member_file(array, &name, "state");
        if let Some(faulty) = member_fails(&file)? {
            // The same name is not the same device: a member that is gone keeps its name until it is removed.
            return match faulty || has_lost_device(&file)? {
                true => Err(busy(action(), "a failed member has its name: remove that first")),
                false => Ok(()),
            };
        }
        // A leg that still has its superblock would be taken back by the bitmap alone.
        if read_superblock(&member.device).doing(action)?.is_some() {
            return Err(conflict(action(), "its superblock was not erased"));
        }
        let block = self.block_of(array)?.ok_or_else(|| failed(action(), "the kernel does not have it"))?;
        // While nothing is rebuilt an added device stays out of every slot until it is told what it must be told. Left to itself
        // MD takes it into the first empty slot of a RAID10, which may be of a mirror set that is on this node already.
        let sync = block.join("md/sync_action");
        sysfs::write(&sync, "frozen").doing(action)?;
        let add = Tool::new("mdadm").args(["--manage", "--quiet"]).arg(array).arg("--add").arg(&member.device);
        let placed = add.run().and_then(|_| self.without_log(array, member, &name)).and_then(|()| {
            if member.write_mostly {
                // Not by `--add --write-mostly`: mdadm 4.6 then adds it to an array with the lockless bitmap as a failed one.
                sysfs::write(&file, "writemostly").doing(action)?;
            }
            place(&block, &name)
        });
        match placed {
            Ok(()) => sysfs::write(&sync, "recover").doing(action),
            // It must not be left for MD to place: out with it before anything is rebuilt again.
            Err(why) => self.thaw_array(array).and(Err(why)),
        }
    }

    /// mdadm gives what it adds a log of bad blocks, and cannot be told not to: the new member, which is in no slot yet, is taken
    /// out again, its superblock is mended, and the kernel is told of it by its number.
    fn without_log(&self, array: &Path, member: &ArrayMember, name: &str) -> Result<()> {
        let action = || format!("add {name} to {} without a log of bad blocks", array.display());
        let bytes = Direct::open(&member.device, Access::Read).and_then(|disk| read_block(&disk)).doing(action)?;
        if superblock::bad_block_log(&bytes) == Some(BadBlockLog::Off) {
            return Ok(());
        }
        // A spare that has not failed is put into an empty slot by its own removal (7.3, remove_and_add_spares()).
        sysfs::write(self.member_file(array, name, "state"), "faulty").doing(action)?;
        self.drop_member(array, name)?;
        forget_bad_block_log(&member.device).doing(action)?;
        let number = sysfs::device_number(&self.config.sys.join("class/block").join(name))?;
        let (major, minor) = number.ok_or_else(|| failed(action(), "the kernel does not have the device"))?;
        let block = self.block_of(array)?.ok_or_else(|| failed(action(), "the kernel does not have it"))?;
        sysfs::write(block.join("md/new_dev"), &format!("{major}:{minor}")).doing(action)
    }

    /// An addition was interrupted: what it left outside of every slot, or in one and not in sync, is taken out again, and rebuilding
    /// goes on. (A leg that returns by the bitmap is in its slot before all that must be on its drive is there.)
    pub(super) fn thaw_array(&self, array: &Path) -> Result<()> {
        let action = || format!("thaw {}", array.display());
        let block = self.block_of(array)?.ok_or_else(|| failed(action(), "the kernel does not have it"))?;
        for dir in sysfs::need_names(block.join("md"))?.iter().filter(|n| n.starts_with("dev-")) {
            let file = |name: &str| block.join("md").join(dir).join(name);
            let Some(state) = sysfs::parsed(file("state"), "list of flags", owned_flags)? else { continue };
            let added = !state.iter().any(|flag| flag == "in_sync" || flag == "faulty");
            if added || sysfs::parsed(file("slot"), "slot", mdstate::slot)? == Some(None) {
                // As above: it must have failed.
                unless_gone(sysfs::write(file("state"), "faulty")).doing(action)?;
                self.drop_member(array, dir.strip_prefix("dev-").unwrap_or(dir))?;
            }
        }
        self.forget_wishes(&block)?;
        sysfs::write(block.join("md/sync_action"), "idle").doing(action)
    }
}

fn read_block(disk: &Direct) -> std::io::Result<Vec<u8>> {
    disk.read(superblock::OFFSET, superblock::BYTES)
}

/// Takes an empty log of bad blocks out of a superblock that nobody uses.
fn forget_bad_block_log(device: &Path) -> std::io::Result<()> {
    let disk = Direct::open(device, Access::Exclusive)?;
    match superblock::without_bad_block_log(&read_block(&disk)?) {
        Some(new) => disk.write(superblock::OFFSET, &new).and_then(|()| disk.sync()),
        None => Ok(()),
    }
}

/// Whether MD has failed the member with this `state`; none when it is no member (any more).
pub(super) fn member_fails(state: &Path) -> Result<Option<bool>> {
    sysfs::parsed(state, "state of a member", |text| mdstate::flags(text).map(|f| f.contains(&"faulty")))
}

/// Whether the device of the member with this `state` is gone.
pub(super) fn has_lost_device(state: &Path) -> Result<bool> {
    state.parent().map_or(Ok(false), is_gone)
}

/// As [`mdstate::flags`].
pub(super) fn owned_flags(state: &str) -> Option<Vec<String>> {
    Some(mdstate::flags(state)?.into_iter().map(str::to_owned).collect())
}

/// mdadm's word for a bitmap. What `auto` comes to is chosen before an array is made.
fn bitmap(bitmap: Bitmap) -> &'static str {
    match bitmap {
        Bitmap::Auto | Bitmap::Internal => "internal",
        Bitmap::Lockless => "lockless",
        Bitmap::None => "none",
    }
}

/// Bytes for which a bit of the classic bitmap stands: what one write costs a leg that was away. A 4096th of the array, at least 1 MiB
/// and at most mdadm's own 64 MiB, so that small volumes are not copied whole and large ones write their bitmap no more often.
fn bitmap_chunk(spec: &ArraySpec) -> Option<u64> {
    let sized = |bytes: u64| (bytes / 4096).next_power_of_two().clamp(1 << 20, 64 << 20);
    (bitmap(spec.bitmap) == "internal").then(|| sized(spec.size.saturating_mul(u64::from(spec.geometry.width()))))
}

/// mdadm's words for a level and its layout.
fn level(geometry: Geometry) -> Vec<String> {
    match geometry.width() {
        1 => vec!["--level=1".to_owned()],
        _ => {
            let layout = format!("--layout=n{}", geometry.set_slots());
            vec!["--level=10".to_owned(), layout, format!("--chunk={}", CHUNK / 1024)]
        }
    }
}

/// Name in `/sys/class/block` of a device node.
pub(super) fn kernel_name(device: &Path) -> Option<String> {
    let real = std::fs::canonicalize(device).ok()?;
    Some(real.file_name()?.to_str()?.to_owned())
}

/// mdadm takes four words of eight digits, in the order in which the bytes lie in the superblock.
fn mdadm_uuid(uuid: Uuid) -> String {
    let hex = uuid.simple().to_string();
    format!("{}:{}:{}:{}", &hex[..8], &hex[8..16], &hex[16..24], &hex[24..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_as_mdadm_writes_it() {
        let uuid = Uuid::parse_str("00112233-4455-6677-8899-aabbccddeeff").unwrap();
        assert_eq!(mdadm_uuid(uuid), "00112233:44556677:8899aabb:ccddeeff");
    }
}
