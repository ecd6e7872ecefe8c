//! Runs a check and says how large it was.

use std::io::Write as _;
use std::time::Instant;

use meshstor_model::{Bounds, Protocol, Verdict};

/// Two nodes, two epochs, a write; nothing goes wrong but what may always be late.
pub const SMALL: Bounds = Bounds {
    nodes: 2,
    slots: 2,
    epochs: 2,
    writes: 1,
    crashes: 0,
    kills: 0,
    losses: 0,
    timeouts: 0,
    errors: 0,
    retired: 0,
    stops: 0,
    stale: false,
    volatile: false,
    gate: false,
    heals: false,
    without: None,
};

/// Goes through the bounds, as deep as `depth` steps, and prints what that took.
pub fn check(name: &str, bounds: Bounds, depth: Option<usize>) -> Verdict {
    let began = Instant::now();
    let verdict = Protocol { bounds }.check(1, depth);
    let found = verdict.broken.as_ref().map_or_else(
        || "nothing is broken".to_owned(),
        |(what, steps)| format!("{what:?} after {} steps", steps.len()),
    );
    // Past the capture of the test runner: the count is to be seen in every run.
    let seconds = began.elapsed().as_secs_f64();
    let line = format!("model: {name}: {} states, {found}, {seconds:.1} s\n", verdict.states);
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    verdict
}
