//! What was observed of one volume: the only input of planning and of status.

use super::clocks::Clocks;
use crate::node::{self, Labels, NotReady};
use crate::placement::Promises;
use jiff::Timestamp;
use kube::ResourceExt as _;
use meshstor_crds::{
    ArrayStatus, EndedReason, Geometry, MeshAttachment, MeshNode, MeshReplica, MeshVolume, NodeDrain, ReplicaSetPolicy,
    Term, TermPhase,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Nobody has heard what labels a node has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the labels of {0} are not known")]
pub struct Unheard(pub String);

/// One volume and everything that decides about it. Legs are read *before* the attachment: what the record says is
/// never older than what is known of a leg.
#[derive(Clone, Debug)]
pub struct World {
    /// The volume.
    pub volume: MeshVolume,
    /// Its UID.
    pub uid: String,
    /// The policy that its spec names, if there is one.
    pub policy: Option<ReplicaSetPolicy>,
    /// Its attachment, read with a quorum.
    pub attachment: Option<MeshAttachment>,
    /// True when an attachment of that name exists and is not this volume's.
    pub foreign_attachment: bool,
    /// Its legs by slot, read with a quorum.
    pub legs: Vec<MeshReplica>,
    /// Legs of that volume name, but of another volume's UID.
    pub foreign_legs: Vec<String>,
    /// What all legs of the cluster take of drives, read with a quorum; empty when nothing is to be placed.
    pub promises: Promises,
    /// All nodes.
    pub nodes: Vec<Arc<MeshNode>>,
    /// Kubernetes nodes of the volume (its consumer's, those of its legs, the one wanted) that bear the out-of-service taint, read
    /// with a quorum.
    pub out_of_service: Vec<String>,
    /// Nodes of its legs and its consumer that are gone for good, read with a quorum: somebody deleted the `MeshNode` (a daemon that lives
    /// makes its own again), or the Kubernetes node, and the daemon has not been heard of for as long as a node may be silent.
    pub gone_nodes: Vec<String>,
    /// Labels of the Kubernetes nodes of its legs, as last heard; those that nobody has heard of are not there.
    pub labels: BTreeMap<String, Labels>,
    /// Label of a node whose value is its failure domain.
    pub domain: Arc<str>,
    /// All drains, as last heard.
    pub drains: Vec<Arc<NodeDrain>>,
    /// What this process has measured.
    pub clocks: Clocks,
    /// Now, for heartbeats and conditions.
    pub now: Timestamp,
}

impl World {
    /// The volume's name.
    pub fn name(&self) -> String {
        self.volume.name_any()
    }

    /// Whether the volume is being deleted.
    pub fn deleting(&self) -> bool {
        self.volume.metadata.deletion_timestamp.is_some()
    }

    /// The node on which somebody wants the volume.
    pub fn asked(&self) -> Option<&str> {
        self.attachment.as_ref()?.spec.node.as_deref()
    }

    /// The node on which the volume is to run while nobody wants it, for a copy to be made of it.
    pub fn copied_on(&self) -> Option<&str> {
        self.attachment.as_ref()?.status.as_ref()?.copy_on.as_deref()
    }

    /// The node on which the volume is to run: where somebody wants it, else where a copy of it is to be made. No copy is made on a node
    /// that does not answer, or of a volume that goes.
    pub fn wanted(&self) -> Option<&str> {
        let answers = |node: &&str| !self.deleting() && self.node_ready(node).is_ok();
        self.asked().or_else(|| self.copied_on().filter(answers))
    }

    /// Whether the record's epoch is there for a copy alone: nobody ever wanted the volume where it runs.
    pub fn only_copies(&self) -> bool {
        self.term().is_some_and(|t| self.copied_on() == Some(t.node.as_str()) && self.asked() != Some(t.node.as_str()))
    }

    /// The record.
    pub fn term(&self) -> Option<&Term> {
        self.attachment.as_ref()?.status.as_ref()?.term.as_ref()
    }

    /// Why the record's epoch has ended, if it has.
    pub fn ended(&self) -> Option<EndedReason> {
        let ended = self.attachment.as_ref()?.status.as_ref()?.ended.as_ref()?;
        (ended.epoch == self.term()?.epoch).then_some(ended.reason)
    }

    /// Whether a person has said that the consumer of the record's epoch is lost.
    pub fn lost(&self) -> bool {
        let lost = self.attachment.as_ref().and_then(|a| a.spec.lost.as_ref());
        matches!((lost, self.term()), (Some(lost), Some(term)) if lost.node == term.node && lost.epoch == term.epoch)
    }

    /// Whether the node `name` bears the out-of-service taint.
    pub fn tainted(&self, name: &str) -> bool {
        self.out_of_service.iter().any(|n| n == name)
    }

    /// Whether the node `name` is gone for good.
    pub fn gone(&self, name: &str) -> bool {
        self.gone_nodes.iter().any(|n| n == name)
    }

    /// Whether an epoch may end without a word of `leg`: nobody was ever let in, or nobody is left to say it.
    pub fn silent(&self, leg: &MeshReplica) -> bool {
        (leg.spec.epoch == 0 && leg.spec.grant.is_none()) || self.gone(&leg.spec.node)
    }

    /// Whether somebody has said that the consumer of the record's epoch runs no more: by `spec.lost`, or by the taint on its node, or its
    /// deletion, while the volume is wanted elsewhere or nowhere. It is a word, not a proof: every confirmation is awaited all the same. An epoch
    /// that is there for a copy alone needs no word: nobody has written in it, and nobody waits for its node.
    pub fn given_up(&self) -> bool {
        let tainted = |t: &Term| self.tainted(&t.node) && self.wanted() != Some(t.node.as_str());
        let silent = |t: &Term| self.only_copies() && self.node_ready(&t.node).is_err();
        let gone = |t: &Term| self.gone(&t.node) && self.wanted() != Some(t.node.as_str());
        self.lost() || self.term().is_some_and(|t| tainted(t) || silent(t) || gone(t))
    }

    /// Whether `node` was given up with the epoch before the record's, or is out of service or gone, and is not the record's own.
    pub fn abandoned(&self, node: &str) -> bool {
        let Some(term) = self.term().filter(|t| t.node != node) else { return false };
        let lost = self.attachment.as_ref().and_then(|a| a.spec.lost.as_ref());
        self.tainted(node)
            || self.gone(node)
            || lost.is_some_and(|lost| lost.node == node && lost.epoch + 1 == term.epoch)
    }

    /// Whether the record's epoch may be followed by another: it has ended, or is given up, or nothing of it can
    /// have begun, for only the operator writes `Started`.
    pub fn over(&self) -> bool {
        self.ended().is_some() || self.given_up() || self.term().is_some_and(|t| t.phase == TermPhase::Revoking)
    }

    /// The array of the record's epoch as its consumer sees it, while the epoch runs.
    pub fn array(&self) -> Option<&ArrayStatus> {
        let term = self.term().filter(|t| t.phase == TermPhase::Running)?;
        let array = self.attachment.as_ref()?.status.as_ref()?.array.as_ref()?;
        (array.epoch == term.epoch && self.ended().is_none()).then_some(array)
    }

    /// The leg of that name.
    pub fn leg(&self, name: &str) -> Option<&MeshReplica> {
        self.legs.iter().find(|leg| leg.name_any() == name)
    }

    /// Whether `node` answers.
    ///
    /// # Errors
    /// [`NotReady`], for people.
    pub fn node_ready(&self, name: &str) -> Result<(), NotReady> {
        if self.tainted(name) {
            return Err(NotReady::OutOfService);
        }
        node::find(&self.nodes, name).ok_or(NotReady::Unknown).and_then(|n| node::ready(n, self.now))
    }

    /// The value of `node`'s label `key`; that of its `MeshNode` goes before that of Kubernetes.
    ///
    /// # Errors
    /// When nobody has heard what labels it has.
    pub fn label(&self, node: &str, key: &str) -> Result<Option<&str>, Unheard> {
        let own = node::find(&self.nodes, node).and_then(|n| n.metadata.labels.as_ref()?.get(key));
        match (own, self.labels.get(node)) {
            (Some(own), _) => Ok(Some(own)),
            (None, Some(theirs)) => Ok(theirs.get(key).map(String::as_str)),
            (None, None) => Err(Unheard(node.to_owned())),
        }
    }

    /// The failure domain of `node`: the value of the label that says it, or the node itself.
    pub fn domain(&self, node: &str) -> String {
        self.label(node, &self.domain).ok().flatten().map_or_else(|| format!("node {node}"), str::to_owned)
    }

    /// Whether the kernel of `node` can run the volume's array, and its fabric reach the legs. Nobody is told of a node that is
    /// not there: that is [`World::node_ready`]'s to say.
    ///
    /// # Errors
    /// What the node lacks.
    pub fn can_run(&self, node: &str) -> Result<(), String> {
        match (self.volume.status.as_ref().and_then(|s| s.resolved.as_ref()), node::find(&self.nodes, node)) {
            (Some(resolved), Some(node)) => node::can_run(node, self.geometry(), resolved),
            _ => Ok(()),
        }
    }

    /// Whether an epoch may be begun for `node`: it answers, and can run the array.
    pub fn willing(&self, node: &str) -> bool {
        self.node_ready(node).is_ok() && self.can_run(node).is_ok()
    }

    /// That of its legs; of its spec, where it has none.
    pub fn geometry(&self) -> Geometry {
        if self.legs.is_empty() { Geometry::of_spec(&self.volume.spec) } else { Geometry::about(&self.legs) }
    }

    /// Names of S.
    pub fn in_sync(&self) -> &[String] {
        self.term().map_or(&[], |t| &t.in_sync)
    }

    /// Whether the daemon of `leg` was told of an epoch although the record is nowhere: it was lost by hand.
    pub fn record_lost(&self) -> bool {
        self.term().is_none() && self.legs.iter().any(|leg| leg.spec.epoch > 0 || leg.spec.grant.is_some())
    }
}

/// Whether everything older than `epoch` is revoked at `leg`.
pub fn confirmed(leg: &MeshReplica, epoch: i64) -> bool {
    leg.status.as_ref().and_then(|s| s.revoked_below).is_some_and(|below| below >= epoch)
}

/// Whether `leg` was prepared and nothing has used it.
pub fn blank(leg: &MeshReplica) -> bool {
    leg.status.as_ref().and_then(|s| s.partition.as_ref()).is_some_and(|p| p.blank)
}

/// Whether all of `leg` was proved to read as zeros, and nothing has used it.
pub fn zeros(leg: &MeshReplica) -> bool {
    blank(leg) && !leg.spec.overwritten
}

/// Whether the partition of `leg` is there for use: blank, or already used by an epoch.
pub fn prepared(leg: &MeshReplica) -> bool {
    let used = leg.spec.epoch > 0 && leg.status.as_ref().is_some_and(|s| s.partition.is_some());
    used || blank(leg)
}
