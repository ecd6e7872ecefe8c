//! A closed loop in memory: the operator's own pure parts against scripted daemons, with compare-and-swap on every
//! object. What a test may do: want, crash, boot, cut, heal, tick; what is checked after every step: I1 and I2.

pub mod daemon;

use daemon::{Consumer, Ledger};
use jiff::Timestamp;
use kube::Resource;
use meshstor_crds::*;
use meshstor_operator::placement::Promises;
use meshstor_operator::volume::action::Action;
use meshstor_operator::volume::action::Plan;
use meshstor_operator::volume::clocks::Memory;
use meshstor_operator::volume::world::World;
use meshstor_operator::volume::{edit, guard, plan, status, validate};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const VOLUME: &str = "v";
const DRIVE_BYTES: i64 = 8 << 30;

/// One node: what of it works, and what its daemon and kernel hold.
pub struct Node {
    pub up: bool,
    /// Reaches the API server.
    pub api: bool,
    /// Reaches other nodes' exports, and its own are reached.
    pub fabric: bool,
    pub beat: i64,
    pub consumer: Consumer,
}

/// A seeded bug of the daemons: the checks must catch each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// It confirms an epoch while its old export is still open.
    ConfirmsBeforeRevoking,
    /// It confirms a local leg that an older array on the node still holds.
    ConfirmsUnderAnOldArray,
    /// It lets MD drop a leg without recording that first.
    FailsBeforeRecording,
}

pub struct Sim {
    pub bug: Option<Bug>,
    pub volume: Option<MeshVolume>,
    pub attachment: Option<MeshAttachment>,
    pub legs: BTreeMap<String, MeshReplica>,
    pub ledgers: BTreeMap<String, Ledger>,
    pub nodes: BTreeMap<String, Node>,
    pub seconds: i64,
    pub acked: u64,
    pub written: u64,
    pub writes: usize,
    /// The operator dies right after this many writes, once.
    pub crash_after: Option<usize>,
    memory: Memory,
    start: Instant,
    version: u64,
    pub log: Vec<String>,
    /// Nodes whose `MeshNode` a person deleted.
    pub deleted: BTreeSet<String>,
    /// I3: the record never has fewer legs in S.
    pub floor: usize,
}

impl Sim {
    /// A volume of so many copies, striped over `width` drives each; every node has as many.
    pub fn new(nodes: &[&str], replicas: i32, width: i32) -> Self {
        let json = serde_json::json!({"capacity": "512Mi", "replicaCount": replicas, "stripeWidth": width});
        let mut volume = MeshVolume::new(VOLUME, serde_json::from_value(json).unwrap());
        volume.metadata.uid = Some("uid-v".into());
        let node = || Node { up: true, api: true, fabric: true, beat: 0, consumer: Consumer::default() };
        Self {
            bug: None,
            volume: Some(volume),
            attachment: None,
            legs: BTreeMap::new(),
            ledgers: BTreeMap::new(),
            nodes: nodes.iter().map(|n| ((*n).to_owned(), node())).collect(),
            seconds: 0,
            acked: 0,
            written: 0,
            writes: 0,
            crash_after: None,
            memory: Memory::default(),
            start: Instant::now(),
            version: 1,
            log: Vec::new(),
            deleted: BTreeSet::new(),
            floor: 0,
        }
    }

    pub fn stamp<K: Resource>(&mut self, object: &mut K) {
        self.version += 1;
        object.meta_mut().resource_version = Some(self.version.to_string());
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_000_000 + self.seconds).unwrap()
    }

    fn mesh_node(&self, name: &str, node: &Node) -> MeshNode {
        let mut object = MeshNode::new(name, MeshNodeSpec::default());
        let ready = [conditions::Want::new(conditions::READY, true, conditions::REASON_OK, "")];
        let capability = |n: &str| Capability { name: n.into(), supported: true, message: String::new() };
        let drive = |number: i32| {
            let id = format!("drive-{name}-{number}");
            let on_it = self.legs.values().filter(|l| l.spec.drive == id);
            let taken: i64 = on_it.map(|l| l.spec.size_bytes).sum();
            Drive {
                id,
                path: "/dev/nvme0n1".into(),
                model: None,
                size_bytes: DRIVE_BYTES,
                logical_sector_size: 512,
                free_extents: vec![Extent { first_byte: taken + (1 << 20), size_bytes: DRIVE_BYTES - taken }],
                unusable: None,
            }
        };
        let width = self.volume.as_ref().map_or(1, |v| v.spec.stripe_width);
        let names = ["raid1", "raid10", "nvmet-tcp", "nvme-tcp", "mdadm"];
        object.status = Some(MeshNodeStatus {
            conditions: conditions::apply(&[], &ready, None, &Time(self.now())),
            host_nqn: Some(format!("nqn.host.{name}")),
            kernel: Some(Kernel { release: "7.3".into(), capabilities: names.map(capability).to_vec() }),
            heartbeat: Some(Time(Timestamp::from_second(1_000_000 + node.beat).unwrap())),
            drives: (0..width).map(drive).collect(),
            ..MeshNodeStatus::default()
        });
        object
    }

    /// What the operator reads now, or nothing when the volume is gone.
    pub fn world(&mut self) -> Option<World> {
        let volume = self.volume.clone()?;
        let legs: Vec<MeshReplica> = self.legs.values().cloned().collect();
        let at = self.start + Duration::from_secs(u64::try_from(self.seconds).unwrap());
        let clocks = self.memory.observe(self.attachment.as_ref(), &legs, at);
        Some(World {
            volume,
            uid: "uid-v".into(),
            policy: None,
            attachment: self.attachment.clone(),
            foreign_attachment: false,
            promises: Promises::of(&legs),
            legs,
            foreign_legs: Vec::new(),
            out_of_service: Vec::new(),
            gone_nodes: self.deleted.iter().cloned().collect(),
            labels: Default::default(),
            domain: "topology.kubernetes.io/zone".into(),
            drains: Vec::new(),
            nodes: self
                .nodes
                .iter()
                .filter(|(name, _)| !self.deleted.contains(*name))
                .map(|(name, node)| Arc::new(self.mesh_node(name, node)))
                .collect(),
            clocks,
            now: self.now(),
        })
    }

    /// One run of the operator. The plan is guarded whole; writes stop at the first conflict or crash.
    pub fn operate(&mut self) -> Plan {
        let Some(world) = self.world() else { return Plan::default() };
        let settled = validate::validate(&world);
        let plan = plan::plan(&world, &settled);
        for action in &plan.actions {
            guard::check(&world, action).unwrap_or_else(|broken| panic!("{action}: {broken}"));
        }
        for action in &plan.actions {
            if !self.write(&world, action) {
                return plan;
            }
            self.writes += 1;
            if self.crash_after == Some(self.writes) {
                self.memory = Memory::default();
                self.log.push("operator crashes".into());
                return plan;
            }
        }
        let new = status::status(&world, &settled, &plan);
        if let Some(volume) = self.volume.as_mut() {
            volume.status = Some(new);
        }
        plan
    }

    /// Does one write as the API server would; false on a conflict.
    pub fn write(&mut self, world: &World, action: &Action) -> bool {
        self.log.push(format!("t={} {action}", self.seconds));
        let same = |a: Option<&String>, b: Option<&String>| a.is_some() && a == b;
        let version = |a: &MeshAttachment| a.metadata.resource_version.clone();
        let (seen, is) = (world.attachment.as_ref().and_then(version), self.attachment.as_ref().and_then(version));
        match action {
            Action::AddFinalizer => self.volume = Some(edit::with_finalizer(&world.volume, true)),
            Action::RemoveFinalizer => self.volume = None,
            Action::CreateReplica { leg, .. } if self.legs.contains_key(leg) => return false,
            Action::CreateReplica { leg, spec } => {
                let mut new = edit::new_leg(world, leg, spec);
                new.metadata.uid = Some(format!("uid-{leg}"));
                self.stamp(&mut new);
                self.legs.insert(leg.clone(), new);
                self.ledgers.insert(leg.clone(), Ledger::default());
            }
            Action::CreateAttachment if self.attachment.is_none() => {
                let mut new = edit::new_attachment(world);
                self.stamp(&mut new);
                self.attachment = Some(new);
            }
            Action::WriteTerm(_) | Action::CopyOn { .. } | Action::DeleteAttachment | Action::ReleaseAttachment
                if !same(seen.as_ref(), is.as_ref()) =>
            {
                return false;
            }
            Action::WriteTerm(term) => {
                let mut new = edit::with_term(world.attachment.as_ref().unwrap(), term, &Time(self.now()));
                self.stamp(&mut new);
                self.attachment = Some(new);
            }
            Action::CopyOn { node } => {
                let mut new = edit::with_copy_on(world.attachment.as_ref().unwrap(), node.as_deref());
                self.stamp(&mut new);
                self.attachment = Some(new);
            }
            Action::DeleteAttachment => {
                let now = Time(self.now());
                self.attachment.as_mut().unwrap().metadata.deletion_timestamp = Some(now);
            }
            Action::ReleaseAttachment => self.attachment = None,
            Action::SetReplicaEpoch { leg, .. } | Action::SetGrant { leg, .. } | Action::ClearGrant { leg } => {
                let old = world.leg(leg).unwrap();
                let current = self.legs.get(leg).and_then(|l| l.metadata.resource_version.as_ref());
                if !same(old.metadata.resource_version.as_ref(), current) {
                    return false;
                }
                let mut new = edit::leg_after(old, action);
                self.stamp(&mut new);
                self.legs.insert(leg.clone(), new);
            }
            Action::DeleteReplica { leg } => {
                let now = Time(self.now());
                self.legs.get_mut(leg).unwrap().metadata.deletion_timestamp = Some(now);
            }
            Action::ReleaseReplica { leg } => {
                self.legs.remove(leg);
            }
            Action::CreateAttachment => return false,
        }
        true
    }

    pub fn term(&self) -> Option<&Term> {
        self.attachment.as_ref()?.status.as_ref()?.term.as_ref()
    }

    pub fn want(&mut self, node: Option<&str>) {
        if let Some(mut attachment) = self.attachment.clone() {
            attachment.spec.node = node.map(ToOwned::to_owned);
            self.stamp(&mut attachment);
            self.attachment = Some(attachment);
        }
    }

    /// A person, or a drain, says whether the leg is to leave.
    pub fn replace(&mut self, leg: &str, replace: bool) {
        let mut object = self.legs[leg].clone();
        object.spec.replace = replace;
        self.stamp(&mut object);
        self.legs.insert(leg.to_owned(), object);
    }

    /// A person says that the record's consumer is lost.
    pub fn give_up_consumer(&mut self) {
        let Some(term) = self.term().cloned() else { return };
        let mut attachment = self.attachment.clone().unwrap();
        attachment.spec.lost = Some(LostConsumer { node: term.node, epoch: term.epoch });
        self.stamp(&mut attachment);
        self.attachment = Some(attachment);
    }

    pub fn delete(&mut self) {
        let now = Time(self.now());
        if let Some(volume) = self.volume.as_mut() {
            volume.metadata.deletion_timestamp = Some(now);
        }
    }

    /// Time passes; nodes that reach the API server send their heartbeat.
    pub fn tick(&mut self, seconds: i64) {
        self.seconds += seconds;
        for node in self.nodes.values_mut().filter(|n| n.up && n.api) {
            node.beat = self.seconds;
        }
    }

    /// Everything takes its turn until nothing has changed for longer than any clock waits.
    ///
    /// # Panics
    /// When that takes too long (I4), or when an invariant breaks.
    pub fn settle(&mut self) {
        let (mut still, mut rounds) = (0, 0);
        while still < 50 {
            let before = (self.version, self.writes, self.seen());
            self.operate();
            let names: Vec<String> = self.nodes.keys().cloned().collect();
            names.iter().for_each(|name| self.daemon(name));
            self.tick(1);
            self.check();
            still = if before == (self.version, self.writes, self.seen()) { still + 1 } else { 0 };
            rounds += 1;
            assert!(rounds < 1200, "I4: it does not come to rest:\n{}", self.tail());
        }
    }

    fn seen(&self) -> (Option<String>, bool) {
        (self.condition(conditions::READY).map(|c| c.1), self.volume.is_some())
    }

    pub fn tail(&self) -> String {
        self.log[self.log.len().saturating_sub(60)..].join("\n")
    }

    /// Status and reason of a condition of the volume.
    pub fn condition(&self, type_: &str) -> Option<(String, String)> {
        let status = self.volume.as_ref()?.status.as_ref()?;
        status.conditions.iter().find(|c| c.type_ == type_).map(|c| (c.status.clone(), c.reason.clone()))
    }

    pub fn said(&self, type_: &str) -> String {
        self.condition(type_).map_or_else(String::new, |(status, reason)| format!("{status}/{reason}"))
    }

    /// I2: no leg is open to two arrays. I1: a set from which an epoch may start holds every acknowledged write.
    pub fn check(&self) {
        let copies = self.term().map_or(usize::MAX, |t| t.in_sync.len());
        assert!(copies >= self.floor, "I3: {copies} legs in S\n{}", self.tail());
        for leg in self.legs.keys() {
            let writers: Vec<&String> =
                self.nodes.iter().filter(|(n, _)| self.can_write(n, leg)).map(|(n, _)| n).collect();
            assert!(writers.len() <= 1, "I2: {leg} is written by {writers:?}\n{}", self.tail());
            let below = self.legs[leg].status.as_ref().and_then(|s| s.revoked_below).unwrap_or(0);
            for node in writers {
                let epoch = self.nodes[node].consumer.array.as_ref().map_or(0, |a| a.epoch);
                let tail = self.tail();
                assert!(epoch >= below, "I2: {leg} confirmed {below}, {node} writes as {epoch}\n{tail}");
            }
        }
        if let Some(term) = self.term().filter(|t| t.phase == TermPhase::Started) {
            for leg in &term.in_sync {
                let has = self.ledgers[leg].data;
                assert!(has >= self.acked, "I1: {leg} has {has} of {}\n{}", self.acked, self.tail());
            }
        }
    }

    /// The plan is empty: nothing more is proposed (I4).
    pub fn assert_still(&mut self) {
        if let Some(world) = self.world() {
            let plan = plan::plan(&world, &validate::validate(&world));
            assert!(plan.actions.is_empty(), "I4: {:?}", plan.actions);
        }
    }
}
