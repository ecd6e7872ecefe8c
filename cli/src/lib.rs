//! The commands of `meshstor`. Each is a pure core that decides, and a thin hand that reads and writes.

pub mod quarantine;
pub mod rebuild;
