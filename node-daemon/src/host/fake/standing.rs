//! What a refusal must leave as it was (I8): arrays, their members, and what the legs' superblocks say.

use std::path::PathBuf;

use uuid::Uuid;

use super::FakeFabric;
use super::world::{Bytes, Member, World};
use crate::host::Content;

/// An array: where, and of which members.
type Runs = (String, PathBuf, Vec<Member>);
/// A leg: where, and what its superblock and its content are.
type Lies = (String, Uuid, Option<(Uuid, u64)>, u32, Content);

/// Arrays and legs of all nodes, at one moment; two that are equal differ at most in what an application wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    runs: Vec<Runs>,
    lies: Vec<Lies>,
}

impl FakeFabric {
    /// How arrays and legs are now.
    pub fn standing(&self) -> Standing {
        self.world().standing()
    }
}

impl World {
    fn standing(&self) -> Standing {
        let mut standing = Standing { runs: Vec::new(), lies: Vec::new() };
        for (name, node) in &self.nodes {
            let arrays = node.arrays.iter().map(|a| (name.clone(), a.device.clone(), a.members.clone()));
            standing.runs.extend(arrays);
            let lies = |(uuid, bytes): (&Uuid, &Bytes)| {
                (name.clone(), *uuid, bytes.superblock, bytes.slot, bytes.content.clone())
            };
            standing.lies.extend(node.legs.iter().map(|(uuid, leg)| lies((uuid, &leg.bytes))));
        }
        standing
    }
}
