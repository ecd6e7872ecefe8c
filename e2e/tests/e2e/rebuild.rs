//! Everything lost but the disks: etcd begins empty, and volumes are made again from what their legs say.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use meshstor_e2e::api::{all, ours};
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::say;
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::{secs, wait_for, when};
use serde_json::{Value, json};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[("everything_lost_but_the_disks", everything_lost)];

/// I1, I6: after the loss of etcd two volumes are made again from their legs alone, and every flushed write is there; a leg that was
/// away when the last of them were written is rebuilt and not started from. A dry run changes nothing.
fn everything_lost(lab: &mut Lab) -> Result<()> {
    let (striped_on, striped) = striped(lab)?;
    let (stale_on, away, stale) = stale(lab)?;
    let before = arrays(lab, &["striped", "stale"])?;
    lab.lose_etcd()?;
    ensure!(lab.control.api.list(&all("meshvolumes"))?.is_empty(), "etcd was not lost");
    wait_for("six partitions to be in quarantine", secs(90), || {
        let found = partitions(lab)?;
        Ok(when(found.len() == 6, format!("{found:?}")))
    })?;

    let said = meshstor(lab, &["--volume", "stale", "--filesystem", "ext4"])?;
    say!("{said}");
    ensure!(said.contains("called missing by"), "the leg that was away is not told of: {said}");
    ensure!(meshstor(lab, &[]).is_err(), "a volume was taken over although nobody said what it holds");
    for kind in ["meshvolumes", "meshattachments", "meshreplicas"] {
        ensure!(lab.control.api.list(&all(kind))?.is_empty(), "a dry run made {kind}");
    }

    say!("{}", meshstor(lab, &["--volume", "stale", "--filesystem", "ext4", "--apply"])?);
    say!("{}", meshstor(lab, &["--volume", "striped", "--filesystem", "none", "--apply"])?);
    let again = meshstor(lab, &["--apply"])?;
    ensure!(again.contains("Nothing was found"), "something was left: {again}");
    let volume = Volume::named(lab, "stale");
    let term = volume.attachment()?["status"]["term"].clone();
    let legs = term["inSync"].as_array().cloned().unwrap_or_default();
    ensure!(legs.len() == 1 && legs[0] != *away, "S has the leg that was away: {term}");
    check(lab, "striped", &striped, &striped_on, false)?;
    // On the node of the leg that was away: what is read comes from the other.
    let nodes = volume.leg_nodes();
    let there = |nodes: Vec<String>| nodes.into_iter().find(|node| *node != stale_on);
    let second = nodes.ok().and_then(there).context("the volume has a second leg")?;
    let path = volume.attach(&second, true)?;
    say!("stale: {}", stale.verify(lab, &stale_on, &second, &path)?);
    volume.wait_whole(2)?;
    // The leg that was rebuilt holds everything by itself.
    volume.detach()?;
    ensure!(arrays(lab, &["striped", "stale"])? == before, "an array was made anew");
    let path = volume.attach(&stale_on, true)?;
    stale.write(lab, &stale_on, &path, 50)?;
    stale.verify(lab, &stale_on, &stale_on, &path)?;
    volume.detach()?;
    volume.delete()?;
    Volume::named(lab, "striped").delete()
}

/// Two copies over two drives each, raw, written to and detached.
fn striped(lab: &Lab) -> Result<(String, Load)> {
    let spec = json!({ "capacity": "192Mi", "replicaCount": 2, "stripeWidth": 2, "filesystem": "none" });
    let volume = Volume::create(lab, "striped", &spec)?;
    let consumer = volume.leg_nodes()?.first().cloned().context("it has legs")?;
    let device = volume.attach(&consumer, false)?;
    let load = Load::new("striped", 4096);
    load.write(lab, &consumer, &device, 100)?;
    volume.detach()?;
    closed(lab, "striped")?;
    Ok((consumer, load))
}

/// Two copies of which one is away when the last is written; the leg that was.
fn stale(lab: &mut Lab) -> Result<(String, String, Load)> {
    let spec = json!({ "capacity": "128Mi", "replicaCount": 2, "filesystem": "ext4" });
    let volume = Volume::create(lab, "stale", &spec)?;
    let nodes = volume.leg_nodes()?;
    let [consumer, target] = nodes.as_slice() else { anyhow::bail!("two legs, but {nodes:?}") };
    let (consumer, target) = (consumer.clone(), target.clone());
    let away = volume.leg_on(&target)?;
    let path = volume.attach(&consumer, true)?;
    let load = Load::new("stale", 2048);
    load.start(lab, &consumer, &path)?;
    load.wait_for_progress(lab, &consumer, 50, secs(60))?;
    lab.guest_mut(&target)?.cut_power()?;
    let volume = Volume::named(lab, "stale");
    let out = |at: &Value| at["status"]["term"]["inSync"].as_array().is_some_and(|legs| legs.len() == 1);
    volume.wait_attachment("to have recorded the leg away", secs(60), out)?;
    load.wait_for_progress(lab, &consumer, 100, secs(60))?;
    load.stop(lab, &consumer)?;
    volume.detach()?;
    lab.guest_mut(&target)?.power_on()?;
    lab.guest_mut(&target)?.wait_until_up()?;
    Ok((consumer, away, load))
}

/// Waits until no leg of a volume is exported any more.
fn closed(lab: &Lab, volume: &str) -> Result<()> {
    wait_for(&format!("the exports of {volume} to be closed"), secs(60), || {
        let legs = lab.control.api.list(&all("meshreplicas"))?;
        let open = legs.iter().filter(|l| l["spec"]["volume"] == volume && !l["status"]["export"].is_null());
        let open: Vec<String> = open.map(|l| l["metadata"]["name"].to_string()).collect();
        Ok(when(open.is_empty(), open.join(", ")))
    })
}

/// Attached elsewhere, every flushed write is there.
fn check(lab: &Lab, name: &str, load: &Load, writer: &str, mount: bool) -> Result<()> {
    let volume = Volume::named(lab, name);
    volume.wait_ready()?;
    let other = lab.nodes().into_iter().find(|node| *node != writer).context("there is another node")?;
    let path = volume.attach(&other, mount)?;
    say!("{name}: {}", load.verify(lab, writer, &other, &path)?);
    volume.wait_whole(2)?;
    volume.detach()
}

/// Array UUIDs by the superblocks of all legs of `volumes`, sorted.
fn arrays(lab: &Lab, volumes: &[&str]) -> Result<Vec<String>> {
    let mut uuids = Vec::new();
    for guest in lab.guests() {
        for volume in volumes {
            let script = format!(
                "for p in /dev/ubd*[0-9]; do mdadm --examine $p 2>/dev/null | grep -A1 'Name : meshstor:{volume}' >/dev/null \
                 && mdadm --examine $p | awk -v v={volume} '/Array UUID/ {{ print v, $4 }}'; done; true"
            );
            uuids.extend(guest.shell(&script)?.lines().map(str::to_owned));
        }
    }
    uuids.sort();
    ensure!(uuids.len() == 6, "six legs, but {uuids:?}");
    Ok(uuids)
}

/// What is in quarantine, on all nodes.
fn partitions(lab: &Lab) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for node in lab.nodes() {
        let object = lab.control.api.get(&ours("meshnodes", &node))?;
        let items = object["status"]["quarantine"].as_array().cloned().unwrap_or_default();
        let partitions = items.iter().filter(|i| i["kind"] == "Partition");
        found.extend(partitions.map(|i| format!("{node}: {} {}", i["label"], i["inUse"])));
    }
    Ok(found)
}

/// `meshstor rebuild-objects`, as a person runs it; what it prints.
fn meshstor(lab: &Lab, args: &[&str]) -> Result<String> {
    let mut command = Command::new(lab.prerequisites().bins.join("meshstor"));
    let answer = command.arg("rebuild-objects").args(args).env("KUBECONFIG", &lab.control.admin).output()?;
    let said = [answer.stdout, answer.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    ensure!(answer.status.success(), "meshstor rebuild-objects {}: {said}", args.join(" "));
    Ok(said)
}
