//! Several labs at a time: most of a test is waiting, and nodes that one test breaks cannot serve another.
//!
//! The process that cargo starts runs no test. For each lab it starts itself again, in namespaces of its own, names tests to it on its
//! standard input, one a line, and passes on what it says until it says how that test ended. A worker whose standard input ends goes away,
//! with all that it started.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};

/// Labs at a time, where `MESHSTOR_LABS` does not say it: two keep two cores at work.
const LABS: usize = 2;
/// Number of a worker, in its environment.
const MARK: &str = "MESHSTOR_LAB_WORKER";
/// Before the word that tells how a test ended: no text has it.
const VERDICT: char = '\u{1}';

/// How many labs may run at a time.
pub(crate) fn labs() -> usize {
    let set = std::env::var("MESHSTOR_LABS").ok().and_then(|text| text.parse().ok());
    set.unwrap_or(LABS).max(1)
}

/// The number of this worker; none in the process that cargo started.
pub(crate) fn number() -> Option<usize> {
    std::env::var(MARK).ok()?.parse().ok()
}

/// The workers that have nothing to do, and how many there ever were.
pub(crate) struct Pool(Mutex<(Vec<Worker>, usize)>, Vec<(&'static str, String)>);

struct Worker {
    number: usize,
    process: Child,
    /// Taken away it ends.
    tests: Option<ChildStdin>,
    said: BufReader<ChildStdout>,
}

impl Pool {
    /// Of workers that find `settings` in their environment.
    pub(crate) fn new(settings: Vec<(&'static str, String)>) -> Self {
        Self(Mutex::default(), settings)
    }

    /// Has a worker run a test.
    pub(crate) fn run(&self, test: &str) -> Result<()> {
        let mut worker = self.take()?;
        let outcome = worker.run(test)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.push(worker);
        outcome.map_or(Ok(()), |why| bail!(why))
    }

    fn take(&self) -> Result<Worker> {
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(worker) = pool.0.pop() {
            return Ok(worker);
        }
        pool.1 += 1;
        Worker::start(pool.1, &self.1)
    }
}

impl Worker {
    fn start(number: usize, settings: &[(&str, String)]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(MARK, number.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.envs(settings.iter().map(|(name, value)| (name, value)));
        if labs() > 1 && std::env::var_os("MESHSTOR_PATIENCE").is_none() {
            command.env("MESHSTOR_PATIENCE", labs().to_string());
        }
        let mut process = command.spawn().context("start a worker")?;
        let tests = process.stdin.take();
        let said = BufReader::new(process.stdout.take().context("a worker speaks")?);
        Ok(Self { number, process, tests, said })
    }

    /// None when it passed, or why not.
    fn run(&mut self, test: &str) -> Result<Option<String>> {
        let tests = self.tests.as_mut().context("a worker listens")?;
        writeln!(tests, "{test}").context("a lab's process is gone")?;
        let mut line = String::new();
        loop {
            line.clear();
            if self.said.read_line(&mut line)? == 0 {
                bail!("a lab's process ended: {}", self.process.wait()?);
            }
            match line.trim_end().split_once(VERDICT) {
                Some((_, why)) => return serde_json::from_str(why).context("read a verdict"),
                None => print!("lab {} {line}", self.number),
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.tests.take());
        // It takes its lab down first; how it ends says nothing about a test.
        let _ = self.process.wait();
    }
}

/// What a worker does: `run` with the name of each test that comes, until none does any more.
pub(crate) fn serve(mut run: impl FnMut(&str) -> Result<()>) -> ExitCode {
    static BUSY: AtomicBool = AtomicBool::new(false);
    let tests = names(&BUSY);
    while let Ok(test) = tests.recv() {
        let why = run(&test).err().map(|error| format!("{error:#}"));
        BUSY.store(false, Ordering::SeqCst);
        match serde_json::to_string(&why) {
            Ok(why) => println!("{VERDICT}{why}"),
            Err(_) => return ExitCode::FAILURE,
        }
    }
    ExitCode::SUCCESS
}

fn names(busy: &'static AtomicBool) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for name in std::io::stdin().lines().map_while(Result::ok) {
            busy.store(true, Ordering::SeqCst);
            if sender.send(name).is_err() {
                return;
            }
        }
        // Whoever wanted to know is gone.
        if busy.load(Ordering::SeqCst) {
            std::process::exit(1);
        }
    });
    receiver
}
