//! Following the log: what was asked for from the past, then every line as it comes.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use crate::entry::{LogEntry, LogQuery};
use crate::limits::FOLLOW_BATCH_MAX;
use crate::logs::Logs;

/// What a follower gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Followed {
    /// The next line that the query takes.
    Line(LogEntry),
    /// This many lines, of whatever function, went by too fast to be looked at here.
    Missed(u64),
}

/// A subscription to log lines: in order, each once. It holds no lines back for a slow follower, who is told of the gap.
pub struct Follow {
    logs: Arc<Logs>,
    query: LogQuery,
    /// The number of the next line to look at.
    next: u64,
    ready: VecDeque<Followed>,
    /// The number that the next line will have; closed when telemetry has stopped.
    tip: watch::Receiver<u64>,
}

impl Follow {
    /// Follows from the line numbered `next`, after the lines in `past`.
    pub(crate) fn new(
        logs: Arc<Logs>,
        query: LogQuery,
        past: impl IntoIterator<Item = LogEntry>,
        next: u64,
        tip: watch::Receiver<u64>,
    ) -> Self {
        Self { logs, query, next, ready: past.into_iter().map(Followed::Line).collect(), tip }
    }

    /// The next line or gap; `None` once telemetry has stopped and everything was given out. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Followed> {
        loop {
            if let Some(followed) = self.ready.pop_front() {
                return Some(followed);
            }
            let tip = *self.tip.borrow_and_update();
            if self.next < tip {
                self.look(tip);
            } else if self.tip.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Takes the next batch out of the ring. There is something up to `tip`, in the ring or lost.
    fn look(&mut self, tip: u64) {
        let lines = self.logs.since(self.next, FOLLOW_BATCH_MAX);
        for line in &lines {
            self.missed(line.number - self.next);
            self.next = line.number + 1;
            let entry = LogEntry::from(&line.line);
            if self.query.takes(&entry) {
                self.ready.push_back(Followed::Line(entry));
            }
        }
        if lines.len() < FOLLOW_BATCH_MAX {
            // The ring holds nothing more below the tip: what is left was dropped from the queue.
            self.missed(tip.saturating_sub(self.next));
            self.next = self.next.max(tip);
        }
    }

    fn missed(&mut self, lines: u64) {
        match self.ready.back_mut() {
            _ if lines == 0 => {}
            Some(Followed::Missed(before)) => *before += lines,
            _ => self.ready.push_back(Followed::Missed(lines)),
        }
    }
}
