//! A case: a fault, whom it hits, and when.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What happens to a node.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// It loses its power and stays off for the whole outage.
    Kill,
    /// It stops in the middle of whatever it does (`SIGSTOP` of the whole machine), and goes on after the outage as if nothing had been.
    Hang,
    /// It loses its power and boots again at once.
    Reboot,
    /// It and the API server do not hear each other.
    Control,
    /// It and the legs of other nodes, and other nodes and its own leg, do not hear each other.
    Data,
    /// Both.
    Both,
    /// As both, but one direction passes.
    OneWay,
}

/// Whom it hits.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "kebab-case")]
pub enum Victim {
    /// The node where the volume is used.
    Consumer,
    /// One of the nodes that export a leg to it.
    Target,
    /// Both of them, the second as soon as the first is healed: most often while the first's leg is still copied to.
    Targets,
}

/// When it hits.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "kebab-case")]
pub enum Moment {
    /// The volume is attached, and nobody writes.
    Idle,
    /// The verifying writer writes.
    Load,
    /// A leg that missed something is being copied to.
    Resync,
    /// The volume was asked for, and cannot be used yet.
    Attach,
    /// The volume is asked for nowhere, and its array is not gone yet.
    Detach,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Kill, Self::Hang, Self::Reboot, Self::Control, Self::Data, Self::Both, Self::OneWay];
}

impl Victim {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Consumer, Self::Target, Self::Targets];
}

impl Moment {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Idle, Self::Load, Self::Resync, Self::Attach, Self::Detach];
}

/// One cell of the matrix.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Case {
    /// What happens.
    pub fault: Fault,
    /// To whom.
    pub victim: Victim,
    /// When.
    pub moment: Moment,
}

/// A word for each value, as serde has it too.
macro_rules! words {
    ($kind:ident: $($value:ident => $word:literal),+) => {
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$value => $word),+ })
            }
        }
    };
}
words!(Fault: Kill => "kill", Hang => "hang", Reboot => "reboot", Control => "control", Data => "data", Both => "both", OneWay => "one-way");
words!(Victim: Consumer => "consumer", Target => "target", Targets => "targets");
words!(Moment: Idle => "idle", Load => "load", Resync => "resync", Attach => "attach", Detach => "detach");

impl fmt::Display for Case {
    /// Its name, such as `one-way/consumer/load`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}/{}", self.fault, self.victim, self.moment))
    }
}
