//! What all workers of the process share.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Resource;
use meshstor_crds::{FabricPeer, Time, Transport};
use tokio::sync::{Notify, oneshot};

use super::cluster::Cluster;
use super::error::TurnError;
use super::interest::Interests;
use super::surroundings::Surroundings;
use crate::host::{Host, HostError};
use crate::quarantine::Kept;
use crate::wake::Wakeups;

/// Times; tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a controller must not be live before its leg counts as lost (protocol step 9).
    pub hold: Duration,
    /// How long nothing more of a start set may come before the start is given up.
    pub start: Duration,
    /// How often remote controllers are looked at: the kernel has no event for `connecting`.
    pub tick: Duration,
    /// How often numbers are looked at that the kernel changes without telling: the latency of members.
    pub measure: Duration,
    /// How long requests are counted before a rebuild goes faster or slower.
    pub pace: Duration,
    /// How often everything is looked at anyway.
    pub full: Duration,
    /// How long a thing must be seen to belong to no object before that is believed.
    pub doubt: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self { hold: s(1), start: s(60), tick: s(1), measure: s(30), pace: s(1), full: s(300), doubt: s(10) }
    }
}

/// Shared by all workers.
pub struct Context {
    /// This node's name.
    pub node: String,
    /// This process, new with each start.
    pub incarnation: String,
    /// This boot's ID.
    pub boot_id: String,
    /// Fabric addresses from the command line.
    pub addresses: Vec<String>,
    /// The kernel.
    pub host: Arc<dyn Host>,
    /// The API server.
    pub cluster: Arc<dyn Cluster>,
    /// The kernel chooses the member for each read by its measured latency; where it does not, remote legs of a RAID1 are
    /// kept from reads.
    pub latency_balance: bool,
    /// The kernel makes a RAID1 a RAID10 in place.
    pub takeover: bool,
    /// Clocks and threads.
    pub surroundings: Arc<dyn Surroundings>,
    /// The kernel's RAID10 keeps what an absent leg lacks while another leg is rebuilt.
    pub bitmap_raid10: bool,
    /// Who tells when arrays change.
    pub wakeups: Arc<dyn Wakeups>,
    /// Who depends on what of the kernel.
    pub interests: Interests,
    /// Times.
    pub timing: Timing,
    /// Addresses that the `MeshNode` names instead.
    pub override_addresses: Mutex<Vec<String>>,
    /// Addresses of the node on interfaces with RDMA, as it was last seen.
    pub rdma: Mutex<Vec<String>>,
    /// By volume whose array is over and can be taken away from its users by a reboot only: why.
    pub stuck: Mutex<BTreeMap<String, String>>,
    /// What was found to belong to no object; none before it was looked for.
    pub quarantine: Mutex<Option<Kept>>,
    /// How long the way to other nodes is, as it was last measured; none before that.
    pub fabric: Mutex<Option<Vec<FabricPeer>>>,
    /// Something may have come, or lost its object, that nobody here serves; or what becomes of such things was changed.
    pub litter: Notify,
    /// The node's drives, or what else its object says, may have changed.
    pub node_changed: Notify,
    /// One per volume: an assembly that takes a local leg, and the leg's ledger, never change at the same time.
    pub gates: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Context {
    /// The gate of a volume.
    pub fn gate(&self, volume: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(gates.entry(volume.to_owned()).or_default())
    }

    /// The address at which exports of that fabric listen.
    pub fn address(&self, transport: Transport) -> Option<String> {
        let all = self.listen();
        match transport {
            Transport::Tcp => all.into_iter().next(),
            Transport::Rdma => all.into_iter().find(|a| self.has_rdma(a)),
        }
    }

    /// Whether an address is on an interface with RDMA, as the node was last seen.
    fn has_rdma(&self, address: &str) -> bool {
        self.rdma.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|a| a == address)
    }

    /// All fabric addresses.
    pub fn listen(&self) -> Vec<String> {
        let named = self.override_addresses.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if named.is_empty() { self.addresses.clone() } else { named }
    }

    /// Takes note of whether only a reboot lets go of the volume.
    pub fn note_stuck(&self, volume: &str, why: Option<String>) {
        let mut stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match &why {
            Some(why) => stuck.insert(volume.to_owned(), why.clone()),
            None => stuck.remove(volume),
        };
        if before != why {
            self.node_changed.notify_one();
        }
    }

    /// By volume that only a reboot lets go of: why.
    pub fn stuck(&self) -> BTreeMap<String, String> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is in quarantine; none where that is not known yet.
    pub fn quarantined(&self) -> Option<Kept> {
        self.quarantine.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How long the way to other nodes is; none where that was not measured yet.
    pub fn fabric(&self) -> Option<Vec<FabricPeer>> {
        self.fabric.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes note of what was measured.
    pub fn note_fabric(&self, peers: Vec<FabricPeer>) {
        let before = self.fabric.lock().unwrap_or_else(PoisonError::into_inner).replace(peers);
        if before != self.fabric() {
            self.node_changed.notify_one();
        }
    }

    /// Takes note of what is in quarantine.
    pub fn note_quarantined(&self, kept: Kept) {
        let before = self.quarantine.lock().unwrap_or_else(PoisonError::into_inner).replace(kept);
        if before != self.quarantined() {
            self.node_changed.notify_one();
        }
    }

    /// Runs a host call on a thread of its own, so that one that hangs holds up nobody else.
    pub async fn blocking<T, F>(&self, call: F) -> Result<T, TurnError>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Host) -> Result<T, HostError> + Send + 'static,
    {
        let host = Arc::clone(&self.host);
        let (answer, done) = oneshot::channel();
        self.surroundings.apart(Box::new(move || drop(answer.send(call(host.as_ref())))));
        Ok(done.await??)
    }

    /// The time for conditions, to the second as the API keeps it.
    pub fn now(&self) -> Time {
        let now = self.surroundings.timestamp();
        Time(jiff::Timestamp::from_second(now.as_second()).unwrap_or(now))
    }
}

/// When to look again if nothing is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// Soon: time alone can change what is to be done.
    Tick,
    /// After that time: then something counts that does not yet.
    In(Duration),
    /// Only numbers change by themselves.
    Measure,
    /// Everything is told.
    Full,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// One step was done: plan again at once.
    Acted,
    /// Nothing is to be done until something changes.
    Settled(Again),
    /// The object is gone.
    Gone,
}

/// The newer of what the cache says and what a write or quorum read of this process said last. `resourceVersion`s of
/// one resource are ordered (KEP-5504); where they do not parse, the process's own answer is kept.
pub fn newest<K: Resource + Clone>(cached: Option<Arc<K>>, last: Option<&K>) -> Option<K> {
    let cached = cached?;
    let version = |k: &K| k.meta().resource_version.as_ref().and_then(|v| v.parse::<u128>().ok());
    let same = |k: &&K| k.meta().uid == cached.meta().uid;
    match last.filter(same) {
        Some(last) if version(last) > version(&cached) || version(&cached).is_none() => Some(last.clone()),
        _ => Some((*cached).clone()),
    }
}
