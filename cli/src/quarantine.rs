//! What is on the nodes and belongs to no object: shown, and given up by a person. The daemon of the node does it, and refuses what is
//! in use or what an object names; here nothing is decided.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Subcommand;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use meshstor_crds::{MeshNode, Quarantined};
use serde_json::json;

/// How long the daemon may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// Things on nodes that no object names.
#[derive(Debug, Subcommand)]
pub enum Args {
    /// Shows what is in quarantine.
    List {
        /// On this node only.
        #[arg(long)]
        node: Option<String>,
    },
    /// Erases one thing: a partition with all that is in it; stops an array; closes an export; takes a connection down. What is in use, or
    /// what an object names, is refused.
    Wipe {
        /// Its node.
        node: String,
        /// Its identity, as `list` shows it.
        id: String,
        /// Do it. Without this it is only said what would be done.
        #[arg(long)]
        yes: bool,
    },
}

/// Runs the command, and prints for people.
///
/// # Errors
/// The API server refused, or did not answer; the daemon refused, or did not act in time.
pub async fn run(client: &Client, args: &Args) -> Result<()> {
    let nodes: Api<MeshNode> = Api::all(client.clone());
    match args {
        Args::List { node } => {
            let all = nodes.list(&ListParams::default()).await.context("list nodes")?;
            let wanted = |n: &&MeshNode| node.as_ref().is_none_or(|node| *node == n.name_any());
            print!("{}", table(all.iter().filter(wanted)));
            Ok(())
        }
        Args::Wipe { node, id, yes } => wipe(&nodes, node, id, *yes).await,
    }
}

/// One line for each thing, and below it what it is.
fn table<'a>(nodes: impl Iterator<Item = &'a MeshNode>) -> String {
    let mut text = String::new();
    for node in nodes {
        for item in node.status.iter().flat_map(|s| &s.quarantine) {
            text += &format!("{} {}\n", node.name_any(), line(item));
        }
    }
    if text.is_empty() { "nothing is in quarantine\n".to_owned() } else { text }
}

fn line(item: &Quarantined) -> String {
    let since = item.since.0.to_string();
    let volume = item.volume.as_ref().map(|v| format!(" volume={v}")).unwrap_or_default();
    let label = item.label.as_ref().map(|l| format!(" label={l}")).unwrap_or_default();
    let size = item.size_bytes.map(|b| format!(" {} MiB", b >> 20)).unwrap_or_default();
    let path = item.path.as_ref().map(|p| format!(" {p}")).unwrap_or_default();
    let used = item.in_use.as_ref().map_or(" unused".to_owned(), |by| format!(" used by {by}"));
    format!("{}{volume}{label}{path}{size} since={since}{used}\n    {}", item.id, item.message)
}

fn item<'a>(node: &'a MeshNode, id: &str) -> Option<&'a Quarantined> {
    node.status.as_ref()?.quarantine.iter().find(|item| item.id == id)
}

/// What is written into `spec.wipe`.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// These lines; then the daemon is awaited.
    Write(Vec<String>),
    /// It is there, and is awaited.
    Wait,
    /// A line of another time is taken out; asked again later it counts.
    TakeOut(Vec<String>),
}

fn ask(node: &MeshNode, item: &Quarantined) -> Asked {
    let there = node.spec.wipe.contains(&item.id);
    let without = || node.spec.wipe.iter().filter(|id| **id != item.id).cloned().collect::<Vec<_>>();
    match (there, item.wipe_spent) {
        (true, true) => Asked::TakeOut(without()),
        (true, false) => Asked::Wait,
        (false, _) => Asked::Write(node.spec.wipe.iter().cloned().chain([item.id.clone()]).collect()),
    }
}

async fn wipe(nodes: &Api<MeshNode>, name: &str, id: &str, yes: bool) -> Result<()> {
    let node = nodes.get(name).await.with_context(|| format!("read node {name}"))?;
    let item = item(&node, id).with_context(|| format!("{id} is not in quarantine on {name}"))?;
    println!("{name} {}", line(item));
    if let Some(user) = &item.in_use {
        bail!("it is in use ({user}): nothing was asked for");
    }
    if !yes {
        println!("Nothing was done. To erase it for good, run this again with --yes.");
        return Ok(());
    }
    match ask(&node, item) {
        Asked::TakeOut(lines) => {
            write(nodes, &node, lines).await?;
            bail!(
                "spec.wipe named it before it was here; that line was taken out. Run this again in a minute, if you mean it"
            )
        }
        Asked::Write(lines) => write(nodes, &node, lines).await?,
        Asked::Wait => {}
    }
    let begun = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = nodes.get(name).await.with_context(|| format!("read node {name}"))?;
        let Some(left) = self::item(&now, id) else {
            write(nodes, &now, now.spec.wipe.iter().filter(|line| *line != id).cloned().collect()).await?;
            println!("It is gone.");
            return Ok(());
        };
        ensure!(!left.message.starts_with("not wiped:"), "{}", left.message);
        ensure!(
            begun.elapsed() < PATIENCE,
            "the daemon of {name} did nothing in {} s; spec.wipe still names it",
            PATIENCE.as_secs()
        );
    }
}

/// Guarded by the version that was read.
async fn write(nodes: &Api<MeshNode>, node: &MeshNode, lines: Vec<String>) -> Result<()> {
    let name = node.name_any();
    // The daemon writes its status at any time: the list is what must not have changed.
    for _ in 0..5 {
        let now = nodes.get(&name).await.with_context(|| format!("read node {name}"))?;
        ensure!(now.spec.wipe == node.spec.wipe, "somebody else changed spec.wipe of {name} just now: run this again");
        let patch = json!({ "metadata": { "resourceVersion": now.resource_version() }, "spec": { "wipe": lines } });
        match nodes.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Err(kube::Error::Api(answer)) if answer.code == 409 => {}
            written => return written.map(drop).with_context(|| format!("write spec.wipe of {name}")),
        }
    }
    bail!("{name} changes all the time: run this again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(wipe: &[&str], spent: bool) -> MeshNode {
        let status = json!({ "quarantine": [{
            "id": "partition/x", "kind": "Partition", "since": "2026-11-22T00:00:00Z", "message": "a partition", "volume": "v",
            "label": "v-0", "sizeBytes": 64 << 20, "inUse": "a mount", "wipeSpent": spent,
        }]});
        let mut node = MeshNode::new("n1", serde_json::from_value(json!({ "wipe": wipe })).unwrap());
        node.status = Some(serde_json::from_value(status).unwrap());
        node
    }

    fn asked(wipe: &[&str], spent: bool) -> Asked {
        let node = node(wipe, spent);
        ask(&node, item(&node, "partition/x").unwrap())
    }

    #[test]
    fn a_thing_is_named_once_and_others_stay_named() {
        assert_eq!(asked(&["array/y"], false), Asked::Write(vec!["array/y".into(), "partition/x".into()]));
        assert_eq!(asked(&["partition/x"], false), Asked::Wait);
    }

    /// I1: a line of another time never erases; it goes, and a person asks again.
    #[test]
    fn a_forgotten_line_is_taken_out() {
        assert_eq!(asked(&["array/y", "partition/x"], true), Asked::TakeOut(vec!["array/y".into()]));
    }

    #[test]
    fn the_list_says_who_uses_what() {
        let text = table([node(&[], false)].iter());
        assert!(
            text.starts_with("n1 partition/x volume=v label=v-0 64 MiB since=2026-11-22T00:00:00Z used by a mount\n"),
            "{text}"
        );
        assert_eq!(table([].iter()), "nothing is in quarantine\n");
    }
}
