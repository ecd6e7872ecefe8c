//! An executable model of several nodes: drives, nvmet, nvme-tcp and MD, as far as the daemons can tell.
//!
//! Nodes share a [`FakeFabric`]: a connection works only if its target exports the leg and lets the host in. What a
//! leg holds is abstract: a content, a superblock, and a stamp that counts the writes that reached it.

pub mod io;
mod legs;
mod md;
mod nvme;
mod standing;
mod world;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    ArrayFacts, ArrayMember, ArraySpec, ConnectSpec, ConnectionFacts, Content, DriveFacts, ExportFacts, ExportSpec,
    FoundFacts, Host, HostError, LedgerEntry, LegFacts, LegRef, NodeFacts, Part, Result, SuperFacts,
};
use uuid::Uuid;
use world::World;

pub use standing::Standing;

/// Nodes and what connects them.
#[derive(Clone, Default)]
pub struct FakeFabric(Arc<Mutex<World>>);

/// What became of a write of an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Every member that MD counts has it.
    Acked,
    /// A member's path does not answer; nobody was told anything.
    Held,
    /// There is no such array, or it does not run.
    Refused,
}

/// One node of a fabric.
#[derive(Clone)]
pub struct FakeHost {
    fabric: FakeFabric,
    node: String,
}

impl FakeFabric {
    /// Adds a node with one drive of `bytes`, named after it, reachable at `address`.
    pub fn node(&self, node: &str, address: &str, bytes: u64) -> FakeHost {
        self.world().add_node(node, address, bytes);
        FakeHost { fabric: self.clone(), node: node.to_owned() }
    }

    /// The power goes: arrays, exports and connections are lost, the drives keep what they have.
    pub fn kill(&self, node: &str) {
        self.world().kill(node);
    }

    /// The power is back, under another boot ID.
    pub fn boot(&self, node: &str) {
        self.world().boot(node);
    }

    /// Packets between the two nodes are dropped, or pass again.
    pub fn cut(&self, a: &str, b: &str, cut: bool) {
        self.world().cut(a, b, cut);
    }

    /// Every rebuild on the node comes to its end.
    pub fn complete_rebuilds(&self, node: &str) {
        self.world().complete_rebuilds(node);
    }

    /// MD sees an error, not a hang, of a member: it drops it at once.
    pub fn fail_member(&self, node: &str, array: Uuid, name: &str) {
        self.world().fail(node, array, name);
    }

    /// Somebody takes the listeners of the node's exports away in configfs.
    pub fn unlink_exports(&self, node: &str) {
        let mut world = self.world();
        if let Ok(node) = world.node_mut(node) {
            node.exports.iter_mut().for_each(|e| e.facts.listening = None);
        }
    }

    /// A rule of udev assembles a leg into an array of its own, `/dev/md127`, and somebody opens that.
    pub fn steal(&self, node: &str, leg: Uuid) {
        self.world().steal(node, leg);
    }

    /// Something of the kernel, which nobody can kill, uses the volume's array.
    pub fn open(&self, node: &str, array: Uuid) {
        self.world().open(node, array);
    }

    /// Whoever opened such an array has closed it.
    pub fn close(&self, node: &str) {
        self.world().close(node);
    }

    /// An application writes and flushes.
    pub fn write(&self, node: &str, array: Uuid) -> Write {
        self.world().app_write(node, array)
    }

    /// The stamp that an application reads from the array; none when there is nothing to read from.
    pub fn read(&self, node: &str, array: Uuid) -> Option<u64> {
        self.world().app_read(node, array)
    }

    /// The newest stamp that was ever acknowledged for the array.
    pub fn acked(&self, array: Uuid) -> u64 {
        self.world().acked.get(&array).copied().unwrap_or(0)
    }

    /// How many writes a leg holds.
    pub fn stamp(&self, node: &str, leg: Uuid) -> Option<u64> {
        self.world().leg_bytes(node, leg).map(|b| b.stamp)
    }

    /// How many subsystems were ever made: to see that nothing is done twice.
    pub fn exports_made(&self) -> u64 {
        self.world().exports_made
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed<T>(action: impl Into<String>, cause: impl Into<String>) -> Result<T> {
    Err(HostError::Failed { action: action.into(), cause: cause.into() })
}

fn busy<T>(action: impl Into<String>, cause: impl Into<String>) -> Result<T> {
    Err(HostError::Busy { action: action.into(), cause: cause.into() })
}

fn conflict<T>(action: impl Into<String>, cause: impl Into<String>) -> Result<T> {
    Err(HostError::Conflict { action: action.into(), cause: cause.into() })
}

impl Host for FakeHost {
    fn node(&self) -> Result<NodeFacts> {
        let world = self.fabric.world();
        let node = world.node(&self.node)?;
        let drive = DriveFacts {
            id: node.drive.clone(),
            path: format!("/dev/{}", node.drive).into(),
            model: None,
            size: node.bytes,
            sector: 512,
            free: vec![(node.next_byte, node.bytes.saturating_sub(node.next_byte))],
            unusable: None,
        };
        Ok(NodeFacts {
            boot_id: format!("{}-boot-{}", self.node, node.boot),
            host_nqn: world::host_nqn(&self.node),
            kernel_release: "fake".to_owned(),
            capabilities: Vec::new(),
            rdma: Vec::new(),
            kernel_fault: None,
            assembly: super::Assembly::default(),
            drives: vec![drive],
        })
    }
    fn leg(&self, leg: &LegRef) -> Result<LegFacts> {
        self.fabric.world().leg_facts(&self.node, leg)
    }
    fn legs(&self) -> Result<Vec<LegRef>> {
        let world = self.fabric.world();
        let node = world.node(&self.node)?;
        Ok(node.legs.keys().map(|uuid| LegRef { drive: node.drive.clone(), uuid: *uuid }).collect())
    }
    fn exports(&self) -> Result<Vec<String>> {
        Ok(self.fabric.world().node(&self.node)?.exports.iter().map(|e| e.facts.nqn.clone()).collect())
    }
    fn connections(&self) -> Result<Vec<ConnectionFacts>> {
        self.fabric.world().connections(&self.node)
    }
    fn arrays(&self) -> Result<Vec<ArrayFacts>> {
        self.fabric.world().arrays(&self.node)
    }
    fn traffic(&self, array: &Path) -> Result<super::Traffic> {
        self.fabric.world().traffic(&self.node, array)
    }
    fn examine(&self, device: &Path) -> Result<Option<SuperFacts>> {
        self.fabric.world().examine(&self.node, device)
    }
    fn content(&self, device: &Path) -> Result<Content> {
        self.fabric.world().content(&self.node, device)
    }
    fn found(&self, leg: &LegRef) -> Result<Option<FoundFacts>> {
        self.fabric.world().found(&self.node, leg)
    }
    fn export_named(&self, nqn: &str) -> Result<Option<ExportFacts>> {
        let world = self.fabric.world();
        let mut exports = world.node(&self.node)?.exports.iter();
        Ok(exports.find(|e| e.facts.nqn == nqn).map(|e| e.facts.clone()))
    }
    fn users(&self, device: &Path) -> Result<Vec<String>> {
        self.fabric.world().users(&self.node, device)
    }
    fn create_partition(&self, leg: &LegRef, bytes: u64, label: &str) -> Result<()> {
        self.fabric.world().create_partition(&self.node, leg, bytes, label)
    }
    fn write_ledger(&self, leg: &LegRef, entry: &LedgerEntry) -> Result<()> {
        self.fabric.world().node_mut(&self.node)?.ledger.insert(leg.uuid, entry.clone());
        Ok(())
    }
    fn zero(&self, leg: &LegRef, part: Part, progress: &dyn Fn(u8)) -> Result<()> {
        progress(50);
        self.fabric.world().zero(&self.node, leg, part)
    }
    fn export(&self, leg: &LegRef, spec: &ExportSpec) -> Result<ExportFacts> {
        self.fabric.world().export(&self.node, leg, spec)
    }
    fn is_connected(&self, export: &ExportFacts) -> Result<bool> {
        Ok(self.fabric.world().is_connected(&export.nqn))
    }
    fn is_left(&self, export: &ExportFacts) -> Result<bool> {
        Ok(self.fabric.world().is_left(&export.nqn))
    }
    fn readmit(&self, leg: &LegRef, spec: &ExportSpec) -> Result<()> {
        self.fabric.world().readmit(&self.node, leg, spec)
    }
    fn revoke(&self, nqn: &str) -> Result<()> {
        let mut world = self.fabric.world();
        world.node_mut(&self.node)?.exports.retain(|e| e.facts.nqn != nqn);
        world.drain(&self.node, nqn);
        Ok(())
    }
    fn delete_partition(&self, leg: &LegRef) -> Result<()> {
        self.fabric.world().delete_partition(&self.node, leg)
    }
    fn discard(&self, leg: &LegRef) -> Result<()> {
        self.fabric.world().delete_partition(&self.node, leg)
    }
    fn release(&self, nqn: &str) -> Result<()> {
        let mut world = self.fabric.world();
        let connected = |a: &world::Array| a.members.iter().any(|m| m.nqn.as_deref() == Some(nqn));
        if world.node(&self.node)?.arrays.iter().any(connected) {
            return busy("release a connection", "an array holds its device");
        }
        world.disconnect(&self.node, nqn)
    }
    fn connect(&self, spec: &ConnectSpec) -> Result<()> {
        self.fabric.world().connect(&self.node, spec)
    }
    fn disconnect(&self, nqn: &str) -> Result<()> {
        self.fabric.world().disconnect(&self.node, nqn)
    }
    fn create_array(&self, spec: &ArraySpec) -> Result<()> {
        self.fabric.world().create_array(&self.node, spec)
    }
    fn assemble(&self, spec: &ArraySpec) -> Result<()> {
        self.fabric.world().assemble(&self.node, spec)
    }
    fn stop_array(&self, device: &Path) -> Result<()> {
        self.fabric.world().stop_array(&self.node, device)
    }
    fn remove_member(&self, array: &Path, name: &str) -> Result<()> {
        self.fabric.world().remove_member(&self.node, array, name)
    }
    fn zero_superblock(&self, device: &Path) -> Result<()> {
        self.fabric.world().zero_superblock(&self.node, device)
    }
    fn add_member(&self, array: &Path, member: &ArrayMember) -> Result<()> {
        self.fabric.world().add_member(&self.node, array, member)
    }
    fn readd_member(&self, array: &Path, member: &ArrayMember) -> Result<()> {
        self.fabric.world().readd_member(&self.node, array, member)
    }
    fn replace_member(&self, array: &Path, old: &str, member: &ArrayMember) -> Result<()> {
        self.fabric.world().replace_member(&self.node, array, old, member)
    }
    fn finish_sync(&self, array: &Path) -> Result<()> {
        self.fabric.world().with_array(&self.node, array, |a| a.held = false)
    }
    fn suspend(&self, array: &Path) -> Result<()> {
        self.fabric.world().suspend(&self.node, array)
    }
    fn resume(&self, array: &Path) -> Result<()> {
        self.fabric.world().with_array(&self.node, array, |a| a.suspended = false)
    }
    fn expel_member(&self, array: &Path, name: &str) -> Result<()> {
        self.fabric.world().expel_member(&self.node, array, name)
    }
    fn hold_failures(&self, array: &Path) -> Result<()> {
        self.fabric.world().hold_failures(&self.node, array)
    }
    fn agree_to_failures(&self, array: &Path, number: u32) -> Result<()> {
        self.fabric.world().agree(&self.node, array, number)
    }
    fn refuse_writes(&self, array: &Path) -> Result<()> {
        self.fabric.world().refuse(&self.node, array)
    }
    fn thaw(&self, _: &Path) -> Result<()> {
        Ok(())
    }
    fn limit_rebuild(&self, array: &Path, kib: Option<u64>) -> Result<()> {
        self.fabric.world().limit_rebuild(&self.node, array, kib)
    }
    fn wipe(&self, device: &Path) -> Result<()> {
        self.fabric.world().put(&self.node, device, Content::Blank)
    }
    fn mkfs(&self, device: &Path, filesystem: &str) -> Result<()> {
        self.fabric.world().put(&self.node, device, Content::Filesystem(filesystem.to_owned()))
    }
    fn mount(&self, device: &Path, filesystem: &str, at: &Path) -> Result<()> {
        self.fabric.world().mount(&self.node, device, filesystem, at)
    }
    fn evict(&self, array: &Path) -> Result<Vec<String>> {
        self.fabric.world().evict(&self.node, array)
    }
    fn unmount(&self, at: &Path) -> Result<()> {
        let mut world = self.fabric.world();
        if let Some(array) = world.node(&self.node)?.arrays.iter().find(|a| a.mounts.iter().any(|m| m == at))
            && world.writing(&self.node, array.spec.uuid)
        {
            return busy("unmount", "writes are on their way");
        }
        for array in &mut world.node_mut(&self.node)?.arrays {
            array.mounts.retain(|m| m != at);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::conformance;
    use super::*;

    #[test]
    fn the_fake_is_held_to_the_suite() {
        let fabric = FakeFabric::default();
        let host = fabric.node("a", "10.0.0.1", 64 << 30);
        let nudged = fabric.clone();
        let nudge = Box::new(move || nudged.complete_rebuilds("a"));
        let env = conformance::Env { address: "10.0.0.1".to_owned(), leg_bytes: 96 << 20, nudge };
        let mut said = Vec::new();
        let failed = conformance::run(&host, &env, &mut |line| said.push(line.to_owned()));
        assert_eq!(failed, 0, "{said:#?}");
    }
}
