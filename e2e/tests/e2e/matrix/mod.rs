//! Chaos on real kernels: every fault, to whom, at each moment (`meshstor_e2e::chaos`).
//!
//! One fault of one node makes up to five cases at once: a volume of three copies for each moment, brought there before the fault
//! comes. Each has its own verdict: what the writers were promised is held against what the next consumer reads and against
//! each leg alone; the record, the exports and the kernels' logs are looked at; the fault proves that it was there.
//!
//! `make test` runs a few of these batches, in turn by a seed that is printed; `make chaos` runs all.

mod batch;
mod outage;
mod prepare;
mod scene;
mod strike;
mod verdict;

use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};
use meshstor_e2e::chaos::{Batch, Fault, Report, Victim, batches, choose};
use meshstor_e2e::lab::Lab;
use meshstor_e2e::prerequisites::Prerequisites;
use meshstor_e2e::say;

use crate::Test;

/// Batches of a run that nobody asked more of: three minutes.
const FEW: usize = 2;

/// A test for each batch.
macro_rules! tests {
    ($($name:literal: $fault:ident $victim:ident),+) => {
        [$((Fault::$fault, Victim::$victim, ($name, |lab| run(lab, Fault::$fault, Victim::$victim)))),+]
    };
}
const TESTS: [(Fault, Victim, Test); 21] = tests!(
    "chaos_kill_consumer": Kill Consumer, "chaos_kill_target": Kill Target, "chaos_kill_targets": Kill Targets,
    "chaos_hang_consumer": Hang Consumer, "chaos_hang_target": Hang Target, "chaos_hang_targets": Hang Targets,
    "chaos_reboot_consumer": Reboot Consumer, "chaos_reboot_target": Reboot Target, "chaos_reboot_targets": Reboot Targets,
    "chaos_control_consumer": Control Consumer, "chaos_control_target": Control Target, "chaos_control_targets": Control Targets,
    "chaos_data_consumer": Data Consumer, "chaos_data_target": Data Target, "chaos_data_targets": Data Targets,
    "chaos_both_consumer": Both Consumer, "chaos_both_target": Both Target, "chaos_both_targets": Both Targets,
    "chaos_one_way_consumer": OneWay Consumer, "chaos_one_way_target": OneWay Target, "chaos_one_way_targets": OneWay Targets
);

/// The batches of this run. `all`: whoever names tests chooses among all of them.
pub(crate) fn tests(all: bool) -> Result<Vec<Test>> {
    let count = match setting("MESHSTOR_CHAOS_BATCHES") {
        Some(number) => number.parse().with_context(|| format!("MESHSTOR_CHAOS_BATCHES={number}"))?,
        None if all => TESTS.len(),
        None => FEW,
    };
    let chosen = choose(&batches(&cases()), seed()?, count);
    if chosen.is_empty() {
        bail!("no case is called {:?}", cases());
    }
    let test = |batch: &Batch| TESTS.iter().find(|(f, v, _)| *f == batch.fault && *v == batch.victim).map(|(.., t)| *t);
    Ok(chosen.iter().filter_map(test).collect())
}

/// Every batch, for a process that is told which to run.
pub(crate) fn every() -> Vec<Test> {
    TESTS.iter().map(|(.., test)| *test).collect()
}

/// What the processes that carry out this run must have in their environment.
pub(crate) fn settings() -> Vec<(&'static str, String)> {
    seed().map(|seed| ("MESHSTOR_CHAOS_SEED", seed.to_string())).into_iter().collect()
}

fn setting(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|text| !text.is_empty())
}

/// What the names of this run's cases contain.
fn cases() -> String {
    setting("MESHSTOR_CHAOS_CASES").unwrap_or_default()
}

/// The run's seed: what was asked for, or one by chance.
fn seed() -> Result<u64> {
    static SEED: OnceLock<u64> = OnceLock::new();
    let asked = setting("MESHSTOR_CHAOS_SEED");
    let asked = asked.map(|text| text.parse().with_context(|| format!("MESHSTOR_CHAOS_SEED={text}"))).transpose()?;
    Ok(*SEED.get_or_init(|| asked.unwrap_or_else(|| u64::from(fastrand::u32(..)))))
}

/// One batch; its rows are written down whatever comes of it.
fn run(lab: &mut Lab, fault: Fault, victim: Victim) -> Result<()> {
    let seed = seed()?;
    let Some(batch) = batches(&cases()).into_iter().find(|b| b.fault == fault && b.victim == victim) else {
        return Ok(());
    };
    say!("replay with: make chaos SEED={seed} CASE={fault}/{victim}/");
    let rows = batch::run(lab, &batch, seed);
    let wrong: Vec<String> = rows
        .iter()
        .filter(|row| !row.wrong.is_empty())
        .map(|row| format!("{}: {}", row.case, row.wrong.join("; ")))
        .collect();
    Report { seed, rows }.write(&lab.prerequisites().target.join("chaos"), &format!("{seed}-{fault}-{victim}"))?;
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}

/// Joins what this run's batches wrote down to one table, and prints it. Each process wrote of its own.
pub(crate) fn conclude() {
    let joined = Prerequisites::find().and_then(|found| Report::join(&found.target.join("chaos"), seed()?));
    match joined {
        Ok(Some(report)) => println!("{}", report.markdown()),
        Ok(None) => {}
        Err(error) => println!("the table of chaos was not written: {error:#}"),
    }
}
