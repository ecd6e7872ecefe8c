//! Runs the verifying writer in a guest: see `meshstor_e2e::writer`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use meshstor_e2e::writer::{Shape, Target};

/// Writes blocks that say which batch wrote them, or holds what is there against the journal.
#[derive(Parser)]
struct Options {
    /// File or block device.
    #[arg(long)]
    path: PathBuf,
    /// Journal, outside the volume.
    #[arg(long)]
    journal: PathBuf,
    /// Number of 4096-byte blocks.
    #[arg(long, default_value_t = 1024)]
    blocks: u64,
    /// Tells one run from another.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Go around the page cache.
    #[arg(long)]
    direct: bool,
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Writes batches, each with an fsync.
    Write {
        /// Stops when this file exists.
        #[arg(long, default_value = "/nonexistent")]
        stop: PathBuf,
        /// At most that many batches.
        #[arg(long, default_value_t = u64::MAX / 2)]
        batches: u64,
        /// Milliseconds between batches.
        #[arg(long, default_value_t = 5)]
        pause: u64,
    },
    /// Reads everything.
    Verify,
    /// Writes down what each block holds.
    Scan {
        /// Where to.
        #[arg(long)]
        out: PathBuf,
    },
}

fn main() -> Result<()> {
    let options = Options::parse();
    let shape = Shape { blocks: options.blocks, seed: options.seed };
    let target = Target { path: options.path, direct: options.direct, shape };
    match options.mode {
        Mode::Write { stop, batches, pause } => {
            let last = target.write(&options.journal, &stop, batches, Duration::from_millis(pause))?;
            println!("wrote up to batch {last}");
        }
        Mode::Scan { out } => std::fs::write(out, target.scan()?.text())?,
        Mode::Verify => println!("verified {} written blocks of {}", target.verify(&options.journal)?, shape.blocks),
    }
    Ok(())
}
