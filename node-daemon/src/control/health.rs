//! Legs whose drives fail, as their consumer sees it: MD drops them with errors again and again, or they answer far later than the
//! others. Pure; nothing here decides about data: it says who is not welcomed back, and who is to be replaced.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::host::Io;

/// MD drops a leg this often …
const ERRORS: usize = 3;
/// … in this time: it fails.
const WITHIN: Duration = Duration::from_secs(3600);
/// A leg takes this many µs for a request …
const SLOW: u64 = 100_000;
/// … and this many times as long as the fastest beside it …
const TIMES: u64 = 64;
/// … for so long: it is slow to death.
const LASTS: Duration = Duration::from_secs(120);
/// What a window lasts at least; the kernel is looked at in between, too.
const WINDOW: Duration = Duration::from_secs(20);
/// Fewer requests in a window say nothing.
const FEW: u64 = 8;

/// What a consumer's daemon has seen of the legs of one volume. It is not of one epoch.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// When MD dropped each leg with an error.
    errors: BTreeMap<String, Vec<Instant>>,
    /// Since when each leg is slow.
    slow: BTreeMap<String, Instant>,
    window: Option<(Instant, BTreeMap<String, Io>)>,
}

impl Health {
    /// MD dropped the leg by itself.
    pub fn dropped(&mut self, leg: &str, now: Instant) {
        self.errors.entry(leg.to_owned()).or_default().push(now);
    }

    /// The requests of each leg that is in sync, as they are counted now. While something is copied nobody is measured.
    pub fn measure(&mut self, legs: &BTreeMap<String, Io>, copying: bool, now: Instant) {
        let (began, before) = self.window.get_or_insert_with(|| (now, legs.clone()));
        if now.saturating_duration_since(*began) < WINDOW && !copying {
            return;
        }
        let took = |(leg, io): (&String, &Io)| {
            let before = before.get(leg)?;
            let count = io.count.checked_sub(before.count).filter(|n| *n >= FEW)?;
            Some((leg.clone(), io.milliseconds.saturating_sub(before.milliseconds).saturating_mul(1000) / count))
        };
        let took: BTreeMap<String, u64> = legs.iter().filter_map(took).collect();
        let since = *began;
        self.window = Some((now, legs.clone()));
        if copying {
            self.slow.clear();
            return;
        }
        for (leg, us) in &took {
            let fastest = took.iter().filter(|(other, _)| *other != leg).map(|(_, us)| *us).min();
            if fastest.is_some_and(|fastest| *us >= SLOW && *us / TIMES >= fastest.max(1)) {
                self.slow.entry(leg.clone()).or_insert(since);
            } else {
                self.slow.remove(leg);
            }
        }
    }

    /// Legs that fail, and why, for people.
    pub fn failing(&mut self, now: Instant) -> BTreeMap<String, String> {
        let recent = |at: &Instant| now.saturating_duration_since(*at) < WITHIN;
        self.errors.values_mut().for_each(|all| all.retain(recent));
        let errors = self.errors.iter().filter(|(_, all)| all.len() >= ERRORS);
        let errors = errors
            .map(|(leg, all)| (leg.clone(), format!("MD dropped it with errors {} times within an hour", all.len())));
        let slow = self.slow.iter().filter(|(_, since)| now.saturating_duration_since(**since) >= LASTS);
        let slow = slow.map(|(leg, _)| {
            (leg.clone(), format!("it takes more than {} ms, and {TIMES} times as long as another leg", SLOW / 1000))
        });
        slow.chain(errors).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        static BEGUN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *BEGUN.get_or_init(Instant::now) + Duration::from_secs(seconds)
    }

    #[test]
    fn the_third_error_within_the_hour_is_one_too_many() {
        let mut health = Health::default();
        for seconds in [0, 3000, 3700] {
            health.dropped("a", at(seconds));
            assert!(health.failing(at(seconds)).is_empty(), "two within an hour");
        }
        health.dropped("a", at(3710));
        health.dropped("b", at(3710));
        assert_eq!(health.failing(at(3710)).into_keys().collect::<Vec<_>>(), ["a"]);
        assert!(health.failing(at(9000)).is_empty());
    }

    /// Windows of 20 s in which a request takes each leg so many ms.
    fn windows(health: &mut Health, from: u64, count: u64, a: u64, b: u64, copying: bool) -> usize {
        let mut failing = 0;
        for n in 0..count {
            let io = |ms: u64| Io { count: (from + n) * 100, milliseconds: (from + n) * 100 * ms };
            let legs = BTreeMap::from([("a".to_owned(), io(a)), ("b".to_owned(), io(b))]);
            health.measure(&legs, copying, at((from + n) * 20));
            failing = health.failing(at((from + n) * 20)).len();
        }
        failing
    }

    #[test]
    fn a_leg_fails_that_is_far_slower_than_another_for_long() {
        assert_eq!(windows(&mut Health::default(), 1, 20, 1, 300, false), 1);
        assert_eq!(windows(&mut Health::default(), 1, 6, 1, 300, false), 0, "not for long");
        assert_eq!(windows(&mut Health::default(), 1, 20, 1, 90, false), 0, "a network at work");
        assert_eq!(windows(&mut Health::default(), 1, 20, 200, 300, false), 0, "all are slow");
        assert_eq!(windows(&mut Health::default(), 1, 20, 1, 300, true), 0, "something is copied");
        let mut quicker = Health::default();
        windows(&mut quicker, 1, 20, 1, 300, false);
        assert_eq!(windows(&mut quicker, 1000, 3, 1, 2, false), 0, "it was a passing matter");
    }
}
