//! Legs that are replaced: for good, while they are in use, and the only one.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use meshstor_e2e::api::{condition, ours};
use meshstor_e2e::bed::DATA;
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::say;
use meshstor_e2e::timeline::record_writes;
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::{pause, secs};
use serde_json::{Value, json};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("target_gone_for_good_is_replaced", target_gone),
    ("leg_in_use_gives_way_without_a_degraded_window", |lab| gives_way(lab, "gives-way", 1)),
    ("leg_of_a_stripe_gives_way_without_a_degraded_window", |lab| gives_way(lab, "gives-way-2", 2)),
    ("single_copy_moves_under_load", single_copy),
];

/// Room on each drive that is written to before a leg is placed there, in MiB: more than the largest leg here.
const SOILED_MIB: u64 = 256;

/// Names of the volume's legs and the nodes that hold them.
fn legs(volume: &Volume<'_>) -> Result<BTreeMap<String, String>> {
    let object = volume.object()?;
    let legs = object["status"]["legs"].as_array().cloned().unwrap_or_default();
    let pair = |leg: &Value| Some((leg["name"].as_str()?.to_owned(), leg["node"].as_str()?.to_owned()));
    Ok(legs.iter().filter_map(pair).collect())
}

/// Waits until the volume has exactly these legs, all in sync.
fn wait_for_legs(volume: &Volume<'_>, names: &[&str]) -> Result<()> {
    let all = |object: &Value| {
        let legs = object["status"]["legs"].as_array().cloned().unwrap_or_default();
        let whole = legs.iter().all(|leg| leg["state"] == "InSync");
        whole && legs.len() == names.len() && legs.iter().all(|leg| names.iter().any(|name| leg["name"] == *name))
    };
    volume.wait(&format!("to have the legs {names:?} in sync"), secs(240), all).map(drop)
}

fn ask_to_leave(lab: &Lab, leg: &str) -> Result<()> {
    lab.kubectl(&["patch", "mrep", leg, "--type=merge", "-p", r#"{"spec":{"replace":true}}"#]).map(drop)
}

/// I1, rule 8: a leg whose node stays away gives its place to another, which then has every write; it is wiped when its node is
/// back, and not before.
fn target_gone(lab: &mut Lab) -> Result<()> {
    let name = "for-good";
    lab.apply(&json!({
        "apiVersion": "meshstor.io/v1alpha1", "kind": "ReplicaSetPolicy", "metadata": { "name": "impatient" },
        "spec": { "missingMemberTimeoutSeconds": 5 },
    }))?;
    let load = Load::new(name, 2048);
    let spec = json!({ "capacity": "128Mi", "replicaCount": 2, "filesystem": "ext4", "policy": "impatient" });
    let volume = Volume::create(lab, name, &spec)?;
    let nodes = volume.leg_nodes()?;
    let [consumer, target] = nodes.as_slice() else { anyhow::bail!("two legs, but {nodes:?}") };
    let path = volume.attach(consumer, true)?;
    load.start(lab, consumer, &path)?;
    load.wait_for_progress(lab, consumer, 50, secs(60))?;
    let old = volume.leg_on(target)?;

    lab.guest_mut(target)?.cut_power()?;
    let volume = Volume::named(lab, name);
    let away = |v: &Value| {
        let legs = v["status"]["legs"].as_array().cloned().unwrap_or_default();
        legs.iter().any(|leg| leg["name"] == *old && leg["missingSince"].is_string())
    };
    volume.wait("to say since when the leg is away", secs(180), away)?;
    let said = volume.wait("to have both copies in sync again", secs(240), |v| v["status"]["copies"] == "2/2")?;
    say!("Replacing: {}", condition(&said, "Replacing")["message"]);
    let all = legs(&volume)?;
    let (heir, home) = all.iter().find(|(leg, _)| leg.contains('.')).context("there is an heir")?;
    ensure!(home != target && home != consumer, "{heir} was placed on {home}");
    let retired = &volume.attachment()?["status"]["term"]["retired"];
    ensure!(retired == &json!([old]), "retired is {retired}");
    load.wait_for_progress(lab, consumer, 50, secs(60))?;
    load.stop(lab, consumer)?;

    // On its node the new leg is the one that is read.
    volume.detach()?;
    let path = volume.attach(home, true)?;
    say!("the new leg: {}", load.verify(lab, consumer, home, &path)?);
    let waits = lab.control.api.find(&ours("meshreplicas", &old))?.context("the old leg waits for its node")?;
    ensure!(waits["metadata"]["deletionTimestamp"].is_string(), "the old leg is not deleted");

    let (consumer, home, heir) = (consumer.clone(), home.clone(), heir.clone());
    lab.power_on(target)?;
    let volume = Volume::named(lab, name);
    let kept = volume.leg_on(&consumer)?;
    wait_for_legs(&volume, &[&kept, &heir])?;
    ensure!(lab.control.api.find(&ours("meshreplicas", &old))?.is_none(), "the old leg was not wiped");
    load.verify(lab, &consumer, &home, &path)?;
    volume.detach()?;
    volume.delete()?;
    lab.control.api.delete(&ours("replicasetpolicies", "impatient"))
}

/// Samples `degraded` and `suspend_hi` of every array of ours on `node` until the file `<name>.sampled` is there.
fn sample(lab: &Lab, node: &str, name: &str) -> Result<()> {
    let script = format!(
        "until [ -e /run/share/{name}.sampled ]; do for md in /sys/block/md1*/md; do read d < $md/degraded; \
         read s < $md/suspend_hi; echo $d $s; done; sleep 0.02; done > /run/share/{name}.samples 2>&1"
    );
    lab.guest(node)?.spawn(&["sh", "-c", &script], BTreeMap::new(), "sampler.log").map(drop)
}

/// What was sampled: how often, whether it was ever degraded, and whether writes were ever held.
fn samples(lab: &Lab, node: &str, name: &str) -> Result<(usize, bool, bool)> {
    let share = &lab.guest(node)?.machine.share;
    std::fs::write(share.join(format!("{name}.sampled")), "")?;
    pause(secs(1));
    let text = std::fs::read_to_string(share.join(format!("{name}.samples")))?;
    let pairs: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    Ok((pairs.len(), pairs.iter().any(|(d, _)| *d != "0"), pairs.iter().any(|(_, s)| *s != "0")))
}

/// Writes what no volume has written all over the free room of a node's drives where the next leg may go.
fn soil(lab: &Lab, node: &str) -> Result<()> {
    let seen = lab.control.api.get(&ours("meshnodes", node))?;
    for drive in seen["status"]["drives"].as_array().context("it has drives")? {
        let (path, extent) = (drive["path"].as_str().context("a path")?, &drive["freeExtents"][0]);
        let mib = |field: &str| extent[field].as_u64().map(|bytes| bytes >> 20).context("a free extent");
        let (first, size) = (mib("firstByte")?, mib("sizeBytes")?.min(SOILED_MIB));
        let script = format!(
            "tr '\\0' '\\252' < /dev/zero | dd of={path} bs=1M seek={first} count={size} iflag=fullblock oflag=direct conv=notrunc status=none"
        );
        lab.guest(node)?.shell(&script)?;
    }
    Ok(())
}

/// Checksum of so many KiB of a leg's data, as they lie on its drive.
fn on_drive(lab: &Lab, leg: &str, kib: u64) -> Result<String> {
    let replica = lab.control.api.get(&ours("meshreplicas", leg))?;
    let node = replica["spec"]["node"].as_str().context("it has a node")?;
    let first = replica["status"]["partition"]["firstByte"].as_u64().context("it has a partition")?;
    let seen = lab.control.api.get(&ours("meshnodes", node))?;
    let drive =
        seen["status"]["drives"].as_array().and_then(|all| all.iter().find(|d| d["id"] == replica["spec"]["drive"]));
    let path = drive.and_then(|drive| drive["path"].as_str()).context("its drive is there")?;
    let script = format!(
        "dd if={path} bs=1M skip={} count={} iflag=direct status=none | sha256sum",
        (first >> 20) + DATA,
        kib >> 10
    );
    Ok(lab.guest(node)?.shell(&script)?.trim().to_owned())
}

/// I1, I3: the leg goes on being used until another has everything; no copy is missing at any time, in the kernel or in the
/// record, and the change of one for the other is one write of the record.
fn gives_way(lab: &mut Lab, name: &str, width: u32) -> Result<()> {
    let load = Load::new(name, 2048);
    let spec = json!({ "capacity": "192Mi", "replicaCount": 2, "stripeWidth": width, "filesystem": "ext4" });
    let volume = Volume::create(lab, name, &spec)?;
    let before = legs(&volume)?;
    let (kept, consumer) = before.iter().next().context("a first leg")?;
    let old = format!("{name}-1");
    let path = volume.attach(consumer, true)?;
    load.start(lab, consumer, &path)?;
    load.wait_for_progress(lab, consumer, 50, secs(60))?;
    sample(lab, consumer, name)?;
    lab.nodes().iter().try_for_each(|node| soil(lab, node))?;

    ask_to_leave(lab, &old)?;
    let heir = format!("{old}.1");
    let mut wanted: Vec<&str> = before.keys().map(String::as_str).filter(|leg| *leg != old).collect();
    wanted.push(&heir);
    wait_for_legs(&volume, &wanted)?;
    load.wait_for_progress(lab, consumer, 50, secs(60))?;
    let (count, degraded, held) = samples(lab, consumer, name)?;
    load.stop(lab, consumer)?;
    let longest = load.journal(lab, consumer)?.longest().context("the writer flushed")?;
    say!("{count} samples; the longest write took {:?}", longest.ended.duration_since(longest.began));
    ensure!(count > 20 && !degraded, "{count} samples, degraded: {degraded}");
    ensure!(held, "the writes were never held: the kernel changed its members before it was recorded");

    let writes = record_writes(&lab.control.audit, name)?;
    let has = |term: &Value, leg: &str| term["inSync"].as_array().is_some_and(|all| all.iter().any(|l| l == leg));
    let sizes = writes.iter().map(|w| w.term["inSync"].as_array().map_or(0, Vec::len));
    ensure!(sizes.min() == Some(before.len()), "a copy was missing in the record");
    ensure!(writes.iter().all(|w| has(&w.term, &old) != has(&w.term, &heir)), "it was not one write");

    let home = legs(&volume)?[&heir].clone();
    let array =
        volume.attachment()?["status"]["array"]["device"].as_str().context("an array")?.replace("/dev/", "/sys/block/");
    let size = lab.guest(consumer)?.shell(&format!("cat {array}/md/component_size"))?;
    volume.detach()?;
    let kib = size.trim().parse()?;
    ensure!(on_drive(lab, kept, kib)? == on_drive(lab, &heir, kib)?, "{heir} holds what its drive held before");
    let path = volume.attach(&home, true)?;
    say!("on {home}, which has {heir} and not {kept}: {}", load.verify(lab, consumer, &home, &path)?);
    volume.detach()?;
    volume.delete()
}

/// I1: the only copy leaves when the other one has everything.
fn single_copy(lab: &mut Lab) -> Result<()> {
    let name = "moves-alone";
    let load = Load::new(name, 2048);
    let volume = Volume::create(lab, name, &json!({ "capacity": "128Mi", "replicaCount": 1, "filesystem": "ext4" }))?;
    let home = volume.leg_nodes()?[0].clone();
    // Local first, then remote: each leaves in its own way.
    let path = volume.attach(&home, true)?;
    load.start(lab, &home, &path)?;
    load.wait_for_progress(lab, &home, 50, secs(60))?;
    for (old, new) in [("moves-alone-0", "moves-alone-1.1"), ("moves-alone-1.1", "moves-alone-0.2")] {
        ask_to_leave(lab, old)?;
        wait_for_legs(&volume, &[new])?;
        ensure!(lab.control.api.find(&ours("meshreplicas", old))?.is_none(), "{old} is still there");
        load.wait_for_progress(lab, &home, 50, secs(60))?;
    }
    load.stop(lab, &home)?;
    let writes = record_writes(&lab.control.audit, name)?;
    ensure!(writes.iter().all(|w| w.term["inSync"].as_array().is_some_and(|s| s.len() == 1)), "S was not one leg");
    let end = legs(&volume)?["moves-alone-0.2"].clone();
    volume.detach()?;
    let path = volume.attach(&end, true)?;
    say!("after two moves, on {end}: {}", load.verify(lab, &home, &end, &path)?);
    volume.detach()?;
    volume.delete()
}
