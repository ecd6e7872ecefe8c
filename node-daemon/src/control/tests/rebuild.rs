//! Everything is lost but the disks: the objects are made again as `meshstor rebuild-objects` makes them, from what the legs say.

use meshstor_cli::rebuild::found::{Found, Member, Told};
use meshstor_cli::rebuild::objects;
use meshstor_cli::rebuild::plan::{Options, plan};
use meshstor_crds::{Filesystem, MeshVolume, ReplicaSetPolicySpec, TermPhase, naming};

use super::sim::{MOUNT, Sim, VOLUME, array, leg_ref};
use crate::host::crash::CrashPoint;
use crate::host::fake::Write;
use crate::host::{FoundFacts, Host, LegRef};

const UID: &str = "6f9c6a0e-0000-4000-8000-0000000000ff";

fn found(node: &str, leg: &LegRef, facts: FoundFacts) -> Found {
    let superblock = facts.superblock.unwrap();
    Found {
        node: node.to_owned(),
        drive: leg.drive.clone(),
        partition: leg.uuid.to_string(),
        label: facts.label,
        bytes: facts.size,
        in_use: (!facts.exports.is_empty()).then(|| facts.exports.join(", ")),
        member: superblock.map(|sb| Member {
            array: sb.uuid.to_string(),
            name: sb.name,
            level: sb.level,
            slots: sb.slots,
            near: sb.near_copies,
            number: Some(sb.number),
            slot: sb.slot,
            roles: sb.roles,
            filling: sb.rebuilding,
            events: sb.events,
            component: sb.component,
            bitmap: sb.bitmap,
        }),
        told: facts.ledger.map_or(Told::Unknown, |l| Told::Of { epoch: l.epoch, blank: l.blank }),
    }
}

/// Attached, written to; v-1 was away when the last of it was written; then detached.
async fn stale() -> Sim {
    let mut sim = Sim::new();
    sim.want(Some("a"));
    sim.settle().await;
    assert_eq!(sim.write("a"), Write::Acked);
    sim.fabric.cut("a", "b", true);
    assert_eq!(sim.write("a"), Write::Held, "the fault fired");
    sim.rounds(20).await;
    assert_eq!(sim.term().in_sync, ["v-0"]);
    assert_eq!(sim.write("a"), Write::Acked);
    sim.want(None);
    sim.rounds(20).await;
    assert!(sim.attachment().status.unwrap().ended.is_some());
    sim.fabric.cut("a", "b", false);
    sim
}

fn looked_at(sim: &Sim) -> Vec<Found> {
    let of = |(slot, node): (i32, &str)| {
        let leg = leg_ref(slot, node);
        found(node, &leg, sim.host(node).found(&leg).unwrap().unwrap())
    };
    [(0, "a"), (1, "b")].map(of).to_vec()
}

/// What the command makes, in the place of everything that was there; the record first.
fn make_again(sim: &mut Sim, found: &[Found], in_order: usize) -> MeshVolume {
    let options = Options { filesystem: Some(Filesystem::Xfs), ..Options::default() };
    let mut plans = plan(found, &options);
    assert_eq!(plans.len(), 1);
    let mut volume = *plans.remove(0).made.unwrap();
    volume.metadata.uid = Some(UID.to_owned());
    let adopts = volume.spec.adopts.clone().unwrap();
    let mut attachment = objects::attachment(&volume);
    attachment.metadata.uid = Some("attachment-2".to_owned());
    let status = objects::record(VOLUME, &adopts);
    let term = status.term.clone().unwrap();
    attachment.status = Some(status);
    let mut state = sim.state.lock().unwrap();
    volume.status = state.volumes[VOLUME].status.clone();
    (state.attachments, state.replicas, state.volumes) = Default::default();
    attachment.metadata.resource_version = state.bump();
    state.attachments.insert(VOLUME.to_owned(), attachment);
    state.volumes.insert(VOLUME.to_owned(), volume.clone());
    for mut leg in objects::replicas(&volume, &term, &ReplicaSetPolicySpec::default()).into_iter().take(in_order) {
        let name = leg.metadata.name.clone().unwrap();
        leg.metadata.uid = Some(format!("{name}-again"));
        leg.metadata.generation = Some(1);
        leg.metadata.resource_version = state.bump();
        state.replicas.insert(name, leg);
    }
    drop(state);
    for node in ["a", "b"] {
        sim.start(node, CrashPoint::never());
    }
    volume
}

/// I1, I6: no leg is zeroed, made anew or formatted; the array starts from the leg that holds everything; the other is rebuilt.
#[tokio::test]
async fn a_volume_whose_objects_were_lost_is_attached_again() {
    let mut sim = stale().await;
    let acked = sim.fabric.acked(array());
    let found = looked_at(&sim);
    assert!(sim.stamp(1).unwrap() < acked, "the leg that was away lacks a write");
    make_again(&mut sim, &found, 2);
    sim.settle().await;
    let epoch = sim.term().epoch;
    assert_eq!(sim.term().in_sync, ["v-0"], "by the superblocks alone");
    for slot in [0, 1] {
        let status = sim.leg(slot).status.unwrap();
        assert_eq!(status.revoked_below, Some(epoch), "{slot}: it has closed what it may have served");
        assert!(status.partition.is_some_and(|p| !p.blank));
    }
    assert_eq!(sim.stamp(0), Some(acked));
    sim.want(Some("b"));
    sim.settle().await;
    assert_eq!((sim.term().epoch, sim.term().phase), (epoch + 1, TermPhase::Running));
    assert_eq!(sim.fabric.read("b", array()), Some(acked), "every acknowledged write is there");
    let status = sim.attachment().status.unwrap();
    assert_eq!(status.array.as_ref().unwrap().mount_path.as_deref(), Some(MOUNT), "{status:#?}");
    sim.fabric.complete_rebuilds("b");
    sim.settle().await;
    assert_eq!(sim.term().in_sync, ["v-0", "v-1"]);
    assert!(sim.ready());
    assert_eq!(sim.write("b"), Write::Acked);
}

/// I1, I5: the command was stopped when it had made the first leg; nothing happens to the other, nor to what is deleted meanwhile.
#[tokio::test]
async fn a_half_made_set_harms_nothing() {
    let mut sim = stale().await;
    let acked = sim.fabric.acked(array());
    let found = looked_at(&sim);
    make_again(&mut sim, &found, 1);
    {
        let mut state = sim.state.lock().unwrap();
        let version = state.bump();
        let leg = state.replicas.get_mut(&naming::leg(VOLUME, 0)).unwrap();
        leg.metadata.deletion_timestamp = Some(meshstor_crds::Time(jiff::Timestamp::UNIX_EPOCH));
        leg.metadata.resource_version = version;
    }
    sim.settle().await;
    for (slot, node) in [(0, "a"), (1, "b")] {
        assert!(sim.host(node).leg(&leg_ref(slot, node)).unwrap().partition.is_some());
    }
    assert_eq!(sim.stamp(0), Some(acked));
    make_again(&mut sim, &found, 2);
    sim.want(Some("a"));
    sim.settle().await;
    assert_eq!(sim.fabric.read("a", array()), Some(acked));
}
