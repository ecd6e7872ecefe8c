//! The real kernel: sysfs, configfs, nvme-fabrics, mdadm.
//!
//! Everything is found by identity (UUID, NQN) in what the kernel shows, never by a device name and never through udev,
//! which may not be there. Bytes on drives are read and written past the page cache. What a method may assume and must
//! guarantee is on [`Host`]; the order of steps is on the function that has one.

mod assemble;
mod assembly;
#[cfg(test)]
mod bent_tests;
mod bits;
mod command;
mod direct;
mod disk;
mod drives;
mod error;
mod evict;
mod fabrics;
mod floor;
mod found;
mod fs;
mod gate;
mod gpt;
#[cfg(test)]
mod guest_tests;
mod ledger;
mod legs;
mod md;
mod mdstate;
mod mounts;
mod nft;
mod node;
mod nvmet;
mod pattern;
mod probe;
mod proc;
mod readd;
mod replace;
mod revoke;
mod superblock;
mod sysfs;
mod traffic;
mod udev;
mod zero;

pub use evict::detach_if_asked;

use super::{
    ArrayFacts, ArrayMember, ArraySpec, ConnectSpec, ConnectionFacts, Content, ExportFacts, ExportSpec, FoundFacts,
    Host, LedgerEntry, LegFacts, LegRef, NodeFacts, Part, Result, SuperFacts, Traffic,
};
use crate::events::Sources;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// Where things are, and what of the node is ours.
#[derive(Clone, Debug)]
pub struct RealConfig {
    /// Shell patterns of whole drives, such as `/dev/ubd?` or `/dev/nvme?n1`. **A wholly blank drive that matches is
    /// taken**: it gets a partition table.
    pub drive_patterns: Vec<String>,
    /// TCP ports of exports; nvmet port directories with these numbers are ours as well.
    pub ports: RangeInclusive<u16>,
    /// `/sys`.
    pub sys: PathBuf,
    /// `/proc`, of the mount and network namespace of the node.
    pub proc: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
    /// `/sys/kernel/config`.
    pub configfs: PathBuf,
    /// Notes that live as long as the boot; must outlive the daemon (a directory of the node's `/run`).
    pub run: PathBuf,
    /// Notes that should outlive a boot; losing them is harmless.
    pub state: PathBuf,
    /// Directory of `hostnqn` and `hostid`.
    pub nvme: PathBuf,
    /// Name of the node, which no other node of the cluster has: a host NQN comes from it where that directory has none.
    pub node: String,
    /// How long an array that cannot be read may be on its way to being started or stopped.
    pub settling: Duration,
    /// `/run/udev` of the node.
    pub udev: PathBuf,
    /// The node's root directory, as its first process sees it: where the rules and units lie that may assemble arrays.
    pub root: PathBuf,
}

impl RealConfig {
    /// The usual places.
    pub fn new(drive_patterns: Vec<String>, ports: RangeInclusive<u16>) -> Self {
        RealConfig {
            drive_patterns,
            ports,
            sys: "/sys".into(),
            proc: "/proc".into(),
            dev: "/dev".into(),
            configfs: "/sys/kernel/config".into(),
            run: "/run/meshstor".into(),
            state: "/var/lib/meshstor".into(),
            nvme: "/etc/nvme".into(),
            node: String::new(),
            settling: Duration::from_millis(20),
            udev: "/run/udev".into(),
            root: "/proc/1/root".into(),
        }
    }
}

/// This node. One process a node: the locks are inside it.
pub struct RealHost {
    config: RealConfig,
    /// By kernel name of the drive: partition table and ledger.
    drives: Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
    /// TCP ports, port and host directories of nvmet.
    exports: Mutex<()>,
    /// Ports whose export a thread is closing.
    cutting: Mutex<BTreeSet<u16>>,
    /// The choice of numbers for arrays.
    arrays: Mutex<()>,
    /// Whether the kernel has the lockless bitmap, once that is known.
    lockless: OnceLock<bool>,
    /// Levels that the kernel was seen to have; it does not lose one.
    levels: Mutex<BTreeSet<&'static str>>,
    /// Whether arrays may be started on this kernel, once it was found out.
    floor: OnceLock<floor::Verdict>,
}

/// A panic of another thread leaves nothing half changed behind these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Holds the lock of a drive until it is dropped.
struct DriveLock(Arc<Mutex<()>>);

impl DriveLock {
    fn hold(&self) -> MutexGuard<'_, ()> {
        lock(&self.0)
    }
}

/// Marks a port as being cut until it is dropped.
struct Cutting<'a>(&'a RealHost, u16);

impl Drop for Cutting<'_> {
    fn drop(&mut self) {
        lock(&self.0.cutting).remove(&self.1);
    }
}

impl RealHost {
    /// Touches nothing yet.
    pub fn new(config: RealConfig) -> Self {
        RealHost {
            config,
            drives: Mutex::default(),
            exports: Mutex::default(),
            cutting: Mutex::default(),
            arrays: Mutex::default(),
            lockless: OnceLock::new(),
            levels: Mutex::default(),
            floor: OnceLock::new(),
        }
    }

    /// Where the kernel tells of what concerns this host.
    pub fn sources(&self) -> Sources {
        let config = self.config.clone();
        let is_drive = move |name: &str| {
            let node = config.dev.join(name);
            config.drive_patterns.iter().any(|p| pattern::matches(p, &node.to_string_lossy()))
        };
        Sources {
            proc: self.config.proc.clone(),
            sys: self.config.sys.clone(),
            configfs: self.config.configfs.clone(),
            ports: self.config.ports.clone(),
            is_drive: Arc::new(is_drive),
        }
    }

    fn drive_lock(&self, name: &str) -> DriveLock {
        DriveLock(lock(&self.drives).entry(name.to_owned()).or_default().clone())
    }

    fn lock_exports(&self) -> MutexGuard<'_, ()> {
        lock(&self.exports)
    }

    fn lock_arrays(&self) -> MutexGuard<'_, ()> {
        lock(&self.arrays)
    }

    fn cutting(&self, port: u16) -> Cutting<'_> {
        lock(&self.cutting).insert(port);
        Cutting(self, port)
    }

    fn being_cut(&self) -> BTreeSet<u16> {
        lock(&self.cutting).clone()
    }
}

impl Host for RealHost {
    fn node(&self) -> Result<NodeFacts> {
        self.node_facts()
    }
    fn leg(&self, leg: &LegRef) -> Result<LegFacts> {
        self.leg_facts(leg)
    }
    fn legs(&self) -> Result<Vec<LegRef>> {
        self.all_legs()
    }
    fn exports(&self) -> Result<Vec<String>> {
        self.our_subsystems()
    }
    fn connections(&self) -> Result<Vec<ConnectionFacts>> {
        self.connections_with(&|_| true)
    }
    fn connections_of(&self, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<ConnectionFacts>> {
        self.connections_with(wanted)
    }
    fn arrays(&self) -> Result<Vec<ArrayFacts>> {
        self.all_arrays()
    }
    fn array(&self, uuid: Uuid) -> Result<Option<ArrayFacts>> {
        self.array_with(uuid)
    }
    fn traffic(&self, array: &Path) -> Result<Traffic> {
        self.traffic_of(array)
    }
    fn examine(&self, device: &Path) -> Result<Option<SuperFacts>> {
        self.examine_device(device)
    }
    fn content(&self, device: &Path) -> Result<Content> {
        self.content_on(device)
    }
    fn found(&self, leg: &LegRef) -> Result<Option<FoundFacts>> {
        self.found_leg(leg)
    }
    fn export_named(&self, nqn: &str) -> Result<Option<ExportFacts>> {
        self.export_facts(nqn)
    }
    fn users(&self, device: &Path) -> Result<Vec<String>> {
        self.users_of(device)
    }
    fn create_partition(&self, leg: &LegRef, bytes: u64, label: &str) -> Result<()> {
        self.make_partition(leg, bytes, label)
    }
    fn write_ledger(&self, leg: &LegRef, entry: &LedgerEntry) -> Result<()> {
        self.put_ledger_entry(leg, entry)
    }
    fn zero(&self, leg: &LegRef, part: Part, progress: &dyn Fn(u8)) -> Result<()> {
        self.zero_leg(leg, part, progress)
    }
    fn export(&self, leg: &LegRef, spec: &ExportSpec) -> Result<ExportFacts> {
        self.open_export(leg, spec)
    }
    fn is_connected(&self, export: &ExportFacts) -> Result<bool> {
        export.listening.as_ref().map_or(Ok(false), |(_, port)| self.has_connection(*port))
    }
    fn is_left(&self, export: &ExportFacts) -> Result<bool> {
        self.has_left(export)
    }
    fn readmit(&self, leg: &LegRef, spec: &ExportSpec) -> Result<()> {
        self.open_again(leg, spec)
    }
    fn revoke(&self, nqn: &str) -> Result<()> {
        self.close_export(nqn)
    }
    fn delete_partition(&self, leg: &LegRef) -> Result<()> {
        self.remove_partition(leg)
    }
    fn discard(&self, leg: &LegRef) -> Result<()> {
        self.discard_leg(leg)
    }
    fn release(&self, nqn: &str) -> Result<()> {
        self.release_connection(nqn)
    }
    fn connect(&self, spec: &ConnectSpec) -> Result<()> {
        self.connect_to(spec)
    }
    fn disconnect(&self, nqn: &str) -> Result<()> {
        self.disconnect_from(nqn)
    }
    fn create_array(&self, spec: &ArraySpec) -> Result<()> {
        self.new_array(spec)
    }
    fn assemble(&self, spec: &ArraySpec) -> Result<()> {
        self.start_array(spec)
    }
    fn stop_array(&self, device: &Path) -> Result<()> {
        self.stop(device)
    }
    fn remove_member(&self, array: &Path, name: &str) -> Result<()> {
        self.drop_member(array, name)
    }
    fn zero_superblock(&self, device: &Path) -> Result<()> {
        self.erase_superblock(device)
    }
    fn add_member(&self, array: &Path, member: &ArrayMember) -> Result<()> {
        self.join_member(array, member)
    }
    fn readd_member(&self, array: &Path, member: &ArrayMember) -> Result<()> {
        self.return_member(array, member)
    }
    fn replace_member(&self, array: &Path, old: &str, member: &ArrayMember) -> Result<()> {
        self.replace(array, old, member)
    }
    fn finish_sync(&self, array: &Path) -> Result<()> {
        self.lift_hold(array)
    }
    fn suspend(&self, array: &Path) -> Result<()> {
        self.hold_writes(array)
    }
    fn resume(&self, array: &Path) -> Result<()> {
        self.release_writes(array)
    }
    fn expel_member(&self, array: &Path, name: &str) -> Result<()> {
        self.expel(array, name)
    }
    fn hold_failures(&self, array: &Path) -> Result<()> {
        self.switch_gate_on(array)
    }
    fn agree_to_failures(&self, array: &Path, number: u32) -> Result<()> {
        self.agree(array, number)
    }
    fn refuse_writes(&self, array: &Path) -> Result<()> {
        self.refuse(array)
    }
    fn thaw(&self, array: &Path) -> Result<()> {
        self.thaw_array(array)
    }
    fn limit_rebuild(&self, array: &Path, kib: Option<u64>) -> Result<()> {
        self.set_rebuild_limit(array, kib)
    }
    fn wipe(&self, device: &Path) -> Result<()> {
        self.wipe_device(device)
    }
    fn mkfs(&self, device: &Path, filesystem: &str) -> Result<()> {
        self.make_filesystem(device, filesystem)
    }
    fn mount(&self, device: &Path, filesystem: &str, at: &Path) -> Result<()> {
        self.mount_at(device, filesystem, at)
    }
    fn unmount(&self, at: &Path) -> Result<()> {
        self.unmount_at(at)
    }
    fn evict(&self, array: &Path) -> Result<Vec<String>> {
        self.evict_from(array)
    }
}
