//! Reading what was recorded.

use std::collections::BTreeMap;

use crate::books::Key;
use crate::disk::search;
use crate::entry::{Invocation, InvocationQuery, LogEntry, LogQuery};
use crate::limits::{LOG_QUERY_LINES_MAX, RECORDS_KEPT};
use crate::totals::Totals;
use crate::usage::{Usage, UsageQuery, Used};
use crate::{Follow, Telemetry, TelemetryError, lock};

const SECOND_NS: u64 = 1_000_000_000;

impl Telemetry {
    /// The latest lines that `query` takes, oldest first, from memory and then from the disk.
    pub fn logs(&self, query: &LogQuery) -> Result<Vec<LogEntry>, TelemetryError> {
        let next = self.gather();
        self.past(query, next)
    }

    /// The same, then every line that comes. Without a limit and a time it begins now.
    pub fn follow(&self, query: LogQuery) -> Result<Follow, TelemetryError> {
        let next = self.gather();
        let wants_past = query.limit.is_some() || query.since_unix_ns.is_some();
        // The past is what lies below `next`, the rest is followed: no line is in both, none in neither.
        let past = if wants_past { self.past(&query, next)? } else { Vec::new() };
        Ok(Follow::new(std::sync::Arc::clone(&self.logs), query, past, next, self.tip.clone()))
    }

    fn past(&self, query: &LogQuery, before: u64) -> Result<Vec<LogEntry>, TelemetryError> {
        let limit = query.limit.unwrap_or(LOG_QUERY_LINES_MAX).min(LOG_QUERY_LINES_MAX);
        let (oldest, recent) = self.logs.recent(query, before, limit);
        if recent.len() >= limit {
            return Ok(recent.into());
        }
        // Lines that have left the ring and are not on the disk yet: one flush brings them there. If it fails, what is
        // there is still worth showing.
        let _ = self.flush_or_complain();
        let Some(path) = lock(&self.disk).readable().map(ToOwned::to_owned) else { return Ok(recent.into()) };
        let mut found = search(&path, query, oldest.unwrap_or(before).min(before), limit - recent.len())?;
        found.extend(recent);
        Ok(found.into())
    }

    /// What each function used, by app and function.
    pub fn usage(&self, query: &UsageQuery) -> Result<Vec<Usage>, TelemetryError> {
        let since_s = query.since_unix_ns.unwrap_or(0) / SECOND_NS;
        let until_s = query.until_unix_ns.map_or(u64::MAX, |until| until.div_ceil(SECOND_NS));
        self.bring_in();
        // While the disk is locked nothing moves from the books to it: a sum is seen once, in one of them.
        let mut disk = lock(&self.disk);
        let mut all: BTreeMap<(String, String), Totals> = disk.read_usage(since_s, until_s)?;
        for ((minute, key), totals) in &self.books().pending {
            let start_s = minute.0 * 60;
            if start_s + 60 > since_s && start_s < until_s {
                all.entry(names(key)).or_default().merge(totals);
            }
        }
        drop(disk);
        let wanted = |app: &str, function: &str| {
            query.app.as_ref().is_none_or(|name| name.as_str() == app)
                && query.function.as_ref().is_none_or(|name| name.as_str() == function)
        };
        let taken = all.into_iter().filter(|((app, function), _)| wanted(app, function));
        Ok(taken.map(|((app, function), totals)| Usage { app, function, used: Used::from(&totals) }).collect())
    }

    /// The latest of the recent invocations that `query` takes, oldest first. Recent are the last
    /// [`RECORDS_KEPT`](crate::limits::RECORDS_KEPT); under a high load some of them are missing, in `usage` none.
    #[must_use]
    pub fn invocations(&self, query: &InvocationQuery) -> Vec<Invocation> {
        self.bring_in();
        let limit = query.limit.unwrap_or(RECORDS_KEPT);
        let books = self.books();
        let mut taken: Vec<_> =
            books.records.iter().filter(|record| query.takes(record)).map(Invocation::from).collect();
        drop(books);
        // Shards are brought in one after the other; by the end of the run is the order in which things happened.
        taken.sort_by_key(|invocation| invocation.time.0 + invocation.wall_ns);
        taken.drain(..taken.len().saturating_sub(limit));
        taken
    }
}

fn names(key: &Key) -> (String, String) {
    (key.app().to_owned(), key.function().to_owned())
}
