//! API server and etcd, killed and started again under many volumes.

use std::time::SystemTime;

use anyhow::{Result, ensure};
use meshstor_e2e::api::{all, is_true, ours};
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::say;
use meshstor_e2e::timeline::{seconds, writes_since};
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::{Look, pause, secs, wait_for};
use serde_json::{Value, json};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[("api_server_restarted_under_30_volumes", restarted)];

const VOLUMES: usize = 30;
/// So many of them are attached and written to.
const RUNNING: usize = 4;
/// Longer than an operator goes on without its Lease, shorter than a node may be silent.
const OUTAGE: f64 = 10.0;
/// Seconds after the start in which writes are counted.
const WINDOW: f64 = 10.0;
/// More writes of our objects in that window are a storm.
const STORM: usize = VOLUMES;

/// From here on the node does not hear the API server, nor that it is gone: as if that machine had lost its power.
const DEAF: &str = "nft -f - <<'E'
add table inet deaf
add chain inet deaf in { type filter hook input priority 0; }
add rule inet deaf in tcp sport 6443 drop
E";

/// Rule 6, I4: a control plane that dies and comes back changes nothing for running volumes, and all else is as before without
/// everybody writing at once. A node that was never told of the end of its connections hears of what is wanted all the same.
fn restarted(lab: &mut Lab) -> Result<()> {
    let names: Vec<String> = (1..=VOLUMES).map(|n| format!("many-{n}")).collect();
    for (name, copies) in names.iter().zip([1, 2].into_iter().cycle()) {
        create(lab, name, copies)?;
    }
    for name in &names {
        Volume::named(lab, name).wait_ready()?;
    }
    let nodes = lab.nodes();
    let running: Vec<(&str, &str)> =
        names.iter().map(String::as_str).zip(nodes.iter().map(String::as_str).cycle()).take(RUNNING).collect();
    for (name, node) in &running {
        let path = Volume::named(lab, name).attach(node, false)?;
        load(name).start(lab, node, &path)?;
    }
    let before = terms(lab, &running)?;

    lab.guest(&nodes[0])?.shell(DEAF)?;
    lab.kill_api()?;
    ensure!(lab.control.api.text("/readyz").is_err(), "the API server answers still");
    let outcome = writes_go_on(lab, &running);
    lab.start_api()?;
    let back = SystemTime::now();
    lab.guest(&nodes[0])?.shell("nft delete table inet deaf")?;
    outcome?;
    operator_leads(lab, back)?;
    for name in &names {
        Volume::named(lab, name).wait_ready()?;
    }
    say!("all {VOLUMES} volumes are Ready {:.1} s after the start", seconds(back, SystemTime::now()));
    no_storm(lab, back)?;

    create(lab, "one-more", 2)?;
    Volume::named(lab, "one-more").wait_ready()?;
    for (name, node) in &running {
        load(name).wait_for_progress(lab, node, 10, secs(60))?;
        load(name).stop(lab, node)?;
    }
    let after = terms(lab, &running)?;
    ensure!(before == after, "records changed from {before:?} to {after:?}");
    for (name, node) in &running {
        let path = Volume::named(lab, name).wait_attached(node, false)?;
        load(name).verify(lab, node, node, &path)?;
        Volume::named(lab, name).want_nowhere()?;
    }
    for (name, _) in &running {
        Volume::named(lab, name).wait_detached()?;
    }
    let volumes: Vec<Volume<'_>> =
        names.iter().map(String::as_str).chain(["one-more"]).map(|name| Volume::named(lab, name)).collect();
    volumes.iter().try_for_each(Volume::delete_only)?;
    volumes.iter().try_for_each(Volume::wait_gone)
}

fn load(name: &str) -> Load {
    Load::new(name, 1024)
}

fn create(lab: &Lab, name: &str, copies: u32) -> Result<()> {
    let spec = json!({ "capacity": "64Mi", "replicaCount": copies, "filesystem": "none" });
    let object = json!({ "apiVersion": "meshstor.io/v1alpha1", "kind": "MeshVolume", "metadata": { "name": name }, "spec": spec });
    lab.control.api.create(&all("meshvolumes"), &object).map(drop)
}

/// Of each running volume's record what a loss, a new epoch or another daemon would change.
fn terms(lab: &Lab, running: &[(&str, &str)]) -> Result<Vec<Value>> {
    let term = |name: &str| Ok(lab.control.api.get(&ours("meshattachments", name))?["status"]["term"].clone());
    running.iter().map(|(name, _)| term(name)).collect()
}

/// All writers go on for the whole outage.
fn writes_go_on(lab: &Lab, running: &[(&str, &str)]) -> Result<()> {
    let began = SystemTime::now();
    while seconds(began, SystemTime::now()) < OUTAGE {
        for (name, node) in running {
            load(name).wait_for_progress(lab, node, 10, secs(30))?;
        }
    }
    Ok(())
}

fn operator_leads(lab: &Lab, since: SystemTime) -> Result<()> {
    let path = "/apis/coordination.k8s.io/v1/namespaces/meshstor-system/leases/meshstor-operator";
    wait_for("the operator to lead again", secs(60), || {
        let lease = lab.control.api.get(path)?;
        let renewed: jiff::Timestamp = lease["spec"]["renewTime"].as_str().unwrap_or_default().parse()?;
        let leads = lease["spec"]["holderIdentity"] == Lab::FIRST_OPERATOR && SystemTime::from(renewed) > since;
        Ok(if leads { Look::Done(()) } else { Look::NotYet(lease["spec"].to_string()) })
    })?;
    say!("the operator leads {:.1} s after the start", seconds(since, SystemTime::now()));
    Ok(())
}

/// What is written to our objects after the start is bounded.
fn no_storm(lab: &Lab, since: SystemTime) -> Result<()> {
    let left = WINDOW - seconds(since, SystemTime::now());
    pause(std::time::Duration::from_secs_f64(left.max(0.0)));
    let writes = writes_since(&lab.control.audit, since)?;
    let mut kinds = std::collections::BTreeMap::new();
    for write in &writes {
        *kinds.entry(format!("{} {} of {}", write.verb, write.resource, write.by)).or_insert(0) += 1;
    }
    say!("{} writes in the first {WINDOW} s: {kinds:?}", writes.len());
    ensure!(writes.len() <= STORM, "{} writes in {WINDOW} s: {kinds:?}", writes.len());
    for node in lab.nodes() {
        let object = lab.control.api.get(&ours("meshnodes", &node))?;
        ensure!(is_true(&object, "Ready"), "{node}: {}", object["status"]);
    }
    Ok(())
}
