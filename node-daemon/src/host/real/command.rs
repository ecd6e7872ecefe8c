//! External programs, always with a clean environment.

use super::super::Result;
use super::error::{busy, failed};
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program about to be run.
pub(super) struct Tool {
    name: &'static str,
    args: Vec<OsString>,
}

/// What a program answered.
pub(super) struct Answer {
    /// Exit status; absent after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Tool {
    /// Looks `name` up in a fixed path.
    pub fn new(name: &'static str) -> Self {
        Tool { name, args: vec![] }
    }

    /// Appends one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_os_string());
        self
    }

    /// Appends several arguments.
    pub fn args<const N: usize>(mut self, args: [&str; N]) -> Self {
        self.args.extend(args.map(OsString::from));
        self
    }

    /// Runs it to its end, whatever its exit status.
    pub fn answer(self, input: Option<&str>) -> Result<Answer> {
        let action = || format!("run {}", self.line());
        let mut child = Command::new(self.name)
            .args(&self.args)
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            // mdadm: nothing of udev, systemd or mdmon takes part in what we do.
            .env("MDADM_NO_UDEV", "1")
            .env("MDADM_NO_SYSTEMCTL", "1")
            .env("MDADM_NO_MDMON", "1")
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| failed(action(), e))?;
        // The inputs are a few hundred bytes: they fit the pipe, so writing before reading cannot block.
        if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
            stdin.write_all(text.as_bytes()).map_err(|e| failed(action(), e))?;
        }
        let output = child.wait_with_output().map_err(|e| failed(action(), e))?;
        Ok(Answer {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// Runs it; anything but exit status 0 is an error with its standard error as the cause.
    pub fn run(self) -> Result<String> {
        self.run_with(None)
    }

    /// As [`Tool::run`], with text for its standard input.
    pub fn run_with(self, input: Option<&str>) -> Result<String> {
        let line = self.line();
        let answer = self.answer(input)?;
        if answer.code == Some(0) {
            return Ok(answer.stdout);
        }
        let cause = match (answer.stderr.is_empty(), answer.code) {
            (false, _) => answer.stderr,
            (true, Some(code)) => format!("exit status {code}"),
            (true, None) => "killed by a signal".to_owned(),
        };
        // strerror(EBUSY) in the C locale is the one answer that tools give for "in use".
        match cause.contains("Device or resource busy") {
            true => Err(busy(format!("run {line}"), cause)),
            false => Err(failed(format!("run {line}"), cause)),
        }
    }

    fn line(&self) -> String {
        let args = self.args.iter().map(|a| a.to_string_lossy());
        std::iter::once(self.name.into()).chain(args).collect::<Vec<_>>().join(" ")
    }
}

/// Where a program is, if it is installed.
pub(super) fn installed(name: &str) -> Option<PathBuf> {
    PATH.split(':').map(|dir| Path::new(dir).join(name)).find(|p| p.is_file())
}
