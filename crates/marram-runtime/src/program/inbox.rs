//! What an instance of 0.3 has been given to do, shared by who gives and who drives.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Instant;

use http::{Request, Response};
use marram_core::Failure;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use wasmtime_wasi_http::WasiBody;

use crate::answer::StopRun;
use crate::body::RequestBody;
use crate::console::Console;
use crate::cpu::{Account, SharedPollClock};
use crate::invocation::Invocation;

/// A request for an instance, and where its answer goes.
pub(crate) struct Job {
    pub(crate) request: Request<RequestBody>,
    pub(crate) invocation: Arc<Invocation>,
    pub(crate) reply: oneshot::Sender<Result<(Response<WasiBody>, Flight), Failure>>,
}

/// The requests of one instance.
pub(crate) struct Inbox {
    inner: Mutex<Inner>,
    pub(crate) console: Arc<Console>,
    clock: SharedPollClock,
    /// Cancelled when the instance is gone, after its failure, if it had one, was told.
    pub(crate) gone: CancellationToken,
    reuse: u32,
    concurrent: u32,
    /// What the instance may use while no request is in flight: work that goes on after an answer.
    background_cpu_ns: u64,
    /// It was polled as far as it comes, and nobody has given it a request since.
    waiting: AtomicBool,
}

#[derive(Default)]
struct Inner {
    jobs: VecDeque<Job>,
    waker: Option<Waker>,
    accepted: u32,
    /// Given and not yet answered to the end.
    flying: Vec<Arc<Invocation>>,
    /// Ended in the poll that is going on, for which they pay too: a failure of the instance ends them all before what it
    /// has used is known.
    landed: Vec<Arc<Invocation>>,
    /// From [`Account::allowed_ns`] to [`Inbox::end_poll`].
    polling: bool,
    last_deadline: Option<Instant>,
    /// What it has used since the last request came, while none was in flight.
    background_used_ns: u64,
    retired: bool,
    idle: bool,
    failure: Option<Failure>,
}

impl Inbox {
    pub(crate) fn new(
        console: Arc<Console>,
        clock: SharedPollClock,
        reuse: u32,
        concurrent: u32,
        background_cpu_ns: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            console,
            clock,
            gone: CancellationToken::new(),
            reuse,
            concurrent,
            background_cpu_ns,
            waiting: AtomicBool::new(false),
        })
    }

    /// Gives a request to the instance if it may take one more, and wakes who drives it.
    #[allow(clippy::result_large_err, reason = "not an error: what is not taken is given back")]
    pub(crate) fn give(&self, job: Job) -> Result<(), Job> {
        let mut inner = self.lock();
        let full = inner.flying.len() >= self.concurrent as usize;
        if inner.retired || full || inner.accepted >= self.reuse || inner.failure.is_some() {
            return Err(job);
        }
        inner.accepted += 1;
        inner.idle = false;
        inner.background_used_ns = 0;
        inner.flying.push(Arc::clone(&job.invocation));
        inner.last_deadline = inner.last_deadline.max(Some(job.invocation.deadline));
        inner.jobs.push_back(job);
        if inner.polling {
            // It pays for this poll too, so that the share of the others is less.
            self.clock.allow_ns(self.allowed_by(&inner));
        }
        let waker = inner.waker.take();
        drop(inner);
        self.set_waiting(false);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// The next request, or `None` and a promise to wake `waker` when there is one.
    pub(crate) fn take(&self, waker: &Waker) -> Option<Job> {
        let mut inner = self.lock();
        let job = inner.jobs.pop_front();
        if job.is_none() {
            inner.waker = Some(waker.clone());
        }
        job
    }

    /// Whether it only waits for something, so that a request would be served at once.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(crate) fn set_waiting(&self, waiting: bool) {
        self.waiting.store(waiting, Ordering::Relaxed);
    }

    /// A poll was charged, and its failure told if it had one.
    pub(crate) fn end_poll(&self) {
        let mut inner = self.lock();
        inner.polling = false;
        let landed = std::mem::take(&mut inner.landed);
        drop(inner);
        // The last reference makes a meter record, which is not to be done under the lock.
        drop(landed);
    }

    /// How many requests it has been given.
    pub(crate) fn accepted(&self) -> u32 {
        self.lock().accepted
    }

    /// Whether it will take no more.
    pub(crate) fn is_spent(&self) -> bool {
        let inner = self.lock();
        inner.retired || inner.accepted >= self.reuse
    }

    /// No more requests: one did not end in time.
    pub(crate) fn retire(&self) {
        self.lock().retired = true;
    }

    /// Nothing is left to do. Said by the instance; unsaid by [`Self::give`].
    pub(crate) fn set_idle(&self) {
        let mut inner = self.lock();
        inner.idle = inner.jobs.is_empty();
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.lock().idle
    }

    /// When everything that it was given has to be over.
    pub(crate) fn last_deadline(&self) -> Option<Instant> {
        self.lock().last_deadline
    }

    /// When the next of those in flight has to be over; without one, everything.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let inner = self.lock();
        let open = inner.flying.iter().filter(|invocation| !invocation.has_ended());
        open.map(|invocation| invocation.deadline).min().or(inner.last_deadline)
    }

    /// Fails those that had to be over by `until`. What they do in the guest cannot be cancelled, so they keep their permits.
    pub(crate) fn fail_late(&self, until: Instant, failure: &Failure) {
        let inner = self.lock();
        let late = inner.flying.iter().filter(|invocation| invocation.deadline <= until);
        late.for_each(|invocation| invocation.fail(failure));
    }

    /// The instance is gone, whoever still holds what it answered.
    pub(crate) fn let_next_in(&self) {
        self.lock().paying().for_each(|invocation| invocation.let_next_in());
    }

    /// The instance is gone. Everybody who still waits gets this.
    pub(crate) fn fail(&self, failure: Failure) {
        let mut inner = self.lock();
        inner.paying().for_each(|invocation| invocation.fail(&failure));
        inner.failure = Some(failure);
        inner.jobs.clear();
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        self.lock().failure.clone()
    }

    /// How much those who pay for a poll allow it.
    fn allowed_by(&self, inner: &Inner) -> u64 {
        let least = inner.paying().map(|invocation| invocation.cpu_left_ns()).min();
        least.map_or_else(
            || self.background_cpu_ns.saturating_sub(inner.background_used_ns),
            |least| least.saturating_mul(inner.paying().count() as u64),
        )
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Who pays for the poll that is going on, or for the next one.
    fn paying(&self) -> impl Iterator<Item = &Arc<Invocation>> {
        self.flying.iter().chain(&self.landed)
    }
}

/// CPU time is shared equally by the requests in flight: wasmtime does not tell which of them a poll was for.
impl Account for Arc<Inbox> {
    fn allowed_ns(&self) -> u64 {
        let mut inner = self.lock();
        inner.polling = true;
        self.allowed_by(&inner)
    }

    fn charge(&self, ns: u64, memory_bytes: u64) {
        let mut inner = self.lock();
        let count = inner.paying().count() as u64;
        if count == 0 {
            inner.background_used_ns = inner.background_used_ns.saturating_add(ns);
        }
        inner.paying().for_each(|invocation| {
            invocation.charge_cpu(ns / count);
            invocation.saw_memory(memory_bytes);
        });
    }
}

/// A request in flight; dropped when its answer is complete or nobody wants it any more.
pub(crate) struct Flight {
    inbox: Arc<Inbox>,
    invocation: Arc<Invocation>,
}

impl Flight {
    pub(crate) fn begin(inbox: &Arc<Inbox>, invocation: &Arc<Invocation>) -> Self {
        inbox.console.begin(Arc::clone(invocation));
        Self { inbox: Arc::clone(inbox), invocation: Arc::clone(invocation) }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.inbox.console.end(&self.invocation);
        let mut inner = self.inbox.lock();
        inner.flying.retain(|flying| !Arc::ptr_eq(flying, &self.invocation));
        if inner.polling {
            inner.landed.push(Arc::clone(&self.invocation));
        }
    }
}

impl StopRun for Flight {
    // The component model has no way yet for a host to cancel a guest's task: it runs to its end or its deadline.
    fn stop(&mut self) {}
}
