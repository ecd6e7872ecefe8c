//! The failure gate of a kernel with MeshStor's patches (`md/failure_gate`, `md/failure_gate_members`).
//!
//! Nothing here waits for the array's lock but switching it on: an answer must get through while whoever has the lock waits for a
//! device that hangs.

use super::super::{FailureGate, MemberFailure, Result};
use super::error::{Doing, failed};
use super::sysfs::{self, digits};
use super::{RealHost, mdstate};
use rustix::io::Errno;
use std::path::Path;

impl RealHost {
    /// None where the kernel has none, or the array's level has none. Who waits is read after that somebody does: where all were answered
    /// in between nobody is named.
    pub(super) fn gate_of(&self, md: &Path) -> Result<Option<FailureGate>> {
        let word = sysfs::parsed(md.join("failure_gate"), "off, on, holding, refused or n/a", mdstate::gate)?;
        let Some(gate) = word.flatten() else { return Ok(None) };
        if !matches!(gate, FailureGate::Holding(_)) {
            return Ok(Some(gate));
        }
        let waiting = sysfs::parsed(md.join("failure_gate_members"), "members that have failed", failures)?;
        Ok(Some(FailureGate::Holding(waiting.unwrap_or_default())))
    }

    pub(super) fn switch_gate_on(&self, array: &Path) -> Result<()> {
        self.md_attribute(array, "failure_gate", "on")
    }

    pub(super) fn agree(&self, array: &Path, number: u32) -> Result<()> {
        let action = || format!("go on without failed members of {}", array.display());
        let block = self.block_of(array)?.ok_or_else(|| failed(action(), "the kernel does not have it"))?;
        match sysfs::write(block.join("md/failure_gate"), &format!("agree {number}")) {
            // Another has failed since: the next look shows it.
            Err(error) if error.raw_os_error() == Some(Errno::STALE.raw_os_error()) => Ok(()),
            other => other.doing(action),
        }
    }

    pub(super) fn refuse(&self, array: &Path) -> Result<()> {
        self.md_attribute(array, "failure_gate", "refuse")
    }
}

/// Lines of number, name and time.
fn failures(text: &str) -> Option<Vec<MemberFailure>> {
    let failure = |line: &str| {
        let mut words = line.split(' ');
        let (number, member) = (words.next().and_then(digits)?, words.next()?.to_owned());
        words.next()?;
        words.next().is_none().then_some(MemberFailure { number, member })
    };
    text.lines().map(failure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_an_answer() {
        let failure = |number, member: &str| MemberFailure { number, member: member.to_owned() };
        assert_eq!(failures(""), Some(vec![]));
        let two = "17 nvme1n1 5172.402\n9 ubda1 12.000";
        assert_eq!(failures(two), Some(vec![failure(17, "nvme1n1"), failure(9, "ubda1")]));
        for bent in ["17 nvme1n1", "nvme1n1 17 5.0", "-1 nvme1n1 5.0", "17 nvme1n1 5.0 6", "17"] {
            assert_eq!(failures(bent), None, "{bent}");
        }
    }
}
