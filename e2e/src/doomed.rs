//! A consumer that is cut off and given up: what becomes of the writes that it acknowledged.
//!
//! As the daemon connects (`ctrl_loss_tmo=-1`, no fast-fail) a write that cannot reach a leg is held until its loss is recorded, so
//! none is acknowledged that the next consumer does not have. With timers as others ship them the kernel gives the lost legs up by
//! itself, MD acknowledges on the one that is left, and the next consumer starts without it: these writes are lost.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use crate::lab::Lab;
use crate::load::Load;
use crate::partition::{self, Cut, Way};
use crate::say;
use crate::volume::Volume;
use crate::wait::{Look, pause, secs, wait_for};

/// How the consumer's kernel treats a path that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timers {
    /// As the daemon asks for.
    Ours,
    /// A request fails 1 s, the controller goes 3 s after the path is found lost: `fast_io_fail_tmo` and `ctrl_loss_tmo` as the
    /// documented product sets them. There is no switch for this in ours: it is done by hand, in the consumer's sysfs.
    FastFail,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doomed {
    /// Batches that the writer had flushed when the consumer was cut off.
    pub before: u64,
    /// Batches that it has flushed when all is over.
    pub flushed: u64,
    /// Acknowledged writes of single blocks that the next consumer does not have.
    pub lost_writes: u64,
    /// Batches that these belong to.
    pub lost_batches: usize,
}

/// How long the old consumer is left alone after the volume is usable elsewhere: more than both timers and keep-alive together.
const ALONE: Duration = secs(8);
/// Blocks that the writer writes to.
const BLOCKS: u64 = 1024;

/// Sets both timers of every controller there is.
const FAST_FAIL: &str = "cd /sys/class/nvme && for c in nvme*; do
    echo 1 > $c/fast_io_fail_tmo && echo 3 > $c/ctrl_loss_tmo && cat $c/fast_io_fail_tmo $c/ctrl_loss_tmo || exit 1
done";

/// A volume `name` of two copies is written to on the node of one of them; that node is cut off from everything and given up, and
/// what was acknowledged there, until it hears of it, is held against what the volume's next consumer reads. Leaves nothing behind.
pub fn run(lab: &mut Lab, name: &str, timers: Timers) -> Result<Doomed> {
    let spec = json!({ "capacity": "64Mi", "replicaCount": 2, "filesystem": "none" });
    let volume = Volume::create(lab, name, &spec)?;
    let legs = volume.leg_nodes()?;
    let [consumer, target] = legs.as_slice() else { bail!("two legs, but {legs:?}") };
    let load = Load::new(name, BLOCKS);
    let device = volume.attach(consumer, false)?;
    if timers == Timers::FastFail {
        lab.guest(consumer)?.shell(FAST_FAIL)?;
    }
    load.start(lab, consumer, &device)?;
    load.wait_for_progress(lab, consumer, 50, secs(60))?;

    partition::cut(lab.guest(consumer)?, Cut::Both, Way::Both)?;
    let before = load.journal(lab, consumer)?.flushed();
    volume.give_up(target, false)?;
    let device = volume.wait_attached(target, false)?;
    let dropped = partition::dropped(lab.guest(consumer)?)?;
    ensure!(dropped > 0, "nothing was cut: the fault did not fire");
    pause(ALONE);
    let scan = load.scan(lab, target, &device)?;
    partition::heal(lab.guest(consumer)?)?;
    wait_for("the fenced array to be gone", secs(60), || {
        let arrays = lab.guest(consumer)?.shell("find /sys/block -name 'md*' -printf '%f '")?;
        Ok(if arrays.trim().is_empty() { Look::Done(()) } else { Look::NotYet(arrays) })
    })?;

    let run = load.run(lab, consumer)?;
    let verdict = scan.judge(std::slice::from_ref(&run));
    let doomed = Doomed {
        before,
        flushed: run.journal.flushed(),
        lost_writes: verdict.lost,
        lost_batches: verdict.lost_batches,
    };
    say!("{timers:?}: {dropped} packets dropped; {doomed:?}");
    volume.wait_whole(2).context("the fenced consumer's leg comes back")?;
    volume.detach()?;
    volume.delete()?;
    Ok(doomed)
}
