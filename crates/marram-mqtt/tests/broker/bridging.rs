//! A bridge to a broker that the site already has: here, another of ours.

mod other;
mod refused;

use std::time::Duration;

use marram_core::Kind;
use marram_mqtt::{Bridge, BridgeConfig, Limits, Route, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{Client, DEADLINE, Hello, New, Old, fresh, kept, qos};
use crate::node::{Node, until, users};

fn config(address: std::net::SocketAddr, version: Version) -> BridgeConfig {
    let route = |filter: &str, prefix: &str| Route { filter: filter.into(), prefix: prefix.into() };
    BridgeConfig {
        name: "site".into(),
        address: address.to_string(),
        tls: None,
        version,
        user: Some(("bridge".into(), "pw".into())),
        inward: vec![route("plant/#", "site/")],
        outward: vec![route("cmd/#", "from-node/")],
        keep_alive_s: 60,
    }
}

async fn site() -> Node {
    Node::with(Limits::default(), users(&["bridge"]), Default::default(), Duration::ZERO).await
}

#[tokio::test]
async fn messages_go_over_in_both_directions() {
    for (version, spoken) in [(Version::V3_1_1, Old), (Version::V5, New)] {
        let (there, here) = (site().await, Node::new().await);
        here.journal.capture("site/#");
        let bridge = here.broker.bridge(config(there.address, version)).unwrap();
        until("the bridge", async || bridge.is_connected()).await;
        let subscribed = async |node: &Node| {
            node.broker.clients().await.unwrap().iter().any(|state| !state.subscriptions.is_empty())
        };
        until("its subscriptions", async || subscribed(&there).await && subscribed(&here).await).await;
        let (mut pump, _) = Client::connect(there.address, spoken, "pump", fresh()).await;
        let (mut panel, _) = Client::connect(here.address, spoken, "panel", fresh()).await;
        panel.subscribe("site/plant/+", 2).await;
        pump.subscribe("from-node/#", 2).await;
        for level in [0, 1, 2] {
            pump.publish("plant/7", b"reading", level, u16::from(level)).await;
            pump.publish("other", b"no", 0, 0).await;
            let got = panel.message().await;
            assert_eq!((&*got.topic, &got.payload[..], got.qos), ("site/plant/7", &b"reading"[..], qos(level.min(1))));
            if level > 0 {
                pump.get().await;
                panel.ack(0x40, got.packet_id.unwrap().get()).await;
            }
            panel.publish("cmd/stop", b"now", level, u16::from(level)).await;
            if level > 0 {
                panel.get().await;
            }
            let got = pump.message().await;
            assert_eq!(
                (&*got.topic, &got.payload[..], got.qos),
                ("from-node/cmd/stop", &b"now"[..], qos(level.min(1)))
            );
        }
        until("everything to be acknowledged", async || bridge.counts() == (2, 2)).await;
        let events = here.journal.state().events;
        assert_eq!(events.len(), 3);
        assert!(events.iter().all(|event| event.source == "/mqtt/bridge-site"));
        assert_eq!(here.broker.stop().await, 0);
    }
}

#[tokio::test]
async fn nothing_is_acknowledged_to_the_other_broker_before_it_is_kept_here() {
    let (there, here) = (site().await, Node::new().await);
    here.journal.capture("site/#");
    let bridge = here.broker.bridge(config(there.address, Version::V5)).unwrap();
    until("the bridge", async || bridge.is_connected()).await;
    until("its subscription", async || {
        there.broker.clients().await.unwrap().iter().any(|state| !state.subscriptions.is_empty())
    })
    .await;
    here.journal.hold();
    let (mut pump, _) = Client::connect(there.address, New, "pump", fresh()).await;
    pump.put("plant/7", b"reading").await;
    until("the commit to begin", async || here.journal.held() > 0).await;
    assert_eq!(there.journal.queued("bridge-site"), 1);
    here.journal.release();
    until("the acknowledgement", async || there.journal.queued("bridge-site") == 0).await;
    assert_eq!(here.journal.state().events.len(), 1);
    // What this node cannot keep stays where it is, and is tried again.
    here.journal.fail(Some(Kind::StorageFull));
    pump.put("plant/7", b"later").await;
    until("it to be refused again", async || here.broker.counts().rejected == 2).await;
    assert_eq!(there.journal.queued("bridge-site"), 1);
    here.journal.fail(None);
    until("it to be kept", async || here.journal.state().events.len() == 2).await;
    until("its acknowledgement", async || there.journal.queued("bridge-site") == 0).await;
    assert!(bridge.is_connected());
}

#[tokio::test]
async fn what_goes_out_waits_while_the_other_broker_is_away() {
    let access = users(&["bridge-site"]);
    let here = Node::with(Limits::default(), access, Default::default(), Duration::ZERO).await;
    let there = site().await;
    let address = there.address;
    there.broker.stop().await;
    let bridge = here.broker.bridge(config(address, Version::V5)).unwrap();
    until("its session", async || {
        here.journal.state().sessions.get("bridge-site").is_some_and(|session| !session.subscriptions.is_empty())
    })
    .await;
    let (mut panel, _) = Client::connect(here.address, New, "panel", fresh()).await;
    panel.put("cmd/stop", b"now").await;
    assert!(!bridge.is_connected());
    assert_eq!(here.journal.queued("bridge-site"), 1);
    // Nobody else can take its session, not even a user who is called like it.
    for user in [None, Some(("bridge-site", "pw"))] {
        let mut thief = Client::open(here.address, New).await;
        let refused = thief.hello("bridge-site", Hello { user, ..kept() }).await;
        assert!(matches!(refused, crate::client::Got::ConnAck(false, 0x87, _)), "{refused:?}");
    }
    // The other broker comes back, at the same address.
    let again = there.journal.crash();
    let broker = marram_mqtt::Broker::start(
        Limits::default(),
        users(&["bridge"]),
        std::sync::Arc::new(again.clone()),
        std::sync::Arc::new(crate::fixture::Time::default()),
        std::sync::Arc::new(crate::fixture::Dice::default()),
    );
    let broker = broker.await.unwrap();
    broker.listen(tokio::net::TcpListener::bind(address).await.unwrap(), marram_mqtt::Transport::default());
    let (mut pump, _) = Client::connect(address, New, "pump", kept()).await;
    pump.subscribe("from-node/#", 1).await;
    assert_eq!(&*pump.message().await.topic, "from-node/cmd/stop");
    until("the queue to be empty", async || here.journal.queued("bridge-site") == 0).await;
}

/// A bridge between two brokers that take packets of so many bytes, connected and subscribed.
async fn bridged(version: Version, there: Limits, here: Limits) -> (Node, Node, Bridge) {
    let there = Node::with(there, users(&["bridge"]), Default::default(), Duration::ZERO).await;
    let here = Node::limited(here).await;
    here.journal.capture("site/#");
    there.journal.capture("from-node/#");
    let bridge = here.broker.bridge(config(there.address, version)).unwrap();
    until("the bridge", async || bridge.is_connected()).await;
    for node in [&there, &here] {
        until("its subscription", async || {
            node.broker.clients().await.unwrap().iter().any(|state| !state.subscriptions.is_empty())
        })
        .await;
    }
    (there, here, bridge)
}

fn packets(bytes: u32) -> Limits {
    Limits { packet_bytes: bytes, ..Limits::default() }
}

/// A message that would end the connection would come again and end the next, for ever.
#[tokio::test]
async fn what_is_too_large_to_go_over_is_dropped_and_holds_up_nothing() {
    for version in [Version::V3_1_1, Version::V5] {
        let (there, here, _) = bridged(version, packets(4_096), packets(2_048)).await;
        let (mut pump, _) = Client::connect(there.address, New, "pump", fresh()).await;
        // The second is so with the prefix alone: a topic of 7 bytes, and 8 around it and the payload.
        for payload in [vec![0; 3_000], vec![0; 2_048 - 15], b"reading".to_vec()] {
            pump.put("plant/7", &payload).await;
        }
        until("what fits", async || !here.journal.state().events.is_empty()).await;
        until("the queue to be empty", async || there.journal.queued("bridge-site") == 0).await;
        let events = here.journal.state().events;
        assert_eq!(events.iter().map(|event| event.data.clone().unwrap()).collect::<Vec<_>>(), [&b"reading"[..]]);
    }
    // What the other broker takes is known with 5.0.
    let (there, here, bridge) = bridged(Version::V5, packets(1_024), packets(2_048)).await;
    let (mut panel, _) = Client::connect(here.address, New, "panel", fresh()).await;
    for payload in [vec![0; 1_500], vec![0; 1_024 - 15], b"now".to_vec()] {
        panel.put("cmd/now", &payload).await;
    }
    until("what fits", async || !there.journal.state().events.is_empty()).await;
    until("the queue to be empty", async || here.journal.queued("bridge-site") == 0).await;
    assert_eq!(there.journal.state().events.len(), 1);
    assert_eq!((there.broker.counts().faults, bridge.counts()), (0, (0, 1)));
}

#[tokio::test]
async fn no_more_is_on_its_way_than_the_other_broker_takes() {
    let (there, here, bridge) =
        bridged(Version::V5, Limits { receive_max: 2, ..Limits::default() }, Limits::default()).await;
    let (mut panel, _) = Client::connect(here.address, New, "panel", fresh()).await;
    there.journal.hold();
    for n in 0..10 {
        panel.put("cmd/stop", &[n]).await;
    }
    until("the first to arrive", async || there.broker.counts().received == 2).await;
    there.journal.release();
    until("all to arrive", async || there.journal.state().events.len() == 10).await;
    until("all to be acknowledged", async || bridge.counts() == (0, 10)).await;
    assert_eq!(there.broker.counts().faults, 0);
}

/// The next packet: its first byte, and what follows its length.
async fn packet(io: &mut TcpStream) -> (u8, Vec<u8>) {
    let read = async {
        let (first, mut length, mut shift) = (io.read_u8().await.unwrap(), 0, 0);
        loop {
            let byte = io.read_u8().await.unwrap();
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        io.read_exact(&mut body).await.unwrap();
        (first, body)
    };
    tokio::time::timeout(DEADLINE, read).await.expect("a packet comes")
}

/// Other brokers take more than this one does, and less.
#[tokio::test]
async fn a_broker_that_is_not_like_this_one_is_no_end_of_the_bridge() {
    let here = Node::new().await;
    here.journal.capture("site/#");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _bridge = here.broker.bridge(config(listener.local_addr().unwrap(), Version::V5)).unwrap();
    let (mut there, _) = listener.accept().await.unwrap();
    assert_eq!(packet(&mut there).await.0, 0x10);
    // It retains nothing.
    there.write_all(&[0x20, 5, 0, 0, 2, 0x25, 0]).await.unwrap();
    assert_eq!(packet(&mut there).await.0, 0x82);
    there.write_all(&[0x90, 4, 0xff, 0xff, 0, 1]).await.unwrap();
    // A message with 65 user properties, of 7 bytes each, and one without.
    let user = [0x26, 0, 1, b'a', 0, 1, b'b'].repeat(65);
    let many = [&[0x32, 0xd4, 3, 0, 7][..], b"plant/7", &[0, 1, 0xc7, 3], &user].concat();
    there.write_all(&many).await.unwrap();
    there.write_all(&[&[0x32, 13, 0, 7][..], b"plant/7", &[0, 2, 0, b'x']].concat()).await.unwrap();
    for acknowledged in [1, 2] {
        assert_eq!(packet(&mut there).await, (0x40, vec![0, acknowledged]));
    }
    assert_eq!(here.journal.state().events.len(), 1);
    let (mut panel, _) = Client::connect(here.address, New, "panel", fresh()).await;
    panel.retain("cmd/stop", b"now", 1).await;
    let (first, body) = packet(&mut there).await;
    assert_eq!(first, 0x32, "it is not to be retained");
    assert!(body.ends_with(b"now"));
}
