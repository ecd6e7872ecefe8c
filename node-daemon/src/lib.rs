//! MeshStor's node daemon: prepares and exports legs, assembles arrays, records losses before they count.
//!
//! [`leg`], [`attachment`] and [`quarantine`] are the pure cores: from what is observed to the next step. [`control`] are the
//! hands: watches, workers, status writes. [`host`] is the one seam to the kernel, [`wake`] and [`events`] what it tells.

pub mod attachment;
pub mod control;
pub mod events;
pub mod fabric;
pub mod host;
pub mod ids;
pub mod leg;
pub mod quarantine;
pub mod wake;
