//! The thin hands: watches wake workers, a worker observes, plans and does one step at a time.

pub mod attachment;
pub mod cluster;
pub mod context;
pub mod dispatch;
pub mod effect;
pub mod error;
pub mod fabric;
mod health;
pub mod interest;
pub mod leg;
pub mod node;
pub mod observe;
pub mod quarantine;
pub mod surroundings;
#[cfg(test)]
mod tests;
