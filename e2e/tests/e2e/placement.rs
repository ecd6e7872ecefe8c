//! Where copies go: the policy's rules, against the labels of real Node objects.

use anyhow::{Context as _, Result, ensure};
use meshstor_e2e::api::{condition, ours};
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::samples::Sampler;
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::{holds_for, secs, wait_for, when};
use serde_json::{Value, json};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("copies_are_spread_over_racks", spread_over_racks),
    ("selectors_choose_node_and_drive", selectors),
    ("a_policy_that_is_called_default_is_that_of_all_others", default_policy),
    ("nodes_measure_how_near_the_others_are", fabric),
    ("a_changed_policy_says_what_breaks_it_and_moves_it_where_it_may", changed),
];

/// Not a label that the lab gives.
const RACK: &str = "example.com/rack";

fn set_rack(lab: &Lab, node: &str, rack: &Value) -> Result<()> {
    let patch = json!({ "metadata": { "labels": { RACK: rack } } });
    lab.control.api.merge(&format!("/api/v1/nodes/{node}"), &patch).map(drop)
}

fn policy(lab: &Lab, name: &str, placement: &Value) -> Result<()> {
    lab.apply(&json!({
        "apiVersion": "meshstor.io/v1alpha1", "kind": "ReplicaSetPolicy", "metadata": { "name": name },
        "spec": { "placement": placement },
    }))
}

fn ask<'a>(lab: &'a Lab, name: &str, policy: &str, copies: usize) -> Result<Volume<'a>> {
    lab.apply(&json!({
        "apiVersion": "meshstor.io/v1alpha1", "kind": "MeshVolume", "metadata": { "name": name },
        "spec": { "capacity": "64Mi", "replicaCount": copies, "filesystem": "none", "policy": policy },
    }))?;
    Ok(Volume::named(lab, name))
}

/// Waits for the refusal, and gives its message.
fn refused(volume: &Volume<'_>) -> Result<String> {
    let seen = volume.wait("to be unschedulable", secs(30), |v| condition(v, "Ready")["reason"] == "Unschedulable")?;
    Ok(condition(&seen, "Ready")["message"].as_str().unwrap_or_default().to_owned())
}

/// Two nodes in one rack and one in another: never two copies in a rack. A third copy is refused until a node is moved, and then
/// placed without anybody touching the volume.
fn spread_over_racks(lab: &mut Lab) -> Result<()> {
    let nodes = lab.nodes();
    for (node, rack) in nodes.iter().zip(["1", "1", "2"]) {
        set_rack(lab, node, &json!(rack))?;
    }
    policy(lab, "racks", &json!({ "spread": [{ "topologyKey": RACK, "mode": "Required" }] }))?;
    let two = ask(lab, "two-racks", "racks", 2)?;
    two.wait_ready()?;
    let legs = two.leg_nodes()?;
    ensure!(legs.contains(&nodes[2]), "both copies are in rack 1: {legs:?}");

    let three = ask(lab, "three-racks", "racks", 3)?;
    let message = refused(&three)?;
    ensure!(
        message.contains(&format!("Spread ({RACK}=1 has")),
        "the message does not say what is in the way: {message}"
    );
    set_rack(lab, &nodes[1], &json!("3"))?;
    three.wait_ready()?;
    ensure!(three.leg_nodes()?.len() == 3, "not three copies");

    two.delete()?;
    three.delete()?;
    for node in &nodes {
        set_rack(lab, node, &Value::Null)?;
    }
    lab.control.api.delete(&ours("replicasetpolicies", "racks"))
}

/// A volume that names no policy has that of the name `default` as long as there is one, and says what of it that breaks.
fn default_policy(lab: &mut Lab) -> Result<()> {
    let (first, last) = (lab.nodes().remove(0), lab.nodes().pop().unwrap_or_default());
    let on = |node: &str| policy(lab, "default", &json!({ "nodeSelector": { "kubernetes.io/hostname": node } }));
    on(&last)?;
    let spec = json!({ "capacity": "64Mi", "replicaCount": 1, "filesystem": "none" });
    let volume = Volume::create(lab, "by-default", &spec)?;
    ensure!(volume.leg_nodes()? == [last], "the copy is on {:?}", volume.leg_nodes()?);
    let placed = |v: &Value, status: &str| condition(v, "PlacedByPolicy")["status"] == status;
    on(&first)?;
    volume.wait("to say that it is elsewhere", secs(30), |v| placed(v, "False"))?;
    wait_for("the policy to count it", secs(30), || {
        let seen = lab.control.api.get(&ours("replicasetpolicies", "default"))?["status"]["violated"].clone();
        Ok(when(seen == 1, seen.to_string()))
    })?;
    lab.control.api.delete(&ours("replicasetpolicies", "default"))?;
    volume.wait("to be where nothing forbids it", secs(30), |v| placed(v, "True"))?;
    volume.delete()
}

/// Every other node is measured, in classes; a policy that prefers near nodes is answered with what was measured.
fn fabric(lab: &mut Lab) -> Result<()> {
    let nodes = lab.nodes();
    let (here, others) = nodes.split_first().context("a node")?;
    lab.guest(here)?.kill_daemon()?;
    lab.start_daemon(here)?;
    wait_for("the others to be measured", secs(60), || {
        let fabric = lab.control.api.get(&ours("meshnodes", here))?["status"]["fabric"].clone();
        let class = |node: &String| {
            let all = fabric.as_array()?;
            all.iter().find(|peer| peer["node"] == **node)?["latencyMicroseconds"].as_u64()
        };
        let good = others.iter().all(|node| class(node).is_some_and(|us| us.is_power_of_two() && us < 65_536));
        Ok(when(good, fabric.to_string()))
    })?;
    policy(lab, "near", &json!({ "fabricLatency": "Prefer" }))?;
    let spec =
        json!({ "capacity": "64Mi", "replicaCount": 2, "filesystem": "none", "policy": "near", "preferredNode": here });
    let volume = Volume::create(lab, "near", &spec)?;
    let says = format!("µs from {here}");
    volume.wait("to say how near its copy is", secs(30), |v| {
        condition(v, "PlacedByPolicy")["message"].as_str().is_some_and(|message| message.contains(&says))
    })?;
    volume.delete()?;
    lab.control.api.delete(&ours("replicasetpolicies", "near"))
}

/// A node selector leaves one node; a drive of another model is no choice.
fn selectors(lab: &mut Lab) -> Result<()> {
    let last = lab.nodes().pop().unwrap_or_default();
    policy(lab, "last", &json!({ "nodeSelector": { "kubernetes.io/hostname": last } }))?;
    let one = ask(lab, "on-the-last", "last", 1)?;
    one.wait_ready()?;
    ensure!(one.leg_nodes()? == std::slice::from_ref(&last), "the copy is on {:?}", one.leg_nodes()?);
    let both = ask(lab, "two-on-the-last", "last", 2)?;
    let message = refused(&both)?;
    ensure!(message.contains("NodeSelector (kubernetes.io/hostname must be"), "{message}");

    policy(lab, "model", &json!({ "driveModels": ["No Such Drive"] }))?;
    let none = ask(lab, "no-such-drive", "model", 1)?;
    let message = refused(&none)?;
    // The lab's drives say no model.
    ensure!(message.contains("DriveModel (has unknown)"), "{message}");

    // A label on one drive of one node.
    let node = lab.control.api.get(&ours("meshnodes", &last))?;
    let drive = node["status"]["drives"][1]["id"].clone();
    let said = json!({ "spec": { "drives": [{ "id": drive, "labels": { "tier": "hot" } }] } });
    lab.control.api.merge(&ours("meshnodes", &last), &said)?;
    let rules = json!({ "driveSelector": { "tier": "hot" }, "driveMinSize": "1Gi", "driveSectorSizes": [512] });
    policy(lab, "hot", &rules)?;
    let hot = ask(lab, "on-the-hot-drive", "hot", 1)?;
    hot.wait_ready()?;
    let leg = lab.control.api.get(&ours("meshreplicas", &hot.leg_on(&last)?))?;
    ensure!(leg["spec"]["drive"] == drive, "it is on {}", leg["spec"]["drive"]);
    let two = ask(lab, "two-on-the-hot-drive", "hot", 2)?;
    let message = refused(&two)?;
    ensure!(message.contains("DriveSelector (has no tier, not \"hot\""), "{message}");
    lab.control.api.merge(&ours("meshnodes", &last), &json!({ "spec": { "drives": null } }))?;
    for volume in [one, both, none, hot, two] {
        volume.delete()?;
    }
    for name in ["last", "model", "hot"] {
        lab.control.api.delete(&ours("replicasetpolicies", name))?;
    }
    Ok(())
}

/// I3: a label moves under a volume in use. It says which rule its leg breaks, and nothing moves; where the policy allows it the leg
/// goes, and at no moment is there a copy less.
fn changed(lab: &mut Lab) -> Result<()> {
    let nodes = lab.nodes();
    for (node, rack) in nodes.iter().zip(["1", "2", "3"]) {
        set_rack(lab, node, &json!(rack))?;
    }
    let rules = json!({ "spread": [{ "topologyKey": RACK, "mode": "Required" }] });
    policy(lab, "apart", &rules)?;
    let spec = json!({ "capacity": "128Mi", "replicaCount": 2, "filesystem": "ext4", "policy": "apart" });
    let volume = Volume::create(lab, "apart", &spec)?;
    let legs = volume.leg_nodes()?;
    let (consumer, other) = (legs[0].clone(), legs[1].clone());
    let free = nodes.iter().find(|n| !legs.contains(n)).cloned().unwrap_or_default();
    let path = volume.attach(&consumer, true)?;
    let load = Load::new("apart", 512);
    load.start(lab, &consumer, &path)?;
    let placed = |v: &Value| condition(v, "PlacedByPolicy").clone();
    let seen = volume.wait("to be placed by its policy", secs(30), |v| placed(v)["status"] == "True")?;
    let said = placed(&seen)["message"].as_str().unwrap_or_default().to_owned();
    ensure!(legs.iter().all(|n| said.contains(&format!(" on {n} "))) && said.contains(&format!("{RACK}=")), "{said}");

    let rack = lab.control.api.get(&format!("/api/v1/nodes/{consumer}"))?["metadata"]["labels"][RACK].clone();
    set_rack(lab, &other, &rack)?;
    let seen = volume.wait("to break its policy", secs(60), |v| placed(v)["status"] == "False")?;
    let said = placed(&seen)["message"].as_str().unwrap_or_default().to_owned();
    ensure!(said.contains(&format!("breaks Spread ({RACK}={}", rack.as_str().unwrap_or_default())), "{said}");
    let counts = |lab: &Lab| -> Result<(Value, Value)> {
        let status = lab.control.api.get(&ours("replicasetpolicies", "apart"))?["status"].clone();
        Ok((status["volumes"].clone(), status["violated"].clone()))
    };
    wait_for("the policy to count it", secs(40), || {
        let seen = counts(lab)?;
        Ok(when(seen == (json!(1), json!(1)), format!("{seen:?}")))
    })?;
    let news = lab.kubectl(&["get", "events", "-A", "-o", "custom-columns=R:.reason,K:.involvedObject.kind"])?;
    let told = |kind: &str| news.lines().any(|l| l.starts_with("PolicyViolated") && l.contains(kind));
    ensure!(told("MeshVolume") && told("ReplicaSetPolicy"), "nobody was told: {news}");
    let same = || Ok(when(volume.leg_nodes()? == legs, "a leg moved"));
    holds_for("nothing to move without leave", secs(5), same)?;

    let sampler = Sampler::begin(lab.guest(&consumer)?, "apart")?;
    let allowed = json!({ "spec": { "rebalance": "Allowed" } });
    lab.control.api.merge(&ours("replicasetpolicies", "apart"), &allowed)?;
    let seen = volume.wait("to be as its policy says", secs(120), |v| {
        placed(v)["status"] == "True" && v["status"]["copies"] == "2/2" && condition(v, "Replacing").is_null()
    })?;
    ensure!(volume.leg_nodes()?.contains(&free), "{free} has no copy: {}", seen["status"]);
    load.wait_for_progress(lab, &consumer, 20, secs(60))?;
    load.stop(lab, &consumer)?;
    let lowest = sampler.lowest(lab.guest(&consumer)?)?;
    ensure!(lowest >= 2, "I3: only {lowest} copies were in sync");
    wait_for("the policy to count none", secs(40), || {
        let seen = counts(lab)?;
        Ok(when(seen == (json!(1), json!(0)), format!("{seen:?}")))
    })?;
    volume.detach()?;
    let path = volume.attach(&free, true)?;
    load.verify(lab, &consumer, &free, &path)?;
    volume.detach()?;
    volume.delete()?;
    for node in &nodes {
        set_rack(lab, node, &Value::Null)?;
    }
    lab.control.api.delete(&ours("replicasetpolicies", "apart"))
}
