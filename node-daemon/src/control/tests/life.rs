//! Volumes that live without faults.

use meshstor_crds::{EndedReason, TermPhase};

use super::sim::{MOUNT, Sim, leg_ref};
use crate::host::Host;
use crate::host::fake::Write;

#[tokio::test]
async fn legs_are_prepared_and_rest() {
    // I4: legs are made, zeroed and reported once.
    let mut sim = Sim::new();
    sim.settle().await;
    for (slot, node) in [(0, "a"), (1, "b")] {
        let partition = sim.leg(slot).status.unwrap().partition.unwrap();
        assert!(partition.blank);
        assert!(sim.host(node).leg(&leg_ref(slot, node)).unwrap().ledger.unwrap().zeroed);
    }
}

#[tokio::test]
async fn a_volume_attaches_and_detaches() {
    // I4, I7: attached means mounted, published, Ready; detached means nothing is left on either node.
    let mut sim = Sim::new();
    sim.want(Some("a"));
    sim.settle().await;
    let status = sim.attachment().status.unwrap();
    assert_eq!(sim.term().phase, TermPhase::Running);
    assert!(sim.term().initialised);
    assert_eq!(status.array.as_ref().unwrap().mount_path.as_deref(), Some(MOUNT), "{status:#?}");
    assert!(sim.ready(), "{status:#?}");
    assert_eq!(sim.write("a"), Write::Acked);
    assert!(!sim.host("b").leg(&leg_ref(1, "b")).unwrap().exports.is_empty());
    sim.want(None);
    sim.settle().await;
    let status = sim.attachment().status.unwrap();
    assert_eq!(status.ended.unwrap().reason, EndedReason::Detached);
    assert!(sim.host("a").arrays().unwrap().is_empty() && sim.host("a").connections().unwrap().is_empty());
    assert!(sim.host("b").leg(&leg_ref(1, "b")).unwrap().exports.is_empty());
    let reasons: Vec<_> = sim.state.lock().unwrap().notices.iter().map(|n| n.reason).collect();
    assert_eq!(reasons, ["ArrayAssembled", "Detached"]);
}

#[tokio::test]
async fn a_volume_moves() {
    // I1, I2: the other node's array starts from S under the next epoch and reads what was acknowledged.
    let mut sim = Sim::new();
    sim.want(Some("a"));
    sim.settle().await;
    assert_eq!(sim.write("a"), Write::Acked);
    sim.want(Some("b"));
    sim.settle().await;
    assert_eq!((sim.term().epoch, sim.term().node.as_str()), (2, "b"));
    assert!(sim.ready(), "{:#?}", sim.attachment().status);
    assert_eq!(sim.fabric.read("b", super::sim::array()), Some(1));
    assert!(sim.host("a").arrays().unwrap().is_empty());
}

#[tokio::test]
async fn a_leg_is_wiped_only_when_the_record_lets_it() {
    // I1: rule 8; a deleted object alone takes no data.
    let mut sim = Sim::new();
    sim.want(Some("a"));
    sim.settle().await;
    sim.want(None);
    sim.settle().await;
    {
        let mut state = sim.state.lock().unwrap();
        let version = state.bump();
        let leg = state.replicas.get_mut("v-1").unwrap();
        leg.metadata.deletion_timestamp = Some(meshstor_crds::Time(jiff::Timestamp::UNIX_EPOCH));
        leg.metadata.resource_version = version;
    }
    sim.settle().await;
    assert!(sim.host("b").leg(&leg_ref(1, "b")).unwrap().partition.is_some());
    {
        let mut state = sim.state.lock().unwrap();
        let mut object = state.attachments["v"].clone();
        let term = object.status.as_mut().unwrap().term.as_mut().unwrap();
        term.in_sync = vec!["v-0".to_owned()];
        term.retired = vec!["v-1".to_owned()];
        state.put_attachment(object).unwrap();
    }
    sim.settle().await;
    let facts = sim.host("b").leg(&leg_ref(1, "b")).unwrap();
    assert!(facts.partition.is_none() && facts.ledger.is_none());
    assert!(!sim.state.lock().unwrap().replicas.contains_key("v-1"));
}
