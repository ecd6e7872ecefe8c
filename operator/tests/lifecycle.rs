//! The life of a volume, scripted: every scenario ends still (I4), and every one is run again with the operator dying
//! after each of its writes (I5).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod sim;

use meshstor_crds::{TermPhase, conditions};
use sim::Sim;

/// The scenario, and what must hold at its end.
type Story = fn(&mut Sim);

fn attached(sim: &Sim, node: &str, copies: &str) {
    let status = sim.volume.as_ref().unwrap().status.clone().unwrap();
    assert_eq!(sim.said(conditions::READY), "True/Attached", "{status:?}\n{}", sim.tail());
    assert_eq!(status.consumer.as_deref(), Some(node), "{}", sim.tail());
    assert_eq!(status.copies.as_deref(), Some(copies), "{}", sim.tail());
}

fn create(sim: &mut Sim) {
    sim.settle();
    assert_eq!(sim.said(conditions::READY), "True/Detached", "{}", sim.tail());
    assert!(sim.legs.keys().eq(["v-0", "v-1"]));
}

fn attach(sim: &mut Sim) {
    create(sim);
    sim.want(Some("n1"));
    sim.settle();
    attached(sim, "n1", "2/2");
    assert!(sim.acked > 0);
}

fn target_lost_and_back(sim: &mut Sim) {
    attach(sim);
    sim.crash("n2");
    sim.settle();
    attached(sim, "n1", "1/2");
    assert_eq!(sim.said(conditions::DEGRADED), "True/LegMissing");
    sim.boot("n2");
    sim.settle();
    attached(sim, "n1", "2/2");
    assert_eq!(sim.said(conditions::DEGRADED), "False/AsWanted");
}

/// The target stays up, only its path is away for a while: no reboot spends its grant, so the operator must (rule 9).
fn fabric_blinks(sim: &mut Sim) {
    attach(sim);
    let before = sim.legs["v-1"].spec.grant.clone().unwrap().number;
    sim.nodes.get_mut("n2").unwrap().fabric = false;
    sim.settle();
    attached(sim, "n1", "1/2");
    sim.nodes.get_mut("n2").unwrap().fabric = true;
    sim.settle();
    attached(sim, "n1", "2/2");
    assert!(sim.legs["v-1"].spec.grant.clone().unwrap().number > before);
}

fn detach_and_move(sim: &mut Sim) {
    attach(sim);
    sim.want(None);
    sim.settle();
    assert_eq!(sim.said(conditions::READY), "True/Detached");
    assert!(sim.legs.values().all(|leg| leg.spec.grant.is_none()), "grants are taken back");
    sim.want(Some("n2"));
    sim.settle();
    attached(sim, "n2", "2/2");
    sim.want(Some("n3"));
    sim.settle();
    attached(sim, "n3", "2/2");
}

fn consumer_reboots(sim: &mut Sim) {
    attach(sim);
    let epoch = sim.term().unwrap().epoch;
    sim.crash("n1");
    sim.tick(2);
    sim.boot("n1");
    sim.settle();
    attached(sim, "n1", "2/2");
    assert!(sim.term().unwrap().epoch > epoch, "rule 4: one assembly, one epoch");
}

/// I1, I2, I7: the consumer is cut off from the API server alone; its array runs on, and nothing moves by itself.
fn consumer_is_given_up(sim: &mut Sim) {
    attach(sim);
    sim.nodes.get_mut("n1").unwrap().api = false;
    sim.tick(80);
    sim.settle();
    assert_eq!(sim.said(conditions::READY), "Unknown/ConsumerUnreachable");
    sim.want(Some("n3"));
    sim.settle();
    assert_eq!(sim.said(conditions::READY), "False/ConsumerUnreachable");
    assert_eq!(sim.term().unwrap().epoch, 1);
    sim.give_up_consumer();
    sim.settle();
    attached(sim, "n3", "1/2");
    assert_eq!(sim.term().unwrap().in_sync, ["v-1"]);
    sim.nodes.get_mut("n1").unwrap().api = true;
    sim.settle();
    attached(sim, "n3", "2/2");
}

fn start_fails(sim: &mut Sim) {
    create(sim);
    sim.nodes.get_mut("n1").unwrap().consumer.fail_starts = 3;
    sim.want(Some("n1"));
    sim.settle();
    attached(sim, "n1", "2/2");
    assert!(sim.term().unwrap().epoch >= 4);
}

fn delete(sim: &mut Sim) {
    attach(sim);
    sim.delete();
    sim.settle();
    let ready = sim.said(conditions::READY);
    assert_eq!((ready.as_str(), sim.said(conditions::RECONCILING).as_str()), ("True/Attached", "True/StillAttached"));
    sim.want(None);
    sim.settle();
    assert!(sim.volume.is_none() && sim.legs.is_empty() && sim.attachment.is_none(), "{}", sim.tail());
}

fn delete_never_attached(sim: &mut Sim) {
    create(sim);
    sim.delete();
    sim.settle();
    assert!(sim.volume.is_none() && sim.legs.is_empty() && sim.attachment.is_none(), "{}", sim.tail());
}

/// I4: a volume that goes is never begun, for nobody would retire its record.
fn delete_and_want_before_the_first_epoch(sim: &mut Sim) {
    create(sim);
    sim.delete();
    sim.operate();
    sim.want(Some("n1"));
    sim.settle();
    assert!(sim.term().is_none(), "{}", sim.tail());
    sim.want(None);
    sim.settle();
    assert!(sim.volume.is_none() && sim.legs.is_empty() && sim.attachment.is_none(), "{}", sim.tail());
}

/// Rule 8: a leg that cannot confirm keeps the whole volume from being wiped.
fn delete_waits_for_a_silent_leg(sim: &mut Sim) {
    attach(sim);
    sim.crash("n2");
    sim.tick(80);
    sim.delete();
    sim.want(None);
    sim.settle();
    assert_eq!(sim.said(conditions::STALLED), "True/RevocationUnconfirmed");
    assert!(sim.legs.values().all(|leg| leg.metadata.deletion_timestamp.is_none()));
    sim.boot("n2");
    sim.settle();
    assert!(sim.volume.is_none() && sim.legs.is_empty(), "{}", sim.tail());
}

/// I3, rule 3: nothing confirmed, nothing starts.
fn nobody_confirms(sim: &mut Sim) {
    attach(sim);
    sim.want(None);
    sim.settle();
    sim.crash("n1");
    sim.crash("n2");
    sim.tick(80);
    sim.want(Some("n3"));
    sim.settle();
    assert_eq!(sim.said(conditions::STALLED), "True/RevocationUnconfirmed");
    assert_eq!(sim.term().unwrap().phase, TermPhase::Revoking);
    sim.boot("n1");
    sim.settle();
    attached(sim, "n3", "1/2");
    sim.boot("n2");
    sim.settle();
    attached(sim, "n3", "2/2");
}

/// Away for longer than the policy waits: another leg takes the seat, and the old one is wiped when its node is back.
fn replaced(sim: &mut Sim) {
    attach(sim);
    sim.crash("n2");
    sim.tick(80);
    sim.settle();
    attached(sim, "n1", "1/2");
    sim.tick(900);
    sim.settle();
    attached(sim, "n1", "2/2");
    assert_eq!(sim.term().unwrap().in_sync, ["v-0", "v-1.1"]);
    assert_eq!(sim.said(conditions::REPLACING), "True/LegMissing", "the old leg waits for its node");
    sim.boot("n2");
    sim.settle();
    assert!(sim.legs.keys().eq(["v-0", "v-1.1"]), "{}", sim.tail());
    assert_eq!(sim.said(conditions::REPLACING), "");
    attached(sim, "n1", "2/2");
}

/// The old leg is back just when its heir is being made.
fn back_while_it_is_replaced(sim: &mut Sim) {
    attach(sim);
    sim.crash("n2");
    sim.tick(80);
    sim.settle();
    sim.tick(900);
    for _ in 0..20 {
        if sim.legs.contains_key("v-1.1") {
            break;
        }
        sim.operate();
        sim.daemon("n1");
    }
    assert!(sim.legs.contains_key("v-1.1"), "the fault must be able to fire");
    sim.boot("n2");
    sim.settle();
    attached(sim, "n1", "2/2");
    assert_eq!(sim.legs.len(), 2, "{}", sim.tail());
}

/// A person's word that a node is gone for good: nothing is waited for, and nobody is left to wipe its leg.
fn node_deleted(sim: &mut Sim) {
    attach(sim);
    sim.crash("n2");
    sim.deleted.insert("n2".into());
    sim.settle();
    attached(sim, "n1", "2/2");
    assert!(sim.legs.keys().eq(["v-0", "v-1.1"]), "{}", sim.tail());
}

/// I3: a leg in use is moved, and no copy is missing at any time.
fn leg_is_asked_to_leave(sim: &mut Sim) {
    attach(sim);
    sim.floor = 2;
    sim.replace("v-1", true);
    sim.settle();
    attached(sim, "n1", "2/2");
    assert!(sim.legs.keys().eq(["v-0", "v-1.1"]), "{}", sim.tail());
    assert_eq!(sim.said(conditions::REPLACING), "");
}

/// The same while nobody uses the volume: an array runs until it is done, and no longer.
fn leg_is_asked_to_leave_while_detached(sim: &mut Sim) {
    attach(sim);
    sim.floor = 2;
    sim.want(None);
    sim.settle();
    sim.replace("v-1", true);
    sim.settle();
    assert_eq!(sim.said(conditions::REPLACING), "");
    assert_eq!(sim.said(conditions::READY), "True/Detached");
    assert!(sim.legs.keys().eq(["v-0", "v-1.1"]), "{}", sim.tail());
    let status = sim.attachment.as_ref().unwrap().status.as_ref().unwrap();
    assert!(status.copy_on.is_none() && status.array.is_none(), "{status:?}");
    sim.want(Some("n1"));
    sim.settle();
    attached(sim, "n1", "2/2");
}

/// The word is taken back before the other leg is filled: the old one stays.
fn leg_may_stay_after_all(sim: &mut Sim) {
    attach(sim);
    sim.want(None);
    sim.settle();
    sim.replace("v-1", true);
    for _ in 0..20 {
        if sim.legs.contains_key("v-1.1") {
            break;
        }
        sim.operate();
        sim.daemon("n1");
    }
    assert!(sim.legs.contains_key("v-1.1"));
    sim.replace("v-1", false);
    sim.settle();
    assert!(sim.legs.keys().eq(["v-0", "v-1"]), "{}", sim.tail());
    sim.want(Some("n1"));
    sim.settle();
    attached(sim, "n1", "2/2");
}

const STORIES: [(&str, Story); 19] = [
    ("replaced", replaced),
    ("back while it is replaced", back_while_it_is_replaced),
    ("node deleted", node_deleted),
    ("leg is asked to leave", leg_is_asked_to_leave),
    ("leg is asked to leave while detached", leg_is_asked_to_leave_while_detached),
    ("leg may stay after all", leg_may_stay_after_all),
    ("create", create),
    ("attach", attach),
    ("target lost and back", target_lost_and_back),
    ("fabric blinks", fabric_blinks),
    ("detach and move", detach_and_move),
    ("consumer reboots", consumer_reboots),
    ("consumer is given up", consumer_is_given_up),
    ("start fails", start_fails),
    ("delete", delete),
    ("delete, never attached", delete_never_attached),
    ("delete and want before the first epoch", delete_and_want_before_the_first_epoch),
    ("delete waits for a silent leg", delete_waits_for_a_silent_leg),
    ("nobody confirms", nobody_confirms),
];

/// I4: every story ends, and then no step is proposed.
#[test]
fn every_story_converges_and_stays_still() {
    for (name, story) in STORIES {
        println!("{name}");
        let mut sim = Sim::new(&["n1", "n2", "n3"], 2, 1);
        story(&mut sim);
        sim.assert_still();
    }
}

/// I5: the operator dies after its k-th write, for every k, and the story ends the same.
#[test]
fn a_crash_after_any_write_is_harmless() {
    for (name, story) in STORIES {
        let mut whole = Sim::new(&["n1", "n2", "n3"], 2, 1);
        story(&mut whole);
        assert!(whole.writes > 0, "the fault must be able to fire");
        for k in 1..=whole.writes {
            println!("{name}, crash after write {k} of {}", whole.writes);
            let mut sim = Sim::new(&["n1", "n2", "n3"], 2, 1);
            sim.crash_after = Some(k);
            story(&mut sim);
            sim.assert_still();
            assert!(sim.log.iter().any(|line| line == "operator crashes"), "the fault fired");
            assert!(whole.legs.keys().eq(sim.legs.keys()), "nothing is done twice");
        }
    }
}

fn single_copy_moves(sim: &mut Sim) {
    sim.settle();
    sim.want(Some("n3"));
    sim.settle();
    attached(sim, "n3", "1/1");
    sim.floor = 1;
    let from = sim.legs["v-0"].spec.node.clone();
    sim.replace("v-0", true);
    sim.settle();
    attached(sim, "n3", "1/1");
    assert!(sim.legs.keys().eq(["v-1.1"]), "{}", sim.tail());
    assert_ne!(sim.legs["v-1.1"].spec.node, from);
    // And back into the slot that it left.
    sim.replace("v-1.1", true);
    sim.settle();
    assert!(sim.legs.keys().eq(["v-0.2"]), "{}", sim.tail());
    attached(sim, "n3", "1/1");
}

/// I1: the only copy is never lost on the way: it leaves when the other one has everything, wherever the operator dies.
#[test]
fn a_single_copy_moves_by_the_empty_slot() {
    let mut whole = Sim::new(&["n1", "n2", "n3"], 1, 1);
    single_copy_moves(&mut whole);
    whole.assert_still();
    for k in 1..=whole.writes {
        let mut sim = Sim::new(&["n1", "n2", "n3"], 1, 1);
        sim.crash_after = Some(k);
        single_copy_moves(&mut sim);
        sim.assert_still();
        assert!(sim.log.iter().any(|line| line == "operator crashes"), "the fault fired");
    }
}

/// I7: where no other place is, the volume says so and goes on.
#[test]
fn a_leg_that_cannot_be_replaced_is_told() {
    let mut sim = Sim::new(&["n1", "n2"], 2, 1);
    attach(&mut sim);
    sim.crash("n2");
    sim.tick(80);
    sim.settle();
    sim.tick(900);
    sim.settle();
    attached(&sim, "n1", "1/2");
    assert_eq!(sim.said(conditions::REPLACING), "False/Unschedulable");
    sim.boot("n2");
    sim.settle();
    attached(&sim, "n1", "2/2");
    assert_eq!(sim.said(conditions::REPLACING), "");
    sim.assert_still();
}
