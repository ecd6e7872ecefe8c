//! What is on a device, block by block, held against what one or several runs of the writer wrote down.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, bail};

use super::{Aligned, BLOCK, Block, Journal, Shape};

/// One run of the writer on a device.
#[derive(Clone, Debug)]
pub struct Run {
    /// What it wrote.
    pub shape: Shape,
    /// What it wrote down.
    pub journal: Journal,
}

/// What one block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing was ever written to it.
    Zeros,
    /// A write of a run.
    Written {
        /// The run.
        seed: u64,
        /// Its batch.
        batch: u64,
    },
    /// Neither zeros nor a whole block that belongs there.
    Broken,
}

/// What the blocks of a device hold, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan(pub Vec<Found>);

/// A write of a run to a block: newer runs, and newer batches of one run, are greater.
type Key = (usize, u64);

/// What a scan says of the runs before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Blocks that hold what they may.
    pub good: u64,
    /// Writes to single blocks that were acknowledged as durable and are not there.
    pub lost: u64,
    /// Batches that such writes belong to.
    pub lost_batches: usize,
    /// Each block that holds something else than it may, in words.
    pub wrong: Vec<String>,
}

impl Verdict {
    /// An error, with its first words, if anything is wrong.
    pub fn check(&self) -> Result<u64> {
        match self.wrong.as_slice() {
            [] => Ok(self.good),
            wrong => bail!(
                "{} blocks are wrong, {} acknowledged writes of {} batches are lost: {}",
                wrong.len(),
                self.lost,
                self.lost_batches,
                wrong[..wrong.len().min(6)].join("; ")
            ),
        }
    }
}

impl Scan {
    /// Reads so many blocks.
    pub(super) fn of(file: &File, blocks: u64) -> Result<Self> {
        let mut buffer = Aligned::new();
        let mut look = |number: u64| {
            file.read_exact_at(buffer.bytes(), number * BLOCK as u64)
                .with_context(|| format!("read block {number}"))?;
            Ok(match Block::decode(buffer.bytes()) {
                Ok(None) => Found::Zeros,
                Ok(Some(block)) if block.number == number => Found::Written { seed: block.seed, batch: block.batch },
                _ => Found::Broken,
            })
        };
        (0..blocks).map(&mut look).collect::<Result<_>>().map(Self)
    }

    /// A line for each block.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for found in &self.0 {
            // Writing to a string cannot fail.
            let _ = match found {
                Found::Zeros => writeln!(text, "-"),
                Found::Written { seed, batch } => writeln!(text, "{seed} {batch}"),
                Found::Broken => writeln!(text, "?"),
            };
        }
        text
    }

    /// What [`Scan::text`] wrote.
    pub fn parse(text: &str) -> Result<Self> {
        let found = |line: &str| {
            Some(match line {
                "-" => Found::Zeros,
                "?" => Found::Broken,
                written => {
                    let (seed, batch) = written.split_once(' ')?;
                    Found::Written { seed: seed.parse().ok()?, batch: batch.parse().ok()? }
                }
            })
        };
        text.lines()
            .map(|line| found(line).with_context(|| format!("a scan says {line:?}")))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// Holds it against the runs that were there, oldest first, each begun after the one before had its last write acknowledged.
    ///
    /// A block may hold any write between the last that was flushed, of whichever run, and the last that was issued.
    pub fn judge(&self, runs: &[Run]) -> Verdict {
        let history = History::of(runs, self.0.len());
        let mut verdict = Verdict::default();
        let mut batches = BTreeSet::new();
        for (number, found) in self.0.iter().enumerate() {
            let acknowledged = &history.acknowledged[number];
            let floor = acknowledged.last().copied();
            match history.key(number, *found) {
                Some(key) if key >= floor => verdict.good += u64::from(key.is_some()),
                key => {
                    // What cannot be placed says nothing about what is lost, but that the newest is.
                    let lost = acknowledged.iter().filter(|&&a| key.map_or(Some(a) == floor, |key| Some(a) > key));
                    verdict.lost += lost.clone().count() as u64;
                    batches.extend(lost.copied());
                    verdict.wrong.push(format!("block {number}: found {found:?}, floor {floor:?}"));
                }
            }
        }
        verdict.lost_batches = batches.len();
        verdict
    }
}

/// What runs did to each block.
struct History {
    /// Index of each run by its seed.
    runs: HashMap<u64, usize>,
    /// For each block what may have been written to it.
    issued: Vec<BTreeSet<Key>>,
    /// For each block the writes that were flushed, oldest first.
    acknowledged: Vec<Vec<Key>>,
}

impl History {
    fn of(runs: &[Run], blocks: usize) -> Self {
        let mut history = Self {
            runs: HashMap::new(),
            issued: vec![BTreeSet::new(); blocks],
            acknowledged: vec![Vec::new(); blocks],
        };
        for (index, run) in runs.iter().enumerate() {
            history.runs.insert(run.shape.seed, index);
            let flushed: BTreeSet<u64> = run.journal.flushes.iter().map(|flush| flush.batch).collect();
            for batch in 1..=run.journal.issued {
                for number in run.shape.batch(batch).into_iter().filter_map(|n| usize::try_from(n).ok()) {
                    let Some(issued) = history.issued.get_mut(number) else { continue };
                    // A batch may name a block twice.
                    if issued.insert((index, batch)) && flushed.contains(&batch) {
                        history.acknowledged[number].push((index, batch));
                    }
                }
            }
        }
        history
    }

    /// Which write it is: `None` for what nobody wrote there, `Some(None)` for zeros.
    fn key(&self, number: usize, found: Found) -> Option<Option<Key>> {
        match found {
            Found::Zeros => Some(None),
            Found::Broken => None,
            Found::Written { seed, batch } => {
                let key = (*self.runs.get(&seed)?, batch);
                self.issued[number].contains(&key).then_some(Some(key))
            }
        }
    }
}
