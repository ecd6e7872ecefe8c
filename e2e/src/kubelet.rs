//! A small stand-in for the kubelets of the guests: it makes nodes and pods `Ready`, and ends pods that are to go. A pod with the annotation
//! [`VOLUME`] stands for the user of a volume, which is detached before the pod is gone, as a CSI driver would do it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::Result;
use serde_json::{Value, json};

use crate::api::{Api, ours};
use crate::lab::Lab;
use crate::say;
use crate::wait::{pause, secs};

/// Annotation of a pod: the volume that it uses.
pub const VOLUME: &str = "lab.meshstor.io/volume";

/// The kubelets, until it is dropped.
pub struct Kubelet {
    nodes: Arc<Mutex<BTreeSet<String>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Kubelet {
    /// Of all nodes of the lab.
    pub fn start(lab: &Lab) -> Result<Self> {
        let api = Api::new(&lab.control.admin)?;
        for node in lab.nodes() {
            let ready = json!({ "type": "Ready", "status": "True", "reason": "KubeletReady" });
            api.merge(&format!("/api/v1/nodes/{node}/status"), &json!({ "status": { "conditions": [ready] } }))?;
        }
        let nodes = Arc::new(Mutex::new(lab.nodes().into_iter().collect::<BTreeSet<_>>()));
        let over = Arc::new(AtomicBool::new(false));
        let (its, ends) = (Arc::clone(&nodes), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let nodes = its.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if let Err(error) = look(&api, &nodes) {
                    say!("kubelet: {error:#}");
                    pause(secs(1));
                }
                pause(secs(1) / 5);
            }
        });
        Ok(Self { nodes, over, thread: Some(thread) })
    }

    /// That of a node is gone, with its node, or back.
    pub fn set_alive(&self, node: &str, alive: bool) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if alive {
            nodes.insert(node.to_owned());
        } else {
            nodes.remove(node);
        }
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

fn look(api: &Api, nodes: &BTreeSet<String>) -> Result<()> {
    for pod in api.list("/api/v1/pods")? {
        let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| nodes.contains(*node)) else { continue };
        let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
        let path = format!("/api/v1/namespaces/{}/pods/{}", text("namespace"), text("name"));
        let result = match (pod["metadata"]["deletionTimestamp"].is_string(), &pod["status"]["phase"]) {
            (true, _) if detached(api, &pod, node)? => api.end(&path),
            (false, phase) if phase != "Running" => run(api, &path),
            _ => Ok(()),
        };
        // Whoever was faster.
        if let Err(error) = result
            && api
                .find(&path)?
                .is_some_and(|now| now["metadata"]["resourceVersion"] == pod["metadata"]["resourceVersion"])
        {
            return Err(error);
        }
    }
    Ok(())
}

fn run(api: &Api, path: &str) -> Result<()> {
    let is = |type_: &str| json!({ "type": type_, "status": "True" });
    let conditions = json!([is("Initialized"), is("ContainersReady"), is("Ready")]);
    let status = json!({ "status": { "phase": "Running", "conditions": conditions } });
    api.merge(&format!("{path}/status"), &status).map(drop)
}

/// Whether nothing of the pod's volume is left on the node; it is asked for once.
fn detached(api: &Api, pod: &Value, node: &str) -> Result<bool> {
    let Some(volume) = pod["metadata"]["annotations"][VOLUME].as_str() else { return Ok(true) };
    let path = ours("meshattachments", volume);
    let Some(attachment) = api.find(&path)? else { return Ok(true) };
    if attachment["spec"]["node"] == node {
        api.merge(&path, &json!({ "spec": { "node": null, "mountPath": null } }))?;
        return Ok(false);
    }
    let status = &attachment["status"];
    Ok(status["term"]["node"] != node || status["ended"]["epoch"] == status["term"]["epoch"])
}
