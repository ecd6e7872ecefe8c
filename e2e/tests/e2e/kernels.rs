//! What a volume asks of its nodes' kernels: the bitmap of its array, kernels that differ, and MeshStor's md patches.

use anyhow::{Context as _, Result, ensure};
use meshstor_e2e::api::{condition, ours};
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::steps::lacks;
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::{secs, wait_for, when};
use serde_json::{Value, json};

use crate::Test;
use crate::faults::{attached, verify_on, writes_are_held};

pub(crate) const TESTS: &[Test] = &[
    ("lockless_bitmap_through_loss_and_return", lockless),
    ("a_volume_without_a_bitmap_says_what_that_costs", without_bitmap),
    ("a_lockless_stripe_is_refused_where_it_loses_data", refused_stripe),
    ("rdma_is_refused_where_a_node_has_none", refused_rdma),
    ("patched_kernels_balance_reads_hold_failures_and_differ_from_stock", patched),
];

/// I1 with the lockless bitmap: a leg is lost under load and comes back by a rebuild, the consumer loses its power under load, and the
/// other node reads what was flushed.
fn lockless(lab: &mut Lab) -> Result<()> {
    let spec = json!({ "capacity": "64Mi", "replicaCount": 2, "filesystem": "ext4", "bitmap": "lockless" });
    let volume = Volume::create(lab, "lockless", &spec)?;
    let legs = volume.leg_nodes()?;
    let (consumer, target) = (legs[0].clone(), legs[1].clone());
    let load = Load::new("lockless", 2048);
    let path = volume.attach(&consumer, true)?;
    ensure!(volume.object()?["status"]["resolved"]["bitmap"] == "lockless", "the choice is not in the status");
    let kind = md_file(lab, &volume, &consumer, "bitmap_type")?;
    ensure!(kind.contains("[llbitmap]"), "the array of {consumer} has {kind}");

    load.start(lab, &consumer, &path)?;
    load.wait_for_progress(lab, &consumer, 50, secs(60))?;
    lab.guest_mut(&target)?.cut_power()?;
    let volume = Volume::named(lab, "lockless");
    volume.wait("to be degraded", secs(60), |v| v["status"]["copies"] == "1/2")?;
    load.wait_for_progress(lab, &consumer, 50, secs(60))?;
    lab.power_on(&target)?;
    let volume = Volume::named(lab, "lockless");
    volume.wait_whole(2)?;
    load.wait_for_progress(lab, &consumer, 50, secs(60))?;
    lab.guest_mut(&consumer)?.cut_power()?;
    lab.power_on(&consumer)?;
    let volume = Volume::named(lab, "lockless");
    let newer = |at: &Value| at["status"]["term"]["epoch"].as_i64().is_some_and(|epoch| epoch > 1);
    volume.wait_attachment("to have a new epoch", secs(90), newer)?;
    let path = volume.wait_attached(&consumer, true)?;
    load.verify(lab, &consumer, &consumer, &path)?;
    volume.wait_whole(2)?;
    volume.detach()?;
    let path = volume.attach(&target, true)?;
    let kind = md_file(lab, &volume, &target, "bitmap_type")?;
    ensure!(kind.contains("[llbitmap]"), "the array of {target} has {kind}");
    load.verify(lab, &consumer, &target, &path)?;
    volume.detach()?;
    volume.delete()
}

/// Besides, its first copy is on the node that will use it.
fn without_bitmap(lab: &mut Lab) -> Result<()> {
    let node = lab.nodes().pop().context("there are nodes")?;
    let spec = json!({
        "capacity": "64Mi", "replicaCount": 2, "filesystem": "none", "bitmap": "none", "preferredNode": node,
    });
    let volume = Volume::create(lab, "bare", &spec)?;
    ensure!(volume.leg_nodes()?.first() == Some(&node), "the first leg is on {:?}", volume.leg_nodes()?);
    volume.attach(&node, false)?;
    let location = md_file(lab, &volume, &node, "bitmap/location")?;
    ensure!(location == "none", "the array has a bitmap at {location}");
    let told = |v: &Value| condition(v, "Ready")["message"].as_str().is_some_and(|m| m.contains("without a bitmap"));
    volume.wait("to say what it costs", secs(30), told)?;
    volume.detach()?;
    volume.delete()
}

/// I8: a stock kernel leaves out data when it rebuilds a RAID10 with the lockless bitmap; nothing is made there.
fn refused_stripe(lab: &mut Lab) -> Result<()> {
    let spec =
        json!({ "capacity": "64Mi", "replicaCount": 2, "stripeWidth": 2, "filesystem": "none", "bitmap": "lockless" });
    lab.apply(&json!({ "apiVersion": "meshstor.io/v1alpha1", "kind": "MeshVolume", "metadata": { "name": "risky" }, "spec": spec }))?;
    let volume = Volume::named(lab, "risky");
    let seen = volume.wait("to be unschedulable", secs(30), |v| condition(v, "Ready")["reason"] == "Unschedulable")?;
    let message = condition(&seen, "Ready")["message"].as_str().unwrap_or_default().to_owned();
    ensure!(message.contains("llbitmap-raid10: a RAID10 leaves out data"), "{message}");
    volume.delete()
}

/// I8: no node of the lab has an address with RDMA, so nothing is made.
fn refused_rdma(lab: &mut Lab) -> Result<()> {
    let policy = json!({
        "apiVersion": "meshstor.io/v1alpha1", "kind": "ReplicaSetPolicy", "metadata": { "name": "rdma" }, "spec": { "transport": "rdma" },
    });
    lab.apply(&policy)?;
    let spec = json!({ "capacity": "64Mi", "replicaCount": 2, "filesystem": "none", "policy": "rdma" });
    lab.apply(&json!({ "apiVersion": "meshstor.io/v1alpha1", "kind": "MeshVolume", "metadata": { "name": "fast" }, "spec": spec }))?;
    let volume = Volume::named(lab, "fast");
    let seen = volume.wait("to be unschedulable", secs(30), |v| condition(v, "Ready")["reason"] == "Unschedulable")?;
    let message = condition(&seen, "Ready")["message"].as_str().unwrap_or_default().to_owned();
    for node in lab.nodes() {
        ensure!(message.contains(&format!("{node}: NodeFabric (reports no RDMA address")), "{message}");
    }
    volume.delete()?;
    lab.control.api.delete(&ours("replicasetpolicies", "rdma"))
}

/// On patched kernels reads are balanced by latency, `auto` is lockless, and an error is held as a hang is; a node that goes back to a stock kernel is named before a
/// volume must move there, and refused when it must.
fn patched(lab: &mut Lab) -> Result<()> {
    let series = lab.prerequisites().named_kernel("meshstor")?;
    let nodes = lab.nodes();
    reboot(lab, &nodes, Some(&series))?;
    let outcome = balanced(lab).and_then(|()| gated(lab)).and_then(|()| mixed(lab));
    reboot(lab, &nodes, None)?;
    outcome
}

fn reboot(lab: &mut Lab, nodes: &[String], kernel: Option<&std::path::Path>) -> Result<()> {
    for node in nodes {
        lab.reboot_as(node, |machine| machine.kernel = kernel.map(std::path::Path::to_owned))?;
    }
    lab.wait_for_nodes()?;
    let supported = kernel.is_some();
    for node in nodes {
        wait_for(&format!("{node} to report its kernel"), secs(60), || {
            let seen = lab.control.api.get(&ours("meshnodes", node))?;
            let all = seen["status"]["kernel"]["capabilities"].as_array().cloned().unwrap_or_default();
            let found = all.into_iter().find(|c| c["name"] == "md-latency-balance").unwrap_or_default();
            Ok(when(found["supported"] == supported, found.to_string()))
        })?;
    }
    Ok(())
}

fn balanced(lab: &mut Lab) -> Result<()> {
    let spec = json!({ "capacity": "64Mi", "replicaCount": 2, "filesystem": "none" });
    let volume = Volume::create(lab, "swift", &spec)?;
    let node = volume.leg_nodes()?[0].clone();
    let device = volume.attach(&node, false)?;
    ensure!(volume.object()?["status"]["resolved"]["bitmap"] == "lockless", "`auto` is not lockless on proved kernels");
    let states = member_states(lab, &volume, &node)?;
    ensure!(!states.contains("write_mostly"), "a remote leg is kept from reads: {states}");
    lab.guest(&node)?.shell(&format!("dd if={device} of=/dev/null bs=4k count=4000 iflag=direct status=none"))?;

    let legs = [volume.leg_on(&volume.leg_nodes()?[0])?, volume.leg_on(&volume.leg_nodes()?[1])?];
    let told = |at: &Value| {
        let found = condition(at, "ReadLatencyBalanced");
        let message = found["message"].as_str().unwrap_or_default().to_owned();
        found["reason"] == "Balanced" && legs.iter().any(|leg| message.contains(&format!("{leg} about ")))
    };
    volume.wait_attachment("to say what reads take", secs(90), told)?;
    for (type_, reason) in [("ReadLatencyBalanced", "Balanced"), ("TakeoverSupported", "KernelSupports")] {
        let holds = |v: &Value| condition(v, type_)["status"] == "True" && condition(v, type_)["reason"] == reason;
        volume.wait(&format!("to be {type_}"), secs(30), holds)?;
    }
    volume.detach()?;
    let unknown = |v: &Value| condition(v, "ReadLatencyBalanced")["reason"] == "NotAttached";
    volume.wait("to know nothing of reads", secs(30), unknown)?;
    volume.delete()
}

/// I1, the failure gate: an error that MD sees while nothing can be recorded holds writes as a hang does. A stock kernel goes on.
fn gated(lab: &mut Lab) -> Result<()> {
    let load = Load::new("severed", 2048);
    let (volume, consumer, target, path) = attached(lab, "severed")?;
    let leg = volume.leg_on(&target)?;
    load.start(lab, &consumer, &path)?;
    load.wait_for_progress(lab, &consumer, 50, secs(60))?;
    let gate =
        || Ok::<_, anyhow::Error>(lab.guest(&consumer)?.shell("cat /sys/block/md*/md/failure_gate")?.trim().to_owned());
    ensure!(gate()? == "on", "the gate is {:?}", gate()?);

    lab.stop_api()?;
    lab.guest(&consumer)?.shell("for c in /sys/class/nvme/*/delete_controller; do echo 1 > $c; done")?;
    let outcome = writes_are_held(lab, &load, &consumer).and_then(|()| gate());
    lab.continue_api()?;
    ensure!(outcome? == "holding", "writes are held by something else");

    volume.wait_attachment("to have recorded the leg away", secs(90), |at| lacks(&at["status"]["term"], &leg))?;
    load.wait_for_progress(lab, &consumer, 50, secs(60))?;
    volume.wait_whole(2)?;
    ensure!(gate()? == "on", "the gate is {:?}", gate()?);
    load.stop(lab, &consumer)?;
    verify_on(lab, &volume, &load, &consumer, &target)
}

fn mixed(lab: &mut Lab) -> Result<()> {
    let spec = json!({ "capacity": "64Mi", "replicaCount": 2, "stripeWidth": 2, "filesystem": "ext4" });
    let volume = Volume::create(lab, "mixed", &spec)?;
    ensure!(volume.object()?["status"]["resolved"]["bitmap"] == "lockless", "`auto` is not lockless on proved kernels");
    let anywhere = |v: &Value| condition(v, "AttachableAnywhere")["status"].clone();
    volume.wait("to be attachable anywhere", secs(30), |v| anywhere(v) == "True")?;
    let legs = volume.leg_nodes()?;
    let old = lab.nodes().into_iter().find(|n| !legs.contains(n)).context("a node has no leg")?;
    reboot(lab, std::slice::from_ref(&old), None)?;
    let volume = Volume::named(lab, "mixed");
    let named = |v: &Value| {
        let message = condition(v, "AttachableAnywhere")["message"].as_str().unwrap_or_default().to_owned();
        anywhere(v) == "False" && message.contains(&old) && message.contains("llbitmap-raid10")
    };
    volume.wait("to name the node that cannot run it", secs(60), named)?;

    let load = Load::new("mixed", 1024);
    let path = volume.attach(&legs[0], true)?;
    let already = |v: &Value| condition(v, "TakeoverSupported")["reason"] == "AlreadyStriped";
    volume.wait("to be striped already", secs(30), already)?;
    load.write(lab, &legs[0], &path, 50)?;
    volume.detach()?;
    volume.want_on(&old, false)?;
    let refused = |v: &Value| {
        condition(v, "Ready")["reason"] == "MissingCapability" && condition(v, "Stalled")["status"] == "True"
    };
    volume.wait(&format!("to refuse {old}"), secs(30), refused)?;
    ensure!(volume.attachment()?["status"]["term"]["node"] == *legs[0], "an epoch was begun for {old}");
    let path = volume.attach(&legs[0], true)?;
    load.verify(lab, &legs[0], &legs[0], &path)?;
    volume.detach()?;
    volume.delete()
}

/// Kernel name of the volume's array on a node.
fn md_name(lab: &Lab, volume: &Volume<'_>, node: &str) -> Result<String> {
    let attachment = volume.attachment()?;
    let device = attachment["status"]["array"]["device"].as_str().context("a device")?.to_owned();
    Ok(lab.guest(node)?.shell(&format!("basename $(readlink -f {device})"))?.trim().to_owned())
}

fn md_file(lab: &Lab, volume: &Volume<'_>, node: &str, file: &str) -> Result<String> {
    let md = md_name(lab, volume, node)?;
    Ok(lab.guest(node)?.shell(&format!("cat /sys/block/{md}/md/{file}"))?.trim().to_owned())
}

fn member_states(lab: &Lab, volume: &Volume<'_>, node: &str) -> Result<String> {
    let md = md_name(lab, volume, node)?;
    lab.guest(node)?.shell(&format!("cat /sys/block/{md}/md/dev-*/state"))
}
