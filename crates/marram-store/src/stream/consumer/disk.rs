//! Consumers as the disk has them: one row each, in which what is open past the cursor is a short list.

use std::time::Duration;

use marram_core::event::SubjectFilter;
use marram_core::stream::{ConsumerPolicy, Start};
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use super::close::closes;
use super::window::Closing;
use super::window::{Counts, Open, State, Window};
use crate::StoreError;
use crate::stream::key::StreamId;

/// The only version of both encodings so far.
const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
enum DiskFilter {
    All,
    Exact(String),
    Topic(String),
    Glob(String),
}

#[derive(Serialize, Deserialize)]
struct DiskPolicy {
    filter: DiskFilter,
    order_by_subject: bool,
    in_flight_max: u32,
    ack_wait: Duration,
    deliveries_max: u32,
    backoff_min: Duration,
    backoff_max: Duration,
}

/// An open event. Small numbers are small on the disk.
#[derive(Serialize, Deserialize)]
struct DiskOpen {
    /// Positions after the one before it, or after the cursor.
    distance: u64,
    /// Deliveries that count.
    attempt: u32,
    /// Milliseconds since the Unix epoch; 0 for at once.
    due_unix_ms: u64,
    /// Kept where the order depends on it; 0 elsewhere, and where it has only just begun to. Then it is learnt when the
    /// consumer is taken up.
    subject: u64,
}

pub(super) fn encode_policy(policy: &ConsumerPolicy) -> Vec<u8> {
    let filter = match &policy.filter {
        SubjectFilter::All => DiskFilter::All,
        SubjectFilter::Exact(text) => DiskFilter::Exact(text.clone()),
        SubjectFilter::Topic(text) => DiskFilter::Topic(text.clone()),
        SubjectFilter::Glob(text) => DiskFilter::Glob(text.clone()),
    };
    encode(&DiskPolicy {
        filter,
        order_by_subject: policy.order_by_subject,
        in_flight_max: policy.in_flight_max,
        ack_wait: policy.ack_wait,
        deliveries_max: policy.deliveries_max,
        backoff_min: policy.backoff_min,
        backoff_max: policy.backoff_max,
    })
}

fn decode_policy(bytes: &[u8]) -> Result<ConsumerPolicy, StoreError> {
    let policy: DiskPolicy = decode(bytes)?;
    let bad = |error: marram_core::event::FilterError| StoreError::Damaged(error.to_string());
    Ok(ConsumerPolicy {
        filter: match policy.filter {
            DiskFilter::All => SubjectFilter::All,
            DiskFilter::Exact(text) => SubjectFilter::Exact(text),
            DiskFilter::Topic(text) => SubjectFilter::topic(&text).map_err(bad)?,
            DiskFilter::Glob(text) => SubjectFilter::glob(&text).map_err(bad)?,
        },
        start: Start::First,
        order_by_subject: policy.order_by_subject,
        in_flight_max: policy.in_flight_max,
        ack_wait: policy.ack_wait,
        deliveries_max: policy.deliveries_max,
        backoff_min: policy.backoff_min,
        backoff_max: policy.backoff_max,
    })
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, vec![VERSION]).expect("a vector grows, and none of this has an unknown length")
}

fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, StoreError> {
    let body =
        bytes.strip_prefix(&[VERSION]).ok_or_else(|| StoreError::Damaged("a consumer has another version".into()))?;
    postcard::from_bytes(body).map_err(|error| StoreError::Damaged(format!("a consumer cannot be decoded: {error}")))
}

/// Makes the row; returns its id.
pub(super) fn insert(
    db: &Connection,
    stream: StreamId,
    name: &str,
    policy: &ConsumerPolicy,
    cursor: u64,
) -> Result<i64, StoreError> {
    let sql = "INSERT INTO consumer
        (stream, name, policy, paused, cursor, handed, acked, dead_lettered, dropped, open)
        VALUES (?1, ?2, ?3, 0, ?4, ?4, 0, 0, 0, ?5)";
    let none = encode(&Vec::<DiskOpen>::new());
    db.prepare_cached(sql)?.execute(params![stream, name, encode_policy(policy), cursor, none])?;
    Ok(db.last_insert_rowid())
}

/// Writes where the consumer stands within the transaction.
pub(super) fn update(db: &Connection, id: i64, window: &Window) -> Result<(), StoreError> {
    let cursor = window.cursor_within();
    let handed = if window.seeking.is_some() { cursor } else { window.handed_point().max(cursor) };
    let open = if window.seeking.is_some() { Vec::new() } else { open_list(window, cursor) };
    let Counts { acked, dead_lettered, dropped } = window.counts;
    let sql = "UPDATE consumer SET cursor = ?2, handed = ?3, acked = ?4, dead_lettered = ?5, dropped = ?6, open = ?7
        WHERE id = ?1";
    db.prepare_cached(sql)?.execute(params![
        id,
        cursor,
        handed,
        acked + window.pending.acked,
        dead_lettered + window.pending.dead_lettered,
        dropped + window.pending.dropped,
        encode(&open)
    ])?;
    Ok(())
}

fn open_list(window: &Window, cursor: u64) -> Vec<DiskOpen> {
    let mut before = cursor;
    let unsettled = window.open.iter().filter(|(at, open)| **at > cursor && !closes(open.closing));
    let list = unsettled.map(|(at, open)| {
        let counted = open.attempt - open.base;
        let (attempt, due_unix_ns) = match (open.closing, open.state) {
            (Some(Closing::Retried { due_unix_ns, .. }), _)
            | (_, State::Later { due_unix_ns, .. } | State::Unanchored { due_unix_ns }) => (counted, due_unix_ns),
            // Nobody knows what becomes of a delivery when the process ends: it is made again under the same number.
            (_, State::InFlight(_) | State::Lapsed) => (counted.saturating_sub(1), 0),
            (_, State::Due | State::Held) => (counted, 0),
        };
        let subject = if window.policy.order_by_subject { open.subject } else { 0 };
        let distance = at - std::mem::replace(&mut before, *at);
        DiskOpen { distance, attempt, due_unix_ms: due_unix_ns.div_ceil(1_000_000), subject }
    });
    list.collect()
}

/// The columns that [`window_from_row`] reads.
pub(super) const COLUMNS: &str = "policy, paused, cursor, handed, acked, dead_lettered, dropped, open";

/// The window of a row whose columns begin at `at`. Its waits have yet to be measured ([`Window::anchor`]).
pub(super) fn window_from_row(row: &Row<'_>, at: usize) -> Result<Window, StoreError> {
    let blob = |at| -> Result<Vec<u8>, StoreError> { Ok(row.get(at)?) };
    let policy = decode_policy(&blob(at)?)?;
    let cursor: u64 = row.get(at + 2)?;
    let mut window = Window::new(policy, cursor);
    window.paused = row.get(at + 1)?;
    window.handed = row.get(at + 3)?;
    window.read = window.handed;
    window.counts = Counts { acked: row.get(at + 4)?, dead_lettered: row.get(at + 5)?, dropped: row.get(at + 6)? };
    let mut position = cursor;
    for open in decode::<Vec<DiskOpen>>(&blob(at + 7)?)? {
        position = position
            .checked_add(open.distance)
            .filter(|at| *at > cursor && *at <= window.handed)
            .ok_or_else(|| StoreError::Damaged("a consumer has an open event where none can be".into()))?;
        let state = if open.due_unix_ms == 0 {
            window.ready.insert(position);
            State::Due
        } else {
            State::Unanchored { due_unix_ns: open.due_unix_ms.saturating_mul(1_000_000) }
        };
        let open = Open { subject: open.subject, attempt: open.attempt, base: 0, state, closing: None };
        window.open.insert(position, open);
    }
    window.order();
    Ok(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_comes_back_as_it_was() {
        for filter in [
            SubjectFilter::All,
            SubjectFilter::Exact("a".into()),
            SubjectFilter::topic("a/+/#").unwrap(),
            SubjectFilter::glob("a/**").unwrap(),
        ] {
            let policy = ConsumerPolicy { filter, order_by_subject: true, ..ConsumerPolicy::default() };
            assert_eq!(decode_policy(&encode_policy(&policy)).unwrap(), policy);
        }
        assert!(matches!(decode_policy(&[]), Err(StoreError::Damaged(_))));
        assert!(matches!(decode_policy(&[2, 0]), Err(StoreError::Damaged(_))));
        assert!(matches!(decode_policy(&[1, 9]), Err(StoreError::Damaged(_))));
    }
}
