//! UUIDs of partitions and arrays: derived from the volume's UID, or said where a volume took over what it found on the drives.

use uuid::Uuid;

use crate::{MeshReplica, MeshVolume};

/// GPT partition UUID of a leg.
pub fn partition(leg: &MeshReplica) -> Uuid {
    let name = leg.metadata.name.as_deref().unwrap_or_default();
    said(leg.spec.partition_uuid.as_deref()).unwrap_or_else(|| derived_partition(&leg.spec.volume_uid, name))
}

/// UUID of the MD array of the volume with `volume_uid`, by the word of its `legs`.
pub fn array<'a>(volume_uid: &str, legs: impl IntoIterator<Item = &'a MeshReplica>) -> Uuid {
    let mut own = legs.into_iter().filter(|leg| leg.spec.volume_uid == volume_uid);
    own.find_map(|leg| said(leg.spec.array_uuid.as_deref())).unwrap_or_else(|| derived_array(volume_uid))
}

/// UUID of a volume's array; none before the API server has given it a UID.
pub fn array_of(volume: &MeshVolume) -> Option<Uuid> {
    let said = said(volume.spec.adopts.as_ref().map(|a| a.array_uuid.as_str()));
    said.or_else(|| Some(derived_array(volume.metadata.uid.as_deref()?)))
}

/// The partition UUID of the leg `name` of the volume with `volume_uid`, where none is said.
pub fn derived_partition(volume_uid: &str, name: &str) -> Uuid {
    Uuid::new_v5(&namespace(volume_uid), format!("leg/{name}").as_bytes())
}

/// The array UUID of the volume with `volume_uid`, where none is said.
pub fn derived_array(volume_uid: &str) -> Uuid {
    Uuid::new_v5(&namespace(volume_uid), b"array")
}

/// What is said is a UUID by the definition's rule.
fn said(uuid: Option<&str>) -> Option<Uuid> {
    Uuid::parse_str(uuid?).ok()
}

/// The UIDs of Kubernetes are UUIDs; anything else is hashed into one.
fn namespace(volume_uid: &str) -> Uuid {
    Uuid::parse_str(volume_uid).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, volume_uid.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(name: &str, array: Option<&str>, partition: Option<&str>) -> MeshReplica {
        let spec = serde_json::json!({
            "volume": "v", "volumeUid": "u", "slot": 0, "node": "a", "drive": "d", "sizeBytes": crate::MIB,
            "arrayUuid": array, "partitionUuid": partition,
        });
        MeshReplica::new(name, serde_json::from_value(spec).unwrap())
    }

    /// I6: what was taken over is found under the identity that it has, and everything else under the derived one as ever.
    #[test]
    fn what_is_said_goes_before_what_is_derived() {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let plain = leg("v-0", None, None);
        assert_eq!(partition(&plain), derived_partition("u", "v-0"));
        assert_eq!(array("u", [&plain]), derived_array("u"));
        let taken = leg("v-0", Some(&one.to_string()), Some(&two.to_string()));
        assert_eq!((array("u", [&taken]), partition(&taken)), (one, two));
        // An heir of a leg that was taken over has the array's identity and a partition of its own.
        let heir = leg("v-0.1", Some(&one.to_string()), None);
        assert_eq!((array("u", [&heir]), partition(&heir)), (one, derived_partition("u", "v-0.1")));
        // Another volume's leg says nothing of this one's array.
        assert_eq!(array("other", [&taken]), derived_array("other"));
    }
}
