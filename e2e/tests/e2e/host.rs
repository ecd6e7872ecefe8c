//! The node daemon's own tests of its seam to the kernel, in guests: the half of its unit tests that needs real kernels.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use meshstor_e2e::agent::{Agent, Request};
use meshstor_e2e::guest::Guest;
use meshstor_e2e::lab::Lab;
use meshstor_e2e::process::run;
use meshstor_e2e::say;
use meshstor_e2e::uml::Uml;
use serde_json::Value;

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("host_conformance_on_a_real_kernel", |lab| in_guests(lab, "conformance_suite", &["store"])),
    ("host_seam_between_two_real_kernels", |lab| in_guests(lab, "two_guests", &["store", "app"])),
];

/// Numbers of the first guest: beside those of the lab, which goes on meanwhile.
const FIRST: u8 = 21;
const DRIVE_BYTES: u64 = 1 << 30;
/// How long one such test may take.
const LIMIT: Duration = Duration::from_secs(240);

/// Runs one ignored test of the daemon's library at once in as many guests as it has parts.
fn in_guests(lab: &mut Lab, test: &str, parts: &[&str]) -> Result<()> {
    let found = lab.prerequisites();
    let binary = library_tests(&found.repo)?;
    let dir = lab.dir.join(test);
    std::fs::remove_dir_all(&dir).ok();
    let runner = Arc::new(Uml { kernel: found.kernel.clone(), root: found.root.clone() });
    let mut guests = Vec::new();
    for number in (FIRST..).take(parts.len()) {
        let mut guest = Guest::new(found, &dir, number, DRIVE_BYTES, runner.clone())?;
        // One more drive, which somebody else uses.
        let foreign = guest.machine.dir.join("foreign");
        std::fs::File::create(&foreign)?.set_len(DRIVE_BYTES)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&foreign))?;
        guest.machine.disks.push(foreign);
        guests.push(guest);
    }
    let share = guests[0].machine.share.clone();
    std::fs::copy(&binary, share.join("host-tests")).with_context(|| format!("copy {}", binary.display()))?;
    for guest in &mut guests {
        guest.machine.share.clone_from(&share);
        guest.power_on()?;
    }
    guests.iter_mut().try_for_each(Guest::wait_until_up)?;

    let store = guests[0].machine.ip.to_string();
    let threads: Vec<_> = guests
        .iter()
        .zip(parts)
        .map(|(guest, part)| {
            let script = format!(
                "MESHSTOR_SHARE=/run/share MESHSTOR_STORE={store} MESHSTOR_PART={part} /run/share/host-tests --ignored --exact \
                 host::real::guest_tests::{test} --nocapture > /run/share/logs/{part}.log 2>&1"
            );
            let agent = guest.agent();
            std::thread::spawn(move || ended(agent, script))
        })
        .collect();
    let outcomes: Vec<_> = threads.into_iter().zip(parts).map(|(thread, part)| (part, thread.join())).collect();
    for (part, outcome) in outcomes {
        let log = std::fs::read_to_string(share.join(format!("logs/{part}.log"))).unwrap_or_default();
        let passed = matches!(outcome, Ok(Ok(0))) && log.contains("1 passed");
        if !passed {
            bail!("{test}, part {part}: {outcome:?}\n{log}");
        }
        say!("{part}: {}", log.lines().find(|line| line.starts_with("test result")).unwrap_or_default());
    }
    guests.iter().try_for_each(|guest| crate::check_kernel(guest, ""))
}

fn ended(agent: Agent, script: String) -> Result<i32> {
    let argv = ["sh".to_owned(), "-c".to_owned(), script].to_vec();
    Ok(agent.ask(&Request::Exec { argv, env: std::collections::BTreeMap::new(), stdin: String::new() }, LIMIT)?.code)
}

/// The executable of the daemon's unit tests, built with the same features as in `make test-fast`.
fn library_tests(repo: &std::path::Path) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let selection = ["--workspace", "--lib", "--no-run", "--message-format=json"];
    let mut command = Command::new(cargo);
    // What cargo told this test about its own package would make build scripts run again.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|p| text.starts_with(p)) {
            command.env_remove(&name);
        }
    }
    let printed = run(command.current_dir(repo).args(["test", "--locked", "--offline"]).args(selection))?;
    let messages = printed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut ours = messages.filter(|m| m["target"]["name"] == "meshstor_node_daemon" && m["profile"]["test"] == true);
    let path = ours.find_map(|m| m["executable"].as_str().map(PathBuf::from));
    path.context("cargo names the executable of the daemon's unit tests")
}
