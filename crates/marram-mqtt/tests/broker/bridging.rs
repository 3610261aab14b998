//! A bridge to a broker that the site already has: here, another of ours.

use std::time::Duration;

use marram_core::Kind;
use marram_mqtt::{AccessConfig, BridgeConfig, Limits, Permissions, Route, User, Version, hash_password};

use crate::client::{Client, New, Old, fresh, kept, qos};
use crate::node::{Node, open, until};

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

fn with_user() -> AccessConfig {
    let password_hash = hash_password(b"pw", &crate::fixture::Dice::default()).unwrap();
    let user = User { name: "bridge".into(), password_hash, client_ids: vec![], permissions: Permissions::all() };
    AccessConfig { users: vec![user], ..open() }
}

async fn site() -> Node {
    Node::with(Limits::default(), with_user(), Default::default(), Duration::ZERO).await
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
    // What this node cannot keep stays where it is, and comes again.
    here.journal.fail(Some(Kind::StorageFull));
    pump.put("plant/7", b"later").await;
    until("the bridge to be down", async || !bridge.is_connected()).await;
    assert_eq!(there.journal.queued("bridge-site"), 1);
    here.journal.fail(None);
    until("it to come again", async || here.journal.state().events.len() == 2).await;
    until("its acknowledgement", async || there.journal.queued("bridge-site") == 0).await;
}

#[tokio::test]
async fn what_goes_out_waits_while_the_other_broker_is_away() {
    let here = Node::new().await;
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
    // Nobody else can take its session.
    let mut thief = Client::open(here.address, New).await;
    let refused = thief.hello("bridge-site", kept()).await;
    assert!(matches!(refused, crate::client::Got::ConnAck(false, 0x87, _)), "{refused:?}");
    // The other broker comes back, at the same address.
    let again = there.journal.crash();
    let broker = marram_mqtt::Broker::start(
        Limits::default(),
        with_user(),
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
