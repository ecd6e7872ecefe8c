//! What the operator does, as data: a closed set of writes, and a plan of them.

use meshstor_crds::{Grant, MeshReplicaSpec, Term};
use std::fmt::{self, Display};

/// Why a spec is not carried out; nothing of it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A condition reason.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Steps in order, and what keeps others from being planned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What to do, in order; stopping after any of them is harmless.
    pub actions: Vec<Action>,
    /// Why the volume cannot go on without a change outside.
    pub blocked: Option<Refusal>,
    /// Why a leg that must be replaced is not: the volume goes on without it.
    pub unplaced: Option<Refusal>,
}

impl Plan {
    /// A plan that does something.
    pub fn of(actions: Vec<Action>) -> Self {
        Self { actions, ..Self::default() }
    }

    /// A plan that does nothing because of `refusal`.
    pub fn blocked(refusal: Refusal) -> Self {
        Self { blocked: Some(refusal), ..Self::default() }
    }
}

/// One write to the API server. Each is harmless to lose and to repeat: the next plan is derived from what is then
/// observed (I5).
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Hold the volume until nothing of it is left.
    AddFinalizer,
    /// Let the volume go.
    RemoveFinalizer,
    /// Make a leg.
    CreateReplica {
        /// Its name.
        leg: String,
        /// Its spec.
        spec: Box<MeshReplicaSpec>,
    },
    /// Make the attachment, with an empty spec and no record.
    CreateAttachment,
    /// Replace the record.
    WriteTerm(Box<Term>),
    /// Have the array run on a node for a copy to be made, though the volume is wanted nowhere; or no longer.
    CopyOn {
        /// The node.
        node: Option<String>,
    },
    /// Tell a leg of an epoch, without a grant.
    SetReplicaEpoch {
        /// The leg.
        leg: String,
        /// The epoch.
        epoch: i64,
    },
    /// Let a consumer use a leg.
    SetGrant {
        /// The leg.
        leg: String,
        /// The grant.
        grant: Grant,
    },
    /// Take a grant back.
    ClearGrant {
        /// The leg.
        leg: String,
    },
    /// Delete a leg; its daemon wipes it.
    DeleteReplica {
        /// The leg.
        leg: String,
    },
    /// Let a deleted leg go whose node is gone for good: nobody is left to wipe it.
    ReleaseReplica {
        /// The leg.
        leg: String,
    },
    /// Delete the attachment, the last object but the volume.
    DeleteAttachment,
    /// Let the deleted attachment go: its finalizer keeps the record from a careless or cascading deletion.
    ReleaseAttachment,
}

impl Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddFinalizer => write!(f, "add the finalizer"),
            Self::RemoveFinalizer => write!(f, "remove the finalizer"),
            Self::CreateReplica { leg, spec } => write!(f, "create leg {leg} on {} ({})", spec.node, spec.drive),
            Self::CreateAttachment => write!(f, "create the attachment"),
            Self::WriteTerm(term) => {
                write!(f, "write the record: epoch {} {:?} on {}, ", term.epoch, term.phase, term.node)?;
                write!(f, "in sync {}", term.in_sync.join(","))?;
                if term.retired.is_empty() { Ok(()) } else { write!(f, ", retired {}", term.retired.join(",")) }
            }
            Self::CopyOn { node: Some(node) } => write!(f, "have the array run on {node} for a copy"),
            Self::CopyOn { node: None } => write!(f, "have no array run for a copy"),
            Self::SetReplicaEpoch { leg, epoch } => write!(f, "tell leg {leg} of epoch {epoch}"),
            Self::SetGrant { leg, grant } => {
                let later = if grant.copy_later { ", to be copied to later" } else { "" };
                write!(
                    f,
                    "grant leg {leg} to {} (epoch {}, grant {}{later})",
                    grant.consumer, grant.epoch, grant.number
                )
            }
            Self::ClearGrant { leg } => write!(f, "take back the grant of leg {leg}"),
            Self::DeleteReplica { leg } => write!(f, "delete leg {leg}"),
            Self::ReleaseReplica { leg } => write!(f, "let leg {leg} go, whose node is gone for good"),
            Self::DeleteAttachment => write!(f, "delete the attachment"),
            Self::ReleaseAttachment => write!(f, "let the attachment go"),
        }
    }
}
