//! What all functions of a node share.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OnceCell};
use tokio_util::task::TaskTracker;
use wasmtime::component::InstancePre;

use crate::function::Function;
use crate::js::JsEngine;
use crate::machine::Machines;
use crate::state::{GuestState, JsState};
use crate::text::unmap_text;
use crate::ticker::Ticker;
use crate::turns::Turns;

/// However often warm instances are used up, the reaper looks no more often than this.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// One per runtime.
pub(crate) struct Shared {
    pub(crate) machines: Machines,
    pub(crate) ticker: Ticker,
    pub(crate) turns: Turns,
    /// Runs that went on after their answer's head. Drained at the end.
    pub(crate) tasks: TaskTracker,
    /// Wakes the reaper when something is mapped, or a warm instance was used up.
    pub(crate) reaper: Notify,
    pub(crate) started: Instant,
    pub(crate) functions: Mutex<Vec<Weak<Function>>>,
    pub(crate) processors: usize,
    /// One for all functions, mapped when the first is loaded. It stays: its pages are a file's, and the machine takes
    /// them back when it needs them.
    pub(crate) javascript: OnceCell<Arc<JsEngine<JsState>>>,
    /// The same.
    pub(crate) python: OnceCell<InstancePre<GuestState>>,
}

impl Shared {
    pub(crate) fn elapsed_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn add(&self, functions: impl Iterator<Item = Arc<Function>>) {
        let mut known = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|function| function.strong_count() > 0);
        known.extend(functions.map(|function| Arc::downgrade(&function)));
    }

    /// Drops idle instances and idle code, and keeps warm what is to be warm. Sleeps while nothing is mapped and nobody has
    /// used up a warm instance.
    pub(crate) async fn reap(self: Arc<Self>, code_idle: Duration) {
        let mut mapped = false;
        loop {
            let mut failed = false;
            let now = Instant::now();
            let functions: Vec<_> = {
                let known = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
                known.iter().filter_map(Weak::upgrade).collect()
            };
            let next = functions.iter().filter_map(|function| function.reap(now, code_idle)).min();
            for function in &functions {
                if let Err(failure) = function.keep_warm().await {
                    failed = true;
                    tracing::warn!(%failure, "an instance could not be made ready");
                }
            }
            drop(functions);
            match next {
                Some(next) => {
                    mapped = true;
                    tokio::time::sleep_until((now + PAUSE_MIN).into()).await;
                    if failed {
                        // To be tried again when it is time to look again, not with each request.
                        tokio::time::sleep_until(next.into()).await;
                    } else {
                        let _ = tokio::time::timeout_at(next.into(), self.reaper.notified()).await;
                    }
                }
                None => {
                    if std::mem::take(&mut mapped) {
                        rest();
                    }
                    self.reaper.notified().await;
                }
            }
        }
    }
}

/// How often a node lets go of its code at most while functions run.
const REST_PERIOD: Duration = Duration::from_secs(10);

/// After something that runs rarely, such as a compiler: most of what it ran is not needed.
pub(crate) fn rest_a_little() {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_none_or(|last| last.elapsed() >= REST_PERIOD) {
        rest();
        *last = Some(Instant::now());
    }
}

/// Most of the node's own code is not needed: no function's code is mapped any more.
fn rest() {
    if let Err(error) = unmap_text() {
        tracing::debug!(%error, "the program's code stays mapped");
    }
}
