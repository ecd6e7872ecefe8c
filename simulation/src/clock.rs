//! Virtual time: it moves only when the scheduler says so.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use meshstor_crds::Time;

/// Seconds since 1970 at which every run begins.
const DAWN: i64 = 1_800_000_000;

/// The one clock of a run.
pub(crate) struct Clock {
    begun: Instant,
    millis: AtomicU64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), millis: AtomicU64::new(0) }
    }

    pub(crate) fn millis(&self) -> u64 {
        self.millis.load(Ordering::Relaxed)
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.millis.fetch_add(u64::try_from(by.as_millis()).unwrap_or(0), Ordering::Relaxed);
    }

    pub(crate) fn instant(&self) -> Instant {
        self.begun + Duration::from_millis(self.millis())
    }

    pub(crate) fn timestamp(&self) -> Timestamp {
        let seconds = i64::try_from(self.millis() / 1000).unwrap_or(0);
        Timestamp::from_second(DAWN + seconds).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    pub(crate) fn time(&self) -> Time {
        Time(self.timestamp())
    }
}

impl meshstor_operator::context::Clock for Clock {
    fn instant(&self) -> Instant {
        Self::instant(self)
    }

    fn timestamp(&self) -> Timestamp {
        Self::timestamp(self)
    }
}
