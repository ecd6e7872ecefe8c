//! What the spec and the policy come to, and what of it nothing realises yet.

use super::action::Refusal;
use super::world::World;
use kube::ResourceExt as _;
use meshstor_crds::geometry::HEADROOM;
use meshstor_crds::{
    Bitmap, Geometry, MeshNode, MeshReplica, MeshVolumeSpec, ReplicaSetPolicySpec, ResolvedPolicy, capability,
    conditions, quantity,
};

/// A spec that can be carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// The policy's answers, frozen once they are in the status.
    pub resolved: ResolvedPolicy,
    /// Partition size of each leg, in bytes.
    pub size: u64,
    /// Its legs, slots and mirror sets.
    pub geometry: Geometry,
}

/// Checks the spec against what can be done. Once a volume is placed only changes can be refused: it is served on as
/// it was placed.
///
/// # Errors
/// [`Refusal`] when the spec cannot be carried out.
pub fn validate(world: &World) -> Result<Settled, Refusal> {
    let spec = &world.volume.spec;
    let geometry = Geometry::of_spec(spec);
    let capacity =
        quantity::bytes(&spec.capacity).map_err(|e| Refusal::new(conditions::REASON_INVALID, e.to_string()))?;
    let size = geometry.component(capacity).saturating_add(HEADROOM);
    unchanged(world, geometry, size)?;
    let frozen = world.volume.status.as_ref().and_then(|s| s.resolved.clone());
    let resolved = frozen.map_or_else(|| resolve(world, spec), Ok)?;
    if resolved.min_in_sync > spec.replica_count {
        let (min, count) = (resolved.min_in_sync, spec.replica_count);
        return Err(Refusal::new(
            conditions::REASON_INVALID,
            format!("minInSync={min} is more than spec.replicaCount={count}"),
        ));
    }
    Ok(Settled { resolved, size, geometry })
}

fn not_implemented(what: impl std::fmt::Display) -> Refusal {
    Refusal::new(conditions::REASON_NOT_IMPLEMENTED, format!("{what} implemented; nothing was changed"))
}

/// Growth and a changed number of copies or of drives are not there yet.
fn unchanged(world: &World, geometry: Geometry, size: u64) -> Result<(), Refusal> {
    let spec = &world.volume.spec;
    let placed = world.attachment.is_some() && !world.deleting();
    let wanted: Vec<(i32, i32)> = geometry.legs().collect();
    // Those that take another's place, and those that leave, are not counted. A single copy moves to the other slot of its set.
    let retired = |leg: &MeshReplica| world.term().is_some_and(|t| t.retired.contains(&leg.name_any()));
    let staying = world.legs.iter().filter(|leg| !retired(leg));
    let seated = meshstor_crds::geometry::seated(staying);
    let slot = |leg: &MeshReplica| if geometry.copies() == 1 { leg.spec.slot & !1 } else { leg.spec.slot };
    let of_it = |leg: &&MeshReplica| wanted.contains(&(slot(leg), leg.spec.mirror_set));
    if !seated.iter().all(of_it) || (placed && seated.len() != wanted.len()) {
        let (count, width, have) = (spec.replica_count, spec.stripe_width, seated.len());
        let what =
            format!("spec.replicaCount={count}, spec.stripeWidth={width} with {have} legs placed: a change is not");
        return Err(not_implemented(what));
    }
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    match world.legs.iter().find(|leg| leg.spec.size_bytes != size) {
        Some(_) => Err(not_implemented(format!("spec.capacity={} after placement: growth is not", spec.capacity))),
        None => Ok(()),
    }
}

/// The policy that a volume names is not there.
pub fn no_policy(name: &str) -> Refusal {
    Refusal::new(conditions::REASON_NOT_FOUND, format!("spec.policy: there is no ReplicaSetPolicy {name}"))
}

/// What the volume's policy says: the one that it names, else the one that is called `default`, else what is built in.
///
/// # Errors
/// [`Refusal`] when the one that it names is not there.
pub fn policy(world: &World) -> Result<ReplicaSetPolicySpec, Refusal> {
    match (&world.policy, &world.volume.spec.policy) {
        (Some(policy), _) => Ok(policy.spec.clone()),
        (None, None) => Ok(ReplicaSetPolicySpec::default()),
        (None, Some(name)) => Err(no_policy(name)),
    }
}

/// What the policy and the volume's own word come to now.
///
/// # Errors
/// [`Refusal`] when the policy is not there.
pub fn resolve(world: &World, spec: &MeshVolumeSpec) -> Result<ResolvedPolicy, Refusal> {
    let policy = policy(world)?;
    Ok(ResolvedPolicy {
        min_in_sync: policy.min_in_sync.unwrap_or_else(|| (spec.replica_count - 1).max(1)),
        bitmap: bitmap(world, spec.bitmap.unwrap_or(policy.bitmap)),
        transport: policy.transport,
        missing_member_timeout_seconds: policy.missing_member_timeout_seconds,
        io_queues: policy.connection.io_queues,
        queue_size: policy.connection.queue_size,
        keep_alive_seconds: policy.connection.keep_alive_seconds,
    })
}

/// `auto` is the lockless bitmap where every node that is there runs a kernel of which it is proved that it is right, whatever the
/// geometry; else the classic one. An array that a node cannot run could not be moved to it.
fn bitmap(world: &World, asked: Bitmap) -> Bitmap {
    let proved = |node: &MeshNode| {
        [capability::LLBITMAP, capability::LLBITMAP_RAID10].iter().all(|name| capability::of_node(node, name).is_ok())
    };
    match asked {
        Bitmap::Auto if !world.nodes.is_empty() && world.nodes.iter().all(|node| proved(node)) => Bitmap::Lockless,
        Bitmap::Auto => Bitmap::Internal,
        other => other,
    }
}
