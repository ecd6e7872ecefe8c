//! What every [`Host`] must do, as plain functions: run on the fake in unit tests and on a real kernel in a guest.
//!
//! Each check makes legs of its own and takes them away again. The node connects to itself.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use meshstor_crds::{Bitmap, Geometry, Transport, naming};
use uuid::Uuid;

use super::{
    ArrayFacts, ArrayMember, ArraySpec, ConnectSpec, Content, ControllerState, ExportFacts, ExportSpec, Host,
    LedgerEntry, LegRef, Part,
};

/// Where the suite runs.
pub struct Env {
    /// Address at which the node reaches itself.
    pub address: String,
    /// Bytes of each leg.
    pub leg_bytes: u64,
    /// Called while something is awaited; a fake goes on there.
    pub nudge: Box<dyn Fn()>,
}

type Check = Result<(), String>;
type Case = (&'static str, fn(&Bench<'_>) -> Check);

/// All checks, in order.
const CASES: [Case; 14] = [
    ("a node says who it is", node),
    ("a partition is made once, and its ledger is kept with it", partition),
    ("a leg reads as zeros after zeroing", zeroed),
    ("an export opens the leg to one host, and a revoke closes it for good", export),
    ("a consumer comes in once, and once more behind the barrier", door),
    ("an array lives on a local and a remote leg, loses one and gets it back", |bench| array(bench, Bitmap::Internal)),
    ("so does one with the lockless bitmap", |bench| array(bench, Bitmap::Lockless)),
    ("and one without a bitmap", |bench| array(bench, Bitmap::None)),
    ("a leg that was away comes back by the bitmap, and what only it wrote is gone", returned),
    ("a striped array loses a leg of each mirror set and takes each back into its own", striped),
    ("a working member is replaced, and nothing is degraded", |bench| replaced(bench, Geometry::new(2, 1))),
    ("so is one of a striped array", |bench| replaced(bench, Geometry::new(2, 2))),
    ("a partition goes only when nobody uses it", deletion),
    ("a leg says what it was, and who uses it", testimony),
];

/// Runs all checks; tells a line for each, and answers how many failed.
pub fn run(host: &dyn Host, env: &Env, tell: &mut dyn FnMut(&str)) -> usize {
    let mut failed = 0;
    for (name, check) in CASES {
        match Bench::new(host, env).and_then(|bench| check(&bench)) {
            Ok(()) => tell(&format!("ok {name}")),
            Err(why) => {
                failed += 1;
                tell(&format!("FAILED {name}: {why}"));
            }
        }
    }
    failed
}

/// One check's surroundings.
struct Bench<'a> {
    host: &'a dyn Host,
    env: &'a Env,
    drive: String,
    /// Another one that fits, or the same where there is none.
    other_drive: String,
    host_nqn: String,
    boot: String,
}

fn said<T>(result: super::Result<T>) -> Result<T, String> {
    result.map_err(|e| e.to_string())
}

fn must(holds: bool, what: &str) -> Check {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

impl<'a> Bench<'a> {
    fn new(host: &'a dyn Host, env: &'a Env) -> Result<Self, String> {
        let facts = said(host.node())?;
        let fits = |d: &&super::DriveFacts| d.unusable.is_none() && d.free.iter().any(|(_, n)| *n >= 4 * env.leg_bytes);
        let drives = || facts.drives.iter().filter(fits).map(|d| d.id.clone());
        let drive = drives().next().ok_or("no drive has room for four legs")?;
        let other_drive = drives().nth(1).unwrap_or_else(|| drive.clone());
        Ok(Self { host, env, drive, other_drive, host_nqn: facts.host_nqn, boot: facts.boot_id })
    }

    fn new_leg(&self) -> Result<LegRef, String> {
        self.new_leg_on(&self.drive)
    }

    fn new_leg_on(&self, drive: &str) -> Result<LegRef, String> {
        let leg = LegRef { drive: drive.to_owned(), uuid: Uuid::new_v4() };
        said(self.host.create_partition(&leg, self.env.leg_bytes, "conformance"))?;
        said(self.host.zero(&leg, Part::Whole, &|_| {}))?;
        Ok(leg)
    }

    fn device(&self, leg: &LegRef) -> Result<PathBuf, String> {
        Ok(said(self.host.leg(leg))?.partition.ok_or("the partition is not there")?.device)
    }

    fn spec(&self, grant: i64) -> ExportSpec {
        let nqn = naming::export_nqn(&Uuid::new_v4().to_string(), 1, grant);
        ExportSpec {
            nqn,
            host_nqn: self.host_nqn.clone(),
            transport: Transport::Tcp,
            address: self.env.address.clone(),
            io_queues: 2,
        }
    }

    fn connect(&self, export: &ExportFacts) -> Result<PathBuf, String> {
        let (address, port) = export.listening.clone().ok_or("the export does not listen")?;
        let spec = ConnectSpec {
            nqn: export.nqn.clone(),
            transport: Transport::Tcp,
            address,
            port,
            io_queues: 2,
            queue_size: 64,
            keep_alive: 2,
        };
        said(self.host.connect(&spec))?;
        said(self.host.connect(&spec))?;
        let live = || -> Option<PathBuf> {
            let all = self.host.connections().ok()?;
            let mut ours = all.into_iter().filter(|c| c.nqn == export.nqn);
            ours.next().filter(|c| c.state == ControllerState::Live)?.device
        };
        self.wait("the connection to be live with a device", live)
    }

    fn wait<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> Result<T, String> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            if let Some(found) = look() {
                return Ok(found);
            }
            (self.env.nudge)();
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Err(format!("waited 60 s for {what}"))
    }

    fn array(&self, uuid: Uuid) -> Result<Option<ArrayFacts>, String> {
        Ok(said(self.host.arrays())?.into_iter().find(|a| a.uuid == uuid))
    }

    fn drop_leg(&self, leg: &LegRef) -> Check {
        said(self.host.delete_partition(leg))?;
        let facts = said(self.host.leg(leg))?;
        must(facts.partition.is_none() && facts.ledger.is_none(), "partition or ledger entry is still there")
    }
}

fn node(bench: &Bench<'_>) -> Check {
    must(!bench.boot.is_empty(), "no boot ID")?;
    must(bench.host_nqn.starts_with("nqn."), "no host NQN")
}

fn partition(bench: &Bench<'_>) -> Check {
    let leg = LegRef { drive: bench.drive.clone(), uuid: Uuid::new_v4() };
    let before = said(bench.host.leg(&leg))?;
    must(before.partition.is_none() && before.ledger.is_none(), "a leg that was never made is there")?;
    said(bench.host.create_partition(&leg, bench.env.leg_bytes, "conformance"))?;
    let first = said(bench.host.leg(&leg))?.partition.ok_or("the partition is not there")?;
    must(first.size == bench.env.leg_bytes, "the partition has another size")?;
    must(first.first_byte % (1 << 20) == 0, "the partition is not MiB aligned")?;
    said(bench.host.create_partition(&leg, bench.env.leg_bytes, "conformance"))?;
    must(said(bench.host.leg(&leg))?.partition == Some(first), "a second making changed it")?;
    must(said(bench.host.legs())?.contains(&leg), "it is not among the legs")?;
    let entry = LedgerEntry {
        epoch: 3,
        spent_grant: 2,
        spent_boot: bench.boot.clone(),
        zeroed: true,
        ..LedgerEntry::default()
    };
    said(bench.host.write_ledger(&leg, &entry))?;
    must(said(bench.host.leg(&leg))?.ledger == Some(entry.clone()), "the ledger says something else")?;
    let next = LedgerEntry { epoch: 4, local_epoch: 4, ..entry };
    said(bench.host.write_ledger(&leg, &next))?;
    must(said(bench.host.leg(&leg))?.ledger == Some(next), "the ledger kept the old entry")?;
    bench.drop_leg(&leg)
}

fn zeroed(bench: &Bench<'_>) -> Check {
    let leg = bench.new_leg()?;
    let device = bench.device(&leg)?;
    must(said(bench.host.content(&device))? == Content::Blank, "a zeroed leg is not blank")?;
    must(said(bench.host.examine(&device))?.is_none(), "a zeroed leg has a superblock")?;
    said(bench.host.zero(&leg, Part::Ends, &|_| {}))?;
    must(said(bench.host.examine(&device))?.is_none(), "a leg that will be copied to has a superblock")?;
    bench.drop_leg(&leg)
}

fn export(bench: &Bench<'_>) -> Check {
    let leg = bench.new_leg()?;
    let spec = bench.spec(1);
    let made = said(bench.host.export(&leg, &spec))?;
    must(made.enabled && made.nqn == spec.nqn, "the export is not enabled")?;
    must(made.host_nqn.as_deref() == Some(&bench.host_nqn), "the export is not open to its host alone")?;
    let seen = said(bench.host.leg(&leg))?.exports;
    must(seen.len() == 1 && seen[0] == made, "the export is not seen as it was made")?;
    must(said(bench.host.exports())?.contains(&spec.nqn), "it is not among the exports")?;
    let again = said(bench.host.export(&leg, &spec))?;
    must(again == made, "a second export changed it")?;
    bench.connect(&made)?;
    said(bench.host.revoke(&spec.nqn))?;
    said(bench.host.revoke(&spec.nqn))?;
    must(said(bench.host.leg(&leg))?.exports.is_empty(), "the export is still seen")?;
    must(!said(bench.host.exports())?.contains(&spec.nqn), "it is still among the exports")?;
    let live = || {
        let all = bench.host.connections().ok()?;
        all.iter().all(|c| c.nqn != spec.nqn || c.state != ControllerState::Live).then_some(())
    };
    bench.wait("the cut connection not to be live", live)?;
    said(bench.host.disconnect(&spec.nqn))?;
    said(bench.host.disconnect(&spec.nqn))?;
    let next = said(bench.host.export(&leg, &bench.spec(2)))?;
    must(next.device_uuid != made.device_uuid, "the next export has the namespace UUID of the last")?;
    said(bench.host.revoke(&next.nqn))?;
    bench.drop_leg(&leg)
}

/// Rule 9: nobody connects a second time to one grant before the target has let go of the first connection.
fn door(bench: &Bench<'_>) -> Check {
    let leg = bench.new_leg()?;
    let spec = bench.spec(1);
    let made = said(bench.host.export(&leg, &spec))?;
    must(!said(bench.host.is_connected(&made))?, "it is connected before anybody was")?;
    must(!said(bench.host.is_left(&made))?, "it is left before anybody came")?;
    bench.connect(&made)?;
    must(said(bench.host.is_connected(&made))?, "its connection is not seen")?;
    must(!said(bench.host.is_left(&made))?, "it is left while somebody is connected")?;
    must(bench.host.readmit(&leg, &spec).is_err(), "it was closed on somebody who is connected")?;
    must(said(bench.host.leg(&leg))?.exports == [made.clone()], "a refusal changed it")?;
    said(bench.host.disconnect(&made.nqn))?;
    must(bench.connect(&made).is_err(), "a second connection was let in")?;
    must(said(bench.host.connections())?.iter().all(|c| c.nqn != made.nqn), "something of it was left")?;
    let left = || bench.host.is_left(&made).ok().filter(|left| *left).map(drop);
    bench.wait("its connections to be gone", left)?;
    said(bench.host.readmit(&leg, &spec))?;
    must(!said(bench.host.is_left(&made))?, "it is to be closed again before anybody came")?;
    must(said(bench.host.leg(&leg))?.exports == [made.clone()], "it is not what it was")?;
    bench.connect(&made)?;
    said(bench.host.disconnect(&made.nqn))?;
    said(bench.host.revoke(&made.nqn))?;
    must(bench.host.readmit(&leg, &spec).is_err(), "what was revoked was opened again")?;
    bench.drop_leg(&leg)
}

fn array(bench: &Bench<'_>, bitmap: Bitmap) -> Check {
    let (local, remote) = (bench.new_leg()?, bench.new_leg()?);
    let first = said(bench.host.export(&remote, &bench.spec(1)))?;
    let far = bench.connect(&first)?;
    let near = bench.device(&local)?;
    let spec = array_spec(bench, near.clone(), far, bitmap);
    said(bench.host.create_array(&spec))?;
    said(bench.host.create_array(&spec))?;
    let made = bench.array(spec.uuid)?.ok_or("the array is not seen")?;
    must(made.running && made.degraded == 0 && made.members.len() == 2, "the array is not whole")?;
    must(made.bitmap == Some(bitmap), &format!("it has the bitmap {:?}", made.bitmap))?;
    must(said(bench.host.leg(&local))?.held_by == Some(made.device.clone()), "the local leg is not seen as held")?;
    filesystem(bench, &made.device)?;
    for limit in [Some(4096), None] {
        said(bench.host.limit_rebuild(&made.device, limit))?;
        let found = said(bench.host.traffic(&made.device))?.rebuild_limit;
        must(found == limit, &format!("the limit of a rebuild is {found:?}, not {limit:?}"))?;
    }
    said(bench.host.stop_array(&made.device))?;
    said(bench.host.stop_array(&made.device))?;
    must(bench.array(spec.uuid)?.is_none(), "the array is still seen")?;
    let found = said(bench.host.examine(&near))?.ok_or("no superblock on the local leg")?;
    must(found.uuid == spec.uuid, "the superblock names another array")?;
    said(bench.host.assemble(&spec))?;
    let again = bench.array(spec.uuid)?.ok_or("the array is not seen again")?;
    must(again.bitmap == Some(bitmap), &format!("after assembly it has the bitmap {:?}", again.bitmap))?;
    lose_and_regain(bench, &spec, &remote, &first)?;
    bench.drop_leg(&local)?;
    bench.drop_leg(&remote)
}

fn array_spec(bench: &Bench<'_>, near: PathBuf, far: PathBuf, bitmap: Bitmap) -> ArraySpec {
    let member = |device, slot, write_mostly| ArrayMember { device, slot, write_mostly };
    ArraySpec {
        uuid: Uuid::new_v4(),
        name: "conformance".to_owned(),
        geometry: Geometry::new(2, 1),
        members: vec![member(near, 0, false), member(far, 1, true)],
        size: bench.env.leg_bytes - (8 << 20),
        bitmap,
    }
}

fn filesystem(bench: &Bench<'_>, device: &Path) -> Check {
    must(said(bench.host.content(device))? == Content::Blank, "a new array is not blank")?;
    said(bench.host.mkfs(device, "ext4"))?;
    must(said(bench.host.content(device))? == Content::Filesystem("ext4".to_owned()), "no ext4 is seen")?;
    let at = std::env::temp_dir().join(format!("meshstor-{}", Uuid::new_v4()));
    said(bench.host.mount(device, "ext4", &at))?;
    said(bench.host.mount(device, "ext4", &at))?;
    let mounts = said(bench.host.arrays())?.into_iter().flat_map(|a| a.mounts).filter(|m| *m == at).count();
    must(mounts == 1, "it is not mounted exactly once")?;
    must(bench.host.stop_array(device).is_err(), "a mounted array was stopped")?;
    said(bench.host.unmount(&at))?;
    said(bench.host.unmount(&at))?;
    said(bench.host.wipe(device))?;
    must(said(bench.host.content(device))? == Content::Blank, "a wiped array is not blank")
}

/// The remote leg goes by `disconnect` and comes back under another export.
fn lose_and_regain(bench: &Bench<'_>, spec: &ArraySpec, remote: &LegRef, first: &ExportFacts) -> Check {
    let name = |m: &ArrayMember| m.device.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let far = name(spec.members.last().ok_or("no members")?);
    said(bench.host.disconnect(&first.nqn))?;
    let lost = || {
        let array = bench.array(spec.uuid).ok()??;
        let failed = array.members.iter().all(|m| m.name != far || m.faulty || !m.in_sync);
        (array.degraded == 1 && failed).then_some(array)
    };
    let array = bench.wait("MD to fail the disconnected leg", lost)?;
    if array.members.iter().any(|m| m.name == far) {
        said(bench.host.remove_member(&array.device, &far))?;
    }
    let gone = || bench.array(spec.uuid).ok()?.filter(|a| a.members.len() == 1);
    bench.wait("the failed member to be gone", gone)?;
    said(bench.host.revoke(&first.nqn))?;
    let second = said(bench.host.export(remote, &bench.spec(2)))?;
    let device = bench.connect(&second)?;
    said(bench.host.zero_superblock(&device))?;
    must(said(bench.host.examine(&device))?.is_none(), "the erased leg has a superblock")?;
    said(bench.host.add_member(&array.device, &ArrayMember { device, slot: 1, write_mostly: true }))?;
    let whole = || bench.array(spec.uuid).ok()?.filter(|a| a.degraded == 0 && a.members.iter().all(|m| m.in_sync));
    bench.wait("the rebuild to end", whole)?;
    said(bench.host.stop_array(&array.device))?;
    said(bench.host.disconnect(&second.nqn))?;
    said(bench.host.revoke(&second.nqn))
}

/// I6, rule 7: each leg is written alone, and the remote one comes back to the other by the bitmap: then it holds what the other
/// does, whether its own bitmap marks it or the array's.
fn returned(bench: &Bench<'_>) -> Check {
    let (local, remote) = (bench.new_leg()?, bench.new_leg()?);
    let export = said(bench.host.export(&remote, &bench.spec(1)))?;
    let (near, far) = (bench.device(&local)?, bench.connect(&export)?);
    let spec = array_spec(bench, near, far.clone(), Bitmap::Internal);
    let alone = |slot: usize| ArraySpec { members: vec![spec.members[slot].clone()], ..spec.clone() };
    let run = |spec: &ArraySpec| {
        said(bench.host.assemble(spec))?;
        bench.array(spec.uuid)?.ok_or_else(|| "the array is not seen".to_owned()).map(|a| a.device)
    };
    let stop = |device: &Path| said(bench.host.stop_array(device));
    let holds = |slot, wanted: &Content| {
        let device = run(&alone(slot))?;
        let found = said(bench.host.content(&device))?;
        must(found == *wanted, &format!("slot {slot} holds {found:?}, not {wanted:?}"))?;
        stop(&device)
    };
    let ext4 = Content::Filesystem("ext4".to_owned());
    said(bench.host.create_array(&spec))?;
    stop(&bench.array(spec.uuid)?.ok_or("the array is not seen")?.device)?;
    // Only the remote leg has it: its own bitmap is all that says so.
    let device = run(&alone(1))?;
    said(bench.host.mkfs(&device, "ext4"))?;
    stop(&device)?;
    holds(0, &Content::Blank)?;
    holds(1, &ext4)?;
    let device = run(&alone(0))?;
    refused_returns(bench, &device, &spec, &local)?;
    back_in_sync(bench, &device, &spec)?;
    stop(&device)?;
    holds(1, &Content::Blank)?;
    // Only the local leg has it: the bitmap of the array says so.
    let device = run(&alone(0))?;
    said(bench.host.mkfs(&device, "ext4"))?;
    back_in_sync(bench, &device, &spec)?;
    stop(&device)?;
    holds(1, &ext4)?;
    // A leg whose superblock is gone is nobody's.
    let device = run(&alone(0))?;
    said(bench.host.zero_superblock(&far))?;
    must(bench.host.readd_member(&device, &spec.members[1]).is_err(), "a leg without a superblock was taken back")?;
    stop(&device)?;
    said(bench.host.disconnect(&export.nqn))?;
    said(bench.host.revoke(&export.nqn))?;
    bench.drop_leg(&local)?;
    bench.drop_leg(&remote)
}

/// I8: what may not return is refused, and the array is as it was.
fn refused_returns(bench: &Bench<'_>, array: &Path, spec: &ArraySpec, local: &LegRef) -> Check {
    let before = bench.array(spec.uuid)?;
    let other = bench.new_leg_on(&local.drive)?;
    let blank = ArrayMember { device: bench.device(&other)?, slot: 1, write_mostly: false };
    must(bench.host.readd_member(array, &blank).is_err(), "a leg that never was a member was taken back")?;
    let misplaced = ArrayMember { slot: 0, ..spec.members[1].clone() };
    must(bench.host.readd_member(array, &misplaced).is_err(), "a leg was taken into a slot that is not its own")?;
    must(bench.array(spec.uuid)? == before, "a refusal changed the array")?;
    bench.drop_leg(&other)
}

fn back_in_sync(bench: &Bench<'_>, array: &Path, spec: &ArraySpec) -> Check {
    said(bench.host.readd_member(array, &spec.members[1]))?;
    said(bench.host.readd_member(array, &spec.members[1]))?;
    let whole = || bench.array(spec.uuid).ok()?.filter(|a| a.degraded == 0 && a.members.iter().all(|m| m.in_sync));
    let array = bench.wait("the leg to be in sync", whole)?;
    must(array.members.len() == 2 && !array.frozen, "it is frozen, or has other members")
}

/// Slots 1 and 3 are remote, so that they can be lost; the leg of 3 is back first, and slot 1 is empty then.
fn striped(bench: &Bench<'_>) -> Check {
    // MD warns of members that share a drive.
    let drives = [&bench.drive, &bench.other_drive];
    let legs = (0..4).map(|slot| bench.new_leg_on(drives[slot / 2])).collect::<Result<Vec<_>, _>>()?;
    let mut members = Vec::new();
    let mut exports = Vec::new();
    for (slot, leg) in (0..).zip(&legs) {
        let device = if slot % 2 == 0 {
            bench.device(leg)?
        } else {
            exports.push(said(bench.host.export(leg, &bench.spec(1)))?);
            bench.connect(&exports[exports.len() - 1])?
        };
        members.push(ArrayMember { device, slot, write_mostly: false });
    }
    let (uuid, size) = (Uuid::new_v4(), bench.env.leg_bytes - (8 << 20));
    let (geometry, bitmap) = (Geometry::new(2, 2), Bitmap::Internal);
    let spec = ArraySpec { uuid, name: "striped".to_owned(), geometry, members, size, bitmap };
    said(bench.host.create_array(&spec))?;
    let made = bench.array(uuid)?.ok_or("the array is not seen")?;
    must(made.degraded == 0 && made.slots == 4 && made.set_slots == Some(2), "it is not of two mirror sets")?;
    let last = said(bench.host.found(&legs[3]))?.and_then(|f| f.superblock.ok()?).ok_or("the last leg says nothing")?;
    must(
        (last.level, last.slots, last.near_copies, last.slot) == (10, 4, Some(2), Some(3)) && !last.rebuilding,
        &format!("the last leg says {last:?}"),
    )?;
    exports.iter().try_for_each(|e| said(bench.host.disconnect(&e.nqn)))?;
    let lost = || bench.array(uuid).ok()?.filter(|a| a.degraded == 2);
    for member in bench.wait("MD to fail both", lost)?.members.iter().filter(|m| m.faulty || !m.in_sync) {
        said(bench.host.remove_member(&made.device, &member.name))?;
    }
    let gone = || bench.array(uuid).ok()?.filter(|a| a.members.len() == 2);
    bench.wait("both failed members to be gone", gone)?;
    let mut nqns: Vec<String> = exports.into_iter().map(|e| e.nqn).collect();
    nqns.iter().try_for_each(|nqn| said(bench.host.revoke(nqn)))?;
    nqns.clear();
    for slot in [3u32, 1] {
        let leg = &legs[usize::try_from(slot).map_err(|e| e.to_string())?];
        let export = said(bench.host.export(leg, &bench.spec(2)))?;
        let device = bench.connect(&export)?;
        nqns.push(export.nqn);
        said(bench.host.zero_superblock(&device))?;
        let taken = ArrayMember { device: device.clone(), slot: 0, write_mostly: false };
        let count = bench.array(uuid)?.map_or(0, |a| a.members.len());
        must(bench.host.add_member(&made.device, &taken).is_err(), "a leg was added to a slot that is taken")?;
        let as_before = || bench.array(uuid).ok()?.filter(|a| !a.frozen && a.members.len() == count);
        bench.wait("a refused addition to leave nothing", as_before)?;
        said(bench.host.zero_superblock(&device))?;
        let member = ArrayMember { device, slot, write_mostly: false };
        said(bench.host.add_member(&made.device, &member))?;
        said(bench.host.add_member(&made.device, &member))?;
        let there = || {
            let array = bench.array(uuid).ok()??;
            array.members.iter().any(|m| m.slot == Some(slot) && m.in_sync).then_some(array)
        };
        let array = bench.wait(&format!("the rebuild of slot {slot}"), there)?;
        must(!array.frozen && array.degraded == u32::from(slot == 3), "the other slot was taken too, or it is frozen")?;
    }
    said(bench.host.thaw(&made.device))?;
    said(bench.host.stop_array(&made.device))?;
    said(bench.host.assemble(&spec_with(&spec, bench)?))?;
    let again = bench.array(uuid)?.ok_or("the array is not seen again")?;
    must(again.degraded == 0 && again.set_slots == Some(2), "it is not whole after assembly")?;
    said(bench.host.stop_array(&again.device))?;
    nqns.iter().try_for_each(|nqn| said(bench.host.disconnect(nqn)).and_then(|()| said(bench.host.revoke(nqn))))?;
    legs.iter().try_for_each(|leg| bench.drop_leg(leg))
}

/// The same array from the devices that its members have now: a leg that came back has another name.
fn spec_with(spec: &ArraySpec, bench: &Bench<'_>) -> Result<ArraySpec, String> {
    let local = spec.members.iter().filter(|m| m.slot % 2 == 0).map(|m| m.device.clone());
    let remote = said(bench.host.connections())?.into_iter().filter_map(|c| c.device);
    let mut members = Vec::new();
    for device in local.chain(remote) {
        if said(bench.host.examine(&device))?.is_some_and(|found| found.uuid == spec.uuid) {
            members.push(ArrayMember { device, slot: 0, write_mostly: false });
        }
    }
    must(members.len() == spec.members.len(), "a leg's superblock is not the array's")?;
    Ok(ArraySpec { members, ..spec.clone() })
}

/// The member of slot 1 gives way to a new one: the copy waits, writes are held, MD changes from one to the other.
fn replaced(bench: &Bench<'_>, geometry: Geometry) -> Check {
    let drives = [&bench.drive, &bench.other_drive];
    let legs = (0..geometry.slots())
        .map(|slot| bench.new_leg_on(drives[usize::from(slot % 2 == 1)]))
        .collect::<Result<Vec<_>, _>>()?;
    let heir = bench.new_leg_on(&bench.other_drive)?;
    let name = |device: &Path| device.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let mut members = Vec::new();
    let mut exports = Vec::new();
    for (slot, leg) in (0..).zip(&legs) {
        // MD warns of members that share a drive when it starts an array: the others are remote.
        let device = if slot < 2 {
            bench.device(leg)?
        } else {
            exports.push(said(bench.host.export(leg, &bench.spec(1)))?);
            bench.connect(&exports[exports.len() - 1])?
        };
        members.push(ArrayMember { device, slot, write_mostly: false });
    }
    let (uuid, size, bitmap) = (Uuid::new_v4(), bench.env.leg_bytes - (8 << 20), Bitmap::Internal);
    let old = name(&members[1].device);
    let spec = ArraySpec { uuid, name: "replaced".to_owned(), geometry, members, size, bitmap };
    said(bench.host.create_array(&spec))?;
    let made = bench.array(uuid)?.ok_or("the array is not seen")?;
    must(made.sync_max.is_none() && !made.suspended, "a new array has a hold")?;
    let device = bench.device(&heir)?;
    let new = name(&device);
    let member = ArrayMember { device, slot: 1, write_mostly: false };
    must(
        bench.host.replace_member(&made.device, "nobody", &member).is_err(),
        "a member that is not there is replaced",
    )?;
    let untouched = bench.array(uuid)?.ok_or("the array is gone")?;
    must(!untouched.frozen && untouched.members.len() == legs.len(), "a refused replacement left something")?;
    said(bench.host.replace_member(&made.device, &old, &member))?;
    said(bench.host.replace_member(&made.device, &old, &member))?;
    let waits = || {
        let array = bench.array(uuid).ok()??;
        let at = array.sync_max?;
        array.sync.as_ref().is_some_and(|s| s.done >= at).then_some(array)
    };
    let array = bench.wait("the copy to wait before its end", waits)?;
    let find = |array: &ArrayFacts, of: &str| array.members.iter().find(|m| m.name == of).cloned();
    let filled = find(&array, &new).ok_or("the new member is not seen")?;
    must(
        filled.replacement && !filled.in_sync && filled.slot == Some(1),
        &format!("it is no replacement: {filled:?}"),
    )?;
    must(find(&array, &old).is_some_and(|m| m.in_sync && !m.faulty), "the old member does not work")?;
    must(array.degraded == 0 && !array.suspended, "it is degraded, or its writes are held")?;
    said(bench.host.suspend(&made.device))?;
    said(bench.host.suspend(&made.device))?;
    must(bench.array(uuid)?.is_some_and(|a| a.suspended), "held writes are not seen")?;
    said(bench.host.finish_sync(&made.device))?;
    let changed = || {
        let array = bench.array(uuid).ok()??;
        let done = find(&array, &new)?.in_sync && find(&array, &old).is_none_or(|m| m.faulty);
        done.then_some(array)
    };
    let array = bench.wait("MD to change from one to the other", changed)?;
    must(array.degraded == 0 && array.suspended && array.sync_max.is_none(), &format!("after the change: {array:?}"))?;
    said(bench.host.resume(&made.device))?;
    said(bench.host.resume(&made.device))?;
    said(bench.host.remove_member(&made.device, &old))?;
    let alone = || bench.array(uuid).ok()?.filter(|a| a.members.len() == legs.len() && !a.suspended && a.degraded == 0);
    let array = bench.wait("the old member to be gone", alone)?;
    must(
        find(&array, &new).is_some_and(|m| !m.replacement && m.slot == Some(1)),
        "the new member is still a replacement",
    )?;
    said(bench.host.expel_member(&made.device, &new))?;
    said(bench.host.expel_member(&made.device, &new))?;
    said(bench.host.remove_member(&made.device, &new))?;
    let left = bench.array(uuid)?.ok_or("the array is gone")?;
    must(left.degraded == 1 && find(&left, &new).is_none(), "a member that was expelled is there")?;
    said(bench.host.stop_array(&made.device))?;
    let close = |e: &ExportFacts| said(bench.host.disconnect(&e.nqn)).and_then(|()| said(bench.host.revoke(&e.nqn)));
    exports.iter().try_for_each(close)?;
    legs.iter().chain([&heir]).try_for_each(|leg| bench.drop_leg(leg))
}

fn deletion(bench: &Bench<'_>) -> Check {
    let leg = bench.new_leg()?;
    let made = said(bench.host.export(&leg, &bench.spec(1)))?;
    must(bench.host.delete_partition(&leg).is_err(), "an exported partition was deleted")?;
    said(bench.host.revoke(&made.nqn))?;
    bench.drop_leg(&leg)?;
    said(bench.host.delete_partition(&leg))
}

/// What is known of a leg whose object is gone comes from its drive alone.
fn testimony(bench: &Bench<'_>) -> Check {
    let (local, remote) = (bench.new_leg()?, bench.new_leg()?);
    let entry = LedgerEntry { epoch: 3, spent_grant: 2, zeroed: true, ..LedgerEntry::default() };
    said(bench.host.write_ledger(&local, &entry))?;
    let says = |leg: &LegRef| said(bench.host.found(leg))?.ok_or_else(|| "it is not found".to_owned());
    let blank = says(&local)?;
    must(blank.superblock == Ok(None), &format!("a zeroed leg says {:?}", blank.superblock))?;
    must(blank.label == "conformance" && blank.size == bench.env.leg_bytes, "label or size is another")?;
    must(blank.ledger == Some(entry) && !blank.ledger_lost, "its ledger entry is another")?;
    let export = said(bench.host.export(&remote, &bench.spec(1)))?;
    let far = bench.connect(&export)?;
    must(says(&remote)?.exports == [export.nqn.clone()] && blank.exports.is_empty(), "its exports are others")?;
    let named = said(bench.host.export_named(&export.nqn))?;
    must(named.as_ref() == Some(&export), &format!("the export is {named:?}"))?;
    must(bench.host.discard(&remote).is_err(), "a leg that is exported was erased")?;
    let near = bench.device(&local)?;
    must(said(bench.host.users(&near))?.is_empty(), "somebody uses a leg that nobody uses")?;
    let spec = array_spec(bench, near.clone(), far.clone(), Bitmap::Internal);
    said(bench.host.create_array(&spec))?;
    let device = bench.array(spec.uuid)?.ok_or("the array is not seen")?.device;
    for used in [&near, &far] {
        must(!said(bench.host.users(used))?.is_empty(), "nobody uses a member of an array")?;
    }
    must(bench.host.discard(&local).is_err(), "a leg that an array holds was erased")?;
    must(bench.host.release(&export.nqn).is_err(), "a connection that an array uses was taken down")?;
    let whole = bench.array(spec.uuid)?.is_some_and(|a| a.degraded == 0 && a.members.iter().all(|m| m.in_sync));
    must(whole, "a refusal did something to the array")?;
    said(bench.host.mkfs(&device, "ext4"))?;
    let at = std::env::temp_dir().join(format!("meshstor-{}", Uuid::new_v4()));
    said(bench.host.mount(&device, "ext4", &at))?;
    must(!said(bench.host.users(&device))?.is_empty(), "nobody uses an array that is mounted")?;
    said(bench.host.unmount(&at))?;
    said(bench.host.stop_array(&device))?;
    must(said(bench.host.users(&near))?.is_empty(), "somebody uses a member of an array that was stopped")?;
    said(bench.host.release(&export.nqn))?;
    said(bench.host.release(&export.nqn))?;
    must(!said(bench.host.connections())?.iter().any(|c| c.nqn == export.nqn), "a connection is still there")?;
    said(bench.host.revoke(&export.nqn))?;
    must(said(bench.host.export_named(&export.nqn))?.is_none(), "an export is still there")?;
    for (slot, leg) in [(0, &local), (1, &remote)] {
        let found = says(leg)?.superblock?.ok_or("no superblock")?;
        let what = (found.level, found.slots, found.near_copies, found.slot, found.bitmap);
        must(what == (1, 2, None, Some(slot), Some(Bitmap::Internal)), &format!("it says {found:?}"))?;
        must(found.uuid == spec.uuid && found.name == "meshstor:conformance", &format!("it is of {found:?}"))?;
        let members = found.roles == [Some(0), Some(1)] && found.number == slot;
        let whole = members && found.clean && !found.rebuilding && found.active_slots == [0, 1];
        must(whole && found.component == spec.size, &format!("it says {found:?}"))?;
        said(bench.host.discard(leg))?;
        said(bench.host.discard(leg))?;
        let facts = said(bench.host.leg(leg))?;
        must(facts.partition.is_none() && facts.ledger.is_none(), "of an erased leg something is left")?;
    }
    must(said(bench.host.found(&local))?.is_none(), "a leg that was erased is found")
}
