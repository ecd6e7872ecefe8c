//! Partitions, ledger, zeroing and exports.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::super::{
    Content, ExportFacts, ExportSpec, FoundFacts, LegFacts, LegRef, Part, PartitionFacts, Result, SuperLeg,
};
use super::io::{BLOCKS, Blocks};
use super::world::{Bytes, Exported, Leg, World};
use super::{busy, conflict, failed};

impl World {
    pub(super) fn leg_facts(&self, node: &str, leg: &LegRef) -> Result<LegFacts> {
        let node = self.node(node)?;
        if node.drive != leg.drive {
            return failed(format!("find drive {}", leg.drive), "it is not there");
        }
        let holds = |a: &&super::world::Array| a.members.iter().any(|m| m.nqn.is_none() && m.leg == leg.uuid);
        Ok(LegFacts {
            partition: node.legs.get(&leg.uuid).map(|l| PartitionFacts {
                device: l.device.clone(),
                first_byte: l.first_byte,
                size: l.size,
            }),
            ledger: node.ledger.get(&leg.uuid).cloned(),
            exports: node.exports.iter().filter(|e| e.leg == leg.uuid).map(|e| e.facts.clone()).collect(),
            held_by: node.arrays.iter().find(holds).map(|a| a.device.clone()),
            held_by_stranger: node.arrays.iter().find(holds).is_some_and(|a| a.stranger),
        })
    }

    pub(super) fn found(&self, node: &str, leg: &LegRef) -> Result<Option<FoundFacts>> {
        let facts = self.leg_facts(node, leg)?;
        let Some(found) = self.node(node)?.legs.get(&leg.uuid) else { return Ok(None) };
        let whole = |(uuid, events), told: &SuperLeg| SuperLeg { uuid, events, ..told.clone() };
        let superblock = match (found.bytes.superblock, &found.bytes.told, &found.bytes.content) {
            (Some(known), Some(told), _) => Ok(Some(whole(known, told))),
            (Some(_), None, _) | (None, _, Content::Other(_)) => Err("neither zeros nor a superblock".to_owned()),
            (None, ..) => Ok(None),
        };
        Ok(Some(FoundFacts {
            first_byte: found.first_byte,
            size: found.size,
            label: found.label.clone(),
            device: Some(found.device.clone()),
            superblock,
            ledger_lost: false,
            ledger: facts.ledger,
            exports: facts.exports.into_iter().map(|e| e.nqn).collect(),
        }))
    }

    pub(super) fn users(&self, node: &str, device: &Path) -> Result<Vec<String>> {
        let node = self.node(node)?;
        let name = device.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let over = node.arrays.iter().filter(|a| a.members.iter().any(|m| m.name == name));
        let over = over.map(|a| format!("block device {}", a.device.display()));
        let itself = node.arrays.iter().filter(|a| a.device == device);
        let mounts = itself.clone().flat_map(|a| a.mounts.iter().map(|m| format!("a mount at {}", m.display())));
        let open = itself.filter(|a| a.open).map(|_| "process 1 (somebody)".to_owned());
        Ok(over.chain(mounts).chain(open).collect())
    }

    pub(super) fn create_partition(&mut self, node: &str, leg: &LegRef, size: u64, label: &str) -> Result<()> {
        let node = self.node_mut(node)?;
        if let Some(found) = node.legs.get(&leg.uuid) {
            let other = found.size != size;
            return if other { conflict("create a partition", "it has another size") } else { Ok(()) };
        }
        let first_byte = node.next_byte;
        if first_byte + size > node.bytes {
            return failed("create a partition", "no room");
        }
        node.next_byte += size;
        node.next_number += 1;
        let device = PathBuf::from(format!("/dev/{}p{}", node.drive, node.next_number));
        // What a new partition holds is whatever was there before.
        let blocks = Blocks { seen: [u64::MAX; BLOCKS], durable: [u64::MAX; BLOCKS] };
        let content = Content::Other("old bytes".to_owned());
        let bytes = Bytes { content, stamp: u64::MAX, superblock: None, told: None, blocks, slot: 0, dirty: false };
        node.legs.insert(leg.uuid, Leg { device, label: label.to_owned(), first_byte, size, bytes });
        Ok(())
    }

    pub(super) fn zero(&mut self, node: &str, leg: &LegRef, part: Part) -> Result<()> {
        let Some(bytes) = self.leg_bytes(node, leg.uuid) else { return failed("zero a leg", "it is not there") };
        if part == Part::Ends {
            (bytes.superblock, bytes.told) = (None, None);
            return Ok(());
        }
        let (content, blocks) = (Content::Blank, Blocks::default());
        *bytes = Bytes { content, stamp: 0, superblock: None, told: None, blocks, slot: 0, dirty: false };
        Ok(())
    }

    pub(super) fn export(&mut self, name: &str, leg: &LegRef, spec: &ExportSpec) -> Result<ExportFacts> {
        let held = self.leg_facts(name, leg)?.held_by;
        let number = self.exports_made + 1;
        let node = self.node_mut(name)?;
        if let Some(found) = node.exports.iter().find(|e| e.facts.nqn == spec.nqn) {
            return Ok(found.facts.clone());
        }
        let Some(device) = node.legs.get(&leg.uuid).map(|l| l.device.clone()) else {
            return failed("export a leg", "it is not there");
        };
        if held.is_some() {
            return busy("export a leg", "an array holds it");
        }
        let facts = ExportFacts {
            nqn: spec.nqn.clone(),
            host_nqn: Some(spec.host_nqn.clone()),
            device: Some(device),
            device_uuid: Some(Uuid::from_u128(u128::from(number))),
            enabled: true,
            listening: Some((spec.address.clone(), 42000 + u16::try_from(number % 1000).unwrap_or(0))),
        };
        node.exports.push(Exported { used: false, leg: leg.uuid, facts: facts.clone() });
        self.exports_made = number;
        Ok(facts)
    }

    pub(super) fn is_connected(&self, nqn: &str) -> bool {
        let mut nodes = self.nodes.iter();
        nodes.any(|(name, node)| node.up && node.conns.iter().any(|c| c.nqn == nqn && self.live(name, c)))
    }

    pub(super) fn is_left(&self, nqn: &str) -> bool {
        let mut exports = self.nodes.values().flat_map(|node| &node.exports);
        exports.any(|e| e.facts.nqn == nqn && e.used) && !self.is_connected(nqn)
    }

    pub(super) fn readmit(&mut self, name: &str, leg: &LegRef, spec: &ExportSpec) -> Result<()> {
        if self.is_connected(&spec.nqn) {
            return busy("open an export again", "somebody is connected");
        }
        let exports = &mut self.node_mut(name)?.exports;
        match exports.iter_mut().find(|e| e.facts.nqn == spec.nqn && e.leg == leg.uuid) {
            Some(export) => export.used = false,
            None => return failed("open an export again", "it is not there"),
        }
        Ok(())
    }

    pub(super) fn delete_partition(&mut self, node: &str, leg: &LegRef) -> Result<()> {
        let facts = self.leg_facts(node, leg)?;
        if !facts.exports.is_empty() || facts.held_by.is_some() {
            return busy("delete a partition", "it is exported or held");
        }
        let node = self.node_mut(node)?;
        node.legs.remove(&leg.uuid);
        node.ledger.remove(&leg.uuid);
        Ok(())
    }

    /// The leg behind a device path of a node, and the connection that leads to it.
    pub(super) fn resolve(&self, node: &str, device: &Path) -> Result<(String, Uuid, Option<String>)> {
        let here = self.node(node)?;
        if let Some((leg, _)) = here.legs.iter().find(|(_, l)| l.device == device) {
            return Ok((node.to_owned(), *leg, None));
        }
        match here.conns.iter().find(|c| super::nvme::device(c) == device) {
            Some(conn) if self.live(node, conn) => Ok((conn.target.clone(), conn.leg, Some(conn.nqn.clone()))),
            Some(_) => failed(format!("use {}", device.display()), "its path hangs"),
            None => failed(format!("use {}", device.display()), "there is no such device"),
        }
    }
}
