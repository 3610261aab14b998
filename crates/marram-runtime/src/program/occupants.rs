//! The requests in one instance of JavaScript: who pays for its turns, whose its log lines and its fetches are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use marram_core::Failure;
use marram_core::port::Body;
use marram_core::record::{Level, Source};

use crate::capability::script;
use crate::cpu::Account;
use crate::deployed::Deployed;
use crate::hooks;
use crate::invocation::Invocation;
use crate::log_budget::LogBudget;
use crate::outbound::Timeouts;
use crate::{js, trap};

/// All of one instance.
pub(crate) struct Occupants {
    deployed: Arc<Deployed>,
    inner: Mutex<Inner>,
    /// What the instance may still use while no request is in it: timers and fetches that nobody waits for.
    background_ns: AtomicU64,
    /// What it may still log then.
    unpaid: LogBudget,
}

struct Inner {
    present: Vec<(u32, Arc<Invocation>)>,
    last_id: u32,
    /// The last that was there when the poll that is going on began. Who comes later pays for none of it: otherwise the
    /// others would be charged less than the poll was allowed for, and be stopped before their limit.
    paying_to: u32,
    /// When the last one left.
    since: Instant,
}

impl Occupants {
    pub(crate) fn new(deployed: &Arc<Deployed>) -> Arc<Self> {
        let background_ns = u64::try_from(deployed.limits.cpu.as_nanos()).unwrap_or(u64::MAX);
        Arc::new(Self {
            deployed: Arc::clone(deployed),
            inner: Mutex::new(Inner { present: Vec::new(), last_id: 0, paying_to: 0, since: deployed.clock.instant() }),
            background_ns: AtomicU64::new(background_ns),
            unpaid: LogBudget::new(&deployed.limits),
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().present.len()
    }

    /// Since when nobody is in it, if nobody is.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let inner = self.lock();
        inner.present.is_empty().then_some(inner.since)
    }

    /// The invocation of a request, and whether it is certain that it is the one.
    fn of(&self, request: Option<u32>) -> Option<Arc<Invocation>> {
        let inner = self.lock();
        let found = inner.present.iter().find(|(id, _)| Some(*id) == request);
        found.map(|(_, invocation)| Arc::clone(invocation))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request in the instance, until it is done with everything.
pub(crate) struct Occupant {
    occupants: Arc<Occupants>,
    pub(crate) id: u32,
}

impl Occupant {
    pub(crate) fn enter(occupants: &Arc<Occupants>, invocation: &Arc<Invocation>) -> Self {
        invocation.log().add_dropped(occupants.unpaid.take_dropped());
        let mut inner = occupants.lock();
        inner.last_id += 1;
        let id = inner.last_id;
        inner.present.push((id, Arc::clone(invocation)));
        drop(inner);
        Self { occupants: Arc::clone(occupants), id }
    }
}

impl Drop for Occupant {
    fn drop(&mut self) {
        let mut inner = self.occupants.lock();
        let left = inner.present.iter().position(|(id, _)| *id == self.id).map(|at| inner.present.swap_remove(at));
        inner.since = self.occupants.deployed.clock.instant();
        drop(inner);
        // Its last reference makes the meter record, which is not to be done under the lock.
        drop(left);
    }
}

/// CPU time is shared equally by the requests in the instance: a turn takes what happened to several.
impl Account for Occupants {
    fn allowed_ns(&self) -> u64 {
        let mut inner = self.lock();
        inner.paying_to = inner.last_id;
        let least = inner.present.iter().map(|(_, invocation)| invocation.cpu_left_ns()).min();
        least.map_or_else(
            || self.background_ns.load(Ordering::Relaxed),
            |least| least.saturating_mul(inner.present.len() as u64),
        )
    }

    fn charge(&self, ns: u64, memory_bytes: u64) {
        let inner = self.lock();
        let paying = || inner.present.iter().filter(|(id, _)| *id <= inner.paying_to);
        let count = paying().count() as u64;
        if count == 0 {
            let left = self.background_ns.load(Ordering::Relaxed);
            self.background_ns.store(left.saturating_sub(ns), Ordering::Relaxed);
        }
        paying().for_each(|(_, invocation)| {
            invocation.charge_cpu(ns / count);
            invocation.saw_memory(memory_bytes);
        });
    }
}

impl js::Host for Occupants {
    fn fetch(
        &self,
        request: Option<u32>,
        outgoing: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, String>> {
        let deployed = Arc::clone(&self.deployed);
        let call = self.of(request).map(|invocation| invocation.call.clone());
        async move {
            let sent = hooks::send(&deployed, call, outgoing, Timeouts::default()).await;
            sent.map_err(|error| error.to_string())
        }
        .boxed()
    }

    fn call(
        &self,
        request: Option<u32>,
        capability: &str,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<Vec<u8>, Failure>> {
        script::call_in_javascript(&self.deployed.reach, self.of(request).as_deref(), capability, payload)
    }

    fn log(&self, request: Option<u32>, level: js::Level, text: &str) {
        let level = match level {
            js::Level::Debug => Level::Debug,
            js::Level::Info => Level::Info,
            js::Level::Warn => Level::Warn,
            js::Level::Error => Level::Error,
        };
        let named = self.of(request);
        // What nobody is known to have said is charged to somebody all the same.
        let payer = named.clone().or_else(|| self.lock().present.first().map(|(_, invocation)| Arc::clone(invocation)));
        let payer = payer.as_deref().map_or(&self.unpaid, Invocation::log);
        self.deployed.log(payer, named.as_deref(), level, Source::Logging, String::new(), text.to_owned());
    }

    fn failed(&self, request: u32, failure: &Failure) {
        if let Some(invocation) = self.of(Some(request)) {
            invocation.fail(failure);
        }
    }

    fn given_up(&self, request: u32) {
        if let Some(invocation) = self.of(Some(request)) {
            invocation.let_next_in();
        }
    }

    fn late(&self) -> Failure {
        trap::deadline(&self.deployed.limits)
    }
}
