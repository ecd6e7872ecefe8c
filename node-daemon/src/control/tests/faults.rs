//! Lost paths, lost nodes, a lost API server.

use super::sim::{Sim, array, leg_ref};
use crate::host::Host;
use crate::host::crash::CrashPoint;
use crate::host::fake::Write;

async fn attached() -> Sim {
    let mut sim = Sim::new();
    sim.want(Some("a"));
    sim.settle().await;
    assert_eq!(sim.write("a"), Write::Acked);
    sim
}

#[tokio::test]
async fn a_lost_leg_is_recorded_before_its_writes_count_and_comes_back_under_a_new_grant() {
    // I1, I6: record, then fail; return is a rebuild.
    let mut sim = attached().await;
    let grant = sim.leg(1).spec.grant.unwrap().number;
    sim.fabric.cut("a", "b", true);
    assert_eq!(sim.write("a"), Write::Held, "the fault fired");
    sim.rounds(20).await;
    assert_eq!(sim.term().in_sync, ["v-0"]);
    assert_eq!(sim.write("a"), Write::Acked);
    sim.fabric.cut("a", "b", false);
    sim.settle().await;
    assert!(sim.leg(1).spec.grant.unwrap().number > grant, "rule 9: one connection a grant");
    assert_eq!(sim.term().in_sync, ["v-0"], "I6: not before it is rebuilt");
    sim.fabric.complete_rebuilds("a");
    sim.settle().await;
    assert_eq!(sim.term().in_sync, ["v-0", "v-1"]);
    assert!(sim.ready());
}

#[tokio::test]
async fn without_an_api_server_writes_stay_held() {
    // I1: rule 5; no leg is let go before its loss is recorded.
    let mut sim = attached().await;
    sim.state.lock().unwrap().away = true;
    sim.rounds(5).await;
    assert_eq!(sim.write("a"), Write::Acked, "rule 6: an outage alone changes nothing");
    sim.fabric.cut("a", "b", true);
    sim.rounds(20).await;
    assert_eq!(sim.write("a"), Write::Held);
    assert_eq!(sim.host("a").connections().unwrap().len(), 1);
    sim.state.lock().unwrap().away = false;
    sim.rounds(20).await;
    assert_eq!(sim.term().in_sync, ["v-0"]);
    assert_eq!(sim.write("a"), Write::Acked);
}

#[tokio::test]
async fn a_lost_answer_is_settled_before_anything_else() {
    // I1: rule 5 [10]; the write of the loss landed and nobody was told.
    let mut sim = attached().await;
    sim.state.lock().unwrap().lose_answers = 1;
    sim.fabric.cut("a", "b", true);
    sim.rounds(20).await;
    assert_eq!(sim.state.lock().unwrap().lose_answers, 0, "the fault fired");
    assert_eq!(sim.term().in_sync, ["v-0"]);
    assert_eq!(sim.write("a"), Write::Acked);
}

#[tokio::test]
async fn a_delayed_write_never_lands_late() {
    // I1: rule 5 [10]; an outstanding write that adds a leg must not land after the leg was lost again.
    let mut sim = attached().await;
    sim.fabric.cut("a", "b", true);
    sim.rounds(20).await;
    sim.fabric.cut("a", "b", false);
    sim.settle().await;
    sim.fabric.complete_rebuilds("a");
    sim.state.lock().unwrap().delay = 1;
    sim.rounds(1).await;
    assert_eq!(sim.state.lock().unwrap().delayed.len(), 1, "the fault fired");
    sim.fabric.cut("a", "b", true);
    for _ in 0..20 {
        sim.rounds(1).await;
        if sim.write("a") == Write::Acked {
            break;
        }
    }
    assert!(sim.fabric.acked(array()) > 1, "the held writes were released");
    assert_eq!(sim.state.lock().unwrap().land(), 0);
    assert_eq!(sim.term().in_sync, ["v-0"]);
    sim.rounds(3).await;
}

#[tokio::test]
async fn a_rebooted_target_serves_no_old_grant() {
    // I1: rule 1; the consumer records it away, then it is rebuilt under a new grant.
    let mut sim = attached().await;
    let grant = sim.leg(1).spec.grant.unwrap().number;
    sim.kill("b");
    sim.boot("b");
    sim.rounds(3).await;
    let exports = sim.host("b").leg(&leg_ref(1, "b")).unwrap().exports;
    assert!(exports.iter().all(|e| !e.nqn.ends_with(&format!(":g{grant}"))));
    sim.settle().await;
    sim.fabric.complete_rebuilds("a");
    sim.settle().await;
    assert!(sim.leg(1).status.unwrap().export.unwrap().grant > grant);
    assert_eq!(sim.term().in_sync, ["v-0", "v-1"]);
}

#[tokio::test]
async fn a_rebooted_consumer_starts_under_a_new_epoch() {
    // I1, I2: rule 4; one assembly, one epoch.
    let mut sim = attached().await;
    sim.kill("a");
    sim.boot("a");
    sim.settle().await;
    assert_eq!(sim.term().epoch, 2);
    assert!(sim.ready(), "{:#?}", sim.attachment().status);
    assert_eq!(sim.fabric.read("a", array()), Some(1));
}

#[tokio::test]
async fn a_lost_consumer_is_followed_by_the_other_node() {
    // I1, I2, I6: the start is from what confirmed; the node that returns is rebuilt.
    let mut sim = attached().await;
    sim.kill("a");
    sim.declare_lost();
    sim.want(Some("b"));
    sim.settle().await;
    assert_eq!(sim.term().in_sync, ["v-1"]);
    assert_eq!(sim.fabric.read("b", array()), Some(1));
    assert_eq!(sim.write("b"), Write::Acked);
    sim.boot("a");
    sim.settle().await;
    sim.fabric.complete_rebuilds("b");
    sim.settle().await;
    assert_eq!(sim.term().in_sync, ["v-0", "v-1"]);
}

#[tokio::test]
async fn a_restarted_daemon_adopts_what_runs() {
    // I5: the data path goes on; the record changes hands before anything else is written.
    let mut sim = attached().await;
    sim.start("a", CrashPoint::never());
    sim.settle().await;
    assert_eq!((sim.term().epoch, sim.term().writer.unwrap().incarnation.as_str()), (1, "a-3"));
    assert_eq!(sim.write("a"), Write::Acked);
    sim.fabric.cut("a", "b", true);
    sim.rounds(20).await;
    assert_eq!(sim.write("a"), Write::Acked);
}

#[tokio::test]
async fn a_member_that_md_failed_is_recorded_away_at_once() {
    // I1: step 9.
    let mut sim = attached().await;
    let remote = sim.host("a").arrays().unwrap()[0].members.iter().find(|m| m.write_mostly).unwrap().name.clone();
    sim.fabric.fail_member("a", array(), &remote);
    sim.settle().await;
    assert!(
        sim.state
            .lock()
            .unwrap()
            .history
            .iter()
            .any(|a| { a.status.as_ref().unwrap().term.as_ref().unwrap().in_sync == ["v-0"] })
    );
    sim.fabric.complete_rebuilds("a");
    sim.settle().await;
    assert_eq!(sim.term().in_sync, ["v-0", "v-1"]);
}

#[tokio::test]
async fn the_last_leg_is_never_recorded_away() {
    // I1: S is never empty; a remote leg that is the last keeps its writes held.
    let mut sim = attached().await;
    let local = sim.host("a").arrays().unwrap()[0].members.iter().find(|m| !m.write_mostly).unwrap().name.clone();
    sim.fabric.cut("a", "b", true);
    sim.fabric.fail_member("a", array(), &local);
    sim.rounds(20).await;
    assert_eq!(sim.term().in_sync, ["v-1"]);
    assert_eq!(sim.write("a"), Write::Held);
    assert!(!sim.ready(), "I7");
}

/// A leg that was lost for a while under load, with what was written in between.
async fn away_and_back() -> Sim {
    let mut sim = attached().await;
    sim.fabric.cut("a", "b", true);
    sim.rounds(20).await;
    assert_eq!(sim.term().bitmap_usable, ["v-1"], "the bitmap is proof from the record of the loss on");
    assert_eq!(sim.write("a"), Write::Acked);
    sim.fabric.cut("a", "b", false);
    sim.settle().await;
    sim
}

#[tokio::test]
async fn a_leg_comes_back_by_the_bitmap() {
    // I1, I6: rule 7; what it lacks is copied, and nothing is erased.
    let mut sim = away_and_back().await;
    assert!(sim.state.lock().unwrap().notices.iter().any(|n| n.reason == "LegReturns"));
    sim.fabric.complete_rebuilds("a");
    sim.settle().await;
    let term = sim.term();
    assert_eq!((term.in_sync.len(), term.bitmap_usable.len()), (2, 0));
    assert_eq!(sim.stamp(1), sim.stamp(0));
}

#[tokio::test]
async fn a_leg_that_is_lost_again_while_it_returns_is_still_named() {
    // I1, I5: rule 7; the bits that mark what it lacks are still there.
    let mut sim = away_and_back().await;
    assert_eq!(sim.term().in_sync, ["v-0"]);
    sim.kill("b");
    sim.rounds(20).await;
    assert_eq!(sim.write("a"), Write::Acked);
    assert_eq!(sim.term().bitmap_usable, ["v-1"]);
    sim.boot("b");
    sim.settle().await;
    sim.fabric.complete_rebuilds("a");
    sim.settle().await;
    assert_eq!(sim.stamp(1), sim.stamp(0));
}

#[tokio::test]
async fn what_a_cut_off_consumer_wrote_alone_is_corrected() {
    // I6: rule 7 [19]; the write that nobody was told of is marked in the leg's own bitmap alone.
    let mut sim = attached().await;
    sim.fabric.cut("a", "b", true);
    assert_eq!(sim.write("a"), Write::Held, "the fault fired");
    sim.kill("a");
    assert!(sim.stamp(0) > sim.stamp(1), "and the legs differ");
    sim.declare_lost();
    sim.want(Some("b"));
    sim.settle().await;
    let term = sim.term();
    assert_eq!((term.in_sync, term.bitmap_usable), (vec!["v-1".to_owned()], vec!["v-0".to_owned()]));
    sim.fabric.cut("a", "b", false);
    sim.boot("a");
    sim.settle().await;
    assert!(sim.state.lock().unwrap().notices.iter().any(|n| n.reason == "LegReturns"));
    sim.fabric.complete_rebuilds("b");
    sim.settle().await;
    assert_eq!(sim.term().in_sync, ["v-0", "v-1"]);
    assert_eq!(sim.stamp(0), sim.stamp(1), "what it alone had is gone");
}
