//! Two daemons that run as in the product, woken by changes of objects and by what the kernel tells; no sweep helps them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use meshstor_crds::conditions::{self, READY, REASON_FOREIGN_ASSEMBLY, STALLED};
use meshstor_crds::naming;
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::JoinSet;

use super::operator::operate;
use super::sim::{Sim, VOLUME, leg_ref};
use crate::control::dispatch::{Change, Dispatch};
use crate::events::News;
use crate::host::Host;
use crate::host::crash::CrashPoint;
use crate::host::fake::Write;

struct Live {
    sim: Sim,
    news: Vec<Sender<News>>,
    /// Ends with the test.
    _tasks: JoinSet<()>,
}

impl Live {
    /// A volume that is attached on `a`, with its daemons, and an operator that acts at every change.
    async fn attached() -> Self {
        let mut sim = Sim::new();
        let mut tasks = JoinSet::new();
        let (mut changes, mut news) = (Vec::new(), Vec::new());
        for node in ["a", "b"] {
            let (change, changed) = channel(64);
            let (tell, told) = channel(64);
            let ctx = sim.context(node, CrashPoint::never());
            tasks.spawn(Dispatch::new(ctx).run(changed, told));
            changes.push(change);
            news.push(tell);
        }
        let state = Arc::clone(&sim.state);
        tasks.spawn(async move {
            let mut seen = 0;
            loop {
                let version = {
                    let mut state = state.lock().unwrap();
                    operate(&mut state, &|_| true);
                    state.version
                };
                if version != seen {
                    for daemon in &changes {
                        daemon.send(Change::Volume(VOLUME.to_owned())).await.unwrap();
                    }
                }
                seen = version;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        sim.want(Some("a"));
        let live = Self { sim, news, _tasks: tasks };
        live.until("to be attached", |sim| {
            sim.attachment().status.is_some_and(|s| conditions::is_true(&s.conditions, READY) && s.array.is_some())
        })
        .await;
        assert_eq!(live.sim.write("a"), Write::Acked);
        live
    }

    async fn until(&self, what: &str, done: impl Fn(&Sim) -> bool) {
        let start = Instant::now();
        while !done(&self.sim) {
            assert!(start.elapsed() < Duration::from_secs(60), "waited for {what}: {:#?}", self.sim.leg(1).status);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Nobody writes anything for a while.
    async fn rests(&self) {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before = self.sim.state.lock().unwrap().version;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(self.sim.state.lock().unwrap().version, before, "I4");
    }

    /// The kernel of `b` tells.
    async fn tell(&self, news: News) {
        self.news[1].send(news).await.unwrap();
    }
}

fn reason(sim: &Sim) -> Option<String> {
    let status = sim.leg(1).status?;
    status.conditions.into_iter().find(|c| c.type_ == STALLED).map(|c| c.reason)
}

#[tokio::test]
async fn an_export_that_somebody_took_apart_is_closed_at_once_and_its_grant_is_spent() {
    // I1: rule 1, rule 9; only a new grant opens the leg again, and it comes back by a rebuild.
    let live = Live::attached().await;
    live.rests().await;
    let grant = live.sim.leg(1).spec.grant.unwrap().number;
    live.sim.fabric.unlink_exports("b");
    assert_eq!(live.sim.write("a"), Write::Held, "the fault fired");
    live.rests().await;
    live.tell(News::of([naming::export_nqn("leg-uid-1", 1, grant)])).await;
    live.until("a new grant", |sim| sim.leg(1).status.is_some_and(|s| s.export.is_some_and(|e| e.grant > grant))).await;
    live.until("the rebuild", |sim| {
        sim.fabric.complete_rebuilds("a");
        sim.term().in_sync == ["v-0", "v-1"]
    })
    .await;
    assert_eq!(live.sim.write("a"), Write::Acked);
}

#[tokio::test]
async fn a_leg_in_a_foreign_array_is_reported_at_once_and_freed_when_nobody_uses_that() {
    // I6, I7: the leg is never erased; an array of the volume that nobody of ours started is stopped, never by force.
    let live = Live::attached().await;
    live.sim.want(None);
    live.until("to be detached", |sim| sim.attachment().status.is_some_and(|s| s.ended.is_some())).await;
    live.rests().await;
    let held = |sim: &Sim| sim.host("b").leg(&leg_ref(1, "b")).unwrap().held_by;
    let stamp = live.sim.fabric.stamp("b", leg_ref(1, "b").uuid);
    live.sim.fabric.steal("b", leg_ref(1, "b").uuid);
    assert!(held(&live.sim).is_some(), "the fault fired");
    live.rests().await;
    assert_eq!(reason(&live.sim), None, "nobody looks before he is told");
    live.tell(News::of(["b-drivep1", "md127"])).await;
    live.until("the report", |sim| reason(sim).as_deref() == Some(REASON_FOREIGN_ASSEMBLY)).await;
    assert!(held(&live.sim).is_some(), "it is in use");
    live.sim.fabric.close("b");
    live.until("the array to be stopped", |sim| held(sim).is_none()).await;
    live.tell(News::of(["b-drivep1", "md127"])).await;
    live.until("the all-clear", |sim| reason(sim).is_none()).await;
    assert_eq!(live.sim.fabric.stamp("b", leg_ref(1, "b").uuid), stamp);
}

#[tokio::test]
async fn news_that_was_missed_makes_everybody_look() {
    // I4: what was told and not heard is found all the same.
    let live = Live::attached().await;
    live.rests().await;
    let grant = live.sim.leg(1).spec.grant.unwrap().number;
    live.sim.fabric.unlink_exports("b");
    live.tell(News::missed()).await;
    live.until("a new grant", |sim| sim.leg(1).spec.grant.is_some_and(|g| g.number > grant)).await;
}

#[tokio::test]
async fn our_own_changes_and_those_of_others_disturb_nobody() {
    // I4: news of what is as it was, and of what is not ours, changes nothing.
    let live = Live::attached().await;
    live.rests().await;
    let nqn = live.sim.leg(1).status.unwrap().export.unwrap().nqn;
    let before = live.sim.state.lock().unwrap().version;
    for name in [nqn.as_str(), "b-drivep1", "b-drive", "md100", "md5", "loop3", "nvme7"] {
        live.tell(News { drives: true, ..News::of([name]) }).await;
    }
    live.rests().await;
    assert_eq!(live.sim.state.lock().unwrap().version, before);
}
