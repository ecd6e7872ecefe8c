//! Which of several operators writes: one that holds a Lease, as long as it can be sure of it.
//!
//! No clock of another machine is believed. A standby waits until it has seen the Lease unchanged for its whole duration by
//! its own monotonic clock; the leader stops before that, counted from when it *began* its last successful renewal. All
//! writes of the Lease are replacements with its `resourceVersion`. (Of the crates at hand one writes without it, another
//! compares the clocks of two machines and goes on leading while the API server is away.)
//!
//! Safety does not rest on this (I3): a record is a compare-and-swap with any number of writers. It keeps two operators
//! from undoing each other's work.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

/// Name of the Lease, in the operator's namespace.
pub const LEASE: &str = "meshstor-operator";
/// How long a standby must see the Lease unchanged before it takes it.
pub const DURATION: Duration = Duration::from_secs(10);
/// How often the leader renews, and a standby looks.
const PERIOD: Duration = Duration::from_secs(2);
/// How long the leader goes on after it began its last successful renewal. What is left to [`DURATION`] is for requests
/// that are on their way.
const GIVE_UP: Duration = Duration::from_secs(6);
// The standby counts from when it saw what the leader wrote after the beginning of its renewal.
const _: () = assert!(GIVE_UP.as_secs() + PERIOD.as_secs() < DURATION.as_secs(), "two would lead");

/// Whether this process leads now. Cheap to ask, for it is asked before each write.
#[derive(Clone, Debug)]
pub struct Leadership {
    start: Instant,
    /// Milliseconds after `start` at which it ends; 0 when there is none.
    until: Arc<AtomicU64>,
}

impl Default for Leadership {
    fn default() -> Self {
        Self { start: Instant::now(), until: Arc::default() }
    }
}

/// A write that was held back, for this process does not lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this operator does not lead")]
pub struct NotLeading;

impl Leadership {
    /// Passes what only reads, and everything while this process leads: what each request of a reconcile goes through.
    ///
    /// # Errors
    /// [`NotLeading`].
    pub fn pass<B>(&self, request: http::Request<B>) -> Result<http::Request<B>, NotLeading> {
        if request.method() == http::Method::GET || self.leads(Instant::now()) { Ok(request) } else { Err(NotLeading) }
    }

    fn leads(&self, now: Instant) -> bool {
        self.millis(now) < self.until.load(Ordering::Acquire)
    }

    fn lead_until(&self, end: Instant) {
        self.until.store(self.millis(end), Ordering::Release);
    }

    fn end(&self) {
        self.until.store(0, Ordering::Release);
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }
}

/// What a standby has seen of the Lease, and since when it has not changed.
#[derive(Clone, Debug)]
struct Seen {
    version: Option<String>,
    since: Instant,
}

impl Seen {
    /// Whether `me` may take `lease`, seen at `now`.
    fn may_take(&mut self, lease: &Lease, me: &str, now: Instant) -> bool {
        if self.version != lease.metadata.resource_version {
            *self = Self { version: lease.metadata.resource_version.clone(), since: now };
        }
        let holder = holder(lease);
        let seconds = lease.spec.as_ref().and_then(|s| s.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
        let duration = seconds.map_or(DURATION, Duration::from_secs);
        // Its own name: it is this process after a restart.
        holder.is_empty() || holder == me || now.duration_since(self.since) >= duration
    }
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|s| s.holder_identity.as_deref()).unwrap_or_default()
}

/// Takes, keeps and gives back the Lease.
pub struct Elector {
    api: Api<Lease>,
    me: String,
    leadership: Leadership,
}

impl Elector {
    /// An elector with the name `me`, which no other one that runs may have. `client` must not be one that [`Leadership`]
    /// holds back.
    pub fn new(client: Client, namespace: &str, me: String, leadership: Leadership) -> Self {
        Self { api: Api::namespaced(client, namespace), me, leadership }
    }

    /// Waits until this process leads.
    pub async fn take(&self) -> Lease {
        let mut seen = Seen { version: None, since: Instant::now() };
        let mut told = None;
        loop {
            match self.try_take(&mut seen).await {
                Ok(Ok(lease)) => {
                    info!(me = self.me, "leads");
                    return lease;
                }
                Ok(Err(holder)) if told.as_ref() != Some(&holder) => {
                    info!(me = self.me, holder, "stands by");
                    told = Some(holder);
                }
                Ok(Err(_)) => {}
                Err(failure) => debug!("look at the Lease: {failure}"),
            }
            sleep(PERIOD).await;
        }
    }

    /// The Lease, or who holds it.
    async fn try_take(&self, seen: &mut Seen) -> Result<Result<Lease, String>, Failure> {
        let found = bounded(PERIOD, self.api.get_opt(LEASE)).await?;
        let begun = Instant::now();
        let lease = match found {
            None => bounded(PERIOD, self.api.create(&PostParams::default(), &self.lease(None))).await?,
            Some(lease) if seen.may_take(&lease, &self.me, begun) => {
                self.replace(self.lease(Some(lease)), PERIOD).await?
            }
            Some(lease) => return Ok(Err(holder(&lease).to_owned())),
        };
        self.leadership.lead_until(begun + GIVE_UP);
        Ok(Ok(lease))
    }

    /// Renews until it is lost. From then on no write passes.
    pub async fn keep(&self, mut lease: Lease) {
        let mut renewed = Instant::now();
        loop {
            sleep(PERIOD).await;
            let begun = Instant::now();
            let left = (renewed + GIVE_UP).saturating_duration_since(begun);
            match self.replace(self.lease(Some(lease.clone())), left.min(PERIOD)).await {
                _ if left.is_zero() => return self.lost("it could not be renewed in time"),
                Ok(new) => {
                    self.leadership.lead_until(begun + GIVE_UP);
                    (lease, renewed) = (new, begun);
                }
                // Perhaps by a renewal of ours whose answer did not come.
                Err(Failure::Api(kube::Error::Api(status))) if status.code == 409 || status.code == 404 => {
                    match bounded(left.min(PERIOD), self.api.get_opt(LEASE)).await {
                        Ok(Some(now)) if holder(&now) == self.me => lease = now,
                        Ok(_) => return self.lost("somebody else has it"),
                        Err(failure) => warn!("look at the Lease: {failure}"),
                    }
                }
                Err(failure) => warn!("renew the Lease: {failure}"),
            }
        }
    }

    fn lost(&self, why: &str) {
        self.leadership.end();
        warn!(me = self.me, "leads no longer: {why}");
    }

    /// Gives the Lease back, so that nobody has to wait.
    ///
    /// # Errors
    /// [`Failure`]; the next leader then waits for [`DURATION`].
    pub async fn give_back(&self) -> Result<(), Failure> {
        self.leadership.end();
        let Some(mut lease) = bounded(PERIOD, self.api.get_opt(LEASE)).await? else { return Ok(()) };
        if holder(&lease) != self.me {
            return Ok(());
        }
        lease.spec.get_or_insert_default().holder_identity = None;
        self.replace(lease, PERIOD).await.map(drop)
    }

    async fn replace(&self, lease: Lease, within: Duration) -> Result<Lease, Failure> {
        bounded(within, self.api.replace(LEASE, &PostParams::default(), &lease)).await
    }

    /// The Lease with this process as its holder, after `old`.
    fn lease(&self, old: Option<Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let mut lease = old.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() },
            ..Lease::default()
        });
        let ours = holder(&lease) == self.me;
        let spec = lease.spec.get_or_insert_default();
        if !ours {
            spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |n| n.saturating_add(1)));
            spec.acquire_time = Some(now.clone());
            spec.holder_identity = Some(self.me.clone());
        }
        spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
        spec.renew_time = Some(now);
        lease
    }
}

/// Why the Lease could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The API server's answer, or that there was none.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// No answer in time.
    #[error("no answer for {0:?}")]
    Silent(Duration),
}

async fn bounded<T>(within: Duration, request: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    timeout(within, request).await.map_err(|_| Failure::Silent(within))?.map_err(Failure::Api)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::coordination::v1::LeaseSpec;

    fn lease(version: &str, holder: Option<&str>) -> Lease {
        let mut lease = Lease { spec: Some(LeaseSpec::default()), ..Lease::default() };
        lease.metadata.resource_version = Some(version.to_owned());
        lease.spec.as_mut().unwrap().holder_identity = holder.map(str::to_owned);
        lease.spec.as_mut().unwrap().lease_duration_seconds = Some(10);
        lease
    }

    #[test]
    fn a_standby_takes_what_it_has_seen_unchanged_for_long_enough() {
        let start = Instant::now();
        let after = |s| start + Duration::from_secs(s);
        let mut seen = Seen { version: None, since: start };
        assert!(!seen.may_take(&lease("1", Some("a")), "b", after(60)), "seen for the first time");
        assert!(!seen.may_take(&lease("1", Some("a")), "b", after(69)));
        assert!(!seen.may_take(&lease("2", Some("a")), "b", after(71)), "it was renewed");
        assert!(!seen.may_take(&lease("2", Some("a")), "b", after(80)));
        assert!(seen.may_take(&lease("2", Some("a")), "b", after(81)));
        assert!(seen.may_take(&lease("3", Some("b")), "b", after(82)), "it is ours");
        assert!(seen.may_take(&lease("4", None), "b", after(83)), "it was given back");
    }

    #[test]
    fn nothing_but_reads_passes_when_somebody_else_may_lead() {
        let leadership = Leadership::default();
        let ask =
            |method: http::Method| leadership.pass(http::Request::builder().method(method).body(()).unwrap()).is_ok();
        assert!(ask(http::Method::GET) && !ask(http::Method::PUT), "it has not begun");
        leadership.lead_until(Instant::now() + GIVE_UP);
        for method in [http::Method::POST, http::Method::PUT, http::Method::PATCH, http::Method::DELETE] {
            assert!(ask(method));
        }
        assert!(!leadership.leads(Instant::now() + GIVE_UP), "time alone ends it");
        leadership.end();
        assert!(ask(http::Method::GET) && !ask(http::Method::DELETE));
    }
}
