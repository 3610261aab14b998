//! Messages from one client to another, at every QoS.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use marram_core::port::mqtt::{Properties, Publication, Qos};
use rmqtt_codec::types::Publish;
use rmqtt_codec::v5::PublishProperties;

use crate::client::{BOTH, Client, Got, Hello, New, Old, fresh, kept, message, qos, with};
use crate::node::Node;

#[tokio::test]
async fn a_message_is_delivered_at_the_lesser_of_both_levels() {
    let node = Node::new().await;
    for version in BOTH {
        for published in 0..3 {
            for subscribed in 0..3 {
                let (mut from, _) = Client::connect(node.address, version, "from", fresh()).await;
                let (mut to, _) = Client::connect(node.address, version, "to", fresh()).await;
                assert_eq!(to.subscribe("a/+", subscribed).await, subscribed);
                from.publish("a/b", b"hello", published, if published > 0 { 9 } else { 0 }).await;
                match published {
                    0 => {}
                    1 => assert_eq!(from.get().await, Got::PubAck(9, 0)),
                    _ => {
                        assert_eq!(from.get().await, Got::PubRec(9, 0));
                        from.ack(0x62, 9).await;
                        assert_eq!(from.get().await, Got::PubComp(9, 0));
                    }
                }
                let got = to.message().await;
                assert_eq!((&*got.topic, &got.payload[..]), ("a/b", &b"hello"[..]));
                assert_eq!((got.qos, got.dup, got.retain), (qos(published.min(subscribed)), false, false));
                assert_eq!(got.packet_id.is_some(), published.min(subscribed) > 0);
            }
        }
    }
}

#[tokio::test]
async fn a_qos_2_message_goes_through_its_four_packets() {
    let node = Node::new().await;
    for version in BOTH {
        let (mut client, _) = Client::connect(node.address, version, "a", fresh()).await;
        client.subscribe("t", 2).await;
        client.publish("t", b"x", 2, 7).await;
        assert_eq!(client.get().await, Got::PubRec(7, 0));
        // Until its PUBREL it is the same message, and is not delivered again.
        let again = Publish { dup: true, ..message("t", b"x", 2, 7) };
        let got = client.message().await;
        client.publish_with(again).await;
        assert_eq!(client.get().await, Got::PubRec(7, 0));
        client.ack(0x62, 7).await;
        assert_eq!(client.get().await, Got::PubComp(7, 0));
        // The identifier is free: this is another message.
        client.publish("t", b"y", 2, 7).await;
        assert_eq!(client.get().await, Got::PubRec(7, 0));
        let other = client.message().await;
        assert_eq!((&got.payload[..], &other.payload[..]), (&b"x"[..], &b"y"[..]));
        assert_ne!(got.packet_id, other.packet_id);
        for publish in [got, other] {
            let packet = publish.packet_id.unwrap().get();
            client.ack(0x50, packet).await;
            assert_eq!(client.get().await, Got::PubRel(packet, 0));
            // Said again, it is answered again.
            client.ack(0x50, packet).await;
            assert_eq!(client.get().await, Got::PubRel(packet, 0));
            client.ack(0x70, packet).await;
        }
        assert_eq!(client.quiet().await, []);
    }
}

#[tokio::test]
async fn identifiers_that_nobody_knows_are_answered() {
    let node = Node::new().await;
    for version in BOTH {
        let (mut client, _) = Client::connect(node.address, version, "a", fresh()).await;
        let reason = if version == New { 0x92 } else { 0 };
        client.ack(0x62, 50).await;
        assert_eq!(client.get().await, Got::PubComp(50, reason));
        client.ack(0x50, 51).await;
        assert_eq!(client.get().await, Got::PubRel(51, reason));
        client.ack(0x40, 52).await;
        client.ack(0x70, 53).await;
        assert_eq!(client.quiet().await, []);
    }
}

#[tokio::test]
async fn a_qos_1_identifier_is_free_once_it_is_acknowledged() {
    let node = Node::new().await;
    node.journal.capture("#");
    let (mut client, _) = Client::connect(node.address, Old, "a", kept()).await;
    for dup in [false, true] {
        client.publish_with(Publish { dup, ..message("t", b"x", 1, 7) }).await;
        assert_eq!(client.get().await, Got::PubAck(7, 0));
    }
    assert_eq!(node.journal.state().events.len(), 2);
}

#[tokio::test]
async fn a_message_that_the_client_refuses_is_done_with() {
    let node = Node::new().await;
    let (mut client, _) = Client::connect(node.address, New, "a", kept()).await;
    client.subscribe("t", 2).await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    from.publish("t", b"x", 2, 1).await;
    assert_eq!(from.get().await, Got::PubRec(1, 0));
    let packet = client.message().await.packet_id.unwrap().get();
    client.raw(&[0x50, 3, (packet >> 8) as u8, packet as u8, 0x83]).await;
    from.put("t", b"y").await;
    let packet = client.message().await.packet_id.unwrap().get();
    client.raw(&[0x40, 3, (packet >> 8) as u8, packet as u8, 0x80]).await;
    assert_eq!(client.quiet().await, []);
    drop(client);
    let (mut client, present) = Client::connect(node.address, New, "a", kept()).await;
    assert!(present);
    assert_eq!(client.quiet().await, []);
}

#[tokio::test]
async fn everything_that_5_0_says_of_a_message_arrives() {
    let node = Node::new().await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    let (mut to, _) = Client::connect(node.address, New, "to", fresh()).await;
    let (mut old, _) = Client::connect(node.address, Old, "old", fresh()).await;
    to.subscribe("t", 1).await;
    old.subscribe("t", 1).await;
    let said = PublishProperties {
        correlation_data: Some(Bytes::from_static(&[0, 1, 255])),
        message_expiry_interval: NonZeroU32::new(100),
        content_type: Some("application/json".into()),
        user_properties: vec![("b".into(), "1".into()), ("a".into(), "2".into()), ("b".into(), "3".into())],
        is_utf8_payload: true,
        response_topic: Some("answers/here".into()),
        ..PublishProperties::default()
    };
    from.publish_with(with(message("t", "ä\u{feff}".as_bytes(), 1, 5), said.clone())).await;
    assert_eq!(from.get().await, Got::PubAck(5, 0));
    let got = to.message().await;
    let heard = got.properties.unwrap();
    let left = heard.message_expiry_interval.unwrap().get();
    assert!((99..=100).contains(&left), "{left} s are left of 100");
    assert_eq!(PublishProperties { message_expiry_interval: said.message_expiry_interval, ..heard }, said);
    assert_eq!(&got.payload[..], "ä\u{feff}".as_bytes());
    assert_eq!(old.message().await.properties, None);
}

#[tokio::test]
async fn a_payload_that_is_not_what_it_says_is_refused() {
    let node = Node::new().await;
    let (mut client, _) = Client::connect(node.address, New, "a", fresh()).await;
    let says_utf8 = PublishProperties { is_utf8_payload: true, ..PublishProperties::default() };
    client.publish_with(with(message("t", &[0xff], 1, 5), says_utf8)).await;
    assert_eq!(client.get().await, Got::PubAck(5, 0x99));
}

#[tokio::test]
async fn an_alias_stands_for_its_topic_on_its_connection() {
    let node = Node::new().await;
    let (mut client, _) = Client::connect(node.address, New, "a", fresh()).await;
    client.subscribe("#", 0).await;
    let alias = |n| PublishProperties { topic_alias: NonZeroU16::new(n), ..PublishProperties::default() };
    for n in [1, 16] {
        client.publish_with(with(message(&format!("topic/{n}"), b"1", 0, 0), alias(n))).await;
        client.publish_with(with(message("", b"2", 0, 0), alias(n))).await;
        for payload in [b"1", b"2"] {
            let got = client.message().await;
            assert_eq!((&*got.topic, &got.payload[..]), (&*format!("topic/{n}"), &payload[..]));
            assert_eq!(got.properties.unwrap().topic_alias, None, "the client has not asked for aliases");
        }
    }
    client.publish_with(with(message("other", b"1", 0, 0), alias(1))).await;
    client.publish_with(with(message("", b"2", 0, 0), alias(1))).await;
    assert_eq!((&*client.message().await.topic, &*client.message().await.topic), ("other", "other"));
    let (mut client, _) = Client::connect(node.address, New, "a", fresh()).await;
    client.publish_with(with(message("", b"2", 0, 0), alias(1))).await;
    client.closed(0x82).await;
    let (mut client, _) = Client::connect(node.address, New, "a", fresh()).await;
    client.publish_with(with(message("t", b"2", 0, 0), alias(17))).await;
    client.closed(0x94).await;
}

#[tokio::test]
async fn messages_keep_their_order() {
    let node = Node::new().await;
    node.journal.capture("captured");
    for version in BOTH {
        for level in 0..3 {
            let (mut from, _) = Client::connect(node.address, version, "from", fresh()).await;
            let (mut to, _) = Client::connect(node.address, version, "to", kept()).await;
            to.subscribe("#", level).await;
            let count = 200_u16;
            for n in 1..=count {
                let topic = if n % 3 == 0 { "captured" } else { "t" };
                from.publish(topic, &n.to_be_bytes(), level, if level > 0 { n } else { 0 }).await;
            }
            for n in 1..=count {
                // Acknowledgements come in the order of the messages.
                match level {
                    0 => {}
                    1 => assert_eq!(from.get().await, Got::PubAck(n, 0)),
                    _ => assert_eq!(from.get().await, Got::PubRec(n, 0)),
                }
            }
            let mut next = 1;
            while next <= count {
                match to.get().await {
                    Got::Message(got) => {
                        assert_eq!(got.payload[..], next.to_be_bytes());
                        next += 1;
                        if let Some(packet) = got.packet_id {
                            to.ack(if level == 1 { 0x40 } else { 0x50 }, packet.get()).await;
                        }
                    }
                    Got::PubRel(packet, 0) => to.ack(0x70, packet).await,
                    other => panic!("{other:?}"),
                }
            }
            to.bye().await;
            let (to, _) = Client::connect(node.address, version, "to", fresh()).await;
            to.bye().await;
        }
    }
}

#[tokio::test]
async fn no_more_is_sent_than_the_client_can_take() {
    let node = Node::new().await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    let (mut to, _) = Client::connect(node.address, New, "to", Hello { receive_max: Some(2), ..fresh() }).await;
    to.subscribe("t", 2).await;
    for n in 0..5_u8 {
        from.put("t", &[n]).await;
    }
    let first = to.message().await;
    let second = to.message().await;
    // The window is full; everything else goes on (§4.9).
    assert_eq!(to.quiet().await, []);
    from.publish("t", b"zero", 0, 0).await;
    assert_eq!(to.message().await.payload[..], b"zero"[..]);
    to.ack(0x40, second.packet_id.unwrap().get()).await;
    assert_eq!(to.message().await.payload[..], [2]);
    to.ack(0x40, first.packet_id.unwrap().get()).await;
    assert_eq!(to.message().await.payload[..], [3]);
    assert_eq!(to.quiet().await, []);
}

#[tokio::test]
async fn what_is_too_large_for_the_client_is_not_sent() {
    let node = Node::new().await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    let (mut to, _) = Client::connect(node.address, New, "to", Hello { packet_max: Some(64), ..kept() }).await;
    to.subscribe("t", 1).await;
    for level in [0, 1] {
        from.publish("t", &[0; 100], level, level.into()).await;
    }
    assert_eq!(from.get().await, Got::PubAck(1, 0));
    // Exactly as large as it may be: fixed header 2, topic 3, packet identifier 2, properties 1.
    from.put("t", &[1; 56]).await;
    let got = to.message().await;
    assert_eq!(got.payload[..], [1; 56]);
    to.ack(0x40, got.packet_id.unwrap().get()).await;
    from.put("t", &[1; 57]).await;
    assert_eq!(to.quiet().await, []);
    assert_eq!(node.broker.counts().dropped_large, 3);
    assert_eq!(node.broker.clients().await.unwrap().iter().find(|c| *c.client == *"to").unwrap().queued, 0);
}

#[tokio::test]
async fn an_expired_message_is_not_sent() {
    let node = Node::new().await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    let (mut to, _) = Client::connect(node.address, New, "to", kept()).await;
    to.subscribe("t", 1).await;
    to.bye().await;
    let expires = |s| PublishProperties { message_expiry_interval: NonZeroU32::new(s), ..PublishProperties::default() };
    from.publish_with(with(message("t", b"short", 1, 1), expires(1))).await;
    from.publish_with(with(message("t", b"long", 1, 2), expires(100))).await;
    assert_eq!((from.get().await, from.get().await), (Got::PubAck(1, 0), Got::PubAck(2, 0)));
    node.time.jump(2);
    let (mut to, _) = Client::connect(node.address, New, "to", kept()).await;
    let got = to.message().await;
    assert_eq!(got.payload[..], b"long"[..]);
    assert!(got.properties.unwrap().message_expiry_interval.unwrap().get() <= 99);
    assert_eq!(to.quiet().await, []);
    assert_eq!(node.broker.counts().dropped_expired, 1);
}

#[tokio::test]
async fn a_qos_2_message_that_was_sent_goes_on_though_it_has_expired() {
    let node = Node::new().await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    let (mut to, _) = Client::connect(node.address, New, "to", kept()).await;
    to.subscribe("t", 2).await;
    let expires = PublishProperties { message_expiry_interval: NonZeroU32::new(1), ..PublishProperties::default() };
    from.publish_with(with(message("t", b"x", 2, 1), expires)).await;
    assert_eq!(from.get().await, Got::PubRec(1, 0));
    let sent = to.message().await;
    to.drop_dead().await;
    node.time.jump(2);
    let (mut to, _) = Client::connect(node.address, New, "to", kept()).await;
    let again = to.message().await;
    assert_eq!((again.packet_id, again.dup), (sent.packet_id, true));
    // And so does what the sender still has to say.
    from.ack(0x62, 1).await;
    assert_eq!(from.get().await, Got::PubComp(1, 0));
}

#[tokio::test]
async fn the_duplicate_flag_is_not_passed_on() {
    let node = Node::new().await;
    for version in BOTH {
        let (mut from, _) = Client::connect(node.address, version, "from", fresh()).await;
        let (mut to, _) = Client::connect(node.address, version, "to", fresh()).await;
        to.subscribe("t", 2).await;
        for level in [1, 2] {
            from.publish_with(Publish { dup: true, ..message("t", b"x", level, 7) }).await;
            from.get().await;
            assert!(!to.message().await.dup);
        }
    }
}

#[tokio::test]
async fn nobody_is_there_says_5_0() {
    let node = Node::new().await;
    let (mut new, _) = Client::connect(node.address, New, "a", fresh()).await;
    new.publish("t", b"x", 1, 1).await;
    assert_eq!(new.get().await, Got::PubAck(1, 0x10));
    new.publish("t", b"x", 2, 2).await;
    assert_eq!(new.get().await, Got::PubRec(2, 0x10));
    new.ack(0x62, 2).await;
    assert_eq!(new.get().await, Got::PubComp(2, 0));
}

fn stop() -> Publication {
    Publication {
        topic: "cmd/stop".into(),
        payload: Bytes::from_static(b"now"),
        qos: Qos::AtLeastOnce,
        publisher: "functions/guard".into(),
        ..Publication::default()
    }
}

#[tokio::test]
async fn the_node_publishes_too() {
    let node = Node::new().await;
    node.journal.capture("cmd/#");
    let (mut to, _) = Client::connect(node.address, New, "to", kept()).await;
    to.subscribe("cmd/#", 1).await;
    let stop = stop();
    node.broker.publish(stop.clone()).await.unwrap();
    assert_eq!(node.journal.queued("to"), 1, "it is durable when the call resolves");
    assert_eq!(to.message().await.payload[..], b"now"[..]);
    let event = &node.journal.state().events[0];
    assert_eq!((event.subject.as_str(), event.source.as_str()), ("cmd/stop", "/mqtt/functions%2Fguard"));
    for topic in ["", "a/+", "$SYS/x", "a\0"] {
        assert!(node.broker.publish(Publication { topic: topic.into(), ..stop.clone() }).await.is_err(), "{topic:?}");
    }
    node.journal.full(Some("cmd/#"));
    assert_eq!(node.broker.publish(stop).await.unwrap_err().kind(), marram_core::Kind::StreamFull);
}

/// What no packet could say, or a client may not, a function may not either; and who subscribes gets no broken bytes.
#[tokio::test]
async fn the_node_publishes_what_a_client_could() {
    let node = Node::new().await;
    let (mut to, _) = Client::connect(node.address, New, "to", kept()).await;
    to.subscribe("t", 1).await;
    let publish = async |properties: Properties, expiry_s: Option<u32>| {
        let properties = Some(Box::new(properties));
        let publication = Publication { topic: "t".into(), qos: Qos::AtLeastOnce, expiry_s, properties, ..stop() };
        node.broker.publish(publication).await
    };
    let none = Properties::default;
    let content_type = |text: String| Properties { content_type: Some(text), ..none() };
    let response_topic = |text: &str| Properties { response_topic: Some(text.into()), ..none() };
    let user = |name: &str, value: &str, count| Properties { user: vec![(name.into(), value.into()); count], ..none() };
    let long = "x".repeat(70_000);
    for (properties, expiry_s, named) in [
        (content_type(long.clone()), None, "content type"),
        (content_type("a\0".into()), None, "content type"),
        (response_topic("a/+"), None, "response topic"),
        (response_topic(""), None, "response topic"),
        (response_topic("a\0"), None, "response topic"),
        (Properties { correlation: Some(vec![0; 70_000].into()), ..none() }, None, "correlation data"),
        (user(&long, "", 1), None, "user properties"),
        (user("", &long, 1), None, "user properties"),
        (user("a\0", "", 1), None, "user property"),
        (user("a", "\0", 1), None, "user property"),
        (user("a", "b", 65), None, "user properties"),
        (none(), Some(0), "expiry"),
    ] {
        let failure = publish(properties, expiry_s).await.unwrap_err();
        assert_eq!(failure.kind(), marram_core::Kind::Invalid, "{failure}");
        assert!(failure.message().contains(named), "{failure} does not name the {named}");
    }
    for properties in [content_type("x".repeat(32 << 10)), response_topic("a/b"), user("a", "b", 64)] {
        publish(properties.clone(), Some(1)).await.unwrap();
        let got = to.message().await.properties.unwrap();
        assert_eq!(got.content_type.as_deref(), properties.content_type.as_deref());
        assert_eq!((got.response_topic.as_deref(), got.user_properties.len()), {
            (properties.response_topic.as_deref(), properties.user.len())
        });
    }
    assert_eq!(to.quiet().await, []);
}

#[tokio::test]
async fn clients_are_shown() {
    let node = Node::new().await;
    let (mut client, _) = Client::connect(node.address, New, "pump", Hello { keep_alive: 30, ..kept() }).await;
    client.subscribe("b", 1).await;
    client.subscribe("a/#", 1).await;
    let (mut from, _) = Client::connect(node.address, Old, "from", fresh()).await;
    from.put("b", b"x").await;
    let clients = node.broker.clients().await.unwrap();
    assert_eq!(clients.iter().map(|state| &*state.client).collect::<Vec<_>>(), ["from", "pump"]);
    let state = &clients[1];
    assert_eq!(state.subscriptions.iter().map(|filter| &**filter).collect::<Vec<_>>(), ["a/#", "b"]);
    assert_eq!((state.queued, state.in_flight, state.keep_alive_s, state.expiry_s), (1, 1, 30, 3_600));
    assert!(state.address.is_some() && state.connected_unix_ns.is_some() && state.version.is_some());
    assert!(node.broker.disconnect("pump", false).await.unwrap());
    assert!(matches!(client.get().await, Got::Message(_)));
    client.closed(0x98).await;
    node.gone("pump").await;
    assert!(node.broker.disconnect("pump", true).await.unwrap(), "the session is still there");
    assert!(!node.broker.disconnect("pump", true).await.unwrap(), "now it is not");
    let counts = node.broker.counts();
    assert_eq!((counts.sessions, counts.received), (1, 1));
}
