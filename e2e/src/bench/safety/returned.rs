//! How much is copied to a leg that was away for a while, against what was written meanwhile.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::bed::Bed;
use crate::bench::Row;
use crate::lab::Lab;
use crate::load::Load;
use crate::say;
use crate::wait::{pause, secs};

const RUNS: usize = 3;
const NAME: &str = "resynced-per-dirtied";
/// Size of the volume in MiB.
const MIB: u64 = 1024;
/// What the writer writes to: 64 MiB, at first in order, then anywhere in it.
const BLOCKS: u64 = 16_384;
/// From the power cut until the target has power again, in seconds.
const OUTAGE: u64 = 30;

pub(super) fn rows(lab: &mut Lab) -> Result<Vec<Row>> {
    let bed = Bed::new(lab, "returned", MIB)?;
    let load = Load::new("returned", BLOCKS);
    let runs = (1..=RUNS).map(|run| outage(lab, &bed, &load, run)).collect::<Result<Vec<_>>>()?;
    bed.verify_alone(lab, &load)?;
    let pairs = |other: fn(&Outage) -> f64| runs.iter().map(|run| (run.resynced, other(run))).collect::<Vec<_>>();
    Ok(vec![
        Row::of_pairs(NAME, "MiB, of marked chunks", "≤ 1.2", &pairs(|run| run.dirtied)),
        Row::of_pairs(&format!("{NAME}/written"), "MiB, of blocks written", "none given", &pairs(|run| run.written)),
    ])
}

/// What one outage brought, in MiB.
struct Outage {
    /// Written to the leg that came back, all told.
    resynced: f64,
    /// Chunks that the bitmap marked.
    dirtied: f64,
    /// Blocks that the writer wrote.
    written: f64,
}

/// One run. The writer ends when the outage does: what is written during the copying goes to both legs and would count as copied.
fn outage(lab: &mut Lab, bed: &Bed, load: &Load, run: usize) -> Result<Outage> {
    bed.wait_clear(lab)?;
    load.start(lab, &bed.consumer, &bed.device)?;
    let before = load.wait_for_progress(lab, &bed.consumer, 100, secs(60))?.flushed();
    let cut = Instant::now();
    bed.lose(lab)?;
    pause(secs(OUTAGE).saturating_sub(cut.elapsed()));
    load.stop(lab, &bed.consumer)?;
    let (written, dirtied) = (load.bytes(before + 1..=load.journal(lab, &bed.consumer)?.issued), bed.marked(lab)?);
    ensure!(written > 0 && dirtied > 0, "nothing was written in the outage");
    lab.power_on(&bed.target)?;
    bed.volume(lab).wait_whole(2)?;
    let [resynced, dirtied, written] =
        [bed.written(lab)?, dirtied, written].map(|bytes| bytes as f64 / 1024.0 / 1024.0);
    say!("{NAME} {run}/{RUNS}: written {written:.1} MiB, dirtied {dirtied:.0} MiB, resynced {resynced:.1} MiB");
    Ok(Outage { resynced, dirtied, written })
}
