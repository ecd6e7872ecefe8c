//! Errors that MD sees instead of a hang, under load: what becomes of the writes that their consumer acknowledged. Run by `make chaos-errors` alone.
//!
//! Each cause hits a volume of two copies twice: with nothing beside it, and while its consumer cannot reach the API server, is given up, and the volume
//! is used on the node of its other copy. On nodes with MeshStor's md patches nothing is lost in any run; on stock nodes, in the same runs, the causes that
//! take the remote leg away lose what MD acknowledged before anybody could record that.

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use meshstor_e2e::api::ours;
use meshstor_e2e::drive::{DriveKind, Fault, Kinds, Which};
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::partition::{self, Cut, Way};
use meshstor_e2e::say;
use meshstor_e2e::steps::lacks;
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::{Look, pause, secs, wait_for};
use serde_json::{Value, json};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("errors_lose_nothing_behind_the_failure_gate", patched),
    ("errors_of_a_stock_kernel_lose_writes_and_are_seen_to", stock),
];

/// What gives MD an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The drive of the consumer's own leg fails every write to it.
    LocalWrites,
    /// The drive of the other leg does.
    RemoteWrites,
    /// `delete_controller`, which is what `nvme disconnect` does.
    Disconnect,
    /// The target disables the namespace.
    NamespaceDisabled,
}

const CAUSES: [Cause; 4] = [Cause::LocalWrites, Cause::RemoteWrites, Cause::Disconnect, Cause::NamespaceDisabled];

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LocalWrites => "local-writes",
            Self::RemoteWrites => "remote-writes",
            Self::Disconnect => "disconnect",
            Self::NamespaceDisabled => "namespace",
        })
    }
}

/// Blocks that the writer writes to.
const BLOCKS: u64 = 1024;
/// How long the consumer is left alone after the cause: what a stock kernel acknowledges in that time is what can be lost.
const ALONE: std::time::Duration = secs(4);

/// A case's volume, used and written to.
struct Case {
    name: String,
    consumer: String,
    target: String,
    load: Load,
}

fn patched(lab: &mut Lab) -> Result<()> {
    let kernel = lab.prerequisites().named_kernel("meshstor")?;
    let table = all(lab, Some(&kernel))?;
    let lost: u64 = table.iter().map(|(_, lost)| lost).sum();
    ensure!(lost == 0, "acknowledged writes are lost: {table:?}");
    Ok(())
}

fn stock(lab: &mut Lab) -> Result<()> {
    let table = all(lab, None)?;
    let lost = |name: &str| table.iter().any(|(case, lost)| case == name && *lost > 0);
    ensure!(lost("disconnect-cut"), "the test sees no loss on a stock kernel: {table:?}");
    Ok(())
}

/// Every case with its lost writes.
fn all(lab: &mut Lab, kernel: Option<&Path>) -> Result<Vec<(String, u64)>> {
    for node in lab.nodes() {
        lab.reboot_as(&node, |machine| machine.kernel = kernel.map(Path::to_owned))?;
        lab.reboot_with_drives(&node, Some(DriveKind::Volatile))?;
    }
    lab.wait_for_nodes()?;
    let mut table = Vec::new();
    for cause in CAUSES {
        for cut in [false, true] {
            let name = format!("{cause}{}", if cut { "-cut" } else { "" });
            let case = begin(lab, &name)?;
            let lost = if cut { given_up(lab, &case, cause) } else { noticed(lab, &case, cause) };
            let lost = lost.with_context(|| format!("case {name}"))?;
            say!(
                "{} kernel, {name}: {lost} acknowledged writes lost",
                if kernel.is_some() { "patched" } else { "stock" }
            );
            table.push((name, lost));
        }
    }
    for node in lab.nodes() {
        lab.reboot_as(&node, |machine| machine.kernel = None)?;
        lab.reboot_with_drives(&node, None)?;
    }
    lab.wait_for_nodes()?;
    Ok(table)
}

fn begin(lab: &Lab, name: &str) -> Result<Case> {
    let spec = json!({ "capacity": "64Mi", "replicaCount": 2, "filesystem": "none", "bitmap": "internal" });
    let volume = Volume::create(lab, name, &spec)?;
    let legs = volume.leg_nodes()?;
    let [consumer, target] = legs.as_slice() else { bail!("two legs, but {legs:?}") };
    let device = volume.attach(consumer, false)?;
    let load = Load::new(name, BLOCKS);
    load.start(lab, consumer, &device)?;
    load.wait_for_progress(lab, consumer, 50, secs(60))?;
    Ok(Case { name: name.to_owned(), consumer: consumer.clone(), target: target.clone(), load })
}

/// The loss is recorded at once, the load goes on, and both copies have everything in the end.
fn noticed(lab: &Lab, case: &Case, cause: Cause) -> Result<u64> {
    let volume = Volume::named(lab, &case.name);
    let of = if cause == Cause::LocalWrites { &case.consumer } else { &case.target };
    let leg = volume.leg_on(of)?;
    inflict(lab, case, cause)?;
    volume.wait_attachment("to have recorded the leg away", secs(90), |at| lacks(&at["status"]["term"], &leg))?;
    case.load.wait_for_progress(lab, &case.consumer, 50, secs(60))?;
    undo(lab, case, cause)?;
    volume.wait_whole(2)?;
    case.load.stop(lab, &case.consumer)?;
    volume.detach()?;
    let mut lost = 0;
    for node in [&case.target, &case.consumer] {
        let device = volume.attach(node, false)?;
        lost = lost.max(judge(lab, case, node, &device)?);
        volume.detach()?;
    }
    volume.delete()?;
    Ok(lost)
}

/// The consumer cannot record anything, is given up, and the volume is used elsewhere.
fn given_up(lab: &Lab, case: &Case, cause: Cause) -> Result<u64> {
    let volume = Volume::named(lab, &case.name);
    partition::cut(lab.guest(&case.consumer)?, Cut::Control, Way::Both)?;
    let before = case.load.journal(lab, &case.consumer)?.flushed();
    inflict(lab, case, cause)?;
    pause(ALONE);
    undo(lab, case, cause)?;
    let after = case.load.journal(lab, &case.consumer)?.flushed();
    say!("{}: {} batches were acknowledged after the cause", case.name, after - before);
    volume.give_up(&case.target, false)?;
    let device = volume.wait_attached(&case.target, false)?;
    ensure!(partition::dropped(lab.guest(&case.consumer)?)? > 0, "nothing was cut: the fault did not fire");
    let scan = case.load.scan(lab, &case.target, &device)?;
    partition::heal(lab.guest(&case.consumer)?)?;
    wait_for("the fenced array to be gone", secs(90), || {
        let arrays = lab.guest(&case.consumer)?.shell("find /sys/block -name 'md*' -printf '%f '")?;
        Ok(if arrays.trim().is_empty() { Look::Done(()) } else { Look::NotYet(arrays) })
    })?;
    let run = case.load.run(lab, &case.consumer)?;
    let lost = scan.judge(std::slice::from_ref(&run)).lost;
    volume.wait_whole(2)?;
    volume.detach()?;
    volume.delete()?;
    Ok(lost)
}

fn judge(lab: &Lab, case: &Case, node: &str, device: &str) -> Result<u64> {
    let scan = case.load.scan(lab, node, device)?;
    let run = case.load.run(lab, &case.consumer)?;
    Ok(scan.judge(std::slice::from_ref(&run)).lost)
}

fn inflict(lab: &Lab, case: &Case, cause: Cause) -> Result<()> {
    match cause {
        Cause::LocalWrites => fail_writes(lab, case, &case.consumer, true),
        Cause::RemoteWrites => fail_writes(lab, case, &case.target, true),
        Cause::Disconnect => {
            let script = "for c in /sys/class/nvme/*/delete_controller; do echo 1 > $c; done";
            lab.guest(&case.consumer)?.shell(script).map(drop)
        }
        Cause::NamespaceDisabled => enable(lab, case, false),
    }
}

/// The cause goes, as far as the daemons do not mend it themselves.
fn undo(lab: &Lab, case: &Case, cause: Cause) -> Result<()> {
    match cause {
        Cause::LocalWrites => fail_writes(lab, case, &case.consumer, false),
        Cause::RemoteWrites => fail_writes(lab, case, &case.target, false),
        Cause::Disconnect | Cause::NamespaceDisabled => Ok(()),
    }
}

/// Every namespace of the target's exports.
fn enable(lab: &Lab, case: &Case, on: bool) -> Result<()> {
    let script = format!(
        "for e in /sys/kernel/config/nvmet/subsystems/nqn.2026-11*/namespaces/1/enable; do echo {} > $e; done",
        u8::from(on)
    );
    lab.guest(&case.target)?.shell(&script).map(drop)
}

/// The drive of a node's leg fails writes to the leg's partition, and to nothing else.
fn fail_writes(lab: &Lab, case: &Case, node: &str, on: bool) -> Result<()> {
    let leg = lab.control.api.get(&ours("meshreplicas", &Volume::named(lab, &case.name).leg_on(node)?))?;
    let seen = lab.control.api.get(&ours("meshnodes", node))?;
    let mut drives = seen["status"]["drives"].as_array().into_iter().flatten();
    let path = drives.find(|drive| drive["id"] == leg["spec"]["drive"]).and_then(|drive| drive["path"].as_str());
    let letter = path.and_then(|path| path.strip_prefix("/dev/ubd")?.bytes().next()).context("the leg has a drive")?;
    let bytes = |value: &Value| value.as_u64().context("the leg has a partition");
    let first = bytes(&leg["status"]["partition"]["firstByte"])?;
    let range = first..first + bytes(&leg["status"]["partition"]["sizeBytes"])?;
    let faults = if on { vec![Fault::Fail(Which { kinds: Kinds::Writes, range })] } else { Vec::new() };
    lab.guest(node)?.drive(usize::from(letter - b'a'))?.set(faults);
    Ok(())
}
