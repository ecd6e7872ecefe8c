//! `meshstor-lab`: brings the lab up, and shows the demo or measures in it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use meshstor_e2e::lab::{Lab, Options};
use meshstor_e2e::prerequisites::{Prerequisites, results_directory};
use meshstor_e2e::process::{run, tail};
use meshstor_e2e::wait::{Look, pause, secs, wait_for};
use meshstor_e2e::{artifacts, bench, demo, netns, say};
use serde::{Deserialize, Serialize};

/// A MeshStor cluster of real kernels and a real control plane on this machine. Needs root; leaves nothing behind.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand, Clone, Copy)]
enum Action {
    /// Shows a volume's life with a power cut in it; the lab is ended after it.
    Demo {
        /// Keep the lab, for kubectl; `demo-down` ends it.
        #[arg(long)]
        keep: bool,
    },
    /// Brings a lab up and keeps it; `demo-down` ends it.
    Up,
    /// Measures an area and writes `target/bench/<area>.json` and a table beside it.
    Bench {
        /// What to measure.
        #[arg(long, value_enum, default_value = "volume")]
        area: Area,
    },
    /// Ends the lab that `demo --keep` or `up` kept.
    DemoDown,
}

#[derive(ValueEnum, Clone, Copy)]
enum Area {
    /// A volume, against the same done by hand.
    Volume,
    /// One decision of the operator in a large cluster; needs no lab.
    Placement,
}

/// The lab that is kept: the process that holds its namespaces.
#[derive(Serialize, Deserialize)]
struct Kept {
    pid: u32,
    /// Field 22 of `/proc/<pid>/stat`: a process id may be used again.
    started: String,
}

fn main() -> ExitCode {
    meshstor_e2e::wait::since_start();
    let action = Arguments::parse().command;
    let (name, keep) = match action {
        Action::Demo { keep } => ("demo", keep),
        Action::Up => ("lab", true),
        Action::Bench { area: Area::Placement } => return finish("bench", measure_placement()),
        Action::Bench { .. } => ("bench", false),
        Action::DemoDown => return finish("demo-down", down()),
    };
    if netns::is_inside() {
        return inside(name, keep, action);
    }
    if let Err(error) = Prerequisites::find() {
        return finish(name, Err(error));
    }
    if keep { finish_beside(name) } else { finish(name, Err(netns::enter())) }
}

/// In the namespaces: the lab, and what is done in it.
fn inside(name: &str, keep: bool, action: Action) -> ExitCode {
    let outcome = show(name, keep, action);
    let failed = outcome.is_err();
    let code = finish(name, outcome);
    if keep && !failed {
        say_kept(name);
        mark(name, "ok");
        loop {
            pause(secs(3600));
        }
    }
    mark(name, if failed { "failed" } else { "ok" });
    code
}

fn show(name: &str, keep: bool, action: Action) -> Result<()> {
    netns::set_up()?;
    if keep {
        netns::join_outer_network()?;
    }
    let mut lab = Lab::up(Prerequisites::find()?, name, Options::default())?;
    let outcome = match action {
        Action::Demo { .. } => demo::run(&mut lab),
        Action::Bench { .. } => bench::volume::run(&lab).and_then(|rows| write_table("volume", &rows)),
        Action::Up | Action::DemoDown => demo::show(&lab),
    };
    if outcome.is_err() {
        let dir = lab.dir.join("failure");
        artifacts::collect(&lab, &dir)?;
        say!("logs, kernel logs and objects are in {}", dir.display());
    } else if keep {
        // The lab lives as long as this process.
        std::mem::forget(lab);
    }
    outcome
}

fn measure_placement() -> Result<()> {
    write_table("placement", &bench::placement::run()?)
}

fn write_table(area: &str, rows: &[bench::Row]) -> Result<()> {
    bench::write(&results_directory()?.with_file_name("bench"), area, rows)
}

fn finish(name: &str, outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => {
            println!("{name}: ok");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{name}: FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What to paste into a shell; both paths hold on the machine outside.
fn say_kept(name: &str) {
    if let (Ok(dir), Ok(found)) = (results_directory(), Prerequisites::find()) {
        println!("The lab is kept; `make demo-down` ends it. To look around:");
        println!("  export PATH={}:$PATH", found.kube.display());
        println!("  export KUBECONFIG={}", dir.join(name).join("admin.kubeconfig").display());
        println!("  kubectl get meshstor");
    }
}

fn mark(name: &str, outcome: &str) {
    if let Ok(file) = outcome_file(name) {
        // If this cannot be written the process outside learns it from our end.
        let _ = std::fs::write(file, outcome);
    }
}

fn outcome_file(name: &str) -> Result<PathBuf> {
    Ok(results_directory()?.join(format!("{name}.outcome")))
}

fn kept_file() -> Result<PathBuf> {
    Ok(results_directory()?.join("kept.json"))
}

/// Outside, for a lab that is kept: starts it, and waits until it is up or has failed.
fn finish_beside(name: &str) -> ExitCode {
    match beside(name) {
        Ok(code) => code,
        Err(error) => finish(name, Err(error)),
    }
}

fn beside(name: &str) -> Result<ExitCode> {
    if let Some(kept) = read_kept()? {
        bail!("a lab is kept already (process {}); meshstor-lab demo-down ends it", kept.pid);
    }
    let file = outcome_file(name)?;
    std::fs::create_dir_all(results_directory()?)?;
    std::fs::write(&file, "")?;
    netns::unlink()?;
    let log = results_directory()?.join(format!("{name}.log"));
    let mut child = netns::enter_beside(&File::create(&log)?)?;
    let kept = Kept { pid: child.id(), started: started(child.id()).context("the lab's process has ended")? };
    std::fs::write(kept_file()?, serde_json::to_vec(&kept)?)?;
    let mut shown = File::open(&log)?;
    let outcome = wait_for("the lab", secs(1800), || {
        let outcome = outcome(&mut child, &file);
        // The lab outlives this process, so its output goes to a file: a pipe would keep whoever reads ours waiting for ever.
        std::io::copy(&mut shown, &mut std::io::stdout())?;
        outcome
    })?;
    if outcome == "ok" {
        return Ok(ExitCode::SUCCESS);
    }
    forget_kept()?;
    Ok(ExitCode::FAILURE)
}

fn forget_kept() -> Result<()> {
    match std::fs::remove_file(kept_file()?) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn outcome(child: &mut Child, file: &Path) -> Result<Look<String>> {
    let text = tail(file, 1);
    Ok(if text.is_empty() && child.try_wait()?.is_none() {
        Look::NotYet("still at it".to_owned())
    } else {
        Look::Done(text)
    })
}

fn read_kept() -> Result<Option<Kept>> {
    let Ok(bytes) = std::fs::read(kept_file()?) else { return Ok(None) };
    let kept: Kept = serde_json::from_slice(&bytes)?;
    Ok((started(kept.pid).as_ref() == Some(&kept.started)).then_some(kept))
}

/// When a process started, in ticks since boot; nothing of one that has ended, whether or not its parent has taken note.
fn started(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    (fields.next()? != "Z").then(|| fields.nth(18).map(str::to_owned))?
}

fn down() -> Result<()> {
    let Some(kept) = read_kept()? else {
        println!("no lab is kept");
        return Ok(());
    };
    // --kill-child: with this process goes the first process inside, and with that everything.
    run(std::process::Command::new("kill").args(["-9", &kept.pid.to_string()]))?;
    wait_for("the lab to be gone", secs(30), || {
        let there = started(kept.pid).as_ref() == Some(&kept.started);
        Ok(if there { Look::NotYet("it is still there".to_owned()) } else { Look::Done(()) })
    })?;
    netns::unlink()?;
    forget_kept()
}
