//! Wakes the background thread, once for many calls.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::Duration;

#[derive(Default)]
pub(crate) struct Signal {
    raised: AtomicBool,
    stop: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Signal {
    /// Names the thread that waits here.
    pub(crate) fn attach(&self, thread: Thread) {
        // Only the background thread is ever attached, once.
        let _ = self.thread.set(thread);
        self.wake();
    }

    /// Says that there is something to do. Nearly always one relaxed load: the first call after a pause wakes the thread.
    pub(crate) fn raise(&self) {
        if !self.raised.load(Ordering::Relaxed) && !self.raised.swap(true, Ordering::AcqRel) {
            self.wake();
        }
    }

    /// Whether it was raised since the last time. Called before looking at what there is to do, so that what comes later
    /// raises it again.
    pub(crate) fn take(&self) -> bool {
        self.raised.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Waits on the attached thread; may return early.
    pub(crate) fn wait(&self, at_most: Duration) {
        if !self.is_stopped() {
            std::thread::park_timeout(at_most);
        }
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}
