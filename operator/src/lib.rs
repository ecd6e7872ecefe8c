//! The operator of MeshStor: assigns legs to nodes, moves the record through its epochs, and says how volumes are.
//!
//! Each kind has a folder of its own. Placement, planning, guarding and status are pure functions from what was
//! observed to data; only [`volume::dereference`] and [`volume::apply`] talk to the API server.
//! What operator and daemons may do is in `docs/explanation/protocol.md`.

pub mod context;
pub mod drain;
pub mod error;
pub mod leader;
pub mod node;
pub mod placement;
pub mod policy;
pub mod volume;

/// Field manager of everything that the operator applies or creates, and name of its event reporter.
pub const MANAGER: &str = "meshstor-operator";
