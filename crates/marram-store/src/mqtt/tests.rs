use std::collections::BTreeSet;

use bytes::Bytes;
use marram_core::Kind;
use marram_core::capture::Capture;
use marram_core::event::{Event, SubjectFilter};
use marram_core::port::mqtt::{Enqueue, Message, Publish, Qos, Retain, SessionRecord, Subscription, Will};
use marram_core::port::{Entropy, Streams as _};
use marram_core::stream::{Overflow, Start, StreamName, StreamPolicy};

use super::*;
use crate::StoreConfig;

struct Now;

impl Clock for Now {
    fn unix_ns(&self) -> u64 {
        1_700_000_000_000_000_000
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

fn open(dir: &std::path::Path) -> (Store, Arc<StoreMqtt>) {
    let store = Store::open(&StoreConfig::new(dir)).unwrap();
    let mqtt = store.mqtt(Arc::new(Now));
    (store, mqtt)
}

fn message(topic: &str, payload: &'static [u8]) -> Arc<Message> {
    Arc::new(Message {
        topic: topic.into(),
        payload: Bytes::from_static(payload),
        qos: Qos::ExactlyOnce,
        retain: false,
        publisher: "me".into(),
        published_unix_ns: 1,
        expires_unix_ns: None,
        properties: None,
    })
}

fn publish(message: &Arc<Message>, places: &[(&str, u64)]) -> Publish {
    let place = |(client, seq): &(&str, u64)| Enqueue {
        client: (*client).into(),
        seq: *seq,
        qos: Qos::AtLeastOnce,
        retain: false,
        subscriptions: vec![7, 268_435_455],
        shared: (*client == "b").then(|| "$share/g/t".into()),
    };
    Publish {
        message: message.clone(),
        event: None,
        queues: places.iter().map(place).collect(),
        retain: Retain::Keep,
        received: None,
        will_of: None,
    }
}

fn event(topic: &str, id: &str) -> Option<Box<Event>> {
    Some(Box::new(Event {
        id: id.into(),
        source: "/mqtt/me".into(),
        kind: "marram.mqtt.message".into(),
        subject: topic.into(),
        ..Event::default()
    }))
}

fn record(client: &str) -> SessionRecord {
    SessionRecord {
        client: client.into(),
        user: Some("ann".into()),
        expiry_s: u32::MAX,
        ended_unix_ns: None,
        sent_seq: 3,
        will: Some(Will { message: message("will", b"gone"), expiry_s: Some(9), delay_s: 5 }),
    }
}

fn session(record: SessionRecord, fresh: bool) -> Change {
    Change::Session { record: Box::new(record), fresh }
}

fn subscription(filter: &str) -> Subscription {
    Subscription {
        filter: filter.into(),
        qos: Qos::ExactlyOnce,
        no_local: true,
        retain_as_published: false,
        id: 268_435_455,
        replay: true,
    }
}

async fn all_made(mqtt: &StoreMqtt, changes: Vec<Change>) {
    let refused = mqtt.commit(changes).await.unwrap();
    assert!(refused.is_empty(), "{refused:?}");
}

fn count(store: &Store, table: &str) -> i64 {
    store.readers.read(|db| Ok(db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?)).unwrap()
}

#[tokio::test]
async fn everything_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mqtt) = open(dir.path());
    let kept = message("t", b"x");
    let with_everything = Publish {
        retain: Retain::Set,
        received: Some(("a".into(), 65_535)),
        ..publish(&kept, &[("a", 4), ("b", 1), ("a", 5)])
    };
    all_made(
        &mqtt,
        vec![
            session(record("a"), true),
            session(SessionRecord { user: None, will: None, ended_unix_ns: Some(8), ..record("b") }, true),
            Change::Subscribe("a".into(), subscription("t/#")),
            Change::Subscribe("a".into(), Subscription { replay: false, ..subscription("t/#") }),
            Change::Subscribe("b".into(), subscription("$share/g/t")),
            Change::Publish(Box::new(with_everything)),
            Change::Release("a".into(), 5),
        ],
    )
    .await;
    drop((mqtt, store));
    let (store, mqtt) = open(dir.path());
    let loaded = mqtt.load().await.unwrap();
    assert_eq!(loaded.retained, std::slice::from_ref(&kept));
    assert_eq!(loaded.sessions.len(), 2);
    let a = &loaded.sessions[0];
    assert_eq!(a.record, record("a"));
    assert_eq!(a.subscriptions, [Subscription { replay: false, ..subscription("t/#") }]);
    assert_eq!((a.queued, a.queued_bytes, a.first_seq, a.last_seq), (2, 2 * kept.size() as u64, 4, 5));
    assert_eq!(a.received, [65_535]);
    let b = &loaded.sessions[1];
    assert_eq!((b.record.user.as_ref(), b.record.ended_unix_ns, &b.record.will), (None, Some(8), &None));
    assert_eq!((b.queued, b.first_seq, b.last_seq, b.received.len()), (1, 1, 1, 0));
    assert_eq!((a.shared, b.shared), (false, true));
    let queued = mqtt.read(&"a".into(), 0, 10).await.unwrap();
    assert_eq!(queued.iter().map(|q| (q.seq, q.released)).collect::<Vec<_>>(), [(4, false), (5, true)]);
    assert_eq!((&queued[0].message, queued[0].qos), (&kept, Qos::AtLeastOnce));
    assert_eq!((&queued[0].subscriptions[..], &queued[0].shared), (&[7, 268_435_455][..], &None));
    let queued = mqtt.read(&"b".into(), 0, 10).await.unwrap();
    assert_eq!(queued[0].shared.as_deref(), Some("$share/g/t"));
    assert_eq!(mqtt.read(&"a".into(), 4, 10).await.unwrap().len(), 1);
    assert_eq!(mqtt.read(&"a".into(), 0, 1).await.unwrap().len(), 1);
    // One body in three places; it goes with the last.
    assert_eq!(count(&store, "mqtt_message"), 1);
    all_made(&mqtt, vec![Change::Settle("b".into(), vec![1, 2])]).await;
    assert_eq!((count(&store, "mqtt_message"), count(&store, "mqtt_queue")), (1, 2));
    all_made(&mqtt, vec![Change::Forget("a".into(), 65_535), Change::End("a".into()), Change::Expire("t".into())])
        .await;
    for table in ["mqtt_message", "mqtt_queue", "mqtt_received", "mqtt_retained"] {
        assert_eq!(count(&store, table), 0, "{table}");
    }
    assert_eq!((count(&store, "mqtt_session"), count(&store, "mqtt_subscription")), (1, 1));
    // A fresh session has nothing of the one before.
    all_made(&mqtt, vec![Change::Publish(Box::new(publish(&kept, &[("b", 9)]))), session(record("b"), true)]).await;
    let loaded = mqtt.load().await.unwrap();
    assert_eq!((loaded.sessions[0].queued, loaded.sessions[0].subscriptions.len()), (0, 0));
    let will_sent = Publish { will_of: Some("b".into()), ..publish(&message("will", b"gone"), &[]) };
    all_made(&mqtt, vec![Change::Publish(Box::new(will_sent))]).await;
    assert_eq!(mqtt.load().await.unwrap().sessions[0].record.will, None);
}

/// The broker has one of its own, which no client can have.
#[tokio::test]
async fn a_queue_whose_name_has_a_nul_is_told_from_others() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mqtt) = open(dir.path());
    let kept = message("t", b"x");
    let names = ["\0spares-1", "\0spares-2", "\0"];
    let mut changes: Vec<_> = names.iter().map(|name| session(record(name), false)).collect();
    changes.extend(names.iter().zip(1..).map(|(name, seq)| Change::Publish(Box::new(publish(&kept, &[(name, seq)])))));
    all_made(&mqtt, changes).await;
    all_made(&mqtt, vec![Change::Settle(names[0].into(), vec![1, 2]), Change::End(names[2].into())]).await;
    drop((mqtt, store));
    let (_store, mqtt) = open(dir.path());
    let loaded = mqtt.load().await.unwrap();
    let queued: Vec<_> = loaded.sessions.iter().map(|stored| (&*stored.record.client, stored.queued)).collect();
    assert_eq!(queued, [(names[0], 0), (names[1], 1)]);
    assert_eq!(mqtt.read(&names[1].into(), 0, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_message_and_its_events_are_one_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mqtt) = open(dir.path());
    let streams = store.streams(Arc::new(Now), Arc::new(Now));
    let name = |text| StreamName::new(text).unwrap();
    let tiny = StreamPolicy { bytes_max: 100, overflow: Overflow::Reject, ..StreamPolicy::default() };
    streams.declare(&name("tiny"), tiny).await.unwrap();
    let capture = |filter: &str, stream| Capture {
        source: Source::Mqtt,
        filter: SubjectFilter::topic(filter).unwrap(),
        stream: name(stream),
    };
    store.set_captures(vec![capture("#", "mqtt"), capture("tiny/#", "tiny"), capture("only/#", "mqtt")]);
    assert!(mqtt.captured("tiny/1") && mqtt.captured("else"));
    all_made(&mqtt, vec![session(record("a"), true)]).await;
    let change = |topic: &str, seq: u64| {
        let message = message(topic, b"x");
        let event = event(topic, &seq.to_string());
        Change::Publish(Box::new(Publish {
            event,
            received: Some(("a".into(), seq as u16)),
            ..publish(&message, &[("a", seq)])
        }))
    };
    let refused =
        mqtt.commit((1..=6).map(|seq| change(if seq % 2 == 0 { "tiny/1" } else { "t" }, seq)).collect()).await.unwrap();
    let refused: BTreeSet<_> = refused
        .into_iter()
        .map(|refused| {
            assert_eq!(refused.failure.kind(), Kind::StreamFull);
            refused.index as u64 + 1
        })
        .collect();
    assert!(!refused.is_empty() && refused.iter().all(|seq| seq % 2 == 0), "{refused:?}");
    // What was refused is nowhere: not in the queue, not among the identifiers, and not in the stream that had room.
    let taken: Vec<_> = (1..=6).filter(|seq| !refused.contains(seq)).collect();
    let queued = mqtt.read(&"a".into(), 0, 10).await.unwrap();
    assert_eq!(queued.iter().map(|queued| queued.seq).collect::<Vec<_>>(), taken);
    let loaded = mqtt.load().await.unwrap();
    assert_eq!(loaded.sessions[0].received.iter().map(|packet| u64::from(*packet)).collect::<Vec<_>>(), taken);
    let events = streams.read(&name("mqtt"), Start::First, 10).unwrap();
    assert_eq!(events.iter().map(|stored| stored.event.id.parse::<u64>().unwrap()).collect::<Vec<_>>(), taken);
    assert_eq!(count(&store, "mqtt_message"), taken.len() as i64);
}

#[tokio::test]
async fn an_event_that_cannot_be_is_refused_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mqtt) = open(dir.path());
    store.set_captures(vec![Capture {
        source: Source::Mqtt,
        filter: SubjectFilter::All,
        stream: StreamName::new("mqtt").unwrap(),
    }]);
    let good = Publish { event: event("t", "1"), ..publish(&message("t", b"x"), &[]) };
    let mut bad = good.clone();
    bad.event.as_mut().unwrap().source = String::new();
    let refused = mqtt.commit(vec![Change::Publish(Box::new(bad)), Change::Publish(Box::new(good))]).await.unwrap();
    assert_eq!(refused.iter().map(|refused| refused.index).collect::<Vec<_>>(), [0]);
}

#[tokio::test]
async fn parts_of_a_queue_are_limited_in_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, mqtt) = open(dir.path());
    let large = Arc::new(Message { payload: Bytes::from(vec![0; 600 << 10]), ..Message::clone(&message("t", b"")) });
    all_made(&mqtt, (1..=4).map(|seq| Change::Publish(Box::new(publish(&large, &[("a", seq)])))).collect()).await;
    assert_eq!(mqtt.read(&"a".into(), 0, 10).await.unwrap().len(), 2);
    assert_eq!(mqtt.read(&"a".into(), 3, 10).await.unwrap().len(), 1);
}

/// Commits that are called one after the other take effect in that order, whoever polls them first.
#[tokio::test]
async fn commits_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, mqtt) = open(dir.path());
    let commits: Vec<_> =
        (0..200).map(|n| mqtt.commit(vec![session(SessionRecord { sent_seq: n, ..record("a") }, false)])).collect();
    futures::future::join_all(commits).await.into_iter().for_each(|made| assert!(made.unwrap().is_empty()));
    assert_eq!(mqtt.load().await.unwrap().sessions[0].record.sent_seq, 199);
}
