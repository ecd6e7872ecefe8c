//! This implementation on real kernels: two guests of the lab, `store` and `app`, run this one test, each with its part.
//!
//! `make test-e2e` runs them (`e2e/tests/e2e/host.rs`): in each guest with `MESHSTOR_PART=store|app`; the directory in
//! `MESHSTOR_SHARE` is common to both and carries their messages, `MESHSTOR_STORE` is the address of `store`.

// The kernel's own clocks are what is waited for here.
#![allow(clippy::disallowed_methods)]

use super::super::*;
use super::superblock::{self, BadBlockLog};
use super::{RealConfig, RealHost, direct, disk, nft, sysfs};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
const CAPACITY: u64 = 320 * MIB;

fn store_address() -> String {
    std::env::var("MESHSTOR_STORE").unwrap()
}

fn share() -> PathBuf {
    std::env::var_os("MESHSTOR_SHARE").unwrap().into()
}

fn tell(what: &str, text: &str) {
    let file = share().join(what);
    fs::write(share().join(format!("{what}.new")), text).unwrap();
    fs::rename(share().join(format!("{what}.new")), file).unwrap();
}

fn hear(what: &str) -> String {
    let file = share().join(what);
    sysfs::wait_for(Duration::from_secs(90), || fs::read_to_string(&file).ok())
        .unwrap_or_else(|| panic!("gave up waiting for {what}"))
}

fn say(what: impl std::fmt::Debug) {
    let up = fs::read_to_string("/proc/uptime").unwrap_or_default();
    println!("[{}] {what:?}", up.split(' ').next().unwrap_or_default());
}

fn host() -> RealHost {
    RealHost::new(RealConfig::new(vec!["/dev/ubd?".into()], 42000..=42009))
}

fn nqn(epoch: i64, grant: i64) -> String {
    meshstor_crds::naming::export_nqn("0c7d", epoch, grant)
}

fn leg_on(drive: &DriveFacts, n: u128) -> LegRef {
    LegRef { drive: drive.id.clone(), uuid: Uuid::from_u128(n) }
}

#[test]
#[ignore = "needs the lab: runs inside two guests"]
fn two_guests() {
    match std::env::var("MESHSTOR_PART").as_deref() {
        Ok("store") => store(),
        Ok("app") => app(),
        part => panic!("no such part: {part:?}"),
    }
}

#[test]
#[ignore = "needs the lab: runs inside one guest"]
fn conformance_suite() {
    let env = conformance::Env {
        address: store_address(),
        leg_bytes: 128 * MIB,
        nudge: Box::new(|| std::thread::sleep(Duration::from_millis(20))),
    };
    let host = host();
    host.node().unwrap();
    let failed = conformance::run(&host, &env, &mut |line| say(line));
    assert_eq!(failed, 0);
}

fn ready_leg(host: &RealHost, leg: &LegRef) -> PartitionFacts {
    host.create_partition(leg, CAPACITY + 8 * MIB, "meshstor v-0").unwrap();
    host.create_partition(leg, CAPACITY + 8 * MIB, "meshstor v-0").unwrap();
    let seen = AtomicU8::new(0);
    host.zero(leg, Part::Whole, &|p| seen.store(p, Ordering::Relaxed)).unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), 100);
    let facts = host.leg(leg).unwrap();
    assert_eq!((facts.ledger.clone(), facts.held_by.clone(), facts.exports.len()), (None, None, 0));
    let partition = facts.partition.unwrap();
    assert_eq!(partition.size, CAPACITY + 8 * MIB);
    assert_eq!(partition.first_byte % MIB, 0);
    assert_eq!(host.content(&partition.device).unwrap(), Content::Blank);
    partition
}

fn store() {
    let host = host();
    let node = host.node().unwrap();
    say(&node);
    for wanted in ["raid1", "nvmet-tcp", "nvme-tcp", "mdadm", "nft", "mkfs.xfs", "mkfs.ext4"] {
        assert!(node.capabilities.iter().any(|(n, yes, _)| n == wanted && *yes), "{wanted}");
    }
    // ubda and ubdb were blank and are taken; ubdc holds a filesystem and is not.
    assert_eq!(node.drives.len(), 3);
    assert!(node.drives[..2].iter().all(|d| d.unusable.is_none() && d.free.len() == 1));
    assert!(node.drives[2].unusable.as_ref().is_some_and(|u| u.why.contains("ext4")));
    assert_eq!(host.node().unwrap().drives, node.drives);

    let (leg, other) = (leg_on(&node.drives[0], 1), leg_on(&node.drives[0], 2));
    host.create_partition(&other, 16 * MIB, "meshstor first").unwrap();
    let partition = ready_leg(&host, &leg);
    say(&partition);
    assert_eq!(host.legs().unwrap(), [other.clone(), leg.clone()]);

    ledger_survives(&host, &leg);
    mended_table(&host, &node.drives[0], &leg);
    fence_and_regrant(&host, &leg, &partition);

    // The kernel and the table know the others by number: a deletion renumbers nobody.
    host.delete_partition(&other).unwrap();
    host.delete_partition(&other).unwrap();
    assert_eq!(host.leg(&leg).unwrap().partition, Some(partition));
    assert_eq!(host.leg(&other).unwrap(), LegFacts::default());
    host.delete_partition(&leg).unwrap();
    assert_eq!(host.leg(&leg).unwrap(), LegFacts::default());
    assert_eq!(host.node().unwrap().drives[0].free, node.drives[0].free);
    tell("store-done", "");
}

/// I1: what was told to a leg is on its drive when the call returns, and one damaged copy takes nothing back.
fn ledger_survives(host: &RealHost, leg: &LegRef) {
    let entry =
        LedgerEntry { epoch: 7, spent_grant: 3, spent_boot: "b".into(), zeroed: true, ..LedgerEntry::default() };
    host.write_ledger(leg, &LedgerEntry { epoch: 6, ..entry.clone() }).unwrap();
    host.write_ledger(leg, &entry).unwrap();
    assert_eq!(RealHost::new(host.config.clone()).leg(leg).unwrap().ledger, Some(entry.clone()));
    let drive = host.drive(&leg.drive).unwrap();
    let at = drive.ledger_at().unwrap();
    let raw = disk::open(&drive.path, direct::Access::Write).unwrap();
    let saved = [raw.read(at, 4096).unwrap(), raw.read(at + 2 * MIB, 4096).unwrap()];
    for (copy, bytes) in [(at, &saved[0]), (at + 2 * MIB, &saved[1])] {
        raw.write(copy, &[0xff; 4096]).unwrap();
        assert_eq!(host.leg(leg).unwrap().ledger, Some(entry.clone()));
        raw.write(copy, bytes).unwrap();
    }
    raw.write(at, &[0xff; 4096]).unwrap();
    raw.write(at + 2 * MIB, &[0xff; 4096]).unwrap();
    assert!(matches!(host.leg(leg), Err(HostError::Conflict { .. })));
    host.write_ledger(leg, &entry).unwrap();
    assert_eq!(host.leg(leg).unwrap().ledger, Some(entry));
    say("ledger: survives one damaged copy, conflict with two");
}

/// I5: a crash while the primary table is written.
fn mended_table(host: &RealHost, drive: &DriveFacts, leg: &LegRef) {
    let raw = disk::open(&drive.path, direct::Access::Write).unwrap();
    let whole = raw.read(0, 16 * 4096).unwrap();
    raw.write(1024, &[0x5a; 512]).unwrap();
    assert!(host.leg(leg).unwrap().partition.is_some());
    host.node().unwrap();
    assert_eq!(raw.read(0, 16 * 4096).unwrap(), whole);
    say("table: mended from its backup");
}

fn spec(epoch: i64, grant: i64) -> ExportSpec {
    ExportSpec {
        nqn: nqn(epoch, grant),
        host_nqn: hear("app-nqn"),
        transport: Transport::Tcp,
        address: store_address(),
        io_queues: 2,
    }
}

fn fence_and_regrant(host: &RealHost, leg: &LegRef, partition: &PartitionFacts) {
    host.revoke(&nqn(9, 9)).unwrap();
    let open = host.export(leg, &spec(1, 1)).unwrap();
    say(&open);
    assert!(open.enabled && open.device.as_deref() == Some(&*partition.device));
    assert_eq!(host.export(leg, &spec(1, 1)).unwrap(), open);
    assert_eq!(host.leg(leg).unwrap().exports, std::slice::from_ref(&open));
    assert!(matches!(host.delete_partition(leg), Err(HostError::Busy { .. })));
    assert!(matches!(host.zero(leg, Part::Whole, &|_| ()), Err(HostError::Busy { .. })));
    let port = open.listening.clone().unwrap().1;
    tell("port-1", &port.to_string());
    hear("app-writes");
    let start = Instant::now();
    host.revoke(&open.nqn).unwrap();
    say(("revoked under writes", start.elapsed()));
    host.revoke(&open.nqn).unwrap();
    assert!(host.leg(leg).unwrap().exports.is_empty());
    assert!(sysfs::names("/sys/kernel/config/nvmet/ports").unwrap().is_empty());
    assert!(sysfs::names("/sys/kernel/config/nvmet/hosts").unwrap().is_empty());
    assert!(nft::ports().unwrap().is_empty());
    // No I/O lands after the barrier.
    let ends = [fingerprint(&partition.device), {
        std::thread::sleep(Duration::from_secs(3));
        fingerprint(&partition.device)
    }];
    assert_eq!(ends[0], ends[1]);
    tell("revoked", "");
    hear("app-degraded");
    assert_eq!(fingerprint(&partition.device), ends[0]);

    let start = Instant::now();
    for _ in 0..20 {
        host.leg(leg).unwrap();
    }
    say(("one leg()", start.elapsed() / 20));
    half_made(host, leg, &partition.device);
    let again = host.export(leg, &spec(1, 2)).unwrap();
    assert_ne!(again.device_uuid, open.device_uuid);
    assert_ne!(again.listening, open.listening);
    tell("port-2", &again.listening.clone().unwrap().1.to_string());
    hear("app-done");
    host.revoke(&again.nqn).unwrap();
}

/// I5: what a daemon that died in the middle of making an export left behind.
fn half_made(host: &RealHost, leg: &LegRef, device: &Path) {
    let root = Path::new("/sys/kernel/config/nvmet");
    fs::create_dir(root.join("ports/42007")).unwrap();
    let dir = root.join("subsystems").join(nqn(1, 5));
    fs::create_dir(&dir).unwrap();
    fs::create_dir(dir.join("namespaces/1")).unwrap();
    sysfs::write(dir.join("namespaces/1/device_path"), &device.to_string_lossy()).unwrap();
    nft::cut(42008).unwrap();
    let found = host.leg(leg).unwrap().exports;
    assert!(found.len() == 1 && !found[0].enabled && found[0].listening.is_none());
    host.revoke(&nqn(1, 5)).unwrap();
    assert!(host.leg(leg).unwrap().exports.is_empty());
    assert!(sysfs::names(root.join("ports")).unwrap().is_empty() && nft::ports().unwrap().is_empty());
    say("half-made export: found and removed");
}

fn fingerprint(device: &Path) -> u32 {
    let raw = disk::open(device, direct::Access::Read).unwrap();
    let chunks = (0..(CAPACITY + 8 * MIB) / MIB).map(|n| raw.read(n * MIB, MIB as usize).unwrap());
    chunks
        .fold(crc32fast::Hasher::new(), |mut h, c| {
            h.update(&c);
            h
        })
        .finalize()
}

fn to(grant: i64, port: u16) -> ConnectSpec {
    ConnectSpec {
        nqn: nqn(1, grant),
        transport: Transport::Tcp,
        address: store_address(),
        port,
        io_queues: 1,
        queue_size: 64,
        keep_alive: 2,
    }
}

fn connected(host: &RealHost, grant: i64) -> PathBuf {
    let port: u16 = hear(&format!("port-{grant}")).parse().unwrap();
    let start = Instant::now();
    host.connect(&to(grant, port)).unwrap();
    host.connect(&to(grant, port)).unwrap();
    let all: Vec<_> = host.connections().unwrap().into_iter().filter(|c| c.nqn == nqn(1, grant)).collect();
    say((&all, start.elapsed()));
    assert!(all.len() == 1 && all[0].state == ControllerState::Live);
    all[0].device.clone().unwrap()
}

fn app() {
    let host = host();
    let node = host.node().unwrap();
    tell("app-nqn", &node.host_nqn);
    let leg = leg_on(&node.drives[0], 11);
    let local = ready_leg(&host, &leg).device;
    let remote = connected(&host, 1);
    // The remote leg matches a greedy pattern of drives, reads as zeros, and must not be taken for a blank drive.
    let greedy = RealHost::new(RealConfig { drive_patterns: vec!["/dev/*".into()], ..host.config.clone() });
    assert!(greedy.scan().unwrap().iter().all(|d| d.path != remote));

    let member =
        |device: &Path, slot: u32, write_mostly: bool| ArrayMember { device: device.to_owned(), slot, write_mostly };
    let array = ArraySpec {
        uuid: Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        name: "a-volume-whose-name-is-rather-long".into(),
        geometry: Geometry::new(2, 1),
        members: vec![member(&remote, 0, true), member(&local, 1, false)],
        size: CAPACITY,
        bitmap: Bitmap::Internal,
    };
    assert_eq!(host.arrays().unwrap(), []);
    host.create_array(&array).unwrap();
    host.create_array(&array).unwrap();
    let facts = running(&host, 0);
    say(&facts);
    assert!(facts.members.iter().all(|m| m.in_sync && m.write_mostly == (m.slot == Some(0))));
    let md = facts.device.clone();
    assert_eq!(host.size_of(&md).unwrap(), CAPACITY);
    portable(&[&remote, &local]);
    assert_eq!(host.leg(&leg).unwrap().held_by, Some(md.clone()));
    assert!(matches!(host.delete_partition(&leg), Err(HostError::Busy { .. })));
    assert_eq!(host.examine(&remote).unwrap().unwrap().uuid, array.uuid);
    // Without its notes (another daemon's directory) the array is still known for ours, by the local superblock.
    let amnesiac = RealHost::new(RealConfig { run: "/tmp/empty".into(), ..host.config.clone() });
    assert_eq!(amnesiac.arrays().unwrap(), [facts]);

    let start = Instant::now();
    for _ in 0..20 {
        host.arrays().unwrap();
        host.connections().unwrap();
    }
    say(("arrays() and connections()", start.elapsed() / 20));
    foreign_array(&host, &node);
    filesystem(&host, &md);
    lose_and_return(&host, &md, &remote);
    assemble_again(&host, array, &md, &local);
    one_leg(&host, &leg_on(&node.drives[1], 12));
    refused(&host);
    tell("app-done", "");
    hear("store-done");
}

fn running(host: &RealHost, degraded: u32) -> ArrayFacts {
    let mut all = host.arrays().unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    let one = all.remove(0);
    assert!(one.running && one.degraded == degraded && one.slots == 2, "{one:?}");
    one
}

fn foreign_array(host: &RealHost, node: &NodeFacts) {
    let leg = leg_on(&node.drives[1], 99);
    host.create_partition(&leg, 64 * MIB, "x").unwrap();
    let device = host.leg(&leg).unwrap().partition.unwrap().device;
    let mdadm = |args: &[&str]| std::process::Command::new("mdadm").args(args).output().unwrap();
    let out = mdadm(&[
        "--create",
        "/dev/md7",
        "--run",
        "--level=1",
        "--raid-devices=2",
        "--name=theirs",
        device.to_str().unwrap(),
        "missing",
    ]);
    assert!(out.status.success(), "{out:?}");
    running(host, 0);
    assert!(mdadm(&["--stop", "/dev/md7"]).status.success());
    assert!(matches!(host.content(&device).unwrap(), Content::Other(what) if what == "linux_raid_member"));
    host.delete_partition(&leg).unwrap();
}

fn filesystem(host: &RealHost, md: &Path) {
    host.wipe(md).unwrap();
    assert_eq!(host.content(md).unwrap(), Content::Blank);
    host.mkfs(md, "xfs").unwrap();
    host.mkfs(md, "xfs").unwrap();
    assert_eq!(host.content(md).unwrap(), Content::Filesystem("xfs".into()));
    assert!(matches!(host.mkfs(md, "ext4"), Err(HostError::Conflict { .. })));
    let at = Path::new("/tmp/a mount");
    host.mount(md, "xfs", at).unwrap();
    host.mount(md, "xfs", at).unwrap();
    assert_eq!(running(host, 0).mounts, [at]);
    assert!(matches!(host.stop_array(md), Err(HostError::Busy { .. })));
}

/// One block, written and flushed: returns when it is durable on every leg.
fn write_block(n: u64) {
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(0)
        .open("/tmp/a mount/file")
        .unwrap();
    file.write_all_at(&n.to_le_bytes().repeat(512), n * 4096).unwrap();
    file.sync_all().unwrap();
}

/// I1: nothing is acknowledged from the fence until the leg is let go.
fn lose_and_return(host: &RealHost, md: &Path, remote: &Path) {
    (0..20).for_each(write_block);
    // A writer that flushes each block; the highest block that it was told is durable.
    let done = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = {
        let (done, stop) = (done.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut n = 20;
            while !stop.load(Ordering::Relaxed) {
                write_block(n);
                done.store(n, Ordering::Relaxed);
                n += 1;
            }
        })
    };
    sysfs::wait_for(Duration::from_secs(20), || (done.load(Ordering::Relaxed) > 30).then_some(())).unwrap();
    tell("app-writes", "");
    hear("revoked");
    // Its fault has fired: the writer hangs, nothing is failed, the controller is connecting.
    let before = done.load(Ordering::Relaxed);
    let lost = || host.connections().unwrap()[0].state == ControllerState::Connecting;
    sysfs::wait_for(Duration::from_secs(15), || lost().then_some(())).unwrap();
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(
        done.load(Ordering::Relaxed),
        before,
        "a write was acknowledged while the fenced leg was not recorded away"
    );
    say(("held since block", before, running(host, 0)));
    let name = remote.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(matches!(host.remove_member(md, &name), Err(HostError::Busy { .. })));
    let start = Instant::now();
    host.disconnect(&nqn(1, 1)).unwrap();
    say(("disconnected", start.elapsed()));
    sysfs::wait_for(Duration::from_secs(10), || (done.load(Ordering::Relaxed) > before).then_some(())).unwrap();
    say(("released", start.elapsed()));
    assert_eq!(host.connections().unwrap(), []);
    host.disconnect(&nqn(1, 1)).unwrap();
    say(running(host, 1));
    host.remove_member(md, &name).unwrap();
    host.remove_member(md, &name).unwrap();
    assert_eq!(running(host, 1).members.len(), 1);
    tell("app-degraded", "");

    come_back(host, md);
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
}

fn come_back(host: &RealHost, md: &Path) {
    let back = connected(host, 2);
    let member = ArrayMember { device: back.clone(), slot: 0, write_mostly: true };
    assert!(matches!(host.add_member(md, &member), Err(HostError::Conflict { .. })));
    host.zero_superblock(&back).unwrap();
    assert_eq!(host.examine(&back).unwrap(), None);
    host.add_member(md, &member).unwrap();
    host.add_member(md, &member).unwrap();
    say(running(host, 1));
    assert!(matches!(host.zero_superblock(&back), Err(HostError::Busy { .. })));
    let synced = || host.arrays().unwrap()[0].members.iter().all(|m| m.in_sync).then_some(());
    sysfs::wait_for(Duration::from_secs(60), synced).unwrap();
    say(running(host, 0));
}

/// Kernels up to 6.18 take what is there for a feature that they do not know, and do not assemble: it is zero after the
/// array was made, and still after a rebuild, writes and another assembly by this one, which would fill it in for itself.
fn portable(legs: &[&Path]) {
    for leg in legs {
        let mut bytes = vec![0; 4096];
        fs::File::open(leg).unwrap().read_exact_at(&mut bytes, 4096).unwrap();
        assert_eq!(&bytes[0xe0..0xe4], [0; 4], "{}: a logical block size", leg.display());
        // I1: a leg that could not write a block must fail, not be called in sync without it.
        assert_eq!(superblock::bad_block_log(&bytes), Some(BadBlockLog::Off), "{}", leg.display());
    }
}

fn assemble_again(host: &RealHost, mut array: ArraySpec, md: &Path, local: &Path) {
    let back = host.connections().unwrap()[0].device.clone().unwrap();
    let at = Path::new("/tmp/a mount");
    let open = fs::File::open(at.join("file")).unwrap();
    assert!(matches!(host.unmount(at), Err(HostError::Busy { .. })));
    drop(open);
    host.unmount(at).unwrap();
    host.unmount(at).unwrap();
    host.stop_array(md).unwrap();
    host.stop_array(md).unwrap();
    assert_eq!(host.arrays().unwrap(), []);
    assert!(!md.exists());
    // Assembled where the other leg is the local one, and read from the leg that was rebuilt.
    array.members = vec![
        ArrayMember { device: back.clone(), slot: 0, write_mostly: false },
        ArrayMember { device: local.to_owned(), slot: 1, write_mostly: true },
    ];
    host.assemble(&array).unwrap();
    host.assemble(&array).unwrap();
    let facts = running(host, 0);
    assert!(facts.members.iter().all(|m| m.in_sync && m.write_mostly == (m.slot == Some(1))), "{facts:?}");
    host.mount(&facts.device, "xfs", at).unwrap();
    let mut read = vec![];
    fs::File::open(at.join("file")).unwrap().read_to_end(&mut read).unwrap();
    for (n, block) in read.chunks(4096).enumerate() {
        assert_eq!(block, (n as u64).to_le_bytes().repeat(512), "block {n}");
    }
    say(("blocks verified", read.len() / 4096));
    host.unmount(at).unwrap();
    host.stop_array(&facts.device).unwrap();
    portable(&[&back, local]);
    leave_out(host, array, local);
    host.disconnect(&nqn(1, 2)).unwrap();
    assert!(!back.exists());
}

fn leave_out(host: &RealHost, mut array: ArraySpec, local: &Path) {
    let at = Path::new("/tmp/a mount");
    // Degraded, from one of the two.
    array.members.truncate(1);
    host.assemble(&array).unwrap();
    let facts = running(host, 1);
    say(&facts);
    host.mount(&facts.device, "xfs", at).unwrap();
    write_block(3);
    host.unmount(at).unwrap();
    host.stop_array(&facts.device).unwrap();
    // I6: the leg that was away is named, and the kernel leaves it out rather than take it back by the bitmap.
    let stale = ArrayMember { device: local.to_owned(), slot: 1, write_mostly: true };
    let both = ArraySpec { members: vec![array.members[0].clone(), stale], ..array.clone() };
    host.assemble(&both).unwrap();
    let facts = running(host, 1);
    assert!(facts.members.len() == 1 && facts.device != local, "{facts:?}");
    host.stop_array(&facts.device).unwrap();
    stolen(host, &both);
    let blank = ArraySpec { uuid: Uuid::from_u128(5), ..array };
    assert!(matches!(host.assemble(&blank), Err(HostError::Conflict { .. })));
    assert!(matches!(host.create_array(&blank), Err(HostError::Conflict { .. })));
}

/// A rule of udev started it under a number of its own, from one member.
fn stolen(host: &RealHost, both: &ArraySpec) {
    let device = both.members[0].device.to_str().unwrap();
    let thief = std::process::Command::new("mdadm").args(["--assemble", "/dev/md9", "--run", device]).output().unwrap();
    assert!(thief.status.success(), "{thief:?}");
    // Its member is a remote leg, which is not read to find out: this one is nobody's. mdadm would skip it as busy and
    // start from the stale leg alone (I6, I8).
    assert_eq!(host.arrays().unwrap(), []);
    let before = host.examine(&both.members[1].device).unwrap();
    assert!(matches!(host.assemble(both), Err(HostError::Busy { .. })));
    assert_eq!(host.examine(&both.members[1].device).unwrap(), before);
    assert_eq!(host.arrays().unwrap(), []);
    host.stop_array(Path::new("/dev/md9")).unwrap();
    let device = both.members[1].device.to_str().unwrap();
    let thief = std::process::Command::new("mdadm").args(["--assemble", "/dev/md9", "--run", device]).output().unwrap();
    assert!(thief.status.success(), "{thief:?}");
    assert_eq!(running(host, 1).device, Path::new("/dev/md9"));
    host.assemble(both).unwrap();
    let facts = running(host, 1);
    assert_ne!(facts.device, Path::new("/dev/md9"));
    host.stop_array(&facts.device).unwrap();
    say("stolen array: taken back");
}

fn one_leg(host: &RealHost, leg: &LegRef) {
    let device = ready_leg(host, leg).device;
    let members = vec![ArrayMember { device: device.clone(), slot: 0, write_mostly: false }];
    let spec = ArraySpec {
        uuid: Uuid::from_u128(6),
        name: "single".into(),
        geometry: Geometry::new(1, 1),
        members,
        size: CAPACITY,
        bitmap: Bitmap::None,
    };
    host.create_array(&spec).unwrap();
    let facts = running(host, 1);
    // Nothing has been set on a member of this one, so that no event would have come by itself.
    portable(&[&device]);
    host.mkfs(&facts.device, "ext4").unwrap();
    host.mount(&facts.device, "ext4", Path::new("/tmp/one")).unwrap();
    fs::File::create("/tmp/one/x").unwrap().write_all(b"x").unwrap();
    host.unmount(Path::new("/tmp/one")).unwrap();
    host.stop_array(&facts.device).unwrap();
    portable(&[&device]);
    say("one leg of two slots, ext4");
}

fn refused(host: &RealHost) {
    let start = Instant::now();
    say((host.connect(&to(3, 42009)).unwrap_err().to_string(), start.elapsed()));
    assert_eq!(sysfs::names("/sys/class/nvme").unwrap(), Vec::<String>::new());
    // Listening, but the NQN is not there.
    let port: u16 = hear("port-2").parse().unwrap();
    say(host.connect(&to(4, port)).unwrap_err().to_string());
    assert_eq!(sysfs::names("/sys/class/nvme").unwrap(), Vec::<String>::new());
}
