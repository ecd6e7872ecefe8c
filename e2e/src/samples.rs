//! What the kernels of the guests say of their arrays, five times a second: members in sync, and which are copied to.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::guest::Guest;
use crate::say;
use crate::wait::{pause, secs};

const SIGKILL: i32 = 9;
/// Fewer looks prove nothing.
const LEAST: usize = 5;
/// The longest wait for them.
const PATIENCE: Duration = secs(10);
/// Seconds between two looks.
pub const INTERVAL: f64 = 0.2;

/// A sampler at work in a guest.
pub struct Sampler {
    pid: i32,
    log: String,
}

impl Sampler {
    /// Begins it; `name` is that of its file.
    pub fn begin(guest: &Guest, name: &str) -> Result<Self> {
        let log = format!("{name}.samples");
        let script = format!(
            "rm -f /run/share/{log}; while sleep {INTERVAL}; do {{ date +at:%s%N; cd /sys/block; grep -H . md*/md/sync_action; \
             grep -c in_sync md*/md/dev-*/state; }} >> /run/share/{log} 2>/dev/null; done"
        );
        let pid = guest.spawn(&["sh", "-c", &script], BTreeMap::new(), "samples.log")?;
        Ok(Self { pid, log })
    }

    /// Ends it and gives what it saw. What was over in a moment is looked at for a while longer.
    ///
    /// # Errors
    /// It saw too little.
    pub fn end(&self, guest: &Guest) -> Result<Samples> {
        let file = guest.machine.share.join(&self.log);
        let began = Instant::now();
        let looks = || std::fs::read_to_string(&file).map_or(0, |text| text.matches("at:").count());
        while looks() <= LEAST + 1 && began.elapsed() < PATIENCE {
            pause(Duration::from_secs_f64(INTERVAL));
        }
        guest.kill(self.pid, SIGKILL)?;
        let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        // The last look may have been cut off.
        let whole = text.rfind("at:").map_or("", |at| &text[..at]);
        let samples = Samples::parse(whole)?;
        ensure!(samples.0.len() > LEAST, "only {} looks on {}", samples.0.len(), guest.name());
        Ok(samples)
    }

    /// Ends it and gives the lowest number of members in sync of any array.
    ///
    /// # Errors
    /// It saw too little, or no array.
    pub fn lowest(&self, guest: &Guest) -> Result<u32> {
        let samples = self.end(guest)?;
        let lowest = samples.lowest().context("there was no array")?;
        say!("in sync at least: {lowest}, in {} looks", samples.0.len());
        Ok(lowest)
    }
}

/// An array at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Array {
    copied: bool,
    in_sync: u32,
}

/// One guest's looks: when, in nanoseconds since 1970, and its arrays by their kernel names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Samples(Vec<(u128, BTreeMap<String, Array>)>);

impl Samples {
    fn parse(text: &str) -> Result<Self> {
        let mut all = Self::default();
        for line in text.lines() {
            let (key, value) = line.rsplit_once(':').with_context(|| format!("sampled {line:?}"))?;
            let Some((array, _)) = key.split_once('/') else {
                all.0.push((value.parse().with_context(|| format!("sampled {line:?}"))?, BTreeMap::new()));
                continue;
            };
            let array = all.0.last_mut().context("a look has a time")?.1.entry(array.to_owned()).or_default();
            if key.ends_with("/sync_action") {
                array.copied = value == "recover";
            } else {
                array.in_sync += value.parse::<u32>().with_context(|| format!("sampled {line:?}"))?;
            }
        }
        Ok(all)
    }

    /// The lowest number of members in sync of any array; none if there was no array.
    pub fn lowest(&self) -> Option<u32> {
        self.0.iter().flat_map(|(_, arrays)| arrays.values()).map(|array| array.in_sync).min()
    }

    /// The most arrays that were copied to at once.
    pub fn busiest(&self) -> usize {
        self.0.iter().map(|(_, arrays)| copied(arrays)).max().unwrap_or_default()
    }

    /// Seconds of copying, of all arrays together.
    pub fn copying(&self) -> f64 {
        let pairs = self.0.windows(2).map(|pair| {
            let time = pair[1].0.saturating_sub(pair[0].0) as f64 / 1e9;
            time * copied(&pair[0].1) as f64
        });
        pairs.sum()
    }
}

fn copied(arrays: &BTreeMap<String, Array>) -> usize {
    arrays.values().filter(|array| array.copied).count()
}

/// The most arrays of several guests that were copied to at once: in one interval of theirs.
pub fn busiest_of_all(guests: &[Samples]) -> usize {
    let interval = (INTERVAL * 1e9) as u128;
    let mut together: BTreeMap<u128, usize> = BTreeMap::new();
    for samples in guests {
        let mut seen: BTreeMap<u128, usize> = BTreeMap::new();
        for (at, arrays) in &samples.0 {
            // Of two looks in one interval the first counts.
            seen.entry(at / interval).or_insert_with(|| copied(arrays));
        }
        seen.into_iter().for_each(|(at, n)| *together.entry(at).or_default() += n);
    }
    together.into_values().max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "at:1000000000\nmd126/md/sync_action:recover\nmd127/md/sync_action:idle\nmd126/md/dev-nvme0n1/state:1\n\
         md126/md/dev-ubda1/state:0\nmd127/md/dev-ubda2/state:1\nmd127/md/dev-ubda3/state:1\n\
         at:1500000000\nmd126/md/sync_action:idle\nmd126/md/dev-nvme0n1/state:1\nmd126/md/dev-ubda1/state:1\n";

    #[test]
    fn looks_say_what_is_in_sync_and_what_is_copied_to() {
        let samples = Samples::parse(TEXT).unwrap();
        assert_eq!((samples.lowest(), samples.busiest(), samples.copying()), (Some(1), 1, 0.5));
        assert_eq!(busiest_of_all(&[samples.clone(), samples]), 2);
        assert_eq!(Samples::default().lowest(), None);
        assert!(Samples::parse("md1/md/sync_action:idle\n").is_err() && Samples::parse("at:x\n").is_err());
    }
}
