//! Log lines on their way: a bounded queue that callers fill, and a bounded ring that readers see.
//!
//! A line gets its number when it is queued, or when it is dropped because the queue is full: a gap in the numbers is how a
//! reader learns of a loss. The numbers go on after a restart.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use marram_core::limits::LOG_LINE_BYTES_MAX;
use marram_core::record::LogLine;

use crate::entry::{LogEntry, LogQuery};
use crate::limits::{LOG_LINE_FIXED_BYTES, LOG_QUEUE_BYTES_MAX, LOG_QUEUE_LINES_MAX};

/// A line with its place in the order of all lines of this node.
#[derive(Debug)]
pub(crate) struct Numbered {
    pub(crate) number: u64,
    pub(crate) line: LogLine,
}

pub(crate) struct Logs {
    queue: Mutex<Queue>,
    ring: Mutex<Ring>,
    ring_bytes_max: usize,
}

struct Queue {
    lines: Vec<Numbered>,
    bytes: usize,
    next: u64,
    dropped: u64,
}

/// The recent lines, oldest first.
#[derive(Default)]
struct Ring {
    lines: VecDeque<Arc<Numbered>>,
    bytes: usize,
}

/// What the background thread takes at once.
pub(crate) struct Taken {
    pub(crate) lines: Vec<Arc<Numbered>>,
    /// The number that the next line will have.
    pub(crate) next: u64,
    /// How many were dropped since the last time.
    pub(crate) dropped: u64,
}

impl Logs {
    pub(crate) fn new(next: u64, ring_bytes_max: usize) -> Self {
        let queue = Queue { lines: Vec::new(), bytes: 0, next, dropped: 0 };
        Self { queue: Mutex::new(queue), ring: Mutex::default(), ring_bytes_max }
    }

    /// Queues a line, or drops and counts it. The lock is held for the time of a push.
    pub(crate) fn push(&self, mut line: LogLine) {
        cut(&mut line.text);
        cut(&mut line.context);
        let bytes = bytes(&line);
        let mut queue = lock(&self.queue);
        let number = queue.next;
        queue.next += 1;
        if queue.bytes + bytes > LOG_QUEUE_BYTES_MAX || queue.lines.len() >= LOG_QUEUE_LINES_MAX {
            queue.dropped += 1;
            return;
        }
        queue.bytes += bytes;
        queue.lines.push(Numbered { number, line });
    }

    /// Moves what is queued into the ring. Only one thread may do this at a time, or the order is lost.
    pub(crate) fn gather(&self) -> Taken {
        let mut queue = lock(&self.queue);
        // A burst's queue is not kept for quiet times; the usual one is.
        let empty = Vec::with_capacity(queue.lines.len().min(1_024));
        let lines = std::mem::replace(&mut queue.lines, empty);
        queue.bytes = 0;
        let (next, dropped) = (queue.next, std::mem::take(&mut queue.dropped));
        drop(queue);
        let lines: Vec<_> = lines.into_iter().map(Arc::new).collect();
        let mut ring = lock(&self.ring);
        for line in &lines {
            ring.bytes += bytes(&line.line);
            ring.lines.push_back(Arc::clone(line));
        }
        while ring.bytes > self.ring_bytes_max {
            let Some(oldest) = ring.lines.pop_front() else { break };
            ring.bytes -= bytes(&oldest.line);
        }
        Taken { lines, next, dropped }
    }

    /// The number of the oldest line in memory, and the latest `limit` lines below number `before` that `query` takes, oldest
    /// first.
    pub(crate) fn recent(&self, query: &LogQuery, before: u64, limit: usize) -> (Option<u64>, VecDeque<LogEntry>) {
        // Only references are copied under the lock.
        let lines: Vec<_> = lock(&self.ring).lines.iter().cloned().collect();
        let mut found = VecDeque::new();
        for line in lines.iter().rev().skip_while(|line| line.number >= before) {
            if found.len() >= limit {
                break;
            }
            let entry = LogEntry::from(&line.line);
            if query.takes(&entry) {
                found.push_front(entry);
            }
        }
        (lines.first().map(|line| line.number), found)
    }

    /// At most `limit` lines from number `from` on.
    pub(crate) fn since(&self, from: u64, limit: usize) -> Vec<Arc<Numbered>> {
        let ring = lock(&self.ring);
        let start = ring.lines.partition_point(|line| line.number < from);
        ring.lines.range(start..).take(limit).cloned().collect()
    }
}

/// Whoever makes lines keeps them short and marks where they were cut; here it is only made sure of.
fn cut(text: &mut String) {
    if text.len() > LOG_LINE_BYTES_MAX {
        text.truncate(text.floor_char_boundary(LOG_LINE_BYTES_MAX));
    }
}

/// What a line holds in memory.
pub(crate) fn bytes(line: &LogLine) -> usize {
    line.text.capacity() + line.context.capacity() + LOG_LINE_FIXED_BYTES
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
