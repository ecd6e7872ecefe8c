//! How long one decision of placement takes in a large cluster. Pure: no lab, no API server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use meshstor_crds::{Bitmap, Geometry, MeshNode, MeshReplica, Placement, Transport};
use meshstor_operator::placement::{Cluster, Promises, Request, place};
use serde_json::{Value, json};

use super::Row;

/// Nodes, with four drives each.
const NODES: usize = 5000;
/// Legs that are there already, two on each drive; every tenth has no partition yet.
const LEGS: usize = 8 * NODES;
const GIB: i64 = 1 << 30;
const RUNS: usize = 21;

/// Measures decisions for three copies, by rules that are easy and by rules that are not.
pub fn run() -> Result<Vec<Row>> {
    let now = Timestamp::from_second(1_000_000)?;
    let nodes = (0..NODES).map(|n| node(n, now).map(Arc::new)).collect::<Result<Vec<_>>>()?;
    let legs = (0..LEGS).map(leg).collect::<Result<Vec<_>>>()?;
    let promises = Promises::of(&legs);
    let cluster = Cluster { nodes: &nodes, promises: &promises, drained: &BTreeMap::new(), now };
    let rule = |key: &str, mode: &str| json!({ "topologyKey": key, "mode": mode });
    let near = |spread: Vec<Value>| json!({ "spread": spread, "fabricLatency": "Prefer" });
    let what = "ms, 5,000 nodes × 20,000 drives × 40,000 legs";
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let begun = Instant::now();
        std::hint::black_box(Promises::of(std::hint::black_box(&legs)));
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    // What the legs take of drives is worked out as they are read, before the decision.
    let promised = Row::of_runs("placement-promises", what, "", times);
    let decisions = [
        ("placement", json!({})),
        ("placement-spread", json!({ "spread": [rule("zone", "Required"), rule("rack", "Preferred")] })),
        (
            "placement-crossing",
            json!({ "spread": [rule("zone", "Required"), rule("rack", "Required"), rule("row", "Required")] }),
        ),
        ("placement-near", near(vec![rule("zone", "Required")])),
        ("placement-refused", json!({ "spread": [rule("hall", "Required")] })),
    ]
    .into_iter()
    .map(|(name, rules)| {
        let rules: Placement = serde_json::from_value(rules)?;
        let mut times = Vec::new();
        for _ in 0..RUNS {
            let request = Request {
                slots: &[(0, 0), (1, 0), (2, 0)],
                geometry: Geometry::new(2, 1),
                bitmap: Bitmap::Internal,
                transport: Transport::Tcp,
                preferred: None,
                size: 100 << 30,
                filesystem: meshstor_crds::Filesystem::Xfs,
                placed: &[],
                taken: &[],
                rules: &rules,
            };
            let begun = Instant::now();
            let placed = place(&request, &cluster);
            times.push(begun.elapsed().as_secs_f64() * 1000.0);
            ensure!(placed.is_ok() != (name == "placement-refused"), "{name}: {placed:?}");
        }
        Ok(Row::of_runs(name, what, "< 20", times))
    });
    decisions.chain([Ok(promised)]).collect()
}

/// Ten zones, 250 racks of which each zone has 25, 40 rows across them, two halls.
fn node(n: usize, now: Timestamp) -> Result<MeshNode> {
    let capabilities = ["raid1", "nvmet-tcp", "nvme-tcp", "mdadm", "mkfs.xfs"];
    let capabilities: Vec<Value> =
        capabilities.iter().map(|c| json!({ "name": c, "supported": true, "message": "" })).collect();
    let drives: Vec<Value> = (0..4)
        .map(|d| {
            // Some are fuller than others.
            let size = 4000 * GIB;
            let used = GIB * i64::try_from((n * 7 + d * 13) % 3000)?;
            Ok(json!({
                "id": format!("drive-{n}-{d}"), "path": "/dev/nvme0n1", "sizeBytes": size, "logicalSectorSize": 512,
                "freeExtents": [{ "firstByte": used, "sizeBytes": size - used }],
            }))
        })
        .collect::<Result<_>>()?;
    Ok(serde_json::from_value(json!({
        "apiVersion": "meshstor.io/v1alpha1", "kind": "MeshNode",
        "metadata": { "name": format!("node-{n:05}"), "labels": {
            "zone": format!("z{}", n % 10), "rack": format!("r{}", n % 250), "row": format!("w{}", n / 125), "hall": format!("h{}", n % 2),
        } },
        "spec": {},
        "status": {
            "heartbeat": now, "drives": drives, "fabric": fabric(n), "kernel": { "release": "7.3.4", "capabilities": capabilities },
            "conditions": [{ "type": "Ready", "status": "True", "reason": "AsWanted", "message": "", "lastTransitionTime": now }],
        },
    }))?)
}

/// What a node has measured of 64 others all over the cluster, by name.
fn fabric(n: usize) -> Vec<Value> {
    let mut peers: Vec<usize> = (1..=64).map(|k| (n + k * 77) % NODES).collect();
    peers.sort_unstable();
    let class = |to: usize| 64 << (to % 4);
    peers.into_iter().map(|to| json!({ "node": format!("node-{to:05}"), "latencyMicroseconds": class(to) })).collect()
}

fn leg(n: usize) -> Result<MeshReplica> {
    let (node, drive) = (n / 8, n / 2 % 4);
    let partition = json!({ "uuid": "0".repeat(36), "firstByte": 1 << 20, "sizeBytes": 10 * GIB, "blank": true });
    let status = if n.is_multiple_of(10) { json!({}) } else { json!({ "partition": partition }) };
    Ok(serde_json::from_value(json!({
        "apiVersion": "meshstor.io/v1alpha1", "kind": "MeshReplica", "metadata": { "name": format!("v{n}-0") },
        "spec": {
            "volume": format!("v{n}"), "volumeUid": "u", "slot": 0, "node": format!("node-{node:05}"),
            "drive": format!("drive-{node}-{drive}"), "sizeBytes": 10 * GIB,
        },
        "status": status,
    }))?)
}
