//! The verifying writer as demo and tests use it: started on the consumer, checked wherever the volume is next.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::guest::Guest;
use crate::lab::Lab;
use crate::wait::{Look, secs, wait_for, when};
use crate::writer::{Journal, Run, Scan, Shape};

/// A run of the writer on one volume.
#[derive(Clone, Debug)]
pub struct Load {
    name: String,
    blocks: u64,
    seed: u64,
}

impl Load {
    /// A run named after its volume, over so many 4 KiB blocks.
    pub fn new(name: &str, blocks: u64) -> Self {
        Self {
            name: name.to_owned(),
            blocks,
            seed: name.bytes().fold(7, |seed, byte| (seed * 31 + u64::from(byte)) & 0xffff_ffff),
        }
    }

    /// Path of the writer's file below the mount, or the device itself.
    fn target(path: &str) -> String {
        if path.starts_with("/dev/") { path.to_owned() } else { format!("{path}/log") }
    }

    fn command(&self, path: &str, mode: &str) -> String {
        let (target, name) = (Self::target(path), &self.name);
        let direct = if path.starts_with("/dev/") { "--direct" } else { "" };
        format!(
            "/run/share/writer --path {target} --journal /run/share/{name}.journal --blocks {} --seed {} {direct} {mode}",
            self.blocks, self.seed
        )
    }

    fn file(&self, guest: &Guest, kind: &str) -> PathBuf {
        guest.machine.share.join(format!("{}.{kind}", self.name))
    }

    /// Starts writing on `node`, going on after what its journal there says, until [`Load::stop`].
    pub fn start(&self, lab: &Lab, node: &str, path: &str) -> Result<()> {
        let guest = lab.guest(node)?;
        for kind in ["stop", "writer.log"] {
            std::fs::remove_file(self.file(guest, kind)).ok();
        }
        let command = format!(
            "exec {} --stop /run/share/{}.stop > /run/share/{}.writer.log 2>&1",
            self.command(path, "write"),
            self.name,
            self.name
        );
        guest.spawn(&["sh", "-c", &command], BTreeMap::new(), "writer.log").map(drop)
    }

    /// Writes so many batches to the end.
    pub fn write(&self, lab: &Lab, node: &str, path: &str, batches: u64) -> Result<()> {
        lab.guest(node)?.shell(&self.command(path, &format!("write --pause 0 --batches {batches}"))).map(drop)
    }

    /// What the writer on `node` has written down so far.
    pub fn journal(&self, lab: &Lab, node: &str) -> Result<Journal> {
        Journal::read(&self.file(lab.guest(node)?, "journal"))
    }

    /// Waits until `more` further batches are flushed; an error of the writer ends the wait.
    pub fn wait_for_progress(&self, lab: &Lab, node: &str, more: u64, timeout: Duration) -> Result<Journal> {
        let goal = self.journal(lab, node)?.flushed() + more;
        let journal = wait_for(&format!("the writer on {node} to flush batch {goal}"), timeout, || {
            let journal = self.journal(lab, node)?;
            let over = journal.flushed() >= goal || !journal.errors.is_empty();
            Ok(if over { Look::Done(journal) } else { Look::NotYet(journal.to_string()) })
        })?;
        if let Some(error) = journal.errors.first() {
            bail!("the writer on {node} met an error: {error}");
        }
        Ok(journal)
    }

    /// Tells the writer to end and waits until it has; an error of its is an error.
    pub fn stop(&self, lab: &Lab, node: &str) -> Result<()> {
        let guest = lab.guest(node)?;
        std::fs::write(self.file(guest, "stop"), "")?;
        wait_for(&format!("the writer on {node} to end"), secs(30), || {
            let log = std::fs::read_to_string(self.file(guest, "writer.log"))?;
            Ok(when(log.contains("wrote up to") || log.contains("Error"), log))
        })?;
        let journal = self.journal(lab, node)?;
        journal.errors.first().map_or(Ok(()), |error| bail!("the writer on {node} met an error: {error}"))
    }

    /// Reads everything on `node` against the journal of the writer, which ran on `writer`.
    pub fn verify(&self, lab: &Lab, writer: &str, node: &str, path: &str) -> Result<String> {
        let guest = lab.guest(node)?;
        if writer != node {
            let journal = self.file(lab.guest(writer)?, "journal");
            std::fs::copy(&journal, self.file(guest, "journal"))
                .with_context(|| format!("copy {}", journal.display()))?;
        }
        Ok(guest.shell(&self.command(path, "verify"))?.trim().to_owned())
    }

    /// What it wrote and wrote down on `node` so far.
    pub fn run(&self, lab: &Lab, node: &str) -> Result<Run> {
        let shape = Shape { blocks: self.blocks, seed: self.seed };
        Ok(Run { shape, journal: self.journal(lab, node)? })
    }

    /// What the blocks of `path` on `node` hold, to be held against runs.
    pub fn scan(&self, lab: &Lab, node: &str, path: &str) -> Result<Scan> {
        let guest = lab.guest(node)?;
        guest.shell(&self.command(path, &format!("scan --out /run/share/{}.scan", self.name)))?;
        Scan::parse(&std::fs::read_to_string(self.file(guest, "scan"))?)
    }
}
