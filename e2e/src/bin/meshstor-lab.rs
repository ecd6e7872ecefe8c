//! `meshstor-lab`: brings the lab up, and shows the demo or measures in it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Parser, Subcommand, ValueEnum};
use meshstor_e2e::bench::safety::Part;
use meshstor_e2e::control_plane::Audit;
use meshstor_e2e::guest::agent_of;
use meshstor_e2e::kubelet::Kubelet;
use meshstor_e2e::lab::{Lab, Options};
use meshstor_e2e::prerequisites::{Prerequisites, results_directory};
use meshstor_e2e::process::{run, tail};
use meshstor_e2e::remote::{self, Switch};
use meshstor_e2e::wait::{Look, secs, wait_for};
use meshstor_e2e::{artifacts, bench, demo, netns, say};
use serde::{Deserialize, Serialize};

/// A MeshStor cluster of real kernels and a real control plane on this machine. Needs root; leaves nothing behind.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand, Clone)]
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
        /// Measure this part of the area `safety` alone, into `target/bench/safety-<part>.json`.
        #[arg(long, value_enum)]
        part: Option<Part>,
    },
    /// Ends the lab that `demo --keep` or `up` kept.
    DemoDown,
    /// Runs a shell command on a node of the lab that is kept: its console, so to say.
    On {
        /// Name of the node.
        node: String,
        /// The command; several words are one line.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Cuts the power of a node of the lab that is kept, or gives it back.
    Power {
        /// Name of the node.
        node: String,
        /// Off is a power cut; on boots it with its old drives and starts its daemon.
        #[arg(value_enum)]
        state: State,
    },
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A power cut.
    Off,
    /// Power again.
    On,
}

#[derive(ValueEnum, Clone, Copy)]
enum Area {
    /// A volume, against the same done by hand.
    Volume,
    /// One decision of the operator in a large cluster; needs no lab.
    Placement,
    /// Fifty legs between two nodes, against the same done by hand.
    ManyLegs,
    /// The writes that a volume's life costs the API server.
    ApiWritesPerLife,
    /// Stalls, fail-over, returns and rebuilds, and acknowledged writes that are lost.
    Safety,
    /// A node with twenty volumes that is emptied, and a hot replace beside those who use the volume.
    Drain,
    /// The operator with 300 volumes on 30 simulated nodes.
    #[value(name = "operator-300")]
    Operator300,
}

impl Area {
    /// Its name on the command line and of its files.
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The lab that it needs.
    fn lab(self) -> Options {
        match self {
            Self::Volume | Self::Placement | Self::Safety => Options::default(),
            Self::ManyLegs => Options { guests: 2, ..Options::default() },
            Self::ApiWritesPerLife => Options { audit: Audit::Everything, ..Options::default() },
            Self::Drain => Options { guests: 4, drive_bytes: 12 << 30, audit: Audit::Everything, ..Options::default() },
            Self::Operator300 => Options { guests: 0, audit: Audit::Everything, ..Options::default() },
        }
    }

    fn measure(self, lab: &mut Lab, part: Option<Part>) -> Result<()> {
        let report = match self {
            Self::Safety => bench::safety::run(lab, part)?,
            Self::Volume => bench::volume::run(lab)?.into(),
            Self::Placement => bench::placement::run()?.into(),
            Self::ManyLegs => bench::many_legs::run(lab)?.into(),
            Self::ApiWritesPerLife => bench::life::run(lab)?,
            Self::Drain => bench::drain::run(lab)?,
            Self::Operator300 => bench::operator::run(lab)?,
        };
        let part = part.and_then(|part| part.to_possible_value()).map(|value| format!("-{}", value.get_name()));
        write_report(&(self.name() + &part.unwrap_or_default()), &report)
    }
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
    let (name, keep) = match action.clone() {
        Action::Demo { keep } => ("demo", keep),
        Action::Up => ("lab", true),
        Action::Bench { area, part: Some(_) } if !matches!(area, Area::Safety) => {
            return finish("bench", Err(anyhow!("--part is for the area safety")));
        }
        Action::Bench { area: Area::Placement, .. } => return finish("bench", measure_placement()),
        Action::Bench { .. } => ("bench", false),
        Action::DemoDown => return finish("demo-down", down()),
        Action::On { node, command } => return quietly(shell(&node, &command.join(" "))),
        Action::Power { node, state } => {
            return quietly(remote::ask(&Switch { node, on: state == State::On }).map(|()| ExitCode::SUCCESS));
        }
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
    match show(name, keep, action) {
        Ok(Some(lab)) => keep_lab(name, lab),
        outcome => {
            let word = if outcome.is_err() { "failed" } else { "ok" };
            let code = finish(name, outcome.map(drop));
            mark(name, word);
            code
        }
    }
}

/// Serves a lab until somebody ends this process.
fn keep_lab(name: &str, mut lab: Lab) -> ExitCode {
    let code = finish(name, Ok(()));
    say_kept(name);
    mark(name, "ok");
    // Without kubelets nobody could try `kubectl drain`: a guard's pod would never run.
    let served = Kubelet::start(&lab).and_then(|_kubelet| remote::serve(&mut lab, || Ok(false)));
    match served {
        Ok(()) => code,
        Err(error) => finish(name, Err(error)),
    }
}

/// Does what is asked for; gives the lab if it is kept.
fn show(name: &str, keep: bool, action: Action) -> Result<Option<Lab>> {
    netns::set_up()?;
    if keep {
        netns::join_outer_network()?;
    }
    let options = if let Action::Bench { area, .. } = &action { area.lab() } else { Options::default() };
    let mut lab = Lab::up(Prerequisites::find()?, name, options)?;
    let outcome = match action {
        Action::Demo { .. } => demo::run(&mut lab),
        Action::Bench { area, part } => area.measure(&mut lab, part),
        _ => demo::show(&lab),
    };
    if outcome.is_err() {
        let dir = lab.dir.join("failure");
        artifacts::collect(&lab, &dir)?;
        say!("logs, kernel logs and objects are in {}", dir.display());
    }
    outcome.map(|()| keep.then_some(lab))
}

/// Runs a command on a node, as if it were run here.
fn shell(node: &str, command: &str) -> Result<ExitCode> {
    let answer = agent_of(node)?.shell(command, secs(600))?;
    print!("{}", answer.stdout);
    eprint!("{}", answer.stderr);
    Ok(ExitCode::from(u8::try_from(answer.code).unwrap_or(1)))
}

/// The end of a command that says nothing if all is well.
fn quietly(outcome: Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        eprintln!("meshstor-lab: {error:#}");
        ExitCode::FAILURE
    })
}

fn measure_placement() -> Result<()> {
    write_report(&Area::Placement.name(), &bench::placement::run()?.into())
}

fn write_report(name: &str, report: &bench::Report) -> Result<()> {
    bench::write(&results_directory()?.with_file_name("bench"), name, report)
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
        println!("  export PATH={}:{}:$PATH", found.kube.display(), found.bins.display());
        println!("  export KUBECONFIG={}", dir.join(name).join("admin.kubeconfig").display());
        println!("  kubectl get meshstor");
        println!("  meshstor-lab on n1 cat /proc/mdstat");
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
