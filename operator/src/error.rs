//! The operator's errors. The class of an error, and nothing else, decides what happens next.

use std::time::Duration;

/// What can go wrong while an object is reconciled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or did not answer.
    #[error("{action}: {source}")]
    Api {
        /// Verb and object.
        action: String,
        /// What the client said.
        #[source]
        source: Box<kube::Error>,
    },
    /// A planned step breaks a safety rule: nothing was done.
    #[error("refused to {action}: {broken}")]
    Guard {
        /// The step.
        action: String,
        /// The rule.
        #[source]
        broken: crate::volume::guard::Broken,
    },
    /// No list of nodes has come from the API server since the process started.
    #[error("list nodes: no answer yet")]
    NoNodes,
    /// An object lacks what the API server always gives.
    #[error("read {object}: it has no {field}")]
    Incomplete {
        /// Which object.
        object: String,
        /// Which field.
        field: &'static str,
    },
}

/// What kind of trouble an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Somebody else wrote first, or the outcome is unknown: look again at once.
    Conflict,
    /// It may pass by itself.
    Transient,
    /// Something outside must change, for instance permissions.
    Blocked,
    /// The object asks for what cannot be.
    Invalid,
    /// The program is wrong.
    Bug,
}

impl Class {
    /// Name for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Transient => "transient",
            Self::Blocked => "blocked",
            Self::Invalid => "invalid",
            Self::Bug => "bug",
        }
    }

    /// How long to wait before the object is looked at again.
    pub const fn requeue(self) -> Duration {
        match self {
            Self::Conflict => Duration::from_millis(500),
            Self::Transient => Duration::from_secs(3),
            Self::Blocked | Self::Invalid => Duration::from_secs(30),
            Self::Bug => Duration::from_secs(120),
        }
    }
}

impl Error {
    /// Wraps a client's error with what was tried.
    pub fn api(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let action = action.into();
        move |source| Self::Api { action, source: Box::new(source) }
    }

    /// Its class.
    pub fn class(&self) -> Class {
        match self {
            Self::Api { source, .. } => class_of(source),
            Self::NoNodes => Class::Transient,
            Self::Guard { .. } | Self::Incomplete { .. } => Class::Bug,
        }
    }
}

/// A timeout of a write is an unknown outcome: the next run reads again with a quorum and derives the step anew.
fn class_of(error: &kube::Error) -> Class {
    match error {
        kube::Error::Api(status) => match status.code {
            404 | 409 | 410 => Class::Conflict,
            401 | 403 => Class::Blocked,
            400 | 422 => Class::Invalid,
            _ => Class::Transient,
        },
        kube::Error::SerdeError(_) | kube::Error::BuildRequest(_) => Class::Bug,
        _ => Class::Transient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn the_class_of_an_answer_decides_the_wait() {
        for (code, want) in [
            (409, Class::Conflict),
            (404, Class::Conflict),
            (403, Class::Blocked),
            (422, Class::Invalid),
            (429, Class::Transient),
            (500, Class::Transient),
            (504, Class::Transient),
        ] {
            let status = Status { code, ..Status::default() };
            let error = Error::api("write the record of v")(kube::Error::Api(Box::new(status)));
            assert_eq!(error.class(), want, "{code}");
        }
    }
}
