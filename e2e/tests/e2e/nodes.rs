//! Nodes that are not fit, and say so.

use anyhow::{Context as _, Result, ensure};
use meshstor_e2e::api::{condition, is_true, ours};
use meshstor_e2e::lab::{DRIVES, Lab};
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::{secs, wait_for, when};
use serde_json::{Value, json};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("a_kernel_that_writes_past_its_bitmaps_is_refused", unsafe_kernel),
    ("foreign_rules_and_unfit_drives_are_conditions", conditions),
];

/// Where a daemon notes what it found out about the kernel of this boot.
const NOTE: &str = "cat /run/meshstor/bitmap-probe";

/// I8: a node whose kernel writes MD bitmaps past their end (LP#2075110, put back into this guest's kernel) says so, gets no leg and
/// starts no array; with a sound kernel it does both.
fn unsafe_kernel(lab: &mut Lab) -> Result<()> {
    let node = lab.nodes().pop().context("a lab has nodes")?;
    let fault = lab.prerequisites().named_kernel("floor")?;
    for sound in lab.nodes() {
        ensure!(lab.guest(&sound)?.shell(NOTE)?.ends_with(" within\n"), "{sound} did not find its kernel sound");
    }
    lab.reboot_as(&node, |machine| machine.kernel = Some(fault))?;
    let outcome = refuses_arrays(lab, &node);
    lab.reboot_as(&node, |machine| machine.kernel = None)?;
    lab.wait_for_nodes()?;
    outcome?;

    // What was asked for meanwhile goes through now.
    let volume = Volume::named(lab, "floor");
    volume.wait_attached(&node, false)?;
    volume.detach()?;
    volume.delete()
}

fn refuses_arrays(lab: &Lab, node: &str) -> Result<()> {
    let told = wait_for_reason(lab, node, "KernelSupported", "KernelUnsafe")?;
    let ready = condition(&told, "Ready");
    ensure!(ready["status"] == "False" && ready["reason"] == "KernelUnsafe", "{ready}");
    let message = condition(&told, "KernelSupported")["message"].as_str().unwrap_or_default();
    ensure!(message.contains("LP#2075110") && message.contains("6.11 or newer"), "no remedy: {message}");
    // The fault fired, and the node is none the worse for it.
    let guest = lab.guest(node)?;
    ensure!(guest.shell(NOTE)?.ends_with(" beyond\n"), "the probe did not see the fault");
    let left = guest.shell("dmsetup ls && losetup --list && cat /proc/mdstat")?;
    let array = left.lines().any(|line| line.starts_with("md"));
    ensure!(left.contains("Personalities") && !left.contains("probe") && !array, "the probe left something: {left}");

    lab.apply(&json!({
        "apiVersion": "meshstor.io/v1alpha1", "kind": "MeshVolume", "metadata": { "name": "all-nodes" },
        "spec": { "capacity": "64Mi", "replicaCount": 3, "filesystem": "none" },
    }))?;
    let three = Volume::named(lab, "all-nodes");
    let refused =
        three.wait("to be unschedulable", secs(30), |v| condition(v, "Ready")["reason"] == "Unschedulable")?;
    let message = condition(&refused, "Ready")["message"].as_str().unwrap_or_default().to_owned();
    ensure!(message.contains(node) && message.contains("KernelUnsafe"), "the refusal does not say why: {message}");
    three.delete()?;

    let two = Volume::create(lab, "floor", &json!({ "capacity": "64Mi", "replicaCount": 2, "filesystem": "none" }))?;
    let legs = two.leg_nodes()?;
    ensure!(!legs.iter().any(|leg| leg == node), "a leg is on {node}: {legs:?}");
    two.want_on(node, false)?;
    let says = |v: &Value| condition(v, "Ready")["message"].as_str().is_some_and(|m| m.contains("KernelUnsafe"));
    two.wait("to say why it is not attached", secs(30), says)?;
    let term = two.attachment()?["status"]["term"].clone();
    ensure!(term.is_null(), "an epoch was begun: {term}");
    let arrays = guest.shell("cat /proc/mdstat")?;
    ensure!(!arrays.contains("md1"), "an array runs on {node}: {arrays}");
    Ok(())
}

/// Waits until that condition of a node is `False` for that reason.
fn wait_for_reason(lab: &Lab, node: &str, type_: &str, reason: &str) -> Result<Value> {
    let told = |seen: &Value| condition(seen, type_)["status"] == "False" && condition(seen, type_)["reason"] == reason;
    wait_for_node(lab, node, &format!("{type_}=False, {reason}"), told)
}

fn wait_for_node(lab: &Lab, node: &str, what: &str, done: impl Fn(&Value) -> bool) -> Result<Value> {
    let path = ours("meshnodes", node);
    wait_for(&format!("MeshNode {node}: {what}"), secs(60), || {
        let seen = lab.control.api.get(&path)?;
        Ok(when(done(&seen), seen["status"].to_string()))
    })?;
    lab.control.api.get(&path)
}

/// A udev that seems to run, a rule that takes every NVMe drive, and four drives: sectors of 1 KiB, a filesystem on a drive without
/// a serial number, and a drive with a copy of itself.
const PLANT: &str = r#"
set -e
mkdir -p /run/udev/rules.d
touch /run/udev/control
echo 'KERNEL=="nvme*", ACTION=="add", RUN+="/sbin/mdadm -I $devnode"' > /run/udev/rules.d/70-blunt.rules
truncate -s 64M /tmp/sectors /tmp/nameless /tmp/one
mkfs.ext4 -q /tmp/nameless
sgdisk --clear /tmp/one >/dev/null
cp --sparse=always /tmp/one /tmp/other
losetup --sector-size 1024 /dev/loop4 /tmp/sectors
losetup /dev/loop5 /tmp/nameless
losetup /dev/loop6 /tmp/one
losetup /dev/loop7 /tmp/other
"#;

/// What a person does about it.
const REMEDY: &str =
    "rm /run/udev/rules.d/70-blunt.rules; losetup -d /dev/loop4; losetup -d /dev/loop5; losetup -d /dev/loop7";

const CLEAN: &str = r"
rm -rf /run/udev
for n in 4 5 6 7; do losetup -d /dev/loop$n 2>/dev/null; done
rm -f /tmp/sectors /tmp/nameless /tmp/one /tmp/other
";

/// A foreign rule that would assemble legs and drives that cannot be used are each named with a remedy, keep no good drive from
/// being used, and are gone when they are gone.
fn conditions(lab: &mut Lab) -> Result<()> {
    let node = lab.nodes().pop().context("a lab has nodes")?;
    let all = format!("{DRIVES},/dev/loop[4-7]");
    lab.guest(&node)?.shell(PLANT)?;
    let outcome = seen_and_gone(lab, &node, &all);
    lab.guest(&node)?.shell(CLEAN)?;
    restart(lab, &node, DRIVES)?;
    lab.wait_for_nodes()?;
    outcome
}

fn restart(lab: &mut Lab, node: &str, drives: &str) -> Result<()> {
    lab.guest_mut(node)?.kill_daemon()?;
    lab.start_daemon_with(node, drives)
}

fn seen_and_gone(lab: &mut Lab, node: &str, drives: &str) -> Result<()> {
    let fit =
        |seen: &Value| ["Ready", "KernelSupported", "AssemblyGuarded", "DrivesUsable"].iter().all(|t| is_true(seen, t));
    wait_for_node(lab, node, "to be fit before", fit)?;
    restart(lab, node, drives)?;
    let seen = wait_for_reason(lab, node, "DrivesUsable", "NoStableIdentity")?;
    ensure!(is_true(&seen, "Ready"), "good drives are not used: {}", seen["status"]);

    let rules = condition(&seen, "AssemblyGuarded").clone();
    ensure!(rules["status"] == "False" && rules["reason"] == "ForeignRules", "{rules}");
    let remedy = "/run/udev/rules.d/70-blunt.rules: mask it";
    ensure!(rules["message"].as_str().is_some_and(|m| m.contains(remedy)), "no remedy: {rules}");

    let message = condition(&seen, "DrivesUsable")["message"].as_str().unwrap_or_default();
    for (drive, why) in [
        ("/dev/loop4", "logical sectors have 1024 bytes"),
        ("/dev/loop5", "neither WWID nor serial number nor GPT; it has no GPT, but holds ext4"),
        ("/dev/loop6", "another drive has the same identity"),
        ("/dev/loop7", "another drive has the same identity"),
    ] {
        ensure!(message.contains(drive) && message.contains(why), "{drive} is not named with {why:?}: {message}");
        let drives = seen["status"]["drives"].as_array().cloned().unwrap_or_default();
        let shown = drives.iter().find(|d| d["path"] == drive).with_context(|| format!("{drive} is shown"))?;
        ensure!(shown["unusable"].as_str().is_some_and(|u| u.contains(why)), "{drive} could be placed on: {shown}");
    }

    // What is left is a real rule of mdadm's package, and ours before it.
    lab.guest(node)?.shell(REMEDY)?;
    restart(lab, node, &format!("{DRIVES},/dev/loop6"))?;
    let seen = wait_for_node(lab, node, "to be fit again", |seen| fit(seen) && drives_shown(seen) == 3)?;
    let message = condition(&seen, "AssemblyGuarded")["message"].as_str().unwrap_or_default();
    ensure!(message.contains("/run/udev/rules.d/63-meshstor.rules"), "the guard is not named: {message}");
    let ours = std::fs::read_to_string(lab.repo().join("config/udev/63-meshstor.rules"))?;
    ensure!(lab.guest(node)?.shell("cat /run/udev/rules.d/63-meshstor.rules")? == ours, "another rule is in place");
    let packaged = lab.guest(node)?.shell("ls /usr/lib/udev/rules.d")?;
    ensure!(packaged.contains("64-md-raid-assembly.rules"), "nothing that the guard keeps off: {packaged}");
    Ok(())
}

fn drives_shown(seen: &Value) -> usize {
    seen["status"]["drives"].as_array().map_or(0, Vec::len)
}
