use super::*;
use crate::host::{ControllerState, LedgerEntry, SuperLeg};
use meshstor_crds::{Bitmap, MeshReplicaSpec, Quarantined, Time, naming};
use std::collections::BTreeMap;

const UID: &str = "6f9c6a0e-0000-4000-8000-000000000001";

fn replica() -> MeshReplica {
    let spec: MeshReplicaSpec = serde_json::from_value(serde_json::json!({
        "volume": "v", "volumeUid": UID, "slot": 0, "node": "b", "drive": "d", "sizeBytes": 1 << 20, "epoch": 0,
    }))
    .unwrap();
    let mut replica = MeshReplica::new("v-0", spec);
    replica.metadata.uid = Some("leg-uid".to_owned());
    replica
}

/// A volume that takes over partition 1 as `v-0`.
fn adopting() -> MeshVolume {
    let spec = serde_json::json!({ "capacity": "1Gi", "adopts": { "arrayUuid": Uuid::from_u128(77).to_string(), "epoch": 1, "legs": [
        { "name": "v-0", "slot": 0, "mirrorSet": 0, "node": "a", "drive": "d", "partitionUuid": Uuid::from_u128(1).to_string(), "inSync": true },
    ]}});
    MeshVolume::new("v", serde_json::from_value(spec).unwrap())
}

fn partition(uuid: Uuid) -> Thing {
    Thing::Partition(LegRef { drive: "d".to_owned(), uuid })
}

fn array(uuid: Uuid) -> Thing {
    Thing::Array(Box::new(ArrayFacts {
        uuid,
        device: "/dev/md127".into(),
        running: true,
        slots: 2,
        set_slots: Some(2),
        frozen: false,
        bitmap: None,
        latency_balance: None,
        degraded: 0,
        members: vec![],
        sync: None,
        sync_max: None,
        suspended: false,
        failure_gate: None,
        mounts: vec![],
    }))
}

fn connection(nqn: String) -> Thing {
    let controller = "nvme3".to_owned();
    Thing::Connection(ConnectionFacts {
        nqn,
        controller,
        state: ControllerState::Live,
        device: Some("/dev/nvme3n1".into()),
    })
}

fn found() -> FoundFacts {
    FoundFacts {
        first_byte: 1 << 20,
        size: 1 << 30,
        label: "v-0".to_owned(),
        device: Some("/dev/ubda2".into()),
        superblock: Ok(Some(SuperLeg {
            uuid: identity::derived_array(UID),
            name: "meshstor:v".to_owned(),
            level: 10,
            slots: 4,
            near_copies: Some(2),
            slot: Some(1),
            active_slots: vec![0, 1, 3],
            number: 2,
            roles: vec![Some(0), None, Some(1), Some(3)],
            rebuilding: true,
            events: 7,
            component: 1 << 29,
            clean: false,
            bitmap: Some(Bitmap::Internal),
        })),
        ledger: Some(LedgerEntry { epoch: 3, spent_grant: 2, ..LedgerEntry::default() }),
        ledger_lost: false,
        exports: vec![],
    }
}

fn alone(thing: Thing) -> Inspected {
    let found = matches!(thing, Thing::Partition(_)).then(|| Ok(found()));
    Inspected { thing, users: vec![], found }
}

fn used(thing: Thing) -> Inspected {
    Inspected { users: vec!["a mount at /mnt".to_owned()], ..alone(thing) }
}

/// One of each kind, not in their order.
fn all() -> Vec<Thing> {
    let nqn = naming::export_nqn("gone", 1, 1);
    vec![
        partition(Uuid::from_u128(1)),
        Thing::Export(nqn.clone()),
        connection(nqn),
        array(identity::derived_array(UID)),
    ]
}

fn now() -> Time {
    Time(jiff::Timestamp::from_second(1_800_000_000).unwrap())
}

fn planned(seen: &[Inspected], old: &BTreeMap<String, Quarantined>, wipe: &[String]) -> Plan {
    plan("n1", seen, old, wipe, &now())
}

fn named(things: &[Thing]) -> Vec<String> {
    things.iter().map(Thing::id).collect()
}

/// I8: what an object of the cluster names is its own, on whatever node it is.
#[test]
fn what_an_object_names_is_not_litter() {
    let mut claims = Claims::default();
    let named = [
        partition(identity::derived_partition(UID, "v-0")),
        array(identity::derived_array(UID)),
        Thing::Export(naming::export_nqn("leg-uid", 1, 1)),
        connection(naming::export_nqn("leg-uid", 7, 3)),
    ];
    assert!(named.iter().all(|thing| !claims.has(thing)));
    claims.leg(&replica());
    assert!(named.iter().all(|thing| claims.has(thing)));
    assert!(all()[..3].iter().all(|thing| !claims.has(thing)));
    assert!(!claims.has(&Thing::Export(format!("{}half", naming::EXPORT_NQN_PREFIX))));
    let mut volume = Claims::default();
    volume.volume(&adopting());
    assert!(volume.has(&array(Uuid::from_u128(77))) && volume.has(&partition(Uuid::from_u128(1))));
    assert!(!volume.has(&named[0]) && !volume.has(&named[1]));
    // A leg that its record retired is not taken over any more.
    let mut attachment = MeshAttachment::new("v", serde_json::from_value(serde_json::json!({})).unwrap());
    let owner = serde_json::json!([{ "apiVersion": "x", "kind": "MeshVolume", "name": "v", "uid": UID }]);
    attachment.metadata.owner_references = serde_json::from_value(owner).unwrap();
    let status = serde_json::json!({ "term": {
        "epoch": 1, "node": "a", "phase": "Running", "inSync": ["v-1"], "retired": ["v-0"], "initialised": true,
    }});
    attachment.status = serde_json::from_value(status).unwrap();
    volume.attachment(&attachment);
    assert!(volume.has(&named[1]) && !volume.has(&partition(Uuid::from_u128(1))));
}

/// I1: nothing is erased, stopped or closed that nobody named; only a connection that nobody uses goes by itself.
#[test]
fn nothing_is_erased_by_itself() {
    let seen: Vec<Inspected> = all().into_iter().map(alone).collect();
    let first = planned(&seen, &BTreeMap::new(), &[]);
    assert_eq!(first.steps, [Step::Release(all()[2].clone())]);
    assert_eq!(first.items.len(), 4);
    let again = planned(&seen, &first.items, &["partition/other".to_owned()]);
    assert_eq!(again, first, "I4: a second look changes nothing");
}

/// I1: nothing that somebody uses is touched, whatever was asked for, for its objects may have vanished from under a running volume.
#[test]
fn what_is_in_use_is_not_touched() {
    let seen: Vec<Inspected> = all().into_iter().map(used).collect();
    let old = planned(&seen, &BTreeMap::new(), &[]).items;
    let asked = planned(&seen, &old, &named(&all()));
    assert_eq!(asked.steps, []);
    for item in asked.items.values() {
        assert!(item.message.starts_with("not wiped: it is in use. "), "{}", item.message);
        assert_eq!(item.in_use.as_deref(), Some("a mount at /mnt"));
    }
    // Who cannot be told is somebody.
    let unread =
        Inspected { users: vec!["?".to_owned()], found: Some(Err("EIO".to_owned())), ..alone(all().remove(0)) };
    let plan = planned(&[unread], &old, &named(&all()));
    assert_eq!(plan.steps, []);
    assert!(plan.items.values().all(|i| i.leg.is_none() && i.message.contains("it cannot be read: EIO")));
}

#[test]
fn what_a_person_named_goes_in_the_order_in_which_things_let_go() {
    let seen: Vec<Inspected> = all().into_iter().map(alone).collect();
    let old = planned(&seen, &BTreeMap::new(), &[]).items;
    let asked = planned(&seen, &old, &named(&all()));
    let things = all();
    let wanted = [
        Step::Wipe(things[3].clone()),
        Step::Release(things[2].clone()),
        Step::Wipe(things[1].clone()),
        Step::Wipe(things[0].clone()),
    ];
    assert_eq!(asked.steps, wanted);
}

/// I1: a line that was there before the thing came is of another time, and erases nothing until it is written again.
#[test]
fn a_forgotten_line_erases_nothing() {
    let (seen, id) = ([alone(all().remove(0))], named(&all()).remove(0));
    let line = [id.clone()];
    let mut items = BTreeMap::new();
    for _ in 0..3 {
        let plan = planned(&seen, &items, &line);
        assert_eq!(plan.steps, []);
        assert!(plan.items[&id].wipe_spent && plan.items[&id].message.contains("take the line out"));
        items = plan.items;
    }
    items = planned(&seen, &items, &[]).items;
    assert!(!items[&id].wipe_spent);
    assert_eq!(planned(&seen, &items, &line).steps.len(), 1);
}

#[test]
fn an_item_says_what_the_leg_was() {
    let plan = planned(&[alone(all().remove(0)), alone(all().remove(3))], &BTreeMap::new(), &[]);
    let items: Vec<&Quarantined> = plan.items.values().collect();
    assert_eq!(items[0].volume.as_deref(), Some("v"), "an array is of the volume of its legs");
    let (item, leg) = (items[1], items[1].leg.clone().unwrap());
    assert_eq!((item.label.as_deref(), item.volume.as_deref()), (Some("v-0"), Some("v")));
    assert_eq!((item.first_byte, item.size_bytes), (Some(1 << 20), Some(1 << 30)));
    assert!(item.message.contains("meshstor rebuild-objects --volume v"), "{}", item.message);
    assert!(item.message.contains(&format!("meshstor quarantine wipe n1 {}", item.id)), "{}", item.message);
    assert_eq!((leg.level, leg.slots, leg.near_copies, leg.slot), (Some(10), Some(4), Some(2), Some(1)));
    assert_eq!((leg.active_slots, leg.rebuilding, leg.clean), (vec![0, 1, 3], true, Some(false)));
    assert_eq!((leg.array_uuid, leg.events), (Some(identity::derived_array(UID).to_string()), Some(7)));
    assert_eq!((leg.ledger_epoch, leg.ledger_spent_grant, leg.ledger_lost), (Some(3), Some(2), false));
}

/// I6: of a leg without a superblock that can be believed nothing is said but what its ledger knows.
#[test]
fn what_is_no_superblock_says_nothing() {
    let bent = FoundFacts { superblock: Err("bytes".to_owned()), ledger: None, ledger_lost: true, ..found() };
    let seen = [Inspected { found: Some(Ok(bent)), ..alone(all().remove(0)) }];
    let plan = planned(&seen, &BTreeMap::new(), &[]);
    let item = plan.items.values().next().unwrap();
    let wanted = meshstor_crds::FoundLeg { ledger_lost: true, ..meshstor_crds::FoundLeg::default() };
    assert_eq!(item.leg, Some(wanted));
    assert!(item.message.contains("there is bytes") && item.volume.as_deref() == Some("v"), "{}", item.message);
}
