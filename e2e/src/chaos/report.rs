//! What a run of the matrix gives: a row a case, as JSON and as a table.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::Case;

/// Beginning of [`Row::moment`] where the moment was over when the fault came.
pub const MISSED: &str = "MISSED";

/// What came of one case.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Row {
    /// Which.
    pub case: Case,
    /// Where the volume stood when the fault came, by the record and the kernel.
    pub moment: String,
    /// What a person or a controller did about it.
    pub answer: String,
    /// Proof that the fault was there.
    pub proof: String,
    /// Seconds from the fault until a write was acknowledged where the volume is wanted.
    pub usable: Option<f64>,
    /// The same from the heal; negative where the heal was not needed.
    pub usable_after_heal: Option<f64>,
    /// Seconds from the heal until every copy was in sync.
    pub whole_after_heal: Option<f64>,
    /// Bytes in regions that the array's bitmap marked when the outage ended, once for each leg that was away.
    pub dirtied: u64,
    /// Bytes that were then copied to these legs.
    pub resynced: u64,
    /// What is wrong; empty for a case that holds.
    pub wrong: Vec<String>,
}

impl Row {
    /// Bytes resynced ÷ bytes dirtied in the outage; none where nothing was.
    #[allow(clippy::cast_precision_loss, reason = "a ratio of two numbers of bytes")]
    pub fn ratio(&self) -> Option<f64> {
        (self.dirtied > 0).then(|| self.resynced as f64 / self.dirtied as f64)
    }
}

/// A run.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Report {
    /// What chose nodes, moments and answers.
    pub seed: u64,
    /// Its cases so far.
    pub rows: Vec<Row>,
}

impl Report {
    /// Writes `<name>.json` and `<name>.md` into `dir`.
    pub fn write(&self, dir: &Path, name: &str) -> Result<()> {
        std::fs::create_dir_all(dir)?;
        let json = dir.join(format!("{name}.json"));
        std::fs::write(&json, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| format!("write {}", json.display()))?;
        std::fs::write(json.with_extension("md"), self.markdown()).context("write the table")
    }

    /// Joins the reports `<seed>-….json` of `dir` to `<seed>.json` and `<seed>.md`; none where there are none.
    pub fn join(dir: &Path, seed: u64) -> Result<Option<Self>> {
        let Ok(entries) = std::fs::read_dir(dir) else { return Ok(None) };
        let (mut rows, prefix) = (Vec::new(), format!("{seed}-"));
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !name.starts_with(&prefix) {
                continue;
            }
            if name.ends_with(".json") {
                let text = std::fs::read_to_string(&path)?;
                let part: Self = serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
                rows.extend(part.rows);
            }
            std::fs::remove_file(&path)?;
        }
        rows.sort_by_key(|row| row.case);
        let report = Self { seed, rows };
        if report.rows.is_empty() {
            return Ok(None);
        }
        report.write(dir, &seed.to_string())?;
        Ok(Some(report))
    }

    /// The table, with its last line.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "Chaos from seed {}.\n\n| case | verdict | usable s | after heal s | whole s | resynced ÷ dirtied | moment | answer | proof |\n\
             |---|---|--:|--:|--:|--:|---|---|---|\n",
            self.seed
        );
        for row in &self.rows {
            text += &line(row);
        }
        let wrong: Vec<&Row> = self.rows.iter().filter(|row| !row.wrong.is_empty()).collect();
        let missed = self.rows.iter().filter(|row| row.moment.starts_with(MISSED)).count();
        text += &format!("\n{} cases, {} wrong, {missed} missed their moment\n", self.rows.len(), wrong.len());
        for row in wrong {
            text += &format!("\n- {}: {}\n", row.case, row.wrong.join("; "));
        }
        text
    }
}

fn line(row: &Row) -> String {
    let number = |n: Option<f64>| n.map_or_else(|| "–".to_owned(), |n| format!("{n:.1}"));
    let ratio = row.ratio().map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2} of {} MiB", row.dirtied >> 20));
    let verdict = if row.wrong.is_empty() { "ok" } else { "WRONG" };
    format!(
        "| {} | {verdict} | {} | {} | {} | {ratio} | {} | {} | {} |\n",
        row.case,
        number(row.usable),
        number(row.usable_after_heal),
        number(row.whole_after_heal),
        row.moment,
        row.answer,
        row.proof
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::{Fault, Moment, Victim};

    #[test]
    fn a_wrong_case_is_told_of_twice() {
        let case = Case { fault: Fault::OneWay, victim: Victim::Targets, moment: Moment::Load };
        let row = Row {
            case,
            moment: "writing".to_owned(),
            answer: "none".to_owned(),
            proof: "9 packets dropped".to_owned(),
            usable: Some(4.56),
            usable_after_heal: None,
            whole_after_heal: Some(7.0),
            dirtied: 4 << 20,
            resynced: 5 << 20,
            wrong: Vec::new(),
        };
        let bad = Row { wrong: vec!["I1: gone".to_owned()], dirtied: 0, ..row.clone() };
        let text = Report { seed: 7, rows: vec![row, bad] }.markdown();
        assert!(
            text.contains(
                "| one-way/targets/load | ok | 4.6 | – | 7.0 | 1.25 of 4 MiB | writing | none | 9 packets dropped |"
            ),
            "{text}"
        );
        assert!(
            text.contains("| WRONG | 4.6 | – | 7.0 | – |") && text.contains("2 cases, 1 wrong, 0 missed"),
            "{text}"
        );
        assert!(text.contains("- one-way/targets/load: I1: gone"), "{text}");
    }
}
