//! A blocking client of the API server for the harness itself (as administrator): objects are plain JSON.

use std::path::Path;

use anyhow::{Context as _, Result};
use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Path of our group and version.
const MESHSTOR: &str = "/apis/meshstor.io/v1alpha1";

/// The client.
pub struct Api {
    runtime: Runtime,
    client: kube::Client,
}

impl Api {
    /// A client by a kubeconfig file.
    pub fn new(kubeconfig: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let client = runtime.block_on(async {
            let file = Kubeconfig::read_from(kubeconfig)?;
            let mut config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
            config.read_timeout = Some(std::time::Duration::from_secs(20));
            anyhow::Ok(kube::Client::try_from(config)?)
        })?;
        Ok(Self { runtime, client })
    }

    /// Keeps what our objects are like from now on ([`crate::captured`]).
    pub fn capture(&self, directory: &Path) -> Result<()> {
        crate::captured::watch(self.runtime.handle(), &self.client, directory)
    }

    fn send(&self, method: Method, path: &str, body: Option<&Value>, content: &str) -> Result<Value> {
        let bytes = body.map_or_else(|| Ok(Vec::new()), serde_json::to_vec)?;
        let request = Request::builder().method(method).uri(path).header("content-type", content).body(bytes)?;
        Ok(self.runtime.block_on(self.client.request::<Value>(request))?)
    }

    /// The text at a path that is no object, such as `/readyz`.
    pub fn text(&self, path: &str) -> Result<String> {
        Ok(self.runtime.block_on(self.client.request_text(Request::get(path).body(Vec::new())?))?)
    }

    /// The object at `path`, or `None` where there is none.
    pub fn find(&self, path: &str) -> Result<Option<Value>> {
        match self.runtime.block_on(self.client.request::<Value>(Request::get(path).body(Vec::new())?)) {
            Ok(value) => Ok(Some(value)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error).with_context(|| format!("get {path}")),
        }
    }

    /// The object at `path`; its absence is an error.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.find(path)?.with_context(|| format!("{path} does not exist"))
    }

    /// The items of the list at `path`.
    pub fn list(&self, path: &str) -> Result<Vec<Value>> {
        Ok(self.get(path)?["items"].as_array().cloned().unwrap_or_default())
    }

    /// Creates an object in the collection `path`.
    pub fn create(&self, path: &str, object: &Value) -> Result<Value> {
        self.send(Method::POST, path, Some(object), "application/json").with_context(|| format!("create in {path}"))
    }

    /// Applies a JSON merge patch.
    pub fn merge(&self, path: &str, patch: &Value) -> Result<Value> {
        self.send(Method::PATCH, path, Some(patch), "application/merge-patch+json")
            .with_context(|| format!("patch {path}"))
    }

    /// Deletes the object at `path`.
    pub fn delete(&self, path: &str) -> Result<()> {
        self.send(Method::DELETE, path, None, "application/json").map(drop).with_context(|| format!("delete {path}"))
    }

    /// Ends the pod at `path`, as its kubelet does when nothing of it runs any more.
    pub fn end(&self, path: &str) -> Result<()> {
        let at_once = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0 });
        let sent = self.send(Method::DELETE, path, Some(&at_once), "application/json");
        sent.map(drop).with_context(|| format!("end {path}"))
    }

    /// A token of a service account, bound to a node so that the node's name is one of its claims.
    pub fn token(&self, namespace: &str, account: &str, node: Option<&Value>) -> Result<String> {
        let bound = node.map(|n| json!({ "apiVersion": "v1", "kind": "Node", "name": n["metadata"]["name"], "uid": n["metadata"]["uid"] }));
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": { "expirationSeconds": 7 * 86_400, "audiences": [], "boundObjectRef": bound },
        });
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let answer = self.create(&path, &request)?;
        answer["status"]["token"].as_str().map(str::to_owned).context("a TokenRequest has a token")
    }
}

/// Path of one of our objects, by plural and name.
pub fn ours(plural: &str, name: &str) -> String {
    format!("{MESHSTOR}/{plural}/{name}")
}

/// Path of the collection of one of our kinds.
pub fn all(plural: &str) -> String {
    format!("{MESHSTOR}/{plural}")
}

/// The condition of that type, or null.
pub fn condition<'a>(object: &'a Value, type_: &str) -> &'a Value {
    let found = object["status"]["conditions"].as_array().and_then(|all| all.iter().find(|c| c["type"] == type_));
    found.unwrap_or(&Value::Null)
}

/// Whether the condition of that type is `True`, for the object's present generation.
pub fn is_true(object: &Value, type_: &str) -> bool {
    let condition = condition(object, type_);
    let fresh = condition["observedGeneration"].is_null()
        || condition["observedGeneration"] == object["metadata"]["generation"];
    condition["status"] == "True" && fresh
}
