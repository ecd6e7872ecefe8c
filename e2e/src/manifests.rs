//! What the applied manifests say about our two programs. The lab has no kubelet, so it starts the containers' programs
//! itself, with the arguments, environment and service account of the manifests: these are what is tested.

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
        })
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
            }] } } },
        });
        let workload = Workload::from_object(&object).unwrap();
        let env = workload.env(&BTreeMap::from([("spec.nodeName", "n1".to_owned())])).unwrap();
        let args = workload.args(&env, &[("--drives", "/dev/ubd?")]).unwrap();
        assert_eq!(args, ["--node-name=n1", "--drives=/dev/ubd?", "--other=$(MISSING)"]);
        assert!(workload.args(&env, &[("--absent", "x")]).is_err());
        assert!(workload.env(&BTreeMap::new()).is_err());
    }
}
