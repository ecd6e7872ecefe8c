//! `meshstor rebuild-objects`: `MeshVolume`, `MeshAttachment` and `MeshReplica` of volumes whose objects were lost, from what their legs say of
//! themselves in `MeshNode.status.quarantine`.

pub mod apply;
pub mod assemble;
pub mod found;
pub mod objects;
pub mod plan;
pub mod read;
pub mod refusal;
pub mod seats;
pub mod show;
pub mod standing;
#[cfg(test)]
mod tests;

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;
use kube::Client;
use meshstor_crds::{Filesystem, MeshVolume};
use plan::Options;

/// Without `--apply` nothing is changed: what was found, and what would be made of it, is printed.
///
/// A volume is refused, and nothing of it made, where something is in doubt; the words of the refusal say which option settles it. Options that
/// settle a doubt are for one volume, which --volume names.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this volume: its name, or the UUID of its array.
    #[arg(long)]
    volume: Option<String>,
    /// Make the objects.
    #[arg(long)]
    apply: bool,
    /// What is printed on stdout: a table, or the `MeshVolume`s that would be made.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// What the volumes hold: it is how they are mounted. Nothing is ever formatted.
    #[arg(long, value_enum)]
    filesystem: Option<Fs>,
    /// `ReplicaSetPolicy` of the volumes.
    #[arg(long)]
    policy: Option<String>,
    /// Give up legs that were not found, and for ever what only they have.
    #[arg(long, requires = "volume")]
    accept_missing_legs: bool,
    /// Start from these legs and overwrite all others from them, whatever the superblocks say.
    #[arg(long, requires = "volume", value_delimiter = ',', value_name = "LEG")]
    start_from: Vec<String>,
    /// Copies, where only one leg of two slots is there.
    #[arg(long, requires = "volume")]
    copies: Option<u32>,
    /// The volume's name, where the labels of its partitions are too short for it.
    #[arg(long, requires = "volume")]
    name: Option<String>,
    /// Begin with this epoch or a later one, where somebody knows of one that no leg was told of.
    #[arg(long, requires = "volume", default_value_t = 1)]
    epoch_at_least: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Yaml,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Fs {
    Xfs,
    Ext4,
    None,
}

impl Args {
    fn options(&self) -> Options {
        Options {
            name: self.name.clone(),
            copies: self.copies,
            filesystem: self.filesystem.map(|fs| match fs {
                Fs::Xfs => Filesystem::Xfs,
                Fs::Ext4 => Filesystem::Ext4,
                Fs::None => Filesystem::None,
            }),
            policy: self.policy.clone(),
            accept_missing: self.accept_missing_legs,
            start_from: self.start_from.iter().cloned().collect(),
            epoch_at_least: self.epoch_at_least,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// What could not be read or made; and where a volume was refused, so that a script notices.
pub async fn run(client: &Client, args: &Args) -> anyhow::Result<()> {
    let mut cluster = read::cluster(client).await?;
    if let Some(volume) = &args.volume {
        cluster.found = read::only(&cluster.found, volume);
    }
    let plans = read::plans(&cluster, &args.options());
    let unfinished: Vec<&MeshVolume> = cluster
        .unfinished
        .iter()
        .filter(|v| args.volume.as_ref().is_none_or(|name| v.metadata.name.as_ref() == Some(name)))
        .collect();
    match args.output {
        Output::Table => print!("{}", show::text(&plans, &unfinished)),
        Output::Yaml => {
            for volume in plans.iter().filter_map(|plan| plan.made.as_ref().ok()) {
                print!("---\n{}", serde_norway::to_string(volume).context("write a MeshVolume as YAML")?);
            }
        }
    }
    ensure!(args.volume.is_none() || !plans.is_empty() || !unfinished.is_empty(), "no such volume was found");
    if args.apply {
        let whole = plans.iter().filter_map(|plan| plan.made.as_deref().ok());
        for volume in unfinished.into_iter().chain(whole) {
            for line in apply::apply(client, volume).await? {
                println!("{line}");
            }
        }
    } else {
        eprintln!("Nothing was changed; --apply makes the objects.");
    }
    let refused = plans.iter().filter(|plan| plan.made.is_err()).count();
    if refused > 0 {
        bail!("{refused} of {} were refused", plans.len());
    }
    Ok(())
}
