//! A tree of sysfs, configfs and procfs as a node with two volumes has it, each file of it bent in turn: nothing that the host says
//! of it is better than the truth, and what is wrong with one volume's files is no other volume's matter.

use super::super::*;
use super::direct::{Access, Direct, MIB};
use super::drives::Holds;
use super::gpt::{Entry, LEDGER_TYPE, LEG_TYPE, Table};
use super::{RealConfig, RealHost, disk, ledger, superblock};
use std::fs;
use std::os::unix::fs::{FileExt as _, symlink};

const BOOT: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
const HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555";
const DRIVE: &str = "SERIAL-1";

/// Volumes `0` and `1`: each an array of a local leg and of one that is connected. Leg 2 is exported.
struct Tree {
    dir: PathBuf,
    host: RealHost,
}

fn array(volume: u32) -> Uuid {
    Uuid::from_u128(0xa0 + u128::from(volume))
}

fn leg(n: u32) -> LegRef {
    LegRef { drive: DRIVE.to_owned(), uuid: Uuid::from_u128(u128::from(n) + 1) }
}

fn nqn(leg: &str) -> String {
    meshstor_crds::naming::export_nqn(leg, 1, 1)
}

impl Tree {
    /// `sick`: a member of volume 0 has failed and another is rebuilt, its path does not answer.
    fn new(test: &str, sick: bool) -> Self {
        let dir = std::env::temp_dir().join(format!("meshstor-bent-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let config = RealConfig {
            sys: dir.join("sys"),
            proc: dir.join("proc"),
            dev: dir.join("dev"),
            configfs: dir.join("config"),
            run: dir.join("run"),
            state: dir.join("state"),
            nvme: dir.join("nvme"),
            udev: dir.join("udev"),
            root: dir.join("root"),
            settling: std::time::Duration::ZERO,
            ..RealConfig::new(vec![format!("{}/dev/ubd?", dir.display())], 42000..=42009)
        };
        let tree = Tree { dir, host: RealHost::new(config) };
        tree.node();
        tree.drive();
        for volume in 0..2 {
            tree.volume(volume, sick && volume == 0);
        }
        tree.export();
        tree
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, path: &str, to: &str) {
        let path = self.dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(self.dir.join(to), path).unwrap();
    }

    fn node(&self) {
        self.put("proc/sys/kernel/random/boot_id", &format!("{BOOT}\n"));
        self.put(
            "proc/self/mountinfo",
            "20 1 98:0 / / rw - ext4 /dev/root rw\n36 20 9:100 / /mnt/v0 rw,noatime shared:1 - xfs /dev/md100 rw\n\
             37 20 9:101 / /mnt/v1 rw,noatime - xfs /dev/md101 rw\n",
        );
        fs::create_dir_all(self.dir.join("sys/module/nvmet")).unwrap();
    }

    /// A block device whose node is a plain file: that has the number 0:0.
    fn block(&self, at: &str, name: &str, bytes: u64) {
        for (file, text) in [
            ("dev", "0:0\n".to_owned()),
            ("size", format!("{}\n", bytes / 512)),
            ("uevent", format!("MAJOR=0\nMINOR=0\nDEVNAME={name}\nDEVTYPE=disk\n")),
        ] {
            self.put(&format!("{at}/{file}"), &text);
        }
        fs::create_dir_all(self.dir.join(at).join("holders")).unwrap();
        self.link(&format!("sys/class/block/{name}"), at);
        self.put(&format!("dev/{name}"), "");
    }

    /// A ledger and three legs.
    fn drive(&self) {
        let size = 64 * MIB;
        self.block("sys/block/ubda", "ubda", size);
        self.put("sys/block/ubda/serial", DRIVE);
        self.put("sys/block/ubda/queue/logical_block_size", "512\n");
        self.put("sys/block/ubda/ro", "0\n");
        self.put("sys/block/ubda/hidden", "0\n");
        let path = self.dir.join("dev/ubda");
        fs::File::create(&path).unwrap().set_len(size).unwrap();
        let mut table = Table::blank(size, 512, Uuid::from_u128(9)).unwrap();
        for number in 0..4u32 {
            let first = MIB * (1 + 8 * u64::from(number));
            let (kind, uuid) = match number {
                0 => (LEDGER_TYPE, Uuid::from_u128(99)),
                n => (LEG_TYPE, leg(n - 1).uuid),
            };
            let entry = Entry { kind, uuid, first: first / 512, last: (first + 8 * MIB) / 512 - 1, name: "x".into() };
            assert_eq!(table.add(&entry), Some(number + 1));
            let name = format!("ubda{}", number + 1);
            let at = format!("sys/block/ubda/{name}");
            self.block(&at, &name, 8 * MIB);
            self.put(&format!("{at}/start"), &format!("{}\n", entry.first));
            self.put(&format!("{at}/partition"), &format!("{}\n", number + 1));
        }
        let open = Direct::open(&path, Access::Write).unwrap();
        ledger::initialise(&open, MIB).unwrap();
        let entry = LedgerEntry { epoch: 1, spent_grant: 1, local_epoch: 1, zeroed: true, ..LedgerEntry::default() };
        let known =
            |l: &mut ledger::Ledger| (0..3).for_each(|n| drop(l.legs.insert(leg(n).uuid.to_string(), entry.clone())));
        ledger::update(&open, MIB, known).unwrap();
        disk::write_table(&open, size, &table).unwrap();
    }

    fn volume(&self, n: u32, sick: bool) {
        let (md, local, remote) = (format!("md{}", 100 + n), format!("ubda{}", n + 2), format!("nvme{n}n1"));
        let at = format!("sys/block/{md}");
        self.block(&at, &md, 8 * MIB);
        self.put(&format!("{at}/dev"), &format!("9:{}\n", 100 + n));
        fs::create_dir_all(self.dir.join(format!("sys/block/ubda/{local}/holders/{md}"))).unwrap();
        let pick = |well: &'static str, ill: &'static str| if sick { ill } else { well };
        for (file, text) in [
            ("array_state", "clean"),
            ("uuid", &array(n).to_string()),
            ("metadata_version", "1.2"),
            ("level", "raid1"),
            ("layout", "0"),
            ("raid_disks", "3"),
            ("degraded", pick("1", "3")),
            ("sync_action", pick("idle", "recover")),
            ("sync_completed", pick("none", "120 / 16384")),
            ("sync_speed", pick("none", "12")),
            ("sync_max", "max"),
            ("suspend_lo", "0"),
            ("suspend_hi", pick("0", "9223372036854775807")),
            ("bitmap_type", "none [bitmap] llbitmap"),
            ("bitmap/location", "+8"),
        ] {
            self.put(&format!("{at}/md/{file}"), &format!("{text}\n"));
        }
        for (name, state, slot) in [
            (&local, pick("in_sync", "spare"), "0"),
            (&remote, pick("in_sync,write_mostly", "faulty,write_mostly"), pick("1", "none")),
        ] {
            self.put(&format!("{at}/md/dev-{name}/state"), &format!("{state}\n"));
            self.put(&format!("{at}/md/dev-{name}/slot"), &format!("{slot}\n"));
            self.put(&format!("{at}/md/dev-{name}/latency_ewma_ns"), "12000\n");
            self.link(&format!("{at}/md/dev-{name}/block"), &format!("sys/class/block/{name}"));
        }
        self.put(&format!("run/arrays/{}", array(n)), &format!("{md}\n"));
        let (class, subsystem) =
            (format!("sys/class/nvme/nvme{n}"), format!("sys/class/nvme-subsystem/nvme-subsys{n}"));
        self.put(&format!("{class}/subsysnqn"), &format!("{}\n", nqn(&format!("remote-{n}"))));
        self.put(&format!("{class}/state"), pick("live\n", "connecting\n"));
        self.put(&format!("{class}/transport"), "tcp\n");
        self.put(&format!("{subsystem}/subsysnqn"), &format!("{}\n", nqn(&format!("remote-{n}"))));
        self.link(&format!("{subsystem}/nvme{n}"), &class);
        fs::create_dir_all(self.dir.join(&subsystem).join(&remote)).unwrap();
        self.block(&format!("sys/block/{remote}"), &remote, 8 * MIB);
        self.put(&format!("sys/block/{remote}/hidden"), "0\n");
    }

    fn export(&self) {
        let nqn = nqn("leg-2");
        let at = format!("config/nvmet/subsystems/{nqn}");
        self.put(&format!("{at}/attr_allow_any_host"), "0\n");
        self.link(&format!("{at}/allowed_hosts/{HOST}"), "config/nvmet/hosts");
        self.put(&format!("{at}/namespaces/1/device_path"), &format!("{}\n", self.dir.join("dev/ubda4").display()));
        self.put(&format!("{at}/namespaces/1/device_uuid"), &format!("{}\n", Uuid::from_u128(77)));
        self.put(&format!("{at}/namespaces/1/enable"), "1\n");
        self.put("config/nvmet/ports/42001/addr_trtype", "tcp\n");
        self.put("config/nvmet/ports/42001/addr_traddr", "10.0.0.1\n");
        self.put("config/nvmet/ports/42001/addr_trsvcid", "42001\n");
        self.link(&format!("config/nvmet/ports/42001/subsystems/{nqn}"), &at);
        self.put(&format!("run/exports/{nqn}"), &format!("{}\n{HOST}\n", leg(2).uuid));
    }

    /// Every file that stands for one of the kernel's, or is a note of ours.
    fn files(&self) -> Vec<PathBuf> {
        let mut found = vec![];
        let mut dirs: Vec<PathBuf> = ["sys", "proc", "config", "run"].map(|d| self.dir.join(d)).into();
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
                match entry.file_type().unwrap() {
                    kind if kind.is_dir() => dirs.push(entry.path()),
                    kind if kind.is_file() => found.push(entry.path()),
                    _ => {}
                }
            }
        }
        found.sort();
        found
    }

    fn look(&self) -> Look {
        let host = &self.host;
        let volume = |n: u32| Volume {
            array: host.array(array(n)),
            connections: host.connections_of(&|found| found == nqn(&format!("remote-{n}"))),
        };
        Look { volumes: [volume(0), volume(1)], arrays: host.arrays(), connections: host.connections(), disks: None }
    }

    /// The legs' half, which reads the drive.
    fn look_at_all(&self) -> Look {
        let host = &self.host;
        let usable = |d: &super::drives::Drive| (d.id.clone(), matches!(d.holds, Holds::Table(..)));
        let disks = Disks {
            legs: [0, 2].map(|n| host.leg(&leg(n))),
            exports: host.exports(),
            drives: host.scan_tables().map(|d| d.iter().map(usable).collect()),
            boot: host.boot_id(),
        };
        Look { disks: Some(disks), ..self.look() }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

struct Volume {
    array: Result<Option<ArrayFacts>>,
    connections: Result<Vec<ConnectionFacts>>,
}

/// All that the host says, but for what depends on programs.
struct Look {
    volumes: [Volume; 2],
    arrays: Result<Vec<ArrayFacts>>,
    connections: Result<Vec<ConnectionFacts>>,
    disks: Option<Disks>,
}

struct Disks {
    /// The held one and the exported one.
    legs: [Result<LegFacts>; 2],
    exports: Result<Vec<String>>,
    /// By identity: whether it can be used.
    drives: Result<Vec<(String, bool)>>,
    boot: Result<String>,
}

/// What says nothing of health: which bitmap, how fast, how far.
fn plain(array: &ArrayFacts) -> ArrayFacts {
    let mut array = ArrayFacts { bitmap: None, latency_balance: None, ..array.clone() };
    for member in &mut array.members {
        member.latency_ewma_ns = None;
    }
    if let Some(sync) = &mut array.sync {
        (sync.done, sync.total, sync.speed_kib) = (0, 0, 0);
    }
    array
}

/// An error, or the truth as far as it is about health.
fn no_better<T: Clone>(found: &Result<T>, truth: &Result<T>, same: impl Fn(&T, &T) -> bool) -> bool {
    match (found, truth) {
        (Err(_), _) => true,
        (Ok(found), Ok(truth)) => same(found, truth),
        (Ok(_), Err(_)) => false,
    }
}

fn same_arrays<'a>(a: impl IntoIterator<Item = &'a ArrayFacts>, b: impl IntoIterator<Item = &'a ArrayFacts>) -> bool {
    a.into_iter().map(plain).eq(b.into_iter().map(plain))
}

/// A connection may be without the device that it has.
fn same_connections(found: &[ConnectionFacts], truth: &[ConnectionFacts]) -> bool {
    let one =
        |(f, t): (&ConnectionFacts, &ConnectionFacts)| f == t || *f == ConnectionFacts { device: None, ..t.clone() };
    found.len() == truth.len() && found.iter().zip(truth).all(one)
}

/// An array may be taken for a stranger's, a partition for one that is not to be seen, an export for one of another device, which the
/// planning takes for none of the grant's; held is held and open is open.
fn same_leg(found: &LegFacts, truth: &LegFacts) -> bool {
    let mut as_true = found.clone();
    as_true.held_by_stranger &= truth.held_by_stranger;
    as_true.partition = found.partition.clone().or(truth.partition.clone());
    for (export, is) in as_true.exports.iter_mut().zip(&truth.exports) {
        export.device.clone_from(&is.device);
    }
    as_true == *truth && (found.held_by_stranger || !truth.held_by_stranger)
}

/// Names what is better than it is.
fn better(found: &Look, truth: &Look) -> Vec<String> {
    let mut wrong = vec![];
    let mut must = |what: &str, fine: bool| {
        if !fine {
            wrong.push(what.to_owned())
        }
    };
    for (n, (f, t)) in found.volumes.iter().zip(&truth.volumes).enumerate() {
        must(&format!("array of volume {n}"), no_better(&f.array, &t.array, |f, t| same_arrays(f, t)));
        must(
            &format!("connection of volume {n}"),
            no_better(&f.connections, &t.connections, |f, t| same_connections(f, t)),
        );
    }
    must("arrays", no_better(&found.arrays, &truth.arrays, |f, t| same_arrays(f, t)));
    must("connections", no_better(&found.connections, &truth.connections, |f, t| same_connections(f, t)));
    if let (Some(found), Some(truth)) = (&found.disks, &truth.disks) {
        for (which, (f, t)) in ["held leg", "exported leg"].iter().zip(found.legs.iter().zip(&truth.legs)) {
            must(which, no_better(f, t, same_leg));
        }
        must("exports", no_better(&found.exports, &truth.exports, |f, t| f == t));
        // Another name makes another drive of it, on which nobody's leg is; but no drive becomes usable.
        let usable = |drives: &[(String, bool)]| drives.iter().filter(|(_, usable)| *usable).count();
        must("drives", no_better(&found.drives, &truth.drives, |f, t| usable(f) <= usable(t)));
        must("boot ID", no_better(&found.boot, &truth.boot, |f, t| f == t));
    }
    wrong
}

/// Ways in which a file can be bad; none for one that it already is.
fn bends(text: &[u8]) -> Vec<(&'static str, Option<Vec<u8>>)> {
    let cut = |at: usize| text.get(..at).unwrap_or_default().to_vec();
    let line = text.strip_suffix(b"\n").unwrap_or(text);
    let with = |more: &[u8]| [line, more].concat();
    vec![
        ("empty", Some(vec![])),
        ("an empty line", Some(b"\n".to_vec())),
        ("cut in the middle", Some(cut(text.len() / 2))),
        ("cut before its last byte", Some(cut(line.len().saturating_sub(1)))),
        ("with more behind it", Some(with(b"x\n"))),
        ("with a zero byte", Some(with(b"\0\n"))),
        ("no text", Some(with(b"\xff\n"))),
        ("another word", Some(b"perhaps\n".to_vec())),
        ("a number that is too big", Some(b"99999999999999999999999\n".to_vec())),
        ("a negative number", Some(b"-1\n".to_vec())),
        ("not to be read", None),
    ]
}

fn bend(path: &Path, with: Option<&[u8]>) {
    fs::remove_file(path).unwrap();
    match with {
        Some(bytes) => fs::write(path, bytes).unwrap(),
        // A directory in its place: opened, but not read, by root either.
        None => fs::create_dir(path).unwrap(),
    }
}

fn mend(path: &Path, text: &[u8]) {
    let _ = fs::remove_dir(path);
    fs::write(path, text).unwrap();
}

fn is_in(file: &Path, parts: &[&str]) -> bool {
    parts.iter().any(|part| file.to_str().is_some_and(|file| file.contains(part)))
}

/// Files on which nothing but volume 0 depends.
const VOLUME_0: [&str; 4] = ["/block/md100/", "/class/nvme/nvme0/", "/nvme-subsys0/", "/block/nvme0n1/"];
/// Those that are as the files of volume 0 and of leg 0 are.
const REPEATED: [&str; 7] =
    ["/md101/", "/nvme1/", "/nvme-subsys1/", "/nvme1n1/", "/ubda/ubda1/", "/ubda/ubda3/", "/ubda/ubda4/"];
/// Files of arrays and controllers, from which nothing is read of a leg.
const NO_LEGS: [&str; 4] = ["/block/md100/md/", "/class/nvme/", "/class/nvme-subsystem/", "/block/nvme0n1/"];

/// Bends each of these files in each way; answers with what looked better for it, and how often it looked.
fn bend_all(tree: &Tree, which: impl Fn(&Path) -> bool) -> (Vec<String>, usize) {
    let truth = tree.look_at_all();
    assert!(better(&truth, &truth).is_empty());
    let (mut wrong, mut looks) = (vec![], 0);
    for file in tree.files().into_iter().filter(|file| which(file)) {
        let text = fs::read(&file).unwrap();
        let mut check = |how: &str| {
            let found = if is_in(&file, &NO_LEGS) { tree.look() } else { tree.look_at_all() };
            looks += 1;
            let name = file.strip_prefix(&tree.dir).unwrap().display().to_string();
            wrong.extend(better(&found, &truth).into_iter().map(|what| format!("{name}, {how}: {what}")));
            let other = &found.volumes[1];
            if is_in(&file, &VOLUME_0) && (other.array.is_err() || other.connections.is_err()) {
                wrong.push(format!("{name}, {how}: volume 1 does not go on"));
            }
        };
        for (how, bytes) in bends(&text) {
            bend(&file, bytes.as_deref());
            check(how);
            mend(&file, &text);
        }
        fs::remove_file(&file).unwrap();
        check("removed");
        mend(&file, &text);
    }
    (wrong, looks)
}

/// I7: a file of the kernel that is bad in any way makes nothing look better than it is.
#[test]
fn nothing_looks_better_for_a_bent_file() {
    let tree = Tree::new("well", false);
    let truth = tree.look_at_all();
    let array = truth.volumes[0].array.as_ref().unwrap().as_ref().unwrap();
    assert!(array.running && array.members.iter().all(|m| m.in_sync) && array.mounts == [PathBuf::from("/mnt/v0")]);
    assert_eq!(truth.connections.as_ref().unwrap().len(), 2);
    assert!(truth.connections.as_ref().unwrap().iter().all(|c| c.device.is_some()));
    let disks = truth.disks.unwrap();
    assert!(disks.legs[0].as_ref().unwrap().held_by.is_some() && disks.legs[1].as_ref().unwrap().exports[0].enabled);
    assert_eq!(disks.drives.unwrap(), [(DRIVE.to_owned(), true)]);
    let (wrong, looks) = bend_all(&tree, |file| !is_in(file, &REPEATED));
    assert_eq!(wrong, Vec::<String>::new());
    assert!(looks > 500, "{looks}");
}

/// I1, I7: what is ill does not look well because a file is bad.
#[test]
fn what_is_ill_does_not_look_well_for_a_bent_file() {
    let tree = Tree::new("ill", true);
    let truth = tree.look();
    let array = truth.volumes[0].array.as_ref().unwrap().as_ref().unwrap();
    assert!(array.degraded == 3 && array.sync.is_some() && array.members.iter().any(|m| m.faulty));
    assert_eq!(truth.connections.as_ref().unwrap()[0].state, ControllerState::Connecting);
    let (wrong, looks) = bend_all(&tree, |file| is_in(file, &["/md100/md/", "/class/nvme/nvme0/"]));
    assert_eq!(wrong, Vec::<String>::new());
    assert!(looks > 200, "{looks}");
}

/// I2: an export that is there is there, although configfs is not mounted where it is looked for.
#[test]
fn exports_that_cannot_be_seen_are_not_closed() {
    let tree = Tree::new("configfs", false);
    fs::rename(tree.dir.join("config/nvmet"), tree.dir.join("config/elsewhere")).unwrap();
    assert!(
        tree.host.exports().is_err() && tree.host.leg(&leg(2)).is_err() && tree.host.revoke(&nqn("leg-2")).is_err()
    );
    fs::remove_dir(tree.dir.join("sys/module/nvmet")).unwrap();
    assert_eq!(tree.host.exports().unwrap(), Vec::<String>::new(), "without the module nothing is exported");
}

/// I2: an export that lets in more than the one host is no export of the grant.
#[test]
fn an_export_that_lets_in_others_is_not_the_grants() {
    let tree = Tree::new("hosts", false);
    let exported = || tree.host.leg(&leg(2)).unwrap().exports[0].host_nqn.clone();
    assert_eq!(exported().as_deref(), Some(HOST));
    let at = format!("config/nvmet/subsystems/{}", nqn("leg-2"));
    tree.link(&format!("{at}/allowed_hosts/nqn.z"), "config/nvmet/hosts");
    assert_ne!(exported().as_deref(), Some(HOST));
    fs::remove_file(tree.dir.join(&at).join("allowed_hosts/nqn.z")).unwrap();
    tree.put(&format!("{at}/attr_allow_any_host"), "1\n");
    assert_ne!(exported().as_deref(), Some(HOST));
}

/// I2, I7: a held partition is held, although its device node is another device's by now or the table has lost it.
#[test]
fn held_is_held_whatever_the_kernel_calls_it() {
    let tree = Tree::new("held", false);
    fs::remove_file(tree.dir.join("dev/ubda2")).unwrap();
    let found = tree.host.leg(&leg(0)).unwrap();
    assert!(found.partition.is_none() && found.held_by.is_some());
    let drive = tree.host.drive(DRIVE).unwrap();
    let mut table = drive.table().unwrap().clone();
    table.remove(2);
    let open = Direct::open(&drive.path, Access::Write).unwrap();
    disk::write_table(&open, drive.size, &table).unwrap();
    assert!(matches!(tree.host.leg(&leg(0)), Err(HostError::Conflict { .. })));
    assert!(tree.host.leg(&leg(1)).is_ok());
}

/// I6: of a leg that no object names only a superblock that is whole is told; zeros are none, and all else is said to be something else.
#[test]
fn a_bent_superblock_says_nothing_of_a_leg() {
    let tree = Tree::new("found", false);
    let at = MIB * 17 + superblock::OFFSET;
    let drive = fs::OpenOptions::new().write(true).open(tree.dir.join("dev/ubda")).unwrap();
    let says = |bytes: &[u8]| {
        drive.write_all_at(bytes, at).unwrap();
        tree.host.found(&leg(1)).unwrap().unwrap()
    };
    let whole = superblock::tests::some();
    let found = says(&whole);
    assert_eq!(
        (found.first_byte, found.size, found.label.as_str(), found.ledger_lost),
        (MIB * 17, MIB * 8, "x", false)
    );
    let told = found.superblock.unwrap().unwrap();
    assert_eq!((told.name.as_str(), told.slots), ("meshstor:a", 2));
    for byte in (0..256).step_by(7) {
        let mut bent = whole.clone();
        bent[byte] ^= 1;
        assert!(says(&bent).superblock.is_err(), "byte {byte}");
    }
    assert_eq!(says(&vec![0u8; whole.len()]).superblock, Ok(None));
    // Both copies of the ledger.
    drive.write_all_at(&[0xff; 64], MIB).unwrap();
    drive.write_all_at(&[0xff; 64], MIB * 3).unwrap();
    let found = tree.host.found(&leg(1)).unwrap().unwrap();
    assert!(found.ledger.is_none() && found.ledger_lost);
}

/// I8: a leg that is used, or that the kernel has otherwise than the table, is not erased, and nothing of it is changed.
#[test]
fn what_the_kernel_has_otherwise_is_not_erased() {
    let tree = Tree::new("discard", false);
    // The only mount namespace.
    tree.link("proc/self/ns/mnt", "mnt");
    let bytes = || fs::read(tree.dir.join("dev/ubda")).unwrap();
    let before = bytes();
    let held = tree.host.discard(&leg(0));
    assert!(matches!(held, Err(HostError::Busy { .. })), "an array holds it: {held:?}");
    assert!(matches!(tree.host.discard(&leg(2)), Err(HostError::Busy { .. })), "it is exported");
    fs::remove_dir(tree.dir.join("sys/block/ubda/ubda3/holders/md101")).unwrap();
    tree.put("sys/block/ubda/ubda3/start", "34000\n");
    let moved = tree.host.discard(&leg(1));
    assert!(matches!(moved, Err(HostError::Conflict { .. })), "the kernel has it elsewhere: {moved:?}");
    assert!(bytes() == before);
}
