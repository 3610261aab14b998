//! What a broker of a bridge does not take: for the moment, or ever.

use marram_core::Kind;
use marram_mqtt::{Limits, Version};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::other::{Other, subscribed, with_panel};
use super::{bridged, packet};
use crate::client::{Client, New, fresh};
use crate::fixture::Log;
use crate::node::{Node, until};

/// What has come in, in its order.
fn came(here: &Node) -> Vec<Vec<u8>> {
    here.journal.state().events.into_iter().map(|event| event.data.unwrap().to_vec()).collect()
}

/// A broker with more retained topics than a user may have here would hold up all that it has besides, for ever.
#[tokio::test]
async fn what_there_is_no_room_to_retain_for_arrives_and_holds_up_nothing() {
    for version in [Version::V3_1_1, Version::V5] {
        let log = Log::default();
        let _listening = log.listen();
        let few = Limits { retained: 4, retained_bytes: 1_000, ..Limits::default() };
        let (there, here, bridge) = bridged(version, Limits::default(), few).await;
        let (mut pump, _) = Client::connect(there.address, New, "pump", fresh()).await;
        for n in 1..=5 {
            pump.retain(&format!("plant/{n}"), &[n], 1).await;
        }
        pump.retain("plant/6", b"not kept", 0).await;
        pump.put("plant/7", b"live").await;
        until("all of them", async || came(&here).len() == 7).await;
        until("the queue to be empty", async || there.journal.queued("bridge-site") == 0).await;
        assert_eq!(came(&here), [&[1][..], &[2], &[3], &[4], &[5], b"not kept", b"live"]);
        let retained = || here.journal.state().retained.into_keys().map(|topic| topic.to_string()).collect::<Vec<_>>();
        // 3.1.1 says of a message that it is retained only to who subscribes.
        let kept: &[_] = if version == Version::V5 { &["site/plant/1", "site/plant/2"] } else { &[] };
        assert_eq!(retained(), kept);
        assert_eq!(here.broker.counts().bridge_unretained, if version == Version::V5 { 4 } else { 0 });
        assert_eq!(log.count("there is no room to retain"), usize::from(version == Version::V5));
        if version == Version::V5 {
            // What it comes in place of is out of date.
            pump.retain("plant/1", &[0; 1_000], 1).await;
            until("the larger one", async || came(&here).len() == 8).await;
            assert_eq!(retained(), ["site/plant/2"]);
            assert_eq!(bridge.counts(), (7, 0));
        }
        assert!(bridge.is_connected());
    }
}

/// Each time that the bridge connected again, it would bring all that is open again, in both directions.
#[tokio::test]
async fn what_the_node_does_not_take_now_waits_and_comes_alone() {
    let (there, here, bridge) = bridged(Version::V5, Limits::default(), Limits::default()).await;
    let (mut pump, _) = Client::connect(there.address, New, "pump", fresh()).await;
    let (mut panel, _) = Client::connect(here.address, New, "panel", fresh()).await;
    here.journal.full(Some("site/plant/full"));
    pump.put("plant/full", b"first").await;
    until("it to be refused again", async || here.broker.counts().rejected == 2).await;
    pump.put("plant/full", b"second").await;
    pump.put("plant/7", b"third").await;
    pump.publish("plant/7", b"at once", 0, 0).await;
    until("what waits for nothing", async || came(&here) == [b"at once"]).await;
    for n in 0..100 {
        panel.put("cmd/stop", &[n]).await;
    }
    until("what goes out", async || bridge.counts().1 == 100).await;
    assert_eq!(there.journal.queued("bridge-site"), 3);
    here.journal.full(None);
    until("all of them", async || came(&here).len() == 4).await;
    until("the queue to be empty", async || there.journal.queued("bridge-site") == 0).await;
    assert_eq!(came(&here), [&b"at once"[..], b"first", b"second", b"third"]);
    assert_eq!(came(&there), (0..100).map(|n| vec![n]).collect::<Vec<_>>());
    // The broker there has sent each once, and the pump's acknowledgements are not among them.
    assert_eq!((there.broker.counts().sent, bridge.counts()), (4, (3, 100)));
}

#[tokio::test]
async fn what_the_node_will_never_take_is_left_out_and_counted() {
    let (there, here, bridge) = bridged(Version::V5, Limits::default(), Limits::default()).await;
    let (mut pump, _) = Client::connect(there.address, New, "pump", fresh()).await;
    here.journal.fail(Some(Kind::BodyTooLarge));
    pump.put("plant/7", b"larger than its stream").await;
    until("it to be left out", async || here.broker.counts().bridge_left_out == 1).await;
    here.journal.fail(None);
    pump.put("plant/7", b"live").await;
    until("what comes next", async || came(&here) == [b"live"]).await;
    until("the queue to be empty", async || there.journal.queued("bridge-site") == 0).await;
    assert!(bridge.is_connected());
}

/// The next message that goes out: its first byte, its identifier and its last byte.
async fn published(io: &mut TcpStream) -> (u8, [u8; 2], u8) {
    let (first, body) = packet(io).await;
    let at = 2 + "from-node/cmd/stop".len();
    (first, [body[at], body[at + 1]], *body.last().unwrap())
}

async fn answer(io: &mut TcpStream, [high, low]: [u8; 2], reason: u8) {
    io.write_all(&[0x40, 4, high, low, reason, 0]).await.unwrap();
}

/// What another Marram says of a retained message for which this user has no room, and of any while its disk is full.
#[tokio::test]
async fn what_the_other_broker_does_not_take_is_told_apart() {
    let (here, mut panel, other, bridge, mut io) = with_panel(Version::V5).await;
    panel.retain("cmd/stop", &[1], 1).await;
    panel.put("cmd/stop", &[2]).await;
    panel.put("cmd/stop", &[3]).await;
    let [one, two, three] = [published(&mut io).await, published(&mut io).await, published(&mut io).await];
    assert_eq!([one, two, three].map(|(first, _, last)| (first, last)), [(0x33, 1), (0x32, 2), (0x32, 3)]);
    answer(&mut io, two.1, 0x00).await;
    answer(&mut io, one.1, 0x97).await;
    // At once, as one that is not retained.
    assert_eq!(published(&mut io).await, (0x32, one.1, 1));
    answer(&mut io, one.1, 0x00).await;
    answer(&mut io, three.1, 0x97).await;
    assert_eq!(published(&mut io).await, three);
    panel.put("cmd/stop", &[4]).await;
    // What comes later does not overtake it.
    answer(&mut io, three.1, 0x97).await;
    assert_eq!(published(&mut io).await, three);
    answer(&mut io, three.1, 0x87).await;
    let four = published(&mut io).await;
    assert_eq!((four.0, four.2), (0x32, 4));
    answer(&mut io, four.1, 0x00).await;
    until("the queue to be empty", async || here.journal.queued("bridge-site") == 0).await;
    let counts = here.broker.counts();
    assert_eq!((counts.bridge_left_out, counts.bridge_unretained, bridge.counts()), (1, 1, (0, 3)));
    assert!(other.is_alone().await);
}

/// MQTT 5.0 §3.2.2.3.4: it would end the connection, and it would come again, for ever.
#[tokio::test]
async fn a_broker_that_takes_only_qos_0_gets_that() {
    let here = Node::new().await;
    let (other, bridge) = Other::bridged(&here, Version::V5, 60).await;
    let mut io = other.accept_with(&[0x24, 0]).await;
    subscribed(&here).await;
    let (mut panel, _) = Client::connect(here.address, New, "panel", fresh()).await;
    for n in 0..200 {
        panel.put("cmd/stop", &[n]).await;
    }
    for n in 0..200 {
        let (first, body) = packet(&mut io).await;
        assert_eq!((first, body.last()), (0x30, Some(&n)));
    }
    until("the queue to be empty", async || here.journal.queued("bridge-site") == 0).await;
    io.write_all(&other.numbered(1..=1)).await.unwrap();
    assert_eq!(packet(&mut io).await, (0x40, vec![0, 1]));
    assert_eq!(bridge.counts(), (1, 200));
    assert!(other.is_alone().await);
}
