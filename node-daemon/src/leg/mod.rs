//! One leg on its own node: from what is observed to the one next step.
//!
//! Reads top down as a leg lives: [`wipe`] (deletion), [`prepare`] (partition, zeros, ledger), [`serve`] (epochs,
//! revocation, grants), [`report`] (what the status says). Nothing here touches the host or the API server.

mod prepare;
mod report;
mod serve;
mod service;
#[cfg(test)]
mod tests;
mod wipe;

use std::fmt;

use meshstor_crds::{MeshReplica, MeshReplicaSpec, MeshReplicaStatus, Term, Time};

use crate::host::{ExportSpec, LedgerEntry, LegFacts, Part};
pub use report::{progress, trouble};

/// What a quorum read (a GET without `resourceVersion`) of the volume's record said in this turn.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Record {
    /// It was not read in this turn.
    #[default]
    Unread,
    /// There is no attachment of this volume, or it has no term: nothing was ever granted.
    Absent,
    /// The record.
    Present(Box<Term>),
}

/// What the daemon process remembers of a leg; losing it costs a grant, never data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// A grant that is in the ledger as spent, whose export failed without leaving anything behind: never served.
    pub unserved: Option<i64>,
}

/// Everything that decides the next step of a leg.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// The object.
    pub replica: &'a MeshReplica,
    /// The leg as observed.
    pub facts: &'a LegFacts,
    /// This node's name.
    pub node: &'a str,
    /// This boot's ID.
    pub boot_id: &'a str,
    /// Fabric address for exports.
    pub address: Option<&'a str>,
    /// The record, if it was read in this turn.
    pub record: &'a Record,
    /// The consumer says that it lost the leg under the export that it sees: that export must end with a barrier
    /// before another grant is served (rule 9).
    pub disowned: bool,
    /// The consumer says that its writes to the leg are held, and nobody has a connection to the export: its door is shut, and opened once
    /// more behind the barrier (rule 9).
    pub locked_out: bool,
    /// Its consumer says that its drive fails.
    pub failing: bool,
    /// What this process remembers.
    pub memory: &'a Memory,
    /// For condition transitions.
    pub now: &'a Time,
}

/// The one next step of a leg.
#[derive(Clone, Debug, PartialEq)]
pub enum LegStep {
    /// Read the record with a quorum and plan again.
    ReadRecord,
    /// Make the partition.
    CreatePartition {
        /// Bytes.
        bytes: u64,
        /// GPT name.
        label: String,
    },
    /// Zero the leg, then write the ledger entry.
    Zero {
        /// What of it.
        part: Part,
        /// Entry to write when all is zero.
        then: LedgerEntry,
    },
    /// Write the ledger entry durably.
    WriteLedger {
        /// Whole new entry.
        entry: LedgerEntry,
        /// For the log.
        why: &'static str,
    },
    /// Close an export; nothing of it can land any more when this is done.
    Revoke {
        /// Its subsystem.
        nqn: String,
    },
    /// Write the ledger entry (the grant is spent), then open the leg.
    Export {
        /// Entry that says the grant is spent.
        entry: LedgerEntry,
        /// What to open.
        spec: ExportSpec,
    },
    /// Close an export with its barrier and open it again as it was.
    Readmit {
        /// What is opened.
        spec: ExportSpec,
    },
    /// Remove partition and ledger entry.
    DeletePartition,
    /// Let the object go; partition and ledger entry were observed gone.
    RemoveFinalizer,
    /// Write the status.
    Report(Box<MeshReplicaStatus>),
    /// Nothing is to be done.
    Settled,
}

impl LegStep {
    /// Whether bytes of the drive may be lost by it: then the object is read again with a quorum first.
    pub fn destructive(&self) -> bool {
        matches!(self, Self::CreatePartition { .. } | Self::Zero { .. } | Self::DeletePartition)
    }

    /// Whether it must not overlap with an assembly of this volume on this node.
    pub fn needs_gate(&self) -> bool {
        matches!(self, Self::WriteLedger { .. } | Self::Export { .. } | Self::DeletePartition)
    }
}

impl fmt::Display for LegStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReadRecord => write!(f, "read the record"),
            Self::CreatePartition { bytes, label } => write!(f, "create partition {label} of {bytes} bytes"),
            Self::Zero { part: Part::Whole, .. } => write!(f, "zero the leg"),
            Self::Zero { part: Part::Ends, .. } => write!(f, "zero what of the leg is not copied to"),
            Self::WriteLedger { why, .. } => write!(f, "write the ledger: {why}"),
            Self::Revoke { nqn } => write!(f, "revoke {nqn}"),
            Self::Export { spec, .. } => write!(f, "export {} to {}", spec.nqn, spec.host_nqn),
            Self::Readmit { spec } => write!(f, "let {} connect to {} once more", spec.host_nqn, spec.nqn),
            Self::DeletePartition => write!(f, "delete the partition"),
            Self::RemoveFinalizer => write!(f, "remove the finalizer"),
            Self::Report(_) => write!(f, "write the status"),
            Self::Settled => write!(f, "nothing to do"),
        }
    }
}

impl View<'_> {
    fn spec(&self) -> &MeshReplicaSpec {
        &self.replica.spec
    }

    fn status(&self) -> MeshReplicaStatus {
        self.replica.status.clone().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.replica.metadata.name.as_deref().unwrap_or_default()
    }

    fn uid(&self) -> &str {
        self.replica.metadata.uid.as_deref().unwrap_or_default()
    }

    fn deleting(&self) -> bool {
        self.replica.metadata.deletion_timestamp.is_some()
    }
}

/// The next step.
pub fn plan(view: &View<'_>) -> LegStep {
    wipe::step(view).or_else(|| prepare::step(view)).unwrap_or_else(|| serve::step(view))
}
