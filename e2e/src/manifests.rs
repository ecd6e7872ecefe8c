//! What the applied manifests say about our two programs. The lab has no kubelet, so it starts the containers' programs
//! itself, with the arguments, environment, mounts and service account of the manifests: these are what is tested.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// The one container of a Deployment or DaemonSet.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Name of the object.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub account: String,
    args: Vec<String>,
    env: Vec<Value>,
    mounts: Vec<Mount>,
}

/// A directory of the node in the container.
#[derive(Clone, Debug, PartialEq)]
struct Mount {
    host: String,
    at: String,
    create: bool,
    read_only: bool,
    propagation: &'static str,
}

impl Workload {
    /// From a Deployment or DaemonSet as the API server holds it.
    pub fn from_object(object: &Value) -> Result<Self> {
        let spec = &object["spec"]["template"]["spec"];
        let container = &spec["containers"][0];
        let text = |value: &Value, what: &str| {
            value.as_str().map(str::to_owned).with_context(|| format!("a workload has {what}"))
        };
        let args = container["args"].as_array().cloned().unwrap_or_default();
        Ok(Self {
            name: text(&object["metadata"]["name"], "a name")?,
            namespace: text(&object["metadata"]["namespace"], "a namespace")?,
            account: text(&spec["serviceAccountName"], "a service account")?,
            args: args.iter().filter_map(|a| a.as_str().map(str::to_owned)).collect(),
            env: container["env"].as_array().cloned().unwrap_or_default(),
            mounts: mounts(spec, container)?,
        })
    }

    /// A shell script that runs its arguments as the container's program: in a mount namespace of its own, with the guest's image
    /// as root and nothing of the node in it but what the manifest mounts, propagated as it says.
    pub fn container(&self) -> String {
        // The image without what is mounted over it. `/proc` is the node's, for the manifest asks for its process IDs.
        // Private, for as a peer of the node's root it would have each of these mounts appear there too.
        let root = "root=/var/lib/kubelet/container\nmount --bind / $root\nmount --make-private $root\nmount -t proc proc $root/proc\nmount -t tmpfs tmpfs $root/tmp\n";
        let mounts: String = self.mounts.iter().map(Mount::script).collect();
        let inside = format!("set -e\n{root}{mounts}exec chroot $root \"$@\"\n");
        format!("exec unshare --mount --propagation unchanged sh -c '{inside}' container \"$@\"\n")
    }

    /// Its environment on `node`; `fields` are the values of the downward API, by path.
    pub fn env(&self, fields: &BTreeMap<&str, String>) -> Result<BTreeMap<String, String>> {
        let mut env = BTreeMap::new();
        for entry in &self.env {
            let name = entry["name"].as_str().context("a variable has a name")?;
            let path = entry["valueFrom"]["fieldRef"]["fieldPath"].as_str();
            let value = match (entry["value"].as_str(), path) {
                (Some(value), _) => expand(value, &env),
                (None, Some(path)) => match fields.get(path) {
                    Some(value) => value.clone(),
                    None => bail!("{}: the lab does not know the field {path} of {name}", self.name),
                },
                (None, None) => bail!("{}: the lab does not know where {name} comes from", self.name),
            };
            env.insert(name.to_owned(), value);
        }
        Ok(env)
    }

    /// Its arguments with `$(NAME)` filled in; `replace` gives other values to `--flag=value` arguments that are there.
    pub fn args(&self, env: &BTreeMap<String, String>, replace: &[(&str, &str)]) -> Result<Vec<String>> {
        let mut args: Vec<String> = self.args.iter().map(|arg| expand(arg, env)).collect();
        for (flag, value) in replace {
            let prefix = format!("{flag}=");
            let arg = args.iter_mut().find(|a| a.starts_with(&prefix));
            *arg.with_context(|| format!("{}: no argument {flag}=…", self.name))? = format!("{prefix}{value}");
        }
        Ok(args)
    }
}

impl Mount {
    fn script(&self) -> String {
        let Self { host, at, .. } = self;
        let create = if self.create { format!("mkdir -p {host}\n") } else { String::new() };
        let bind = format!("mount --rbind {host} $root{at}\nmount --make-r{} $root{at}\n", self.propagation);
        let read_only = if self.read_only { format!("mount -o remount,bind,ro $root{at}\n") } else { String::new() };
        create + &bind + &read_only
    }
}

/// The mounts of a container; every volume must be a directory of the node.
fn mounts(spec: &Value, container: &Value) -> Result<Vec<Mount>> {
    let volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
    let mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
    let mount = |mount: &Value| {
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]);
        let path = volume.context("a mount has a volume")?["hostPath"].clone();
        let text = |value: &Value| value.as_str().map(str::to_owned).context("a mount has two paths");
        Ok(Mount {
            host: text(&path["path"])?,
            at: text(&mount["mountPath"])?,
            create: path["type"] == "DirectoryOrCreate",
            read_only: mount["readOnly"] == true,
            propagation: match mount["mountPropagation"].as_str() {
                Some("Bidirectional") => "shared",
                Some("HostToContainer") => "slave",
                _ => "private",
            },
        })
    };
    mounts.iter().map(mount).collect()
}

/// `$(NAME)` becomes the variable's value, as Kubernetes does it; an unknown one stays as it is.
fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    env.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("$({name})"), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arguments_and_environment_are_those_that_a_kubelet_would_give() {
        let object = json!({
            "metadata": { "name": "d", "namespace": "n" },
            "spec": { "template": { "spec": { "serviceAccountName": "a", "containers": [{
                "args": ["--node-name=$(NODE)", "--drives=/dev/nvme?n1", "--other=$(MISSING)"],
                "env": [{ "name": "NODE", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } }],
                "volumeMounts": [
                    { "name": "lib", "mountPath": "/lib/x", "mountPropagation": "Bidirectional" },
                    { "name": "etc", "mountPath": "/etc/x", "readOnly": true },
                ],
            }], "volumes": [
                { "name": "etc", "hostPath": { "path": "/host/etc", "type": "DirectoryOrCreate" } },
                { "name": "lib", "hostPath": { "path": "/host/lib" } },
            ] } } },
        });
        let workload = Workload::from_object(&object).unwrap();
        let env = workload.env(&BTreeMap::from([("spec.nodeName", "n1".to_owned())])).unwrap();
        let args = workload.args(&env, &[("--drives", "/dev/ubd?")]).unwrap();
        assert_eq!(args, ["--node-name=n1", "--drives=/dev/ubd?", "--other=$(MISSING)"]);
        let container = workload.container();
        assert!(
            container.contains("mount --rbind /host/lib $root/lib/x\nmount --make-rshared $root/lib/x\n"),
            "{container}"
        );
        let etc = "mkdir -p /host/etc\nmount --rbind /host/etc $root/etc/x\nmount --make-rprivate $root/etc/x\nmount -o remount,bind,ro";
        assert!(container.contains(etc), "{container}");
        assert!(workload.args(&env, &[("--absent", "x")]).is_err());
        assert!(workload.env(&BTreeMap::new()).is_err());
    }
}
