//! The protocol of `SAFETY.md` as a small state machine, checked exhaustively within [`Bounds`].
//!
//! One volume, a leg on each of two or three nodes, one block whose writes are numbered. The API server keeps the record; nodes
//! crash, lose their links, their daemons die and their requests arrive late or never. Nothing here has a clock: whatever may
//! happen late may happen at any time, so a partition is a message that does not arrive, and a second operator is one more write.
//!
//! Each numbered clause of the rules is a [`Clause`] that can be left out. `tests/` checks that nothing is lost with all of them, and
//! that something is lost without any one.

mod api;
mod bounds;
mod consumer;
mod fault;
mod heal;
mod io;
mod leg;
mod machine;
mod oracle;
mod request;
mod state;

pub use bounds::{Bounds, Clause};
pub use machine::{Action, Protocol, Verdict};
pub use state::{NODES, State, Violation};
