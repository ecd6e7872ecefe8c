//! `kill -9` of daemons at random moments of volumes' lives, in every shape.
//!
//! A round is the life of one volume: created, attached, written to, detached, attached elsewhere, verified, deleted. Six rounds
//! run at once, one of each shape, while a thread kills the daemon of a node by chance at a moment by chance and starts it again
//! after a pause by chance. Half of the kills wait for the node to begin a step, and come some milliseconds later. In each round
//! the consumer's kernel is asked whether all legs are in sync in their slots, and after each six every node's whether anything
//! is left.
//!
//! A seed decides filesystems, nodes, times and victims, so it replays what was chosen; which instruction a kill meets is up to the
//! machine. `make chaos-daemon` runs many rounds (`ROUNDS`, `SEED`); `make test` runs a few.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, anyhow, ensure};
use fastrand::Rng;
use meshstor_e2e::api::all;
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::say;
use meshstor_e2e::timeline::seconds;
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::{pause, secs};
use serde_json::{Value, json};

use crate::Test;
use crate::crashes::{Log, Step};
use crate::shapes;

pub(crate) const TESTS: &[Test] = &[("daemons_killed_at_random_moments", chaos)];

/// Copies, and drives a copy.
const SHAPES: [(usize, usize); 6] = [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (2, 3)];
/// Rounds of a run that nobody asked more of.
const ROUNDS: u64 = 6;
/// The longest time without a kill, but for the wait for a step.
const GAP: Duration = Duration::from_millis(5000);
/// Kills in six rounds, four for each life. There is an end to them: what is cut off each time gets nowhere.
const SHOTS: u32 = 24;
/// The longest that an aimed kill waits for a step to begin, and how long after its beginning it comes at most.
const AIM: Duration = Duration::from_millis(2000);
const WITHIN: Duration = Duration::from_millis(25);
/// The longest that a daemon stays away, and the longest that it is spared when it is back: it must get somewhere.
const AWAY: Duration = Duration::from_millis(300);
const SPARED: Duration = Duration::from_millis(3000);
/// A daemon that began a step less than this many seconds ago is at work.
const AT_WORK: f64 = 0.1;

/// I4, I5: whenever daemons are killed, the next ones converge, and what was written is there.
fn chaos(lab: &mut Lab) -> Result<()> {
    let rounds = number("MESHSTOR_CHAOS_ROUNDS")?.unwrap_or(ROUNDS);
    let first = number("MESHSTOR_CHAOS_SEED")?.unwrap_or_else(|| u64::from(fastrand::u32(..)));
    say!("{rounds} rounds from seed {first}");
    let before = lab.footprints()?;
    let mut count = Count::default();
    for seed in (first..first + rounds).step_by(SHAPES.len()) {
        let began = Instant::now();
        let outcome = six_rounds(lab, seed).and_then(|met| lab.wait_for_footprints(&before).map(|()| met));
        let met =
            outcome.with_context(|| format!("replay these rounds with: make chaos-daemon SEED={seed} ROUNDS=6"))?;
        say!("rounds {seed}–{}: {:.0} s, {met}", seed + 5, began.elapsed().as_secs_f64());
        count.add(&met);
    }
    say!("{} rounds from seed {first}: {count}", rounds.next_multiple_of(6));
    // A kill of a daemon that had nothing to do proves nothing.
    ensure!((count.cut + count.at_work) * 8 >= count.kills, "too few kills met a daemon at work: {count}");
    ensure!(count.cut > 0, "no kill cut a step off: {count}");
    Ok(())
}

fn number(variable: &str) -> Result<Option<u64>> {
    let set = std::env::var(variable).ok().filter(|text| !text.is_empty());
    set.map(|text| text.parse().with_context(|| format!("{variable}={text}"))).transpose()
}

/// One life of each shape, and kills through all of them; all daemons run when it is over.
fn six_rounds(lab: &Lab, seed: u64) -> Result<Count> {
    let over = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let gun = scope.spawn(move || fire(lab, Rng::with_seed(seed), over));
        let lives = SHAPES.iter().zip(seed..);
        let lives: Vec<_> = lives.map(|(shape, seed)| scope.spawn(move || live(lab, seed, *shape))).collect();
        let lived: Vec<_> = lives.into_iter().map(outcome).collect();
        over.store(true, Ordering::Release);
        let count = outcome(gun);
        lived.into_iter().collect::<Result<()>>()?;
        count
    })
}

fn outcome<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread of the test panicked"))?
}

/// One round.
fn live(lab: &Lab, seed: u64, (copies, width): (usize, usize)) -> Result<()> {
    let mut rng = Rng::with_seed(seed);
    let name = format!("chaos-{seed}");
    let mount = rng.bool();
    let filesystem = if mount { "ext4" } else { "none" };
    let spec = json!({ "capacity": "64Mi", "replicaCount": copies, "stripeWidth": width, "filesystem": filesystem });
    let object = json!({ "apiVersion": "meshstor.io/v1alpha1", "kind": "MeshVolume", "metadata": { "name": name }, "spec": spec });
    let mut nodes = lab.nodes();
    rng.shuffle(&mut nodes);
    let [first, second, ..] = nodes.as_slice() else { anyhow::bail!("two nodes are needed") };
    let load = Load::new(&name, 1024);

    lab.control.api.create(&all("meshvolumes"), &object)?;
    let volume = Volume::named(lab, &name);
    volume.wait_ready()?;
    let path = volume.attach(first, mount)?;
    load.start(lab, first, &path)?;
    load.wait_for_progress(lab, first, rng.u64(20..100), secs(60))?;
    load.stop(lab, first)?;
    converged(lab, &volume, first, (copies, width))?;
    volume.detach()?;
    let path = volume.attach(second, mount)?;
    converged(lab, &volume, second, (copies, width))?;
    load.verify(lab, first, second, &path)?;
    volume.detach()?;
    volume.delete()
}

/// The kernel of the consumer has every leg in sync in its slot, and the objects say the same.
fn converged(lab: &Lab, volume: &Volume<'_>, node: &str, (copies, width): (usize, usize)) -> Result<()> {
    volume.wait_whole(u32::try_from(copies)?)?;
    shapes::check_array(lab, volume, node, copies, width)?;
    let mut legs: Vec<String> = shapes::legs(lab, &volume.name)?.into_iter().map(|leg| leg.name).collect();
    legs.sort();
    let sorted = |names: Vec<Option<&str>>| {
        let mut names: Vec<String> = names.into_iter().flatten().map(str::to_owned).collect();
        names.sort();
        names
    };
    let said = |at: &Value| {
        let recorded = at["status"]["term"]["inSync"].as_array().into_iter().flatten().map(Value::as_str).collect();
        let members = at["status"]["array"]["members"].as_array().into_iter().flatten();
        let members = members.filter(|m| m["state"] == "InSync").map(|m| m["leg"].as_str()).collect();
        sorted(recorded) == legs && sorted(members) == legs
    };
    volume.wait_attachment("to say what the kernel says", secs(60), said).map(drop)
}

/// What the kills met.
#[derive(Default, Clone, Copy)]
struct Count {
    kills: u32,
    /// The next daemon began with the very step that the killed one had begun last: it was cut off.
    cut: u32,
    /// Another step had begun within the last [`AT_WORK`] seconds.
    at_work: u32,
}

impl Count {
    fn add(&mut self, other: &Self) {
        self.kills += other.kills;
        self.cut += other.cut;
        self.at_work += other.at_work;
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kills, cut, at_work } = self;
        write!(f, "{kills} kills, {cut} cut a step off, {at_work} came in the {AT_WORK} s after a step's beginning")
    }
}

/// Kills and starts daemons, [`SHOTS`] times or until `over`.
fn fire(lab: &Lab, mut rng: Rng, over: &AtomicBool) -> Result<Count> {
    let nodes = lab.nodes();
    let mut targets = nodes.iter().map(|node| Target::new(lab, node)).collect::<Result<Vec<_>>>()?;
    let mut count = Count::default();
    let mut shots = 0;
    while wait_unless(over, GAP.mul_f64(rng.f64())) && shots < SHOTS {
        let target = rng.choice(&mut targets).context("there is a node")?;
        if Instant::now() < target.spared_until {
            continue;
        }
        if rng.bool() {
            target.wait_for_a_step()?;
            pause(WITHIN.mul_f64(rng.f64()));
        }
        target.kill()?;
        shots += 1;
        pause(AWAY.mul_f64(rng.f64()));
        target.start(SPARED.mul_f64(rng.f64()))?;
    }
    while wait_unless(over, secs(1)) {}
    for target in &mut targets {
        target.read()?;
        target.judge();
        count.add(&target.count);
    }
    Ok(count)
}

/// Waits; false as soon as `over`.
fn wait_unless(over: &AtomicBool, time: Duration) -> bool {
    let began = Instant::now();
    while began.elapsed() < time && !over.load(Ordering::Acquire) {
        pause(Duration::from_millis(5));
    }
    !over.load(Ordering::Acquire)
}

/// Steps by what they are for.
type Steps = BTreeMap<String, String>;

/// A node whose daemon is killed again and again, and the steps that its daemons log.
struct Target<'a> {
    lab: &'a Lab,
    node: &'a str,
    log: Log,
    spared_until: Instant,
    /// When the daemon that was killed last was killed, and the last steps of it.
    killed: Option<(SystemTime, Vec<Step>)>,
    /// Steps of the daemon that runs.
    steps: Vec<Step>,
    count: Count,
}

impl<'a> Target<'a> {
    fn new(lab: &'a Lab, node: &'a str) -> Result<Self> {
        Ok(Self {
            lab,
            node,
            log: Log::at_its_end(&lab.guest(node)?.daemon_log())?,
            spared_until: Instant::now(),
            killed: None,
            steps: Vec::new(),
            count: Count::default(),
        })
    }

    fn read(&mut self) -> Result<usize> {
        let new = self.log.steps_so_far()?;
        self.steps.extend(new.iter().cloned());
        Ok(new.len())
    }

    fn wait_for_a_step(&mut self) -> Result<()> {
        let began = Instant::now();
        self.read()?;
        while self.read()? == 0 && began.elapsed() < AIM {
            pause(Duration::from_millis(1));
        }
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        let at = SystemTime::now();
        self.lab.guest(self.node)?.kill_daemon()?;
        self.read()?;
        self.judge();
        self.count.kills += 1;
        self.killed = Some((at, std::mem::take(&mut self.steps)));
        Ok(())
    }

    fn start(&mut self, spared: Duration) -> Result<()> {
        self.lab.start_daemon(self.node)?;
        self.spared_until = Instant::now() + spared;
        Ok(())
    }

    /// Counts what the last kill met, by the steps of the daemon after it.
    fn judge(&mut self) {
        let Some((at, before)) = self.killed.take() else { return };
        let last: Steps = before.iter().map(|step| (step.of.clone(), step.text.clone())).collect();
        let first: Steps = self.steps.iter().rev().map(|step| (step.of.clone(), step.text.clone())).collect();
        // A status is written many times, with other words in it each time: that one follows another says nothing.
        let again =
            |(of, text): (&String, &String)| last.get(of) == Some(text) && !text.starts_with("write the status");
        if first.iter().any(again) {
            self.count.cut += 1;
        } else if before.last().is_some_and(|step| seconds(step.at, at) < AT_WORK) {
            self.count.at_work += 1;
        }
    }
}
