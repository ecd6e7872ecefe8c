//! Waiting by polling, with an error that says what was awaited and what was last seen.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Time between two looks, short enough not to be felt and long enough not to load two cores.
const INTERVAL: Duration = Duration::from_millis(100);

/// What a look found.
pub enum Look<T> {
    /// What was awaited.
    Done(T),
    /// Not yet; what was seen instead, for the error.
    NotYet(String),
}

impl<T> Look<T> {
    /// With another value, if it is done.
    pub fn map<U>(self, of: impl FnOnce(T) -> U) -> Look<U> {
        match self {
            Self::Done(value) => Look::Done(of(value)),
            Self::NotYet(seen) => Look::NotYet(seen),
        }
    }
}

/// `Done(())` if `done`, else `NotYet(seen)`.
pub fn when(done: bool, seen: impl Into<String>) -> Look<()> {
    if done { Look::Done(()) } else { Look::NotYet(seen.into()) }
}

/// How many times as long as usual everything may take: `MESHSTOR_PATIENCE`, for a machine that does other things meanwhile.
fn patience() -> u32 {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    let set = || std::env::var("MESHSTOR_PATIENCE").ok()?.parse().ok();
    *FACTOR.get_or_init(|| set().unwrap_or(1).max(1))
}

/// Looks until `look` says `Done`. An error of `look` counts as "not yet": servers may be on their way up.
pub fn wait_for<T>(what: &str, timeout: Duration, mut look: impl FnMut() -> Result<Look<T>>) -> Result<T> {
    let (began, timeout) = (Instant::now(), timeout.saturating_mul(patience()));
    loop {
        let seen = match look() {
            Ok(Look::Done(value)) => return Ok(value),
            Ok(Look::NotYet(seen)) => seen,
            Err(error) => format!("error: {error:#}"),
        };
        if began.elapsed() > timeout {
            bail!("waited {} s for {what}; last seen: {seen}", timeout.as_secs());
        }
        pause(INTERVAL);
    }
}

/// Holds that `look` stays true for the whole of `time`; the first `NotYet` is an error.
pub fn holds_for(what: &str, time: Duration, mut look: impl FnMut() -> Result<Look<()>>) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < time {
        if let Look::NotYet(seen) = look()? {
            bail!(
                "{what} should have held for {} s, but after {:.1} s: {seen}",
                time.as_secs(),
                began.elapsed().as_secs_f64()
            );
        }
        pause(INTERVAL);
    }
    Ok(())
}

/// The one sleep of the harness: between two looks.
#[allow(clippy::disallowed_methods, reason = "the harness is synchronous; there is no executor to block")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Time since the process first asked.
pub fn since_start() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Shorthand for seconds.
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
