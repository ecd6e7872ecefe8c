//! I1–I4, I6–I8: nothing that goes wrong in any of the seeds breaks an invariant, and everything comes to rest.

#![allow(clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use meshstor_simulation::{MOVES, Options, Outcome, replay, run, usual};

/// Seeds that failed once: always run.
const REGRESSIONS: &str = include_str!("../regressions.txt");
const SEEDS: u64 = 10_000;
/// One in so many runs is one in which legs are moved.
const MOVED: u64 = 5;
/// Failures after which no more are looked for.
const MOST: usize = 10;

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(usual)
}

fn regressions() -> Vec<u64> {
    REGRESSIONS.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
}

/// Runs a seed that failed again, with what happened.
fn explain(seed: u64, options: Options, failure: &str) -> String {
    let again = run(seed, Options { log: true, ..options });
    let tail = again
        .log
        .len()
        .saturating_sub(number("MESHSTOR_LOG", if number("SEEDS", SEEDS) == 1 { u64::MAX } else { 120 }) as usize);
    let known = if again.failure.is_some() { "" } else { "\n(and did not fail when it was run again)" };
    format!("{}\nseed {seed}: {failure}{known}\nreplay: {}", again.log[tail..].join("\n"), replay(seed))
}

fn all(seeds: &[(u64, Options)]) -> BTreeMap<&'static str, u64> {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (counts, failed) = (Mutex::new(BTreeMap::new()), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..number("MESHSTOR_THREADS", 2) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed) as usize;
                    let Some((seed, options)) = seeds.get(index) else { return };
                    let Outcome { failure, counts: some, .. } = run(*seed, *options);
                    if let Some(failure) = failure {
                        println!("seed {seed} FAILED: {}", failure.chars().take(300).collect::<String>());
                        let mut all = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        all.insert(*seed, (*options, failure));
                        stop.store(all.len() >= MOST, Ordering::Relaxed);
                    }
                    let mut all = counts.lock().unwrap_or_else(PoisonError::into_inner);
                    some.into_iter().for_each(|(what, times)| *all.entry(what).or_default() += times);
                }
            });
        }
    });
    if let Some((seed, (options, failure))) = failed.into_inner().unwrap_or_else(PoisonError::into_inner).pop_first() {
        panic!("{}", explain(seed, options, &failure));
    }
    counts.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn no_seed_breaks_an_invariant() {
    let (first, count) = (number("FIRST", 1), number("SEEDS", SEEDS));
    let with = |seed: u64| (seed, usual(seed));
    // They failed before there was a failure gate.
    let old = if count >= SEEDS { regressions() } else { Vec::new() };
    let mut seeds: Vec<(u64, Options)> = old.into_iter().map(|seed| (seed, Options::default())).collect();
    seeds.extend((first..first.saturating_add(count)).map(with));
    if count >= SEEDS {
        let first = MOVES.saturating_add(first);
        seeds.extend((first..first.saturating_add(count / MOVED)).map(with));
    }
    let begun = Instant::now();
    let counts = all(&seeds);
    println!("{} seeds in {:.0} s", seeds.len(), begun.elapsed().as_secs_f64());
    counts.iter().for_each(|(what, times)| println!("{times:>9} {what}"));
    let fired = |what: &str| counts.get(what).is_some_and(|n| *n > 0);
    if count >= SEEDS {
        for fault in [
            "power cut",
            "daemon killed",
            "daemon died at an effect",
            "operator killed",
            "operator died at an effect",
            "second operator",
            "API server out of reach",
            "nodes cut off from each other",
            "packets dropped one way",
            "answer lost",
            "request lost",
            "request late",
            "drive error",
            "drive error at any time",
            "path taken away",
            "deleted",
            "flushes acknowledged",
            "step refused by a host",
            "leg asked to leave or stay",
            "heir in sync",
            "node drained",
            "drain ended",
            "node emptied",
            "copied while nobody used it",
            "connected to, copied to later",
        ] {
            assert!(fired(fault), "{fault}: it never happened");
        }
    }
}
