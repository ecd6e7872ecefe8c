//! What the kernel tells of changes that nobody here made: drives that come and go, arrays that somebody else assembled or
//! stopped, controllers that were deleted, exports that were changed in configfs, mounts that were taken away.
//!
//! An event is never believed, only a reason to look. So nothing of what happened is kept, only the names of what it happened to;
//! and all that is told within [`listen::GATHER`] of the first is one piece of news. The seam is the channel of [`News`]: whoever
//! holds its other end can tell the workers anything, as tests do.

mod arrays;
mod configfs;
mod listen;
mod mountinfo;
mod uevent;

pub use listen::{Sources, listen};

use std::collections::BTreeSet;
use std::fmt;

/// What may have changed, by the names that the kernel gives things.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Kernel names of devices, such as `ubda3`, `nvme2`, `nvme2n1` and `md100`, and NQNs of our exports.
    pub names: BTreeSet<String>,
    /// A drive that the daemon may use, or a partition of one, is among them.
    pub drives: bool,
    /// Something was told and not heard: everything may have changed.
    pub missed: bool,
}

impl News {
    /// News of these things.
    pub fn of<T: Into<String>>(names: impl IntoIterator<Item = T>) -> Self {
        Self { names: names.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// News that something was told and not heard.
    pub fn missed() -> Self {
        Self { missed: true, ..Self::default() }
    }

    /// Whether nothing is told.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && !self.drives && !self.missed
    }

    /// Both.
    pub fn and(mut self, other: Self) -> Self {
        self.names.extend(other.names);
        self.drives |= other.drives;
        self.missed |= other.missed;
        self
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        write!(f, "{}{}", names.join(" "), if self.missed { " and more that was not heard" } else { "" })
    }
}
