//! `kubectl drain` and `NodeDrain`: a node goes when its data is safe without it, and not before.

use std::path::PathBuf;
use std::process::Child;

use anyhow::{Context as _, Result, bail, ensure};
use meshstor_e2e::api::{all, condition, is_true, ours};
use meshstor_e2e::kubelet::{Kubelet, VOLUME};
use meshstor_e2e::lab::{Lab, OUT_OF_SERVICE};
use meshstor_e2e::load::Load;
use meshstor_e2e::samples::Sampler;
use meshstor_e2e::say;
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::{Look, holds_for, secs, wait_for, when};
use serde_json::{Value, json};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("kubectl_drain_waits_for_the_user_of_a_volume", used),
    ("kubectl_drain_of_a_last_copy_says_why_it_waits", last_copy),
    ("kubectl_drain_of_two_nodes_lets_one_go", two_nodes),
    ("kubectl_drain_waits_for_a_guard_that_never_ran", pending),
    ("a_budget_that_was_opened_closes_when_its_reason_ends", closes),
    ("kubectl_drain_of_a_node_that_goes_out_of_service", out_of_service),
    ("node_drain_evacuates_a_volume_in_use", evacuated),
    ("kubectl_delete_node_is_the_word_that_a_node_is_gone", deleted),
];

/// A `kubectl drain` that runs beside the test.
pub(crate) struct Drain {
    node: String,
    child: Child,
    log: PathBuf,
}

impl Drain {
    /// Begins it, as a person would: no flag of ours.
    pub(crate) fn begin(lab: &Lab, node: &str, more: &[&str]) -> Result<Self> {
        let log = lab.dir().join(format!("drain-{node}.log"));
        let args = [&["drain", node, "--ignore-daemonsets"], more].concat();
        let child = lab.spawn_kubectl(&args, &log)?;
        Ok(Self { node: node.to_owned(), child, log })
    }

    fn said(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    /// Whether it ended, and how.
    fn ended(&mut self) -> Result<Option<bool>> {
        Ok(self.child.try_wait()?.map(|status| status.success()))
    }

    /// Waits until it ends; gives what it printed.
    pub(crate) fn passes(&mut self) -> Result<String> {
        let (what, mut ok) = (format!("kubectl drain {} to end", self.node), false);
        wait_for(&what, secs(60), || {
            let ended = self.ended()?;
            ok = ended.unwrap_or(false);
            Ok(when(ended.is_some(), self.said()?))
        })?;
        ensure!(ok, "kubectl drain {} failed: {}", self.node, self.said()?);
        self.said()
    }

    /// It goes on, and waits for our budget.
    fn waits(&mut self) -> Result<()> {
        let refusal = "violate the pod's disruption budget";
        wait_for(&format!("kubectl drain {} to be refused", self.node), secs(60), || {
            let said = self.said()?;
            ensure!(self.child.try_wait()?.is_none(), "kubectl drain {} ended: {said}", self.node);
            Ok(when(said.contains(refusal) && said.contains("meshstor-drain/"), said))
        })
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The drain of `node`, once there is one.
fn drain_of(lab: &Lab, node: &str) -> Result<Option<Value>> {
    Ok(lab.control.api.list(&all("nodedrains"))?.into_iter().find(|d| d["spec"]["node"] == node))
}

fn wait_drain(lab: &Lab, node: &str, reason: &str) -> Result<Value> {
    wait_for(&format!("the drain of {node} to say {reason}"), secs(60), || {
        let Some(drain) = drain_of(lab, node)? else { return Ok(Look::NotYet("there is none".to_owned())) };
        let said = condition(&drain, "Ready")["reason"] == reason;
        Ok(if said { Look::Done(drain) } else { Look::NotYet(drain["status"].to_string()) })
    })
}

/// Uncordons, and waits until nothing of the drain is left and the guard is closed and there again.
pub(crate) fn uncordon(lab: &Lab, node: &str) -> Result<()> {
    lab.kubectl(&["uncordon", node])?;
    wait_for(&format!("the drain of {node} to be gone"), secs(60), || {
        Ok(when(drain_of(lab, node)?.is_none(), "it is there"))
    })?;
    wait_guarded(lab, node)
}

fn guard(lab: &Lab, kind: &str, node: &str) -> Result<Option<Value>> {
    let group = if kind == "pods" { "/api/v1" } else { "/apis/policy/v1" };
    lab.control.api.find(&format!("{group}/namespaces/meshstor-drain/{kind}/meshstor-{node}"))
}

fn wait_guarded(lab: &Lab, node: &str) -> Result<()> {
    wait_for(&format!("{node} to be guarded"), secs(60), || {
        let pod = guard(lab, "pods", node)?.unwrap_or_default();
        let budget = guard(lab, "poddisruptionbudgets", node)?.unwrap_or_default();
        let closed = budget["spec"]["minAvailable"] == 1 && budget["status"]["currentHealthy"] == 1;
        let runs = pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null();
        Ok(when(closed && runs, format!("{} {}", pod["status"], budget["status"])))
    })
}

/// Kubelets, and a guard of every node.
pub(crate) fn guarded(lab: &Lab) -> Result<Kubelet> {
    let kubelet = Kubelet::start(lab)?;
    for node in lab.nodes() {
        wait_guarded(lab, &node)?;
    }
    Ok(kubelet)
}

fn two_copies<'a>(lab: &'a Lab, name: &str) -> Result<(Volume<'a>, String, String)> {
    let volume = Volume::create(lab, name, &json!({ "capacity": "128Mi", "replicaCount": 2, "filesystem": "ext4" }))?;
    let legs = volume.leg_nodes()?;
    let [one, two] = legs.as_slice() else { bail!("two legs, but {legs:?}") };
    Ok((volume, one.clone(), two.clone()))
}

/// I3: as the kernel that ran the array saw it five times a second, no copy was ever missing.
fn whole(sampler: &Sampler, lab: &Lab, consumer: &str) -> Result<()> {
    let lowest = sampler.lowest(lab.guest(consumer)?)?;
    ensure!(lowest == 2, "I3: only {lowest} copies were in sync");
    Ok(())
}

/// A pod that uses the volume on the node, as the scheduler and a CSI driver would have it.
fn user(lab: &Lab, volume: &str, node: &str) -> Result<()> {
    let container = json!({ "name": "user", "image": "none" });
    let owner = json!({ "apiVersion": "v1", "kind": "Node", "name": node, "controller": true,
        "uid": lab.control.api.get(&format!("/api/v1/nodes/{node}"))?["metadata"]["uid"] });
    let pod = json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("user-of-{volume}"), "annotations": { VOLUME: volume }, "ownerReferences": [owner] },
        "spec": { "nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 1 } });
    lab.control.api.create("/api/v1/namespaces/default/pods", &pod).map(drop)
}

/// I3: the array in use is not touched; when its user is gone, and not before, the node goes. It comes back with what it had, and what was written
/// meanwhile is copied to it.
fn used(lab: &mut Lab) -> Result<()> {
    let kubelet = guarded(lab)?;
    let load = Load::new("used", 2048);
    let (volume, node, other) = two_copies(lab, "used")?;
    let path = volume.attach(&node, true)?;
    let sampler = Sampler::begin(lab.guest(&node)?, "used")?;
    load.start(lab, &node, &path)?;
    load.wait_for_progress(lab, &node, 50, secs(60))?;

    // Nobody's pod uses it yet: kubectl has nothing to evict but the guard.
    let mut drain = Drain::begin(lab, &node, &[])?;
    drain.waits()?;
    let said = wait_drain(lab, &node, "ConsumerPresent")?;
    ensure!(said["status"]["volumes"][0]["name"] == "used", "{}", said["status"]);
    holds_for("the array is in use and stays", secs(5), || {
        let going = drain.ended()?;
        Ok(when(going.is_none() && volume.attachment()?["status"]["ended"].is_null(), "it was taken away"))
    })?;
    load.wait_for_progress(lab, &node, 50, secs(60))?;
    load.stop(lab, &node)?;
    whole(&sampler, lab, &node)?;
    user(lab, "used", &node)?;
    drop(drain);
    let mut drain = Drain::begin(lab, &node, &[])?;
    say!("{}", drain.passes()?.trim());
    wait_drain(lab, &node, "Succeeded")?;
    ensure!(guard(lab, "pods", &node)?.is_none(), "the guard is there");

    let path = volume.attach(&other, true)?;
    lab.guest_mut(&node)?.cut_power()?;
    kubelet.set_alive(&node, false);
    load.verify(lab, &node, &other, &path)?;
    let volume = Volume::named(lab, "used");
    lab.guest(&other)?.shell(&format!("echo newer > {path}/newer && sync {path}/newer"))?;
    volume.wait("to be without its copy", secs(60), |v| is_true(v, "Degraded"))?;
    lab.power_on(&node)?;
    kubelet.set_alive(&node, true);
    uncordon(lab, &node)?;
    let volume = Volume::named(lab, "used");
    volume.wait_whole(2)?;
    volume.detach()?;
    volume.delete()
}

/// I4: what cannot go says which volume, which rule, and what helps; a cancelled drain leaves everything as it was.
fn last_copy(lab: &mut Lab) -> Result<()> {
    let _kubelet = guarded(lab)?;
    let spec = json!({ "capacity": "128Mi", "replicaCount": 1, "filesystem": "ext4" });
    let volume = Volume::create(lab, "last", &spec)?;
    let node = volume.leg_nodes()?.first().cloned().context("a leg")?;
    let mut drain = Drain::begin(lab, &node, &["--timeout=12s", "--force"])?;
    drain.waits()?;
    let said = wait_drain(lab, &node, "Blocked")?;
    let message = condition(&said, "Stalled")["message"].as_str().unwrap_or_default().to_owned();
    for part in ["last: ", "minInSync is 1", "mode Evacuate"] {
        ensure!(message.contains(part), "it says {message}");
    }
    // Neither a pod that is deleted past its budget nor one that ran out of time lets the node go.
    lab.kubectl(&["drain", &node, "--ignore-daemonsets", "--disable-eviction", "--timeout=6s"])
        .err()
        .context("it went")?;
    wait_for("kubectl to give up", secs(60), || Ok(when(drain.ended()?.is_some(), drain.said()?)))?;
    ensure!(drain.ended()? == Some(false), "it went: {}", drain.said()?);
    ensure!(guard(lab, "pods", &node)?.is_some(), "the guard is gone");
    uncordon(lab, &node)?;
    let path = volume.attach(&node, true)?;
    ensure!(!path.is_empty(), "it is mounted nowhere");
    volume.detach()?;
    volume.delete()
}

/// I3: the API server lets a pod that does not run be evicted whatever its budget says. The guard's finalizer holds it then, and kubectl with it.
fn pending(lab: &mut Lab) -> Result<()> {
    let kubelet = guarded(lab)?;
    // The kubelets know nothing of this one.
    let node = lab.add_node()?;
    wait_for("a guard that is pending", secs(60), || {
        let pod = guard(lab, "pods", &node)?.unwrap_or_default();
        Ok(when(pod["spec"]["nodeName"] == *node && pod["status"]["phase"] == "Pending", pod["status"].to_string()))
    })?;
    let spec = json!({ "capacity": "64Mi", "replicaCount": 1, "filesystem": "none", "preferredNode": node });
    let volume = Volume::create(lab, "pending", &spec)?;
    ensure!(volume.leg_nodes()? == std::slice::from_ref(&node), "its copy is on {:?}", volume.leg_nodes()?);
    let mut drain = Drain::begin(lab, &node, &["--timeout=10s"])?;
    wait_for("kubectl to give up", secs(60), || Ok(when(drain.ended()?.is_some(), drain.said()?)))?;
    ensure!(drain.ended()? == Some(false), "it went: {}", drain.said()?);
    let said = drain.said()?;
    ensure!(said.contains("evicting pod") && !said.contains("disruption budget"), "the budget has held it: {said}");
    let pod = guard(lab, "pods", &node)?.context("the guard is gone")?;
    ensure!(pod["metadata"]["deletionTimestamp"].is_string(), "nobody has evicted it: {pod}");
    wait_drain(lab, &node, "Blocked")?;
    lab.kubectl(&["delete", "mvol", "pending", "--wait=false"])?;
    volume.wait_gone()?;
    // Nothing is there that the node could take with it: once there is a kubelet to end the pod, kubectl has nothing to wait for.
    kubelet.set_alive(&node, true);
    Drain::begin(lab, &node, &[])?.passes()?;
    lab.kubectl(&["uncordon", &node])?;
    wait_guarded(lab, &node)?;
    kubelet.set_alive(&node, false);
    lab.remove_last_node()
}

/// I3: whoever may go may do so until the cordon ends, and no longer, whoever was there to see it end.
fn closes(lab: &mut Lab) -> Result<()> {
    let _kubelet = guarded(lab)?;
    let node = two_copies(lab, "closes")?.1;
    let opened = |lab: &Lab| {
        lab.kubectl(&["cordon", &node])?;
        wait_drain(lab, &node, "Succeeded")?;
        wait_for("the budget to be open", secs(30), || {
            let budget = guard(lab, "poddisruptionbudgets", &node)?.unwrap_or_default();
            Ok(when(budget["spec"]["minAvailable"] == 0, budget["spec"].to_string()))
        })
    };
    opened(lab)?;
    uncordon(lab, &node)?;
    opened(lab)?;
    lab.kill_operator()?;
    lab.kubectl(&["uncordon", &node])?;
    lab.start_operator()?;
    wait_for("the drain to be gone", secs(60), || Ok(when(drain_of(lab, &node)?.is_none(), "it is there")))?;
    wait_guarded(lab, &node)?;
    // While the node is cordoned there is a drain of it: one that is deleted is begun anew, and counts from then.
    opened(lab)?;
    let drain = drain_of(lab, &node)?.context("a drain")?;
    lab.kubectl(&["delete", "nodedrain", drain["metadata"]["name"].as_str().unwrap_or_default()])?;
    wait_for("another drain", secs(60), || {
        let uid = drain_of(lab, &node)?.map(|d| d["metadata"]["uid"].clone());
        Ok(when(uid.is_some() && uid.as_ref() != Some(&drain["metadata"]["uid"]), format!("{uid:?}")))
    })?;
    uncordon(lab, &node)?;
    Volume::named(lab, "closes").delete()
}

/// Each of two nodes could go, both could not: one goes, and the other when that is back.
fn two_nodes(lab: &mut Lab) -> Result<()> {
    let _kubelet = guarded(lab)?;
    let (volume, one, two) = two_copies(lab, "both")?;
    volume.wait_ready()?;
    let mut first = Drain::begin(lab, &one, &[])?;
    first.passes()?;
    let mut second = Drain::begin(lab, &two, &[])?;
    second.waits()?;
    let drain = wait_drain(lab, &two, "TooFewCopies")?;
    let message = condition(&drain, "Ready")["message"].as_str().unwrap_or_default();
    ensure!(message.contains(&format!("{one} is back")), "it says {message}");
    holds_for("the second waits", secs(6), || Ok(when(second.ended()?.is_none(), "it went")))?;
    uncordon(lab, &one)?;
    second.passes()?;
    uncordon(lab, &two)?;
    volume.delete()
}

/// I1: the node dies while its drain waits for the user of a volume. The taint moves the volume with all that was flushed, and the drain, which has nothing to
/// wait for any more, ends when somebody is there to end the guard's pod.
fn out_of_service(lab: &mut Lab) -> Result<()> {
    let kubelet = guarded(lab)?;
    let load = Load::new("off", 1024);
    let (volume, node, other) = two_copies(lab, "off")?;
    let path = volume.attach(&node, true)?;
    let sampler = Sampler::begin(lab.guest(&node)?, "off")?;
    load.start(lab, &node, &path)?;
    load.wait_for_progress(lab, &node, 50, secs(60))?;
    let mut drain = Drain::begin(lab, &node, &[])?;
    drain.waits()?;
    wait_drain(lab, &node, "ConsumerPresent")?;
    whole(&sampler, lab, &node)?;

    lab.guest_mut(&node)?.cut_power()?;
    kubelet.set_alive(&node, false);
    lab.kubectl(&["taint", "node", &node, OUT_OF_SERVICE])?;
    let volume = Volume::named(lab, "off");
    let path = volume.attach(&other, true)?;
    load.verify(lab, &node, &other, &path)?;
    wait_drain(lab, &node, "Succeeded")?;

    lab.power_on(&node)?;
    kubelet.set_alive(&node, true);
    drain.passes()?;
    lab.kubectl(&["taint", "node", &node, &format!("{OUT_OF_SERVICE}-")])?;
    uncordon(lab, &node)?;
    let volume = Volume::named(lab, "off");
    volume.wait_whole(2)?;
    load.verify(lab, &node, &other, &path)?;
    volume.detach()?;
    volume.delete()
}

/// Every leg leaves a node without a degraded moment; the drain says how far it is and ends by itself.
fn evacuated(lab: &mut Lab) -> Result<()> {
    let _kubelet = guarded(lab)?;
    let load = Load::new("moved", 2048);
    let (volume, consumer, node) = two_copies(lab, "moved")?;
    let path = volume.attach(&consumer, true)?;
    let sampler = Sampler::begin(lab.guest(&consumer)?, "moved")?;
    load.start(lab, &consumer, &path)?;
    load.wait_for_progress(lab, &consumer, 50, secs(60))?;
    lab.apply(&json!({ "apiVersion": "meshstor.io/v1alpha1", "kind": "NodeDrain", "metadata": { "name": "empty" },
        "spec": { "node": node, "mode": "Evacuate" } }))?;
    let watch = wait_for("the leg to have left", secs(120), || {
        let term = volume.attachment()?["status"]["term"].clone();
        let copies = term["inSync"].as_array().map_or(0, Vec::len);
        ensure!(copies == 2, "a degraded moment: {term}");
        let drain = lab.control.api.get(&ours("nodedrains", "empty"))?;
        let done = condition(&drain, "Ready")["reason"] == "Succeeded";
        Ok(if done { Look::Done(drain) } else { Look::NotYet(drain["status"].to_string()) })
    })?;
    ensure!(watch["status"]["volumesReady"] == "1/1", "{}", watch["status"]);
    let here = lab.control.api.list(&all("meshreplicas"))?.iter().filter(|l| l["spec"]["node"] == *node).count();
    ensure!(here == 0, "{here} legs are there");
    load.wait_for_progress(lab, &consumer, 20, secs(60))?;
    load.stop(lab, &consumer)?;
    whole(&sampler, lab, &consumer)?;
    // kubectl has nothing to wait for any more; what it starts is ended by it.
    Drain::begin(lab, &node, &[])?.passes()?;
    lab.kubectl(&["uncordon", &node])?;
    lab.kubectl(&["delete", "nodedrain", "empty"])?;
    wait_guarded(lab, &node)?;
    volume.detach()?;
    let path = volume.attach(&node, true)?;
    load.verify(lab, &consumer, &node, &path)?;
    volume.detach()?;
    volume.delete()
}

/// I1: a node that died and was deleted is not waited for: its copies are made elsewhere at once, its arrays move, and nothing of its
/// guard is left.
fn deleted(lab: &mut Lab) -> Result<()> {
    let gone = lab.add_node()?;
    let kubelet = guarded(lab)?;
    let on = |copies: u32| json!({ "capacity": "128Mi", "replicaCount": copies, "filesystem": "ext4", "preferredNode": gone });
    let (there, here) = (Volume::create(lab, "deleted-user", &on(2))?, Volume::create(lab, "deleted-copy", &on(2))?);
    let load = Load::new("deleted-copy", 512);
    let consumer = here.leg_nodes()?.into_iter().find(|n| *n != gone).context("another copy")?;
    ensure!(here.leg_nodes()?.contains(&gone) && there.leg_nodes()?.contains(&gone), "no copies on {gone}");
    let path = here.attach(&consumer, true)?;
    load.start(lab, &consumer, &path)?;
    load.wait_for_progress(lab, &consumer, 20, secs(60))?;
    there.attach(&gone, true)?;
    let rests = Volume::create(lab, "deleted-rests", &on(2))?;
    let (other, kept) = (Load::new("deleted-rests", 256), rests.leg_nodes()?.into_iter().find(|n| *n != gone));
    let kept = kept.context("another copy")?;
    let path = rests.attach(&kept, true)?;
    other.write(lab, &kept, &path, 10)?;
    rests.detach()?;

    lab.guest_mut(&gone)?.cut_power()?;
    kubelet.set_alive(&gone, false);
    lab.kubectl(&["delete", "node", &gone])?;
    let named = |name: &str| Volume::named(lab, name);
    let (there, here, rests) = (named("deleted-user"), named("deleted-copy"), named("deleted-rests"));
    there.want_on(&consumer, true)?;
    for volume in [&here, &there, &rests] {
        volume.wait("to have two copies without it", secs(240), |v| {
            let legs = v["status"]["legs"].as_array().cloned().unwrap_or_default();
            v["status"]["copies"] == "2/2" && legs.len() == 2 && legs.iter().all(|leg| leg["node"] != *gone)
        })?;
    }
    there.wait_attached(&consumer, true)?;
    wait_for("the guard of the node to be gone", secs(60), || {
        let left = [guard(lab, "pods", &gone)?, guard(lab, "poddisruptionbudgets", &gone)?];
        Ok(when(left.iter().all(Option::is_none), format!("{left:?}")))
    })?;
    load.wait_for_progress(lab, &consumer, 20, secs(60))?;
    load.stop(lab, &consumer)?;
    here.detach()?;
    let reader = lab.nodes().into_iter().find(|n| *n != consumer && *n != gone).context("a third node")?;
    let path = here.attach(&reader, true)?;
    load.verify(lab, &consumer, &reader, &path)?;
    let path = rests.attach(&reader, true)?;
    other.verify(lab, &kept, &reader, &path)?;
    for volume in [here, there, rests] {
        volume.detach()?;
        volume.delete()?;
    }
    lab.remove_last_node()
}
