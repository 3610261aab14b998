//! Appending events within an operation of the writer: the one way by which anything comes into a stream.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use marram_core::port::streams::{Published, Stored};
use marram_core::stream::{StreamName, StreamPolicy};
use rusqlite::params;

use super::encode::Encoded;
use super::key::{POSITION_MAX, key};
use super::ledger::Head;
use super::room;
use super::seen::{self, Seen};
use crate::{StoreError, Tx};

/// Appends one event: [`append_all`].
pub(crate) fn append(tx: &Tx, stream: &StreamName, event: &Encoded, now_unix_ns: u64) -> Result<Published, StoreError> {
    let published = append_all(tx, stream, std::slice::from_ref(event), now_unix_ns)?;
    Ok(published[0])
}

/// Appends `events` in this order, or none of them. A stream that is not there is made with the default policy. An event that
/// the stream has had within its window is not stored again.
///
/// Fails with [`StoreError::StreamFull`] and [`StoreError::TooLarge`] before it has written anything but the making of the
/// stream.
pub(crate) fn append_all(
    tx: &Tx,
    stream: &StreamName,
    events: &[Encoded],
    now_unix_ns: u64,
) -> Result<Vec<Published>, StoreError> {
    append_as(tx, stream, events, now_unix_ns, true)
}

/// Appends one event, though the stream may have it already: a dead letter is one of a consumer.
pub(super) fn append_again(tx: &Tx, stream: &StreamName, event: &Encoded, now: u64) -> Result<(), StoreError> {
    append_as(tx, stream, std::slice::from_ref(event), now, false).map(|_| ())
}

fn append_as(
    tx: &Tx,
    stream: &StreamName,
    events: &[Encoded],
    now_unix_ns: u64,
    dedupe: bool,
) -> Result<Vec<Published>, StoreError> {
    let mut ledger = tx.ledger();
    let head = ledger.find_or_make(tx, stream, StreamPolicy::default())?;
    let window = if dedupe { window_ns(&head.policy) } else { 0 };
    let published = places(tx, head, events, (window, now_unix_ns))?;
    let new = || events.iter().zip(&published).filter(|(_, published)| !published.duplicate);
    let (count, bytes) = new().fold((0, 0), |(count, bytes), (event, _)| (count + 1, bytes + event.size));
    if count < events.len() {
        head.shared.duplicates.fetch_add((events.len() - count) as u64, Ordering::Relaxed);
    }
    if count == 0 {
        return Ok(published);
    }
    let id = head.shared.id;
    room::make(tx, &mut ledger, id, (count, bytes), now_unix_ns)?;
    let head = ledger.touch(id);
    let keep = head.shared.held.load(Ordering::Acquire) > 0;
    let sql = "INSERT INTO event (key, stored_unix_ns, identity, size, event) VALUES (?, ?, ?, ?, ?)";
    let mut insert = tx.prepare_cached(sql)?;
    for (event, Published { position, .. }) in new() {
        insert.execute(params![key(id, *position), now_unix_ns, event.identity, event.size, &event.bytes[..]])?;
        if keep {
            let event = std::sync::Arc::clone(&event.event);
            head.fresh.push(Stored { position: *position, stored_unix_ns: now_unix_ns, event });
        }
    }
    head.counters.last += count as u64;
    head.counters.events += count as u64;
    head.counters.bytes += bytes;
    if let Some(seen) = head.seen.as_mut().filter(|_| window > 0) {
        for (event, Published { position, .. }) in new() {
            seen.insert(event.identity, *position, window, now_unix_ns);
        }
        ledger.remember(count);
    }
    Ok(published)
}

/// Where each event goes, or is already.
fn places(
    tx: &Tx,
    head: &mut Head,
    events: &[Encoded],
    (window, now): (u64, u64),
) -> Result<Vec<Published>, StoreError> {
    let last = head.counters.last;
    if last + events.len() as u64 > POSITION_MAX {
        return Err(StoreError::Invalid(format!("stream \"{}\" has used up its positions", head.shared.name)));
    }
    let mut next = last + 1;
    let mut place = |duplicate: Option<u64>| {
        let position = duplicate.unwrap_or(next);
        next += u64::from(duplicate.is_none());
        Published { position, duplicate: duplicate.is_some() }
    };
    if window == 0 {
        return Ok(events.iter().map(|_| place(None)).collect());
    }
    if head.seen.is_none() {
        head.seen = Some(Seen::load(tx, head.shared.id, window, now)?);
    }
    let seen = head.seen.as_ref().expect("it was just loaded");
    let mut here: HashMap<(&str, &str), u64> = HashMap::new();
    let mut published = Vec::with_capacity(events.len());
    for event in events {
        let before = seen.position(event.identity).filter(|at| *at <= last);
        let mut duplicate = None;
        if let Some(at) = before
            && seen::is_duplicate(tx, (head.shared.id, at), event, (window, now))?
        {
            duplicate = Some(at);
        }
        if events.len() > 1 {
            let name = (event.event.source.as_str(), event.event.id.as_str());
            duplicate = duplicate.or_else(|| here.get(&name).copied());
            let placed = place(duplicate);
            here.insert(name, placed.position);
            published.push(placed);
        } else {
            published.push(place(duplicate));
        }
    }
    Ok(published)
}

pub(super) fn window_ns(policy: &StreamPolicy) -> u64 {
    u64::try_from(policy.dedupe.as_nanos()).unwrap_or(u64::MAX)
}
