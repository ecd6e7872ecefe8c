//! The custom resources of MeshStor: group `meshstor.io`, version `v1alpha1`, all cluster-scoped.
//!
//! The Rust types here are the one source of the API: `crds/*.yaml` is generated from them by the
//! `crdgen` binary and never edited. A field's doc comment is what `kubectl explain` shows.
//!
//! Who writes what is in `docs/explanation/protocol.md`; the condition types and reasons are all in
//! [`conditions`].

// Two printer columns of one type are no mistake.
#![allow(clippy::duplicated_attributes)]

pub mod capability;
pub mod conditions;
pub mod geometry;
pub mod identity;
pub mod naming;
pub mod quantity;

mod adoption;
mod attachment;
mod bounds;
mod drain;
mod node;
mod policy;
mod quarantine;
mod replica;
mod volume;

pub use adoption::*;
pub use attachment::*;
pub use drain::*;
pub use geometry::Geometry;
pub use node::*;
pub use policy::*;
pub use quarantine::*;
pub use replica::*;
pub use volume::*;

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// API group of every kind.
pub const GROUP: &str = "meshstor.io";
/// Version of every kind.
pub const VERSION: &str = "v1alpha1";
/// One mebibyte in bytes: the unit of alignment of capacities, partitions and the MD data offset.
pub const MIB: u64 = 1 << 20;

/// The finalizer with which the operator holds a `MeshVolume` until nothing of it is left.
pub const VOLUME_FINALIZER: &str = "meshstor.io/volume";
/// The finalizer with which a node's daemon holds a `MeshReplica` until its partition is observed gone.
pub const REPLICA_FINALIZER: &str = "meshstor.io/replica";
/// Annotation of a `MeshReplica` by which a person says that its drive is sound: it does not count as failing any more.
pub const TRUST_DRIVE: &str = "meshstor.io/trust-drive";

/// Seconds after which a watch is begun anew, and 5 s later given up by its client: a connection whose other end went without a
/// word (an API server's node lost its power, a packet of its end was lost) is deaf for no longer. client-go's HTTP/2 pings
/// find such a connection within 45 s.
pub const WATCH_SECONDS: u32 = 30;

/// All definitions, in the order in which they are applied.
pub fn all() -> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> {
    use kube::CustomResourceExt as _;
    let mut all = vec![
        MeshAttachment::crd(),
        MeshNode::crd(),
        MeshReplica::crd(),
        MeshVolume::crd(),
        NodeDrain::crd(),
        ReplicaSetPolicy::crd(),
    ];
    all.iter_mut().for_each(bounds::conditions);
    all.iter_mut().for_each(bounds::unseen);
    all
}
