//! Why a turn failed, and the class that alone decides what follows.

use std::time::Duration;

use meshstor_crds::conditions as c;

use crate::attachment::record::RecordError;
use crate::host::HostError;

/// Why a read or write of an API object failed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The object changed since it was read; nothing was written.
    #[error("write {0}: it changed meanwhile")]
    Conflict(String),
    /// The API server said no; nothing was written.
    #[error("write {0}: refused: {1}")]
    Refused(String, String),
    /// Nobody knows whether it was written.
    #[error("reach the API server for {0}: {1}")]
    Unknown(String, String),
}

/// What decides requeue, condition and log level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Read again and plan again.
    Conflict,
    /// Try again soon.
    Transient,
    /// Somebody else must do something first.
    Blocked,
    /// What was asked can not be done.
    Invalid,
    /// Our mistake.
    Bug,
}

/// Why a turn of a worker failed.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// The API.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The node.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A blocking call panicked.
    #[error("run a host call: it ended without a result")]
    Task(#[from] tokio::sync::oneshot::error::RecvError),
}

impl TurnError {
    /// Its class.
    pub fn class(&self) -> Class {
        match self {
            Self::Cluster(ClusterError::Conflict(_)) => Class::Conflict,
            Self::Cluster(ClusterError::Unknown(..)) => Class::Transient,
            Self::Cluster(ClusterError::Refused(..)) => Class::Invalid,
            Self::Host(error) => host(error),
            Self::Record(_) | Self::Task(_) => Class::Bug,
        }
    }
}

/// The class of a host error.
pub fn host(error: &HostError) -> Class {
    match error {
        HostError::Failed { .. } => Class::Transient,
        HostError::Busy { .. } | HostError::Conflict { .. } => Class::Blocked,
        HostError::Crashed => Class::Bug,
    }
}

/// The condition reason of a host error.
pub fn reason(error: &HostError) -> &'static str {
    match error {
        HostError::Busy { .. } => c::REASON_BUSY,
        HostError::Conflict { .. } => c::REASON_CONFLICT,
        HostError::Failed { .. } | HostError::Crashed => c::REASON_HOST_ERROR,
    }
}

impl Class {
    /// How long to wait before the `tries`-th repetition.
    pub fn backoff(self, tries: u32) -> Duration {
        let (first, most) = match self {
            Self::Conflict => (100, 2_000),
            Self::Transient => (500, 15_000),
            Self::Blocked => (2_000, 30_000),
            Self::Invalid | Self::Bug => (5_000, 60_000),
        };
        Duration::from_millis((first << tries.min(7)).min(most))
    }
}
