//! Two nodes, a volume with a leg on each, and the rounds in which everybody acts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use meshstor_crds::*;
use tokio::sync::Notify;
use uuid::Uuid;

use super::api::{FakeCluster, State};
use super::operator::operate;
use crate::control::attachment::AttachmentWorker;
use crate::control::context::{Context, Timing, Turn};
use crate::control::interest::Interests;
use crate::control::leg::LegWorker;
use crate::control::surroundings::Process;
use crate::host::crash::{CrashHost, CrashPoint};
use crate::host::fake::{FakeFabric, FakeHost, Write};
use crate::host::{Host, LegRef};
use crate::wake::FakeWakeups;

pub const VOLUME: &str = "v";
pub const UID: &str = "6f9c6a0e-0000-4000-8000-000000000001";
pub const MOUNT: &str = "/mnt/v";

struct Daemon {
    point: Arc<CrashPoint>,
    legs: Vec<LegWorker>,
    attachment: AttachmentWorker,
}

pub struct Sim {
    pub fabric: FakeFabric,
    pub state: Arc<Mutex<State>>,
    hosts: BTreeMap<String, FakeHost>,
    daemons: BTreeMap<String, Daemon>,
    pub starts: u32,
}

fn volume() -> MeshVolume {
    let spec = MeshVolumeSpec {
        capacity: "1Gi".to_owned(),
        replica_count: 2,
        stripe_width: 1,
        filesystem: Filesystem::Xfs,
        policy: None,
        bitmap: None,
        preferred_node: None,
        adopts: None,
    };
    let mut volume = MeshVolume::new(VOLUME, spec);
    volume.metadata.uid = Some(UID.to_owned());
    let resolved = ResolvedPolicy {
        min_in_sync: 1,
        bitmap: Bitmap::Internal,
        transport: Transport::default(),
        missing_member_timeout_seconds: 600,
        io_queues: 2,
        queue_size: 128,
        keep_alive_seconds: 2,
    };
    volume.status = Some(MeshVolumeStatus { resolved: Some(resolved), ..MeshVolumeStatus::default() });
    volume
}

pub fn replica(slot: i32, node: &str) -> MeshReplica {
    let spec = MeshReplicaSpec {
        volume: VOLUME.to_owned(),
        volume_uid: UID.to_owned(),
        slot,
        mirror_set: 0,
        node: node.to_owned(),
        drive: format!("{node}-drive"),
        size_bytes: (1 << 30) + (8 << 20),
        epoch: 0,
        grant: None,
        transport: Transport::default(),
        io_queues: 2,
        replaces: None,
        overwritten: false,
        replace: false,
        array_uuid: None,
        partition_uuid: None,
    };
    let mut replica = MeshReplica::new(&naming::leg(VOLUME, slot), spec);
    replica.metadata.uid = Some(format!("leg-uid-{slot}"));
    replica.metadata.finalizers = Some(vec![REPLICA_FINALIZER.to_owned()]);
    replica.metadata.resource_version = Some("1".to_owned());
    replica.metadata.generation = Some(1);
    replica
}

fn attachment() -> MeshAttachment {
    let mut attachment = MeshAttachment::new(VOLUME, MeshAttachmentSpec { node: None, mount_path: None, lost: None });
    attachment.metadata.uid = Some("att".to_owned());
    attachment.metadata.resource_version = Some("1".to_owned());
    let owner = OwnerReference { kind: "MeshVolume".to_owned(), uid: UID.to_owned(), ..OwnerReference::default() };
    attachment.metadata.owner_references = Some(vec![owner]);
    attachment
}

impl Sim {
    pub fn new() -> Self {
        let fabric = FakeFabric::default();
        let mut hosts = BTreeMap::new();
        let mut state = State { version: 1, ..State::default() };
        for (slot, node) in [(0, "a"), (1, "b")] {
            hosts.insert(node.to_owned(), fabric.node(node, &format!("10.0.0.{slot}"), 64 << 30));
            let leg = replica(slot, node);
            state.replicas.insert(leg.metadata.name.clone().unwrap(), leg);
        }
        state.attachments.insert(VOLUME.to_owned(), attachment());
        state.volumes.insert(VOLUME.to_owned(), volume());
        let state = Arc::new(Mutex::new(state));
        let mut sim = Self { fabric, state, hosts, daemons: BTreeMap::new(), starts: 0 };
        sim.start("a", CrashPoint::never());
        sim.start("b", CrashPoint::never());
        sim
    }

    /// Starts a daemon on the node, in the place of the one that ran there.
    pub fn start(&mut self, node: &str, point: Arc<CrashPoint>) {
        let ctx = self.context(node, Arc::clone(&point));
        let legs = vec![LegWorker::new(Arc::clone(&ctx), leg_of(node))];
        let attachment = AttachmentWorker::new(ctx, VOLUME.to_owned(), Arc::default());
        self.daemons.insert(node.to_owned(), Daemon { point, legs, attachment });
    }

    /// A third node, with a leg that is to take the place of v-1.
    pub fn heir(&mut self) {
        self.hosts.insert("c".to_owned(), self.fabric.node("c", "10.0.0.2", 64 << 30));
        let mut leg = replica(1, "c");
        leg.metadata.name = Some(leg_of("c"));
        leg.metadata.uid = Some("leg-uid-heir".to_owned());
        leg.spec.replaces = Some("v-1".to_owned());
        {
            let mut state = self.state.lock().unwrap();
            leg.metadata.resource_version = state.bump();
            state.replicas.insert(leg_of("c"), leg);
        }
        self.start("c", CrashPoint::never());
    }

    /// What the workers of a new process on the node share.
    pub fn context(&mut self, node: &str, point: Arc<CrashPoint>) -> Arc<Context> {
        self.starts += 1;
        let host = self.hosts[node].clone();
        let slot = ["a", "b", "c"].iter().position(|n| *n == node).unwrap();
        let cluster = FakeCluster { state: Arc::clone(&self.state), point: Arc::clone(&point) };
        Arc::new(Context {
            node: node.to_owned(),
            incarnation: format!("{node}-{}", self.starts),
            boot_id: host.node().unwrap().boot_id,
            addresses: vec![format!("10.0.0.{slot}")],
            host: Arc::new(CrashHost::new(host, Arc::clone(&point))),
            cluster: Arc::new(cluster),
            surroundings: Arc::new(Process),
            wakeups: Arc::new(FakeWakeups::default()),
            latency_balance: false,
            takeover: false,
            bitmap_raid10: false,
            interests: Interests::default(),
            timing: Timing {
                hold: Duration::ZERO,
                pace: Duration::from_secs(3600),
                full: Duration::from_secs(3600),
                doubt: Duration::ZERO,
                ..Timing::default()
            },
            override_addresses: Mutex::default(),
            rdma: Mutex::default(),
            stuck: Mutex::default(),
            quarantine: Mutex::default(),
            fabric: Mutex::default(),
            litter: Notify::new(),
            node_changed: Notify::new(),
            gates: Mutex::default(),
        })
    }

    /// The node loses power, and its daemon with it.
    pub fn kill(&mut self, node: &str) {
        self.fabric.kill(node);
        self.daemons.remove(node);
    }

    pub fn boot(&mut self, node: &str) {
        self.fabric.boot(node);
        self.start(node, CrashPoint::never());
    }

    /// Everybody acts once; answers whether anything is still going on.
    pub async fn round(&mut self) -> bool {
        let before = self.state.lock().unwrap().version;
        let mut going = false;
        {
            let daemons = &self.daemons;
            let mut state = self.state.lock().unwrap();
            if !state.away {
                operate(&mut state, &|n| daemons.contains_key(n));
            }
        }
        let mut crashed = Vec::new();
        for (node, daemon) in &mut self.daemons {
            for leg in &mut daemon.legs {
                going |= !matches!(leg.turn().await, Ok(Turn::Settled(_) | Turn::Gone));
            }
            going |= !matches!(daemon.attachment.turn().await, Ok(Turn::Settled(_) | Turn::Gone));
            going |= daemon.attachment.busy() || daemon.attachment.resting();
            if daemon.point.dead() {
                crashed.push(node.clone());
            }
        }
        for node in crashed {
            // The dead process's last call has ended before the lock lets the next one in.
            while self.daemons[&node].attachment.busy() && !self.daemons.get_mut(&node).unwrap().attachment.done() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            self.start(&node, CrashPoint::never());
            going = true;
        }
        self.check();
        going || self.state.lock().unwrap().version != before
    }

    /// I4: it comes to rest, and a round more changes nothing.
    pub async fn settle(&mut self) {
        let start = Instant::now();
        let mut still = 0;
        while still < 3 {
            if self.round().await {
                still = 0;
                tokio::time::sleep(Duration::from_millis(1)).await;
            } else {
                still += 1;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "I4: no rest: {:#?}", self.attachment().status);
        }
    }

    /// Some rounds, whatever comes of them.
    pub async fn rounds(&mut self, count: usize) {
        for _ in 0..count {
            self.round().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// I1: every leg of S holds every acknowledged write.
    pub fn check(&self) {
        let object = self.attachment();
        let Some(term) = object.status.and_then(|s| s.term) else { return };
        if !term.initialised {
            return;
        }
        let acked = self.fabric.acked(array());
        for leg in &term.in_sync {
            let node = ["a", "b", "c"].into_iter().find(|node| leg_of(node) == *leg).unwrap();
            let stamp = self.fabric.stamp(node, meshstor_crds::identity::derived_partition(UID, leg));
            assert!(stamp.is_some_and(|s| s >= acked), "I1: {leg} of S lacks writes: {stamp:?} of {acked}");
        }
    }

    /// The newest write that a leg holds.
    pub fn stamp(&self, slot: i32) -> Option<u64> {
        let node = if slot == 0 { "a" } else { "b" };
        self.fabric.stamp(node, leg_ref(slot, node).uuid)
    }

    pub fn attachment(&self) -> MeshAttachment {
        self.state.lock().unwrap().attachments[VOLUME].clone()
    }

    pub fn term(&self) -> Term {
        self.attachment().status.unwrap().term.unwrap()
    }

    pub fn leg(&self, slot: i32) -> MeshReplica {
        self.state.lock().unwrap().replicas[&naming::leg(VOLUME, slot)].clone()
    }

    /// A person changes what is wanted.
    pub fn want(&self, node: Option<&str>) {
        let mut state = self.state.lock().unwrap();
        let version = state.bump();
        let object = state.attachments.get_mut(VOLUME).unwrap();
        object.spec.node = node.map(str::to_owned);
        object.spec.mount_path = node.map(|_| MOUNT.to_owned());
        object.metadata.resource_version = version;
    }

    /// A person says that the consumer is lost.
    pub fn declare_lost(&self) {
        let term = self.term();
        let mut state = self.state.lock().unwrap();
        let version = state.bump();
        let object = state.attachments.get_mut(VOLUME).unwrap();
        object.spec.lost = Some(LostConsumer { node: term.node, epoch: term.epoch });
        object.metadata.resource_version = version;
    }

    pub fn write(&self, node: &str) -> Write {
        self.fabric.write(node, array())
    }

    pub fn ready(&self) -> bool {
        conditions::is_true(&self.attachment().status.unwrap().conditions, conditions::READY)
    }

    pub fn host(&self, node: &str) -> &FakeHost {
        &self.hosts[node]
    }
}

/// The leg that a node holds.
pub fn leg_of(node: &str) -> String {
    match node {
        "a" => naming::leg(VOLUME, 0),
        "b" => naming::leg(VOLUME, 1),
        _ => naming::successor(VOLUME, 1, 1),
    }
}

pub fn array() -> Uuid {
    meshstor_crds::identity::derived_array(UID)
}

pub fn leg_ref(slot: i32, node: &str) -> LegRef {
    LegRef {
        drive: format!("{node}-drive"),
        uuid: meshstor_crds::identity::derived_partition(UID, &naming::leg(VOLUME, slot)),
    }
}
