//! Brings the volumes of a batch to their moments.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use meshstor_e2e::api::{all, ours};
use meshstor_e2e::chaos::Moment;
use meshstor_e2e::lab::Lab;
use meshstor_e2e::wait::{pause, secs};
use serde_json::{Value, json};

use super::scene::{self, BESIDE, CAPACITY, COPIES, Scene};

/// Batches that each volume has before its moment: every block once, and some twice.
const BEFORE: u64 = 40;
/// How long an attach may take to come to its phase.
const PHASE: Duration = secs(90);

/// Does it for all scenes at once; the first error counts.
pub(super) fn at_once(scenes: &mut [Scene], each: impl Fn(&mut Scene) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = scenes.iter_mut().map(|scene| scope.spawn(|| each(scene))).collect();
        let outcomes: Vec<Result<()>> =
            threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked")))).collect();
        outcomes.into_iter().collect()
    })
}

/// All volumes are there, attached and written to.
pub(super) fn volumes(lab: &Lab, scenes: &mut [Scene]) -> Result<()> {
    for scene in &*scenes {
        let spec = json!({ "capacity": CAPACITY, "replicaCount": COPIES, "filesystem": "none" });
        let object = json!({
            "apiVersion": "meshstor.io/v1alpha1", "kind": "MeshVolume", "metadata": { "name": scene.name }, "spec": spec
        });
        lab.control.api.create(&all("meshvolumes"), &object)?;
    }
    at_once(scenes, |scene| {
        let volume = scene.volume(lab);
        volume.wait_ready()?;
        let device = volume.attach(&scene.writer, false)?;
        scene.first.write(lab, &scene.writer, &device, BEFORE)?;
        let at = volume.attachment()?;
        scene.epoch = at["status"]["term"]["epoch"].as_i64().context("there is an epoch")?;
        match scene.case.moment {
            Moment::Attach => volume.detach(),
            Moment::Load => {
                scene.writing = true;
                scene.first.start(lab, &scene.writer, &device)
            }
            Moment::Idle | Moment::Resync | Moment::Detach => Ok(()),
        }
    })
}

/// A leg of the volume whose moment that is misses something, and is copied to: the one on `node`, whose daemon is away meanwhile.
pub(super) fn resync(lab: &Lab, scenes: &mut [Scene], node: &str) -> Result<()> {
    let Some(scene) = scenes.iter_mut().find(|scene| scene.case.moment == Moment::Resync) else { return Ok(()) };
    let (volume, guest) = (scene.volume(lab), lab.guest(&scene.writer)?);
    let (leg, array) = (volume.leg_on(node)?, scene.array(lab)?);
    let uid = lab.control.api.get(&ours("meshreplicas", &leg))?["metadata"]["uid"].clone();
    let uid = uid.as_str().context("a leg has a UID")?;
    lab.guest(node)?.kill_daemon()?;
    guest.shell(&format!(
        "cd /sys/block/{array}/md && for d in dev-nvme*; do
            if grep -q {uid} /sys/class/block/${{d#dev-}}/device/subsysnqn; then echo faulty > $d/state && exit 0; fi
        done; exit 1"
    ))?;
    volume.wait_attachment("to have recorded the leg away", secs(60), |at| {
        at["status"]["term"]["inSync"].as_array().is_some_and(|legs| legs.iter().all(|l| *l != *leg))
    })?;
    let (first, count) = BESIDE;
    guest.shell(&format!(
        "yes beside | dd of=/dev/{array} bs=1M seek={first} count={count} iflag=fullblock oflag=direct conv=fsync status=none"
    ))?;
    lab.start_daemon(node)?;
    scene::wait_for_copying(lab, &scene.writer, &array)
}

/// The last of it: what is attached or detached is so just now, and nothing else is done before the fault comes.
pub(super) fn moments(lab: &Lab, scenes: &mut [Scene]) -> Result<()> {
    for scene in &mut *scenes {
        if scene.case.moment == Moment::Resync {
            scene.row.moment = scene::copying(lab, &scene.writer, &scene.array(lab)?)?;
        }
        scene.flushed = scene.first.journal(lab, &scene.writer)?.flushed();
    }
    if let Some(scene) = scenes.iter().find(|scene| scene.case.moment == Moment::Attach) {
        let volume = scene.volume(lab);
        volume.want_on(&scene.writer, false)?;
        let began = Instant::now();
        while !has_come_to(&volume.attachment()?["status"]["term"], scene.epoch, scene.phase) {
            ensure!(began.elapsed() < PHASE, "{} did not become {}", scene.name, scene.phase);
            pause(Duration::from_millis(5));
        }
    }
    let leaves = scenes.iter().find(|scene| scene.case.moment == Moment::Detach);
    leaves.map_or(Ok(()), |scene| scene.volume(lab).want_nowhere())
}

/// Whether the record is of a later epoch, and in this phase or past it.
fn has_come_to(term: &Value, epoch: i64, phase: &str) -> bool {
    let rank = |phase: &str| ["Revoking", "Started", "Running"].iter().position(|p| *p == phase);
    term["epoch"].as_i64().is_some_and(|e| e > epoch) && rank(term["phase"].as_str().unwrap_or_default()) >= rank(phase)
}
