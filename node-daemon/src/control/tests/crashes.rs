//! A daemon that dies before or after every single effect.

use super::sim::Sim;
use crate::host::Host;
use crate::host::crash::CrashPoint;
use crate::host::fake::Write;
use std::sync::Arc;

/// Attach, write, lose the remote leg, write, get it back, detach.
async fn cycle(node: &str, point: Arc<CrashPoint>) -> Sim {
    let mut sim = Sim::new();
    sim.start(node, point);
    sim.want(Some("a"));
    sim.settle().await;
    assert_eq!(sim.write("a"), Write::Acked, "{:#?}", sim.attachment().status);
    sim.fabric.cut("a", "b", true);
    sim.rounds(25).await;
    assert_eq!(sim.write("a"), Write::Acked, "{:#?}", sim.attachment().status);
    sim.fabric.cut("a", "b", false);
    for _ in 0..3 {
        sim.settle().await;
        sim.fabric.complete_rebuilds("a");
    }
    sim.settle().await;
    assert_eq!(sim.term().in_sync, ["v-0", "v-1"]);
    assert!(sim.ready(), "{:#?}", sim.attachment().status);
    sim.want(None);
    sim.settle().await;
    assert!(sim.host("a").arrays().unwrap().is_empty() && sim.host("a").connections().unwrap().is_empty());
    sim
}

async fn every_crash(node: &str) {
    let point = CrashPoint::never();
    cycle(node, Arc::clone(&point)).await;
    let effects = point.effects();
    assert!(effects > 10, "the cycle has effects");
    for k in 1..=effects {
        for point in [CrashPoint::before(k), CrashPoint::after(k)] {
            let sim = cycle(node, Arc::clone(&point)).await;
            assert!(point.dead() && sim.starts == 4, "the fault fired at {k} of {effects}");
        }
    }
}

#[tokio::test]
async fn a_consumer_that_crashes_anywhere() {
    // I5: every crash of the consumer's daemon is harmless, from the first partition to the detach.
    every_crash("a").await;
}

#[tokio::test]
async fn a_target_that_crashes_anywhere() {
    // I5: every crash of the target's daemon is harmless.
    every_crash("b").await;
}
