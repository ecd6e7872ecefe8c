//! What is between a process and the API server: requests that wait, are lost, are done without an answer, or are done
//! long after their sender gave them up.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use tokio::sync::oneshot;

use crate::api::State;

type Reply = Box<dyn Any + Send>;
type Call = Box<dyn FnOnce(&mut State) -> Reply + Send>;

/// A request on its way.
struct Pending {
    who: String,
    call: Call,
    answer: Option<oneshot::Sender<Reply>>,
}

/// The network to the API server.
pub(crate) struct Net {
    pub(crate) state: Mutex<State>,
    pending: Mutex<Vec<Pending>>,
    /// Requests are done and answered as they are sent.
    immediate: AtomicBool,
    /// Who does not reach the API server.
    cut: Mutex<BTreeSet<String>>,
    /// Who is not reached by its answers.
    deaf: Mutex<BTreeSet<String>>,
    sent: AtomicU64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Net {
    pub(crate) fn new(state: State) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(state),
            pending: Mutex::default(),
            immediate: AtomicBool::new(true),
            cut: Mutex::default(),
            deaf: Mutex::default(),
            sent: AtomicU64::new(0),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    pub(crate) fn set_immediate(&self, immediate: bool) {
        self.immediate.store(immediate, Ordering::Relaxed);
    }

    /// Requests that were ever sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn reaches(&self, who: &str) -> bool {
        !locked(&self.cut).contains(who)
    }

    pub(crate) fn hears(&self, who: &str) -> bool {
        self.reaches(who) && !locked(&self.deaf).contains(who)
    }

    pub(crate) fn set_cut(&self, who: &str, cut: bool, deaf: bool) {
        for (set, on) in [(&self.cut, cut), (&self.deaf, deaf)] {
            let mut set = locked(set);
            if on {
                set.insert(who.to_owned())
            } else {
                set.remove(who)
            };
        }
    }

    /// Sends a request: answers with what it came to, or with nothing where that is not known.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        who: &str,
        call: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> BoxFuture<'static, Option<T>> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        if self.immediate.load(Ordering::Relaxed) && self.reaches(who) {
            let done = call(&mut self.state());
            let heard = self.hears(who).then_some(done);
            return Box::pin(std::future::ready(heard));
        }
        let (answer, reply) = oneshot::channel();
        let call: Call = Box::new(move |state| Box::new(call(state)));
        locked(&self.pending).push(Pending { who: who.to_owned(), call, answer: Some(answer) });
        Box::pin(async move { reply.await.ok().and_then(|reply| reply.downcast().ok()).map(|reply| *reply) })
    }

    /// How many requests are on their way.
    pub(crate) fn pending(&self) -> usize {
        locked(&self.pending).len()
    }

    /// One of them is done, if its sender reaches the API server, and answered if that is to be and can be.
    pub(crate) fn deliver(&self, index: usize, answered: bool) -> bool {
        let mut all = locked(&self.pending);
        if all.get(index).is_none_or(|p| !self.reaches(&p.who) && p.answer.is_some()) {
            return false;
        }
        let pending = all.remove(index);
        drop(all);
        let reply = (pending.call)(&mut self.state());
        if let Some(answer) = pending.answer.filter(|_| answered && self.hears(&pending.who)) {
            drop(answer.send(reply));
        }
        true
    }

    /// One of them is never done.
    pub(crate) fn lose(&self, index: usize) {
        let mut all = locked(&self.pending);
        if index < all.len() {
            all.remove(index);
        }
    }

    /// The sender of one of them waits no longer; it may be done all the same.
    pub(crate) fn give_up(&self, index: usize) {
        if let Some(pending) = locked(&self.pending).get_mut(index) {
            pending.answer = None;
        }
    }
}
