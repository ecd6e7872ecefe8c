//! Simulated nodes: they play the other side of the protocol through a real API server, with no kernel behind them. Every write that real
//! daemons make of a volume that is prepared and attached, they make too.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures::StreamExt as _;
use jiff::Timestamp;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use meshstor_crds::conditions::{self, Want};
use meshstor_crds::{
    ArrayStatus, Capability, Drive, Export, Extent, Kernel, LegPartition, Member, MemberState, MeshAttachment,
    MeshAttachmentStatus, MeshNode, MeshNodeSpec, MeshNodeStatus, MeshReplica, MeshReplicaStatus, TermPhase, Time,
    Writer, naming,
};
use tokio::runtime::Runtime;

/// Drives of a node, and the size of each.
const DRIVES: usize = 4;
const DRIVE_BYTES: i64 = 4 << 40;
const MIB: i64 = 1 << 20;
/// How often a daemon says that it lives, as a real one does.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How often what is free on the drives is looked at; a real daemon waits half a second for more changes.
const LOOK: Duration = Duration::from_secs(1);
/// Before what failed is tried again, mostly a conflict.
const RETRY: Duration = Duration::from_millis(500);

/// Daemons that run until this is dropped.
pub struct Daemons {
    _runtime: Runtime,
}

impl Daemons {
    /// Registers so many nodes and plays their daemons.
    pub fn start(kubeconfig: &Path, nodes: usize) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.block_on(async {
            let config = Kubeconfig::read_from(kubeconfig)?;
            let client =
                Client::try_from(kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?)?;
            for n in 0..nodes {
                let api: Api<MeshNode> = Api::all(client.clone());
                api.create(&PostParams::default(), &MeshNode::new(&name(n), MeshNodeSpec::default())).await?;
            }
            tokio::spawn(play(client, nodes));
            anyhow::Ok(())
        })?;
        Ok(Self { _runtime: runtime })
    }
}

/// Name of a simulated node.
fn name(n: usize) -> String {
    format!("simulated-{n:02}")
}

struct Hands {
    client: Client,
    legs: Store<MeshReplica>,
}

async fn play(client: Client, nodes: usize) {
    let any = watcher::Config::default;
    let legs = Controller::new(Api::<MeshReplica>::all(client.clone()), any());
    let hands = Arc::new(Hands { client: client.clone(), legs: legs.store() });
    let attachments = Controller::new(Api::<MeshAttachment>::all(client.clone()), any()).watches(
        Api::<MeshReplica>::all(client.clone()),
        any(),
        |leg| Some(ObjectRef::new(&leg.spec.volume)),
    );
    let again = |_: Arc<MeshReplica>, _: &kube::Error, _: Arc<Hands>| Action::requeue(RETRY);
    let once_more = |_: Arc<MeshAttachment>, _: &kube::Error, _: Arc<Hands>| Action::requeue(RETRY);
    let legs = legs.run(leg, again, hands.clone()).for_each(|_| async {});
    let attachments = attachments.run(attachment, once_more, hands.clone()).for_each(|_| async {});
    tokio::join!(legs, attachments, beat(hands, nodes));
}

/// Keeps every node's object: at once when what is free has changed, else a heartbeat now and then.
async fn beat(hands: Arc<Hands>, nodes: usize) {
    let api: Api<MeshNode> = Api::all(hands.client.clone());
    let mut written: BTreeMap<String, (Vec<Drive>, tokio::time::Instant)> = BTreeMap::new();
    loop {
        for node in (0..nodes).map(name) {
            let drives = drives(&node, &hands.legs.state());
            let same = |(old, at): &(Vec<Drive>, tokio::time::Instant)| *old == drives && at.elapsed() < HEARTBEAT;
            if written.get(&node).is_some_and(same) {
                continue;
            }
            let Ok(mut object) = api.get(&node).await else { continue };
            object.status = Some(node_status(&node, drives.clone(), object.status.take()));
            if api.replace_status(&node, &PostParams::default(), &object).await.is_ok() {
                written.insert(node, (drives, tokio::time::Instant::now()));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn now() -> Time {
    Time(Timestamp::now())
}

fn node_status(node: &str, drives: Vec<Drive>, old: Option<MeshNodeStatus>) -> MeshNodeStatus {
    let old = old.unwrap_or_default();
    let names = ["raid1", "raid10", "nvmet-tcp", "nvme-tcp", "mdadm", "nft", "mkfs.xfs", "mkfs.ext4"];
    let capability = |name: &str| Capability { name: name.into(), supported: true, message: String::new() };
    let ready = [Want::new(conditions::READY, true, conditions::REASON_OK, "simulated")];
    MeshNodeStatus {
        conditions: conditions::apply(&old.conditions, &ready, None, &now()),
        host_nqn: Some(format!("nqn.2014-08.org.nvmexpress:uuid:{node}")),
        kernel: Some(Kernel { release: "7.3.4".into(), capabilities: names.map(capability).to_vec() }),
        addresses: vec!["10.0.0.1".into()],
        drives,
        heartbeat: Some(now()),
        ..MeshNodeStatus::default()
    }
}

/// What is free after the legs that have partitions: they lie one after another.
fn drives(node: &str, legs: &[Arc<MeshReplica>]) -> Vec<Drive> {
    let drive = |n: usize| {
        let id = format!("{node}-drive-{n}");
        let ends = legs.iter().filter(|leg| leg.spec.drive == id).filter_map(|leg| partition(leg));
        let first_byte = ends.map(|p| p.first_byte + p.size_bytes).max().unwrap_or(MIB);
        Drive {
            id,
            path: format!("/dev/nvme{n}n1"),
            model: None,
            size_bytes: DRIVE_BYTES,
            logical_sector_size: 512,
            free_extents: vec![Extent { first_byte, size_bytes: DRIVE_BYTES - first_byte }],
            unusable: None,
        }
    };
    (0..DRIVES).map(drive).collect()
}

fn partition(leg: &MeshReplica) -> Option<&LegPartition> {
    leg.status.as_ref()?.partition.as_ref()
}

/// Prepares a leg, confirms its epoch and serves its grant, each as soon as it is asked for.
async fn leg(leg: Arc<MeshReplica>, hands: Arc<Hands>) -> Result<Action, kube::Error> {
    let status = leg_status(&leg, &hands.legs.state());
    if leg.status.as_ref() != Some(&status) {
        let new = MeshReplica { status: Some(status), ..(*leg).clone() };
        let api: Api<MeshReplica> = Api::all(hands.client.clone());
        api.replace_status(&leg.name_any(), &PostParams::default(), &new).await?;
    }
    Ok(Action::await_change())
}

fn leg_status(leg: &MeshReplica, all: &[Arc<MeshReplica>]) -> MeshReplicaStatus {
    let old = leg.status.clone().unwrap_or_default();
    let ready = [Want::new(conditions::READY, true, conditions::REASON_OK, "")];
    let grant = leg.spec.grant.as_ref();
    let remote = grant.filter(|grant| grant.consumer != leg.spec.node);
    let uuid = format!("{:0>36}", leg.uid().unwrap_or_default());
    let free = || all.iter().filter(|other| other.spec.drive == leg.spec.drive).filter_map(|other| partition(other));
    let first_byte = || free().map(|p| p.first_byte + p.size_bytes).max().unwrap_or(MIB);
    let first_byte = old.partition.as_ref().map_or_else(first_byte, |p| p.first_byte);
    let blank = grant.is_none() && old.partition.as_ref().is_none_or(|p| p.blank);
    let export = |grant: &meshstor_crds::Grant| Export {
        epoch: grant.epoch,
        grant: grant.number,
        nqn: naming::export_nqn(&leg.uid().unwrap_or_default(), grant.epoch, grant.number),
        address: "10.0.0.1".into(),
        port: 42000,
        device_uuid: uuid.clone(),
    };
    MeshReplicaStatus {
        observed_generation: leg.metadata.generation,
        conditions: conditions::apply(&old.conditions, &ready, leg.metadata.generation, &now()),
        partition: Some(LegPartition { uuid: uuid.clone(), first_byte, size_bytes: leg.spec.size_bytes, blank }),
        revoked_below: (leg.spec.epoch > 0).then_some(leg.spec.epoch),
        export: remote.map(export),
        spent_grant: remote.map(|grant| grant.number).or(old.spent_grant),
        ..old
    }
}

/// Claims an epoch that has started, then shows its array: two writes, as a real consumer's daemon makes them.
async fn attachment(attachment: Arc<MeshAttachment>, hands: Arc<Hands>) -> Result<Action, kube::Error> {
    if let Some(status) = attachment_status(&attachment, &hands.legs.state()) {
        let new = MeshAttachment { status: Some(status), ..(*attachment).clone() };
        let api: Api<MeshAttachment> = Api::all(hands.client.clone());
        api.replace_status(&attachment.name_any(), &PostParams::default(), &new).await?;
    }
    // The store of legs can be behind the watch that woke us.
    let term = attachment.status.as_ref().and_then(|status| status.term.as_ref());
    let waits = term.is_some_and(|term| term.phase == TermPhase::Started);
    Ok(if waits { Action::requeue(RETRY) } else { Action::await_change() })
}

fn attachment_status(attachment: &MeshAttachment, legs: &[Arc<MeshReplica>]) -> Option<MeshAttachmentStatus> {
    let mut status = attachment.status.clone()?;
    let term = status.term.as_mut()?;
    let reached = |name: &String| {
        let leg = legs.iter().find(|leg| leg.name_any() == *name);
        let granted = |leg: &MeshReplica| leg.spec.grant.as_ref().is_some_and(|grant| grant.epoch == term.epoch);
        let export = |leg: &MeshReplica| leg.status.as_ref()?.export.as_ref().map(|export| export.epoch);
        leg.is_some_and(|leg| granted(leg) && (leg.spec.node == term.node || export(leg) == Some(term.epoch)))
    };
    match term.phase {
        TermPhase::Started if term.in_sync.iter().all(reached) => {
            term.phase = TermPhase::Running;
            term.writer = Some(Writer { incarnation: format!("simulated-{}", term.node), seq: 1 });
        }
        TermPhase::Running if status.array.is_none() => {
            term.initialised = true;
            term.writer.as_mut()?.seq += 1;
            let member = |leg: &String| Member { leg: leg.clone(), state: MemberState::InSync, latency_ewma_ns: None };
            let members = term.in_sync.iter().map(member).collect();
            let device = Some("/dev/md100".to_owned());
            status.array = Some(ArrayStatus { epoch: term.epoch, device, mount_path: None, members, resync: None });
            let ready = [Want::new(conditions::READY, true, conditions::REASON_ATTACHED, "")];
            status.conditions = conditions::apply(&[], &ready, attachment.metadata.generation, &now());
        }
        _ => return None,
    }
    Some(status)
}
