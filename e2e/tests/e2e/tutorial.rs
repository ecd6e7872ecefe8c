//! Pages of `docs/`, as a person follows them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use meshstor_e2e::lab::Lab;
use meshstor_e2e::page::{self, Step};
use meshstor_e2e::process::{Process, run, tail};
use meshstor_e2e::remote;
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::secs;

use crate::Test;
use crate::drain::guarded;

pub(crate) const TESTS: &[Test] = &[
    ("tutorial_first_volume", |lab| follow(lab, "docs/tutorial/first-volume.md")),
    ("maintenance_of_a_node_a_rack_and_every_node_in_turn", maintenance),
];

/// How long a whole page may take on two loaded cores.
const TIMEOUT: std::time::Duration = secs(400);

/// I3: what the page says of drains is so, from the first node to the last.
fn maintenance(lab: &mut Lab) -> Result<()> {
    let _kubelet = guarded(lab)?;
    follow(lab, "docs/how-to/take-a-node-down.md")?;
    Volume::named(lab, "kept").wait_gone()?;
    lab.kubectl(&["delete", "rspol", "racks"])?;
    lab.nodes().iter().try_for_each(|node| lab.label_zone(node))
}

/// Each command of the page works, one after another in one shell, and prints what the page says that it prints.
fn follow(lab: &mut Lab, page: &str) -> Result<()> {
    let page = lab.repo().join(page);
    let steps = page::steps(&std::fs::read_to_string(&page)?)?;
    let (by_hand, typed): (Vec<Step>, Vec<Step>) = steps.into_iter().partition(|step| step.by_hand);
    ensure!(typed.len() > 5 && !by_hand.is_empty(), "{} has {} steps", page.display(), typed.len());
    by_hand.iter().try_for_each(|step| check_targets(lab.repo(), step))?;
    let dir = lab.dir.join(page.file_stem().context("a page has a name")?);
    // A directory of an earlier run would show its outputs.
    std::fs::remove_dir_all(&dir).or_else(|error| if dir.exists() { Err(error) } else { Ok(()) })?;
    std::fs::create_dir_all(&dir)?;
    execute(lab, &typed, &dir)?;
    let name = page.file_name().unwrap_or_default().to_string_lossy().into_owned();
    typed.iter().try_for_each(|step| check(step, &dir).with_context(|| format!("{name}, line {}", step.line)))
}

/// What only a person types is at least a target of the Makefile.
fn check_targets(repo: &Path, step: &Step) -> Result<()> {
    for line in step.commands.lines().filter(|line| !line.starts_with("export ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["make", arguments @ ..] = &words[..] else { bail!("line {}: {line:?} could be executed", step.line) };
        run(Command::new("make").current_dir(repo).arg("--dry-run").args(arguments))?;
    }
    Ok(())
}

/// Types everything into one shell, while this lab's nodes can be switched off and on as those of a kept one.
fn execute(lab: &mut Lab, steps: &[Step], dir: &Path) -> Result<()> {
    let mut script = String::new();
    for step in steps {
        script += &format!(
            "exec >{} 2>&1\n{}echo 0 >{}\n",
            output(dir, step).display(),
            step.commands,
            ended(dir, step).display()
        );
    }
    let file = dir.join("page.sh");
    std::fs::write(&file, script)?;
    let found = lab.prerequisites();
    let old = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{}:{old}", found.kube.display(), found.bins.display());
    let mut command = Command::new("timeout");
    command.arg(TIMEOUT.as_secs().to_string()).args(["bash", "-euo", "pipefail"]).arg(&file).current_dir(lab.repo());
    command.env("PATH", path).env("KUBECONFIG", &lab.control.admin);
    let mut shell = Process::start("the page's shell", &mut command, &dir.join("shell.log"))?;
    // Its end is no failure here: which step failed is seen from what each has left.
    remote::serve(lab, || Ok(shell.check().is_err()))
}

fn output(dir: &Path, step: &Step) -> PathBuf {
    dir.join(format!("{}.out", step.line))
}

fn ended(dir: &Path, step: &Step) -> PathBuf {
    dir.join(format!("{}.ok", step.line))
}

fn check(step: &Step, dir: &Path) -> Result<()> {
    let printed = output(dir, step);
    ensure!(ended(dir, step).exists(), "a command failed:\n{}{}", step.commands, tail(&printed, 15));
    step.shown.as_ref().map_or(Ok(()), |shown| page::compare(shown, &std::fs::read_to_string(&printed)?))
}
