//! One run of a function: who asked, what it has used, how it ended. Its last reference makes the meter record.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use marram_core::port::Call;
use marram_core::record::{Level, MeterRecord, Outcome, Start};
use marram_core::{Failure, Kind};

use crate::cpu::Account;
use crate::deployed::Deployed;
use crate::gate::Permit;
use crate::log_budget::LogBudget;
use crate::ticker::Running;
use crate::trap;
use crate::uncaught;
use crate::uploads::Uploads;

/// Shared by the guest's run and the body of its answer: whichever ends last closes the record.
pub(crate) struct Invocation {
    pub(crate) deployed: Arc<Deployed>,
    pub(crate) call: Call,
    /// When the answer has to be complete.
    pub(crate) deadline: Instant,
    begun: Instant,
    begun_unix_ns: u64,
    cpu_ns: AtomicU64,
    memory_peak_bytes: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    status: AtomicU16,
    start: AtomicU8,
    log: LogBudget,
    uploads: Uploads,
    ended: OnceLock<Result<(), Failure>>,
    /// Locked only where the deadline ends the run.
    permit: Mutex<Option<Permit>>,
    _ticking: Running,
}

impl Invocation {
    pub(crate) fn begin(
        deployed: Arc<Deployed>,
        call: Call,
        permit: Permit,
        ticking: Running,
        start: Start,
    ) -> Arc<Self> {
        let deadline = call.arrived + deployed.limits.deadline;
        Arc::new(Self {
            begun: deployed.clock.instant(),
            begun_unix_ns: deployed.clock.unix_ns(),
            cpu_ns: AtomicU64::new(0),
            memory_peak_bytes: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            status: AtomicU16::new(0),
            start: AtomicU8::new(start as u8),
            log: LogBudget::new(&deployed.limits),
            uploads: Uploads::default(),
            ended: OnceLock::new(),
            permit: Mutex::new(Some(permit)),
            _ticking: ticking,
            deployed,
            call,
            deadline,
        })
    }

    /// It ended well, unless it has failed already: what follows a failure is a consequence of it.
    pub(crate) fn succeed(&self) {
        let _ = self.ended.set(Ok(()));
    }

    /// Ends it with a failure, and writes the line in the function's log that tells its developer. A request that is in one
    /// instance with others may be stopped because another was at its limit of CPU time; then it is told so.
    pub(crate) fn fail(&self, failure: &Failure) {
        let another = failure.kind() == Kind::CpuLimit && self.cpu_left_ns() > 0;
        let failure = if another { trap::cpu_of_another(&self.deployed.limits) } else { failure.clone() };
        let failure = self.deployed.mask.hide_in(failure);
        if self.ended.set(Err(failure.clone())).is_err() {
            return;
        }
        let detail = failure.detail().map(|detail| format!("\n{detail}")).unwrap_or_default();
        let said = failure.to_string();
        let said = said.strip_suffix(uncaught::IN_THE_LOG).unwrap_or(&said);
        self.deployed.note(Some(self), Level::Error, format!("{said}{detail}"));
    }

    /// Lets the next one in although something still holds this one: an answer whose client takes nothing, for as long as
    /// the connection lasts. The run itself has to be over.
    pub(crate) fn let_next_in(&self) {
        let permit = self.permit.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(permit);
    }

    /// Whether it is known how it ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get().is_some()
    }

    /// How it failed, if it has.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.ended.get().and_then(|ended| ended.as_ref().err())
    }

    /// A live instance was used again after all.
    pub(crate) fn set_start(&self, start: Start) {
        // A cold start stays one, although it ends in a fresh instance.
        if self.start.load(Ordering::Relaxed) != Start::Cold as u8 {
            self.start.store(start as u8, Ordering::Relaxed);
        }
    }

    pub(crate) fn set_status(&self, status: http::StatusCode) {
        self.status.store(status.as_u16(), Ordering::Relaxed);
    }

    pub(crate) fn add_bytes_in(&self, bytes: usize) -> u64 {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64
    }

    pub(crate) fn add_bytes_out(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn saw_memory(&self, bytes: u64) {
        self.memory_peak_bytes.fetch_max(bytes, Ordering::Relaxed);
    }

    /// What this run may write to its function's log.
    pub(crate) fn log(&self) -> &LogBudget {
        &self.log
    }

    /// Objects that it writes piece by piece.
    pub(crate) fn uploads(&self) -> &Uploads {
        &self.uploads
    }

    pub(crate) fn cpu_left_ns(&self) -> u64 {
        let limit = u64::try_from(self.deployed.limits.cpu.as_nanos()).unwrap_or(u64::MAX);
        limit.saturating_sub(self.cpu_ns.load(Ordering::Relaxed))
    }

    pub(crate) fn charge_cpu(&self, ns: u64) {
        self.cpu_ns.fetch_add(ns, Ordering::Relaxed);
    }
}

impl Account for Arc<Invocation> {
    fn allowed_ns(&self) -> u64 {
        self.cpu_left_ns()
    }

    fn charge(&self, ns: u64, memory_bytes: u64) {
        self.charge_cpu(ns);
        self.saw_memory(memory_bytes);
    }
}

impl Drop for Invocation {
    fn drop(&mut self) {
        let started = [Start::Cold, Start::Fresh, Start::Reused];
        let start = self.start.load(Ordering::Relaxed);
        let wall = self.deployed.clock.instant().saturating_duration_since(self.begun);
        let queued = self.begun.saturating_duration_since(self.call.arrived);
        let ns = |span: std::time::Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        self.deployed.observe.meter(MeterRecord {
            id: Arc::clone(&self.deployed.id),
            request: self.call.request,
            trace: self.call.trace.trace,
            span: self.call.trace.span,
            start_unix_ns: self.begun_unix_ns,
            wall_ns: ns(wall),
            cpu_ns: *self.cpu_ns.get_mut(),
            queued_ns: ns(queued),
            memory_peak_bytes: *self.memory_peak_bytes.get_mut(),
            bytes_in: *self.bytes_in.get_mut(),
            bytes_out: *self.bytes_out.get_mut(),
            log_bytes_dropped: self.log.take_dropped(),
            status: *self.status.get_mut(),
            start: started.into_iter().find(|known| *known as u8 == start).unwrap_or(Start::Fresh),
            outcome: match self.ended.get() {
                Some(Ok(())) => Outcome::Answered,
                Some(Err(failure)) => Outcome::Failed(failure.kind()),
                // Nobody said how it ended, so nobody waited for the end.
                None => Outcome::Failed(Kind::ClientGone),
            },
        });
    }
}
