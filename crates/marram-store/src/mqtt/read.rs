//! What the broker starts from, and parts of queues.

use std::collections::HashMap;
use std::sync::Arc;

use marram_core::port::mqtt::{ClientId, Loaded, Message, Qos, Queued, SessionRecord, StoredSession, Subscription};
use rusqlite::{Connection, Row, params};

use super::encode;
use crate::StoreError;
use crate::limits::MQTT_READ_BYTES_MAX;

pub(super) fn everything(db: &Connection) -> Result<Loaded, StoreError> {
    let mut sessions: HashMap<ClientId, StoredSession> = HashMap::new();
    let mut order = Vec::new();
    let sql = "SELECT client, user, expiry_s, ended_unix_ns, sent_seq, will FROM mqtt_session ORDER BY client";
    let mut select = db.prepare_cached(sql)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let session = StoredSession {
            record: record(row)?,
            subscriptions: Vec::new(),
            received: Vec::new(),
            queued: 0,
            queued_bytes: 0,
            first_seq: 0,
            last_seq: 0,
            shared: false,
        };
        order.push(session.record.client.clone());
        sessions.insert(session.record.client.clone(), session);
    }
    let sql = "SELECT client, filter, qos, no_local, retain_as_published, id, replay FROM mqtt_subscription";
    let mut select = db.prepare_cached(sql)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(session) = sessions.get_mut(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?) {
            session.subscriptions.push(subscription(row)?);
        }
    }
    let mut select = db.prepare_cached("SELECT client, packet FROM mqtt_received")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(session) = sessions.get_mut(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?) {
            session.received.push(row.get(1)?);
        }
    }
    let sql =
        "SELECT client, count(*), sum(size), min(seq), max(seq), count(shared) > 0 FROM mqtt_queue GROUP BY client";
    let mut select = db.prepare_cached(sql)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(session) = sessions.get_mut(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?) {
            (session.queued, session.queued_bytes) = (row.get(1)?, row.get(2)?);
            (session.first_seq, session.last_seq, session.shared) = (row.get(3)?, row.get(4)?, row.get(5)?);
        }
    }
    let mut select = db.prepare_cached("SELECT message FROM mqtt_retained")?;
    let mut rows = select.query([])?;
    let mut retained = Vec::new();
    while let Some(row) = rows.next()? {
        retained.push(message(row, 0)?);
    }
    Ok(Loaded { sessions: order.into_iter().filter_map(|client| sessions.remove(&client)).collect(), retained })
}

/// Up to `max` messages past `after`, and no more than one past the limit of bytes.
pub(super) fn queue(db: &Connection, client: &str, after: u64, max: usize) -> Result<Vec<Queued>, StoreError> {
    let sql = "SELECT q.seq, q.qos, q.retain, q.released, q.subscriptions, q.size, m.message, q.shared
               FROM mqtt_queue q JOIN mqtt_message m ON m.id = q.message
               WHERE q.client = ? AND q.seq > ? ORDER BY q.seq LIMIT ?";
    let mut select = db.prepare_cached(sql)?;
    let mut rows = select.query(params![client, after, max])?;
    let (mut queued, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        bytes += row.get::<_, u64>(5)?;
        queued.push(Queued {
            seq: row.get(0)?,
            qos: qos(row, 1)?,
            retain: row.get(2)?,
            released: row.get(3)?,
            subscriptions: encode::decode_numbers(row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?),
            message: message(row, 6)?,
            shared: row.get::<_, Option<String>>(7)?.map(Arc::from),
        });
        if bytes > MQTT_READ_BYTES_MAX {
            break;
        }
    }
    Ok(queued)
}

fn record(row: &Row<'_>) -> Result<SessionRecord, StoreError> {
    let will = row.get_ref(5)?.as_blob_or_null().map_err(rusqlite::Error::from)?;
    Ok(SessionRecord {
        client: row.get::<_, String>(0)?.into(),
        user: row.get::<_, Option<String>>(1)?.map(Arc::from),
        expiry_s: row.get(2)?,
        ended_unix_ns: row.get(3)?,
        sent_seq: row.get(4)?,
        will: will.map(encode::decode_will).transpose()?,
    })
}

fn subscription(row: &Row<'_>) -> Result<Subscription, StoreError> {
    Ok(Subscription {
        filter: row.get::<_, String>(1)?.into(),
        qos: qos(row, 2)?,
        no_local: row.get(3)?,
        retain_as_published: row.get(4)?,
        id: row.get(5)?,
        replay: row.get(6)?,
    })
}

fn qos(row: &Row<'_>, at: usize) -> Result<Qos, StoreError> {
    let level = row.get(at)?;
    Qos::from_level(level).ok_or_else(|| StoreError::Damaged(format!("there is no MQTT QoS {level}")))
}

fn message(row: &Row<'_>, at: usize) -> Result<Arc<Message>, StoreError> {
    encode::decode(row.get_ref(at)?.as_blob().map_err(rusqlite::Error::from)?)
}
