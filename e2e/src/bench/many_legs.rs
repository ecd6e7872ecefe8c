//! The area `many-legs`: fifty legs on one node whose volumes, of one copy each, are all attached on another. The reference is
//! the same made by shell scripts: partitions, exports, connections, arrays, and nobody who looks after them.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use meshstor_crds::Connection;
use serde_json::{Value, json};

use super::{Row, idle};
use crate::guest::Guest;
use crate::lab::Lab;
use crate::say;
use crate::volume::Volume;
use crate::wait::{Look, pause, secs, wait_for};

const LEGS: usize = 50;
const MIB: u32 = 64;
/// What the operator adds to the capacity for MD's metadata, MiB.
const HEADROOM_MIB: u32 = 8;
/// How long is measured.
const SECONDS: u64 = 60;
/// For everything that a change leaves behind to come to rest.
const SETTLE: u64 = 20;
/// Ticks of /proc/<pid>/stat a second; a constant of Linux's ABI.
const TICKS: f64 = 100.0;
/// Outside the range of MeshStor's exports.
const FIRST_PORT: usize = 43000;

const LEG: &str = include_str!("many-legs.sh");
const EXPORT: &str = include_str!("export.sh");
const REMOVE: &str = include_str!("many-legs-remove.sh");
/// What the NQNs of exports by hand begin with.
const NQN: &str = "nqn.2000-01.org.example:by-hand-";

/// What fifty legs take: seconds, and on consumer and target memory and CPU time.
struct Cost {
    /// Until the last connection is live.
    connected: f64,
    /// Until the last array can be used.
    usable: f64,
    /// KiB that are free no longer.
    memory: [f64; 2],
    /// CPU seconds of the whole guest, kernel and all, while nothing is done.
    cpu: [f64; 2],
    /// Of these, the daemon's.
    daemon: [f64; 2],
}

/// All rows, in a lab of two nodes.
pub fn run(lab: &Lab) -> Result<Vec<Row>> {
    let [consumer, target] = lab.guests() else { anyhow::bail!("two nodes are needed") };
    say!("{SECONDS} s of nothing, for what two nodes take without legs");
    pause(secs(SETTLE));
    let without = idle_cpu(consumer, target)?.0;
    let hand = cost(consumer, target, || by_hand(consumer, target))?;
    remove(consumer, target)?;
    let ours = cost(consumer, target, || ours(lab, consumer, target))?;
    Ok(rows(&ours, &hand, without))
}

fn rows(ours: &Cost, hand: &Cost, without: [f64; 2]) -> Vec<Row> {
    let aim = "none given";
    let pair = |name: &str, unit, ours, hand| Row::of_pairs(&format!("many-legs-{name}"), unit, aim, &[(ours, hand)]);
    let mut rows = vec![
        pair("connect", "s until 50 connections are live", ours.connected, hand.connected),
        pair("usable", "s until 50 arrays can be used", ours.usable, hand.usable),
    ];
    for (at, place) in ["consumer", "target"].into_iter().enumerate() {
        let each = |cost: &Cost| cost.memory[at] / 1024.0 / LEGS as f64;
        rows.push(pair(&format!("memory-{place}"), "MiB a leg", each(ours), each(hand)));
    }
    for (at, place) in ["consumer", "target"].into_iter().enumerate() {
        let more = |cost: &Cost| cost.cpu[at] - without[at];
        rows.push(pair(&format!("cpu-{place}"), "CPU s in 60 s, more than without legs", more(ours), more(hand)));
        let name = format!("many-legs-cpu-daemon-{place}");
        rows.push(Row::of_one(&name, "CPU s in 60 s", aim, ours.daemon[at]));
        let name = format!("many-legs-cpu-without-{place}");
        rows.push(Row::of_one(&name, "CPU s in 60 s without legs", aim, without[at]));
    }
    rows
}

/// What it takes to `make` the legs and to have them.
fn cost(consumer: &Guest, target: &Guest, make: impl FnOnce() -> Result<(f64, f64)>) -> Result<Cost> {
    let free = || Ok::<_, anyhow::Error>([free_kib(consumer)?, free_kib(target)?]);
    let before = free()?;
    let (connected, usable) = make()?;
    say!("{LEGS} legs: connected after {connected:.2} s, usable after {usable:.2} s; {SETTLE} s to come to rest");
    pause(secs(SETTLE));
    let after = free()?;
    let (cpu, daemon) = idle_cpu(consumer, target)?;
    Ok(Cost { connected, usable, memory: [before[0] - after[0], before[1] - after[1]], cpu, daemon })
}

/// CPU seconds of both guests, and of their daemons, while nothing is done.
fn idle_cpu(consumer: &Guest, target: &Guest) -> Result<([f64; 2], [f64; 2])> {
    let look = || -> Result<[f64; 4]> {
        Ok([machine_cpu(consumer)?, machine_cpu(target)?, idle::cpu(consumer)?, idle::cpu(target)?])
    };
    let before = look()?;
    pause(secs(SECONDS));
    let after = look()?;
    let used = |n: usize| after[n] - before[n];
    Ok(([used(0), used(1)], [used(2), used(3)]))
}

/// What is free once the caches that can be dropped are.
fn free_kib(guest: &Guest) -> Result<f64> {
    let free = guest.shell("sync; echo 3 > /proc/sys/vm/drop_caches; awk '/^MemFree/ { print $2 }' /proc/meminfo")?;
    free.trim().parse().with_context(|| format!("KiB, but {free:?}"))
}

/// CPU seconds of a guest so far, as the machine counts them: of the process that is its kernel, and of its programs.
fn machine_cpu(guest: &Guest) -> Result<f64> {
    let group = guest.process_id().context("the guest is on")?.to_string();
    let mut ticks = 0.0;
    for entry in std::fs::read_dir("/proc")? {
        // A process may end at any moment.
        let Ok(stat) = std::fs::read_to_string(entry?.path().join("stat")) else { continue };
        ticks += ticks_of(&stat, &group).unwrap_or_default();
    }
    ensure!(ticks > 0.0, "the process group of {} is not seen", guest.name());
    Ok(ticks / TICKS)
}

/// Ticks of a process and of its children that have ended, if it is of that group.
fn ticks_of(stat: &str, group: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    (*fields.get(2)? == group).then(|| fields.get(11..15)?.iter().map(|n| n.parse::<f64>().ok()).sum())?
}

fn name(n: usize) -> String {
    format!("many-{n}")
}

/// Attaches fifty volumes at once whose legs are ready.
fn ours(lab: &Lab, consumer: &Guest, target: &Guest) -> Result<(f64, f64)> {
    let selector = json!({ "placement": { "nodeSelector": { "kubernetes.io/hostname": target.name() } } });
    apply(lab, "ReplicaSetPolicy", "many", &selector)?;
    let spec = json!({ "capacity": format!("{MIB}Mi"), "replicaCount": 1, "filesystem": "none", "policy": "many" });
    (0..LEGS).try_for_each(|n| apply(lab, "MeshVolume", &name(n), &spec))?;
    (0..LEGS).try_for_each(|n| Volume::named(lab, &name(n)).wait_ready())?;
    say!("{LEGS} volumes are ready");
    let began = Instant::now();
    (0..LEGS).try_for_each(|n| Volume::named(lab, &name(n)).want_on(consumer.name(), false))?;
    wait_for("all connections", secs(300), || {
        let live = consumer.shell("cat /sys/class/nvme/nvme*/state 2>/dev/null | grep -cx live || true")?;
        Ok(if live.trim() == LEGS.to_string() { Look::Done(()) } else { Look::NotYet(live) })
    })?;
    let connected = began.elapsed().as_secs_f64();
    (0..LEGS).try_for_each(|n| Volume::named(lab, &name(n)).wait_attached(consumer.name(), false).map(drop))?;
    Ok((connected, began.elapsed().as_secs_f64()))
}

fn apply(lab: &Lab, kind: &str, name: &str, spec: &Value) -> Result<()> {
    lab.apply(
        &json!({ "apiVersion": "meshstor.io/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec }),
    )
}

/// Exports, connects and assembles fifty partitions by scripts.
fn by_hand(consumer: &Guest, target: &Guest) -> Result<(f64, f64)> {
    let arguments = format!("{LEGS} {} {}", MIB + HEADROOM_MIB, drives(target));
    let made = target.shell(&format!("set -- {arguments}\n{LEG}"))?;
    let devices: Vec<&str> = made.lines().filter(|line| line.starts_with("/dev/")).collect();
    ensure!(devices.len() == LEGS, "legs: {made}");
    let host_nqn = consumer.shell("cat /etc/nvme/hostnqn")?.trim().to_owned();
    let address = target.machine.ip.to_string();
    let Connection { io_queues, queue_size, keep_alive_seconds, .. } = Connection::default();
    let nqn = |n: usize| format!("{NQN}{n}");
    let exports = devices.iter().enumerate().map(|(n, device)| {
        format!("(set -- {device} {} {host_nqn} {address} {} {io_queues}\n{EXPORT})\n", nqn(n), FIRST_PORT + n)
    });
    let connections = (0..LEGS).map(|n| {
        format!(
            "nvme connect --transport=tcp --traddr={address} --trsvcid={} --nqn={} --nr-io-queues={io_queues} --queue-size={queue_size} \
             --keep-alive-tmo={keep_alive_seconds} --ctrl-loss-tmo=-1 --reconnect-delay=1 >/dev/null &\n",
            FIRST_PORT + n,
            nqn(n)
        )
    });
    let began = Instant::now();
    target.shell(&format!("set -e\n{}", exports.collect::<String>()))?;
    consumer.shell(&(connections.collect::<String>() + "wait"))?;
    let connected = began.elapsed().as_secs_f64();
    consumer.shell(&assemble())?;
    Ok((connected, began.elapsed().as_secs_f64()))
}

/// One array over each connected namespace, as MeshStor makes one of a single copy.
fn assemble() -> String {
    let create = format!(
        "mdadm --create /dev/md$n --run --quiet --metadata=1.2 --level=1 --raid-devices=2 --bitmap=internal --assume-clean \
         --data-offset=4M --size={} $device missing >/dev/null 2>&1",
        MIB * 1024
    );
    format!(
        "set -e\nwhile [ \"$(ls /dev/nvme*n1 2>/dev/null | wc -l)\" -lt {LEGS} ]; do sleep 0.02; done\nn=200\n\
         for device in /dev/nvme*n1; do {create}; n=$((n + 1)); done\n[ $n = {} ]",
        200 + LEGS
    )
}

/// Leaves nothing of what was made by hand.
fn remove(consumer: &Guest, target: &Guest) -> Result<()> {
    let host_nqn = consumer.shell("cat /etc/nvme/hostnqn")?.trim().to_owned();
    consumer.shell("for array in /dev/md2??; do mdadm --stop --quiet $array; done; nvme disconnect-all")?;
    target.shell(&format!("set -- {NQN} {host_nqn} {} {}\n{REMOVE}", FIRST_PORT / 1000, drives(target)))?;
    let left = crate::footprint::Footprint::of(target)?;
    ensure!(left.0.is_empty(), "{} still has: {left}", target.name());
    Ok(())
}

/// Kernel names of a guest's drives.
fn drives(guest: &Guest) -> String {
    let letters = ["a", "b", "c", "d"].into_iter().take(guest.machine.disks.len());
    letters.map(|letter| format!("ubd{letter}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn ticks_are_those_of_the_group() {
        let stat = "7 (a) b) S 1 42 42 0 -1 4 0 0 0 0 10 20 3 4 20 0";
        assert_eq!(super::ticks_of(stat, "42"), Some(37.0));
        assert_eq!(super::ticks_of(stat, "7"), None);
    }
}
