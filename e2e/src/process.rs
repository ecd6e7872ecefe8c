//! Processes of the harness: each in its own process group, with its output in a file, ended by its id when dropped.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// A process that the harness started.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; its output is appended to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        if let Some(dir) = log.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let out =
            File::options().create(true).append(true).open(log).with_context(|| format!("open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {name} ({})", command.get_program().to_string_lossy()))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Process id, as in the harness's namespace.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// An error with the end of its log if it is no longer there.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended ({status}):\n{}", self.name, last_words(&self.log, 15));
        }
        Ok(())
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid()?, signal).with_context(|| format!("signal {}", self.name))
    }

    /// Sends a signal to the whole group.
    pub fn signal_group(&self, signal: Signal) -> Result<()> {
        kill_process_group(self.pid()?, signal).with_context(|| format!("signal {}", self.name))
    }

    /// Tells the process to end, and waits until it has.
    pub fn end(&mut self) -> Result<ExitStatus> {
        if self.child.try_wait()?.is_none() {
            self.signal(Signal::TERM)?;
        }
        Ok(self.child.wait()?)
    }

    /// `kill -9` of the whole group, then waits until the process is gone.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.begin_kill()?;
        Ok(self.child.wait()?)
    }

    /// `kill -9` of the whole group without waiting: one that waits for a file system of ours dies when it is answered.
    pub fn begin_kill(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            kill_process_group(self.pid()?, Signal::KILL).with_context(|| format!("kill {}", self.name))?;
        }
        Ok(())
    }

    fn pid(&self) -> Result<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a child has a positive process id")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Best effort: the namespace's end takes the rest.
        let _ = self.kill();
    }
}

/// The last `lines` lines of a file, for a message.
pub fn tail(path: &Path, lines: usize) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// What a process said when it ended, at most `lines` lines: those from a panic on, for the reason stands above a long trace; else its last.
fn last_words(path: &Path, lines: usize) -> String {
    let end = tail(path, 300);
    let panics = |line: &str| {
        line.starts_with("panic: ") || line.contains("\"level\":\"panic\"") || line.contains("\"level\":\"fatal\"")
    };
    match end.lines().position(panics) {
        Some(first) => end.lines().skip(first).take(lines).collect::<Vec<_>>().join("\n"),
        None => tail(path, lines),
    }
}

/// Runs a program to its end and gives its standard output.
pub fn run(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}").replace('"', "");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {shown}"))?;
    if !output.status.success() {
        bail!("{shown}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
