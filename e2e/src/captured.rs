//! What our objects were like while the tests ran: one file for each combination of conditions that a kind ever had. The tests of
//! `config/argocd` ask Argo CD and Flux what they make of each.

use std::collections::hash_map::DefaultHasher;
use std::fs::File;
use std::hash::{Hash as _, Hasher as _};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::{Value, json};
use tokio::runtime::Handle;

/// The kinds, as in `crds/`.
const KINDS: [&str; 6] = ["MeshAttachment", "MeshNode", "MeshReplica", "MeshVolume", "NodeDrain", "ReplicaSetPolicy"];

/// Watches all kinds for as long as the runtime lives, and keeps what is new in `directory`.
///
/// # Errors
/// When the directory cannot be made.
pub fn watch(runtime: &Handle, client: &kube::Client, directory: &Path) -> Result<()> {
    for kind in KINDS {
        let directory = directory.join(kind);
        std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        runtime.spawn(watch_kind(client.clone(), kind, directory));
    }
    Ok(())
}

/// Starts anew by itself whenever the API server was away.
async fn watch_kind(client: kube::Client, kind: &str, directory: PathBuf) {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("meshstor.io", "v1alpha1", kind));
    let objects = Api::<DynamicObject>::all_with(client, &resource);
    let mut changes = watcher(objects, watcher::Config::default()).default_backoff().boxed();
    while let Some(change) = changes.next().await {
        if let Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) = change {
            // A test must not end because this could not be written: what is missing is seen where it is read.
            drop(keep(&directory, kind, &object));
        }
    }
}

fn keep(directory: &Path, kind: &str, object: &DynamicObject) -> Result<()> {
    let said = combination(object);
    let mut hasher = DefaultHasher::new();
    said.hash(&mut hasher);
    let path = directory.join(format!("{}-{:016x}.yaml", ready(object), hasher.finish()));
    let mut file = match File::create_new(&path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        file => file?,
    };
    let kept = json!({
        "apiVersion": "meshstor.io/v1alpha1",
        "kind": kind,
        "metadata": {
            "name": object.metadata.name,
            "generation": object.metadata.generation,
            "deletionTimestamp": object.metadata.deletion_timestamp,
        },
        "status": object.data["status"],
    });
    file.write_all(serde_norway::to_string(&without_nulls(kept))?.as_bytes())?;
    Ok(())
}

fn without_nulls(mut object: Value) -> Value {
    object.as_object_mut().into_iter().for_each(|o| o.retain(|_, v| !v.is_null()));
    for value in object.as_object_mut().into_iter().flat_map(|o| o.values_mut()) {
        value.as_object_mut().into_iter().for_each(|o| o.retain(|_, v| !v.is_null()));
    }
    object
}

fn conditions(object: &DynamicObject) -> &[Value] {
    object.data["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn ready(object: &DynamicObject) -> &str {
    let ready = conditions(object).iter().find(|c| c["type"] == "Ready");
    ready.and_then(|c| c["reason"].as_str()).unwrap_or("New")
}

/// What tells two objects of a kind apart for whoever reads conditions.
fn combination(object: &DynamicObject) -> Vec<String> {
    let observed = object.data["status"]["observedGeneration"].as_i64();
    let mut all = vec![
        format!("deleted {}", object.metadata.deletion_timestamp.is_some()),
        format!("seen {} {}", observed.is_some(), observed == object.metadata.generation),
    ];
    all.extend(conditions(object).iter().map(|c| format!("{} {} {}", c["type"], c["status"], c["reason"])));
    all.sort();
    all
}
