//! Names and identities that operator and daemon must derive alike.

/// Name of the leg of `volume` in `slot`.
pub fn leg(volume: &str, slot: i32) -> String {
    format!("{volume}-{slot}")
}

/// Name of a leg that takes another's place: `generation`, from 1, is new for each such leg of `volume`. A leg without one
/// has no dot after its last hyphen, so no two volumes ever have legs of one name.
pub fn successor(volume: &str, slot: i32, generation: u32) -> String {
    format!("{volume}-{slot}.{generation}")
}

/// The generation that `leg` was named with: 0 for a leg that a volume was placed with.
pub fn generation(leg: &str) -> u32 {
    let last = leg.rsplit_once('-').map_or("", |(_, last)| last);
    last.split_once('.').and_then(|(_, generation)| generation.parse().ok()).unwrap_or(0)
}

/// What the name of a leg says: its volume, slot and generation; none of a name that is no leg's.
pub fn parse_leg(leg: &str) -> Option<(&str, i32, u32)> {
    let (volume, last) = leg.rsplit_once('-')?;
    let (slot, generation) = match last.split_once('.') {
        Some((slot, generation)) => (slot, generation.parse().ok()?),
        None => (last, 0),
    };
    let digits = !slot.is_empty() && slot.bytes().all(|b| b.is_ascii_digit());
    (digits && !volume.is_empty()).then_some((volume, slot.parse().ok()?, generation))
}

/// Node and drive of a leg of which nothing was found: a name that no node can have, for those are DNS names. So nobody serves it,
/// and another takes its place.
pub fn lost(leg: &str) -> String {
    format!("lost_{leg}")
}

/// Annotation by which Argo CD applies `ignoreResourceUpdates` to an object that is in nobody's git.
pub const ARGO_IGNORE_UPDATES: &str = "argocd.argoproj.io/ignore-resource-updates";

/// The `homehost` part of the metadata names of our arrays.
pub const HOMEHOST: &str = "meshstor";

/// The part of an array's metadata name that follows `meshstor:`, for the field holds 32 bytes with that and a zero.
pub fn array_name(volume: &str) -> String {
    cut(volume, 22)
}

/// `name`; where it is longer than `most` bytes, its beginning and a checksum of all of it.
pub fn cut(name: &str, most: usize) -> String {
    if name.len() <= most {
        return name.to_owned();
    }
    let head: String = name.chars().take(most.saturating_sub(9)).collect();
    format!("{head}-{:08x}", crc32fast::hash(name.as_bytes()))
}

/// Subsystem NQN of one grant of a leg: it names leg, epoch and grant, and is never used twice.
pub fn export_nqn(leg_uid: &str, epoch: i64, grant: i64) -> String {
    format!("nqn.2026-11.io.meshstor:leg:{leg_uid}:e{epoch}:g{grant}")
}

/// Prefix of every subsystem NQN that is ours: nothing else is ever touched.
pub const EXPORT_NQN_PREFIX: &str = "nqn.2026-11.io.meshstor:leg:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leg_of_a_name_and_back() {
        assert_eq!(parse_leg("my-v.2-3.12"), Some(("my-v.2", 3, 12)));
        assert_eq!(parse_leg(&leg("v-1", 31)), Some(("v-1", 31, 0)));
        for other in ["v", "v-", "-1", "v-x", "v-1.", "v-1.x", "v-+1", ""] {
            assert_eq!(parse_leg(other), None, "{other}");
        }
    }

    #[test]
    fn an_array_name_fits_its_field() {
        for length in 1..=63 {
            let volume = "v".repeat(length);
            let name = array_name(&volume);
            assert!(HOMEHOST.len() + 1 + name.len() < 32);
            assert!(length > 22 || name == volume);
        }
        assert_ne!(array_name(&"v".repeat(40)), array_name(&"v".repeat(41)));
    }

    #[test]
    fn a_name_says_its_generation_and_no_two_volumes_share_one() {
        assert_eq!(leg("v", 1), "v-1");
        assert_eq!(successor("v", 1, 12), "v-1.12");
        assert_eq!([generation("v-1"), generation("v-1.12"), generation("v.3-1"), generation("v")], [0, 12, 0, 0]);
        // Volumes `v` and `v-1`, `v.1` and `v`.
        assert_ne!(leg("v-1", 2), successor("v", 1, 2));
        assert_ne!(leg("v.1", 2), successor("v", 1, 2));
        assert!(successor(&"v".repeat(52), 31, 9_999_999).len() <= 63);
    }
}
