//! Wall clocks that jump: connections and sessions go by the time that passes, and nothing lives longer than it was given.

use std::num::NonZeroU32;

use rmqtt_codec::v5::PublishProperties;

use crate::client::{BOTH, Client, Got, Hello, New, fresh, kept, message, with};
use crate::node::Node;

const YEARS: i64 = 10 * 365 * 86_400;

#[tokio::test]
async fn a_jump_cuts_no_connection_and_ends_no_session() {
    let node = Node::new().await;
    for version in BOTH {
        let (mut from, _) = Client::connect(node.address, version, "from", fresh()).await;
        let (mut here, _) = Client::connect(node.address, version, "here", Hello { keep_alive: 5, ..kept() }).await;
        here.subscribe("t", 1).await;
        let (mut away, _) = Client::connect(node.address, version, "away", kept()).await;
        away.subscribe("t", 1).await;
        away.bye().await;
        node.gone("away").await;
        for jump in [YEARS, -2 * YEARS, YEARS] {
            node.time.jump(jump);
            from.put("t", b"x").await;
            let got = here.message().await;
            here.ack(0x40, got.packet_id.unwrap().get()).await;
        }
        let (mut away, present) = Client::connect(node.address, version, "away", kept()).await;
        assert!(present, "its session has an hour, and no time has passed");
        for _ in 0..3 {
            let got = away.message().await;
            away.ack(0x40, got.packet_id.unwrap().get()).await;
        }
        away.bye().await;
        here.bye().await;
    }
}

#[tokio::test]
async fn a_message_is_told_no_more_time_than_it_was_given() {
    let node = Node::new().await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    let (mut to, _) = Client::connect(node.address, New, "to", kept()).await;
    to.subscribe("t", 1).await;
    to.bye().await;
    let expires = PublishProperties { message_expiry_interval: NonZeroU32::new(100), ..PublishProperties::default() };
    from.publish_with(with(message("t", b"x", 1, 1), expires.clone())).await;
    assert_eq!(from.get().await, Got::PubAck(1, 0));
    node.time.jump(-86_400);
    let (mut to, _) = Client::connect(node.address, New, "to", kept()).await;
    let got = to.message().await;
    assert_eq!(got.properties.unwrap().message_expiry_interval.unwrap().get(), 100);
    to.ack(0x40, got.packet_id.unwrap().get()).await;
    to.bye().await;
    // One that goes forward ends it, as its time does.
    from.publish_with(with(message("t", b"x", 1, 2), expires)).await;
    assert_eq!(from.get().await, Got::PubAck(2, 0));
    node.time.jump(86_400);
    let (mut to, _) = Client::connect(node.address, New, "to", kept()).await;
    assert_eq!(to.quiet().await, []);
    assert_eq!(node.broker.counts().dropped_expired, 1);
}
