//! A host that dies before or after its k-th effect (I5).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use uuid::Uuid;

use super::{
    ArrayFacts, ArrayMember, ArraySpec, ConnectSpec, ConnectionFacts, Content, ExportFacts, ExportSpec, FoundFacts,
    Host, HostError, LedgerEntry, LegFacts, LegRef, NodeFacts, Part, Result, SuperFacts, Traffic,
};

/// Counts effects, of the host and of whatever else shares it, and says when the process dies.
#[derive(Debug, Default)]
pub struct CrashPoint {
    /// Twice the number of the effect, plus one to die after it; 0 never dies.
    at: u64,
    effects: AtomicU64,
    refusals: AtomicU64,
    dead: AtomicBool,
}

impl CrashPoint {
    /// Dies before the `k`-th effect, counted from 1.
    pub fn before(k: u64) -> Arc<Self> {
        Arc::new(Self { at: 2 * k, ..Self::default() })
    }

    /// Dies after the `k`-th effect, counted from 1.
    pub fn after(k: u64) -> Arc<Self> {
        Arc::new(Self { at: 2 * k + 1, ..Self::default() })
    }

    /// Never dies; counts.
    pub fn never() -> Arc<Self> {
        Arc::default()
    }

    /// How many effects there were.
    pub fn effects(&self) -> u64 {
        self.effects.load(Ordering::SeqCst)
    }

    /// How many effects a host refused: somebody else must do something first.
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::SeqCst)
    }

    /// Whether the process died.
    pub fn dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Runs an effect; none when the process died before, at or after it.
    pub fn around<T>(&self, effect: impl FnOnce() -> T) -> Option<T> {
        if self.dead() {
            return None;
        }
        let number = self.effects.fetch_add(1, Ordering::SeqCst) + 1;
        if self.at == 2 * number {
            self.dead.store(true, Ordering::SeqCst);
            return None;
        }
        let done = effect();
        if self.at == 2 * number + 1 {
            self.dead.store(true, Ordering::SeqCst);
            return None;
        }
        Some(done)
    }
}

/// A host under a process that dies at a [`CrashPoint`].
pub struct CrashHost<H> {
    inner: H,
    point: Arc<CrashPoint>,
}

impl<H: Host> CrashHost<H> {
    /// Wraps a host.
    pub fn new(inner: H, point: Arc<CrashPoint>) -> Self {
        Self { inner, point }
    }

    fn look<T>(&self, look: impl FnOnce(&H) -> Result<T>) -> Result<T> {
        if self.point.dead() { Err(HostError::Crashed) } else { look(&self.inner) }
    }

    fn act<T>(&self, act: impl FnOnce(&H) -> Result<T>) -> Result<T> {
        let done = self.point.around(|| act(&self.inner)).unwrap_or(Err(HostError::Crashed));
        if matches!(done, Err(HostError::Busy { .. } | HostError::Conflict { .. })) {
            self.point.refusals.fetch_add(1, Ordering::SeqCst);
        }
        done
    }
}

impl<H: Host> Host for CrashHost<H> {
    fn node(&self) -> Result<NodeFacts> {
        self.look(|h| h.node())
    }
    fn leg(&self, leg: &LegRef) -> Result<LegFacts> {
        self.look(|h| h.leg(leg))
    }
    fn legs(&self) -> Result<Vec<LegRef>> {
        self.look(|h| h.legs())
    }
    fn exports(&self) -> Result<Vec<String>> {
        self.look(|h| h.exports())
    }
    fn connections(&self) -> Result<Vec<ConnectionFacts>> {
        self.look(|h| h.connections())
    }
    fn connections_of(&self, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<ConnectionFacts>> {
        self.look(|h| h.connections_of(wanted))
    }
    fn array(&self, uuid: Uuid) -> Result<Option<ArrayFacts>> {
        self.look(|h| h.array(uuid))
    }
    fn arrays(&self) -> Result<Vec<ArrayFacts>> {
        self.look(|h| h.arrays())
    }
    fn traffic(&self, array: &Path) -> Result<Traffic> {
        self.look(|h| h.traffic(array))
    }
    fn examine(&self, device: &Path) -> Result<Option<SuperFacts>> {
        self.look(|h| h.examine(device))
    }
    fn content(&self, device: &Path) -> Result<Content> {
        self.look(|h| h.content(device))
    }
    fn found(&self, leg: &LegRef) -> Result<Option<FoundFacts>> {
        self.look(|h| h.found(leg))
    }
    fn export_named(&self, nqn: &str) -> Result<Option<ExportFacts>> {
        self.look(|h| h.export_named(nqn))
    }
    fn users(&self, device: &Path) -> Result<Vec<String>> {
        self.look(|h| h.users(device))
    }
    fn create_partition(&self, leg: &LegRef, bytes: u64, label: &str) -> Result<()> {
        self.act(|h| h.create_partition(leg, bytes, label))
    }
    fn write_ledger(&self, leg: &LegRef, entry: &LedgerEntry) -> Result<()> {
        self.act(|h| h.write_ledger(leg, entry))
    }
    fn zero(&self, leg: &LegRef, part: Part, progress: &dyn Fn(u8)) -> Result<()> {
        self.act(|h| h.zero(leg, part, progress))
    }
    fn export(&self, leg: &LegRef, spec: &ExportSpec) -> Result<ExportFacts> {
        self.act(|h| h.export(leg, spec))
    }
    fn is_connected(&self, export: &ExportFacts) -> Result<bool> {
        self.look(|h| h.is_connected(export))
    }
    fn is_left(&self, export: &ExportFacts) -> Result<bool> {
        self.look(|h| h.is_left(export))
    }
    fn readmit(&self, leg: &LegRef, spec: &ExportSpec) -> Result<()> {
        self.act(|h| h.readmit(leg, spec))
    }
    fn revoke(&self, nqn: &str) -> Result<()> {
        self.act(|h| h.revoke(nqn))
    }
    fn delete_partition(&self, leg: &LegRef) -> Result<()> {
        self.act(|h| h.delete_partition(leg))
    }
    fn discard(&self, leg: &LegRef) -> Result<()> {
        self.act(|h| h.discard(leg))
    }
    fn release(&self, nqn: &str) -> Result<()> {
        self.act(|h| h.release(nqn))
    }
    fn connect(&self, spec: &ConnectSpec) -> Result<()> {
        self.act(|h| h.connect(spec))
    }
    fn disconnect(&self, nqn: &str) -> Result<()> {
        self.act(|h| h.disconnect(nqn))
    }
    fn create_array(&self, spec: &ArraySpec) -> Result<()> {
        self.act(|h| h.create_array(spec))
    }
    fn assemble(&self, spec: &ArraySpec) -> Result<()> {
        self.act(|h| h.assemble(spec))
    }
    fn stop_array(&self, device: &Path) -> Result<()> {
        self.act(|h| h.stop_array(device))
    }
    fn remove_member(&self, array: &Path, name: &str) -> Result<()> {
        self.act(|h| h.remove_member(array, name))
    }
    fn zero_superblock(&self, device: &Path) -> Result<()> {
        self.act(|h| h.zero_superblock(device))
    }
    fn add_member(&self, array: &Path, member: &ArrayMember) -> Result<()> {
        self.act(|h| h.add_member(array, member))
    }
    fn readd_member(&self, array: &Path, member: &ArrayMember) -> Result<()> {
        self.act(|h| h.readd_member(array, member))
    }
    fn replace_member(&self, array: &Path, old: &str, member: &ArrayMember) -> Result<()> {
        self.act(|h| h.replace_member(array, old, member))
    }
    fn finish_sync(&self, array: &Path) -> Result<()> {
        self.act(|h| h.finish_sync(array))
    }
    fn suspend(&self, array: &Path) -> Result<()> {
        self.act(|h| h.suspend(array))
    }
    fn resume(&self, array: &Path) -> Result<()> {
        self.act(|h| h.resume(array))
    }
    fn expel_member(&self, array: &Path, name: &str) -> Result<()> {
        self.act(|h| h.expel_member(array, name))
    }
    fn hold_failures(&self, array: &Path) -> Result<()> {
        self.act(|h| h.hold_failures(array))
    }
    fn agree_to_failures(&self, array: &Path, number: u32) -> Result<()> {
        self.act(|h| h.agree_to_failures(array, number))
    }
    fn refuse_writes(&self, array: &Path) -> Result<()> {
        self.act(|h| h.refuse_writes(array))
    }
    fn thaw(&self, array: &Path) -> Result<()> {
        self.act(|h| h.thaw(array))
    }
    fn limit_rebuild(&self, array: &Path, kib: Option<u64>) -> Result<()> {
        self.act(|h| h.limit_rebuild(array, kib))
    }
    fn wipe(&self, device: &Path) -> Result<()> {
        self.act(|h| h.wipe(device))
    }
    fn mkfs(&self, device: &Path, filesystem: &str) -> Result<()> {
        self.act(|h| h.mkfs(device, filesystem))
    }
    fn mount(&self, device: &Path, filesystem: &str, at: &Path) -> Result<()> {
        self.act(|h| h.mount(device, filesystem, at))
    }
    fn unmount(&self, at: &Path) -> Result<()> {
        self.act(|h| h.unmount(at))
    }
    fn evict(&self, array: &Path) -> Result<Vec<String>> {
        self.act(|h| h.evict(array))
    }
}
