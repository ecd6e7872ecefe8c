//! `NodeDrain`, and the guards by which `kubectl drain` waits for one.
//!
//! All drains are looked at together, for each takes from what the others have left: a round reads everything that they are about, decides
//! ([`decision`]), plans ([`plan`]) and does what is planned ([`apply`]). Nothing is remembered between rounds; what a drain has come to is
//! seen anew each time, and the one decision that others rely on, that a node may go, is in `status.releasedAt`.

pub mod apply;
pub mod asked;
pub mod decision;
pub mod guard;
pub mod leaving;
pub mod observe;
pub mod plan;
pub mod rounds;
pub mod status;
pub mod volumes;
pub mod world;

#[cfg(test)]
mod tests;
