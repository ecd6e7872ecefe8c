//! End-to-end tests: real kernels, a real control plane, the real operator and daemons. `README` of `e2e/` says how to run them.
//!
//! Two labs serve all tests (`MESHSTOR_LABS`), each one after another, each test with volumes of its own. Around each test its runner
//! proves that it left nothing on any node and that no kernel complained. A test that fails leaves what a person needs in
//! `target/e2e/<test>/`, and the next one gets a new lab.

mod back;
mod chaos;
mod crashes;
mod doomed;
mod door;
mod drain;
mod drives;
mod errors;
mod evacuation;
mod events;
mod failover;
mod faults;
mod fleet;
mod gitops;
mod halves;
mod host;
mod idle;
mod kernels;
mod leaders;
mod life;
mod matrix;
mod neighbours;
mod nodes;
mod outage;
mod placement;
mod quarantine;
mod reboots;
mod rebuild;
mod replacement;
mod shapes;
mod tutorial;
mod workers;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use libtest_mimic::{Arguments, Failed, Trial};
use meshstor_e2e::control_plane::Audit;
use meshstor_e2e::guest::Guest;
use meshstor_e2e::lab::{Lab, Options};
use meshstor_e2e::prerequisites::Prerequisites;
use meshstor_e2e::{artifacts, netns, say};

/// A test: its name, and what it does in a lab in which every node is ready.
type Test = (&'static str, fn(&mut Lab) -> Result<()>);

/// Without the daemons' slow sweep: whatever a test waits for must be told to them.
fn options() -> Options {
    Options { guests: 3, drive_bytes: 3 << 30, full_look: Some(86_400), audit: Audit::Ours, ..Options::default() }
}

/// What a kernel says when something is wrong with it.
const COMPLAINTS: [&str; 7] = ["BUG:", "WARNING:", "Oops", "Call Trace", "blocked for more than", "KASAN", "UBSAN"];

fn main() -> ExitCode {
    if let Some(number) = workers::number() {
        return work(number, &tests(&matrix::every()));
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(workers::labs());
    if !arguments.list
        && let Err(error) = Prerequisites::find()
    {
        eprintln!("e2e: {error:#}");
        return ExitCode::FAILURE;
    }
    let matrix = match matrix::tests(arguments.filter.is_some() || arguments.list) {
        Ok(tests) => tests,
        Err(error) => {
            eprintln!("e2e: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let pool = Arc::new(workers::Pool::new(matrix::settings()));
    let long = std::env::var_os("MESHSTOR_LONG").is_some();
    let asked = |(name, _): &Test| long || fleet::TESTS.iter().chain(errors::TESTS).all(|(other, _)| other != name);
    let trial = |(name, _): Test| {
        let pool = Arc::clone(&pool);
        Trial::test(name, move || pool.run(name).map_err(|error| Failed::from(format!("{error:#}"))))
    };
    let conclusion = libtest_mimic::run(&arguments, tests(&matrix).into_iter().filter(asked).map(trial).collect());
    drop(pool);
    matrix::conclude();
    conclusion.exit_code()
}

fn tests(matrix: &[Test]) -> Vec<Test> {
    [
        life::TESTS,
        shapes::TESTS,
        kernels::TESTS,
        faults::TESTS,
        failover::TESTS,
        reboots::TESTS,
        back::TESTS,
        crashes::TESTS,
        halves::TESTS,
        chaos::TESTS,
        doomed::TESTS,
        errors::TESTS,
        matrix,
        neighbours::TESTS,
        nodes::TESTS,
        placement::TESTS,
        replacement::TESTS,
        leaders::TESTS,
        events::TESTS,
        outage::TESTS,
        host::TESTS,
        drives::TESTS,
        door::TESTS,
        drain::TESTS,
        evacuation::TESTS,
        fleet::TESTS,
        idle::TESTS,
        gitops::TESTS,
        tutorial::TESTS,
        rebuild::TESTS,
        quarantine::TESTS,
    ]
    .concat()
}

/// Runs the tests that are named to this process, in a lab of its own.
fn work(number: usize, tests: &[Test]) -> ExitCode {
    if let Err(error) = prepare() {
        eprintln!("e2e: {error:#}");
        return ExitCode::FAILURE;
    }
    let directory = format!("suite-{number}");
    let mut slot = None;
    workers::serve(|wanted| {
        let (name, test) = tests.iter().find(|(name, _)| *name == wanted).context("it is no test")?;
        let outcome = run(&mut slot, &directory, name, *test);
        if let Err(error) = &outcome {
            say!("{name} failed: {error:#}");
            keep_artifacts(slot.take(), name);
        }
        outcome
    })
}

/// Moves this process into namespaces of its own; the process outside never comes back from here.
fn prepare() -> Result<()> {
    if netns::is_inside() { netns::set_up() } else { Err(netns::enter()) }
}

fn run(slot: &mut Option<Lab>, directory: &str, name: &str, test: fn(&mut Lab) -> Result<()>) -> Result<()> {
    if slot.is_none() {
        *slot = Some(Lab::up(Prerequisites::find()?, directory, options())?);
    }
    let lab = slot.as_mut().context("the lab is up")?;
    say!("== {name}");
    let mark = format!("meshstor-e2e: {name} begins");
    for guest in lab.guests() {
        guest.shell(&format!("echo '{mark}' > /dev/kmsg"))?;
    }
    let before = lab.footprints()?;
    test(lab)?;
    lab.wait_for_footprints(&before)?;
    lab.check_processes()?;
    check_kernels(lab, &mark)
}

/// No kernel complained since `mark`, or since its boot.
fn check_kernels(lab: &Lab, mark: &str) -> Result<()> {
    lab.guests().iter().try_for_each(|guest| check_kernel(guest, mark))
}

/// One kernel; an empty mark means since its boot.
pub(crate) fn check_kernel(guest: &Guest, mark: &str) -> Result<()> {
    let log = guest.dmesg()?;
    let recent = log.rsplit_once(mark).filter(|_| !mark.is_empty()).map_or(log.as_str(), |(_, recent)| recent);
    if let Some(complaint) = recent.lines().find(|line| COMPLAINTS.iter().any(|c| line.contains(c))) {
        bail!("the kernel of {} complained: {complaint}", guest.name());
    }
    Ok(())
}

fn keep_artifacts(lab: Option<Lab>, name: &str) {
    let Some(lab) = lab else { return };
    let dir = lab.dir.with_file_name(name);
    match artifacts::collect(&lab, &dir) {
        Ok(()) => say!("logs, kernel logs and objects of {name} are in {}", dir.display()),
        Err(error) => say!("the logs, kernel logs and objects of {name} could not be kept: {error:#}"),
    }
}
