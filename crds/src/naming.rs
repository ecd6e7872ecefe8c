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
