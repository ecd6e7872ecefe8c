//! The heal phase: faults end, and within a bounded number of rounds everything is as it is wanted and stays so (I4).

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt as _;
use meshstor_crds::{MeshReplica, conditions};
use meshstor_node_daemon::host::Host as _;
use meshstor_operator::volume::budget;

use crate::sim::{NODES, Sim};

/// Rounds in which everything must have come to rest.
const ROUNDS: u32 = 300;
/// Rounds without a change after which it has; the last ones are hours apart.
const STILL: u32 = 6;

impl Sim<'_> {
    pub(crate) fn heal_phase(&mut self) -> Result<(), String> {
        self.end_faults();
        let mut still = 0;
        for _ in 0..ROUNDS {
            let pass = match still {
                0 => 3,
                1..=3 => 70,
                _ => 4000,
            };
            let changed = self.round(Duration::from_secs(pass))?;
            still = if changed { 0 } else { still + 1 };
            if still >= STILL {
                return self.is_as_wanted();
            }
        }
        Err(format!("I4: no rest within {ROUNDS} rounds; {:?}", self.attachment().map(|a| a.status.clone())))
    }

    fn end_faults(&mut self) {
        self.say(|| "the faults end".to_owned());
        self.options.crowded = false;
        for node in NODES {
            self.boot(node);
            self.net.set_cut(node, false, false);
            NODES.iter().for_each(|other| self.fabric.cut(node, other, false));
        }
        self.operators.truncate(1);
        while self.net.pending() > 0 {
            if self.rng.bool() {
                self.net.give_up(0);
                self.net.deliver(0, false);
            } else {
                self.net.lose(0);
            }
        }
        // Processes of the fault phase may have a crash point before them; those of the heal phase have none.
        self.daemons.clear();
        self.operators.clear();
        // Where it has no place it has none until nodes may be used again.
        if self.attachment().is_none() {
            self.end_drains();
        }
        if self.deleting() {
            self.want(None);
        } else if self.rng.bool() {
            let node = self.any_node();
            self.want(Some(node));
        }
    }

    fn is_as_wanted(&mut self) -> Result<(), String> {
        if self.deleting() {
            return self.is_gone();
        }
        let attachment = self.attachment();
        let copy_on = attachment.as_ref().and_then(|a| a.status.as_ref()?.copy_on.clone());
        if let Some(node) = copy_on {
            return Err(format!("I4: at rest, and an array still runs on {node} for a copy"));
        }
        let wanted = attachment.and_then(|a| a.spec.node.clone());
        let said = self.volume().and_then(|v| v.status.clone()).unwrap_or_default();
        let ready = said.conditions.iter().find(|c| c.type_ == conditions::READY);
        let ready = ready.map(|c| (c.status.clone(), c.reason.clone())).unwrap_or_default();
        let reason = if wanted.is_some() { conditions::REASON_ATTACHED } else { conditions::REASON_DETACHED };
        // What is wanted nowhere rebuilds nothing.
        let scarce = wanted.is_none() && ready == ("False".to_owned(), conditions::REASON_TOO_FEW_COPIES.to_owned());
        if (ready != ("True".to_owned(), reason.to_owned()) && !scarce) || said.consumer != wanted {
            return Err(format!(
                "I4: at rest, wanted on {wanted:?}, and the volume says {ready:?}: {:?}",
                said.conditions
            ));
        }
        if let Some(node) = NODES.into_iter().find(|n| wanted.as_deref() != Some(*n) && self.litter(n)) {
            return Err(format!("I4: at rest, and something is left on {node}"));
        }
        let (in_sync, retired) = self.term().map(|t| (t.in_sync, t.retired)).unwrap_or_default();
        let legs: Vec<_> = self.net.state().replicas.objects.values().cloned().collect();
        // One that stays although it is away comes back when somebody attaches the volume; its heir waits for that too.
        let stays =
            |name: &String| legs.iter().any(|l| l.name_any() == *name && !l.spec.replace && !retired.contains(name));
        let late = |l: &&Arc<MeshReplica>| l.spec.replaces.as_ref().is_some_and(|of| !stays(of));
        if let Some(leg) = legs.iter().filter(late).find(|l| !in_sync.contains(&l.name_any())) {
            return Err(format!("I4: at rest, and {} was never copied to", leg.name_any()));
        }
        let (emptied, closed) = self.drained();
        // Where nobody wants a leg elsewhere too, and there is room.
        let asked = legs.iter().any(|l| l.spec.replace || budget::fails(l));
        let room = NODES.len().saturating_sub(closed) >= said.legs.len();
        if let Some(leg) = legs.iter().find(|l| emptied.contains(&l.spec.node)).filter(|_| room && !asked) {
            let why = said.conditions.iter().find(|c| c.type_ == conditions::REPLACING).map(|c| &c.message);
            let (leg, node) = (leg.name_any(), &leg.spec.node);
            return Err(format!("I4: at rest, and {leg} is still on {node}, which is drained: {why:?}"));
        }
        if !emptied.is_empty() && room && !asked {
            self.count("node emptied");
        }
        if legs.iter().any(|l| l.spec.replaces.is_some()) {
            self.count("heir in sync");
        }
        let all = said.legs.len();
        let copies = self.term().map_or(all, |t| t.in_sync.len());
        if wanted.is_some() && copies < all {
            return Err(format!("I4: at rest with {copies} of {all} copies"));
        }
        self.count("rest as wanted");
        Ok(())
    }

    fn is_gone(&mut self) -> Result<(), String> {
        let objects = {
            let state = self.net.state();
            state.volumes.objects.len() + state.attachments.objects.len() + state.replicas.objects.len()
        };
        let legs: usize = self.hosts.values().map(|h| h.legs().map_or(0, |l| l.len())).sum();
        if objects + legs > 0 {
            let said = self.volume().and_then(|v| v.status.clone()).map(|s| s.conditions);
            return Err(format!(
                "I4: deleted, at rest, and {objects} objects and {legs} partitions are left: {said:?}"
            ));
        }
        self.count("rest, deleted");
        Ok(())
    }
}
