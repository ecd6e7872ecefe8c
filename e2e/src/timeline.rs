//! When things happened, on one clock: that of the machine, which the API server has. A guest of User-Mode Linux begins with it, but
//! where the machine was busy then it is late for good (0.13 s seen), longer than a daemon takes from a record to what may follow it:
//! [`Clock`] says by how much.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use jiff::SignedDuration;
use serde_json::Value;

use crate::agent::Request;
use crate::guest::Guest;
use crate::writer::Flush;

/// A change that the poller in a guest has seen: it happened after `after` and not later than `by`, on the guest's clock.
#[derive(Clone, Debug)]
pub struct Change {
    /// The last look that showed the old value.
    pub after: SystemTime,
    /// The first look that showed the new value.
    pub by: SystemTime,
    /// The file.
    pub path: String,
    /// What it said before; `-` for not there.
    pub old: String,
    /// What it said then.
    pub new: String,
}

/// How much a guest's clock is late.
#[derive(Clone, Copy, Debug)]
pub struct Clock(SignedDuration);

impl Clock {
    /// Compares the two clocks; as exact as half of the quickest of some answers.
    pub fn of(guest: &Guest) -> Result<Self> {
        let mut best = (Duration::MAX, SignedDuration::ZERO);
        for _ in 0..9 {
            let (asked, clock) = (SystemTime::now(), Instant::now());
            let answer = guest.agent().ask(&Request::Alive { pid: 1 }, crate::wait::secs(20))?;
            let took = clock.elapsed();
            let here = SignedDuration::try_from((asked + took / 2).duration_since(UNIX_EPOCH)?)?;
            best = best.min((took, here - SignedDuration::try_from(Duration::from_nanos(answer.clock))?));
        }
        Ok(Self(best.1))
    }

    /// A time of the guest on the machine's clock.
    pub fn here(self, guests: SystemTime) -> SystemTime {
        let late = self.0.unsigned_abs();
        if self.0.is_negative() { guests - late } else { guests + late }
    }

    /// Both times of a change.
    pub fn change(self, change: Change) -> Change {
        Change { after: self.here(change.after), by: self.here(change.by), ..change }
    }

    /// Both times of a flush.
    pub fn flush(self, flush: Flush) -> Flush {
        Flush { began: self.here(flush.began), ended: self.here(flush.ended), ..flush }
    }
}

/// Starts the poller in a guest; gives its process id.
pub fn watch(guest: &Guest) -> Result<i32> {
    guest.spawn(&["/run/share/poller"], std::collections::BTreeMap::new(), "poller.log")
}

/// What the poller in a guest has seen so far.
pub fn changes(guest: &Guest) -> Result<Vec<Change>> {
    let text = std::fs::read_to_string(guest.machine.share.join("logs/poller.log"))?;
    text.lines().map(|line| parse(line).with_context(|| format!("poller wrote {line:?}"))).collect()
}

fn parse(line: &str) -> Option<Change> {
    let words: Vec<&str> = line.split(' ').collect();
    let [after, by, path, old, new] = words.as_slice() else { return None };
    let time = |word: &str| Some(UNIX_EPOCH + Duration::from_nanos(word.parse().ok()?));
    Some(Change {
        after: time(after)?,
        by: time(by)?,
        path: (*path).to_owned(),
        old: (*old).to_owned(),
        new: (*new).to_owned(),
    })
}

/// One accepted write of the record of an attachment.
#[derive(Clone, Debug)]
pub struct RecordWrite {
    /// When the API server had its answer ready: the record is in etcd by then.
    pub at: SystemTime,
    /// Who wrote.
    pub by: String,
    /// `status.term` as it was then.
    pub term: Value,
    /// The whole status.
    pub status: Value,
}

/// All accepted writes of the status of the attachment `name`, in order, from the audit log.
pub fn record_writes(audit: &Path, name: &str) -> Result<Vec<RecordWrite>> {
    let text = std::fs::read_to_string(audit).with_context(|| format!("read {}", audit.display()))?;
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mine = events.filter(|event| {
        let object = &event["objectRef"];
        object["resource"] == "meshattachments" && object["subresource"] == "status" && object["name"] == name
    });
    mine.filter(|event| event["responseStatus"]["code"] == 200)
        .map(|event| {
            let at: jiff::Timestamp = event["stageTimestamp"].as_str().context("an audit event has a time")?.parse()?;
            let by = event["user"]["username"].as_str().unwrap_or_default().to_owned();
            let status = event["responseObject"]["status"].clone();
            Ok(RecordWrite { at: SystemTime::from(at), by, term: status["term"].clone(), status })
        })
        .collect()
}

/// One request that wanted to change one of our objects.
#[derive(Clone, Debug)]
pub struct Write {
    /// Who asked.
    pub by: String,
    /// `create`, `update`, `patch` or `delete`.
    pub verb: String,
    /// Plural of the kind, with the subresource.
    pub resource: String,
}

/// All such requests that were answered after `since`, whatever the answer was, from the audit log.
pub fn writes_since(audit: &Path, since: SystemTime) -> Result<Vec<Write>> {
    let text = std::fs::read_to_string(audit).with_context(|| format!("read {}", audit.display()))?;
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut writes = Vec::new();
    for event in events.filter(|event| event["stage"] == "ResponseComplete") {
        let at: jiff::Timestamp = event["stageTimestamp"].as_str().context("an audit event has a time")?.parse()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, sub) = (text(&event["objectRef"]["resource"]), text(&event["objectRef"]["subresource"]));
        if SystemTime::from(at) > since {
            let resource = if sub.is_empty() { kind } else { format!("{kind}/{sub}") };
            writes.push(Write { by: text(&event["user"]["username"]), verb: text(&event["verb"]), resource });
        }
    }
    Ok(writes)
}

/// Seconds from `from` to `to`, negative if it is the other way round.
pub fn seconds(from: SystemTime, to: SystemTime) -> f64 {
    to.duration_since(from).map_or_else(|error| -error.duration().as_secs_f64(), |time| time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_clock_is_put_right() {
        let at = |ms: u64| UNIX_EPOCH + Duration::from_millis(ms);
        assert_eq!(Clock(SignedDuration::from_millis(130)).here(at(1000)), at(1130));
        let change = Change { after: at(40), by: at(50), path: String::new(), old: String::new(), new: String::new() };
        let early = Clock(SignedDuration::from_millis(-40)).change(change);
        assert_eq!((early.after, early.by), (at(0), at(10)));
    }
}
