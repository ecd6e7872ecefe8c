//! Acknowledged writes that are lost when a consumer is cut off and its volume goes on elsewhere: with the timers that the daemon asks
//! for, and with those that others ship.

use anyhow::{Result, ensure};

use crate::bench::Row;
use crate::doomed::{self, Doomed, Timers};
use crate::lab::Lab;
use crate::say;

const RUNS: usize = 3;
const NAME: &str = "lost-writes";

pub(super) fn rows(lab: &mut Lab) -> Result<Vec<Row>> {
    let ours = runs(lab, NAME, Timers::Ours)?;
    let unsafe_name = format!("{NAME}-unsafe");
    let others = runs(lab, &unsafe_name, Timers::FastFail)?;
    // The oracle must see them: it would find none of ours either.
    ensure!(others.iter().all(|run| run.lost_writes > 0), "fast-fail timers lost nothing: {others:?}");
    let blocks = |runs: &[Doomed]| runs.iter().map(|run| run.lost_writes as f64).collect::<Vec<_>>();
    let batches = |runs: &[Doomed]| runs.iter().map(|run| run.lost_batches as f64).collect::<Vec<_>>();
    Ok(vec![
        Row::worst_of_runs(NAME, "acknowledged writes of 4 KiB, worst run", "0", &blocks(&ours)),
        Row::of_runs(&unsafe_name, "acknowledged writes of 4 KiB", "more than 0", blocks(&others)),
        Row::of_runs(&format!("{unsafe_name}/flushes"), "flushes that returned", "none given", batches(&others)),
    ])
}

fn runs(lab: &mut Lab, name: &str, timers: Timers) -> Result<Vec<Doomed>> {
    (1..=RUNS)
        .map(|run| {
            let doomed = doomed::run(lab, &format!("{name}-{run}"), timers)?;
            say!("{name} {run}/{RUNS}: {} of {} flushes were lost", doomed.lost_batches, doomed.flushed);
            Ok(doomed)
        })
        .collect()
}
