//! Connections.

use std::path::PathBuf;

use super::super::{ConnectSpec, ConnectionFacts, ControllerState, Result};
use super::failed;
use super::world::{Conn, World, host_nqn};

/// The namespace's device.
pub(super) fn device(conn: &Conn) -> PathBuf {
    PathBuf::from(format!("/dev/nvme{}n1", conn.number))
}

impl World {
    pub(super) fn connections(&self, name: &str) -> Result<Vec<ConnectionFacts>> {
        let node = self.node(name)?;
        let facts = |conn: &Conn| ConnectionFacts {
            nqn: conn.nqn.clone(),
            controller: format!("nvme{}", conn.number),
            state: if self.live(name, conn) { ControllerState::Live } else { ControllerState::Connecting },
            device: Some(device(conn)),
        };
        Ok(node.conns.iter().map(facts).collect())
    }

    pub(super) fn connect(&mut self, name: &str, spec: &ConnectSpec) -> Result<()> {
        if self.node(name)?.conns.iter().any(|c| c.nqn == spec.nqn) {
            return Ok(());
        }
        let listens = |e: &&super::world::Exported| {
            e.facts.nqn == spec.nqn
                && e.facts.listening == Some((spec.address.clone(), spec.port))
                && e.facts.host_nqn.as_deref() == Some(&host_nqn(name))
        };
        let cut = |target: &String| {
            let (there, back) = ((name.to_owned(), target.clone()), (target.clone(), name.to_owned()));
            self.cuts.contains(&there) || self.cuts.contains(&back)
        };
        let mut up = self.nodes.iter().filter(|(n, node)| node.up && !cut(n) && node.address == spec.address);
        let found = up.find_map(|(n, node)| Some((n.clone(), node.exports.iter().find(listens)?.leg)));
        let Some((target, leg)) = found else { return failed(format!("connect {}", spec.nqn), "refused") };
        let export = self.node_mut(&target)?.exports.iter_mut().find(|e| e.facts.nqn == spec.nqn);
        if export.is_none_or(|e| std::mem::replace(&mut e.used, true)) {
            return failed(format!("connect {}", spec.nqn), "its door is shut");
        }
        let node = self.node_mut(name)?;
        node.next_number += 1;
        let number = node.next_number;
        node.conns.push(Conn { nqn: spec.nqn.clone(), number, target, leg });
        Ok(())
    }

    /// What was held is to end with errors. MD drops the member when it sees one of them, or one of its own writes: not before.
    pub(super) fn disconnect(&mut self, name: &str, nqn: &str) -> Result<()> {
        self.node_mut(name)?.conns.retain(|c| c.nqn != nqn);
        Ok(())
    }
}
