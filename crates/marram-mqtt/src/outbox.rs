//! What the engine has for a connection: answers and messages on their way to its socket.
//!
//! The engine never waits here. What it may put in is bounded: answers by what the client may have open, QoS 1 and 2
//! messages by the window, QoS 0 messages by bytes.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use futures::task::AtomicWaker;
use marram_core::port::mqtt::Qos;

use crate::resident::Resident;
use crate::wire::{AckKind, Reason};

/// One thing to send.
#[derive(Debug)]
pub(crate) enum Out {
    Publish(Delivery),
    Ack(AckKind, NonZeroU16, Reason, Option<Arc<str>>),
    SubAck(NonZeroU16, Vec<Reason>),
    UnsubAck(NonZeroU16, Vec<Reason>),
}

/// A message for this client.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) message: Arc<Resident>,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    /// 0 with QoS 0.
    pub(crate) packet: u16,
    pub(crate) subscriptions: Vec<u32>,
}

/// Why the server ends a connection.
#[derive(Clone, Debug)]
pub(crate) struct Close {
    pub(crate) reason: Reason,
    pub(crate) words: &'static str,
    /// After everything that the client sent has been answered.
    pub(crate) when_answered: bool,
}

/// The engine's end and the connection's end are the same object.
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// Of the messages in it. Only the engine puts in, and only what is locked changes it.
    bytes: AtomicUsize,
    waker: AtomicWaker,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Out>,
    close: Option<Close>,
    /// The connection is gone: nothing is taken in any more.
    gone: bool,
    done: Done,
    /// The connection waits for something to be done.
    stalled: bool,
    /// The engine has more, and waits until everything in here is taken.
    awaited: bool,
}

/// Commands that the engine has finished.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) commands: usize,
    pub(crate) bytes: usize,
}

/// What the connection takes at once.
pub(crate) struct Taken {
    pub(crate) done: Done,
    pub(crate) close: Option<Close>,
    /// There is nothing more, and the engine waits to hear that.
    pub(crate) is_awaited: bool,
}

impl State {
    fn is_open(&self) -> bool {
        !self.gone && self.close.as_ref().is_none_or(|close| close.when_answered)
    }
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), bytes: AtomicUsize::new(0), waker: AtomicWaker::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts in something to send. After what ends the connection nothing is sent: an acknowledgement would overtake the one
    /// that a 3.1.1 client did not get (§4.6).
    pub(crate) fn push(&self, out: Out) {
        let mut state = self.lock();
        if !state.is_open() {
            return;
        }
        if let Out::Publish(delivery) = &out {
            self.bytes.fetch_add(delivery.message.bytes(), Ordering::Relaxed);
        }
        state.queue.push_back(out);
        drop(state);
        self.waker.wake();
    }

    /// Whether anything that is put in now is sent.
    pub(crate) fn is_open(&self) -> bool {
        self.lock().is_open()
    }

    /// Bytes of the messages in it.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Has the connection say when all messages in it are taken; false if there is none.
    pub(crate) fn await_taken(&self) -> bool {
        let mut state = self.lock();
        state.awaited = self.bytes() > 0;
        state.awaited
    }

    /// Says that a command of the client is finished, and with it its bytes.
    pub(crate) fn done(&self, bytes: usize) {
        let mut state = self.lock();
        state.done.commands += 1;
        state.done.bytes += bytes;
        if std::mem::take(&mut state.stalled) {
            drop(state);
            self.waker.wake();
        }
    }

    /// Ends the connection, after what is in here already. The first reason counts; after it nothing is taken in, unless
    /// everything is to be answered first.
    pub(crate) fn close(&self, close: Close) {
        self.lock().close.get_or_insert(close);
        self.waker.wake();
    }

    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Moves what is to be sent to `send` until that has enough, and says what else there is.
    pub(crate) fn take(&self, stalled: bool, mut send: impl FnMut(Out) -> bool) -> Taken {
        let mut state = self.lock();
        let mut more = true;
        while more && let Some(out) = state.queue.pop_front() {
            if let Out::Publish(delivery) = &out {
                self.bytes.fetch_sub(delivery.message.bytes(), Ordering::Relaxed);
            }
            more = send(out);
        }
        let done = std::mem::take(&mut state.done);
        state.stalled = stalled && done.commands == 0;
        let is_empty = state.queue.is_empty();
        let close = if is_empty { state.close.clone() } else { None };
        let is_awaited = is_empty && std::mem::take(&mut state.awaited);
        Taken { done, close, is_awaited }
    }

    /// The same when there is no room to send anything.
    pub(crate) fn take_done(&self, stalled: bool) -> Taken {
        let mut state = self.lock();
        let done = std::mem::take(&mut state.done);
        state.stalled = stalled && done.commands == 0;
        Taken { done, close: None, is_awaited: false }
    }

    /// The connection is gone: what is in here goes, and nothing comes any more.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        state.gone = true;
        self.bytes.store(0, Ordering::Relaxed);
        state.queue = VecDeque::new();
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outbox")
    }
}
