//! Changes of what the broker keeps, within an operation of the writer.

use marram_core::capture::Source;
use marram_core::port::mqtt::{Change, Publish, Retain, SessionRecord, Subscription};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::encode;
use crate::stream::{Encoded, append};
use crate::{Captures, StoreError, Tx};

/// A change that is ready: encoded before it queues for the writer.
pub(super) enum Ready {
    Publish(Box<ReadyPublish>),
    Other(Change),
    /// It cannot be made at all.
    Never(StoreError),
}

pub(super) struct ReadyPublish {
    publish: Publish,
    /// Of the message, if it goes to a queue or is retained.
    message: Vec<u8>,
    event: Option<Encoded>,
}

impl Ready {
    pub(super) fn new(change: Change) -> Self {
        let Change::Publish(mut publish) = change else { return Self::Other(change) };
        let event = match publish.event.take().map(|event| Encoded::new(*event)).transpose() {
            Ok(event) => event,
            Err(error) => return Self::Never(error),
        };
        let needed = !publish.queues.is_empty() || publish.retain == Retain::Set;
        let message = if needed { encode::message(&publish.message) } else { Vec::new() };
        Self::Publish(Box::new(ReadyPublish { publish: *publish, message, event }))
    }
}

/// Makes a change. The inner result is a refusal: nothing of this change was made, and the operation goes on.
pub(super) fn make(
    tx: &Tx,
    ready: &Ready,
    captures: &Captures,
    now_unix_ns: u64,
) -> Result<Result<(), StoreError>, StoreError> {
    let ready = match ready {
        Ready::Never(error) => return Ok(Err(error.clone())),
        Ready::Other(change) => return other(tx, change).map(Ok),
        Ready::Publish(ready) => ready,
    };
    let Some(event) = &ready.event else { return publish(tx, ready).map(Ok) };
    let mut streams = captures.streams(Source::Mqtt, event.subject()).peekable();
    let first = streams.next();
    let appended = match (first, streams.peek()) {
        (None, _) => Ok(()),
        // A stream that is full says so before it has written anything.
        (Some(only), None) => append(tx, only, event, now_unix_ns).map(|_| ()),
        (Some(first), Some(_)) => tx.part(|tx| {
            std::iter::once(first)
                .chain(streams)
                .try_for_each(|stream| append(tx, stream, event, now_unix_ns).map(|_| ()))
        })?,
    };
    match appended {
        Ok(()) => publish(tx, ready).map(Ok),
        Err(refusal @ (StoreError::StreamFull(..) | StoreError::TooLarge(_) | StoreError::TooMany(_))) => {
            Ok(Err(refusal))
        }
        Err(error) => Err(error),
    }
}

fn publish(tx: &Tx, ready: &ReadyPublish) -> Result<(), StoreError> {
    let ReadyPublish { publish, message, .. } = ready;
    if !publish.queues.is_empty() {
        let sql = "INSERT INTO mqtt_message (places, message) VALUES (?, ?)";
        tx.prepare_cached(sql)?.execute(params![publish.queues.len(), message])?;
        let id = tx.last_insert_rowid();
        let sql = "INSERT INTO mqtt_queue (client, seq, message, qos, retain, released, size, subscriptions, shared)
                   VALUES (?, ?, ?, ?, ?, 0, ?, ?, ?)";
        let mut insert = tx.prepare_cached(sql)?;
        let size = publish.message.size();
        for place in &publish.queues {
            let numbers = encode::numbers(&place.subscriptions);
            insert.execute(params![
                &*place.client,
                place.seq,
                id,
                place.qos.level(),
                place.retain,
                size,
                numbers,
                place.shared.as_deref()
            ])?;
        }
    }
    let topic = &*publish.message.topic;
    match publish.retain {
        Retain::Keep => {}
        Retain::Set => {
            let sql = "INSERT INTO mqtt_retained (topic, message) VALUES (?, ?)
                       ON CONFLICT (topic) DO UPDATE SET message = excluded.message";
            tx.prepare_cached(sql)?.execute(params![topic, message])?;
        }
        Retain::Clear => expire(tx, topic)?,
    }
    if let Some((client, packet)) = &publish.received {
        let sql = "INSERT OR IGNORE INTO mqtt_received (client, packet) VALUES (?, ?)";
        tx.prepare_cached(sql)?.execute(params![&**client, packet])?;
    }
    if let Some(client) = &publish.will_of {
        tx.prepare_cached("UPDATE mqtt_session SET will = NULL WHERE client = ?")?.execute([&**client])?;
    }
    Ok(())
}

fn other(tx: &Tx, change: &Change) -> Result<(), StoreError> {
    match change {
        // It has been made ready as one.
        Change::Publish(_) => Ok(()),
        Change::Session { record, fresh } => {
            if *fresh {
                end(tx, &record.client)?;
            }
            session(tx, record)
        }
        Change::End(client) => end(tx, client),
        Change::Subscribe(client, subscription) => subscribe(tx, client, subscription),
        Change::Unsubscribe(client, filter) => {
            let sql = "DELETE FROM mqtt_subscription WHERE client = ? AND filter = ?";
            tx.prepare_cached(sql)?.execute([&**client, &**filter])?;
            Ok(())
        }
        Change::Release(client, seq) => {
            let sql = "UPDATE mqtt_queue SET released = 1 WHERE client = ? AND seq = ?";
            tx.prepare_cached(sql)?.execute(params![&**client, seq])?;
            Ok(())
        }
        Change::Settle(client, seqs) => seqs.iter().try_for_each(|seq| settle(tx, client, *seq)),
        Change::Forget(client, packet) => {
            let sql = "DELETE FROM mqtt_received WHERE client = ? AND packet = ?";
            tx.prepare_cached(sql)?.execute(params![&**client, packet])?;
            Ok(())
        }
        Change::Expire(topic) => expire(tx, topic),
    }
}

fn session(tx: &Connection, record: &SessionRecord) -> Result<(), StoreError> {
    let sql =
        "INSERT INTO mqtt_session (client, user, expiry_s, ended_unix_ns, sent_seq, will) VALUES (?, ?, ?, ?, ?, ?)
               ON CONFLICT (client) DO UPDATE SET user = excluded.user, expiry_s = excluded.expiry_s,
                   ended_unix_ns = excluded.ended_unix_ns, sent_seq = excluded.sent_seq, will = excluded.will";
    let will = record.will.as_ref().map(encode::will);
    tx.prepare_cached(sql)?.execute(params![
        &*record.client,
        record.user.as_deref(),
        record.expiry_s,
        record.ended_unix_ns,
        record.sent_seq,
        will
    ])?;
    Ok(())
}

fn subscribe(tx: &Connection, client: &str, subscription: &Subscription) -> Result<(), StoreError> {
    let sql = "INSERT INTO mqtt_subscription (client, filter, qos, no_local, retain_as_published, id, replay)
               VALUES (?, ?, ?, ?, ?, ?, ?)
               ON CONFLICT (client, filter) DO UPDATE SET qos = excluded.qos, no_local = excluded.no_local,
                   retain_as_published = excluded.retain_as_published, id = excluded.id, replay = excluded.replay";
    let Subscription { filter, qos, no_local, retain_as_published, id, replay } = subscription;
    tx.prepare_cached(sql)?.execute(params![
        client,
        &**filter,
        qos.level(),
        no_local,
        retain_as_published,
        id,
        replay
    ])?;
    Ok(())
}

fn end(tx: &Connection, client: &str) -> Result<(), StoreError> {
    // A queue may have the same message in two places: they are let go one by one.
    let mut select = tx.prepare_cached("SELECT message FROM mqtt_queue WHERE client = ?")?;
    let messages = select.query_map([client], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
    messages.into_iter().try_for_each(|message| let_go(tx, message))?;
    for table in ["mqtt_queue", "mqtt_subscription", "mqtt_received", "mqtt_session"] {
        tx.prepare_cached(&format!("DELETE FROM {table} WHERE client = ?"))?.execute([client])?;
    }
    Ok(())
}

fn settle(tx: &Connection, client: &str, seq: u64) -> Result<(), StoreError> {
    let sql = "DELETE FROM mqtt_queue WHERE client = ? AND seq = ? RETURNING message";
    let message = tx.prepare_cached(sql)?.query_row(params![client, seq], |row| row.get(0)).optional()?;
    message.map_or(Ok(()), |message| let_go(tx, message))
}

/// A message is in one place less; in none it goes.
fn let_go(tx: &Connection, message: i64) -> Result<(), StoreError> {
    if tx.prepare_cached("DELETE FROM mqtt_message WHERE id = ? AND places = 1")?.execute([message])? == 0 {
        tx.prepare_cached("UPDATE mqtt_message SET places = places - 1 WHERE id = ?")?.execute([message])?;
    }
    Ok(())
}

fn expire(tx: &Connection, topic: &str) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM mqtt_retained WHERE topic = ?")?.execute([topic])?;
    Ok(())
}
