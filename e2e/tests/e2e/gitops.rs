//! GitOps: what is applied from files stays theirs, whatever happens to the volume.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use meshstor_e2e::api::{condition, is_true, ours};
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::{Look, secs, wait_for};
use serde_json::{Value, json};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[("files_own_every_spec_through_a_whole_life", owned)];

/// Who applies, as Argo CD names itself.
const MANAGER: &str = "--field-manager=argocd-controller";

/// The files, as they are in git.
struct Files<'a> {
    lab: &'a Lab,
    path: PathBuf,
}

impl<'a> Files<'a> {
    fn new(lab: &'a Lab) -> Self {
        Self { lab, path: lab.dir().join("git.json") }
    }

    fn write(&self, objects: &[&Value]) -> Result<()> {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        Ok(std::fs::write(&self.path, serde_json::to_vec(&list)?)?)
    }

    /// Applies them without force: a field of theirs that somebody else took is a conflict.
    fn apply(&self, objects: &[&Value]) -> Result<()> {
        self.write(objects)?;
        self.lab.kubectl(&["apply", "--server-side", MANAGER, "-f", &self.path.to_string_lossy()]).map(drop)
    }

    /// Nothing differs, and nobody else has a field of a spec.
    fn are_kept(&self, objects: &[&Value]) -> Result<()> {
        self.write(objects)?;
        let said = self.lab.kubectl(&["diff", "--server-side", MANAGER, "-f", &self.path.to_string_lossy()])?;
        ensure!(said.is_empty(), "the files differ: {said}");
        objects.iter().try_for_each(|object| self.is_owned(object))
    }

    fn is_owned(&self, object: &Value) -> Result<()> {
        let kind = format!("{}.meshstor.io", object["kind"].as_str().unwrap_or_default().to_lowercase());
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let found = self.lab.kubectl(&["get", &kind, name, "-o", "json", "--show-managed-fields"])?;
        let found: Value = serde_json::from_str(&found)?;
        let managers = found["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        let of_spec = |m: &&Value| m["fieldsV1"].get("f:spec").is_some();
        let names: Vec<_> = managers.iter().filter(of_spec).map(|m| m["manager"].clone()).collect();
        ensure!(names == ["argocd-controller"], "{kind} {name}: its spec has the managers {names:?}");
        ensure!(managers.len() > 1, "{kind} {name}: nobody else wrote anything of it: {managers:?}");
        Ok(())
    }
}

fn drain(node: &str) -> Value {
    json!({ "apiVersion": "meshstor.io/v1alpha1", "kind": "NodeDrain", "metadata": { "name": "from-git" },
        "spec": { "node": node, "mode": "Evacuate" } })
}

fn policy(away: u32) -> Value {
    json!({ "apiVersion": "meshstor.io/v1alpha1", "kind": "ReplicaSetPolicy", "metadata": { "name": "from-git" },
        "spec": { "minInSync": 1, "missingMemberTimeoutSeconds": away } })
}

/// The operator writes no field of a spec that is not its own: placed, attached, a copy lost and back, another policy, a node emptied, detached.
fn owned(lab: &mut Lab) -> Result<()> {
    let spec = json!({ "capacity": "128Mi", "replicaCount": 2, "filesystem": "ext4", "policy": "from-git" });
    let volume = json!({ "apiVersion": "meshstor.io/v1alpha1", "kind": "MeshVolume",
        "metadata": { "name": "from-git", "annotations": { "argocd.argoproj.io/sync-wave": "2" } }, "spec": spec });
    Files::new(lab).apply(&[&policy(600), &volume])?;
    let load = Load::new("from-git", 1024);
    let made = Volume::named(lab, "from-git");
    made.wait_ready()?;
    let nodes = made.leg_nodes()?;
    let [consumer, target] = nodes.as_slice() else { anyhow::bail!("two legs, but {nodes:?}") };
    let path = made.attach(consumer, true)?;
    load.start(lab, consumer, &path)?;
    load.wait_for_progress(lab, consumer, 50, secs(60))?;
    Files::new(lab).are_kept(&[&policy(600), &volume])?;

    lab.guest_mut(target)?.cut_power()?;
    Volume::named(lab, "from-git").wait("to lack a copy", secs(60), |v| is_true(v, "Degraded"))?;
    Files::new(lab).are_kept(&[&policy(600), &volume])?;
    lab.power_on(target)?;
    Volume::named(lab, "from-git").wait_whole(2)?;

    let (policy, drain) = (policy(900), drain(target));
    let (files, all) = (Files::new(lab), [&policy, &volume, &drain]);
    files.apply(&all)?;
    wait_for("the node to be empty", secs(120), || {
        let drain = lab.control.api.get(&ours("nodedrains", "from-git"))?;
        let done = condition(&drain, "Ready")["reason"] == "Succeeded";
        Ok(if done { Look::Done(()) } else { Look::NotYet(drain["status"].to_string()) })
    })?;
    files.are_kept(&all)?;
    load.stop(lab, consumer)?;
    lab.kubectl(&["delete", "nodedrain", "from-git"])?;
    let made = Volume::named(lab, "from-git");
    made.detach()?;
    files.are_kept(&[&policy, &volume])?;
    // Nothing new: nothing is written.
    let before = made.object()?["metadata"]["generation"].clone();
    files.apply(&[&policy, &volume])?;
    ensure!(made.object()?["metadata"]["generation"] == before, "applying the same made another generation");
    made.delete()?;
    lab.kubectl(&["delete", "replicasetpolicy", "from-git"]).map(drop)
}
