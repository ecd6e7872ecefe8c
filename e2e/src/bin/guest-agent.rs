//! The agent in a guest: runs what the harness asks for. A thread a connection, so that a program that hangs holds up nothing.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use meshstor_e2e::agent::{Answer, PORT, Request};
use rustix::process::{Pid, Signal, kill_process};

/// Spawned processes that run.
type Running = Arc<Mutex<HashSet<i32>>>;

/// Where spawned programs write.
const LOGS: &str = "/run/share/logs";

fn main() -> Result<()> {
    // The kernel takes a writer or the daemon before the agent if the guest's memory runs out.
    std::fs::write("/proc/self/oom_score_adj", "-1000").context("protect the agent")?;
    std::fs::create_dir_all(LOGS)?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).context("listen")?;
    let running = Running::default();
    for stream in listener.incoming().flatten() {
        let running = Arc::clone(&running);
        std::thread::spawn(move || serve(stream, &running));
    }
    Ok(())
}

fn serve(stream: TcpStream, running: &Running) {
    let Ok(mut out) = stream.try_clone() else { return };
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        let answer =
            serde_json::from_str(&line).map_err(anyhow::Error::from).and_then(|request| carry_out(request, running));
        let mut answer = answer.unwrap_or_else(|error| Answer { error: format!("{error:#}"), ..Answer::default() });
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        answer.clock = u64::try_from(now.as_nanos()).unwrap_or_default();
        let Ok(mut line) = serde_json::to_vec(&answer) else { return };
        line.push(b'\n');
        if out.write_all(&line).is_err() {
            return;
        }
    }
}

fn carry_out(request: Request, running: &Running) -> Result<Answer> {
    match request {
        Request::Exec { argv, env, stdin } => {
            let mut child =
                command(&argv).envs(env).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
            if let Some(mut pipe) = child.stdin.take() {
                // A program that does not read its input is no error.
                let _ = pipe.write_all(stdin.as_bytes());
            }
            let output = child.wait_with_output()?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Ok(Answer {
                code: code(output.status),
                stdout: text(&output.stdout),
                stderr: text(&output.stderr),
                ..Answer::default()
            })
        }
        Request::Spawn { argv, env, log } => {
            let log = File::options().create(true).append(true).open(format!("{LOGS}/{log}"))?;
            let child = command(&argv).envs(env).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
            let pid = i32::try_from(child.id())?;
            lock(running).insert(pid);
            reap(child, pid, running);
            Ok(Answer { pid, ..Answer::default() })
        }
        Request::Kill { pid, signal } => {
            let pid = Pid::from_raw(pid).context("a process id is positive")?;
            kill_process(pid, Signal::from_named_raw(signal).context("no such signal")?)?;
            Ok(Answer::default())
        }
        Request::Alive { pid } => Ok(Answer { alive: lock(running).contains(&pid), ..Answer::default() }),
    }
}

/// The program, with the agent's protection from the kernel's memory killer taken off again.
fn command(argv: &[String]) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "echo 0 >/proc/self/oom_score_adj; exec \"$@\"", "sh"]).args(argv);
    command
}

/// Waits for a spawned process and says in its log how it ended.
fn reap(mut child: Child, pid: i32, running: &Running) {
    let running = Arc::clone(running);
    std::thread::spawn(move || {
        let ended = child.wait();
        lock(&running).remove(&pid);
        println!("meshstor-agent: process {pid} ended: {ended:?}");
    });
}

fn lock(running: &Running) -> std::sync::MutexGuard<'_, HashSet<i32>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
