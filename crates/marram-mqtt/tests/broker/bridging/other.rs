//! A bridge to a broker that is none of ours: one that a test plays.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use marram_mqtt::{Bridge, Limits, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{config, packet};
use crate::client::{Client, DEADLINE, New, fresh};
use crate::fixture::Log;
use crate::node::{Node, until};

const VERSIONS: [Version; 2] = [Version::V3_1_1, Version::V5];

/// What a test plays.
pub(super) struct Other {
    listener: TcpListener,
    version: Version,
}

impl Other {
    /// It, and a bridge of the node to it.
    pub(super) async fn bridged(here: &Node, version: Version, keep_alive_s: u16) -> (Self, Bridge) {
        here.journal.capture("site/#");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = config(listener.local_addr().unwrap(), version);
        config.keep_alive_s = keep_alive_s;
        let bridge = here.broker.bridge(config).unwrap();
        (Self { listener, version }, bridge)
    }

    /// The next connection, accepted and subscribed.
    pub(super) async fn accept(&self) -> TcpStream {
        self.accept_with(&[]).await
    }

    /// The same, with properties of its CONNACK if the version has them.
    pub(super) async fn accept_with(&self, properties: &[u8]) -> TcpStream {
        let accepted = tokio::time::timeout(DEADLINE, self.listener.accept()).await;
        let (mut io, _) = accepted.expect("the bridge connects").unwrap();
        assert_eq!(packet(&mut io).await.0, 0x10);
        let length = u8::try_from(properties.len()).unwrap();
        let (connack, suback) = match self.version {
            Version::V5 => ([&[0x20, 3 + length, 0, 0, length], properties].concat(), &[0x90, 4, 0xff, 0xff, 0, 1][..]),
            _ => (vec![0x20, 2, 0, 0], &[0x90, 3, 0xff, 0xff, 1][..]),
        };
        io.write_all(&connack).await.unwrap();
        assert_eq!(packet(&mut io).await.0, 0x82);
        io.write_all(suback).await.unwrap();
        io
    }

    /// Whether the bridge has not connected again.
    pub(super) async fn is_alone(&self) -> bool {
        tokio::time::timeout(Duration::ZERO, self.listener.accept()).await.is_err()
    }

    /// A message of QoS 1, with properties if the version has them.
    fn publish(&self, topic: &[u8], packet: u16, properties: &[u8], payload: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(topic.len()).unwrap().to_be_bytes();
        let mut body = [&[high, low][..], topic, &packet.to_be_bytes()].concat();
        if self.version == Version::V5 {
            body.push(u8::try_from(properties.len()).unwrap());
            body.extend_from_slice(properties);
        }
        body.extend_from_slice(payload);
        let mut bytes = vec![0x32];
        match u8::try_from(body.len()) {
            Ok(length @ ..0x80) => bytes.push(length),
            _ => bytes.extend([(body.len() & 0x7f) as u8 | 0x80, u8::try_from(body.len() >> 7).unwrap()]),
        }
        [bytes, body].concat()
    }

    /// Messages with their identifiers in them.
    pub(super) fn numbered(&self, packets: impl Iterator<Item = u16>) -> Vec<u8> {
        packets.flat_map(|number| self.publish(b"plant/7", number, &[], &number.to_be_bytes())).collect()
    }
}

/// Waits until the bridge has subscribed on the node.
pub(super) async fn subscribed(here: &Node) {
    until("its session", async || {
        here.journal.state().sessions.get("bridge-site").is_some_and(|session| !session.subscriptions.is_empty())
    })
    .await;
}

/// A node with a client, and the other broker with the bridge's connection, which is up.
pub(super) async fn with_panel(version: Version) -> (Node, Client, Other, Bridge, TcpStream) {
    let here = Node::new().await;
    let (other, bridge) = Other::bridged(&here, version, 60).await;
    let io = other.accept().await;
    subscribed(&here).await;
    let (panel, _) = Client::connect(here.address, New, "panel", fresh()).await;
    (here, panel, other, bridge, io)
}

/// The numbers that have come, in their order.
fn numbers(here: &Node) -> Vec<u16> {
    let number = |data: Option<bytes::Bytes>| u16::from_be_bytes((&data.unwrap()[..]).try_into().unwrap());
    here.journal.state().events.into_iter().map(|event| number(event.data)).collect()
}

/// That broker may send as many as it likes at once; this one says how many it takes.
#[tokio::test]
async fn thousands_of_messages_come_once_and_in_order() {
    const COUNT: u16 = 4_000;
    for (version, receive_max) in VERSIONS.into_iter().flat_map(|version| [(version, 256), (version, 2)]) {
        let here = Node::limited(Limits { receive_max, ..Limits::default() }).await;
        let (other, bridge) = Other::bridged(&here, version, 60).await;
        let (mut reading, mut writing) = other.accept().await.into_split();
        subscribed(&here).await;
        here.journal.hold();
        let all = other.numbered(1..=COUNT);
        let sent = tokio::spawn(async move { writing.write_all(&all).await.map(|()| writing) });
        let open = u64::from(receive_max.min(64));
        until("as many as may be open", async || here.broker.counts().received == open).await;
        here.journal.release();
        for number in 1..=COUNT {
            let mut acknowledgement = [0; 4];
            let read = reading.read_exact(&mut acknowledgement);
            tokio::time::timeout(DEADLINE, read).await.expect("an acknowledgement comes").unwrap();
            assert_eq!((&acknowledgement[..2], &acknowledgement[2..]), (&[0x40, 2][..], &number.to_be_bytes()[..]));
        }
        assert!(numbers(&here).into_iter().eq(1..=COUNT));
        assert_eq!((here.broker.counts().faults, bridge.counts()), (0, (COUNT.into(), 0)));
        assert!(bridge.is_connected() && other.is_alone().await);
        drop(sent.await.unwrap().unwrap());
    }
}

#[tokio::test]
async fn nothing_is_lost_when_the_other_broker_starts_again_in_the_middle() {
    const COUNT: u16 = 3_000;
    for version in VERSIONS {
        let here = Node::new().await;
        let (other, _bridge) = Other::bridged(&here, version, 60).await;
        let mut open: BTreeSet<u16> = (1..=COUNT).collect();
        for acknowledged in [500, 1_500, COUNT] {
            let mut io = other.accept().await;
            io.write_all(&other.numbered(open.iter().copied())).await.unwrap();
            while open.len() > usize::from(COUNT - acknowledged) {
                let (first, body) = packet(&mut io).await;
                assert_eq!(first, 0x40);
                assert!(open.remove(&u16::from_be_bytes(body.try_into().unwrap())), "it is acknowledged once");
            }
        }
        // What came again came later.
        let mut seen = BTreeSet::new();
        let first = numbers(&here).into_iter().filter(|number| seen.insert(*number));
        assert!(first.eq(1..=COUNT));
    }
}

#[tokio::test]
async fn what_goes_to_any_broker_is_acknowledged_by_it_first() {
    for version in VERSIONS {
        let (here, mut panel, other, bridge, mut io) = with_panel(version).await;
        for n in 0..200 {
            panel.put("cmd/stop", &[n]).await;
        }
        let mut open = Vec::new();
        for n in 0..200 {
            let (first, body) = packet(&mut io).await;
            assert_eq!((first, body.last()), (0x32, Some(&n)));
            let at = 2 + "from-node/cmd/stop".len();
            open.push(u16::from_be_bytes([body[at], body[at + 1]]));
            // It takes as many as go over at once before it says a word.
            if open.len() == 64 {
                assert_eq!(bridge.counts().1, u64::from(n / 64) * 64);
                for packet in open.drain(..) {
                    let [high, low] = packet.to_be_bytes();
                    io.write_all(&[0x40, 2, high, low]).await.unwrap();
                }
            }
        }
        until("what is acknowledged to be gone", async || here.journal.queued("bridge-site") == open.len()).await;
        assert_eq!((bridge.counts(), open.len()), ((0, 192), 8));
        assert!(other.is_alone().await);
    }
}

/// Otherwise what comes in would wait for it too: the node says on the same way what it has kept.
#[tokio::test]
async fn what_nobody_acknowledges_waits_for_no_acknowledgement() {
    for version in VERSIONS {
        let (_here, mut panel, other, bridge, mut io) = with_panel(version).await;
        for n in 0..64 {
            panel.put("cmd/stop", &[n]).await;
            assert_eq!(packet(&mut io).await.0, 0x32);
        }
        for _ in 0..500 {
            panel.publish("cmd/now", b"x", 0, 0).await;
        }
        for _ in 0..500 {
            assert_eq!(packet(&mut io).await.0, 0x30);
        }
        io.write_all(&other.numbered(1..=1)).await.unwrap();
        assert_eq!(packet(&mut io).await, (0x40, vec![0, 1]));
        assert_eq!(bridge.counts(), (1, 0));
    }
}

/// What ended the connection would come again and end the next, for ever.
#[tokio::test]
async fn what_cannot_be_carried_is_dropped_with_a_line_and_holds_up_nothing() {
    let log = Log::default();
    let _listening = log.listen();
    let deep = ["plant", &["a"; 64].join("/")].join("/");
    // With what is put before it, it is too long.
    let long = format!("plant/{}", "a".repeat(1_014));
    let topics = [deep.as_bytes(), long.as_bytes(), &b"plant/\x01"[..], b"plant/\0", b"plant/\xff"];
    let expired = [2, 0, 0, 0, 0];
    let twice = [2, 0, 0, 0, 9, 2, 0, 0, 0, 9];
    for version in VERSIONS {
        let here = Node::new().await;
        let (other, bridge) = Other::bridged(&here, version, 60).await;
        let mut io = other.accept().await;
        let mut bad: Vec<_> = topics.iter().map(|topic| (*topic, &[][..])).collect();
        if version == Version::V5 {
            bad.extend([(&b"plant/7"[..], &expired[..]), (b"plant/7", &twice[..])]);
        }
        let before = log.count("a bridge leaves messages out");
        for (number, (topic, properties)) in (1..).zip(&bad) {
            io.write_all(&other.publish(topic, number, properties, b"x")).await.unwrap();
            assert_eq!(packet(&mut io).await, (0x40, number.to_be_bytes().to_vec()));
        }
        io.write_all(&other.numbered(99..=99)).await.unwrap();
        assert_eq!(packet(&mut io).await, (0x40, vec![0, 99]));
        assert_eq!(numbers(&here), [99]);
        assert_eq!(here.broker.counts().bridge_left_out, bad.len() as u64);
        assert_eq!(log.count("a bridge leaves messages out") - before, 1, "it is said once a minute");
        assert_eq!(bridge.counts(), (1, 0));
        assert!(other.is_alone().await);
    }
}

#[tokio::test]
async fn a_broker_that_does_not_answer_a_ping_is_given_up() {
    let silent = async |version| {
        let here = Node::new().await;
        let (other, bridge) = Other::bridged(&here, version, 1).await;
        let mut io = other.accept().await;
        for _ in 0..2 {
            assert_eq!(packet(&mut io).await, (0xc0, vec![]));
            assert!(bridge.is_connected());
            io.write_all(&[0xd0, 0]).await.unwrap();
        }
        assert_eq!(packet(&mut io).await, (0xc0, vec![]));
        let end = tokio::time::timeout(DEADLINE, io.read(&mut [0])).await.expect("the connection ends");
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        other.accept().await;
    };
    tokio::join!(silent(Version::V3_1_1), silent(Version::V5));
}

/// Every time it would bring all that is open again.
#[tokio::test]
async fn a_bridge_that_fails_as_soon_as_it_is_connected_waits_longer_each_time() {
    let here = Node::new().await;
    let (other, _bridge) = Other::bridged(&here, Version::V5, 60).await;
    drop(other.accept().await);
    let began = Instant::now();
    for _ in 0..3 {
        drop(other.accept().await);
    }
    // Half a second, one and two; the first wait, at its longest, three times is 2.25 s.
    assert!(began.elapsed() >= Duration::from_millis(3_400), "{:?}", began.elapsed());
}
