//! Benchmarks: ratios measured in one run of one lab, written as JSON and as a table. Nothing is asserted about time.

mod audit;
mod by_hand;
pub mod drain;
mod foreground;
mod idle;
pub mod life;
pub mod many_legs;
pub mod operator;
pub mod placement;
pub mod safety;
mod simulated;
pub mod volume;

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::say;

/// One line of a table: what we take, what the reference takes in the same run, and what we aim at.
#[derive(Serialize, Clone, Debug, PartialEq)]
pub struct Row {
    /// Stable name.
    pub name: String,
    /// Unit of `ours` and `reference`.
    pub unit: &'static str,
    /// Median of our runs.
    pub ours: f64,
    /// Median of the reference's runs; none where there is nothing to compare with.
    pub reference: Option<f64>,
    /// Median of the runs' ratios, ours ÷ reference, each from two measurements that follow one another.
    pub ratio: Option<f64>,
    /// What we aim at, in words.
    pub aim: &'static str,
    /// Number of runs.
    pub runs: usize,
}

impl Row {
    /// From pairs of measurements (ours, reference).
    pub fn of_pairs(name: &str, unit: &'static str, aim: &'static str, pairs: &[(f64, f64)]) -> Self {
        let column = |f: fn(&(f64, f64)) -> f64| median(pairs.iter().map(f).collect());
        Self {
            name: name.to_owned(),
            unit,
            ours: column(|p| p.0),
            reference: Some(column(|p| p.1)),
            ratio: Some(column(|p| p.0 / p.1)),
            aim,
            runs: pairs.len(),
        }
    }

    /// From several measurements that have no reference.
    pub fn of_runs(name: &str, unit: &'static str, aim: &'static str, values: Vec<f64>) -> Self {
        Self { runs: values.len(), ..Self::of_one(name, unit, aim, median(values)) }
    }

    /// The worst of several measurements that have no reference: the largest.
    pub fn worst_of_runs(name: &str, unit: &'static str, aim: &'static str, values: &[f64]) -> Self {
        let worst = values.iter().copied().fold(f64::NAN, f64::max);
        Self { runs: values.len(), ..Self::of_one(name, unit, aim, worst) }
    }

    /// From one measurement that has no reference.
    pub fn of_one(name: &str, unit: &'static str, aim: &'static str, ours: f64) -> Self {
        Self { name: name.to_owned(), unit, ours, reference: None, ratio: None, aim, runs: 1 }
    }
}

/// What an area's measurement gives.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The table.
    pub rows: Vec<Row>,
    /// What was counted, a line each, where that is of use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub list: Vec<String>,
}

impl From<Vec<Row>> for Report {
    fn from(rows: Vec<Row>) -> Self {
        Self { rows, list: Vec::new() }
    }
}

/// The middle one, or the mean of the two in the middle; NaN of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// Writes `<area>.json` and `<area>.md` into `dir`, and prints the latter.
pub fn write(dir: &Path, area: &str, report: &Report) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let json = dir.join(area).with_extension("json");
    std::fs::write(&json, serde_json::to_string_pretty(report)? + "\n")
        .with_context(|| format!("write {}", json.display()))?;
    let table = markdown(report);
    std::fs::write(json.with_extension("md"), &table)?;
    println!("{table}");
    say!("written to {}", json.display());
    Ok(())
}

fn markdown(report: &Report) -> String {
    let number = |n: f64| if n.abs() >= 100.0 { format!("{n:.0}") } else { format!("{n:.3}") };
    let optional = |n: Option<f64>| n.map_or_else(|| "–".to_owned(), number);
    let head = "| name | unit | ours | reference | ratio | aim | runs |\n|---|---|--:|--:|--:|---|--:|\n";
    let rows = report.rows.iter().map(|row| {
        format!(
            "| {} | {} | {} | {} | {} | {} | {} |\n",
            row.name,
            row.unit,
            number(row.ours),
            optional(row.reference),
            optional(row.ratio),
            row.aim,
            row.runs
        )
    });
    let list = report.list.iter().map(|line| format!("- {line}\n"));
    let gap = if report.list.is_empty() { "" } else { "\n" };
    std::iter::once(head.to_owned()).chain(rows).chain([gap.to_owned()]).chain(list).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_the_median_of_pairs() {
        let row = Row::of_pairs("x", "s", "≤ 1.5", &[(1.0, 1.0), (9.0, 3.0), (4.0, 2.0)]);
        assert_eq!((row.ours, row.reference, row.ratio, row.runs), (4.0, Some(2.0), Some(2.0), 3));
        assert_eq!(median(vec![1.0, 2.0]), 1.5);
        assert_eq!(Row::worst_of_runs("x", "s", "≤ 5", &[2.0, 9.0, 4.0]).ours, 9.0);
    }

    #[test]
    fn a_table_has_a_line_for_each_row() {
        let rows = [
            Row::of_one("idle-rss", "MiB", "< 20", 12.34),
            Row::of_pairs("fio", "IOPS", "0.97–1.03", &[(500.0, 500.0)]),
        ];
        let table = markdown(&Report { rows: rows.into(), list: vec!["a line".to_owned()] });
        assert!(table.ends_with("\n\n- a line\n"), "{table}");
        assert!(table.contains("| idle-rss | MiB | 12.340 | – | – | < 20 | 1 |"), "{table}");
        assert!(table.contains("| fio | IOPS | 500 | 500 | 1.000 | 0.97–1.03 | 1 |"), "{table}");
    }
}
