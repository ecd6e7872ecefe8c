//! Two copies of the operator: one works, and when it dies or freezes the other goes on.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use meshstor_e2e::lab::Lab;
use meshstor_e2e::say;
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::{Look, secs, wait_for, when};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::Test;

pub(crate) const TESTS: &[Test] =
    &[("the_leading_operator_is_killed", killed), ("the_leading_operator_is_frozen", frozen)];

fn lease(lab: &Lab) -> Result<Value> {
    lab.control.api.get("/apis/coordination.k8s.io/v1/namespaces/meshstor-system/leases/meshstor-operator")
}

fn wait_for_leader(lab: &Lab, name: &str) -> Result<Value> {
    wait_for(&format!("{name} to lead"), secs(60), || {
        let lease = lease(lab)?;
        let seen = lease["spec"].to_string();
        Ok(if lease["spec"]["holderIdentity"] == name { Look::Done(lease) } else { Look::NotYet(seen) })
    })
}

/// Starts the second copy, and waits until it says that it stands by.
fn stand_by(lab: &mut Lab) -> Result<()> {
    wait_for_leader(lab, Lab::FIRST_OPERATOR)?;
    lab.start_second_operator()?;
    wait_for_log(lab, "operator-2", "stands by")
}

fn wait_for_log(lab: &Lab, operator: &str, words: &str) -> Result<()> {
    let log = lab.dir.join(format!("logs/{operator}.log"));
    wait_for(&format!("{operator} to say {words:?}"), secs(60), || {
        let text = std::fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?;
        Ok(when(text.contains(words), text))
    })
}

fn killed(lab: &mut Lab) -> Result<()> {
    stand_by(lab)?;
    lab.apply(&json!({
        "apiVersion": "meshstor.io/v1alpha1", "kind": "MeshVolume", "metadata": { "name": "handed-over" },
        "spec": { "capacity": "64Mi", "replicaCount": 2, "filesystem": "none" },
    }))?;
    lab.kill_operator()?;
    let since = Instant::now();
    wait_for_leader(lab, Lab::SECOND_OPERATOR)?;
    say!("the second operator leads {:.1} s after the kill", since.elapsed().as_secs_f64());
    let volume = Volume::named(lab, "handed-over");
    volume.wait_ready()?;
    volume.delete()?;

    // The other way round, the leader told to end: nobody has to wait for its Lease.
    lab.start_operator()?;
    lab.end_second_operator()?;
    let since = Instant::now();
    wait_for_leader(lab, Lab::FIRST_OPERATOR)?;
    say!("the first leads {:.1} s after the end of the second", since.elapsed().as_secs_f64());
    Ok(())
}

/// A leader that wakes up finds that it leads no longer, and leaves the work to the other.
fn frozen(lab: &mut Lab) -> Result<()> {
    stand_by(lab)?;
    let node = lab.nodes().remove(0);
    let spec = json!({ "capacity": "64Mi", "replicaCount": 2, "filesystem": "none" });
    Volume::create(lab, "frozen-over", &spec)?;
    lab.operator()?.signal(Signal::STOP)?;
    let volume = Volume::named(lab, "frozen-over");
    volume.attach(&node, false)?;
    let before = wait_for_leader(lab, Lab::SECOND_OPERATOR)?;

    lab.operator()?.signal(Signal::CONT)?;
    wait_for_log(lab, "operator", "leads no longer")?;
    volume.detach()?;
    volume.delete()?;
    let after = lease(lab)?;
    ensure!(
        after["spec"]["leaseTransitions"] == before["spec"]["leaseTransitions"],
        "the Lease went from {before} to {after}"
    );
    lab.end_second_operator()?;
    wait_for_leader(lab, Lab::FIRST_OPERATOR).map(drop)
}
