//! Whether a node answers: a hint for placement and for waiting. It never decides who may write.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use kube::core::PartialObjectMeta;
use meshstor_crds::{Geometry, MeshNode, MeshNodeStatus, ResolvedPolicy, Transport, capability, conditions};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// The taint by which a person, or a controller, says that a node is shut down for good or cut off from its power: what
/// ran there runs no more (Kubernetes, *Non-graceful node shutdown*).
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// What matters of a Kubernetes node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Face {
    /// Its labels.
    pub labels: Labels,
    /// Whether it bears [`OUT_OF_SERVICE`].
    pub out_of_service: bool,
    /// Whether it was cordoned: `spec.unschedulable`, which no condition of the node sets by itself.
    pub cordoned: bool,
}

impl Face {
    /// Of `node`.
    pub fn of(node: &Node) -> Self {
        let taints = node.spec.as_ref().and_then(|s| s.taints.as_ref());
        let out_of_service = taints.is_some_and(|all| all.iter().any(|t| t.key == OUT_OF_SERVICE));
        let cordoned = node.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true));
        Self { labels: node.labels().clone(), out_of_service, cordoned }
    }
}

/// Age at which a heartbeat is too old: two and a half of the daemon's 30 s beats (`docs/explanation/protocol.md`).
pub const HEARTBEAT_MAX_AGE: Duration = Duration::from_secs(75);

/// Why a node does not count as ready.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// There is no `MeshNode` of that name.
    #[error("there is no MeshNode of that name")]
    Unknown,
    /// Its daemon says so, or has not said anything yet.
    #[error("not ready: {0}")]
    Condition(String),
    /// Somebody has said that it runs no more.
    #[error("it has the taint {OUT_OF_SERVICE}")]
    OutOfService,
    /// The daemon has not been heard of for too long.
    #[error("no heartbeat for {0} s")]
    Silent(i64),
}

/// Whether `node` is ready at `now`: its condition is `True` and its heartbeat is younger than [`HEARTBEAT_MAX_AGE`].
///
/// # Errors
/// [`NotReady`], for people.
pub fn ready(node: &MeshNode, now: Timestamp) -> Result<(), NotReady> {
    let status = node.status.as_ref().ok_or_else(|| NotReady::Condition("its daemon has not reported".to_owned()))?;
    if !conditions::is_true(&status.conditions, conditions::READY) {
        return Err(NotReady::Condition(why(status)));
    }
    match age(status, now) {
        None => Err(NotReady::Condition("its daemon has sent no heartbeat".to_owned())),
        Some(age) if age.as_secs() >= max_age_seconds() => Err(NotReady::Silent(age.as_secs())),
        Some(_) => Ok(()),
    }
}

/// Time until the heartbeat of `node` is too old, if it is not yet.
pub fn expires_in(node: &MeshNode, now: Timestamp) -> Option<Duration> {
    let age = age(node.status.as_ref()?, now)?;
    let left = max_age_seconds().checked_sub(age.as_secs())?;
    u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_secs)
}

fn max_age_seconds() -> i64 {
    i64::try_from(HEARTBEAT_MAX_AGE.as_secs()).unwrap_or(i64::MAX)
}

fn age(status: &MeshNodeStatus, now: Timestamp) -> Option<SignedDuration> {
    status.heartbeat.as_ref().map(|beat| now.duration_since(beat.0))
}

fn why(status: &MeshNodeStatus) -> String {
    let ready = status.conditions.iter().find(|c| c.type_ == conditions::READY);
    ready.map_or_else(|| "no Ready condition".to_owned(), |c| format!("{}: {}", c.reason, c.message))
}

/// What a volume sees of a node besides its heartbeat: when this stays the same, no volume needs another look.
#[derive(Clone, Debug, PartialEq)]
pub struct Digest {
    unschedulable: bool,
    labels: Labels,
    status: Option<MeshNodeStatus>,
    beat: Option<Timestamp>,
}

impl Digest {
    /// The digest of `node`.
    pub fn of(node: &MeshNode) -> Self {
        let mut status = node.status.clone();
        let beat = status.as_mut().and_then(|s| s.heartbeat.take()).map(|t| t.0);
        // It is read when something is placed, and moves nothing.
        status.iter_mut().for_each(|s| s.fabric.clear());
        Self { unschedulable: node.spec.unschedulable, labels: node.labels().clone(), status, beat }
    }

    /// Whether volumes need a look after `self` became `new`: something changed, or the heart had stopped in between.
    pub fn matters(&self, new: &Self) -> bool {
        let gap = match (self.beat, new.beat) {
            (Some(old), Some(new)) => new.duration_since(old).as_secs() >= max_age_seconds(),
            (old, new) => old != new,
        };
        gap || self.unschedulable != new.unschedulable || self.labels != new.labels || self.status != new.status
    }
}

/// Whether the kernel of `node` can run an array of this geometry, and its fabric reach other nodes' legs.
///
/// # Errors
/// What the node lacks.
pub fn can_run(node: &MeshNode, geometry: Geometry, resolved: &ResolvedPolicy) -> Result<(), String> {
    let conditions = node.status.as_ref().map_or(&[][..], |s| &s.conditions);
    if let Some(c) = conditions.iter().find(|c| c.type_ == conditions::REBOOT_REQUIRED && c.status == "True") {
        return Err(format!("it must reboot first: {}", c.message));
    }
    capability::of_array(geometry, resolved.bitmap).try_for_each(|name| capability::of_node(node, name))?;
    let no_rdma = node.status.as_ref().is_none_or(|s| s.rdma_addresses.is_empty());
    match resolved.transport {
        Transport::Rdma if no_rdma => Err("it reports no RDMA address".to_owned()),
        _ => Ok(()),
    }
}

/// The NVMe host NQN of `node`, by which exports let it in.
pub fn host_nqn(node: &MeshNode) -> Option<&str> {
    node.status.as_ref()?.host_nqn.as_deref().filter(|nqn| !nqn.is_empty())
}

/// Gives each of `nodes` the labels of the Kubernetes node of its name; a label of its own goes before them.
pub fn label(nodes: &mut [MeshNode], kubernetes: &[PartialObjectMeta<Node>]) {
    let labels: HashMap<String, &Labels> = kubernetes.iter().map(|n| (n.name_any(), n.labels())).collect();
    for node in nodes {
        for (key, value) in labels.get(&node.name_any()).into_iter().copied().flatten() {
            node.labels_mut().entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
}

/// Finds a node by name.
pub fn find<'a>(nodes: &'a [std::sync::Arc<MeshNode>], name: &str) -> Option<&'a MeshNode> {
    nodes.iter().find(|n| n.name_any() == name).map(AsRef::as_ref)
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshstor_crds::{MeshNodeSpec, Time, conditions::Want};

    fn node(ready: Option<bool>, beat: Option<i64>) -> MeshNode {
        let mut node = MeshNode::new("n1", MeshNodeSpec::default());
        let conditions = ready.map_or_else(Vec::new, |r| {
            let want = [Want::new(conditions::READY, r, conditions::REASON_OK, "")];
            conditions::apply(&[], &want, None, &Time(Timestamp::UNIX_EPOCH))
        });
        let heartbeat = beat.and_then(|s| Timestamp::from_second(s).ok()).map(Time);
        node.status = Some(MeshNodeStatus { conditions, heartbeat, ..MeshNodeStatus::default() });
        node
    }

    #[test]
    fn ready_needs_the_condition_and_a_young_heartbeat() {
        let now = Timestamp::from_second(1000).unwrap();
        for (ready_condition, beat, want) in [
            (Some(true), Some(1000), true),
            (Some(true), Some(926), true),
            (Some(true), Some(925), false),
            (Some(true), None, false),
            (Some(false), Some(1000), false),
            (None, Some(1000), false),
        ] {
            let node = node(ready_condition, beat);
            assert_eq!(ready(&node, now).is_ok(), want, "{ready_condition:?} {beat:?}");
        }
        assert_eq!(expires_in(&node(Some(true), Some(990)), now), Some(Duration::from_secs(65)));
        assert_eq!(expires_in(&node(Some(true), Some(900)), now), None);
    }

    #[test]
    fn labels_come_from_kubernetes_but_for_those_that_the_node_has_itself() {
        let mut nodes = [node(None, None)];
        nodes[0].labels_mut().insert("rack".into(), "ours".into());
        let mut theirs = PartialObjectMeta::<Node>::default();
        theirs.metadata.name = Some("n1".into());
        theirs.metadata.labels = Some([("rack", "theirs"), ("zone", "a")].map(|(k, v)| (k.into(), v.into())).into());
        label(&mut nodes, std::slice::from_ref(&theirs));
        assert_eq!(
            nodes[0].labels(),
            &Labels::from([("rack", "ours"), ("zone", "a")].map(|(k, v)| (k.into(), v.into())))
        );
        let before = Digest::of(&node(None, None));
        assert!(before.matters(&Digest::of(&nodes[0])));
    }

    #[test]
    fn the_taint_is_known_by_its_key() {
        let tainted = |key: &str| {
            let node = serde_json::json!({"metadata": {"name": "n1"}, "spec": {"taints": [
                {"key": "other", "effect": "NoSchedule"}, {"key": key, "value": "nodeshutdown", "effect": "NoExecute"}]}});
            Face::of(&serde_json::from_value(node).unwrap()).out_of_service
        };
        assert!(tainted(OUT_OF_SERVICE));
        assert!(!tainted("node.kubernetes.io/unreachable"));
        assert!(!Face::of(&Node::default()).out_of_service);
    }

    #[test]
    fn a_heartbeat_alone_wakes_nobody_but_its_return_does() {
        let digest = |beat| Digest::of(&node(Some(true), Some(beat)));
        assert!(!digest(1000).matters(&digest(1030)));
        assert!(digest(1000).matters(&digest(1080)));
        assert!(digest(1000).matters(&Digest::of(&node(Some(false), Some(1030)))));
    }
}
