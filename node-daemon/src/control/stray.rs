//! What is on this node and belongs to no object any more. It is left alone, for nobody can tell what it is worth, and told of.

use std::collections::HashSet;
use std::sync::Arc;

use meshstor_crds::MeshReplica;

use super::leg::reference;
use crate::host::LegRef;
use crate::ids::Nqn;

/// The legs and exports of ours that no `MeshReplica` names, for people.
pub fn strays(legs: &[LegRef], exports: &[String], replicas: &[Arc<MeshReplica>]) -> Vec<String> {
    let partitions: HashSet<_> = replicas.iter().map(|r| reference(r).uuid).collect();
    let uids: HashSet<_> = replicas.iter().filter_map(|r| r.metadata.uid.as_deref()).collect();
    let known = |nqn: &&String| Nqn::parse(nqn).is_some_and(|n| uids.contains(n.leg_uid));
    let legs = legs.iter().filter(|leg| !partitions.contains(&leg.uuid));
    let exports = exports.iter().filter(|nqn| !known(nqn));
    let legs = legs.map(|leg| format!("partition {} on drive {}", leg.uuid, leg.drive));
    legs.chain(exports.map(|nqn| format!("export {nqn}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshstor_crds::{MeshReplicaSpec, naming};
    use uuid::Uuid;

    #[test]
    fn what_no_replica_names_is_a_stray() {
        let spec = serde_json::from_value(serde_json::json!({
            "volume": "v", "volumeUid": "u", "slot": 0, "node": "a", "drive": "d", "sizeBytes": 1 << 20, "epoch": 0,
        }));
        let spec: MeshReplicaSpec = spec.unwrap();
        let mut replica = MeshReplica::new("v-0", spec);
        replica.metadata.uid = Some("r".to_owned());
        let ours = reference(&replica);
        let other = LegRef { drive: "d".to_owned(), uuid: Uuid::nil() };
        let exports = [naming::export_nqn("r", 1, 1), naming::export_nqn("gone", 1, 1), "half".to_owned()];
        let found = strays(&[ours, other], &exports, &[Arc::new(replica)]);
        let wanted = [
            format!("partition {} on drive d", Uuid::nil()),
            format!("export {}", exports[1]),
            "export half".to_owned(),
        ];
        assert_eq!(found, wanted);
    }
}
