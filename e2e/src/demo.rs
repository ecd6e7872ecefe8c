//! The demo: one volume's life with a power cut in it, shown with kubectl, and everything proved at the end.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::footprint::Footprint;
use crate::lab::Lab;
use crate::load::Load;
use crate::say;
use crate::volume::Volume;
use crate::wait::{secs, wait_for, when};

/// Name of the volume in `config/samples`.
const VOLUME: &str = "demo";
/// Bytes of the known pattern.
const PATTERN_MIB: u32 = 64;
/// Blocks of the verifying writer: 16 MiB.
const BLOCKS: u64 = 4096;

/// Runs the demo in a lab that is up.
pub fn run(lab: &mut Lab) -> Result<()> {
    let clean = lab.footprints()?;
    let nodes = lab.nodes();
    let consumer = nodes.first().context("the lab has nodes")?.clone();

    say!("1. apply config/samples");
    lab.kubectl(&["apply", "-k", "config/samples"])?;
    Volume::named(lab, VOLUME).wait_ready()?;
    show(lab)?;

    say!("2. attach on {consumer}, write and fsync a known pattern");
    let volume = Volume::named(lab, VOLUME);
    let path = volume.attach(&consumer, true)?;
    let pattern = write_pattern(lab, &consumer, &path)?;
    let load = Load::new(VOLUME, BLOCKS);
    load.start(lab, &consumer, &path)?;
    load.wait_for_progress(lab, &consumer, 200, secs(60))?;
    show(lab)?;

    let target = volume.leg_nodes()?.into_iter().find(|node| *node != consumer).context("a leg is on another node")?;
    cut_and_return(lab, &load, &consumer, &target)?;

    say!("5. detach, attach on {target}, whose copy was rebuilt");
    let volume = Volume::named(lab, VOLUME);
    load.stop(lab, &consumer)?;
    volume.detach()?;
    say!("   detached");
    let path = volume.attach(&target, true)?;
    show(lab)?;
    verify(lab, &load, [&consumer, &target], &path, &pattern)?;

    say!("6. detach, delete, and look for what is left");
    volume.detach()?;
    lab.kubectl(&["delete", "-k", "config/samples", "--wait=false"])?;
    volume.wait_gone()?;
    lab.wait_for_footprints(&clean)?;
    prove_clean(lab)
}

/// Steps 3 and 4: the target loses its power while the writer writes, and comes back.
fn cut_and_return(lab: &mut Lab, load: &Load, consumer: &str, target: &str) -> Result<()> {
    say!("3. cut the power of {target} while {consumer} writes");
    lab.guest_mut(target)?.cut_power()?;
    let volume = Volume::named(lab, VOLUME);
    let leg = volume.leg_on(target)?;
    volume.wait_attachment(&format!("to have recorded {leg} away"), secs(60), |at| !in_sync(at, &leg))?;
    let journal = load.wait_for_progress(lab, consumer, 200, secs(60))?;
    let stall = journal.longest().map_or(Duration::ZERO, |f| f.ended.duration_since(f.began).unwrap_or_default());
    say!("   {leg} is recorded away; writes were held for {:.1} s and go on: {journal}", stall.as_secs_f64());
    show(lab)?;

    say!("4. power {target} on again and wait for the rebuild");
    lab.power_on(target)?;
    wait_whole(lab)?;
    show(lab)
}

/// Waits for the rebuild, and shows the volume each time that its row has changed.
fn wait_whole(lab: &Lab) -> Result<()> {
    let mut shown = String::new();
    wait_for("the rebuild", secs(180), || {
        let table = lab.kubectl(&["get", "mvol", VOLUME])?;
        // Without the age.
        let row =
            table.lines().last().and_then(|row| row.trim_end().rsplit_once(' ')).map_or("", |(row, _)| row.trim_end());
        if row != shown {
            println!("{}", if shown.is_empty() { table.trim_end() } else { table.lines().last().unwrap_or_default() });
            row.clone_into(&mut shown);
        }
        let volume = Volume::named(lab, VOLUME).object()?;
        Ok(when(volume["status"]["copies"] == "2/2", row))
    })
}

fn in_sync(attachment: &serde_json::Value, leg: &str) -> bool {
    attachment["status"]["term"]["inSync"].as_array().is_some_and(|all| all.iter().any(|l| l == leg))
}

/// What `kubectl get` prints now.
pub fn show(lab: &Lab) -> Result<()> {
    for kind in ["mvol", "matt", "mrep", "mnode"] {
        println!("$ kubectl get {kind}");
        println!("{}", lab.kubectl(&["get", kind])?.trim_end());
    }
    println!();
    Ok(())
}

/// Fills a file, syncs it, and gives its checksum.
fn write_pattern(lab: &Lab, node: &str, path: &str) -> Result<String> {
    let script = format!(
        "yes 'MeshStor keeps every acknowledged byte' | head -c {PATTERN_MIB}M > {path}/pattern && sync {path}/pattern && sha256sum < {path}/pattern"
    );
    let sum = lab.guest(node)?.shell(&script)?.trim().to_owned();
    say!("   {PATTERN_MIB} MiB are written and synced, sha256 {sum}");
    Ok(sum)
}

/// On the new consumer: the pattern's checksum, and every block of the writer that ran on the old one.
fn verify(lab: &Lab, load: &Load, [writer, node]: [&str; 2], path: &str, pattern: &str) -> Result<()> {
    let found = lab.guest(node)?.shell(&format!("sha256sum < {path}/pattern"))?;
    if found.trim() != pattern {
        bail!("the pattern reads back as {}, but was {pattern}", found.trim());
    }
    let blocks = load.verify(lab, writer, node, path)?;
    say!("   every byte is right: the pattern's checksum is the same, and the writer {blocks}");
    Ok(())
}

/// Shows that no node holds anything of ours.
fn prove_clean(lab: &Lab) -> Result<()> {
    for guest in lab.guests() {
        let footprint = Footprint::of(guest)?;
        if !footprint.0.is_empty() {
            bail!("{} still has: {footprint}", guest.name());
        }
        say!(
            "   {}: no partition of a leg, no export, no connection, no array, no mount, no packet filter is left",
            guest.name()
        );
    }
    Ok(())
}
