//! What belongs to no object, made by hand: told of, kept, and gone when a person names it. Connections that nobody uses go by themselves.

use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use meshstor_crds::naming;
use meshstor_e2e::api::{all, condition, ours};
use meshstor_e2e::guest::Guest;
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::say;
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::{Look, pause, secs, wait_for, when};
use rustix::process::Signal;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("litter_made_by_hand_is_kept_until_it_is_named", litter),
    ("legs_without_objects_are_kept_until_they_are_named", orphans),
];

/// GPT type of a leg's partition.
const LEG_TYPE: &str = "aa599589-36cc-4892-96fe-e70004a710b3";
/// TCP port of the export that is made by hand, the last of the daemons' range.
const PORT: u16 = 42999;

/// What is in quarantine on a node.
pub(crate) fn quarantine(lab: &Lab, node: &str) -> Result<Vec<Value>> {
    let object = lab.control.api.get(&ours("meshnodes", node))?;
    Ok(object["status"]["quarantine"].as_array().cloned().unwrap_or_default())
}

/// Waits until a node's quarantine has `id`, as `wanted`.
pub(crate) fn wait_for_item(lab: &Lab, node: &str, id: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    wait_for(&format!("{id} to be in quarantine on {node}"), secs(60), || {
        let items = quarantine(lab, node)?;
        let found = items.iter().find(|item| item["id"] == *id && wanted(item));
        Ok(found.map_or_else(|| Look::NotYet(format!("{items:?}")), |item| Look::Done(item.clone())))
    })
}

/// Waits until nothing is in quarantine on a node, and its object says so.
pub(crate) fn wait_for_none(lab: &Lab, node: &str) -> Result<()> {
    wait_for(&format!("nothing to be in quarantine on {node}"), secs(60), || {
        let object = lab.control.api.get(&ours("meshnodes", node))?;
        let owned = condition(&object, "EverythingOwned")["status"] == "True";
        Ok(when(owned && object["status"]["quarantine"].is_null(), object["status"].to_string()))
    })
}

/// `meshstor quarantine`, as a person runs it; whether it succeeded, and what it prints.
fn meshstor(lab: &Lab, args: &[&str]) -> Result<(bool, String)> {
    let mut command = Command::new(lab.prerequisites().bins.join("meshstor"));
    let answer = command.arg("quarantine").args(args).env("KUBECONFIG", &lab.control.admin).output()?;
    let said = [answer.stdout, answer.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    say!("meshstor quarantine {}: {said}", args.join(" "));
    Ok((answer.status.success(), said))
}

fn wipe(lab: &Lab, node: &str, id: &str) -> Result<()> {
    let (dry, said) = meshstor(lab, &["wipe", node, id])?;
    ensure!(dry && said.contains("--yes"), "a dry run failed: {said}");
    wait_for_item(lab, node, id, |_| true)?;
    let (done, said) = meshstor(lab, &["wipe", node, id, "--yes"])?;
    ensure!(done && said.contains("It is gone"), "{said}");
    Ok(())
}

/// A partition of a leg's type, made as a person would; gives its kernel name.
fn partition(guest: &Guest, drive: &str, uuid: Uuid, content: &str) -> Result<String> {
    let script = format!(
        "set -e
        sgdisk --set-alignment=2048 --new=0:0:+16M --change-name=0:{content}-0 --typecode=0:{LEG_TYPE} /dev/{drive} >/dev/null
        number=$(sgdisk --print /dev/{drive} | awk '$NF == \"{content}-0\" {{ print $1 }}')
        sgdisk --partition-guid=$number:{uuid} /dev/{drive} >/dev/null
        [ -e /sys/class/block/{drive}$number ] || partx --add --nr $number /dev/{drive}
        yes {content} | dd of=/dev/{drive}$number bs=1M count=16 iflag=fullblock oflag=direct status=none
        echo {drive}$number"
    );
    Ok(guest.shell(&script)?.trim().to_owned())
}

/// A volume at work beside it all: gives it with its load and its consumer.
fn neighbour<'a>(lab: &'a Lab, name: &str) -> Result<(Volume<'a>, Load, String, String, String)> {
    let volume = Volume::create(lab, name, &json!({ "capacity": "64Mi", "replicaCount": 2, "filesystem": "ext4" }))?;
    let legs = volume.leg_nodes()?;
    let [consumer, target] = legs.as_slice() else { bail!("two legs, but {legs:?}") };
    let path = volume.attach(consumer, true)?;
    let load = Load::new(name, 1024);
    load.start(lab, consumer, &path)?;
    Ok((volume, load, consumer.clone(), target.clone(), path))
}

/// The neighbour wrote on all the time, and every flushed write of it is there, read on its other node.
fn whole(lab: &Lab, (volume, load, consumer, target, _): (Volume<'_>, Load, String, String, String)) -> Result<()> {
    load.wait_for_progress(lab, &consumer, 20, secs(60))?;
    load.stop(lab, &consumer)?;
    ensure!(condition(&volume.object()?, "Degraded")["status"] == "False", "the neighbour lost a leg");
    volume.detach()?;
    let path = volume.attach(&target, true)?;
    load.verify(lab, &consumer, &target, &path)?;
    volume.detach()?;
    volume.delete()
}

/// I1, I8: a partition, an array, an export and a connection that somebody made are told of; nothing of them is erased or changed by
/// itself, nor what is in use by command; named and unused they go, and a volume beside them does not notice.
fn litter(lab: &mut Lab) -> Result<()> {
    let beside = neighbour(lab, "beside-litter")?;
    let (here, there) = (beside.2.clone(), beside.3.clone());
    let (near, far) = (lab.guest(&here)?, lab.guest(&there)?);
    let (plain, member, exported) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    let made = partition(near, "ubda", plain, "litter")?;
    let part = partition(near, "ubda", member, "member")?;
    let back = partition(far, "ubda", exported, "backing")?;
    // The bytes where a superblock is, and behind it, are somebody's.
    let array = array(near, &part)?;
    let nqn = naming::export_nqn(&Uuid::new_v4().to_string(), 1, 1);
    let device = connect(near, far, &nqn, &back)?;
    near.shell(&format!("sleep 1000 < {device} > /dev/null 2>&1 & echo $! > /run/holder; sleep 1000 < /dev/md178 > /dev/null 2>&1 & echo $! > /run/user"))?;

    let [a, c, e] = [format!("array/{array}"), format!("connection/{nqn}"), format!("export/{nqn}")];
    let [p, m, b] = [plain, member, exported].map(|uuid| format!("partition/{uuid}"));
    let unread = wait_for_item(lab, &here, &p, |item| item["inUse"].is_null())?;
    ensure!(unread["label"] == "litter-0" && unread["leg"]["arrayUuid"].is_null(), "{unread}");
    let told = wait_for_item(lab, &here, &m, |item| !item["inUse"].is_null())?;
    ensure!(told["leg"]["arrayUuid"] == array && told["leg"]["slots"] == 2 && told["volume"] == "member", "{told}");
    for (node, id) in [(&here, &a), (&here, &c), (&there, &e), (&there, &b)] {
        wait_for_item(lab, node, id, |item| !item["inUse"].is_null())?;
        let (done, said) = meshstor(lab, &["wipe", node, id, "--yes"])?;
        ensure!(!done && said.contains("in use"), "what is in use was named: {said}");
    }
    // A person who writes the spec by hand is refused by the daemon.
    let names = |ids: &[&str]| json!({ "spec": { "wipe": ids } });
    lab.control.api.merge(&ours("meshnodes", &here), &names(&[&a, &m]))?;
    for id in [&a, &m] {
        wait_for_item(lab, &here, id, |item| {
            item["message"].as_str().is_some_and(|t| t.starts_with("not wiped: it is in use"))
        })?;
    }
    lab.control.api.merge(&ours("meshnodes", &here), &names(&[]))?;
    let bad = lab.control.api.merge(&ours("meshnodes", &here), &names(&["partition/all"]));
    ensure!(bad.is_err_and(|e| format!("{e:#}").contains("spec.wipe: each must be an id")), "any id was taken");
    let bytes = near.shell(&format!("head -c 6 /dev/{made}; grep -c 'md178 : active' /proc/mdstat; ls {device}"))?;
    ensure!(bytes.starts_with("litter1") && bytes.contains(&device), "something was touched: {bytes}");

    near.shell("kill $(cat /run/holder)")?;
    wait_for("the connection to go by itself", secs(60), || {
        let left = near.shell(&format!("grep -lx {nqn} /sys/class/nvme/*/subsysnqn || true"))?;
        Ok(when(left.trim().is_empty(), left))
    })?;
    near.shell("kill $(cat /run/user)")?;
    wait_for_item(lab, &here, &a, |item| item["inUse"].is_null())?;
    wait_for_item(lab, &there, &e, |item| item["inUse"].is_null())?;
    for (node, id) in [(&here, &a), (&here, &m), (&here, &p), (&there, &e), (&there, &b)] {
        wait_for_item(lab, node, id, |_| true)?;
        wait_until_unused(lab, node, id)?;
        wipe(lab, node, id)?;
    }
    wait_for_none(lab, &here)?;
    wait_for_none(lab, &there)?;
    told_of(lab, &["Quarantined", "WipeRefused", "Wiped", "Released"])?;
    whole(lab, beside)
}

/// Who used it is seen to be gone at the next look.
fn wait_until_unused(lab: &Lab, node: &str, id: &str) -> Result<()> {
    // No event tells that a file was closed: what is told of anything makes the daemon look.
    let guest = lab.guest(node)?;
    wait_for(&format!("{id} to be unused"), secs(60), || {
        guest.shell("for d in /sys/block/ubda/ubda*/uevent; do echo change > $d; done")?;
        pause(secs(3));
        let items = quarantine(lab, node)?;
        Ok(when(items.iter().any(|i| i["id"] == *id && i["inUse"].is_null()), format!("{items:?}")))
    })
}

/// An array under a name of ours over a partition; gives its UUID.
fn array(guest: &Guest, part: &str) -> Result<String> {
    let script = format!(
        "mdadm --create /dev/md178 --run --metadata=1.2 --level=1 --raid-devices=2 --bitmap=internal --homehost=meshstor --name=meshstor:member \
         --assume-clean /dev/{part} missing >&2
        cat /sys/block/md178/md/uuid"
    );
    Ok(guest.shell(&script)?.trim().to_owned())
}

/// An export under one of our names of a partition of `far`, and a connection of `near` to it; gives the device.
fn connect(near: &Guest, far: &Guest, nqn: &str, part: &str) -> Result<String> {
    let ip = far.machine.ip;
    far.shell(&format!(
        "set -e; cd /sys/kernel/config/nvmet
        mkdir subsystems/{nqn}; echo 1 > subsystems/{nqn}/attr_allow_any_host
        mkdir subsystems/{nqn}/namespaces/1; echo /dev/{part} > subsystems/{nqn}/namespaces/1/device_path; echo 1 > subsystems/{nqn}/namespaces/1/enable
        mkdir ports/{PORT}; cd ports/{PORT}
        echo tcp > addr_trtype; echo ipv4 > addr_adrfam; echo {ip} > addr_traddr; echo {PORT} > addr_trsvcid
        ln -s ../../subsystems/{nqn} subsystems/{nqn}"
    ))?;
    near.shell(&format!("nvme connect -t tcp -a {ip} -s {PORT} -n {nqn} -i 1"))?;
    let find = format!(
        "for s in /sys/class/nvme-subsystem/*; do [ \"$(cat $s/subsysnqn)\" = {nqn} ] && ls $s | grep -x 'nvme[0-9]*n[0-9]*'; done; true"
    );
    wait_for("the device of the connection", secs(20), || {
        let name = near.shell(&find)?.trim().to_owned();
        let there = !name.is_empty() && near.shell(&format!("[ -b /dev/{name} ]")).is_ok();
        Ok(if there { Look::Done(format!("/dev/{name}")) } else { Look::NotYet(name) })
    })
}

/// Events with each of the reasons were published about nodes.
fn told_of(lab: &Lab, reasons: &[&str]) -> Result<()> {
    let events = lab.control.api.list("/apis/events.k8s.io/v1/events")?;
    let told = |reason: &str| events.iter().any(|e| e["reason"] == *reason && e["regarding"]["kind"] == "MeshNode");
    let missing: Vec<&str> = reasons.iter().copied().filter(|reason| !told(reason)).collect();
    ensure!(missing.is_empty(), "no event says {missing:?}");
    Ok(())
}

/// I1: a volume whose objects are taken away by force while it runs, runs on; what is left of it says what it was, and goes when a
/// person names it.
fn orphans(lab: &mut Lab) -> Result<()> {
    let beside = neighbour(lab, "beside-orphans")?;
    let spec = json!({ "capacity": "64Mi", "replicaCount": 2, "filesystem": "ext4" });
    let volume = Volume::create(lab, "orphan", &spec)?;
    let legs = volume.leg_nodes()?;
    let (consumer, target) = (legs[0].clone(), legs[1].clone());
    let path = volume.attach(&consumer, true)?;
    let load = Load::new("orphan", 1024);
    load.start(lab, &consumer, &path)?;
    load.wait_for_progress(lab, &consumer, 20, secs(60))?;
    lab.operator()?.signal(Signal::STOP)?;
    let removed = remove_by_force(lab, &["orphan-0", "orphan-1"], "orphan");
    lab.operator()?.signal(Signal::CONT)?;
    removed?;
    for node in [&consumer, &target] {
        wait_for(&format!("a leg to be in quarantine on {node}"), secs(90), || {
            let items = quarantine(lab, node)?;
            let leg = |i: &Value| i["kind"] == "Partition" && i["volume"] == "orphan" && !i["inUse"].is_null();
            Ok(when(items.iter().any(leg), format!("{items:?}")))
        })?;
    }
    load.wait_for_progress(lab, &consumer, 20, secs(60))?;
    load.stop(lab, &consumer)?;
    load.verify(lab, &consumer, &consumer, &path)?;
    lab.guest(&consumer)?.shell(&format!("umount {path}"))?;
    for (node, kind) in
        [(&consumer, "array/"), (&target, "export/"), (&target, "partition/"), (&consumer, "partition/")]
    {
        let items = wait_for(&format!("a {kind} on {node}"), secs(30), || {
            let items = quarantine(lab, node)?;
            let found = items.iter().find(|i| i["id"].as_str().is_some_and(|id| id.starts_with(kind))).cloned();
            Ok(found.map_or_else(|| Look::NotYet(format!("{items:?}")), Look::Done))
        })?;
        let id = items["id"].as_str().context("an item has an id")?.to_owned();
        wait_until_unused(lab, node, &id)?;
        wipe(lab, node, &id)?;
    }
    wait_for_none(lab, &consumer)?;
    wait_for_none(lab, &target)?;
    whole(lab, beside)
}

/// Objects go whatever holds them.
fn remove_by_force(lab: &Lab, legs: &[&str], volume: &str) -> Result<()> {
    // The record first: its consumer must not see it without its legs.
    let mut paths = vec![ours("meshattachments", volume)];
    paths.extend(legs.iter().map(|leg| ours("meshreplicas", leg)));
    paths.push(ours("meshvolumes", volume));
    for path in &paths {
        lab.control.api.merge(path, &json!({ "metadata": { "finalizers": null } }))?;
        lab.control.api.delete(path)?;
    }
    let left = lab.control.api.list(&all("meshreplicas"))?;
    ensure!(left.iter().all(|leg| leg["spec"]["volume"] != *volume), "a leg is there still");
    Ok(())
}
