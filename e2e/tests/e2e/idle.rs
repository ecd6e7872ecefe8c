//! Copies of volumes that nobody uses are moved too: an array runs for it, and is gone again afterwards.

use anyhow::{Context as _, Result, ensure};
use meshstor_e2e::api::{all, condition};
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::{secs, wait_for, when};
use serde_json::{Value, json};

use crate::Test;
use crate::drain::guarded;
use crate::evacuation::{begin, call_off, wait_drain};

pub(crate) const TESTS: &[Test] = &[
    ("node_drain_evacuates_volumes_that_nobody_uses", nobody_uses),
    ("node_that_dies_while_it_copies_holds_up_nobody", dies),
];

/// A volume with its first copy on `node`, that was written to and is detached; without a load, one that was never attached.
fn detached<'a>(lab: &'a Lab, name: &str, spec: &Value, node: &str, load: Option<&Load>) -> Result<Volume<'a>> {
    let mut spec = spec.clone();
    spec["preferredNode"] = json!(node);
    let volume = Volume::create(lab, name, &spec)?;
    ensure!(volume.leg_nodes()?.iter().any(|n| n == node), "{name} has no copy on {node}");
    if let Some(load) = load {
        let path = volume.attach(node, true)?;
        load.write(lab, node, &path, 20)?;
        volume.detach()?;
    }
    Ok(volume)
}

/// What was written on `writer` is there, as `node` reads it; then the volume goes.
fn end(lab: &Lab, volume: &Volume<'_>, load: &Load, writer: &str, node: &str) -> Result<()> {
    let path = volume.attach(node, true)?;
    load.verify(lab, writer, node, &path)?;
    volume.detach()?;
    volume.delete()
}

/// I3: nothing is left on the node, every copy is whole, and no array runs that nobody asked for.
fn nobody_uses(lab: &mut Lab) -> Result<()> {
    let _kubelet = guarded(lab)?;
    let (pair, single) = (Load::new("idle-pair", 512), Load::new("idle-single", 512));
    let of =
        |mib: u32, copies: u32| json!({ "capacity": format!("{mib}Mi"), "replicaCount": copies, "filesystem": "ext4" });
    let node = "n1";
    let volumes = [
        detached(lab, "idle-pair", &of(256, 2), node, Some(&pair))?,
        detached(lab, "idle-single", &of(128, 1), node, Some(&single))?,
        detached(lab, "idle-never", &of(128, 2), node, None)?,
    ];
    begin(lab, node)?;
    wait_drain(lab, "Succeeded")?;
    let left: Vec<Value> = lab.control.api.list(&all("meshreplicas"))?;
    let left: Vec<&Value> = left.iter().filter(|leg| leg["spec"]["node"] == node).collect();
    ensure!(left.is_empty(), "left on {node}: {left:?}");
    for (volume, copies) in volumes.iter().zip(["2/2", "1/1", "2/2"]) {
        let object = volume.object()?;
        ensure!(object["status"]["copies"] == copies, "{}", object["status"]);
        volume.wait_attachment("to have no array that runs for a copy", secs(60), |a| {
            let (status, ready) = (&a["status"], condition(a, "Ready"));
            status["copyOn"].is_null()
                && status["ended"]["epoch"] == status["term"]["epoch"]
                && ready["reason"] == "Detached"
        })?;
    }
    let news = lab.kubectl(&["get", "events", "-A", "-o", "custom-columns=R:.reason,N:.message"])?;
    ensure!(news.contains("nobody wants the volume at present"), "nobody was told: {news}");
    call_off(lab)?;
    let [first, second, third] = &volumes;
    end(lab, first, &pair, node, "n2")?;
    end(lab, second, &single, node, "n3")?;
    third.attach("n2", true)?;
    third.detach()?;
    third.delete()
}

/// I1: nobody has to say that a node is lost on which nobody wanted the volume; it is attached elsewhere, with everything.
fn dies(lab: &mut Lab) -> Result<()> {
    let kubelet = guarded(lab)?;
    let load = Load::new("idle-dies", 512);
    let node = "n1";
    let spec = json!({ "capacity": "1Gi", "replicaCount": 2, "filesystem": "ext4" });
    detached(lab, "idle-dies", &spec, node, Some(&load))?;
    begin(lab, node)?;
    let copies_on = wait_for("an array that runs for a copy", secs(120), || {
        let status = Volume::named(lab, "idle-dies").attachment()?["status"].clone();
        let on = status["copyOn"].as_str().unwrap_or_default().to_owned();
        let runs = status["array"]["resync"].is_object() && status["term"]["node"] == *on;
        Ok(when(runs, status.to_string()).map(|()| on))
    })?;
    ensure!(copies_on != node, "it runs on the node that is drained");
    lab.guest_mut(&copies_on)?.cut_power()?;
    kubelet.set_alive(&copies_on, false);
    let other = lab.nodes().into_iter().find(|n| *n != copies_on && n != node).context("a third node")?;
    let volume = Volume::named(lab, "idle-dies");
    let path = volume.attach(&other, true)?;
    load.verify(lab, node, &other, &path)?;
    volume.detach()?;
    lab.power_on(&copies_on)?;
    kubelet.set_alive(&copies_on, true);
    wait_drain(lab, "Succeeded")?;
    call_off(lab)?;
    end(lab, &Volume::named(lab, "idle-dies"), &load, node, &other)
}
