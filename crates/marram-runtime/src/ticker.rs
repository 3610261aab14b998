//! The tick: a thread that advances the engines' epochs, so that every running guest is interrupted every few
//! milliseconds to look at its limits. It sleeps while no guest runs, so that an idle node is idle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use marram_core::limits::EPOCH_TICK;
use wasmtime::Engine;

/// Ticks without a new run before the thread sleeps: starting it again costs a system call.
const QUIET_TICKS: u32 = 200;

/// Owns the thread; dropping it stops the thread.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
    handle: Option<JoinHandle<()>>,
}

struct Shared {
    running: AtomicU64,
    started: AtomicU64,
    asleep: AtomicBool,
    stop: AtomicBool,
}

/// Held while a guest can run.
pub(crate) struct Running(Arc<Shared>);

impl Ticker {
    pub(crate) fn start(engines: [Engine; 2]) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            running: AtomicU64::new(0),
            started: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let handle = std::thread::Builder::new().name("marram-tick".into()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.tick(&engines)
        })?;
        Ok(Self { shared, thread: handle.thread().clone(), handle: Some(handle) })
    }

    /// Keeps the tick going until what is returned is dropped.
    pub(crate) fn run(&self) -> Running {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        self.shared.started.fetch_add(1, Ordering::Relaxed);
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(Arc::clone(&self.shared))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    fn tick(&self, engines: &[Engine]) {
        let (mut quiet, mut seen) = (0, 0);
        while !self.stop.load(Ordering::SeqCst) {
            std::thread::park_timeout(EPOCH_TICK);
            engines.iter().for_each(Engine::increment_epoch);
            let started = self.started.load(Ordering::Relaxed);
            let idle = started == seen && self.running.load(Ordering::SeqCst) == 0;
            quiet = if idle { quiet + 1 } else { 0 };
            seen = started;
            if quiet > QUIET_TICKS {
                self.sleep();
                quiet = 0;
            }
        }
    }

    /// Sleeps until a run begins. A run that begins between the two steps sees `asleep` and wakes the thread at once.
    fn sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        while self.running.load(Ordering::SeqCst) == 0 && !self.stop.load(Ordering::SeqCst) {
            std::thread::park_timeout(Duration::from_secs(3600));
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.unpark();
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}
