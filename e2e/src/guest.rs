//! Guests: nodes with a kernel of their own, drives that outlive their power, and a share through which the harness reaches them.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;

use crate::agent::{Agent, Answer, Request};
use crate::drive::mount::Mounted;
use crate::drive::{Drive, DriveKind, Loss, Survival};
use crate::netns;
use crate::prerequisites::Prerequisites;
use crate::process::Process;
use crate::wait::{Look, secs, wait_for};

/// How long any program in a guest may take by default.
pub const TIMEOUT: Duration = secs(60);
/// Drives of a guest.
const DRIVES: usize = 2;

/// The hardware of one guest.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Name of the node.
    pub name: String,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its hardware address.
    pub mac: String,
    /// Its tap on the bridge.
    pub tap: String,
    /// Its directory.
    pub dir: PathBuf,
    /// Its drives: files.
    pub disks: Vec<PathBuf>,
    /// Directory that the guest sees as `/run/share`.
    pub share: PathBuf,
    /// Its memory.
    pub memory_mib: u32,
    /// A kernel of its own, instead of the runner's: see [`Prerequisites::named_kernel`]. It boots it when it is next powered on.
    pub kernel: Option<PathBuf>,
    /// Further words of the kernel's command line.
    pub kernel_arguments: Vec<String>,
}

impl Machine {
    /// Log of its console.
    pub fn console(&self) -> PathBuf {
        self.dir.join(format!("{}.console.log", self.name))
    }
}

/// Address of node `n<number>`.
fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 10 + number)
}

/// The agent of a node of the lab that runs on this machine, by the node's name.
pub fn agent_of(node: &str) -> Result<Agent> {
    let number = node.strip_prefix('n').and_then(|number| number.parse().ok()).filter(|number| *number < 240);
    Ok(Agent::new(address(number.with_context(|| format!("{node} is no node of a lab: they are n1, n2, …"))?)))
}

/// What can run a machine: User-Mode Linux here; QEMU with KVM would be another.
pub trait Runner: Send + Sync {
    /// Powers the machine on. The process is the machine: killing it is a power cut.
    fn start(&self, machine: &Machine) -> Result<Process>;
    /// Puts a drive into a slot behind those of the machine, while it runs.
    fn plug(&self, machine: &Machine, slot: usize, drive: &std::path::Path) -> Result<()>;
    /// Takes the drive out of the slot.
    fn unplug(&self, machine: &Machine, slot: usize) -> Result<()>;
}

/// A machine and, while it is on, its process.
pub struct Guest {
    /// Its hardware.
    pub machine: Machine,
    runner: Arc<dyn Runner>,
    process: Option<Process>,
    /// What a power cut leaves of what its volatile drives had not flushed.
    pub survival: Survival,
    /// Its volatile drives; none if they are plain files.
    drives: Vec<Arc<Drive>>,
    mounted: Option<Mounted>,
    losses: Vec<Loss>,
    /// Of one thread at a time: a test may kill daemons beside what it does.
    daemon: Mutex<Option<i32>>,
}

impl Guest {
    /// Makes drives, share and tap of node `n<number>`; it is off.
    pub fn new(
        found: &Prerequisites,
        dir: &std::path::Path,
        number: u8,
        drive_bytes: u64,
        runner: Arc<dyn Runner>,
    ) -> Result<Self> {
        let name = format!("n{number}");
        let dir = dir.join(&name);
        std::fs::create_dir_all(dir.join("share/logs"))?;
        std::fs::create_dir_all(dir.join("uml"))?;
        let disks = images(&dir);
        for disk in &disks {
            File::create(disk)?.set_len(drive_bytes)?;
        }
        for (program, link) in [
            ("meshstor-guest-agent", "agent"),
            ("meshstor-node-daemon", "meshstor-node-daemon"),
            ("meshstor-verify-writer", "writer"),
            ("meshstor-poller", "poller"),
        ] {
            std::fs::copy(found.bins.join(program), dir.join("share").join(link))
                .with_context(|| format!("copy {program}"))?;
        }
        let machine = Machine {
            ip: address(number),
            mac: format!("02:4d:53:00:00:{number:02x}"),
            tap: format!("ms-{name}"),
            name,
            share: dir.join("share"),
            dir,
            disks,
            memory_mib: 512,
            kernel: None,
            kernel_arguments: Vec::new(),
        };
        netns::add_tap(&machine.tap)?;
        Ok(Self {
            machine,
            runner,
            process: None,
            survival: Survival::Nothing,
            drives: Vec::new(),
            mounted: None,
            losses: Vec::new(),
            daemon: Mutex::default(),
        })
    }

    /// Makes its drives, while it is off, of a kind; what is on them stays.
    pub fn set_drives(&mut self, kind: DriveKind) -> Result<()> {
        ensure!(self.process.is_none(), "{} is on", self.machine.name);
        let images = images(&self.machine.dir);
        self.mounted = None;
        self.drives.clear();
        let paths = match kind {
            DriveKind::Plain => images,
            DriveKind::Volatile => {
                for image in &images {
                    let file = File::options().read(true).write(true).open(image)?;
                    self.drives.push(Drive::new(file)?);
                }
                let mounted = Mounted::new(&self.machine.dir.join("drives"), self.drives.clone())?;
                let paths = (0..DRIVES).map(|number| mounted.path(number)).collect();
                self.mounted = Some(mounted);
                paths
            }
        };
        self.machine.disks.splice(..DRIVES, paths);
        Ok(())
    }

    /// One of its volatile drives.
    pub fn drive(&self, number: usize) -> Result<&Arc<Drive>> {
        self.drives.get(number).with_context(|| format!("{} has no volatile drive {number}", self.machine.name))
    }

    /// What the last power cut took, for each volatile drive.
    pub fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// Name of the node.
    pub fn name(&self) -> &str {
        &self.machine.name
    }

    /// Powers it on, without waiting.
    pub fn power_on(&mut self) -> Result<()> {
        self.drives.iter().for_each(|drive| drive.power_on());
        self.process = Some(self.runner.start(&self.machine)?);
        Ok(())
    }

    /// Waits until its agent answers.
    pub fn wait_until_up(&mut self) -> Result<()> {
        let agent = self.agent();
        let process = self.process.as_mut().context("the guest is off")?;
        wait_for(
            &format!("{} to boot (console: {})", self.machine.name, self.machine.console().display()),
            secs(60),
            || {
                process.check()?;
                agent.shell("true", secs(5)).map(|_| Look::Done(()))
            },
        )
    }

    /// A power cut: nothing in the guest gets to do anything any more, and what its volatile drives had not flushed is gone.
    pub fn cut_power(&mut self) -> Result<()> {
        self.set_daemon(None);
        let mut process = self.process.take().with_context(|| format!("{} is off already", self.machine.name))?;
        // Killed before its drives answer what they hold, so that no answer is ever seen; gone only after.
        process.begin_kill()?;
        self.losses = self.drives.iter().map(|drive| drive.cut(self.survival)).collect::<std::io::Result<_>>()?;
        process.kill().map(drop)
    }

    /// Stops it in the middle of whatever it does: nothing in it runs, and it does not answer, until [`Guest::thaw`].
    pub fn freeze(&self) -> Result<()> {
        self.process()?.signal_group(Signal::STOP)
    }

    /// Lets it go on. To it no time has passed but by its clock.
    pub fn thaw(&self) -> Result<()> {
        self.process()?.signal_group(Signal::CONT)
    }

    /// Whether all of its processes on the machine are stopped.
    pub fn is_frozen(&self) -> Result<bool> {
        let group = self.process()?.id().to_string();
        let mut states = Vec::new();
        for entry in std::fs::read_dir("/proc")?.flatten() {
            // One that ends meanwhile, and what is no process, has none.
            let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
            // `pid (name) state parent group …`, and the name may have anything in it.
            let words: Vec<&str> = stat.rsplit_once(") ").map_or(Vec::new(), |(_, rest)| rest.split(' ').collect());
            if words.get(2) == Some(&group.as_str()) {
                states.push(words[0] == "T");
            }
        }
        Ok(!states.is_empty() && states.into_iter().all(|stopped| stopped))
    }

    fn process(&self) -> Result<&Process> {
        self.process.as_ref().with_context(|| format!("{} is off", self.machine.name))
    }

    /// Puts a drive into it while it runs.
    pub fn plug(&self, slot: usize, drive: &std::path::Path) -> Result<()> {
        self.runner.plug(&self.machine, slot, drive)
    }

    /// Takes such a drive out again, which the guest refuses while it uses it.
    pub fn unplug(&self, slot: usize) -> Result<()> {
        self.runner.unplug(&self.machine, slot)
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.process.is_some()
    }

    /// Its process on the machine, the leader of a process group, while it is on.
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Its agent.
    pub fn agent(&self) -> Agent {
        Agent::new(self.machine.ip)
    }

    /// Runs a shell script in it, whatever its exit code.
    pub fn try_shell(&self, script: &str) -> Result<Answer> {
        self.agent().shell(script, TIMEOUT).with_context(|| format!("on {}", self.machine.name))
    }

    /// Runs a shell script in it and gives its output; a failure of the script is an error.
    pub fn shell(&self, script: &str) -> Result<String> {
        let answer = self.try_shell(script)?;
        if answer.code != 0 {
            bail!(
                "on {}: `{script}` ended with {}: {}{}",
                self.machine.name,
                answer.code,
                answer.stdout,
                answer.stderr
            );
        }
        Ok(answer.stdout)
    }

    /// Starts a program in the background; its log is in the share's `logs`.
    pub fn spawn(&self, argv: &[&str], env: BTreeMap<String, String>, log: &str) -> Result<i32> {
        let argv = argv.iter().map(|&a| a.to_owned()).collect();
        Ok(self.agent().ask(&Request::Spawn { argv, env, log: log.to_owned() }, secs(20))?.pid)
    }

    /// Whether a spawned process runs.
    pub fn is_alive(&self, pid: i32) -> Result<bool> {
        Ok(self.agent().ask(&Request::Alive { pid }, secs(20))?.alive)
    }

    /// Sends a signal to a spawned process.
    pub fn kill(&self, pid: i32, signal: i32) -> Result<()> {
        self.agent().ask(&Request::Kill { pid, signal }, secs(20)).map(drop)
    }

    /// Starts the node daemon in its container, with these arguments and this environment.
    ///
    /// On one CPU: User-Mode Linux runs one thread of a process at a time, and on another CPU the next one spins for it in the kernel, which took
    /// a quarter of all the machine's time.
    pub fn start_daemon(&self, args: &[String], env: &BTreeMap<String, String>) -> Result<()> {
        let mut argv =
            vec!["taskset", "--cpu-list", "0", "sh", "/run/share/container", "/run/share/meshstor-node-daemon"];
        argv.extend(args.iter().map(String::as_str));
        self.set_daemon(Some(self.spawn(&argv, env.clone(), "node-daemon.log")?));
        Ok(())
    }

    /// The daemon's process id, if it was started since the guest was.
    pub fn daemon(&self) -> Option<i32> {
        *self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_daemon(&self, pid: Option<i32>) {
        *self.daemon.lock().unwrap_or_else(PoisonError::into_inner) = pid;
    }

    /// Log of its daemon.
    pub fn daemon_log(&self) -> PathBuf {
        self.machine.share.join("logs/node-daemon.log")
    }

    /// `kill -9` of the daemon; waits until it is gone.
    pub fn kill_daemon(&self) -> Result<()> {
        let pid = self.daemon().with_context(|| format!("no daemon runs on {}", self.machine.name))?;
        self.set_daemon(None);
        self.kill(pid, 9)?;
        wait_for("the daemon to be gone", secs(30), || {
            Ok(if self.is_alive(pid)? { Look::NotYet(format!("process {pid} runs")) } else { Look::Done(()) })
        })
    }

    /// The kernel's log.
    pub fn dmesg(&self) -> Result<String> {
        self.shell("dmesg")
    }
}

impl Drop for Guest {
    /// Before its drives go: a guest that waits for one of them would not end. Its own drives go with it: they are gigabytes, and the
    /// next lab begins with empty ones.
    fn drop(&mut self) {
        if self.is_on() {
            let _ = self.cut_power();
        }
        for disk in images(&self.machine.dir) {
            let _ = std::fs::remove_file(disk);
        }
    }
}

/// Images of a guest's own drives.
fn images(dir: &std::path::Path) -> Vec<PathBuf> {
    (0..DRIVES).map(|number| dir.join(format!("disk{number}"))).collect()
}
