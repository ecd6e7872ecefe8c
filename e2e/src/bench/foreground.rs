//! A program that uses a volume while something else happens to it: fio, one write after another, each with its time and its latency.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};

use crate::guest::Guest;
use crate::wait::{Look, secs, wait_for};

/// Where fio writes what each write took, on the guest's share.
const LOG: &str = "foreground";

/// fio at work in a guest.
pub(crate) struct Foreground {
    pid: i32,
}

impl Foreground {
    /// Random writes of 4 KiB all over the first `mib` MiB of a device, one at a time, until [`Foreground::end`].
    pub(crate) fn start(guest: &Guest, device: &str, mib: u64) -> Result<Self> {
        let command = format!(
            "exec fio --name=x --filename={device} --size={mib}M --rw=randwrite --bs=4k --ioengine=libaio --iodepth=1 --direct=1 \
             --time_based --runtime=3600 --randseed=7 --per_job_logs=0 --write_lat_log=/run/share/{LOG} --log_unix_epoch=1 \
             --disable_slat=1 --disable_clat=1"
        );
        Ok(Self { pid: guest.spawn(&["sh", "-c", &command], BTreeMap::new(), "fio.log")? })
    }

    /// Ends it and gives what it saw.
    pub(crate) fn end(self, guest: &Guest) -> Result<Latencies> {
        guest.kill(self.pid, 15)?;
        wait_for("fio to end", secs(30), || {
            Ok(if guest.is_alive(self.pid)? { Look::NotYet("it runs".to_owned()) } else { Look::Done(()) })
        })?;
        let file = guest.machine.share.join(format!("{LOG}_lat.log"));
        let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        Latencies::parse(&text)
    }
}

/// When writes ended, and what they took.
pub(crate) struct Latencies(Vec<(SystemTime, Duration)>);

impl Latencies {
    /// Lines `<ms since 1970>, <ns>, <direction>, <size>, …`.
    fn parse(text: &str) -> Result<Self> {
        let line = |line: &str| {
            let mut numbers = line.split(',').map_while(|word| word.trim().parse::<u64>().ok());
            Some((UNIX_EPOCH + Duration::from_millis(numbers.next()?), Duration::from_nanos(numbers.next()?)))
        };
        let all = text.lines().map(|l| line(l).with_context(|| format!("fio logged {l:?}"))).collect::<Result<_>>()?;
        Ok(Self(all))
    }

    /// The p99 in ms of the writes that ended between the two times.
    ///
    /// # Errors
    /// They are too few for one.
    pub(crate) fn p99(&self, [from, to]: [SystemTime; 2]) -> Result<f64> {
        let took = self.sorted([from, to]);
        ensure!(took.len() >= 100, "{} writes have no p99", took.len());
        Ok(took[took.len() * 99 / 100].as_secs_f64() * 1000.0)
    }

    /// The longest, in ms, of the writes that ended between the two times.
    ///
    /// # Errors
    /// There was none.
    pub(crate) fn longest(&self, window: [SystemTime; 2]) -> Result<f64> {
        let took = self.sorted(window);
        took.last().map(|took| took.as_secs_f64() * 1000.0).context("nothing was written")
    }

    fn sorted(&self, [from, to]: [SystemTime; 2]) -> Vec<Duration> {
        let within = self.0.iter().filter(|(at, _)| (from..=to).contains(at));
        let mut took: Vec<Duration> = within.map(|(_, took)| *took).collect();
        took.sort_unstable();
        took
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_p99_of_a_window() {
        let text: String = (0..200_u64).map(|n| format!("{}, {}, 1, 4096, 0, 0\n", 1000 + n, n * 1_000_000)).collect();
        let latencies = Latencies::parse(&text).unwrap();
        let at = |ms: u64| UNIX_EPOCH + Duration::from_millis(ms);
        assert_eq!(latencies.p99([at(0), at(9999)]).unwrap(), 198.0);
        assert_eq!(latencies.p99([at(1000), at(1099)]).unwrap(), 99.0);
        assert!(latencies.p99([at(1000), at(1009)]).is_err());
        assert_eq!(latencies.longest([at(1000), at(1009)]).unwrap(), 9.0);
        assert!(latencies.longest([at(0), at(9)]).is_err());
        assert!(Latencies::parse("fio: error").is_err());
    }
}
