//! Retained messages.

use std::num::NonZeroU32;
use std::time::Duration;

use rmqtt_codec::types::Publish;
use rmqtt_codec::v5::{PublishProperties, RetainHandling, SubscriptionOptions};

use crate::client::{BOTH, Client, Got, New, Old, fresh, kept, message, options, qos, with};
use crate::node::{Node, until};

#[tokio::test]
async fn the_last_retained_message_is_there_for_who_subscribes_later() {
    let node = Node::new().await;
    for version in BOTH {
        for level in 0..3 {
            let (mut from, _) = Client::connect(node.address, version, "from", fresh()).await;
            from.retain("r/a", b"old", level).await;
            from.retain("r/a", b"new", level).await;
            from.publish("r/a", b"passing", 0, 0).await;
            assert_eq!(from.quiet().await, []);
            for subscribed in 0..3 {
                let (mut to, _) = Client::connect(node.address, version, "to", fresh()).await;
                to.subscribe("r/+", subscribed).await;
                let got = to.message().await;
                assert_eq!((&*got.topic, &got.payload[..], got.retain, got.dup), ("r/a", &b"new"[..], true, false));
                assert_eq!(got.qos, qos(level.min(subscribed)));
                assert_eq!(to.quiet().await, []);
                // A message to who subscribes already is not marked.
                from.retain("r/a", b"new", level).await;
                assert!(!to.message().await.retain);
            }
            // An empty one removes it, and is delivered as a message.
            let (mut to, _) = Client::connect(node.address, version, "to", fresh()).await;
            to.subscribe("r/a", 1).await;
            to.message().await;
            from.retain("r/a", b"", level).await;
            assert_eq!(to.message().await.payload[..], b""[..]);
            to.subscribe("r/#", 1).await;
            assert_eq!(to.quiet().await, []);
            assert!(node.journal.state().retained.is_empty());
        }
    }
}

#[tokio::test]
async fn when_retained_messages_are_sent_is_the_subscribers_choice() {
    let node = Node::new().await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    from.retain("t", b"x", 1).await;
    let handled = |handling| SubscriptionOptions { retain_handling: handling, ..options(0) };
    let (mut to, _) = Client::connect(node.address, New, "to", fresh()).await;
    to.subscribe_with("t", handled(RetainHandling::NoAtSubscribe), None).await;
    assert_eq!(to.quiet().await, []);
    to.subscribe_with("t", handled(RetainHandling::AtSubscribeNew), None).await;
    assert_eq!(to.quiet().await, []);
    to.subscribe_with("t", handled(RetainHandling::AtSubscribe), None).await;
    to.message().await;
    assert_eq!(to.unsubscribe("t").await, [0]);
    to.subscribe_with("t", handled(RetainHandling::AtSubscribeNew), None).await;
    to.message().await;
    // A group gets none.
    to.subscribe("$share/g/t", 0).await;
    assert_eq!(to.quiet().await, []);
}

#[tokio::test]
async fn the_flag_stays_as_published_where_that_is_asked_for() {
    let node = Node::new().await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    let (mut to, _) = Client::connect(node.address, New, "to", fresh()).await;
    to.subscribe_with("t", SubscriptionOptions { retain_as_published: true, ..options(1) }, None).await;
    for retain in [true, false] {
        from.publish_with(Publish { retain, ..message("t", b"x", 1, 1) }).await;
        from.get().await;
        assert_eq!(to.message().await.retain, retain);
    }
}

#[tokio::test]
async fn ones_own_retained_messages_are_local_too() {
    let node = Node::new().await;
    let (mut client, _) = Client::connect(node.address, New, "a", fresh()).await;
    client.retain("t", b"x", 1).await;
    client.subscribe_with("t", SubscriptionOptions { no_local: true, ..options(1) }, None).await;
    assert_eq!(client.quiet().await, []);
}

#[tokio::test]
async fn many_retained_messages_come_in_full_to_a_slow_client() {
    let node = Node::new().await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    let count = 700;
    for n in 0..count {
        from.retain(&format!("r/{n:04}"), &[1], 1).await;
    }
    for hello in [fresh(), kept()] {
        let (mut to, _) = Client::connect(node.address, New, "to", hello).await;
        to.subscribe("r/#", 1).await;
        for n in 0..count {
            let got = to.message().await;
            assert_eq!((&*got.topic, got.retain), (&*format!("r/{n:04}"), true));
            to.ack(0x40, got.packet_id.unwrap().get()).await;
        }
        assert_eq!(to.quiet().await, []);
        let (to, _) = Client::connect(node.address, New, "to", fresh()).await;
        to.bye().await;
    }
}

/// More than may be on its way to a client, at every QoS: it gets them as it takes them, and what is new between them.
#[tokio::test]
async fn large_retained_messages_come_in_full_as_they_are_taken() {
    const COUNT: usize = 40;
    let node = Node::new().await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    for n in 0..COUNT {
        from.retain(&format!("r/{n:02}"), &[7; 300_000], 1).await;
    }
    for (version, hello, level) in [(New, fresh(), 0), (Old, fresh(), 0), (New, fresh(), 1), (New, kept(), 1)] {
        let (mut to, _) = Client::connect(node.address, version, "to", hello).await;
        assert_eq!([to.subscribe("new", level).await, to.subscribe("r/#", level).await], [level, level]);
        from.put("new", b"x").await;
        let (mut retained, mut news) = (0, 0);
        while retained < COUNT || news == 0 {
            let got = to.message().await;
            if got.retain {
                assert_eq!(&*got.topic, &format!("r/{retained:02}"));
                retained += 1;
            } else {
                news += 1;
            }
            if let Some(packet) = got.packet_id {
                to.ack(0x40, packet.get()).await;
            }
        }
        assert_eq!((to.quiet().await, retained, news), (vec![], COUNT, 1));
        to.bye().await;
    }
    let counts = node.broker.counts();
    assert_eq!((counts.dropped_slow, counts.dropped_full), (0, 0));
}

#[tokio::test]
async fn retained_messages_that_are_owed_are_owed_after_a_crash() {
    let node = Node::new().await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    for n in 0..200 {
        from.retain(&format!("r/{n:04}"), &[1], 1).await;
    }
    let (mut to, _) = Client::connect(node.address, New, "to", kept()).await;
    to.subscribe("r/#", 1).await;
    to.message().await;
    let again = node.crash(Duration::ZERO).await;
    let (mut to, _) = Client::connect(again.address, New, "to", kept()).await;
    let mut topics = std::collections::BTreeSet::new();
    while topics.len() < 200 {
        let got = to.message().await;
        topics.insert(got.topic.to_string());
        to.ack(0x40, got.packet_id.unwrap().get()).await;
    }
    until("the journal to know that they are delivered", async || {
        !again.journal.state().sessions["to"].subscriptions["r/#"].replay && again.journal.queued("to") == 0
    })
    .await;
}

#[tokio::test]
async fn a_retained_message_survives_a_crash_and_expires() {
    let node = Node::new().await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    from.retain("long", b"x", 1).await;
    let expires = PublishProperties { message_expiry_interval: NonZeroU32::new(100), ..PublishProperties::default() };
    from.publish_with(with(Publish { retain: true, ..message("short", b"x", 1, 1) }, expires)).await;
    assert_eq!(from.get().await, Got::PubAck(1, 0x10));
    let again = node.crash(Duration::from_secs(50)).await;
    let (mut to, _) = Client::connect(again.address, New, "to", fresh()).await;
    to.subscribe("#", 0).await;
    assert_eq!(&*to.message().await.topic, "long");
    let short = to.message().await;
    let left = short.properties.unwrap().message_expiry_interval.unwrap().get();
    assert!((49..=50).contains(&left), "{left} s are left of 50");
    let third = again.crash(Duration::from_secs(101)).await;
    let (mut to, _) = Client::connect(third.address, New, "to", fresh()).await;
    to.subscribe("#", 0).await;
    assert_eq!(&*to.message().await.topic, "long");
    assert_eq!(to.quiet().await, []);
    until("the journal to forget it", async || third.journal.state().retained.len() == 1).await;
}

#[tokio::test]
async fn an_empty_message_clears_one_whose_commit_is_under_way() {
    for level in [1, 2] {
        let node = Node::new().await;
        let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
        node.journal.hold();
        for (packet, payload) in [(1, &b"x"[..]), (2, b"")] {
            from.publish_with(Publish { retain: true, ..message("t", payload, level, packet) }).await;
        }
        until("both to be on their way", async || node.broker.counts().received == 2).await;
        node.journal.release();
        for _ in 0..2 {
            let got = from.get().await;
            assert!(matches!(got, Got::PubAck(_, 0 | 0x10) | Got::PubRec(_, 0 | 0x10)), "{got:?}");
        }
        assert!(node.journal.state().retained.is_empty());
        let (mut to, _) = Client::connect(node.address, New, "to", fresh()).await;
        to.subscribe("t", 0).await;
        from.publish("t", b"later", 0, 0).await;
        assert_eq!(to.message().await.payload[..], b"later"[..], "it was cleared");
    }
}

#[tokio::test]
async fn a_new_subscription_gets_a_retained_message_whose_commit_was_under_way() {
    for hello in [fresh(), kept()] {
        let node = Node::new().await;
        let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
        let (mut to, _) = Client::connect(node.address, New, "to", hello).await;
        node.journal.hold();
        from.publish_with(Publish { retain: true, ..message("t", b"x", 1, 1) }).await;
        until("the message to be on its way", async || node.journal.held() > 0).await;
        let subscribing = tokio::spawn(async move {
            assert_eq!(to.subscribe("t", 1).await, 1);
            to
        });
        until("the subscription to be on its way", async || {
            let clients = node.broker.clients().await.unwrap();
            clients.iter().any(|state| *state.client == *"to" && !state.subscriptions.is_empty())
        })
        .await;
        node.journal.release();
        let got = subscribing.await.unwrap().message().await;
        assert_eq!((&got.payload[..], got.retain), (&b"x"[..], true));
    }
}
