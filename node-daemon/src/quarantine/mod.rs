//! What is on a node and belongs to no object: what it is, who uses it, what becomes of it. Pure.
//!
//! Objects can vanish while volumes run: etcd was lost, or somebody removed finalizers by force. Then everything that a running volume
//! needs looks like litter. So nothing that is in use is ever touched, nothing is erased that a person did not name, and the one
//! thing that is taken down without being asked for is a connection that nobody uses.

mod plan;
#[cfg(test)]
mod tests;

pub use plan::{Plan, Step, plan, refused};

use std::collections::{HashMap, HashSet};

use meshstor_crds::{MeshAttachment, MeshReplica, MeshVolume, QuarantineKind, Quarantined, identity};
use uuid::Uuid;

use crate::host::{ArrayFacts, ConnectionFacts, FoundFacts, LegRef};
use crate::ids::Nqn;

/// Something of ours on the node. In the order in which such things let go of each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thing {
    /// An array.
    Array(Box<ArrayFacts>),
    /// A connection.
    Connection(ConnectionFacts),
    /// An export, by its NQN.
    Export(String),
    /// A leg's partition.
    Partition(LegRef),
}

impl Thing {
    /// As [`meshstor_crds::Quarantined::id`].
    pub fn id(&self) -> String {
        match self {
            Self::Array(array) => format!("array/{}", array.uuid),
            Self::Connection(connection) => format!("connection/{}", connection.nqn),
            Self::Export(nqn) => format!("export/{nqn}"),
            Self::Partition(leg) => format!("partition/{}", leg.uuid),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> QuarantineKind {
        match self {
            Self::Array(_) => QuarantineKind::Array,
            Self::Connection(_) => QuarantineKind::Connection,
            Self::Export(_) => QuarantineKind::Export,
            Self::Partition(_) => QuarantineKind::Partition,
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Array(_) => 0,
            Self::Connection(_) => 1,
            Self::Export(_) => 2,
            Self::Partition(_) => 3,
        }
    }
}

/// What objects of the cluster name. One that is being deleted still does.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    partitions: HashSet<Uuid>,
    legs: HashSet<String>,
    arrays: HashSet<Uuid>,
    /// Partitions that volumes take over, with the names of volume and leg.
    adopted: HashMap<Uuid, (String, String)>,
    /// Volume and leg, by the records.
    retired: HashSet<(String, String)>,
}

impl Claims {
    /// A leg names its partition, its exports, the connections to them, and the array of its volume. On whatever node: a drive may have
    /// moved.
    pub fn leg(&mut self, replica: &MeshReplica) {
        self.partitions.insert(identity::partition(replica));
        self.legs.extend(replica.metadata.uid.clone());
        self.arrays.insert(identity::array(&replica.spec.volume_uid, [replica]));
    }

    /// A volume names its array, and the partitions that it takes over: their legs' objects are made after it.
    pub fn volume(&mut self, volume: &MeshVolume) {
        self.arrays.extend(identity::array_of(volume));
        let of = volume.metadata.name.clone().unwrap_or_default();
        for leg in volume.spec.adopts.iter().flat_map(|adopts| &adopts.legs) {
            let uuid = leg.partition_uuid.as_deref().and_then(|uuid| Uuid::parse_str(uuid).ok());
            self.adopted.extend(uuid.map(|uuid| (uuid, (of.clone(), leg.name.clone()))));
        }
    }

    /// An attachment names the array of its volume, and its record the legs that are over: such a one is not taken over any more.
    pub fn attachment(&mut self, attachment: &MeshAttachment) {
        let of = attachment.metadata.name.clone().unwrap_or_default();
        let owners = attachment.metadata.owner_references.iter().flatten();
        let volumes = owners.filter(|owner| owner.kind == "MeshVolume");
        self.arrays.extend(volumes.map(|owner| identity::derived_array(&owner.uid)));
        let term = attachment.status.as_ref().and_then(|s| s.term.as_ref());
        self.retired.extend(term.iter().flat_map(|t| &t.retired).map(|leg| (of.clone(), leg.clone())));
    }

    fn adopts(&self, partition: Uuid) -> bool {
        self.adopted.get(&partition).is_some_and(|leg| !self.retired.contains(leg))
    }

    /// Whether some object names it.
    pub fn has(&self, thing: &Thing) -> bool {
        let leg = |nqn: &str| Nqn::parse(nqn).is_some_and(|n| self.legs.contains(n.leg_uid));
        match thing {
            Thing::Array(array) => self.arrays.contains(&array.uuid),
            Thing::Connection(connection) => leg(&connection.nqn),
            Thing::Export(nqn) => leg(nqn),
            Thing::Partition(leg) => self.partitions.contains(&leg.uuid) || self.adopts(leg.uuid),
        }
    }
}

/// What is in quarantine, as far as the node could be looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The oldest first.
    pub items: Vec<Quarantined>,
    /// Why some kind of thing could not be looked for.
    pub unseen: Option<String>,
}

/// A thing that was looked at closely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// What it is.
    pub thing: Thing,
    /// Who uses it. Who cannot be told is somebody.
    pub users: Vec<String>,
    /// Of a partition: what it says of itself, or why that cannot be read.
    pub found: Option<Result<FoundFacts, String>>,
}
