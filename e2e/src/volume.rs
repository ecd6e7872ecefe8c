//! Steps with one volume that demo and tests share: as a person does them, and with the wait for what must follow.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::api::{condition, is_true, ours};
use crate::lab::Lab;
use crate::wait::{Look, secs, wait_for};

/// How long any change of a volume may take on two loaded cores.
pub const TIMEOUT: Duration = secs(90);

/// A volume of the lab, by its name.
pub struct Volume<'a> {
    lab: &'a Lab,
    /// Its name.
    pub name: String,
}

impl<'a> Volume<'a> {
    /// A volume that is there already.
    pub fn named(lab: &'a Lab, name: &str) -> Self {
        Self { lab, name: name.to_owned() }
    }

    /// Makes one and waits until it can be attached.
    pub fn create(lab: &'a Lab, name: &str, spec: &Value) -> Result<Self> {
        lab.apply(&json!({ "apiVersion": "meshstor.io/v1alpha1", "kind": "MeshVolume", "metadata": { "name": name }, "spec": spec }))?;
        let volume = Self::named(lab, name);
        volume.wait_ready()?;
        Ok(volume)
    }

    /// Mount point that the lab uses for it.
    pub fn mount_path(&self) -> String {
        format!("/var/lib/meshstor/mnt/{}", self.name)
    }

    /// The `MeshVolume`.
    pub fn object(&self) -> Result<Value> {
        self.lab.control.api.get(&ours("meshvolumes", &self.name))
    }

    /// The `MeshAttachment`.
    pub fn attachment(&self) -> Result<Value> {
        self.lab.control.api.get(&ours("meshattachments", &self.name))
    }

    /// The legs' nodes, by slot, as the volume shows them.
    pub fn leg_nodes(&self) -> Result<Vec<String>> {
        let object = self.object()?;
        let legs = object["status"]["legs"].as_array().cloned().unwrap_or_default();
        legs.iter().map(|leg| leg["node"].as_str().map(str::to_owned).context("a leg has a node")).collect()
    }

    /// Name of its leg on a node.
    pub fn leg_on(&self, node: &str) -> Result<String> {
        let object = self.object()?;
        let legs = object["status"]["legs"].as_array().cloned().unwrap_or_default();
        let leg = legs.iter().find(|leg| leg["node"] == node).and_then(|leg| leg["name"].as_str().map(str::to_owned));
        leg.with_context(|| format!("{} has a leg on {node}", self.name))
    }

    /// Waits until the volume satisfies `done`.
    pub fn wait(&self, what: &str, timeout: Duration, done: impl Fn(&Value) -> bool) -> Result<Value> {
        wait_for(&format!("{} {what}", self.name), timeout, || {
            let object = self.object()?;
            Ok(if done(&object) {
                Look::Done(object)
            } else {
                Look::NotYet(summary(&object, &self.attachment().unwrap_or_default()))
            })
        })
    }

    /// Waits until the attachment satisfies `done`.
    pub fn wait_attachment(&self, what: &str, timeout: Duration, done: impl Fn(&Value) -> bool) -> Result<Value> {
        wait_for(&format!("attachment of {} {what}", self.name), timeout, || {
            let object = self.attachment()?;
            Ok(if done(&object) {
                Look::Done(object)
            } else {
                Look::NotYet(summary(&self.object().unwrap_or_default(), &object))
            })
        })
    }

    /// Waits for `Ready`.
    pub fn wait_ready(&self) -> Result<()> {
        self.wait("to be Ready", TIMEOUT, |volume| is_true(volume, "Ready")).map(drop)
    }

    /// Waits until every copy is in sync.
    pub fn wait_whole(&self, copies: u32) -> Result<()> {
        let all = format!("{copies}/{copies}");
        let whole =
            |volume: &Value| volume["status"]["copies"] == all && condition(volume, "Degraded")["status"] == "False";
        self.wait(&format!("to have {all} copies in sync"), secs(180), whole).map(drop)
    }

    /// Asks for it on a node, mounted (`mount`) or as a device, without waiting.
    pub fn want_on(&self, node: &str, mount: bool) -> Result<()> {
        let path = mount.then(|| self.mount_path());
        self.patch(&json!({ "spec": { "node": node, "mountPath": path } }))
    }

    /// Attaches it and waits until it can be used; gives the path of the mount, or of the device.
    pub fn attach(&self, node: &str, mount: bool) -> Result<String> {
        self.want_on(node, mount)?;
        self.wait_attached(node, mount)
    }

    /// Gives the consumer of the record's epoch up, as a person does, and asks for it on another node, without waiting.
    pub fn give_up(&self, to: &str, mount: bool) -> Result<()> {
        let term = self.attachment()?["status"]["term"].clone();
        let lost = json!({ "node": term["node"], "epoch": term["epoch"] });
        let path = mount.then(|| self.mount_path());
        self.patch(&json!({ "spec": { "lost": lost, "node": to, "mountPath": path } }))
    }

    /// Waits until it can be used on a node.
    pub fn wait_attached(&self, node: &str, mount: bool) -> Result<String> {
        let key = if mount { "mountPath" } else { "device" };
        let usable = |at: &Value| {
            let (term, array) = (&at["status"]["term"], &at["status"]["array"]);
            term["node"] == node
                && term["phase"] == "Running"
                && array["epoch"] == term["epoch"]
                && array[key].is_string()
        };
        let attachment = self.wait_attachment(&format!("to be usable on {node}"), TIMEOUT, usable)?;
        attachment["status"]["array"][key].as_str().map(str::to_owned).context("an attached volume has a path")
    }

    /// Asks for it nowhere, without waiting.
    pub fn want_nowhere(&self) -> Result<()> {
        self.patch(&json!({ "spec": { "node": null, "mountPath": null } }))
    }

    /// Asks for it nowhere and waits until its array is gone.
    pub fn detach(&self) -> Result<()> {
        self.want_nowhere()?;
        self.wait_detached()
    }

    /// Waits until its array is gone.
    pub fn wait_detached(&self) -> Result<()> {
        let ended = |at: &Value| {
            at["status"]["ended"]["epoch"] == at["status"]["term"]["epoch"] && at["status"]["array"].is_null()
        };
        self.wait_attachment("to be detached", TIMEOUT, ended).map(drop)
    }

    /// Deletes it without waiting.
    pub fn delete_only(&self) -> Result<()> {
        self.lab.control.api.delete(&ours("meshvolumes", &self.name))
    }

    /// Deletes it and waits until no object of it is left.
    pub fn delete(&self) -> Result<()> {
        self.delete_only()?;
        self.wait_gone()
    }

    /// Waits until no object of it is left.
    pub fn wait_gone(&self) -> Result<()> {
        let api = &self.lab.control.api;
        wait_for(&format!("{} to be gone", self.name), TIMEOUT, || {
            let volume = api.find(&ours("meshvolumes", &self.name))?;
            let attachment = api.find(&ours("meshattachments", &self.name))?;
            let legs = api
                .list(&crate::api::all("meshreplicas"))?
                .into_iter()
                .filter(|leg| leg["spec"]["volume"] == *self.name)
                .count();
            Ok(if volume.is_none() && attachment.is_none() && legs == 0 {
                Look::Done(())
            } else {
                Look::NotYet(format!(
                    "{legs} legs; {}",
                    summary(&volume.unwrap_or_default(), &attachment.unwrap_or_default())
                ))
            })
        })
    }

    fn patch(&self, patch: &Value) -> Result<()> {
        self.lab.control.api.merge(&ours("meshattachments", &self.name), patch).map(drop)
    }
}

/// What matters of a volume and its attachment, in a line.
fn summary(volume: &Value, attachment: &Value) -> String {
    let conditions = |object: &Value| -> Vec<String> {
        let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let text = |c: &Value, key: &str| c[key].as_str().unwrap_or_default().to_owned();
        all.iter()
            .map(|c| {
                format!("{}={} {} ({})", text(c, "type"), text(c, "status"), text(c, "reason"), text(c, "message"))
            })
            .collect()
    };
    let status = &attachment["status"];
    format!(
        "volume copies {} {}; attachment term {} ended {} array {} {}",
        volume["status"]["copies"],
        conditions(volume).join(", "),
        status["term"],
        status["ended"],
        status["array"],
        conditions(attachment).join(", "),
    )
}
