//! Scripted lives of a volume, each whole and again with a process dying before and after each of its effects (I5).

use std::sync::Arc;

use meshstor_node_daemon::host::crash::CrashPoint;
use tokio::runtime::Runtime;

use crate::sim::{NODES, Sim};
use crate::{Options, Outcome};

/// Whose effects are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mortal {
    /// The operator: its writes.
    Operator,
    /// The daemon of a node: host effects and writes.
    Daemon(&'static str),
}

impl Mortal {
    /// Everybody.
    pub const ALL: [Self; 4] = [Self::Operator, Self::Daemon(NODES[0]), Self::Daemon(NODES[1]), Self::Daemon(NODES[2])];
}

/// Attached, a leg fails and comes back, moved, detached, deleted.
fn life(sim: &mut Sim<'_>) -> Result<(), String> {
    sim.calm(12)?;
    sim.want(Some("n1"));
    sim.calm(14)?;
    let target = sim.net.state().replicas.objects.values().map(|r| r.spec.node.clone()).find(|n| n != "n1");
    let target = NODES.into_iter().find(|n| target.as_deref() == Some(*n));
    if let Some(target) = target {
        sim.fabric.cut("n1", target, true);
        sim.calm(8)?;
        sim.fabric.cut("n1", target, false);
        sim.calm(12)?;
        sim.power_cut(target);
        sim.calm(6)?;
        sim.boot(target);
        sim.calm(12)?;
    }
    sim.want(Some("n3"));
    sim.calm(16)?;
    sim.want(None);
    sim.calm(10)?;
    sim.delete();
    sim.heal_phase()
}

fn runtime() -> Option<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_time().build().ok()
}

/// Runs the life with `mortal` dying at `point`; answers with what it came to and how many effects the process had.
pub fn run(mortal: Mortal, point: &Arc<CrashPoint>, log: bool) -> Outcome {
    let Some(runtime) = runtime() else {
        return Outcome { failure: Some("no runtime".to_owned()), ..Outcome::default() };
    };
    let mut sim = Sim::new(1, Options { log, ..Options::default() }, &runtime);
    match mortal {
        Mortal::Operator => {
            sim.operators.clear();
            sim.start_operator(Arc::clone(point));
        }
        Mortal::Daemon(node) => {
            sim.daemons.remove(node);
            sim.start(node, Arc::clone(point));
        }
    }
    let ended = life(&mut sim);
    sim.outcome(ended.err())
}
