//! The namespaces of the lab: network, processes and mounts of its own, so that nothing outlives it.
//!
//! The harness executes itself again under `unshare`; there it is process 1, and when it ends, for whatever reason, the kernel
//! ends everything that it started and removes the bridge, the taps and the memory file systems.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

use crate::partition::LEGS;
use crate::process::run;
use crate::wait::{Look, secs, wait_for, when};

/// Set in the environment of the process inside.
const MARK: &str = "MESHSTOR_LAB_INSIDE";
/// The ports that no connection gets by itself, of the network namespace of whoever writes it.
const RESERVED_PORTS: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
/// Address of the bridge, at which the API server listens.
pub const BRIDGE_IP: &str = "10.77.0.1";
/// Length of the prefix of the lab's network.
pub const PREFIX: u8 = 24;
/// The link to the machine's own network namespace, of a lab that is kept; its name outside and inside.
const OUTER_LINK: (&str, &str) = ("meshstor0", "outer0");
/// Address of the machine in the lab's network, of a lab that is kept.
const OUTER_IP: &str = "10.77.0.254";

/// Whether this process is the one inside.
pub fn is_inside() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Replaces this process by itself inside. Returns only if that fails.
pub fn enter() -> anyhow::Error {
    match unshare() {
        Ok(mut command) => anyhow::Error::from(command.exec()).context("missing prerequisite: unshare"),
        Err(error) => error,
    }
}

/// Starts this executable again inside, with its output in `log` and a link to the machine's own network, and gives the process
/// that holds it.
pub fn enter_beside(log: &File) -> Result<Child> {
    let mut command = unshare()?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?).process_group(0);
    let child = command.spawn().context("missing prerequisite: unshare")?;
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let inner = wait_for("the lab's first process", secs(10), || {
        let pid = std::fs::read_to_string(&children)?.trim().to_owned();
        Ok(if pid.is_empty() || !in_own_namespace(&pid)? {
            Look::NotYet("none yet".to_owned())
        } else {
            Look::Done(pid)
        })
    })?;
    let (outside, inside) = OUTER_LINK;
    ip(&["link", "add", outside, "type", "veth", "peer", "name", inside, "netns", &inner])?;
    ip(&["address", "add", &format!("{OUTER_IP}/{PREFIX}"), "dev", outside])?;
    ip(&["link", "set", outside, "up"])?;
    Ok(child)
}

fn in_own_namespace(pid: &str) -> Result<bool> {
    Ok(std::fs::read_link(format!("/proc/{pid}/ns/net"))? != std::fs::read_link("/proc/self/ns/net")?)
}

fn unshare() -> Result<Command> {
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(MARK, "1");
    Ok(command)
}

/// Sets up the network and the memory file systems inside, and lets SIGINT and SIGTERM end everything.
pub fn set_up() -> Result<()> {
    exit_on_signals()?;
    // Room for the guests' memory, executable, and gone with the namespace.
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=1777,exec,size=75%", "tmpfs", "/dev/shm"]))?;
    // One of them as the near end of a question to a guest's agent, and a partition would cut the answer off.
    std::fs::write(RESERVED_PORTS, LEGS).with_context(|| format!("write {RESERVED_PORTS}"))?;
    ip(&["link", "set", "lo", "up"])?;
    ip(&["link", "add", "ms0", "type", "bridge"])?;
    ip(&["address", "add", &format!("{BRIDGE_IP}/{PREFIX}"), "dev", "ms0"])?;
    ip(&["link", "set", "ms0", "up"])
}

/// Puts the link to the machine's own network on the bridge, once it is there.
pub fn join_outer_network() -> Result<()> {
    let (_, inside) = OUTER_LINK;
    wait_for("the link to the machine's network", secs(10), || {
        // /sys still shows the machine's own network here.
        Ok(when(ip(&["link", "show", inside]).is_ok(), format!("no {inside}")))
    })?;
    ip(&["link", "set", inside, "master", "ms0", "up"])
}

/// Removes the link to a kept lab whose processes are gone. By itself it goes only with the namespace, which the last
/// connections of the dead hold for minutes.
pub fn unlink() -> Result<()> {
    let (outside, _) = OUTER_LINK;
    if Path::new("/sys/class/net").join(outside).exists() { ip(&["link", "delete", outside]) } else { Ok(()) }
}

/// Makes the tap of one guest on the bridge.
pub fn add_tap(name: &str) -> Result<()> {
    // One that an earlier lab of this process left.
    if ip(&["link", "show", name]).is_ok() {
        ip(&["link", "delete", name])?;
    }
    ip(&["tuntap", "add", name, "mode", "tap"])?;
    ip(&["link", "set", name, "master", "ms0", "up"])
}

/// Removes the tap of a guest that is no more.
pub fn remove_tap(name: &str) -> Result<()> {
    ip(&["link", "delete", name])
}

/// Takes a guest's network away or gives it back: a partition that the guest itself cannot see.
pub fn set_tap(name: &str, up: bool) -> Result<()> {
    ip(&["link", "set", name, if up { "up" } else { "down" }])
}

fn ip(args: &[&str]) -> Result<()> {
    run(Command::new("ip").args(args)).map(drop)
}

/// Process 1 of a namespace has no default action for these signals, so Ctrl-C would end nothing.
fn exit_on_signals() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            eprintln!("interrupted: the lab goes away");
            std::process::exit(130);
        });
    });
    Ok(())
}
