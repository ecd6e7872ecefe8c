//! Names and identities that operator and daemon must derive alike.

/// Name of the leg of `volume` in `slot`.
pub fn leg(volume: &str, slot: i32) -> String {
    format!("{volume}-{slot}")
}

/// Subsystem NQN of one grant of a leg: it names leg, epoch and grant, and is never used twice.
pub fn export_nqn(leg_uid: &str, epoch: i64, grant: i64) -> String {
    format!("nqn.2026-11.io.meshstor:leg:{leg_uid}:e{epoch}:g{grant}")
}

/// Prefix of every subsystem NQN that is ours: nothing else is ever touched.
pub const EXPORT_NQN_PREFIX: &str = "nqn.2026-11.io.meshstor:leg:";
