//! A leg in use gives way to another, with a writer that never stops.

use super::sim::Sim;
use crate::host::Host;
use crate::host::crash::CrashPoint;
use crate::host::fake::Write;
use std::sync::Arc;

/// The leg of b gives way to that of c; then the operator retires it, and its object goes. After every step somebody writes, and
/// [`Sim::round`] checks that each leg of S has what was acknowledged.
async fn replaced(node: &str, point: Arc<CrashPoint>) -> Sim {
    let mut sim = Sim::new();
    sim.want(Some("a"));
    sim.settle().await;
    assert_eq!(sim.write("a"), Write::Acked, "{:#?}", sim.attachment().status);
    sim.heir();
    if node == "a" {
        sim.settle().await;
    }
    sim.start(node, point);
    for _ in 0..40 {
        sim.round().await;
        let degraded = sim.host("a").arrays().unwrap().first().map(|a| a.degraded);
        assert_eq!(degraded, Some(0), "nothing is degraded on the way");
        sim.write("a");
        sim.check();
        sim.fabric.complete_rebuilds("a");
        sim.write("a");
        sim.check();
    }
    sim.settle().await;
    assert_eq!(sim.term().in_sync, ["v-0", "v-1.1"], "{:#?}", sim.attachment().status);
    assert_eq!(sim.write("a"), Write::Acked, "writes go on");
    {
        let mut state = sim.state.lock().unwrap();
        let mut object = state.attachments["v"].clone();
        object.status.as_mut().unwrap().term.as_mut().unwrap().retired = vec!["v-1".to_owned()];
        state.put_attachment(object).unwrap();
        let version = state.bump();
        let leg = state.replicas.get_mut("v-1").unwrap();
        leg.metadata.deletion_timestamp = Some(meshstor_crds::Time(jiff::Timestamp::UNIX_EPOCH));
        leg.metadata.resource_version = version;
    }
    sim.settle().await;
    assert!(!sim.state.lock().unwrap().replicas.contains_key("v-1"), "it is wiped");
    let arrays = sim.host("a").arrays().unwrap();
    assert!(arrays[0].members.len() == 2 && arrays[0].sync_max.is_none() && !arrays[0].suspended, "{arrays:#?}");
    assert_eq!(sim.host("a").connections().unwrap().len(), 1);
    assert!(sim.ready(), "{:#?}", sim.attachment().status);
    sim
}

#[tokio::test]
async fn a_leg_in_use_gives_way_and_no_write_is_acknowledged_that_the_record_does_not_cover() {
    // I1, I3: MD fails the old member by itself; until that is recorded nothing is acknowledged.
    replaced("a", CrashPoint::never()).await;
}

#[tokio::test]
async fn a_crash_anywhere_on_the_way_is_harmless() {
    // I5: of the consumer's daemon, and of that of the new leg.
    for node in ["a", "c"] {
        let point = CrashPoint::never();
        replaced(node, Arc::clone(&point)).await;
        let effects = point.effects();
        assert!(effects > 5, "{node} has effects: {effects}");
        for k in 1..=effects {
            for point in [CrashPoint::before(k), CrashPoint::after(k)] {
                replaced(node, Arc::clone(&point)).await;
                assert!(point.dead(), "the fault fired at {k} of {effects}");
            }
        }
    }
}
