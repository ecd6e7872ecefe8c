//! Objects that somebody left half made, in the API and in the kernel: adopted, cleaned, or left alone and told of.
//!
//! Most of them a crash can leave; there they are made by hand, so that each is surely there. What `crashes` covers by kills (an
//! array whose record is not initialised, half an export of a leg) is not repeated.

use anyhow::{Context as _, Result, ensure};
use meshstor_crds::naming;
use meshstor_e2e::api::{all, condition, is_true, ours};
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::{Look, secs, wait_for, when};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Test;
use crate::quarantine::{wait_for_item, wait_for_none};

pub(crate) const TESTS: &[Test] = &[
    ("half_a_leg_is_zeroed_before_it_is_used", half_a_leg),
    ("half_a_volume_is_adopted", adopted),
    ("half_a_volume_that_is_deleted_is_cleaned_away", cleaned),
    ("the_attachment_of_somebody_else_is_not_taken", foreign_attachment),
    ("legs_and_exports_of_no_replica_are_kept", strays),
    ("a_deleted_mesh_node_is_made_again", deleted_node),
];

fn volume_object(name: &str, copies: usize) -> Value {
    json!({
        "apiVersion": "meshstor.io/v1alpha1", "kind": "MeshVolume",
        "metadata": { "name": name, "finalizers": ["meshstor.io/volume"] },
        "spec": { "capacity": "64Mi", "replicaCount": copies, "filesystem": "none" },
    })
}

/// The legs of a volume of that name, as the operator would place them now: such a volume is made and deleted again.
fn trial(lab: &Lab, name: &str, copies: usize) -> Result<Vec<Value>> {
    lab.control.api.create(&all("meshvolumes"), &volume_object(name, copies))?;
    let volume = Volume::named(lab, name);
    volume.wait_ready()?;
    let legs = lab.control.api.list(&all("meshreplicas"))?.into_iter().filter(|leg| leg["spec"]["volume"] == *name);
    let legs: Vec<Value> = legs.collect();
    volume.delete()?;
    ensure!(legs.len() == copies, "{} legs", legs.len());
    Ok(legs)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Kernel name of the drive of a leg, such as `ubda`.
fn drive_of(lab: &Lab, leg: &Value) -> Result<String> {
    let node = lab.control.api.get(&ours("meshnodes", text(&leg["spec"]["node"])))?;
    let drives = node["status"]["drives"].as_array().into_iter().flatten();
    let path = drives.filter(|drive| drive["id"] == leg["spec"]["drive"]).find_map(|drive| drive["path"].as_str());
    path.and_then(|path| path.strip_prefix("/dev/")).map(str::to_owned).context("the node has the drive of its leg")
}

/// Makes a partition of a leg's type with `content` in its first bytes; gives its kernel name.
fn partition(lab: &Lab, node: &str, drive: &str, uuid: Uuid, mebibytes: u64, content: &str) -> Result<String> {
    let script = format!(
        "set -e
        sgdisk --set-alignment=2048 --new=0:0:+{mebibytes}M --change-name=0:half --typecode=0:{LEG_TYPE} /dev/{drive} >/dev/null
        number=$(sgdisk --print /dev/{drive} | awk '$NF == \"half\" {{ print $1 }}')
        sgdisk --partition-guid=$number:{uuid} /dev/{drive} >/dev/null
        [ -e /sys/class/block/{drive}$number ] || partx --add --nr $number /dev/{drive}
        yes {content} | dd of=/dev/{drive}$number bs=1M count={mebibytes} iflag=fullblock oflag=direct status=none
        echo {drive}$number"
    );
    Ok(lab.guest(node)?.shell(&script)?.trim().to_owned())
}

/// GPT type of a leg's partition.
const LEG_TYPE: &str = "aa599589-36cc-4892-96fe-e70004a710b3";

/// I5: a partition that has no ledger entry is of a daemon that died before it zeroed it. It is taken and zeroed, not made again
/// and not believed to be blank.
fn half_a_leg(lab: &mut Lab) -> Result<()> {
    for guest in lab.guests() {
        guest.kill_daemon()?;
    }
    lab.control.api.create(&all("meshvolumes"), &volume_object("half-leg", 1))?;
    let leg = wait_for("the leg to be placed", secs(30), || {
        let leg = lab.control.api.find(&ours("meshreplicas", "half-leg-0"))?;
        Ok(leg.map_or_else(|| Look::NotYet("none".to_owned()), Look::Done))
    })?;
    let (node, drive) = (text(&leg["spec"]["node"]).to_owned(), drive_of(lab, &leg)?);
    let uid = Uuid::parse_str(text(&leg["spec"]["volumeUid"]))?;
    let mebibytes = leg["spec"]["sizeBytes"].as_u64().context("a leg has a size")? >> 20;
    let made = partition(lab, &node, &drive, Uuid::new_v5(&uid, b"leg/half-leg-0"), mebibytes, "garbage")?;
    let place = format!("cat /sys/class/block/{made}/start /sys/class/block/{made}/size");
    let before = lab.guest(&node)?.shell(&place)?;

    for node in lab.nodes() {
        lab.start_daemon(&node)?;
    }
    let volume = Volume::named(lab, "half-leg");
    volume.wait_ready()?;
    ensure!(lab.guest(&node)?.shell(&place)? == before, "the partition was made again");
    let left = lab.guest(&node)?.shell(&format!("tr -d '\\0' < /dev/{made} | wc -c"))?;
    ensure!(left.trim() == "0", "{} bytes of it are not zero", left.trim());
    volume.delete()
}

/// One leg of two, as the operator makes it, of a volume that has its finalizer and nothing else.
fn first_leg_only(lab: &Lab, name: &str, leg: &Value) -> Result<Value> {
    let volume = lab.control.api.create(&all("meshvolumes"), &volume_object(name, 2))?;
    let uid = &volume["metadata"]["uid"];
    let mut spec = leg["spec"].clone();
    spec["volumeUid"] = uid.clone();
    let owner = json!({
        "apiVersion": "meshstor.io/v1alpha1", "kind": "MeshVolume", "name": name, "uid": uid,
        "controller": true, "blockOwnerDeletion": true,
    });
    lab.control.api.create(&all("meshreplicas"), &json!({
        "apiVersion": "meshstor.io/v1alpha1", "kind": "MeshReplica",
        "metadata": { "name": leg["metadata"]["name"], "finalizers": ["meshstor.io/replica"], "ownerReferences": [owner] },
        "spec": spec,
    }))
}

/// I5: a volume with a finalizer and no leg, and one with one leg of two and no attachment, become volumes like any other; what
/// was there stays.
fn adopted(lab: &mut Lab) -> Result<()> {
    let legs = trial(lab, "half", 2)?;
    lab.kill_operator()?;
    lab.control.api.create(&all("meshvolumes"), &volume_object("bare", 1))?;
    let made = first_leg_only(lab, "half", &legs[0])?;
    lab.start_operator()?;
    let (bare, half) = (Volume::named(lab, "bare"), Volume::named(lab, "half"));
    bare.wait_ready()?;
    half.wait_ready()?;
    ensure!(half.leg_nodes()?.len() == 2, "{:?}", half.leg_nodes()?);
    let leg = lab.control.api.get(&ours("meshreplicas", "half-0"))?;
    ensure!(leg["metadata"]["uid"] == made["metadata"]["uid"], "the leg was made again");
    let node = text(&leg["spec"]["node"]).to_owned();
    let load = Load::new("half", 512);
    let path = half.attach(&node, false)?;
    load.write(lab, &node, &path, 20)?;
    load.verify(lab, &node, &node, &path)?;
    half.detach()?;
    bare.delete()?;
    half.delete()
}

/// I5: the same two, deleted before anybody could finish them, go without a trace (the runner looks for partitions).
fn cleaned(lab: &mut Lab) -> Result<()> {
    let legs = trial(lab, "half", 2)?;
    lab.kill_operator()?;
    lab.control.api.create(&all("meshvolumes"), &volume_object("bare", 1))?;
    first_leg_only(lab, "half", &legs[0])?;
    wait_for("the daemon to prepare the leg", secs(60), || {
        let leg = lab.control.api.get(&ours("meshreplicas", "half-0"))?;
        Ok(when(leg["status"]["partition"]["blank"] == true, leg["status"].to_string()))
    })?;
    let (bare, half) = (Volume::named(lab, "bare"), Volume::named(lab, "half"));
    bare.delete_only()?;
    half.delete_only()?;
    for volume in [&bare, &half] {
        ensure!(volume.object()?["metadata"]["deletionTimestamp"].is_string(), "{} went by itself", volume.name);
    }
    lab.start_operator()?;
    Volume::named(lab, "bare").wait_gone()?;
    Volume::named(lab, "half").wait_gone()
}

/// I8: an attachment of that name with another owner is refused and not touched; when it goes, the volume comes.
fn foreign_attachment(lab: &mut Lab) -> Result<()> {
    let node = lab.control.api.get("/api/v1/nodes/n1")?;
    let owner = json!({ "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": node["metadata"]["uid"] });
    let attachment = json!({
        "apiVersion": "meshstor.io/v1alpha1", "kind": "MeshAttachment",
        "metadata": { "name": "taken", "ownerReferences": [owner] }, "spec": {},
    });
    let before = lab.control.api.create(&all("meshattachments"), &attachment)?;
    lab.control.api.create(&all("meshvolumes"), &volume_object("taken", 1))?;
    let volume = Volume::named(lab, "taken");
    let seen = volume.wait("to be refused", secs(30), |v| condition(v, "Stalled")["reason"] == "Conflict")?;
    let message = text(&condition(&seen, "Ready")["message"]).to_owned();
    ensure!(message.contains("MeshAttachment taken exists that is not this volume's"), "{message}");
    let now = volume.attachment()?;
    ensure!(now["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"], "it was touched: {now}");
    lab.control.api.delete(&ours("meshattachments", "taken"))?;
    volume.wait_ready()?;
    volume.delete()
}

/// A partition and an export that are ours by their kind, but of no `MeshReplica`, may be worth something to somebody: a daemon
/// tells of them and leaves them alone. A port of ours without an export is worth nothing, and goes with the next export's end.
fn strays(lab: &mut Lab) -> Result<()> {
    let legs = trial(lab, "beside-strays", 2)?;
    let (node, other) = (text(&legs[0]["spec"]["node"]).to_owned(), text(&legs[1]["spec"]["node"]).to_owned());
    let (drive, uuid) = (drive_of(lab, &legs[0])?, Uuid::new_v4());
    lab.guest(&node)?.kill_daemon()?;
    let made = partition(lab, &node, &drive, uuid, 8, "stray")?;
    let nqn = naming::export_nqn(&uuid.to_string(), 1, 1);
    let (subsystems, ports) = ("/sys/kernel/config/nvmet/subsystems", "/sys/kernel/config/nvmet/ports");
    lab.guest(&node)?.shell(&format!("mkdir {subsystems}/{nqn} {ports}/42999"))?;
    lab.start_daemon(&node)?;
    for stray in [format!("partition/{uuid}"), format!("export/{nqn}")] {
        wait_for_item(lab, &node, &stray, |_| true)?;
    }

    let volume = Volume::create(lab, "beside-strays", &volume_object("", 2)["spec"])?;
    volume.attach(&other, false)?;
    volume.detach()?;
    volume.delete()?;
    let script = format!("head -c 5 /dev/{made}; ls {subsystems} {ports}");
    let left = lab.guest(&node)?.shell(&script)?;
    ensure!(left.starts_with("stray") && left.contains(&nqn), "a stray was touched: {left}");
    ensure!(!left.contains("42999"), "the empty port is there still: {left}");
    let number = made.trim_start_matches(&drive);
    lab.guest(&node)?.shell(&format!(
        "rmdir {subsystems}/{nqn} && partx --delete --nr {number} /dev/{drive} && sgdisk --delete={number} /dev/{drive}"
    ))?;
    wait_for_none(lab, &node)
}

/// I4: the object of a node whose daemon runs is made again by it, with all that it said; the volumes there do not notice.
fn deleted_node(lab: &mut Lab) -> Result<()> {
    let spec = json!({ "capacity": "64Mi", "replicaCount": 2, "filesystem": "none" });
    let volume = Volume::create(lab, "on-a-node", &spec)?;
    let node = volume.leg_nodes()?.remove(0);
    let load = Load::new("on-a-node", 512);
    let path = volume.attach(&node, false)?;
    load.start(lab, &node, &path)?;
    let term = volume.attachment()?["status"]["term"].clone();
    let before = lab.control.api.get(&ours("meshnodes", &node))?;
    lab.control.api.delete(&ours("meshnodes", &node))?;
    wait_for(&format!("MeshNode {node} to be made again"), secs(60), || {
        let seen = lab.control.api.find(&ours("meshnodes", &node))?.unwrap_or_default();
        let new = seen["metadata"]["uid"] != before["metadata"]["uid"] && is_true(&seen, "Ready");
        let whole = seen["status"]["hostNqn"] == before["status"]["hostNqn"]
            && seen["status"]["drives"].as_array().map(Vec::len) == before["status"]["drives"].as_array().map(Vec::len);
        Ok(when(new && whole, seen.to_string()))
    })?;
    load.wait_for_progress(lab, &node, 20, secs(60))?;
    volume.wait_ready()?;
    ensure!(volume.attachment()?["status"]["term"] == term, "the record changed: {}", volume.attachment()?);
    load.stop(lab, &node)?;
    load.verify(lab, &node, &node, &path)?;
    volume.detach()?;
    volume.delete()
}
