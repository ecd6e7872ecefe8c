//! User-Mode Linux as the runner of guests.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::guest::{Machine, Runner};
use crate::process::Process;

/// Starts guests as processes of the machine itself.
pub struct Uml {
    /// The kernel, an executable, of guests that have none of their own.
    pub kernel: PathBuf,
    /// The root directory of all guests, which they cannot write to.
    pub root: PathBuf,
}

impl Runner for Uml {
    fn start(&self, machine: &Machine) -> Result<Process> {
        let dir = &machine.dir;
        let mut command = Command::new(machine.kernel.as_ref().unwrap_or(&self.kernel));
        command
            // Guest memory is a file there, and must be executable.
            .env("TMPDIR", "/dev/shm")
            .args([
                "root=/dev/root",
                "rootfstype=hostfs",
                "ro",
                "init=/sbin/meshstor-init",
                "seccomp=on",
                "ncpus=2",
                "quiet",
            ])
            .args(["con=null", "con0=fd:0,fd:1", "null_blk.nr_devices=0"])
            .arg(format!("rootflags={}", self.root.display()))
            .arg(format!("mem={}M", machine.memory_mib))
            // gro: without it GSO frames are dropped; depths above 64 warn. A fixed address, as hardware has: with a new one
            // after each reboot the neighbours' ARP caches would lead astray for many seconds.
            .arg(format!("vec0:transport=tap,ifname={},mac={},depth=64,gro=1", machine.tap, machine.mac))
            .args(machine.disks.iter().enumerate().map(|(n, disk)| format!("ubd{n}={}", disk.display())))
            .arg(format!("uml_dir={}/uml/", dir.display()))
            .arg(format!("umid={}", machine.name))
            .arg(format!("meshstor.node={}", machine.name))
            .arg(format!("meshstor.ip={}/{}", machine.ip, crate::netns::PREFIX))
            .arg(format!("meshstor.share={}", machine.share.display()))
            .args(&machine.kernel_arguments);
        Process::start(&machine.name, &mut command, &machine.console())
    }
}
