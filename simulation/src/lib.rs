//! The real planning and hands of operator and daemons against a fake API server and fake kernels, under one seeded
//! scheduler and in virtual time. `README.md` says what is simulated, what is not, and within which bounds.
//!
//! A run has a fault phase, in which everything that may go wrong does and the oracle looks after every step, and a heal
//! phase, at whose end everything is as it is wanted and stays so.

// Only tests use it, and a map of names that the run itself made is not asked twice.
#![allow(clippy::result_large_err)]

mod api;
mod clock;
mod cluster;
mod daemon;
mod diary;
mod faults;
mod heal;
mod http;
pub mod lives;
mod net;
mod operator;
mod oracle;
mod rules;
mod sim;

use std::collections::BTreeMap;

/// From this seed on a person moves legs too. Seeds below do what they did before there was one.
pub const MOVES: u64 = 1 << 32;

/// A bug that is put in between, to see that the oracle notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A leg is confirmed while I/O of the old epoch is still inside its target.
    SkipsRevokeWait,
    /// Connections fail fast: the kernel lets a leg go before that is recorded.
    FailsBeforeRecording,
    /// A leg that was away counts as in sync as soon as it is added.
    ReturnsWithoutRebuild,
    /// A target that rebooted serves the exports of before.
    ServesSpentGrant,
    /// A daemon takes an epoch that another process claimed for its own.
    AssemblesTwice,
    /// A daemon takes an unknown outcome for success.
    IgnoresUnknownOutcome,
    /// What is refused has done something before.
    RefusesHalfway,
    /// A failure gate that acknowledges what it should hold.
    AcknowledgesWhileHolding,
}

/// How to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// What is wrong.
    pub bug: Option<Bug>,
    /// Kernels have the failure gate, and drives and people give MD errors at any time.
    pub gate: bool,
    /// Each process of the operator finds the rebuild budget used up by others, for a while.
    pub crowded: bool,
    /// Keep what happened.
    pub log: bool,
    /// Steps of the fault phase; none for the usual number.
    pub steps: Option<u32>,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The invariant that was broken, and how.
    pub failure: Option<String>,
    /// What happened, if that was kept.
    pub log: Vec<String>,
    /// How often each thing happened, faults among it.
    pub counts: BTreeMap<&'static str, u64>,
}

/// Runs a seed: the same one always does the same.
pub fn run(seed: u64, options: Options) -> Outcome {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else {
        return Outcome { failure: Some("no runtime".to_owned()), ..Outcome::default() };
    };
    let mut sim = sim::Sim::new(seed, options, &runtime);
    let diary = sim.net.state().log.clone();
    let ended = match diary {
        Some(diary) => diary.around(|| sim.whole()),
        None => sim.whole(),
    };
    sim.outcome(ended.err())
}

/// How a seed is run: every other one with the failure gate, every third one in a crowded cluster.
pub fn usual(seed: u64) -> Options {
    Options { gate: seed.is_multiple_of(2), crowded: seed.is_multiple_of(3), ..Options::default() }
}

/// What to type to see a seed again.
pub fn replay(seed: u64) -> String {
    format!("make soak SEEDS=1 FIRST={seed}")
}
