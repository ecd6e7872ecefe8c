//! How the errors of this implementation are made: verb and object, then what the kernel said.

use super::super::{HostError, Result};
use std::fmt::Display;
use std::io;

/// A refusal that a later try may not meet.
pub(super) fn failed(action: impl Into<String>, cause: impl Display) -> HostError {
    HostError::Failed { action: action.into(), cause: cause.to_string() }
}

/// Somebody uses the object.
pub(super) fn busy(action: impl Into<String>, cause: impl Display) -> HostError {
    HostError::Busy { action: action.into(), cause: cause.to_string() }
}

/// What was found may not be touched; the caller has changed nothing.
pub(super) fn conflict(action: impl Into<String>, cause: impl Display) -> HostError {
    HostError::Conflict { action: action.into(), cause: cause.to_string() }
}

/// Says what was being done when an I/O error came; `EBUSY` becomes [`HostError::Busy`].
pub(super) trait Doing<T> {
    /// `action` is verb and object.
    fn doing(self, action: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| match e.kind() {
            io::ErrorKind::ResourceBusy => busy(action(), e),
            _ => failed(action(), e),
        })
    }
}

impl<T> Doing<T> for rustix::io::Result<T> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(io::Error::from).doing(action)
    }
}

/// An effect whose object is gone already is done.
pub(super) fn unless_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
