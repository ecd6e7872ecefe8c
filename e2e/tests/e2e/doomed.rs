//! Acknowledgements of a consumer that is cut off: none with the daemon's timers, lost writes with those of others.

use anyhow::{Result, ensure};
use meshstor_e2e::doomed::{Timers, run};
use meshstor_e2e::lab::Lab;

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("cut_off_consumer_acknowledges_nothing", ours),
    ("cut_off_consumer_with_fast_fail_timers_loses_writes", fast_fail),
];

/// I1, I2: what a consumer that is cut off and given up acknowledged, the next one has.
fn ours(lab: &mut Lab) -> Result<()> {
    let doomed = run(lab, "ours", Timers::Ours)?;
    ensure!(doomed.lost_writes == 0 && doomed.lost_batches == 0, "acknowledged writes are lost: {doomed:?}");
    // One may have been on its way back to the writer.
    ensure!(doomed.flushed <= doomed.before + 1, "it went on acknowledging: {doomed:?}");
    Ok(())
}

/// I1 with timers that fail a leg before its loss is recorded: writes are acknowledged and lost. The oracle must see that.
fn fast_fail(lab: &mut Lab) -> Result<()> {
    let doomed = run(lab, "fast-fail", Timers::FastFail)?;
    ensure!(doomed.flushed > doomed.before + 1, "nothing was acknowledged: the timers did not fire: {doomed:?}");
    ensure!(doomed.lost_writes > 0, "the oracle saw no lost write: {doomed:?}");
    Ok(())
}
