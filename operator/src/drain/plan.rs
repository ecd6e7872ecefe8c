//! The next steps of all drains and guards, as data.

use super::decision::{Decision, decide, guarded};
use super::world::{BY_CORDON, World, active, by_cordon, released};
use super::{guard, status};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt as _;
use meshstor_crds::{DrainVolumeState, NodeDrain, NodeDrainSpec, NodeDrainStatus, naming};
use std::fmt::{self, Display};
use std::time::Duration;

/// One write to the API server. Each is harmless to lose and to repeat.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make the drain of a node that was cordoned.
    CreateDrain {
        /// The drain.
        drain: Box<NodeDrain>,
    },
    /// Delete the drain of a node that is not cordoned any more.
    DeleteDrain {
        /// Its name.
        name: String,
        /// Its UID: no other of that name.
        uid: String,
    },
    /// Say what a drain has come to; with it a node is let go, or held again.
    WriteStatus {
        /// The drain as it was read.
        drain: Box<NodeDrain>,
        /// Its new status.
        status: Box<NodeDrainStatus>,
    },
    /// Make the pod that guards a node.
    CreatePod {
        /// The pod.
        pod: Box<Pod>,
    },
    /// Delete a guard's pod.
    DeletePod {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
    },
    /// Take the finalizer from a guard's pod that was evicted or deleted.
    LetPodGo {
        /// The pod as it was read.
        pod: Box<Pod>,
    },
    /// Open or close a node's budget.
    SetBudget {
        /// The budget.
        budget: Box<PodDisruptionBudget>,
        /// Whether it lets the guard go.
        open: bool,
    },
    /// Delete the budget of a node that is gone.
    DeleteBudget {
        /// Its name.
        name: String,
    },
}

impl Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateDrain { drain } => write!(f, "drain {}: it was cordoned", drain.spec.node),
            Self::DeleteDrain { name, .. } => write!(f, "end drain {name}: its node is not cordoned any more"),
            Self::WriteStatus { drain, .. } => write!(f, "write the status of drain {}", drain.name_any()),
            Self::CreatePod { pod } => write!(f, "make guard {}", pod.name_any()),
            Self::DeletePod { name, .. } => write!(f, "delete guard {name}"),
            Self::LetPodGo { pod } => write!(f, "let guard {} go", pod.name_any()),
            Self::SetBudget { budget, open } => {
                write!(f, "{} budget {}", if *open { "open" } else { "close" }, budget.name_any())
            }
            Self::DeleteBudget { name } => write!(f, "delete budget {name}"),
        }
    }
}

/// The next steps. What holds a node comes first, then what is said of the drains, and what lets a node go comes after it was said.
pub fn plan(world: &World) -> Vec<Action> {
    let decisions = decide(world);
    let (mut actions, rest) = guard::plan(world, &decisions);
    actions.extend(ended(world));
    actions.extend(begun(world));
    actions.extend(decisions.iter().filter(|d| !over(world, d.drain)).filter_map(|d| said(world, d)));
    actions.extend(rest);
    actions
}

fn said(world: &World, decision: &Decision<'_>) -> Option<Action> {
    let new = status::status(world, decision);
    let drain = decision.drain;
    let changed = drain.status.as_ref() != Some(&new);
    changed.then(|| Action::WriteStatus { drain: Box::new(drain.clone()), status: Box::new(new) })
}

/// The drains that a cordon made, of nodes that are not cordoned any more or are gone.
fn ended(world: &World) -> Vec<Action> {
    let of = |d: &NodeDrain| Some(Action::DeleteDrain { name: d.name_any(), uid: d.uid()? });
    world.drains.iter().filter(|d| over(world, d)).filter_map(of).collect()
}

fn over(world: &World, drain: &NodeDrain) -> bool {
    active(drain) && by_cordon(drain) && !world.cordoned(&drain.spec.node)
}

/// The drains of cordoned nodes that have none.
fn begun(world: &World) -> Vec<Action> {
    let Some(mode) = world.settings.on_cordon else { return Vec::new() };
    let lacks = |node: &String| !world.drains.iter().any(|d| d.spec.node == *node);
    let nodes = world.nodes.iter().map(|n| n.name_any()).filter(|n| world.cordoned(n)).filter(lacks);
    nodes
        .map(|node| {
            let mut drain = NodeDrain::new(&naming::cut(&format!("cordon-{node}"), 63), NodeDrainSpec::of(node, mode));
            drain.metadata.labels = Some([(BY_CORDON.to_owned(), "true".to_owned())].into());
            Action::CreateDrain { drain: Box::new(drain) }
        })
        .collect()
}

/// When to look again if nothing wakes us.
pub fn next_look(world: &World, actions: &[Action]) -> Duration {
    const CALM: Duration = Duration::from_secs(60);
    const DRAINING: Duration = Duration::from_secs(15);
    const SOON: Duration = Duration::from_secs(2);
    let copied = |d: &&NodeDrain| {
        let volumes = d.status.as_ref().map_or(&[][..], |s| &s.volumes);
        volumes.iter().any(|v| v.state != DrainVolumeState::Blocked)
    };
    // Whoever was let go and has not gone: that may have to be taken back.
    let going = |d: &&NodeDrain| released(d) && world.cordoned(&d.spec.node) && guarded(world, &d.spec.node);
    match () {
        () if !actions.is_empty() => SOON,
        () if world.active().iter().any(|d| copied(d) || going(d)) => SOON,
        () if world.active().is_empty() => CALM,
        () => DRAINING,
    }
}
