//! What of its process the workers lean on: clocks and threads. A simulation puts its own in their place, so that one
//! seed gives one run.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use jiff::Timestamp;

/// Work for a thread of its own. It sends its result away itself.
pub type Job = Box<dyn FnOnce() + Send>;

/// Clocks and threads.
pub trait Surroundings: Send + Sync {
    /// The monotonic clock.
    fn instant(&self) -> Instant;
    /// The clock on the wall, for conditions.
    fn timestamp(&self) -> Timestamp;
    /// Runs a job that may hang, beside everything else.
    fn apart(&self, job: Job);
    /// Waits.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()>;
}

/// Those of a real process, under tokio.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process;

impl Surroundings for Process {
    fn instant(&self) -> Instant {
        Instant::now()
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp::now()
    }

    fn apart(&self, job: Job) {
        drop(tokio::task::spawn_blocking(job));
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }
}
