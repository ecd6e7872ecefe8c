//! The node's own object: what it has, how fit it is, and a heartbeat.

mod conditions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use kube::api::PostParams;
use kube::{Api, Client};
use meshstor_crds::conditions as c;
use meshstor_crds::{Capability, Drive, Extent, FabricPeer, Kernel, MeshNode, MeshNodeSpec, MeshNodeStatus, Time};
use tokio::task::JoinSet;

use super::cluster::ask;
use super::context::Context;
use super::error::{ClusterError, TurnError};
use crate::host::{DriveFacts, NodeFacts};
use crate::quarantine::Kept;

/// Longest identity that a status takes (`Drive::id`).
const ID_MAX: usize = 128;

/// Most things that a status names (`MeshNodeStatus::quarantine`).
const QUARANTINE_MAX: usize = 256;

/// How often the daemon says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Keeps the `MeshNode` until the process ends. The node is looked at when its drives changed and every now and then; a heartbeat
/// in between repeats what was seen. A look may hang with a drive, or with a file system whose writes are held: the heartbeat goes on
/// beside it.
pub async fn keep(ctx: Arc<Context>, client: Client) {
    let api: Api<MeshNode> = Api::all(client);
    let (mut written, mut told) = (None, BTreeMap::new());
    let (mut seen, mut shown, mut measured) = (look(Arc::clone(&ctx)).await, None, None);
    let mut looks = JoinSet::new();
    let (mut again, mut looked, mut due) = (false, Instant::now(), Instant::now());
    loop {
        if Instant::now() >= due {
            let pause = match turn(&ctx, &api, written.take(), &seen).await {
                Ok(object) => {
                    written = Some(object);
                    HEARTBEAT
                }
                Err(error) => {
                    tracing::warn!(node = %ctx.node, %error, "node status not written");
                    Duration::from_secs(2)
                }
            };
            due = Instant::now() + pause;
        }
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => {}
            () = ctx.node_changed.notified() => {
                // Several changes at once are one.
                tokio::time::sleep(Duration::from_millis(500)).await;
                again = true;
            }
            Some(new) = looks.join_next() => {
                looked = Instant::now();
                let new = new.unwrap_or_else(|error| Err(error.to_string()));
                // What is as it was waits for the next heartbeat.
                if new != seen {
                    due = Instant::now();
                }
                seen = new;
            }
        }
        let stuck = ctx.stuck();
        if stuck != told {
            due = Instant::now();
            told = stuck;
        }
        let quarantined = ctx.quarantined();
        if quarantined != shown {
            due = Instant::now();
            shown = quarantined;
        }
        let fabric = ctx.fabric();
        if fabric != measured {
            due = Instant::now();
            measured = fabric;
        }
        let wanted = again || seen.is_err() || looked.elapsed() >= ctx.timing.full;
        if wanted && looks.is_empty() {
            looks.spawn(look(Arc::clone(&ctx)));
            again = false;
        }
    }
}

/// The node's facts, or why it cannot be looked at.
async fn look(ctx: Arc<Context>) -> Result<NodeFacts, String> {
    ctx.blocking(|host| host.node()).await.map_err(|error| error.to_string())
}

/// Writes what is known over the object as it was last written, or as it is if that is not known.
async fn turn(
    ctx: &Context,
    api: &Api<MeshNode>,
    written: Option<MeshNode>,
    seen: &Result<NodeFacts, String>,
) -> Result<MeshNode, TurnError> {
    let mut object = match written {
        Some(object) => object,
        None => get_or_create(ctx, api).await?,
    };
    *ctx.override_addresses.lock().unwrap_or_else(PoisonError::into_inner) = object.spec.addresses.clone();
    if let Ok(facts) = seen {
        ctx.rdma.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&facts.rdma);
    }
    let old = object.status.clone().unwrap_or_default();
    let known = Known { stuck: ctx.stuck(), quarantine: ctx.quarantined(), fabric: ctx.fabric() };
    object.status = Some(status(&old, seen, &known, ctx.listen(), object.metadata.generation, &ctx.now()));
    let params = PostParams::default();
    Ok(ask(format!("node {}", ctx.node), api.replace_status(&ctx.node, &params, &object)).await?)
}

async fn get_or_create(ctx: &Context, api: &Api<MeshNode>) -> Result<MeshNode, ClusterError> {
    if let Some(found) = ask(format!("node {}", ctx.node), api.get_opt(&ctx.node)).await? {
        return Ok(found);
    }
    let new = MeshNode::new(&ctx.node, MeshNodeSpec::default());
    ask(format!("node {}", ctx.node), api.create(&PostParams::default(), &new)).await
}

/// What the process knows of its node beside what is seen of it.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// By volume that only a reboot lets go of: why.
    pub stuck: BTreeMap<String, String>,
    /// What belongs to no object; none before it was looked for.
    pub quarantine: Option<Kept>,
    /// How long the way to other nodes is; none before it was measured.
    pub fabric: Option<Vec<FabricPeer>>,
}

/// What the object says of a node that was seen so, or could not be looked at.
pub fn status(
    old: &MeshNodeStatus,
    seen: &Result<NodeFacts, String>,
    known: &Known,
    addresses: Vec<String>,
    generation: Option<i64>,
    now: &Time,
) -> MeshNodeStatus {
    let (shown, mut wants) = match seen {
        Ok(facts) => {
            let rdma_addresses = addresses.iter().filter(|a| facts.rdma.contains(a)).cloned().collect();
            (MeshNodeStatus { rdma_addresses, ..filled(facts.clone()) }, conditions::wants(facts, &addresses))
        }
        Err(error) => (old.clone(), conditions::unseen(error)),
    };
    wants.push(conditions::reboot(&known.stuck));
    wants.push(conditions::owned(known.quarantine.as_ref()));
    // At the most of the list; the condition counts all.
    let kept = known.quarantine.as_ref().map(|kept| kept.items.iter().take(QUARANTINE_MAX).cloned().collect());
    let quarantine = kept.unwrap_or_else(|| old.quarantine.clone());
    let conditions = c::apply(&old.conditions, &wants, generation, now);
    MeshNodeStatus {
        observed_generation: generation,
        conditions,
        addresses,
        heartbeat: Some(now.clone()),
        quarantine,
        fabric: known.fabric.clone().unwrap_or_else(|| old.fabric.clone()),
        ..shown
    }
}

fn filled(facts: NodeFacts) -> MeshNodeStatus {
    let capability = |(name, supported, message): (String, bool, String)| Capability { name, supported, message };
    MeshNodeStatus {
        boot_id: Some(facts.boot_id),
        host_nqn: Some(facts.host_nqn),
        kernel: Some(Kernel {
            release: facts.kernel_release,
            capabilities: facts.capabilities.into_iter().take(32).map(capability).collect(),
        }),
        drives: distinct(facts.drives.into_iter().take(64).map(drive).collect()),
        ..MeshNodeStatus::default()
    }
}

fn drive(facts: DriveFacts) -> Drive {
    let big = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let extent = |(first, size): (u64, u64)| Extent { first_byte: big(first), size_bytes: big(size) };
    Drive {
        id: facts.id,
        path: facts.path.display().to_string(),
        model: facts.model,
        size_bytes: big(facts.size),
        logical_sector_size: i32::try_from(facts.sector.clamp(512, 65536)).unwrap_or(512),
        free_extents: facts.free.into_iter().take(32).map(extent).collect(),
        unusable: facts.unusable.map(|u| u.why.chars().take(512).collect()),
    }
}

/// The list is a map by identity, and a status with one twice would be refused as a whole, heartbeat and all: of drives with one
/// identity, none of which can be used, the later ones are told apart by their names.
fn distinct(mut drives: Vec<Drive>) -> Vec<Drive> {
    let mut seen = BTreeSet::new();
    for drive in &mut drives {
        if !seen.insert(drive.id.clone()) {
            let name = drive.path.rsplit('/').next().unwrap_or_default();
            let head: String = drive.id.chars().take(ID_MAX.saturating_sub(name.len() + 1)).collect();
            drive.id = format!("{head}@{name}");
        }
    }
    drives
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drives_with_one_identity_do_not_silence_the_node() {
        let clone = |path: &str, id: &str| {
            drive(DriveFacts {
                id: id.to_owned(),
                path: path.into(),
                model: None,
                size: 1 << 30,
                sector: 512,
                free: vec![],
                unusable: None,
            })
        };
        let long = "x".repeat(ID_MAX);
        let drives = [("/dev/a", "one"), ("/dev/b", "one"), ("/dev/c", "two"), ("/dev/d", &long), ("/dev/e", &long)];
        let ids: Vec<String> =
            distinct(drives.map(|(path, id)| clone(path, id)).to_vec()).into_iter().map(|d| d.id).collect();
        assert_eq!(ids[..3], ["one", "one@b", "two"]);
        assert!(ids[3] != ids[4] && ids.iter().all(|id| id.len() <= ID_MAX), "{ids:?}");
    }
}
