//! What a rebuild does to those who use the volume: the p99 of their writes while nothing else happens, and during a rebuild.

use std::time::{Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};

use crate::bed::Bed;
use crate::bench::Row;
use crate::bench::foreground::Foreground;
use crate::guest::Guest;
use crate::lab::Lab;
use crate::say;
use crate::wait::{Look, pause, secs, wait_for};

const RUNS: usize = 3;
/// Size of the volume in MiB: enough for a rebuild that nobody slows to last.
const MIB: u64 = 2560;
/// Seconds of a measurement.
const WINDOW: u64 = 15;
/// A rebuild that ends sooner says nothing, in seconds.
const LEAST: f64 = 4.0;
/// More than any drive of the lab can do, in KiB/s.
const NO_LIMIT: &str = "2097152";

/// Who says how fast the rebuild goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    /// The daemon, by what the volume's requests take.
    Budget,
    /// Nobody: the daemon is away, and its limit taken off by hand.
    None,
}

impl Limit {
    const ALL: [Self; 2] = [Self::Budget, Self::None];

    fn word(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::None => "none",
        }
    }

    /// Takes the daemon's limit off a rebuild that runs.
    fn lift(self, guest: &Guest, array: &str) -> Result<()> {
        if self == Self::Budget {
            return Ok(());
        }
        guest.kill_daemon()?;
        guest.shell(&format!("echo {NO_LIMIT} > /sys/block/{array}/md/sync_speed_max")).map(drop)
    }

    /// Everything as it was: a daemon sees to its limit.
    fn restore(self, lab: &Lab, node: &str) -> Result<()> {
        if self == Self::Budget { Ok(()) } else { lab.start_daemon(node) }
    }
}

pub(super) fn rows(lab: &mut Lab) -> Result<Vec<Row>> {
    let bed = Bed::new(lab, "rebuilt", MIB)?;
    let mut runs = Vec::new();
    for run in 1..=RUNS {
        for limit in Limit::ALL {
            let seen = rebuild(lab, &bed, limit)?;
            say!(
                "rebuild-p99/{} {run}/{RUNS}: idle {:.2} ms, during the rebuild {:.2} ms, at {:.0} MiB/s",
                limit.word(),
                seen.idle,
                seen.during,
                seen.speed
            );
            runs.push((limit, seen));
        }
    }
    bed.volume(lab).detach()?;
    bed.volume(lab).delete()?;
    Ok(table(&runs))
}

/// What one rebuild brought.
struct Seen {
    /// p99 of the foreground's writes in ms, with nothing beside them.
    idle: f64,
    /// The same during the rebuild.
    during: f64,
    /// MiB/s of the rebuild meanwhile.
    speed: f64,
}

fn table(runs: &[(Limit, Seen)]) -> Vec<Row> {
    let of = |limit| runs.iter().filter(move |(l, _)| *l == limit).map(|(_, seen)| seen);
    let slowness = Limit::ALL.map(|limit| {
        let pairs: Vec<_> = of(limit).map(|seen| (seen.during, seen.idle)).collect();
        Row::of_pairs(&format!("rebuild-p99/{}", limit.word()), "ms, of idle", "none given", &pairs)
    });
    let speed = Limit::ALL.map(|limit| {
        let speeds = of(limit).map(|seen| seen.speed).collect();
        Row::of_runs(&format!("rebuild-speed/{}", limit.word()), "MiB/s", "none given", speeds)
    });
    slowness.into_iter().chain(speed).collect()
}

/// One run: with the foreground at work all the time, a measurement, an outage in which every chunk is dirtied, a measurement while
/// the leg is copied to.
fn rebuild(lab: &mut Lab, bed: &Bed, limit: Limit) -> Result<Seen> {
    let foreground = Foreground::start(lab.guest(&bed.consumer)?, &bed.device, MIB)?;
    pause(secs(2));
    let idle = [SystemTime::now(), {
        pause(secs(WINDOW));
        SystemTime::now()
    }];
    bed.lose(lab)?;
    dirty(lab.guest(&bed.consumer)?, bed)?;
    lab.power_on(&bed.target)?;
    let guest = lab.guest(&bed.consumer)?;
    wait_for("the leg to be copied to", secs(90), || {
        Ok(copied(guest, bed)?.map_or_else(|| Look::NotYet("it is not".to_owned()), |_| Look::Done(())))
    })?;
    limit.lift(guest, bed.array())?;
    let (during, speed) = measure(guest, bed)?;
    let latencies = foreground.end(guest)?;
    limit.restore(lab, &bed.consumer)?;
    bed.volume(lab).wait_whole(2)?;
    Ok(Seen { idle: latencies.p99(idle)?, during: latencies.p99(during)?, speed })
}

/// Marks every chunk.
fn dirty(guest: &Guest, bed: &Bed) -> Result<()> {
    let script = format!("dd if=/dev/zero of={} bs=1M count={MIB} oflag=direct status=none", bed.device);
    let answer = guest.agent().shell(&script, secs(300))?;
    ensure!(answer.code == 0, "{script}: {}", answer.stderr);
    Ok(())
}

/// From when to when the rebuild was watched, at most [`WINDOW`], and its MiB/s.
fn measure(guest: &Guest, bed: &Bed) -> Result<([SystemTime; 2], f64)> {
    let (began, clock) = (SystemTime::now(), Instant::now());
    let first = copied(guest, bed)?.context("the rebuild runs")?;
    let (mut last, mut ended) = (first, (began, 0.0));
    while clock.elapsed() < secs(WINDOW) {
        pause(secs(1) / 4);
        let now = (SystemTime::now(), clock.elapsed().as_secs_f64());
        let Some(sectors) = copied(guest, bed)? else { break };
        (last, ended) = (sectors, now);
    }
    ensure!(ended.1 >= LEAST, "the rebuild was over after {:.1} s", ended.1);
    Ok(([began, ended.0], (last - first) as f64 / 2048.0 / ended.1))
}

/// Sectors that the rebuild under way is past; none if there is none.
fn copied(guest: &Guest, bed: &Bed) -> Result<Option<u64>> {
    let script = format!("cd /sys/block/{}/md && cat sync_action sync_completed", bed.array());
    let said = guest.shell(&script)?;
    let mut words = said.split_whitespace();
    let under_way = words.next() == Some("recover");
    Ok(words.next().and_then(|done| done.parse().ok()).filter(|_| under_way))
}
