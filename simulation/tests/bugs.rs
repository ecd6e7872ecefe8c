//! Each seeded bug is caught: else the oracle would not see what it is there for.

#![allow(clippy::panic, missing_docs)]

use meshstor_simulation::{Bug, Options, run};

/// Seeds within which a bug must be noticed.
const SEEDS: u64 = 2_000;
/// Seeds in which something must do no harm.
const HARMLESS: u64 = 300;

fn caught(bug: Bug, by: &[&str]) {
    for seed in 1..=SEEDS {
        let gate = bug == Bug::AcknowledgesWhileHolding;
        let options = Options { bug: Some(bug), gate, ..Options::default() };
        let Some(failure) = run(seed, options).failure else { continue };
        println!("{bug:?}: seed {seed}: {failure}");
        assert!(by.iter().any(|i| failure.starts_with(i)), "seed {seed}: caught by another check: {failure}");
        return;
    }
    panic!("{bug:?} was not noticed in {SEEDS} seeds");
}

/// I2, rule 2: a leg is confirmed when no I/O of an older epoch can land any more.
#[test]
fn a_revocation_that_does_not_wait() {
    caught(Bug::SkipsRevokeWait, &["I1", "I2", "I6"]);
}

/// I1, rule 5: record, then fail.
#[test]
fn a_leg_that_fails_before_it_is_recorded() {
    caught(Bug::FailsBeforeRecording, &["I1", "I6"]);
}

/// I6, rule 7: a return is a rebuild.
#[test]
fn a_return_that_is_not_a_rebuild() {
    caught(Bug::ReturnsWithoutRebuild, &["I1", "I6"]);
}

/// I1, rule 1: what a drive had not flushed is gone when its target has rebooted.
#[test]
fn a_spent_grant_that_is_served_again() {
    caught(Bug::ServesSpentGrant, &["I1", "I6"]);
}

/// I2, rule 4: one assembly, one epoch.
#[test]
fn a_second_assembly_in_one_epoch() {
    caught(Bug::AssemblesTwice, &["I2"]);
}

/// I1, rule 5: a loss is recorded when a definite outcome says so.
#[test]
fn a_daemon_that_takes_an_unknown_outcome_for_success() {
    caught(Bug::IgnoresUnknownOutcome, &["I1", "I6"]);
}

/// I1: what MD acknowledges while it waits for the record is on the legs that are left alone.
#[test]
fn a_failure_gate_that_does_not_hold() {
    caught(Bug::AcknowledgesWhileHolding, &["I1", "I6"]);
}

/// I1: with the failure gate a fence that gives MD errors instead of a hang loses nothing.
#[test]
fn a_leg_that_fails_before_it_is_recorded_does_no_harm_behind_the_failure_gate() {
    for seed in 1..=HARMLESS {
        let options = Options { bug: Some(Bug::FailsBeforeRecording), gate: true, ..Options::default() };
        let failure = run(seed, options).failure;
        assert_eq!(failure, None, "seed {seed}");
    }
}

/// I8: a refusal leaves the event counter as it was.
#[test]
fn a_refusal_that_does_something() {
    caught(Bug::RefusesHalfway, &["I8"]);
}
