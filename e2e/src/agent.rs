//! The guest's agent: what it is asked, what it answers, and the client. One JSON object a line, over TCP.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

/// Port of the agent in the guest.
pub const PORT: u16 = 9000;

/// What an agent can be asked.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Request {
    /// Runs a program to its end.
    Exec {
        /// Program and arguments.
        argv: Vec<String>,
        /// Added to the agent's environment.
        #[serde(default)]
        env: BTreeMap<String, String>,
        /// Its standard input.
        #[serde(default)]
        stdin: String,
    },
    /// Starts a program in the background, with its output appended to `/run/share/logs/<log>`.
    Spawn {
        /// Program and arguments.
        argv: Vec<String>,
        /// Added to the agent's environment.
        #[serde(default)]
        env: BTreeMap<String, String>,
        /// Name of its log.
        log: String,
    },
    /// Sends a signal to a spawned process.
    Kill {
        /// Its id.
        pid: i32,
        /// Number of the signal.
        signal: i32,
    },
    /// Asks whether a spawned process runs.
    Alive {
        /// Its id.
        pid: i32,
    },
}

/// What an agent answers.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct Answer {
    /// Exit code, or 128 and the signal that ended the program; 0 for everything but programs.
    pub code: i32,
    /// Standard output of a program.
    pub stdout: String,
    /// Standard error of a program.
    pub stderr: String,
    /// Id of a spawned process.
    pub pid: i32,
    /// Whether a spawned process runs.
    pub alive: bool,
    /// What the guest's clock said then, in nanoseconds since 1970.
    pub clock: u64,
    /// Why the request could not be carried out; empty if it was.
    pub error: String,
}

/// Client of one guest's agent; a connection a request, so that a request that hangs holds up no other.
#[derive(Clone, Copy, Debug)]
pub struct Agent {
    address: SocketAddr,
}

impl Agent {
    /// The agent at an address.
    pub fn new(ip: std::net::Ipv4Addr) -> Self {
        Self { address: SocketAddr::from((ip, PORT)) }
    }

    /// Asks, and waits for the answer for at most `timeout`.
    pub fn ask(&self, request: &Request, timeout: Duration) -> Result<Answer> {
        let mut stream = TcpStream::connect_timeout(&self.address, timeout.min(Duration::from_secs(2)))
            .with_context(|| format!("connect to the agent at {}", self.address))?;
        stream.set_read_timeout(Some(timeout))?;
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        stream.write_all(line.as_bytes())?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).with_context(|| {
            format!("no answer of the agent at {} in {} s to {}", self.address, timeout.as_secs(), line.trim())
        })?;
        let answer: Answer =
            serde_json::from_str(&answer).with_context(|| format!("answer of the agent: {answer:?}"))?;
        if answer.error.is_empty() { Ok(answer) } else { bail!("agent at {}: {}", self.address, answer.error) }
    }

    /// Runs a shell script to its end, whatever its exit code.
    pub fn shell(&self, script: &str, timeout: Duration) -> Result<Answer> {
        let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        self.ask(&Request::Exec { argv, env: BTreeMap::new(), stdin: String::new() }, timeout)
    }
}
