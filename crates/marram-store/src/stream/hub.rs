//! What is known of the streams outside of the writer: as of the last commit, and who waits for the next.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use marram_core::port::streams::Stored;
use marram_core::stream::{ConsumerId, StreamName, StreamPolicy};
use tokio::sync::{Semaphore, watch};

use super::capture::Captures;
use super::consumer::Cell;
use super::key::StreamId;
use crate::limits::{CONSUMER_READS_MAX, TAIL_BYTES_MAX, TAIL_EVENTS_MAX};

/// What is counted of a stream. In the database it is the stream's row, and the events past its `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counters {
    /// The position of the oldest event that is kept; one past `last` when there is none.
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) events: u64,
    pub(super) bytes: u64,
    pub(super) dropped: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self { first: 1, last: 0, events: 0, bytes: 0, dropped: 0 }
    }
}

/// All streams.
#[derive(Debug)]
pub(crate) struct Hub {
    streams: Mutex<BTreeMap<StreamName, Arc<Shared>>>,
    pub(super) captures: ArcSwap<Captures>,
    /// Counts streams made and removed, and the end of the store: for those who wait for a stream that is not there.
    pub(super) changed: watch::Sender<u64>,
    /// Reads for consumers.
    pub(super) reads: Arc<Semaphore>,
    pub(super) closed: AtomicBool,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) id: StreamId,
    pub(super) name: StreamName,
    /// The position of the newest durable event.
    pub(super) last: watch::Sender<u64>,
    committed: Mutex<(Counters, StreamPolicy)>,
    tail: Mutex<Tail>,
    cells: Mutex<Vec<Arc<Cell>>>,
    /// Consumers that somebody in this process holds: for them the tail is kept.
    pub(super) held: AtomicUsize,
    pub(super) rejected: AtomicU64,
    pub(super) duplicates: AtomicU64,
    /// Bytes that a publish found no room for, because too many small events lie there: maintenance makes it, once.
    pub(super) room_wanted: AtomicU64,
}

/// The newest events, without a gap.
#[derive(Debug, Default)]
struct Tail {
    events: VecDeque<Stored>,
    bytes: u64,
}

impl Hub {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            streams: Mutex::default(),
            captures: ArcSwap::default(),
            changed: watch::Sender::new(0),
            reads: Arc::new(Semaphore::new(CONSUMER_READS_MAX)),
            closed: AtomicBool::new(false),
        })
    }

    /// What is captured now.
    pub(crate) fn captures(&self) -> arc_swap::Guard<Arc<Captures>> {
        self.captures.load()
    }

    pub(super) fn stream(&self, name: &StreamName) -> Option<Arc<Shared>> {
        lock(&self.streams).get(name).cloned()
    }

    pub(super) fn streams(&self) -> Vec<Arc<Shared>> {
        lock(&self.streams).values().cloned().collect()
    }

    pub(super) fn made(&self, stream: Arc<Shared>) {
        lock(&self.streams).insert(stream.name.clone(), stream);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Ends every wait: nothing comes any more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.changed.send_modify(|count| *count += 1);
        for stream in self.streams() {
            stream.last.send_modify(|_| {});
            stream.cells().iter().for_each(|cell| cell.wake());
        }
    }

    pub(super) fn removed(&self, stream: &Arc<Shared>) {
        let mut streams = lock(&self.streams);
        // In the same commit another may have been made under this name.
        if streams.get(&stream.name).is_some_and(|there| Arc::ptr_eq(there, stream)) {
            streams.remove(&stream.name);
        }
        drop(streams);
        self.captures.rcu(|captures| captures.without(&stream.name));
        self.changed.send_modify(|count| *count += 1);
    }
}

impl Shared {
    pub(super) fn new(id: StreamId, name: StreamName, counters: Counters, policy: StreamPolicy) -> Arc<Self> {
        Arc::new(Self {
            id,
            name,
            last: watch::Sender::new(counters.last),
            committed: Mutex::new((counters, policy)),
            tail: Mutex::default(),
            cells: Mutex::default(),
            held: AtomicUsize::new(0),
            rejected: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            room_wanted: AtomicU64::new(0),
        })
    }

    /// What the disk has.
    pub(super) fn committed(&self) -> (Counters, StreamPolicy) {
        *lock(&self.committed)
    }

    /// After a commit: what the stream now is, and what is new in it.
    pub(super) fn set_committed(&self, counters: Counters, policy: StreamPolicy, fresh: &mut Vec<Stored>) {
        *lock(&self.committed) = (counters, policy);
        let mut tail = lock(&self.tail);
        if self.held.load(Ordering::Acquire) == 0 {
            *tail = Tail::default();
            fresh.clear();
        } else {
            fresh.drain(..).for_each(|stored| tail.push(stored));
            tail.forget_before(counters.first);
        }
        drop(tail);
        let grown = self.last.send_if_modified(|last| std::mem::replace(last, counters.last) != counters.last);
        if grown {
            lock(&self.cells).iter().for_each(|cell| cell.wake());
        }
    }

    /// Its consumers, those of the current transaction included.
    pub(super) fn cells(&self) -> Vec<Arc<Cell>> {
        lock(&self.cells).clone()
    }

    pub(super) fn cell(&self, id: &ConsumerId) -> Option<Arc<Cell>> {
        lock(&self.cells).iter().find(|cell| cell.id == *id).cloned()
    }

    pub(super) fn add_cell(&self, cell: Arc<Cell>) {
        lock(&self.cells).push(cell);
    }

    pub(super) fn remove_cell(&self, cell: &Arc<Cell>) {
        lock(&self.cells).retain(|other| !Arc::ptr_eq(other, cell));
    }

    /// The events after `position` that are in memory, if none is missing between; up to `max`.
    pub(super) fn tail_after(&self, position: u64, max: usize) -> Option<Vec<Stored>> {
        let tail = lock(&self.tail);
        let first = tail.events.front()?.position;
        let skip = usize::try_from((position + 1).checked_sub(first)?).ok()?;
        (skip < tail.events.len()).then(|| tail.events.range(skip..).take(max).cloned().collect())
    }
}

impl Tail {
    fn push(&mut self, stored: Stored) {
        if self.events.back().is_some_and(|back| back.position + 1 != stored.position) {
            *self = Self::default();
        }
        self.bytes += stored.event.size();
        self.events.push_back(stored);
        while self.events.len() > TAIL_EVENTS_MAX || (self.bytes > TAIL_BYTES_MAX && self.events.len() > 1) {
            self.pop();
        }
    }

    fn forget_before(&mut self, first: u64) {
        while self.events.front().is_some_and(|front| front.position < first) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        self.bytes -= self.events.pop_front().map_or(0, |stored| stored.event.size());
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
