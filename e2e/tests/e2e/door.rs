//! A blip while the target's drive keeps a write inside: what rule 9 is for. The kernel's own fact is in `drives.rs`.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use meshstor_e2e::drive::{DriveKind, Fault, Kinds, Which};
use meshstor_e2e::lab::Lab;
use meshstor_e2e::partition::{self, Cut, Way};
use meshstor_e2e::say;
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::{holds_for, secs, wait_for, when};
use serde_json::json;

use crate::Test;
use crate::drives::{read, write, write_command};

pub(crate) const TESTS: &[Test] = &[
    ("a_write_inside_the_drive_keeps_the_door_shut", shut),
    ("a_door_left_open_lets_an_old_write_land_over_a_newer_one", open),
];

/// The page of the device that is written.
const PAGE: u64 = 1000;

/// A volume of one copy, attached elsewhere, whose consumer was cut off while its leg's drive kept a write.
struct Scene {
    name: &'static str,
    target: String,
    consumer: String,
    /// Of the array, on the consumer.
    array: String,
    /// Number of the leg's drive.
    drive: usize,
    /// The process that wrote what the drive keeps.
    old: i32,
}

impl Scene {
    fn set(lab: &mut Lab, name: &'static str) -> Result<Self> {
        let spec = json!({ "capacity": "64Mi", "replicaCount": 1, "filesystem": "none" });
        let target = Volume::create(lab, name, &spec)?.leg_nodes()?.first().cloned().context("a leg")?;
        let consumer = lab.nodes().into_iter().find(|n| *n != target).context("another node")?;
        lab.reboot_with_drives(&target, Some(DriveKind::Volatile))?;
        lab.wait_for_nodes()?;
        let volume = Volume::named(lab, name);
        volume.wait_ready()?;
        let array = volume.attach(&consumer, false)?.trim_start_matches("/dev/").to_owned();
        let guest = lab.guest(&consumer)?;
        write(guest, &array, PAGE, "first", ",fsync")?;
        let (drive, byte) = place(lab, &target, &consumer, &array)?;
        let here = Which { kinds: Kinds::Writes, range: byte..byte + 4096 };
        lab.guest(&target)?.drive(drive)?.set(vec![Fault::Hold(here, 1)]);
        let script = write_command(&array, PAGE, "old", "");
        let old = guest.spawn(&["sh", "-c", &script], BTreeMap::new(), "old.log")?;
        let scene = Self { name, target, consumer, array, drive, old };
        wait_for("the drive to keep the old write", secs(20), || Ok(when(scene.inside(lab)? == 1, "it keeps none")))?;
        partition::cut(lab.guest(&scene.consumer)?, Cut::Data, Way::Both)?;
        scene.volume(lab).wait_attachment("to say that its writes are held", secs(60), |at| {
            at["status"]["array"]["members"][0]["state"] == "Held"
        })?;
        ensure!(partition::dropped(lab.guest(&scene.consumer)?)? > 0, "no packet was dropped");
        Ok(scene)
    }

    fn volume<'a>(&self, lab: &'a Lab) -> Volume<'a> {
        Volume::named(lab, self.name)
    }

    fn inside(&self, lab: &Lab) -> Result<usize> {
        Ok(lab.guest(&self.target)?.drive(self.drive)?.inside())
    }

    fn release(&self, lab: &Lab) -> Result<()> {
        let released = lab.guest(&self.target)?.drive(self.drive)?.release();
        ensure!(released == 1, "the drive kept {released} writes: the fault did not fire");
        Ok(())
    }

    fn controller(&self, lab: &Lab) -> Result<String> {
        Ok(lab.guest(&self.consumer)?.shell("cat /sys/class/nvme/nvme*/state")?.trim().to_owned())
    }

    /// The consumer is let in, and its kernel sends the old write once more.
    fn wait_for_old(&self, lab: &Lab) -> Result<()> {
        let guest = lab.guest(&self.consumer)?;
        wait_for("the old write to be acknowledged", secs(60), || {
            Ok(when(!guest.is_alive(self.old)?, self.controller(lab)?))
        })
    }

    fn clear(&self, lab: &mut Lab) -> Result<()> {
        self.volume(lab).detach()?;
        lab.reboot_with_drives(&self.target, None)?;
        lab.wait_for_nodes()?;
        self.volume(lab).delete()
    }
}

/// Number of the drive, and the byte of it, where [`PAGE`] of the array lies.
fn place(lab: &Lab, target: &str, consumer: &str, array: &str) -> Result<(usize, u64)> {
    let exported = lab.guest(target)?.shell("cat /sys/kernel/config/nvmet/subsystems/*/namespaces/1/device_path")?;
    let part = exported.trim().strip_prefix("/dev/").context("one export")?.to_owned();
    let start = lab.guest(target)?.shell(&format!("cat /sys/class/block/{part}/start"))?;
    let offset = lab.guest(consumer)?.shell(&format!("cat /sys/block/{array}/md/dev-*/offset"))?;
    let sectors = start.trim().parse::<u64>()? + offset.trim().parse::<u64>()?;
    Ok((usize::from(part.starts_with("ubdb")), sectors * 512 + PAGE * 4096))
}

/// I1, rule 9: while the drive keeps a write of the old connection nobody connects, and what is written afterwards stays.
fn shut(lab: &mut Lab) -> Result<()> {
    let scene = Scene::set(lab, "shut")?;
    partition::heal(lab.guest(&scene.consumer)?)?;
    holds_for("the consumer to be out", secs(10), || {
        let state = scene.controller(lab)?;
        Ok(when(state != "live" && scene.inside(lab)? == 1, state))
    })?;
    scene.release(lab)?;
    scene.wait_for_old(lab)?;
    let guest = lab.guest(&scene.consumer)?;
    write(guest, &scene.array, PAGE, "new", ",fsync")?;
    ensure!(scene.inside(lab)? == 0 && read(guest, &scene.array, PAGE)? == "new", "the new write is not read");
    scene.clear(lab)
}

/// The same with the target's door taken away: a write that was flushed is lost.
fn open(lab: &mut Lab) -> Result<()> {
    let scene = Scene::set(lab, "open")?;
    lab.guest(&scene.target)?.shell("nft delete table inet $(nft list tables inet | grep -o 'meshstor-door-.*')")?;
    partition::heal(lab.guest(&scene.consumer)?)?;
    scene.wait_for_old(lab)?;
    let guest = lab.guest(&scene.consumer)?;
    write(guest, &scene.array, PAGE, "new", ",fsync")?;
    ensure!(read(guest, &scene.array, PAGE)? == "new", "the new write is not read");
    scene.release(lab)?;
    let found = read(guest, &scene.array, PAGE)?;
    say!("lost, as it must be: a page whose write of `new` was flushed holds `{found}`");
    ensure!(found == "old", "nothing was lost with the door open: {found}");
    scene.clear(lab)
}
