//! Tables of what may be found on drives, and what comes of it.

use super::found::{Found, Member, Told};
use super::objects;
use super::plan::{Fate, Options, VolumePlan, plan};
use super::refusal::Refusal;
use super::standing::Standing;
use meshstor_crds::geometry::HEADROOM;
use meshstor_crds::{Adoption, Filesystem, MIB, MeshVolume, ReplicaSetPolicySpec, TermPhase};

const ARRAY: &str = "00000000-0000-0000-0000-00000000000a";
const COMPONENT: u64 = 512 * MIB;

/// A leg in `slot` of a RAID1 of `slots`, on node `n<slot>`, that knows the devices of `roles` and has their number for its slot.
fn leg(label: &str, slot: u32, slots: u32, roles: &[i64]) -> Found {
    let member = Member {
        array: ARRAY.to_owned(),
        name: "meshstor:v".to_owned(),
        level: 1,
        slots,
        near: None,
        number: Some(slot),
        slot: Some(slot),
        roles: roles.iter().map(|role| u32::try_from(*role).ok()).collect(),
        filling: false,
        events: 100,
        component: COMPONENT,
        bitmap: None,
    };
    Found {
        node: format!("n{slot}"),
        drive: format!("d{slot}"),
        partition: format!("00000000-0000-0000-0000-{:012x}", crate_hash(label)),
        label: label.to_owned(),
        bytes: COMPONENT + HEADROOM,
        in_use: None,
        member: Some(member),
        told: Told::Of { epoch: 7, blank: false },
    }
}

fn crate_hash(text: &str) -> u64 {
    text.bytes().fold(7, |sum, b| (sum * 31 + u64::from(b)) % 0xffff_ffff_ffff)
}

fn with(mut found: Found, change: impl FnOnce(&mut Member)) -> Found {
    change(found.member.as_mut().unwrap());
    found
}

fn striped(mut found: Found) -> Found {
    let member = found.member.as_mut().unwrap();
    (member.level, member.near) = (10, Some(2));
    found
}

fn options() -> Options {
    Options { filesystem: Some(Filesystem::Ext4), ..Options::default() }
}

fn only(found: &[Found], options: &Options) -> VolumePlan {
    let mut plans = plan(found, options);
    assert_eq!(plans.len(), 1, "{plans:?}");
    plans.remove(0)
}

fn made(found: &[Found], options: &Options) -> MeshVolume {
    *only(found, options).made.unwrap_or_else(|refusals| panic!("{refusals:?}"))
}

fn adopts(found: &[Found], options: &Options) -> Adoption {
    made(found, options).spec.adopts.unwrap()
}

fn in_sync(found: &[Found], options: &Options) -> Vec<String> {
    adopts(found, options).legs.into_iter().filter(|leg| leg.in_sync).map(|leg| leg.name).collect()
}

fn refused(found: &[Found], options: &Options) -> Vec<Refusal> {
    only(found, options).made.unwrap_err()
}

fn pair() -> [Found; 2] {
    [leg("v-0", 0, 2, &[0, 1]), leg("v-1", 1, 2, &[0, 1])]
}

#[test]
fn a_whole_volume_is_taken_over_as_it_was() {
    // I1, I6: everything that follows is under the identities that are on the drives, and starts from what holds everything.
    let volume = made(&pair(), &options());
    assert_eq!((volume.metadata.name.as_deref(), volume.spec.capacity.as_str()), (Some("v"), "512Mi"));
    assert_eq!((volume.spec.replica_count, volume.spec.stripe_width), (2, 1));
    let adopts = volume.spec.adopts.clone().unwrap();
    assert_eq!((adopts.array_uuid.as_str(), adopts.epoch, adopts.retired.len()), (ARRAY, 7, 0));
    let legs: Vec<_> = adopts.legs.iter().map(|l| (l.name.as_str(), l.slot, l.node.as_str(), l.in_sync)).collect();
    assert_eq!(legs, [("v-0", 0, "n0", true), ("v-1", 1, "n1", true)]);
    assert!(adopts.legs.iter().zip(pair()).all(|(l, f)| l.partition_uuid.as_ref() == Some(&f.partition)));
}

/// I1: the first record is one whose epoch has ended, of an array that was made: nothing is created, zeroed or formatted, and the next
/// epoch begins as every other does.
#[test]
fn the_record_lets_nothing_be_made_anew() {
    let mut volume = made(&pair(), &options());
    volume.metadata.uid = Some("uid".to_owned());
    let adopts = volume.spec.adopts.clone().unwrap();
    let status = objects::record("v", &adopts);
    let term = status.term.unwrap();
    assert_eq!((term.epoch, term.phase, term.initialised), (7, TermPhase::Running, true));
    assert_eq!((term.in_sync.len(), term.bitmap_usable.len(), term.retired.len()), (2, 0, 0));
    assert_eq!(status.ended.unwrap().epoch, 7);
    assert!(status.array.is_none() && term.writer.is_none());
    let replicas = objects::replicas(&volume, &term, &ReplicaSetPolicySpec::default());
    for (replica, found) in replicas.iter().zip(pair()) {
        let spec = &replica.spec;
        assert_eq!((spec.epoch, spec.volume_uid.as_str(), spec.grant.is_none()), (7, "uid", true));
        assert_eq!(
            (spec.partition_uuid.as_deref(), spec.array_uuid.as_deref()),
            (Some(found.partition.as_str()), Some(ARRAY))
        );
        assert_eq!(spec.size_bytes, i64::try_from(found.bytes).unwrap());
        assert!(replica.metadata.finalizers.as_ref().is_some_and(|f| f.len() == 1));
    }
    // Run again after a leg was replaced: it is not made anew.
    let later = meshstor_crds::Term { retired: vec!["v-1".to_owned()], ..term };
    assert_eq!(objects::replicas(&volume, &later, &ReplicaSetPolicySpec::default()).len(), 1);
}

/// I6: who is called missing by a leg that nobody calls missing is rebuilt, whatever its own superblock says.
#[test]
fn a_leg_that_was_out_is_never_started_from() {
    let stale = [leg("v-0", 0, 2, &[0, -1]), leg("v-1", 1, 2, &[0, 1])];
    assert_eq!(in_sync(&stale, &options()), ["v-0"]);
    assert_eq!(adopts(&stale, &options()).legs.len(), 2);
    // Whatever its event counter says.
    let ahead = [stale[0].clone(), with(stale[1].clone(), |m| m.events = 900)];
    assert_eq!(in_sync(&ahead, &options()), ["v-0"]);
    let filling = [leg("v-0", 0, 2, &[0, 1]), with(leg("v-1", 1, 2, &[0, 1]), |m| m.filling = true)];
    assert_eq!(in_sync(&filling, &options()), ["v-0"]);
    let spare = [leg("v-0", 0, 2, &[0, -1]), with(leg("v-1", 1, 2, &[0, -1]), |m| m.slot = None)];
    assert_eq!(in_sync(&spare, &options()), ["v-0"]);
    // Its superblock was erased before it would have been filled.
    let erased = [leg("v-0", 0, 2, &[0, -1]), Found { member: None, ..leg("v-1", 1, 2, &[]) }];
    assert_eq!(in_sync(&erased, &options()), ["v-0"]);
    assert_eq!(adopts(&erased, &options()).legs.len(), 2);
}

/// I6: where the superblocks contradict each other a person decides, and nothing is guessed from event counters.
#[test]
fn legs_that_call_each_other_missing_are_refused() {
    let both = [with(leg("v-0", 0, 2, &[0, -1]), |m| m.events = 900), leg("v-1", 1, 2, &[-1, 1])];
    assert!(matches!(&refused(&both, &options())[..], [Refusal::Ambiguous { set: 0, legs }] if legs.len() == 2));
    let chosen = Options { start_from: ["v-1".to_owned()].into(), ..options() };
    assert_eq!(in_sync(&both, &chosen), ["v-1"]);
    let none = Options { start_from: ["v-7".to_owned()].into(), ..options() };
    assert!(refused(&both, &none).iter().any(|r| matches!(r, Refusal::StartFrom { .. })));
    let filling = [both[0].clone(), with(both[1].clone(), |m| m.filling = true)];
    assert!(refused(&filling, &chosen).iter().any(|r| matches!(r, Refusal::StartFrom { .. })), "it lacks something");
}

/// I1: the leg that is not there may be the only one that holds the last writes.
#[test]
fn a_leg_that_is_not_there_is_given_up_by_a_person_only() {
    let alone = &pair()[..1];
    let lone = Options { copies: Some(2), ..options() };
    assert_eq!(refused(alone, &lone), [Refusal::NotFound { slot: 1 }]);
    assert!(refused(alone, &Options { copies: Some(1), ..options() }).contains(&Refusal::NotFound { slot: 1 }));
    let given_up = Options { accept_missing: true, ..options() };
    let adopts = adopts(alone, &given_up);
    let lost = &adopts.legs[1];
    assert_eq!((lost.name.as_str(), lost.node.as_str(), lost.in_sync), ("v-1", "lost_v-1", false));
    assert_eq!(lost.partition_uuid, None);
    assert!(adopts.epoch > 7 + 1000, "it may have been told of more epochs");
    // It was out already.
    let out = [leg("v-0", 0, 2, &[0, -1])];
    assert_eq!(refused(&out, &options()), [Refusal::Copies]);
    assert_eq!(in_sync(&out, &lone), ["v-0"]);
    assert_eq!(made(&out, &Options { copies: Some(1), ..options() }).spec.replica_count, 1);
    // A stale leg's word is not needed for that: the one that is in sync knows.
    let three = [leg("v-0", 0, 3, &[0, -1, -1]), leg("v-1", 1, 3, &[0, 1, 2])];
    assert_eq!(in_sync(&three, &options()), ["v-0"]);
    // The stale one alone: what it knows went on without it.
    assert_eq!(refused(&three[1..], &options()), [Refusal::NotFound { slot: 0 }, Refusal::NotFound { slot: 2 }]);
}

/// I6: two partitions of one slot: a leg that left and the one that took its place.
#[test]
fn an_heir_and_the_leg_that_it_followed() {
    let mut heir = with(leg("v-1.1", 1, 2, &[0, -1, 1]), |m| m.number = Some(2));
    heir.node = "n5".to_owned();
    let stayed = leg("v-0", 0, 2, &[0, -1, 1]);
    let left = leg("v-1", 1, 2, &[0, 1]);
    let all = [stayed.clone(), left.clone(), heir.clone()];
    let took = adopts(&all, &options());
    assert_eq!(took.legs.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["v-0", "v-1.1"]);
    assert_eq!(took.retired, ["v-1"]);
    assert!(only(&all, &options()).lines.iter().any(|l| l.found.label == "v-1" && l.fate == Fate::Left));
    assert!(took.legs[0].in_sync, "what only the leg that left says against it does not count");
    // The heir's node is not up: by slots alone the leg that left would look like it.
    let without = [stayed.clone(), left];
    assert_eq!(refused(&without, &options()), [Refusal::NotFound { slot: 1 }]);
    let given_up = Options { accept_missing: true, ..options() };
    assert_eq!(in_sync(&without, &given_up), ["v-0"]);
    // Nor where the heir was given the number of the leg that left.
    let reused = leg("v-0", 0, 2, &[0, 1]);
    let behind = with(leg("v-1", 1, 2, &[0, 1]), |m| m.events = 40);
    assert_eq!(in_sync(&[reused.clone(), behind.clone()], &options()), ["v-0"]);
    let late = with(leg("v-1.1", 1, 2, &[0, 1]), |m| m.events = 100);
    assert_eq!(in_sync(&[reused, behind, late], &options()), ["v-0", "v-1.1"]);
    // An heir that MD had filled, but that never took the place: the array went on with the other.
    let back = [leg("v-0", 0, 2, &[0, 1]), leg("v-1", 1, 2, &[0, 1]), heir];
    assert_eq!(in_sync(&back, &options()), ["v-0", "v-1"]);
}

#[test]
fn a_leg_that_came_back_counts_again() {
    // v-1 came back under another number while v-2 was away, whose superblock still calls the old one missing.
    let known = [0, -1, -1, 1];
    let came = with(leg("v-1", 1, 3, &known), |m| m.number = Some(3));
    let old = leg("v-2", 2, 3, &[0, -1, 2]);
    let all = [leg("v-0", 0, 3, &known), came, old];
    assert_eq!(in_sync(&all, &options()), ["v-0", "v-1"]);
    // Without the first nobody can tell.
    assert!(refused(&all[1..], &options()).iter().any(|r| matches!(r, Refusal::Ambiguous { .. })));
}

#[test]
fn a_striped_volume_needs_a_leg_of_each_mirror_set() {
    let four = |roles: &[i64]| [0, 1, 2, 3].map(|slot| striped(leg(&format!("v-{slot}"), slot, 4, roles)));
    let volume = made(&four(&[0, 1, 2, 3]), &options());
    assert_eq!((volume.spec.replica_count, volume.spec.stripe_width, volume.spec.capacity.as_str()), (2, 2, "1024Mi"));
    let sets: Vec<i32> = volume.spec.adopts.unwrap().legs.iter().map(|l| l.mirror_set).collect();
    assert_eq!(sets, [0, 0, 1, 1]);
    let mut three = four(&[0, 1, 2, -1]);
    three[3] = striped(leg("v-3", 3, 4, &[0, 1, 2, 3]));
    assert_eq!(in_sync(&three, &options()), ["v-0", "v-1", "v-2"]);
    let half = &four(&[0, 1, -1, -1])[..2];
    assert!(refused(half, &options()).contains(&Refusal::NoCopy(1)));
    let misplaced = [striped(leg("v-1", 0, 4, &[0, 1, 2, 3]))];
    assert!(refused(&misplaced, &options()).iter().any(|r| matches!(r, Refusal::Slot { found: 0, .. })));
}

/// I2: nothing is taken over that somebody may still write to.
#[test]
fn what_is_in_use_is_refused() {
    let mut used = pair();
    used[1].in_use = Some("a mount".to_owned());
    assert!(matches!(&refused(&used, &options())[..], [Refusal::InUse { by, .. }] if by == "a mount"));
    let anyway = Options { accept_missing: true, start_from: ["v-0".to_owned()].into(), ..options() };
    assert!(matches!(&refused(&used, &anyway)[..], [Refusal::InUse { .. }]), "no option helps");
}

#[test]
fn names_shapes_and_sizes_must_agree() {
    let mut other = pair();
    other[1].label = "w-1".to_owned();
    assert!(refused(&other, &options()).iter().any(|r| matches!(r, Refusal::Names { label, .. } if label == "w-1")));
    let renamed = pair().map(|leg| with(leg, |m| m.name = "meshstor:w".to_owned()));
    assert_eq!(refused(&renamed, &options()).len(), 2);
    let level = [pair()[0].clone(), with(pair()[1].clone(), |m| m.level = 5)];
    assert!(refused(&level, &options()).iter().any(|r| matches!(r, Refusal::Shape { .. })));
    let mut size = pair();
    size[0].bytes += MIB;
    assert!(refused(&size, &options()).iter().any(|r| matches!(r, Refusal::Shape { .. })));
    let mut one_node = pair();
    one_node[1].node = "n0".to_owned();
    assert!(refused(&one_node, &options()).iter().any(|r| matches!(r, Refusal::OneNode(_))));
    assert_eq!(refused(&pair(), &Options::default()), [Refusal::Filesystem]);
}

#[test]
fn a_name_that_is_longer_than_its_labels() {
    let volume = "a-volume-with-a-name-of-48-characters-and-no-end";
    let cut = |slot: u32| {
        let label: String = meshstor_crds::naming::leg(volume, i32::try_from(slot).unwrap()).chars().take(36).collect();
        let name = format!("meshstor:{}", meshstor_crds::naming::array_name(volume));
        Found { node: format!("n{slot}"), ..with(leg(&label, slot, 2, &[0, 1]), |m| m.name = name) }
    };
    let mut legs = [cut(0), cut(1)];
    legs[1].partition = pair()[1].partition.clone();
    assert!(!refused(&legs, &options()).is_empty());
    let named = |name: &str| Options { name: Some(name.to_owned()), ..options() };
    assert_eq!(in_sync(&legs, &named(volume)), [format!("{volume}-0"), format!("{volume}-1")]);
    assert!(!refused(&legs, &named("a-volume-with-a-name-of-48-characters-and-an-end")).is_empty());
    // It is found by the name that its array has for it; what is said of it holds for it alone.
    let all = [legs.to_vec(), pair().map(|leg| with(leg, |m| m.array = ARRAY.replace('a', "b"))).to_vec()].concat();
    for name in [meshstor_crds::naming::array_name(volume), ARRAY.to_owned()] {
        assert_eq!(super::read::only(&all, &name), legs);
    }
    assert_eq!(super::read::only(&all, "v").len(), 2);
    assert_eq!(super::read::only(&all, "w"), []);
}

#[test]
fn partitions_that_were_never_in_an_array_are_nobodys() {
    let blank = Found { member: None, told: Told::Of { epoch: 0, blank: true }, ..leg("v-0", 0, 2, &[]) };
    assert_eq!(refused(&[blank], &options()), [Refusal::NeverWritten]);
}

/// An epoch is never used twice, whoever was told of it.
#[test]
fn the_record_begins_above_every_epoch_that_was_heard_of() {
    let mut legs = pair();
    legs[1].told = Told::Of { epoch: 9, blank: false };
    assert_eq!(adopts(&legs, &options()).epoch, 9);
    assert_eq!(adopts(&legs, &Options { epoch_at_least: 50, ..options() }).epoch, 50);
    legs[0].told = Told::Unknown;
    assert!(adopts(&legs, &options()).epoch > 1000);
}

/// A single copy has an empty slot beside it, and may have moved there.
#[test]
fn a_single_copy() {
    let one = Options { copies: Some(1), ..options() };
    let moved = [with(leg("v-1.1", 1, 2, &[-1, -1, 1]), |m| m.number = Some(2)), leg("v-0", 0, 2, &[0, -1, 1])];
    let took = adopts(&moved, &one);
    assert_eq!(took.legs.iter().map(|l| (l.name.as_str(), l.slot)).collect::<Vec<_>>(), [("v-1.1", 1)]);
    assert_eq!(took.retired, ["v-0"]);
    assert!(matches!(only(&moved, &one).lines[1].standing, Standing::Missing(_)));
    assert!(refused(&pair(), &one).iter().any(|r| matches!(r, Refusal::BadCopies { asked: 1, .. })));
}

fn node(beat: i64, items: &serde_json::Value) -> meshstor_crds::MeshNode {
    let mut node = meshstor_crds::MeshNode::new("n0", meshstor_crds::MeshNodeSpec::default());
    let time = meshstor_crds::Time(jiff::Timestamp::from_second(beat).unwrap());
    let ready = meshstor_crds::conditions::Want::new(meshstor_crds::conditions::READY, true, "AsWanted", "");
    let mut status: meshstor_crds::MeshNodeStatus =
        serde_json::from_value(serde_json::json!({"quarantine": items, "drives": []})).unwrap();
    status.conditions = meshstor_crds::conditions::apply(&[], &[ready], None, &time);
    status.heartbeat = Some(time);
    node.status = Some(status);
    node
}

/// I2: an array that runs on a node, and a node that does not answer, are somebody who may still write.
#[test]
fn what_a_node_reports_is_read_whole() {
    let partition = serde_json::json!({
        "id": "partition/00000000-0000-0000-0000-00000000000B", "kind": "Partition", "drive": "d0", "label": "v-0",
        "sizeBytes": COMPONENT + HEADROOM, "since": "2026-01-01T00:00:00Z", "message": "", "leg": {
            "arrayUuid": ARRAY, "arrayName": "meshstor:v", "level": 10, "slots": 4, "nearCopies": 2, "slot": 1, "activeSlots": [0, 1],
            "number": 4, "roles": [0, -1, 2, 3, 1], "rebuilding": false, "events": 9, "componentBytes": COMPONENT,
            "bitmap": "internal", "clean": true, "ledgerEpoch": 3, "ledgerBlank": false, "ledgerLost": false,
        },
    });
    let array = serde_json::json!({
        "id": format!("array/{ARRAY}"), "kind": "Array", "path": "/dev/md100", "since": "2026-01-01T00:00:00Z", "message": "",
    });
    let now = jiff::Timestamp::from_second(1000).unwrap();
    let look = |beat, items: serde_json::Value| super::read::look(&[node(beat, &items)], &[], &[], Vec::new(), now);
    let found = look(990, serde_json::json!([partition])).found;
    let member = found[0].member.clone().unwrap();
    assert_eq!(
        (found[0].partition.as_str(), found[0].told),
        ("00000000-0000-0000-0000-00000000000b", Told::Of { epoch: 3, blank: false })
    );
    assert_eq!((member.number, member.slot, member.near, member.events), (Some(4), Some(1), Some(2), 9));
    assert_eq!(member.roles, [Some(0), None, Some(2), Some(3), Some(1)]);
    assert_eq!(found[0].in_use, None);
    let runs = look(990, serde_json::json!([partition, array])).found;
    assert!(runs[0].in_use.as_ref().is_some_and(|by| by.contains("/dev/md100")));
    assert!(look(900, serde_json::json!([partition])).found[0].in_use.is_some(), "its word is old");
    // Of a superblock of which something is not told nothing is believed.
    let mut less = partition.clone();
    less["leg"]["events"] = serde_json::Value::Null;
    assert_eq!(look(990, serde_json::json!([less])).found[0].member, None);
}

/// I5: an earlier run that was stopped is gone on with, from what the volume says; objects of other volumes are in nobody's way.
#[test]
fn a_run_that_was_stopped_is_gone_on_with() {
    let mut volume = made(&pair(), &options());
    volume.metadata.uid = Some("uid".to_owned());
    let adopts = volume.spec.adopts.clone().unwrap();
    let mut attachment = objects::attachment(&volume);
    let now = jiff::Timestamp::from_second(1000).unwrap();
    let look = |legs: &[meshstor_crds::MeshReplica], attachments: &[meshstor_crds::MeshAttachment]| {
        super::read::look(&[], legs, attachments, vec![volume.clone()], now)
    };
    assert_eq!(look(&[], &[]).unfinished.len(), 1);
    assert_eq!(look(&[], &[attachment.clone()]).unfinished.len(), 1, "it has no record");
    attachment.status = Some(objects::record("v", &adopts));
    let term = attachment.status.clone().unwrap().term.unwrap();
    let legs = objects::replicas(&volume, &term, &ReplicaSetPolicySpec::default());
    assert_eq!(look(&legs[..1], &[attachment.clone()]).unfinished.len(), 1, "a leg lacks its object");
    let whole = look(&legs, &[attachment.clone()]);
    assert_eq!(whole.unfinished.len(), 0);
    attachment.status.as_mut().unwrap().term.as_mut().unwrap().retired = vec!["v-1".to_owned()];
    assert_eq!(look(&legs[..1], &[attachment]).unfinished.len(), 0, "it was replaced meanwhile");
    // What is left over of a volume that is there, or has the name of one, is not taken over.
    let mut left = whole;
    left.found = pair().to_vec();
    assert!(matches!(super::read::plans(&left, &options())[0].made.as_ref().unwrap_err()[0], Refusal::Taken(_)));
    left.arrays.clear();
    assert!(matches!(super::read::plans(&left, &options())[0].made.as_ref().unwrap_err()[0], Refusal::Taken(_)));
}
