//! What databases of earlier versions have in them is there when they are opened in this one. The rows are written by hand, in
//! the bytes of that time: what the code of today would write shows nothing of what was written then.

use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt as _;
use marram_core::event::Event;
use marram_core::port::blobs::{Attributes, Finish, Multipart as _, UploadId};
use marram_core::port::kv::Version;
use marram_core::port::mqtt::{Message, Qos, SessionRecord, Subscription, Will};
use marram_core::port::{Blobs as _, Clock, Entropy, Kv as _, MqttJournal as _, Streams as _};
use marram_core::stream::{ConsumerId, Start, StreamName};
use marram_core::{Digest, Name};
use rusqlite::{Connection, params};
use tempfile::TempDir;

use super::{MIGRATIONS, open_with};
use crate::{SCHEMA_VERSION, Store, StoreConfig};

const NOW: u64 = 1_700_000_000_000_000_000;

struct Now;

impl Clock for Now {
    fn unix_ns(&self) -> u64 {
        NOW
    }

    fn instant(&self) -> std::time::Instant {
        std::time::Instant::now()
    }
}

impl Entropy for Now {
    fn u64(&self) -> u64 {
        7
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// What the versions from 3 on wrote, each what it was the first to have.
const WRITTEN: [fn(&Connection, &Path); 6] = [streams, keys, mqtt, objects, behind, shared];

/// Opens what version `version` wrote, and everything before it.
fn opened(version: usize) -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let db = open_with(&dir.path().join("node.db"), &MIGRATIONS[..version]).unwrap();
    for write in &WRITTEN[..version - 2] {
        write(&db, dir.path());
    }
    drop(db);
    let store = Store::open(&StoreConfig::new(dir.path())).unwrap();
    let sql = "SELECT user_version FROM pragma_user_version";
    let found = store.readers.read(|db| Ok(db.query_row(sql, [], |row| row.get::<_, i64>(0))?)).unwrap();
    assert_eq!(found, SCHEMA_VERSION);
    assert_eq!(store.check().unwrap(), []);
    (dir, store)
}

#[test]
fn every_version_is_here() {
    let missing = "write a row of what is new in the latest version, by hand, and read it";
    assert_eq!(WRITTEN.len() + 2, MIGRATIONS.len(), "{missing}");
}

/// Version 3 was the first with streams.
#[tokio::test]
async fn what_version_3_wrote_stays() {
    let (_dir, store) = opened(3);
    streams_are_there(&store).await;
}

/// Version 4 was the first with keys.
#[tokio::test]
async fn what_version_4_wrote_stays() {
    let (_dir, store) = opened(4);
    streams_are_there(&store).await;
    keys_are_there(&store).await;
}

/// Version 5 was the first with the MQTT broker.
#[tokio::test]
async fn what_version_5_wrote_stays() {
    let (_dir, store) = opened(5);
    streams_are_there(&store).await;
    keys_are_there(&store).await;
    mqtt_is_there(&store).await;
}

/// Version 6 was the first with objects.
#[tokio::test]
async fn what_version_6_wrote_stays() {
    let (_dir, store) = opened(6);
    streams_are_there(&store).await;
    keys_are_there(&store).await;
    mqtt_is_there(&store).await;
    objects_are_there(&store).await;
}

/// Version 7 was the first in which the row of a stream may be behind.
#[tokio::test]
async fn what_version_7_wrote_stays() {
    let (_dir, store) = opened(7);
    // The events past `last`, with their sizes, come to what the row says.
    let streams = store.streams(Arc::new(Now), Arc::new(Now));
    let alarms = streams.list().unwrap().into_iter().find(|stream| stream.name.as_str() == "alarms").unwrap();
    assert_eq!((alarms.first, alarms.last, alarms.events, alarms.bytes, alarms.dropped), (3, 5, 3, 129, 2));
    drop(streams);
    streams_are_there(&store).await;
    keys_are_there(&store).await;
    mqtt_is_there(&store).await;
    objects_are_there(&store).await;
}

/// Version 8 was the first to know what waits for a member of a group.
#[tokio::test]
async fn what_version_8_wrote_stays() {
    let (_dir, store) = opened(8);
    streams_are_there(&store).await;
    keys_are_there(&store).await;
    mqtt_is_there(&store).await;
    objects_are_there(&store).await;
    let queued = store.mqtt(Arc::new(Now)).read(&"me".into(), 0, 10).await.unwrap();
    assert_eq!(queued[0].shared.as_deref(), Some("$share/g/t"));
}

/// A stream with two events, and a consumer that is done with the first.
fn streams(db: &Connection, _: &Path) {
    let sql = "INSERT INTO stream VALUES (1, 'readings', 1073741824, 604800000000000, 0, 120000000000, 1, 2, 2, 90, 0)";
    db.execute(sql, []).unwrap();
    let first = b"\x01\x07plant/7\x011\x06/plant\x07reading\x00\x0atext/plain\x00\x00\x0120.5";
    let second = b"\x01\x07plant/7\x012\x06/plant\x07reading\x00\x00\x00\x00\x0121";
    let insert = "INSERT INTO event VALUES (?, ?, ?, ?, ?)";
    db.execute(insert, params![(1_i64 << 48) + 1, NOW, -8_211_839_745_447_443_127_i64, 51, first]).unwrap();
    db.execute(insert, params![(1_i64 << 48) + 2, NOW, 8_518_377_235_447_389_550_i64, 39, second]).unwrap();
    // Everything, not by subject, 32 in flight, 30 s, 5 deliveries, from 1 s to 60 s; and nothing that is open.
    let (policy, open) = (b"\x01\x00\x00\x20\x1e\x00\x05\x01\x00\x3c\x00", b"\x01\x00");
    db.execute("INSERT INTO consumer VALUES (1, 1, 'billing', ?, 0, 1, 1, 1, 0, 0, ?)", params![policy, open]).unwrap();
}

/// A stream that has dropped two events and kept one when its row was written, and taken two more since.
fn behind(db: &Connection, _: &Path) {
    let sql = "INSERT INTO stream VALUES (2, 'alarms', 1073741824, 604800000000000, 1, 120000000000, 3, 3, 1, 51, 2)";
    db.execute(sql, []).unwrap();
    let event = b"\x01\x07plant/7\x012\x06/plant\x07reading\x00\x00\x00\x00\x0121";
    for (position, size) in [(3, 51), (4, 39), (5, 39)] {
        let row = params![(2_i64 << 48) + position, NOW, position, size, event];
        db.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?)", row).unwrap();
    }
}

async fn streams_are_there(store: &Store) {
    let streams = store.streams(Arc::new(Now), Arc::new(Now));
    let readings = StreamName::new("readings").unwrap();
    let event = |id: &str, content_type: &str, data: &'static [u8]| Event {
        id: id.into(),
        source: "/plant".into(),
        kind: "reading".into(),
        subject: "plant/7".into(),
        data_content_type: content_type.into(),
        data: Some(data.into()),
        ..Event::default()
    };
    let read = streams.read(&readings, Start::First, 10).unwrap();
    let found: Vec<_> = read.iter().map(|stored| (stored.position, stored.stored_unix_ns, &*stored.event)).collect();
    let (first, second) = (event("1", "text/plain", b"20.5"), event("2", "", b"21"));
    assert_eq!(found, [(1, NOW, &first), (2, NOW, &second)]);
    let consumer = streams.find_consumer(&readings, &ConsumerId("billing".into())).unwrap();
    let state = consumer.state();
    assert_eq!((state.cursor, state.handed, state.acked), (1, 1, 1));
    let owed = consumer.pull(10).await.unwrap();
    assert_eq!(owed.iter().map(|delivery| (delivery.stored.position, delivery.attempt)).collect::<Vec<_>>(), [(2, 1)]);
    // What was there is known again, and the stream goes on where it was.
    let published = streams.publish(&readings, vec![first, event("3", "", b"22")]).await.unwrap();
    let published: Vec<_> = published.iter().map(|published| (published.position, published.duplicate)).collect();
    assert_eq!(published, [(1, true), (3, false)]);
}

/// A value, a counter, what is left of a key that was deleted, and the clock by which they were written.
fn keys(db: &Connection, _: &Path) {
    let clock = (u128::from(NOW / 1_000_000) << 80) | 9;
    db.execute("INSERT INTO kv_clock VALUES (1, ?)", params![clock.to_be_bytes()]).unwrap();
    let insert = "INSERT INTO kv_entry VALUES ('state', ?, ?, ?, ?)";
    let version = |time: u128| ((time << 64) | 9).to_be_bytes();
    db.execute(insert, params!["greeting", version(1), NOW + 60_000_000_000, b"\x01hello"]).unwrap();
    let counter = b"\x02\x01\x09\x01\x0240\x00\x00\x02\x09\x01\x01\x09\x00\x02";
    db.execute(insert, params!["count", version(2), None::<u64>, counter]).unwrap();
    let gone = b"\x02\x01\x09\x00\x00\x01\x01\x09\x00";
    db.execute("INSERT INTO kv_tombstone VALUES ('state', 'gone', ?, ?)", params![NOW, gone]).unwrap();
}

async fn keys_are_there(store: &Store) {
    let keys = store.kv(Arc::new(Now));
    let state = name("state");
    let greeting = keys.get(&state, "greeting").unwrap().unwrap();
    assert_eq!((&greeting.value[..], greeting.expires_unix_ns), (&b"hello"[..], Some(NOW + 60_000_000_000)));
    assert_eq!(greeting.version, Version(((1_u128 << 64) | 9).to_be_bytes()));
    assert_eq!(keys.get(&state, "gone").unwrap(), None);
    assert_eq!(keys.node().0, 9, "it is the same node");
    // What is written now comes after it, and a counter goes on.
    assert_eq!(keys.increment(&state, "count", 4).await.unwrap(), 42);
    let clock = Version((((u128::from(NOW / 1_000_000)) << 80) | 9).to_be_bytes());
    assert!(keys.get(&state, "count").unwrap().unwrap().version > clock);
    let page = keys.list(&state, "", None, 10).unwrap();
    assert_eq!(page.keys, ["count", "greeting"]);
}

/// A session with a will, a subscription, a message in its queue and an identifier of one that it sent; and a retained message.
fn mqtt(db: &Connection, _: &Path) {
    let message = b"\x01\x01t\x02\x00\x02me\x01\x00\x00x";
    let will = b"\x05\x01\x09\x01\x04will\x01\x00\x02me\x01\x00\x00gone";
    let sql = "INSERT INTO mqtt_session VALUES ('me', 'ann', 4294967295, NULL, 3, ?)";
    db.execute(sql, params![will]).unwrap();
    db.execute("INSERT INTO mqtt_subscription VALUES ('me', 't/#', 2, 1, 0, 7, 0)", []).unwrap();
    db.execute("INSERT INTO mqtt_message VALUES (1, 1, ?)", params![message]).unwrap();
    let numbers = b"\x00\x00\x00\x07";
    let columns = "client, seq, message, qos, retain, released, size, subscriptions";
    let sql = format!("INSERT INTO mqtt_queue ({columns}) VALUES ('me', 4, 1, 1, 0, 0, 34, ?)");
    db.execute(&sql, params![numbers]).unwrap();
    db.execute("INSERT INTO mqtt_received VALUES ('me', 65535)", []).unwrap();
    let retained = b"\x01\x01r\x01\x01\x02me\x01\x00\x00on";
    db.execute("INSERT INTO mqtt_retained VALUES ('r', ?)", params![retained]).unwrap();
}

async fn mqtt_is_there(store: &Store) {
    let mqtt = store.mqtt(Arc::new(Now));
    let message = |topic: &str, payload: &'static [u8], qos, retain| {
        Arc::new(Message {
            topic: topic.into(),
            payload: payload.into(),
            qos,
            retain,
            publisher: "me".into(),
            published_unix_ns: 1,
            expires_unix_ns: None,
            properties: None,
        })
    };
    let loaded = mqtt.load().await.unwrap();
    assert_eq!(loaded.retained, [message("r", b"on", Qos::AtLeastOnce, true)]);
    let [session] = &loaded.sessions[..] else { panic!("{loaded:?}") };
    let will = Will { message: message("will", b"gone", Qos::AtLeastOnce, false), expiry_s: Some(9), delay_s: 5 };
    let record = SessionRecord {
        client: "me".into(),
        user: Some("ann".into()),
        expiry_s: u32::MAX,
        ended_unix_ns: None,
        sent_seq: 3,
        will: Some(will),
    };
    assert_eq!(session.record, record);
    let subscription = Subscription {
        filter: "t/#".into(),
        qos: Qos::ExactlyOnce,
        no_local: true,
        retain_as_published: false,
        id: 7,
        replay: false,
    };
    assert_eq!((&session.subscriptions[..], &session.received[..]), (&[subscription][..], &[65_535][..]));
    assert_eq!((session.queued, session.queued_bytes, session.first_seq, session.last_seq), (1, 34, 4, 4));
    let queued = mqtt.read(&"me".into(), 0, 10).await.unwrap();
    let found: Vec<_> = queued.iter().map(|queued| (queued.seq, queued.qos, &queued.message)).collect();
    assert_eq!(found, [(4, Qos::AtLeastOnce, &message("t", b"x", Qos::ExactlyOnce, false))]);
    assert_eq!(queued[0].subscriptions, [7]);
}

/// The message in the queue came by a shared subscription.
fn shared(db: &Connection, _: &Path) {
    assert_eq!(db.execute("UPDATE mqtt_queue SET shared = '$share/g/t'", []).unwrap(), 1);
}

/// An object of one content, one of two, and an upload with a part.
fn objects(db: &Connection, dir: &Path) {
    let blobs = Arc::new(crate::Blobs::open(&dir.join("blobs")).unwrap());
    let [hello, world] = [&b"hello"[..], b" world"].map(|content| blobs.put(content, 100, None).unwrap().digest());
    let (hello, world) = (hello.as_bytes(), world.as_bytes());
    db.execute("INSERT INTO object_bucket VALUES ('uploads', ?)", params![NOW]).unwrap();
    db.execute("UPDATE object_clock SET last = 2", []).unwrap();
    let text = b"\x01\x01\x0atext/plain\x00\x01\x01a\x01b\x01\x05CRC32\x08NhCmhg==";
    let etag = "5d41402abc4b2a76b9719d911017c592";
    let insert = "INSERT INTO object VALUES (?, 'uploads', ?, ?, ?, ?, ?, ?)";
    db.execute(insert, params![1, "hello.txt", 5, hello, etag, NOW, text]).unwrap();
    let (none, of_parts) = (b"\x01\x00\x00\x00\x00", "a56979024342128ecebc884e3442121b-2");
    db.execute(insert, params![2, "whole.txt", 11, None::<[u8; 32]>, of_parts, NOW, none]).unwrap();
    let insert = "INSERT INTO object_segment VALUES (2, ?, ?, ?)";
    db.execute(insert, params![0, hello, 5]).unwrap();
    db.execute(insert, params![1, world, 6]).unwrap();
    let insert = "INSERT INTO object_upload VALUES ('u-1', 'uploads', 'begun.txt', ?1, ?1, '', ?2)";
    db.execute(insert, params![NOW, none]).unwrap();
    let insert = "INSERT INTO object_part VALUES ('u-1', 1, 5, ?, ?, ?, ?)";
    db.execute(insert, params![hello, etag, NOW, none]).unwrap();
}

async fn objects_are_there(store: &Store) {
    let objects = store.objects(Arc::new(Now));
    let uploads = name("uploads");
    // Nothing of it is taken for garbage.
    assert_eq!(store.collect_blobs(std::time::Duration::ZERO).unwrap().blobs, 0);
    let content = async |key: &str| {
        let opened = objects.get(&uploads, key).await.unwrap().unwrap();
        let chunks: Vec<_> = opened.content.read(0..opened.object.size).try_collect().await.unwrap();
        (opened.object, chunks.concat())
    };
    let (hello, bytes) = content("hello.txt").await;
    assert_eq!(bytes, b"hello");
    assert_eq!((hello.digest, hello.modified_unix_ns), (Some(Digest::of(b"hello")), NOW));
    assert_eq!(hello.etag, "5d41402abc4b2a76b9719d911017c592");
    let said = Attributes {
        content_type: Some("text/plain".into()),
        user: vec![("a".into(), "b".into())],
        ..Attributes::default()
    };
    assert_eq!((hello.attributes, hello.checksum.unwrap().value), (said, "NhCmhg==".to_owned()));
    let (whole, bytes) = content("whole.txt").await;
    assert_eq!((&bytes[..], whole.digest, whole.size), (&b"hello world"[..], None, 11));
    // An upload that was begun then is completed now.
    let id = UploadId("u-1".into());
    let parts = objects.parts(&uploads, "begun.txt", &id, 0, 10).await.unwrap().unwrap().parts;
    let parts: Vec<_> = parts.into_iter().map(|part| (part.number, part.etag)).collect();
    assert_eq!(parts, [(1, "5d41402abc4b2a76b9719d911017c592".to_owned())]);
    let done = objects.complete_upload(&uploads, "begun.txt", &id, parts, Finish::default()).await.unwrap().unwrap();
    assert!(done.version > whole.version);
    assert_eq!(content("begun.txt").await.1, b"hello");
}
