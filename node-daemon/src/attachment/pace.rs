//! How fast a rebuild goes: as fast as it can while the volume's own reads and writes do not suffer from it. Pure.
//!
//! The first window is slow, and shows how long a request takes with next to no rebuild beside it. From then on the limit doubles
//! while requests take about as long, and is halved when they take more than [`SUFFERS`] times as long; each time that happens it is
//! longer until the next try. Without requests nobody suffers.

use crate::host::Io;

/// The least limit, in KiB/s: a rebuild always goes on.
pub const LEAST: u64 = 8 << 10;
/// The highest, in KiB/s.
pub const MOST: u64 = 2 << 20;
/// Requests take this many times as long as they did: they suffer.
const SUFFERS: u64 = 2;
/// That much more, in µs, is nothing: the kernel counts in milliseconds.
const NOISE: u64 = 500;
/// Fewer requests in a window say nothing.
const FEW: u64 = 8;
/// Windows without suffering before the limit is raised, while there are requests; doubled with each time that it was too much.
const CALM: u8 = 2;
/// Most such windows.
const CALMEST: u8 = 32;

/// The limit of one rebuild, and what it goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The limit in KiB/s.
    pub limit_kib: u64,
    /// What a request takes without suffering, in µs.
    usual: Option<u64>,
    calm: u8,
    wait: u8,
    seen: Io,
}

impl Pace {
    /// The pace of a rebuild that begins.
    pub fn first(seen: Io) -> Self {
        Self { limit_kib: LEAST, usual: None, calm: 0, wait: CALM, seen }
    }

    /// The pace after one more window, at whose end the array's requests are counted as in `seen`.
    #[must_use]
    pub fn next(self, seen: Io) -> Self {
        let count = seen.count.saturating_sub(self.seen.count);
        let spent = seen.milliseconds.saturating_sub(self.seen.milliseconds);
        let faster = (self.limit_kib * 2).min(MOST);
        let now = Self { seen, ..self };
        if count < FEW {
            return Self { limit_kib: faster, calm: 0, wait: CALM, ..now };
        }
        let took = spent.saturating_mul(1000) / count;
        let usual = self.usual.unwrap_or(took);
        if took > usual * SUFFERS + NOISE {
            // Where the rebuild is as slow as it gets, it is not what they suffer from.
            let usual = if self.limit_kib == LEAST { usual.midpoint(took) } else { usual };
            let wait = (self.wait * 2).min(CALMEST);
            return Self { limit_kib: (self.limit_kib / 2).max(LEAST), usual: Some(usual), calm: 0, wait, ..now };
        }
        let usual = Some(usual.min(took));
        match self.calm + 1 {
            calm if calm < self.wait => Self { usual, calm, ..now },
            _ => Self { limit_kib: faster, usual, calm: 0, ..now },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Windows in which requests take so many µs at a limit of so many KiB/s.
    fn run(windows: usize, took: impl Fn(u64) -> u64) -> Vec<u64> {
        let mut pace = Pace::first(Io::default());
        let mut seen = Io::default();
        let mut limits = vec![];
        for _ in 0..windows {
            seen = Io { count: seen.count + 1000, milliseconds: seen.milliseconds + took(pace.limit_kib) };
            pace = pace.next(seen);
            limits.push(pace.limit_kib);
        }
        limits
    }

    #[test]
    fn a_rebuild_beside_nobody_is_fast_soon() {
        let mut pace = Pace::first(Io::default());
        for _ in 0..8 {
            pace = pace.next(Io::default());
        }
        assert_eq!(pace.limit_kib, MOST);
    }

    #[test]
    fn it_backs_off_where_requests_suffer_and_stays_below() {
        // From 64 MiB/s on requests take 20 times as long.
        let limits = run(60, |limit| if limit >= 64 << 10 { 20_000 } else { 1000 });
        let settled = &limits[20..];
        assert!(settled.iter().all(|l| *l <= 64 << 10), "{settled:?}");
        let below = settled.iter().filter(|l| **l < 64 << 10).count();
        assert!(below * 10 >= settled.len() * 8, "it suffers in one window of five at most: {settled:?}");
    }

    #[test]
    fn a_load_that_is_slow_by_itself_does_not_starve_it() {
        let limits = run(10, |_| 300);
        assert!(limits[9] > LEAST);
        // The load changes for good, and not for the rebuild.
        let mut pace = Pace::first(Io::default());
        let mut seen = Io::default();
        for window in 0..200 {
            let took = if window < 5 { 1 } else { 100 };
            seen = Io { count: seen.count + 100, milliseconds: seen.milliseconds + took * 100 };
            pace = pace.next(seen);
        }
        assert!(pace.limit_kib > LEAST, "{pace:?}");
    }

    proptest! {
        #[test]
        fn whatever_the_kernel_counts_the_limit_is_one(windows in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..30)) {
            let mut pace = Pace::first(Io::default());
            for (count, milliseconds) in windows {
                pace = pace.next(Io { count, milliseconds });
                prop_assert!(pace.limit_kib >= LEAST && pace.limit_kib <= MOST);
            }
        }
    }
}
