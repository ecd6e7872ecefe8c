//! Table and property tests of placement.

use super::*;
use jiff::Timestamp;
use meshstor_crds::{
    Capability, Drive, Extent, FABRIC_PEERS_MAX, FabricLatency, FabricPeer, Geometry, Kernel, MIB, MeshNodeSpec,
    MeshNodeStatus, MeshReplicaSpec, Placement, Spread, SpreadMode, Time, Transport, conditions,
};
use proptest::prelude::*;

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn mib(count: u64) -> i64 {
    i64::try_from(count * MIB).unwrap()
}

fn drive(id: &str, free: &[u64], sector: i32) -> Drive {
    let mut at = 1;
    let free_extents = free
        .iter()
        .map(|size| {
            let extent = Extent { first_byte: mib(at), size_bytes: mib(*size) };
            at += size + 8;
            extent
        })
        .collect();
    Drive {
        id: id.to_owned(),
        path: format!("/dev/{id}"),
        model: None,
        size_bytes: mib(at),
        logical_sector_size: sector,
        free_extents,
        unusable: None,
    }
}

fn node(name: &str, drives: Vec<Drive>) -> MeshNode {
    let mut node = MeshNode::new(name, MeshNodeSpec::default());
    let ready = [conditions::Want::new(conditions::READY, true, conditions::REASON_OK, "")];
    let capability = |name: &&str| Capability { name: (*name).to_owned(), supported: true, message: String::new() };
    let names = ["raid1", "raid10", "nvmet-tcp", "nvme-tcp", "mdadm", "mkfs.xfs"];
    node.status = Some(MeshNodeStatus {
        conditions: conditions::apply(&[], &ready, None, &Time(now())),
        kernel: Some(Kernel { release: "7.3.4".into(), capabilities: names.iter().map(capability).collect() }),
        heartbeat: Some(Time(now())),
        drives,
        ..MeshNodeStatus::default()
    });
    node
}

fn leg(name: &str, slot: i32, node: &str, drive: &str, size: u64) -> MeshReplica {
    let spec = MeshReplicaSpec {
        volume: "w".into(),
        volume_uid: "u".into(),
        slot,
        mirror_set: 0,
        node: node.into(),
        drive: drive.into(),
        size_bytes: mib(size),
        epoch: 0,
        grant: None,
        transport: Transport::Tcp,
        io_queues: 2,
        replaces: None,
        overwritten: false,
        replace: false,
        array_uuid: None,
        partition_uuid: None,
    };
    MeshReplica::new(name, spec)
}

fn run(nodes: Vec<MeshNode>, others: &[MeshReplica], placed: &[MeshReplica], want: u64) -> Result<Vec<Spot>, Refusal> {
    let all = [others, placed].concat();
    let slots: &[i32] = if placed.is_empty() { &[0, 1] } else { &[1] };
    run_by(&Placement::default(), nodes, &all, placed, slots, want)
}

fn run_by(
    rules: &Placement,
    nodes: Vec<MeshNode>,
    replicas: &[MeshReplica],
    placed: &[MeshReplica],
    slots: &[i32],
    want: u64,
) -> Result<Vec<Spot>, Refusal> {
    let nodes: Vec<Arc<MeshNode>> = nodes.into_iter().map(Arc::new).collect();
    let slots: Vec<(i32, i32)> = slots.iter().map(|slot| (*slot, 0)).collect();
    let request = request(&slots, Geometry::new(2, 1), want * MIB, placed, rules);
    place(
        &request,
        &Cluster { nodes: &nodes, promises: &Promises::of(replicas), drained: &BTreeMap::new(), now: now() },
    )
}

fn request<'a>(
    slots: &'a [(i32, i32)],
    geometry: Geometry,
    size: u64,
    placed: &'a [MeshReplica],
    rules: &'a Placement,
) -> Request<'a> {
    let (bitmap, transport, filesystem) = (Bitmap::Internal, Transport::Tcp, Filesystem::Xfs);
    Request { slots, geometry, bitmap, transport, size, filesystem, placed, taken: placed, rules, preferred: None }
}

/// The preferred node gets the first leg although others are emptier, unless a rule or a filter speaks against it.
#[test]
fn the_preferred_node_gets_the_first_leg() {
    let nodes = |full: u64| -> Vec<Arc<MeshNode>> {
        let zoned = |name: &str, zone: &str, free: u64| {
            let mut node = node(name, vec![drive(&format!("{name}-d"), &[free], 512)]);
            node.labels_mut().insert("zone".into(), zone.into());
            Arc::new(node)
        };
        vec![zoned("a", "1", 2000), zoned("b", "1", 1900), zoned("c", "2", full)]
    };
    let place = |placement: &Placement, nodes: &[Arc<MeshNode>], preferred, placed: &[MeshReplica]| {
        let slots: &[(i32, i32)] = if placed.is_empty() { &[(0, 0), (1, 0)] } else { &[(1, 0)] };
        let request = request(slots, Geometry::new(2, 1), 520 * MIB, placed, placement);
        let spots = place(
            &Request { preferred, ..request },
            &Cluster { nodes, promises: &Promises::of(placed), drained: &BTreeMap::new(), now: now() },
        );
        spots.unwrap().into_iter().map(|s| s.node).collect::<Vec<_>>()
    };
    let free = Placement::default();
    assert_eq!(place(&free, &nodes(900), None, &[]), ["a", "b"]);
    assert_eq!(place(&free, &nodes(900), Some("c"), &[]), ["c", "a"]);
    // It has no room, or is not there.
    assert_eq!(place(&free, &nodes(300), Some("c"), &[]), ["a", "b"]);
    assert_eq!(place(&free, &nodes(900), Some("z"), &[]), ["a", "b"]);
    // A label that a leg is under already weighs more, and a required one decides.
    let zones = |mode| spread(&[("zone", mode)]);
    assert_eq!(place(&zones(Required), &nodes(900), Some("b"), &[]), ["b", "c"]);
    let placed = [leg("w-0", 0, "a", "a-d", 520)];
    assert_eq!(place(&zones(Preferred), &nodes(900), Some("b"), &placed), ["c"]);
    assert_eq!(place(&zones(Required), &nodes(900), Some("b"), &placed), ["c"]);
    // Striped: its copy is the first.
    let wide = |name: &str| {
        let drives = (0..2).map(|n| drive(&format!("{name}-{n}"), &[900], 512)).collect();
        Arc::new(node(name, drives))
    };
    let nodes = ["a", "b", "c"].map(wide);
    let geometry = Geometry::new(2, 2);
    let slots: Vec<(i32, i32)> = geometry.legs().collect();
    let request = Request { preferred: Some("c"), ..request(&slots, geometry, 520 * MIB, &[], &free) };
    let spots = super::place(
        &request,
        &Cluster { nodes: &nodes, promises: &Promises::default(), drained: &BTreeMap::new(), now: now() },
    )
    .unwrap();
    let firsts: Vec<&str> = spots.iter().filter(|s| s.slot % 2 == 0).map(|s| s.node.as_str()).collect();
    assert_eq!(firsts, ["c", "c"]);
}

/// A node that is drained gets no leg, and the refusal says by which drain.
#[test]
fn a_drained_node_gets_no_leg() {
    let nodes = ["a", "b"].map(|name| Arc::new(node(name, vec![drive(&format!("{name}-d"), &[900], 512)])));
    let (free, drained) = (Placement::default(), BTreeMap::from([("a".to_owned(), "empty-a".to_owned())]));
    let cluster = Cluster { nodes: &nodes, promises: &Promises::default(), drained: &drained, now: now() };
    let one = request(&[(0, 0)], Geometry::new(1, 1), 520 * MIB, &[], &free);
    assert_eq!(super::place(&one, &cluster).unwrap()[0].node, "b");
    let two = request(&[(0, 0), (1, 0)], Geometry::new(2, 1), 520 * MIB, &[], &free);
    let said = super::place(&two, &cluster).unwrap_err().to_string();
    assert!(said.contains("a: NodeSchedulable (NodeDrain empty-a drains it)"), "{said}");
}

/// What an array or its fabric needs and a node does not report drops the node, by name.
#[test]
fn bitmap_and_fabric_are_filters() {
    let nodes = ["a", "b"].map(|name| Arc::new(node(name, vec![drive(&format!("{name}-d"), &[900], 512)])));
    let free = Placement::default();
    let request = request(&[(0, 0), (1, 0)], Geometry::new(2, 1), 520 * MIB, &[], &free);
    let refused = |request: &Request<'_>, nodes: &[Arc<MeshNode>]| {
        super::place(request, &Cluster { nodes, promises: &Promises::default(), drained: &BTreeMap::new(), now: now() })
            .unwrap_err()
            .to_string()
    };
    let lockless = refused(&Request { bitmap: Bitmap::Lockless, ..request }, &nodes);
    assert!(lockless.contains("a: NodeCapable (llbitmap: not reported)"), "{lockless}");
    let rdma = Request { transport: Transport::Rdma, ..request };
    let said = refused(&rdma, &nodes);
    assert!(said.contains("b: NodeFabric (reports no RDMA address in status.rdmaAddresses)"), "{said}");
    let with = nodes.map(|node| {
        let mut node = MeshNode::clone(&node);
        node.status.as_mut().unwrap().rdma_addresses = vec!["10.0.0.1".into()];
        Arc::new(node)
    });
    assert!(
        super::place(
            &rdma,
            &Cluster { nodes: &with, promises: &Promises::default(), drained: &BTreeMap::new(), now: now() }
        )
        .is_ok()
    );
}

/// A node with labels and one empty drive of 900 MiB.
fn labelled(name: &str, labels: &[(&str, &str)]) -> MeshNode {
    let mut node = node(name, vec![drive(&format!("{name}-d"), &[900], 512)]);
    node.labels_mut().extend(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    node
}

fn spread(rules: &[(&str, SpreadMode)]) -> Placement {
    let rule = |(key, mode): &(&str, SpreadMode)| Spread { topology_key: (*key).to_owned(), mode: *mode };
    Placement { spread: rules.iter().map(rule).collect(), ..Placement::default() }
}

fn on(answer: &Result<Vec<Spot>, Refusal>) -> Vec<&str> {
    answer.as_ref().map_or_else(|_| Vec::new(), |spots| spots.iter().map(|s| s.node.as_str()).collect())
}

use SpreadMode::{Preferred, Required};

#[test]
fn required_spreading_is_kept_beside_legs_that_are_there_and_explained() {
    let rules = spread(&[("zone", Required)]);
    let nodes = || {
        let zones = [("n1", "a"), ("n2", "a"), ("n3", "b"), ("n4", "b")];
        let mut nodes: Vec<MeshNode> = zones.iter().map(|(name, zone)| labelled(name, &[("zone", zone)])).collect();
        nodes.push(labelled("n5", &[]));
        nodes
    };
    assert_eq!(on(&run_by(&rules, nodes(), &[], &[], &[0, 1], 520)), ["n1", "n3"]);
    let said = run_by(&rules, nodes(), &[], &[], &[0, 1, 2], 520).unwrap_err().to_string();
    assert_eq!(
        said,
        "2/5 nodes are available, 3 needed: n2: Spread (zone=a has n1 already); n4: Spread (zone=b has n3 already); \
         n5: Spread (no label zone)"
    );
    let placed = [leg("w-0", 0, "n3", "n3-d", 520)];
    assert_eq!(on(&run_by(&rules, nodes(), &placed, &placed, &[1], 520)), ["n1"]);
    let said = run_by(&rules, nodes(), &placed, &placed, &[1, 2], 520).unwrap_err().to_string();
    assert!(said.contains("n4: Spread (zone=b has w-0)") && said.contains("n3: OneLegPerNode"), "{said}");
    // Nobody knows what is taken by a leg whose node is gone, or has lost its label.
    for node in ["gone", "n5"] {
        let placed = [leg("w-0", 0, node, "d", 520)];
        let said = run_by(&rules, nodes(), &placed, &placed, &[1], 520).unwrap_err().to_string();
        assert!(said.contains("n1: Spread (the node of w-0 lacks a required label, or is gone)"), "{said}");
    }
}

#[test]
fn a_choice_that_looks_best_is_taken_back_when_the_rules_cross() {
    // n1 is first by name, but takes the zone of one and the rack of the other.
    let nodes = vec![
        labelled("n1", &[("zone", "a"), ("rack", "2")]),
        labelled("n2", &[("zone", "a"), ("rack", "1")]),
        labelled("n3", &[("zone", "b"), ("rack", "2")]),
    ];
    let rules = spread(&[("zone", Required), ("rack", Required)]);
    assert_eq!(on(&run_by(&rules, nodes, &[], &[], &[0, 1], 520)), ["n2", "n3"]);
}

#[test]
fn preferred_spreading_gives_way_and_the_first_rule_weighs_most() {
    let nodes = || {
        vec![
            labelled("n1", &[("zone", "a"), ("rack", "1")]),
            labelled("n2", &[("zone", "a"), ("rack", "2")]),
            labelled("n3", &[("zone", "b"), ("rack", "1")]),
        ]
    };
    let placed = [leg("w-0", 0, "n1", "n1-d", 520)];
    for (rules, want) in [
        (vec![("zone", Preferred), ("rack", Preferred)], vec!["n3"]),
        (vec![("rack", Preferred), ("zone", Preferred)], vec!["n2"]),
    ] {
        assert_eq!(on(&run_by(&spread(&rules), nodes(), &placed, &placed, &[1], 520)), want);
    }
    assert_eq!(on(&run_by(&spread(&[("zone", Preferred)]), nodes(), &[], &[], &[0, 1, 2], 520)), ["n1", "n3", "n2"]);
}

#[test]
fn selectors_leave_nodes_and_drives_out_with_a_reason() {
    let mut rules = Placement { node_selector: [("disk".into(), "nvme".into())].into(), ..Placement::default() };
    rules.drive_models = vec!["Fast".into()];
    let mut nodes: Vec<MeshNode> = [("n1", "nvme"), ("n2", "nvme"), ("n3", "hdd"), ("n5", "nvme")]
        .iter()
        .map(|(name, disk)| labelled(name, &[("disk", disk)]))
        .collect();
    nodes.push(labelled("n4", &[]));
    for node in &mut nodes[..2] {
        node.status.as_mut().unwrap().drives[0].model = Some("Fast".into());
    }
    nodes[3].status.as_mut().unwrap().drives[0].model = Some("Slow".into());
    assert_eq!(on(&run_by(&rules, nodes.clone(), &[], &[], &[0, 1], 520)), ["n1", "n2"]);
    let said = run_by(&rules, nodes, &[], &[], &[0, 1, 2], 520).unwrap_err().to_string();
    assert_eq!(
        said,
        "2/5 nodes are available, 3 needed: n3: NodeSelector (disk must be \"nvme\", is \"hdd\"); \
         n4: NodeSelector (disk must be \"nvme\", is absent); n5: DriveModel (has Slow)"
    );
}

#[test]
fn drives_are_chosen_by_size_sectors_and_label() {
    let mut large = drive("large", &[900], 4096);
    large.size_bytes = mib(10_000);
    let mut one = node("n1", vec![drive("small", &[2000], 512), large]);
    one.spec.drives =
        vec![meshstor_crds::DriveSpec { id: "small".into(), labels: [("tier".into(), "hot".into())].into() }];
    let by =
        |rules: Placement| run_by(&rules, vec![one.clone()], &[], &[], &[0], 520).map(|spots| spots[0].drive.clone());
    let some = |text: &str| Some(text.to_owned());
    let rows: [(Placement, Result<&str, &str>); 7] = [
        (Placement { drive_min_size: some("9Gi"), ..Placement::default() }, Ok("large")),
        (Placement { drive_max_size: some("9Gi"), ..Placement::default() }, Ok("small")),
        (Placement { drive_sector_sizes: vec![4096], ..Placement::default() }, Ok("large")),
        (Placement { drive_selector: [("tier".into(), "hot".into())].into(), ..Placement::default() }, Ok("small")),
        (Placement { drive_min_size: some("1Ti"), ..Placement::default() }, Err("DriveSize (has 10485760000 bytes, ")),
        (
            Placement { drive_max_size: some("9Gi"), drive_sector_sizes: vec![4096], ..Placement::default() },
            Err("DriveSector (has 512-byte logical sectors)"),
        ),
        (
            Placement { drive_selector: [("tier".into(), "cold".into())].into(), ..Placement::default() },
            Err("DriveSelector (has no tier, not \"cold\" (label it in spec.drives of MeshNode n1), tier=hot, not"),
        ),
    ];
    for (rules, want) in rows {
        let found = by(rules).map_err(|e| e.to_string());
        match want {
            Ok(drive) => assert_eq!(found.as_deref(), Ok(drive)),
            Err(part) => assert!(found.as_ref().unwrap_err().contains(part), "{found:?}"),
        }
    }
}

#[test]
fn the_least_full_drive_comes_first_even_if_another_has_more_room() {
    let mut large = drive("large", &[4000], 512);
    large.size_bytes = mib(10_000);
    let nodes = || {
        vec![node("n1", vec![large.clone(), drive("small", &[900], 512)]), node("n2", vec![drive("b", &[900], 512)])]
    };
    let spots = run(nodes(), &[], &[], 520).unwrap();
    assert_eq!(spots[0].drive, "small");
    let pending = [leg("x-0", 0, "n1", "small", 300)];
    assert_eq!(
        run(nodes(), &pending, &[], 520).unwrap().iter().map(|s| s.drive.as_str()).collect::<Vec<_>>(),
        ["b", "small"]
    );
}

#[test]
fn most_room_first_and_ties_by_name() {
    let nodes = || {
        vec![
            node("n3", vec![drive("c", &[900], 512)]),
            node("n2", vec![drive("b", &[900], 512)]),
            node("n1", vec![drive("a", &[600], 512)]),
        ]
    };
    let spots = run(nodes(), &[], &[], 520).unwrap();
    let names: Vec<&str> = spots.iter().map(|s| s.node.as_str()).collect();
    assert_eq!(names, ["n2", "n3"]);
}

#[test]
fn a_refusal_names_for_each_node_its_filter() {
    let mut down = node("n2", vec![drive("b", &[900], 512)]);
    down.status.as_mut().unwrap().heartbeat = None;
    let mut closed = node("n3", vec![drive("c", &[900], 512)]);
    closed.spec.unschedulable = true;
    let mut weak = node("n4", vec![drive("d", &[900], 512)]);
    weak.status.as_mut().unwrap().kernel.as_mut().unwrap().capabilities[2].supported = false;
    weak.status.as_mut().unwrap().kernel.as_mut().unwrap().capabilities[2].message = "modprobe nvmet-tcp".into();
    let mut broken = node("n5", vec![drive("e", &[900], 512)]);
    broken.status.as_mut().unwrap().drives[0].unusable = Some("has a foreign filesystem".into());
    let small = node("n1", vec![drive("a", &[100, 50], 512)]);
    let fits = node("n6", vec![drive("f", &[900], 512)]);
    let said = run(vec![small, down, closed, weak, broken, fits], &[], &[], 520).unwrap_err().to_string();
    assert_eq!(
        said,
        "1/6 nodes are available, 2 needed: n1: FreeExtent (largest free extent 100 MiB < 520 MiB); \
         n2: NodeReady (not ready: its daemon has sent no heartbeat); n3: NodeSchedulable (spec.unschedulable is set); \
         n4: NodeCapable (nvmet-tcp: modprobe nvmet-tcp); n5: DriveUsable (e: has a foreign filesystem)"
    );
}

#[test]
fn sector_sizes_are_never_mixed() {
    let nodes = || vec![node("n1", vec![drive("a", &[900], 4096)]), node("n2", vec![drive("b", &[800], 512)])];
    let said = run(nodes(), &[], &[], 520).unwrap_err().to_string();
    assert!(said.contains("SectorSize"), "{said}");
    let placed = [leg("w-0", 0, "n2", "b", 520)];
    let said = run(nodes(), &[], &placed, 520).unwrap_err().to_string();
    assert!(said.contains("n1: SectorSize") && said.contains("n2: OneLegPerNode (holds w-0)"), "{said}");
}

#[test]
fn promises_count_before_the_partition_is_there() {
    let nodes = || vec![node("n1", vec![drive("a", &[1000], 512)]), node("n2", vec![drive("b", &[1000], 512)])];
    assert!(run(nodes(), &[leg("x-0", 0, "n1", "a", 480)], &[], 520).is_ok());
    let said = run(nodes(), &[leg("x-0", 0, "n1", "a", 481)], &[], 520).unwrap_err().to_string();
    assert!(said.contains("largest free extent 519 MiB < 520 MiB"), "{said}");
}

fn any_node(index: usize) -> impl Strategy<Value = MeshNode> {
    let drives = prop::collection::vec((prop::collection::vec(1u64..2000, 0..4), prop::bool::weighted(0.2)), 0..4);
    (drives, prop::bool::weighted(0.15)).prop_map(move |(drives, closed)| {
        let name = |i: usize| format!("d{index}{i}");
        let all = drives.iter().enumerate();
        let all = all.map(|(i, (free, four_k))| drive(&name(i), free, if *four_k { 4096 } else { 512 })).collect();
        let mut node = node(&format!("n{index}"), all);
        node.spec.unschedulable = closed;
        node
    })
}

fn any_nodes() -> impl Strategy<Value = Vec<MeshNode>> {
    (0usize..6).prop_flat_map(|count| (0..count).map(any_node).collect::<Vec<_>>())
}

proptest! {
    /// Never two legs on one node, never mixed sectors, and the choice depends on neither order nor repetition.
    #[test]
    fn one_leg_a_node_deterministic_and_stable(nodes in any_nodes(), want in 1u64..1500, spin in 0usize..6) {
        let first = run(nodes.clone(), &[], &[], want);
        let mut turned = nodes.clone();
        if !turned.is_empty() {
            let by = spin % turned.len();
            turned.rotate_left(by);
        }
        prop_assert_eq!(&first, &run(turned, &[], &[], want));
        if let Ok(spots) = first {
            prop_assert_ne!(&spots[0].node, &spots[1].node);
            let sector = |s: &Spot| nodes.iter().flat_map(|n| &n.status.as_ref().unwrap().drives).find(|d| d.id == s.drive).unwrap().logical_sector_size;
            prop_assert_eq!(sector(&spots[0]), sector(&spots[1]));
        }
    }

    /// Never overfull: however many volumes come before their partitions do, all of them fit the largest extent.
    #[test]
    fn never_overfull(nodes in any_nodes(), wants in prop::collection::vec(1u64..800, 1..8)) {
        let mut promised: Vec<MeshReplica> = Vec::new();
        for (i, want) in wants.iter().enumerate() {
            if let Ok(spots) = run(nodes.clone(), &promised, &[], *want) {
                promised.extend(spots.iter().map(|s| leg(&format!("x{i}-{}", s.slot), s.slot, &s.node, &s.drive, *want)));
            }
        }
        for drive in nodes.iter().flat_map(|n| &n.status.as_ref().unwrap().drives) {
            let used: i64 = promised.iter().filter(|r| r.spec.drive == drive.id).map(|r| r.spec.size_bytes).sum();
            let largest = drive.free_extents.iter().map(|e| e.size_bytes).max().unwrap_or(0);
            prop_assert!(used <= largest, "{} uses {used} of {largest}", drive.id);
        }
    }
}

fn any_rules() -> impl Strategy<Value = Vec<(&'static str, SpreadMode)>> {
    let mode = || prop_oneof![Just(Required), Just(Preferred)];
    (mode(), mode(), mode(), 0usize..4)
        .prop_map(|(a, b, c, count)| [("x", a), ("y", b), ("z", c)].into_iter().take(count).collect())
}

fn way(from: &mut MeshNode, to: &str, latency_microseconds: i32) {
    from.status.as_mut().unwrap().fabric.push(FabricPeer { node: to.to_owned(), latency_microseconds });
}

/// The fabric speaks after the rules of spreading and before the drives; what nobody measured is far.
#[test]
fn legs_go_where_the_fabric_is_fast() {
    let ways = [("n1", "n2", 256), ("n1", "n4", 64), ("n3", "n1", 64), ("n3", "n2", 32), ("n1", "n3", 128)];
    let nodes = || -> Vec<MeshNode> {
        let zones = [("n1", "a"), ("n2", "b"), ("n3", "b"), ("n4", "a"), ("n5", "b")];
        let mut all: Vec<MeshNode> = zones.iter().map(|(name, zone)| labelled(name, &[("zone", zone)])).collect();
        for (from, to, class) in ways {
            way(all.iter_mut().find(|n| n.name_any() == from).unwrap(), to, class);
        }
        all
    };
    let prefer =
        |rules: &[(&'static str, SpreadMode)]| Placement { fabric_latency: FabricLatency::Prefer, ..spread(rules) };
    // Without the word of the policy the first by name.
    assert_eq!(on(&run_by(&spread(&[]), nodes(), &[], &[], &[0, 1], 520)), ["n1", "n2"]);
    // Near the first copy, by its own measurements or those of the others.
    assert_eq!(on(&run_by(&prefer(&[]), nodes(), &[], &[], &[0, 1], 520)), ["n1", "n4"]);
    assert_eq!(on(&run_by(&prefer(&[]), nodes(), &[], &[], &[0, 1, 2], 520)), ["n1", "n4", "n3"]);
    for mode in [Required, Preferred] {
        assert_eq!(on(&run_by(&prefer(&[("zone", mode)]), nodes(), &[], &[], &[0, 1], 520)), ["n1", "n3"]);
    }
    // Near a copy that is there, and near where it will be used.
    let placed = [leg("w-0", 0, "n3", "n3-d", 520)];
    assert_eq!(on(&run_by(&prefer(&[]), nodes(), &placed, &placed, &[1], 520)), ["n2"]);
    let rules = prefer(&[]);
    let slots = [(0, 0), (1, 0), (2, 0)];
    let all: Vec<Arc<MeshNode>> = nodes().into_iter().map(Arc::new).collect();
    let cluster = Cluster { nodes: &all, promises: &Promises::default(), drained: &BTreeMap::new(), now: now() };
    let by = |geometry: Geometry| {
        let request = request(&slots, geometry, 520 * MIB, &[], &rules);
        let spots = place(&Request { preferred: Some("n3"), ..request }, &cluster).unwrap();
        spots.into_iter().map(|spot| spot.node).collect::<Vec<_>>()
    };
    assert_eq!(by(Geometry::new(3, 1)), ["n3", "n2", "n1"]);
}

/// Of a node that has measured as many as it ever will nobody else is asked.
#[test]
fn a_full_list_of_ways_is_all_there_is() {
    let on_beside_n1 = |measured: usize| {
        let mut all = ["n1", "n2", "n3"].map(|name| labelled(name, &[]));
        (0..measured).for_each(|n| way(&mut all[0], &format!("far{n:02}"), 64));
        way(&mut all[2], "n1", 16);
        let rules = Placement { fabric_latency: FabricLatency::Prefer, ..Placement::default() };
        let placed = [leg("w-0", 0, "n1", "n1-d", 520)];
        run_by(&rules, all.to_vec(), &placed, &placed, &[1], 520).unwrap()[0].node.clone()
    };
    assert_eq!([FABRIC_PEERS_MAX - 1, FABRIC_PEERS_MAX].map(on_beside_n1), ["n3", "n2"]);
}

proptest! {
    /// No required rule is ever broken, and a refusal is never given where trying everything finds a place.
    #[test]
    fn required_spreading_holds_and_nothing_is_missed(
        labels in prop::collection::vec([0u8..3, 0u8..3, 0u8..4], 0..7), rules in any_rules(), count in 1usize..5,
        ways in prop::collection::vec(prop::option::of(4u32..17), 49), near in any::<bool>(),
    ) {
        let mut nodes: Vec<MeshNode> = labels.iter().enumerate().map(|(i, l)| {
            // 3 of the last one: no such label.
            let all = ["x", "y", "z"].iter().zip(l).filter(|(_, v)| **v < 3);
            let all: Vec<(&str, String)> = all.map(|(k, v)| (*k, v.to_string())).collect();
            labelled(&format!("n{i}"), &all.iter().map(|(k, v)| (*k, v.as_str())).collect::<Vec<_>>())
        }).collect();
        for (from, to) in (0..nodes.len()).flat_map(|from| (0..labels.len()).map(move |to| (from, to))) {
            if let Some(class) = ways[from * 7 + to].filter(|_| from != to) {
                way(&mut nodes[from], &format!("n{to}"), 1 << class);
            }
        }
        let fabric_latency = if near { FabricLatency::Prefer } else { FabricLatency::Ignore };
        let rules_of = |rules: &[(&'static str, SpreadMode)]| Placement { fabric_latency, ..spread(rules) };
        let slots: Vec<i32> = (0..i32::try_from(count).unwrap()).collect();
        let required: Vec<&str> = rules.iter().filter(|(_, m)| *m == Required).map(|(k, _)| *k).collect();
        let apart = |some: &[&MeshNode]| required.iter().all(|key| {
            let values: Vec<_> = some.iter().filter_map(|n| n.labels().get(*key)).collect();
            values.len() == some.len() && values.iter().collect::<std::collections::BTreeSet<_>>().len() == some.len()
        });
        match run_by(&rules_of(&rules), nodes.clone(), &[], &[], &slots, 520) {
            Ok(spots) => {
                let chosen: Vec<&MeshNode> = nodes.iter().filter(|n| spots.iter().any(|s| s.node == n.name_any())).collect();
                prop_assert_eq!(chosen.len(), count);
                prop_assert!(apart(&chosen), "{:?}", spots);
                prop_assert_eq!(broken(&spread(&rules), &nodes, &spots), [""; 0]);
            }
            Err(refusal) => {
                for pick in 0u32..1 << nodes.len() {
                    let some: Vec<&MeshNode> = nodes.iter().enumerate().filter(|(i, _)| pick >> i & 1 == 1).map(|(_, n)| n).collect();
                    prop_assert!(some.len() != count || !apart(&some), "{refusal}, but {some:?}");
                }
            }
        }
    }
}

/// Legs that break a rule where they are, by the word of [`standing`]. What was just placed breaks none: an unchanged world moves nothing.
fn broken(rules: &Placement, nodes: &[MeshNode], spots: &[Spot]) -> Vec<String> {
    let leg = |s: &Spot| {
        let mut leg = leg(&format!("w-{}", s.slot), s.slot, &s.node, &s.drive, 520);
        leg.spec.mirror_set = s.mirror_set;
        leg
    };
    let legs: Vec<MeshReplica> = spots.iter().map(leg).collect();
    let nodes: Vec<Arc<MeshNode>> = nodes.iter().cloned().map(Arc::new).collect();
    let label = |name: &str, key: &str| {
        let node = nodes.iter().find(|n| n.name_any() == name).ok_or("no such node")?;
        Ok(node.metadata.labels.as_ref().and_then(|l| l.get(key)).map(String::as_str))
    };
    let all = standing::of(&legs.iter().collect::<Vec<_>>(), rules, None, &nodes, label);
    all.iter().filter(|s| s.against != Ok(None)).map(|s| format!("{}: {:?}", s.leg.name_any(), s.against)).collect()
}

fn run_striped(
    rules: &Placement,
    nodes: &[MeshNode],
    placed: &[MeshReplica],
    (copies, width): (u32, u32),
) -> Result<Vec<Spot>, Refusal> {
    let nodes: Vec<Arc<MeshNode>> = nodes.iter().cloned().map(Arc::new).collect();
    let taken = |slot: i32| placed.iter().any(|leg| leg.spec.slot == slot);
    let slots: Vec<(i32, i32)> = Geometry::new(copies, width).legs().filter(|(slot, _)| !taken(*slot)).collect();
    let request = request(&slots, Geometry::new(copies, width), 520 * MIB, placed, rules);
    place(&request, &Cluster { nodes: &nodes, promises: &Promises::of(placed), drained: &BTreeMap::new(), now: now() })
}

/// A node with so many drives of 900 MiB.
fn wide(name: &str, drives: usize) -> MeshNode {
    node(name, (0..drives).map(|d| drive(&format!("{name}-{d}"), &[900], 512)).collect())
}

fn drives_of(answer: &Result<Vec<Spot>, Refusal>) -> Vec<&str> {
    answer.as_ref().map_or_else(|_| Vec::new(), |spots| spots.iter().map(|s| s.drive.as_str()).collect())
}

#[test]
fn a_copy_is_striped_over_drives_of_one_node_where_that_can_be() {
    let none = Placement::default();
    let nodes = [wide("n1", 1), wide("n2", 2), wide("n3", 3)];
    assert_eq!(drives_of(&run_striped(&none, &nodes, &[], (2, 2))), ["n2-0", "n3-0", "n2-1", "n3-1"]);
    assert_eq!(drives_of(&run_striped(&none, &nodes, &[], (1, 3))), ["n3-0", "n3-1", "n3-2"]);
    // No second node has three drives: set by set, and first from where most are left.
    let spots = run_striped(&none, &nodes, &[], (2, 3)).unwrap();
    assert_eq!(
        spots.iter().map(|s| s.drive.as_str()).collect::<Vec<_>>(),
        ["n3-0", "n2-0", "n3-1", "n1-0", "n2-1", "n3-2"]
    );
}

#[test]
fn legs_that_are_there_keep_the_others_off_their_drives_and_their_sets_nodes() {
    let mut placed = [leg("w-0", 0, "n1", "n1-0", 520), leg("w-3", 3, "n1", "n1-1", 520)];
    placed[1].spec.mirror_set = 1;
    let nodes = [wide("n1", 4), wide("n2", 2)];
    assert_eq!(drives_of(&run_striped(&Placement::default(), &nodes, &placed, (2, 2))), ["n2-0", "n2-1"]);
    let said = run_striped(&Placement::default(), &[wide("n1", 4), wide("n2", 1)], &placed, (2, 2)).unwrap_err();
    assert_eq!(
        said.to_string(),
        "1 of 2 legs can be placed, each on a drive of its own and those of a mirror set on different nodes: \
         n1: Drives (2 fit; n1-0: holds w-0; n1-1: holds w-3); n2: Drives (1 fits)"
    );
}

#[test]
fn on_an_unequal_set_of_drives_the_refusal_says_which_drive_is_short_of_what() {
    let mut small = node("n2", vec![drive("big", &[900], 512), drive("small", &[300], 512)]);
    small.status.as_mut().unwrap().drives.push(drive("odd", &[900], 4096));
    let mut weak = wide("n3", 2);
    weak.status.as_mut().unwrap().kernel.as_mut().unwrap().capabilities[1].supported = false;
    let said = run_striped(&Placement::default(), &[wide("n1", 2), small, weak], &[], (2, 2)).unwrap_err().to_string();
    assert!(said.starts_with("3 of 4 legs can be placed"), "{said}");
    assert!(said.contains("n1: Drives (2 fit); n2: Drives (2 fit, 1 with 512 bytes a sector and 1 with 4096 bytes a sector; small: largest free extent 300 MiB < 520 MiB)"), "{said}");
    assert!(said.contains("n3: NodeCapable (raid10:"), "{said}");
}

proptest! {
    /// Every mirror set spans nodes and the policy's label, every leg has a drive of its own, and without labels a refusal is
    /// never given where there is a place: a node serves as many sets as it has drives, and a set a node once.
    #[test]
    fn mirror_sets_span_nodes(
        drives in prop::collection::vec((0usize..4, 0u8..3), 0..6), copies in 1u32..5, width in 2u32..5, zoned in any::<bool>(),
    ) {
        let nodes: Vec<MeshNode> = drives.iter().enumerate().map(|(i, (count, zone))| {
            let mut node = wide(&format!("n{i}"), *count);
            node.labels_mut().insert("zone".into(), zone.to_string());
            node
        }).collect();
        let rules = if zoned { spread(&[("zone", Required)]) } else { Placement::default() };
        let zone = |node: &str| nodes.iter().find(|n| n.name_any() == node).and_then(|n| n.labels().get("zone").cloned());
        match run_striped(&rules, &nodes, &[], (copies, width)) {
            Ok(spots) => {
                let distinct = |all: Vec<String>| all.iter().collect::<BTreeSet<_>>().len() == all.len();
                prop_assert_eq!(spots.len(), usize::try_from(copies * width).unwrap());
                prop_assert!(distinct(spots.iter().map(|s| s.drive.clone()).collect()), "{:?}", spots);
                for set in 0..i32::try_from(width).unwrap() {
                    let of_set = || spots.iter().filter(|s| s.mirror_set == set);
                    prop_assert!(distinct(of_set().map(|s| s.node.clone()).collect()), "{:?}", spots);
                    prop_assert!(!zoned || distinct(of_set().filter_map(|s| zone(&s.node)).collect()), "{:?}", spots);
                }
                prop_assert_eq!(broken(&rules, &nodes, &spots), [""; 0]);
                let legs: Vec<MeshReplica> = spots.iter().map(|s| {
                    let mut leg = leg(&format!("w-{}", s.slot), s.slot, &s.node, &s.drive, 520);
                    leg.spec.mirror_set = s.mirror_set;
                    leg
                }).collect();
                prop_assert_eq!(Geometry::of_legs(&legs), Ok(Geometry::new(copies, width)));
            }
            Err(refusal) => {
                let width = usize::try_from(width).unwrap();
                let most: usize = drives.iter().map(|(count, _)| (*count).min(width)).sum();
                let enough = most >= width * usize::try_from(copies).unwrap();
                prop_assert!(zoned || !enough, "{refusal}");
            }
        }
    }
}
