//! `kill -9` of the daemons and of the operator, at every step of a volume's life that they log.
//!
//! Each of them logs a step just before it carries it out. The harness waits for that line and kills at once, so the step is cut
//! off before, within or right after its effect; then it starts the victim again and waits for the next step of the list. A kill
//! before which the victim had logged yet another step is counted as late, and the steps of the list that it reached by then are
//! not awaited again: their effects may be there already, so they may never come again.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::say;
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::{pause, secs};
use serde_json::{Value, json};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("consumer_daemon_killed_at_every_step", |lab| life(lab, "crash-c", Who::Consumer, &CONSUMER)),
    ("target_daemon_killed_at_every_step", |lab| life(lab, "crash-t", Who::Target, &TARGET)),
    ("operator_killed_at_every_step", |lab| life(lab, "crash-o", Who::Operator, &OPERATOR)),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Consumer,
    Target,
    Operator,
}

/// Beginnings of the steps at which the victim is killed, in order, in each part of the volume's life.
struct Kills {
    create: &'static [&'static str],
    attach: &'static [&'static str],
    detach: &'static [&'static str],
    /// A later attach: the array is there already.
    attach_again: &'static [&'static str],
    delete: &'static [&'static str],
}

const CONSUMER: Kills = Kills {
    create: &[],
    attach: &[
        "write the ledger: a newer epoch",
        "write the ledger: this node's own array",
        "connect leg",
        "claim the epoch",
        "create the array",
        "make ext4",
        "record that the volume is initialised",
        // And no further: a mount that was done before the kill is in the record that the next process writes to adopt the array.
        "mount",
    ],
    detach: &["unmount", "stop", "disconnect", "record the end of the epoch"],
    attach_again: &["connect leg", "claim the epoch", "assemble the array", "mount"],
    delete: &["write the ledger", "delete the partition", "remove the finalizer"],
};

const TARGET: Kills = Kills {
    create: &["create partition", "zero the leg", "write the status"],
    attach: &["write the ledger", "write the status", "export", "write the status"],
    detach: &["revoke", "write the status"],
    attach_again: &["write the ledger", "export"],
    delete: &["write the ledger", "delete the partition", "remove the finalizer"],
};

const OPERATOR: Kills = Kills {
    create: &["add the finalizer", "create leg", "create leg", "create the attachment"],
    attach: &["write the record", "tell leg", "tell leg", "write the record", "grant leg", "grant leg"],
    detach: &["take back the grant", "take back the grant"],
    attach_again: &["tell leg", "write the record", "grant leg"],
    // The grants of the last attach are taken back before or after the delete begins.
    delete: &[
        "write the record",
        "tell leg",
        "write the record",
        "delete leg",
        "delete the attachment",
        "let the attachment go",
        "remove the finalizer",
    ],
};

/// I5: a crash at any step is harmless: the next run converges, and what was written before is there.
fn life(lab: &mut Lab, name: &str, who: Who, kills: &Kills) -> Result<()> {
    let load = Load::new(name, 1024);
    // Legs go to the nodes with most free space: whose they are is known from a volume that comes first.
    let [consumer, target] = nodes_of_a_trial(lab, &format!("{name}-trial"))?;
    let victim = match who {
        Who::Consumer => Victim::Daemon(consumer.clone()),
        Who::Target => Victim::Daemon(target.clone()),
        Who::Operator => Victim::Operator,
    };
    let mut count = Count::default();
    let spec = json!({ "capacity": "64Mi", "replicaCount": 2, "filesystem": "ext4" });
    let object = json!({ "apiVersion": "meshstor.io/v1alpha1", "kind": "MeshVolume", "metadata": { "name": name }, "spec": spec });

    victim.kill_at(lab, kills.create, &mut count, |lab| lab.apply(&object))?;
    let volume = Volume::named(lab, name);
    volume.wait_ready()?;
    ensure!(
        volume.leg_nodes()? == [consumer.clone(), target.clone()],
        "the legs are elsewhere: {:?}",
        volume.leg_nodes()?
    );

    victim.kill_at(lab, kills.attach, &mut count, |lab| Volume::named(lab, name).want_on(&consumer, true))?;
    let path = Volume::named(lab, name).wait_attached(&consumer, true)?;
    load.write(lab, &consumer, &path, 60)?;
    victim.kill_at(lab, kills.detach, &mut count, |lab| Volume::named(lab, name).want_nowhere())?;
    Volume::named(lab, name).wait_detached()?;

    victim.kill_at(lab, kills.attach_again, &mut count, |lab| Volume::named(lab, name).want_on(&consumer, true))?;
    let path = Volume::named(lab, name).wait_attached(&consumer, true)?;
    load.verify(lab, &consumer, &consumer, &path)?;
    Volume::named(lab, name).detach()?;
    let path = Volume::named(lab, name).attach(&target, true)?;
    load.verify(lab, &consumer, &target, &path)?;
    Volume::named(lab, name).detach()?;

    victim.kill_at(lab, kills.delete, &mut count, |lab| Volume::named(lab, name).delete_only())?;
    Volume::named(lab, name).wait_gone()?;
    say!("killed {} times, {} of them after a further step had been logged", count.all, count.late);
    ensure!(count.late * 2 <= count.all, "{} of {} kills were late: they prove too little", count.late, count.all);
    Ok(())
}

fn nodes_of_a_trial(lab: &Lab, name: &str) -> Result<[String; 2]> {
    let volume = Volume::create(lab, name, &json!({ "capacity": "64Mi", "replicaCount": 2, "filesystem": "ext4" }))?;
    let nodes = volume.leg_nodes()?;
    volume.delete()?;
    nodes.try_into().map_err(|nodes| anyhow::anyhow!("two legs, but {nodes:?}"))
}

#[derive(Default)]
struct Count {
    all: u32,
    late: u32,
}

enum Victim {
    Operator,
    Daemon(String),
}

impl Victim {
    /// Does `begin`, and kills and restarts the victim at each of the steps, one after another.
    fn kill_at(
        &self,
        lab: &mut Lab,
        steps: &[&str],
        count: &mut Count,
        begin: impl FnOnce(&Lab) -> Result<()>,
    ) -> Result<()> {
        let mut log = Log::at_its_end(&self.log(lab)?)?;
        begin(lab)?;
        let mut steps = steps.iter().peekable();
        while let Some(step) = steps.next() {
            log.wait_for(step)?;
            match self {
                Self::Operator => lab.kill_operator()?,
                Self::Daemon(node) => lab.guest(node)?.kill_daemon()?,
            }
            count.all += 1;
            let overtaken = log.steps_so_far()?;
            count.late += u32::from(!overtaken.is_empty());
            for further in overtaken {
                steps.next_if(|step| further.text.starts_with(**step));
            }
            match self {
                Self::Operator => lab.start_operator()?,
                Self::Daemon(node) => lab.start_daemon(node)?,
            }
        }
        Ok(())
    }

    fn log(&self, lab: &Lab) -> Result<PathBuf> {
        Ok(match self {
            Self::Operator => lab.dir.join("logs/operator.log"),
            Self::Daemon(node) => lab.guest(node)?.daemon_log(),
        })
    }
}

/// A step in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// When it was logged.
    pub(crate) at: SystemTime,
    /// The leg or the volume that it is for.
    pub(crate) of: String,
    /// What it says.
    pub(crate) text: String,
}

/// A log that somebody writes to, read line by line.
pub(crate) struct Log {
    file: File,
    rest: String,
    seen: Vec<String>,
}

impl Log {
    pub(crate) fn at_its_end(path: &Path) -> Result<Self> {
        let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file, rest: String::new(), seen: Vec::new() })
    }

    /// The next step in it, or none so far.
    fn next_step(&mut self) -> Result<Option<Step>> {
        self.file.read_to_string(&mut self.rest)?;
        while let Some((line, rest)) = self.rest.split_once('\n') {
            let step = step_in(line);
            self.rest = rest.to_owned();
            if step.is_some() {
                return Ok(step);
            }
        }
        Ok(None)
    }

    /// All further steps in it so far.
    pub(crate) fn steps_so_far(&mut self) -> Result<Vec<Step>> {
        std::iter::from_fn(|| self.next_step().transpose()).collect()
    }

    pub(crate) fn wait_for(&mut self, beginning: &str) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < secs(60) {
            match self.next_step()? {
                Some(step) if step.text.starts_with(beginning) => return Ok(()),
                Some(step) => self.seen.push(step.text),
                None => pause(Duration::from_millis(2)),
            }
        }
        bail!("waited 60 s for the step `{beginning}`; steps that came instead: {:?}", self.seen)
    }
}

/// The step that a line says: of the daemon a field of that name, of the operator the message of its module of effects.
fn step_in(line: &str) -> Option<Step> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = &line["fields"];
    let step = match line["target"].as_str()? {
        "meshstor_operator::volume::apply" => &fields["message"],
        _ => &fields["step"],
    };
    let of = line["span"]["leg"].as_str().or(fields["volume"].as_str()).unwrap_or_default();
    let at: jiff::Timestamp = line["timestamp"].as_str()?.parse().ok()?;
    Some(Step { at: at.into(), of: of.to_owned(), text: step.as_str()?.to_owned() })
}
