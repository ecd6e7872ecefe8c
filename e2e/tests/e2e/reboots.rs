//! A target that loses its power and is back at once, with drives that forget what was not flushed: what rule 1 is for.
//!
//! MD flushes its members when the application flushes. A write that a member acknowledged before, unflushed, MD never sends again. So
//! where a target reboots and its *old* export is there again before anybody noticed, the consumer's kernel connects to it by itself,
//! writes go on, the next flush succeeds on drives that no longer have what it was to cover, and both legs are called in sync.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use meshstor_e2e::drive::{DriveKind, Fault, Kinds, Which};
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::say;
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::{holds_for, pause, secs, when};
use serde_json::{Value, json};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("rebooted_target_returns_as_a_leg_that_was_away", product),
    ("rebooted_target_whose_old_export_serves_again_has_lost_writes", old_export),
];

/// Unflushed pages on the target at the moment of the power cut: enough that later batches do not happen to write all of them again.
const UNFLUSHED: usize = 12;

/// A volume under load whose target was cut off its power in the middle of a batch.
struct Scene {
    name: &'static str,
    load: Load,
    consumer: String,
    target: String,
    leg: String,
    /// Partition of the leg on the target.
    partition: String,
    /// What makes the export again that the target had.
    restore: String,
}

impl Scene {
    /// Up to the moment when the target is up again, with no daemon there and none on the consumer.
    fn set(lab: &mut Lab, name: &'static str) -> Result<Self> {
        let spec = json!({ "capacity": "64Mi", "replicaCount": 2, "filesystem": "none" });
        let legs = Volume::create(lab, name, &spec)?.leg_nodes()?;
        let [consumer, target] = legs.as_slice() else { bail!("two legs, but {legs:?}") };
        lab.reboot_with_drives(target, Some(DriveKind::Volatile))?;
        lab.wait_for_nodes()?;
        let volume = Volume::named(lab, name);
        volume.wait_ready()?;
        let (device, leg) = (volume.attach(consumer, false)?, volume.leg_on(target)?);
        let load = Load::new(name, 1024);
        load.start(lab, consumer, &device)?;
        load.wait_for_progress(lab, consumer, 40, secs(60))?;
        let restore = lab.guest(target)?.shell(SAVE)?;
        let partition = restore.lines().find_map(|l| l.strip_prefix("device=")).context("a device")?.to_owned();
        let scene = Self { name, load, consumer: consumer.clone(), target: target.clone(), leg, partition, restore };
        scene.cut(lab)?;
        Ok(scene)
    }

    /// The consumer's daemon is killed first: it would record the leg away within a second or two, and race with the reboot.
    fn cut(&self, lab: &mut Lab) -> Result<()> {
        lab.guest(&self.consumer)?.kill_daemon()?;
        let guest = lab.guest(&self.target)?;
        for number in 0..2 {
            guest.drive(number)?.set(vec![Fault::Slow(Which::any(Kinds::Writes), Duration::from_millis(3))]);
        }
        let began = Instant::now();
        while guest.drive(0)?.unflushed() + guest.drive(1)?.unflushed() < UNFLUSHED {
            ensure!(began.elapsed() < secs(60), "the drives of {} never had much unflushed", self.target);
            pause(Duration::from_millis(1));
        }
        let guest = lab.guest_mut(&self.target)?;
        guest.cut_power()?;
        let lost: usize = guest.losses().iter().map(|loss| loss.lost).sum();
        say!(
            "{} lost {lost} pages that it had acknowledged, flushed up to {}",
            self.target,
            self.load.journal(lab, &self.consumer)?.flushed()
        );
        ensure!(lost >= UNFLUSHED, "the drives of {} lost {lost} pages: the fault did not fire", self.target);
        let guest = lab.guest_mut(&self.target)?;
        for number in 0..2 {
            guest.drive(number)?.set(Vec::new());
        }
        guest.power_on()?;
        guest.wait_until_up()
    }

    fn volume<'a>(&self, lab: &'a Lab) -> Volume<'a> {
        Volume::named(lab, self.name)
    }

    fn in_sync(&self, term: &Value) -> bool {
        term["inSync"].as_array().is_some_and(|legs| legs.iter().any(|leg| *leg == *self.leg))
    }

    /// Holds the leg alone, as it lies on the target's drive, against the writer's journal.
    fn verify_leg(&self, lab: &Lab) -> Result<String> {
        let open = format!(
            "at=$(mdadm --examine {0} | sed -n 's/.*Data Offset : \\([0-9]*\\) sectors.*/\\1/p') && \
             losetup --read-only --find --show --offset $((at * 512)) {0}",
            self.partition
        );
        let guest = lab.guest(&self.target)?;
        let device = guest.shell(&open)?.trim().to_owned();
        let outcome = self.load.verify(lab, &self.consumer, &self.target, &device);
        guest.shell(&format!("losetup --detach {device}"))?;
        outcome
    }

    /// Gives the target the lab's drives again, and deletes the volume.
    fn clear(&self, lab: &mut Lab) -> Result<()> {
        self.volume(lab).detach()?;
        lab.reboot_with_drives(&self.target, None)?;
        lab.wait_for_nodes()?;
        self.volume(lab).delete()
    }
}

/// Prints the script that makes the one export of this node again, as `nvmetcli restore` would after a boot.
const SAVE: &str = r#"
cd /sys/kernel/config/nvmet
for port in ports/*; do for link in $port/subsystems/*; do
    s=subsystems/${link##*/} n=subsystems/${link##*/}/namespaces/1
    [ -e "$link" ] || continue
    echo "device=$(cat $n/device_path)"
    echo "cd /sys/kernel/config/nvmet && mkdir $s && mkdir $n $port"
    for file in $s/attr_qid_max $n/device_path $n/device_uuid $n/device_nguid \
        $port/addr_trtype $port/addr_adrfam $port/addr_traddr $port/addr_trsvcid; do
        echo "echo $(cat $file) > $file"
    done
    for host in $(ls $s/allowed_hosts); do echo "mkdir hosts/$host; ln -s $PWD/hosts/$host $s/allowed_hosts/"; done
    echo "echo 1 > $n/enable && ln -s $PWD/$s $port/subsystems/"
done; done"#;

/// Takes away what that script made.
const REMOVE: &str = "cd /sys/kernel/config/nvmet && rm ports/*/subsystems/* && echo 0 > $(echo subsystems/*/namespaces/1)/enable && \
     rmdir subsystems/*/namespaces/1 && rm subsystems/*/allowed_hosts/* && rmdir subsystems/* hosts/* ports/*";

/// I1, rule 1: a target that lost what its drives had not flushed serves its old grant no more; the leg is recorded away, rebuilt, and
/// has every flushed write.
fn product(lab: &mut Lab) -> Result<()> {
    let scene = Scene::set(lab, "rebooted")?;
    lab.start_daemon(&scene.target)?;
    let cut = scene.load.journal(lab, &scene.consumer)?.flushed();
    holds_for("a held write", secs(8), || {
        let now = scene.load.journal(lab, &scene.consumer)?;
        Ok(when(now.flushed() <= cut + 1, format!("{now}, but {cut} at the power cut")))
    })?;
    let exports = lab.guest(&scene.target)?.shell("ls /sys/kernel/config/nvmet/subsystems")?;
    ensure!(exports.trim().is_empty(), "{} serves again: {exports}", scene.target);

    lab.start_daemon(&scene.consumer)?;
    let volume = scene.volume(lab);
    volume.wait_attachment("to have recorded the leg away", secs(60), |at| !scene.in_sync(&at["status"]["term"]))?;
    scene.load.wait_for_progress(lab, &scene.consumer, 20, secs(60))?;
    volume.wait_whole(2)?;
    scene.load.wait_for_progress(lab, &scene.consumer, 20, secs(60))?;
    scene.load.stop(lab, &scene.consumer)?;
    say!("the leg alone: {}", scene.verify_leg(lab)?);
    volume.detach()?;
    let device = volume.attach(&scene.target, false)?;
    scene.load.verify(lab, &scene.consumer, &scene.target, &device)?;
    scene.clear(lab)
}

/// I1 without rule 1: the same reboot, but the old export is there again, as a node that restores its exports at boot has it. Everything
/// says that both legs are in sync, and flushed writes are gone from one of them: the oracle must see that.
fn old_export(lab: &mut Lab) -> Result<()> {
    let scene = Scene::set(lab, "resurrected")?;
    lab.guest(&scene.target)?.shell(&scene.restore)?;
    scene.load.wait_for_progress(lab, &scene.consumer, 2, secs(60))?;
    scene.load.stop(lab, &scene.consumer)?;
    let states = lab.guest(&scene.consumer)?.shell("cat /sys/block/md*/md/degraded /sys/block/md*/md/dev-*/state")?;
    let both = states.lines().filter(|line| line.contains("in_sync")).count() == 2;
    ensure!(states.starts_with("0\n") && both, "the consumer's kernel noticed: {states}");
    let term = scene.volume(lab).attachment()?["status"]["term"].clone();
    ensure!(scene.in_sync(&term), "the record names the leg no more: {term}");

    // The other copy goes: this one is all that is left of the volume.
    lab.guest_mut(&scene.consumer)?.cut_power()?;
    let outcome = scene.verify_leg(lab);
    lab.guest(&scene.target)?.shell(REMOVE)?;
    lab.start_daemon(&scene.target)?;
    lab.power_on(&scene.consumer)?;
    scene.volume(lab).wait_attached(&scene.consumer, false)?;
    match outcome {
        Ok(verified) => bail!("no write was lost, or the oracle is blind: {verified}"),
        Err(error) if error.to_string().contains("blocks are wrong") => say!("lost, as it must be: {error}"),
        Err(error) => return Err(error),
    }
    scene.clear(lab)
}
