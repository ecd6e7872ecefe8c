//! `meshstor`: what a person does that no controller may do by itself. It uses the person's kubeconfig, and its rights.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use kube::Client;
use meshstor_cli::{quarantine, rebuild};

/// MeshStor, for people.
#[derive(Debug, Parser)]
#[command(name = "meshstor", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the objects of volumes again from what their legs on the drives say, after the API server has lost them.
    RebuildObjects(rebuild::Args),
    /// What is on the nodes and belongs to no object.
    #[command(subcommand)]
    Quarantine(quarantine::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let client = Client::try_default().await.context("find the API server")?;
    match args.command {
        Command::RebuildObjects(args) => rebuild::run(&client, &args).await.context("rebuild objects"),
        Command::Quarantine(args) => quarantine::run(&client, &args).await,
    }
}
