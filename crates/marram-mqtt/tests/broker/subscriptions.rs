//! Subscriptions: which messages they take, shared or not.

use std::num::NonZeroU32;

use rmqtt_codec::MqttPacket;
use rmqtt_codec::v5::{self, SubscriptionOptions};

use crate::client::{BOTH, Client, Got, New, Old, fresh, id, kept, options, qos};
use crate::node::{Node, until};

#[tokio::test]
async fn filters_take_what_the_standard_says() {
    let node = Node::new().await;
    for version in BOTH {
        let (mut from, _) = Client::connect(node.address, version, "from", fresh()).await;
        for (filter, yes, no) in [
            ("sport/#", &["sport", "sport/", "sport/a/b"][..], &["sports", "/sport"][..]),
            ("sport/+", &["sport/", "sport/a"], &["sport", "sport/a/b"]),
            ("+/+", &["/finance", "a/b"], &["finance"]),
            ("/+", &["/finance"], &["finance"]),
            ("#", &["a", "/", "a/b"], &[]),
            ("Accounts", &["Accounts"], &["ACCOUNTS", "Accounts/", "accounts"]),
            ("a b/ä", &["a b/ä"], &["a b/a\u{308}"]),
        ] {
            let (mut to, _) = Client::connect(node.address, version, "to", fresh()).await;
            to.subscribe(filter, 0).await;
            for topic in yes.iter().chain(no) {
                from.put(topic, b"x").await;
            }
            for topic in yes {
                assert_eq!(&*to.message().await.topic, *topic);
            }
            assert_eq!(to.quiet().await, [], "{filter} took more");
        }
    }
}

#[tokio::test]
async fn filters_that_are_none_are_refused_one_by_one() {
    let node = Node::new().await;
    for version in BOTH {
        let (mut client, _) = Client::connect(node.address, version, "a", fresh()).await;
        let filters = ["good", "a#", "a/#/b", "a+", "$share/g", "$share//a", "$share/+/a", "also/good", "good"];
        let packet = match version {
            Old => MqttPacket::V3(rmqtt_codec::v3::Packet::Subscribe {
                packet_id: id(7),
                topic_filters: filters
                    .iter()
                    .zip([1, 1, 1, 1, 1, 1, 1, 2, 0])
                    .map(|(f, q)| ((*f).into(), qos(q)))
                    .collect(),
            }),
            New => MqttPacket::V5(v5::Packet::Subscribe(v5::Subscribe {
                packet_id: id(7),
                id: None,
                user_properties: vec![("a".into(), "b".into())],
                topic_filters: filters
                    .iter()
                    .zip([1, 1, 1, 1, 1, 1, 1, 2, 0])
                    .map(|(f, q)| ((*f).into(), options(q)))
                    .collect(),
            })),
        };
        client.send(packet).await;
        let no = if version == New { 0x8f } else { 0x80 };
        assert_eq!(client.get().await, Got::SubAck(7, vec![1, no, no, no, no, no, no, 2, 0]));
        // The last of the same is the one that counts.
        client.put("good", b"x").await;
        assert_eq!(client.message().await.qos, qos(0));
    }
}

#[tokio::test]
async fn a_subscription_replaces_its_like() {
    let node = Node::new().await;
    for version in BOTH {
        let (mut client, _) = Client::connect(node.address, version, "a", fresh()).await;
        client.subscribe("t", 2).await;
        client.subscribe("t", 0).await;
        client.publish("t", b"x", 1, 1).await;
        assert_eq!(client.get().await, Got::PubAck(1, 0));
        assert_eq!(client.message().await.qos, qos(0));
        assert_eq!(node.broker.counts().sessions, 1);
        client.bye().await;
        node.gone("a").await;
    }
}

#[tokio::test]
async fn overlapping_subscriptions_deliver_once_at_the_greatest_level_with_every_number() {
    let node = Node::new().await;
    let (mut to, _) = Client::connect(node.address, New, "to", fresh()).await;
    to.subscribe_with("a/#", options(0), Some(1)).await;
    to.subscribe_with("a/+", options(2), Some(268_435_455)).await;
    to.subscribe_with("a/b", options(1), None).await;
    let (mut old, _) = Client::connect(node.address, Old, "old", fresh()).await;
    old.subscribe("a/#", 0).await;
    old.subscribe("a/+", 1).await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    from.publish("a/b", b"x", 2, 1).await;
    let got = to.message().await;
    assert_eq!(got.qos, qos(2));
    let mut ids: Vec<_> = got.properties.unwrap().subscription_ids.into_iter().map(NonZeroU32::get).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 268_435_455]);
    assert_eq!(to.quiet().await, []);
    assert_eq!(old.message().await.qos, qos(1));
    assert_eq!(old.quiet().await, []);
}

#[tokio::test]
async fn numbers_of_subscriptions_stay_with_queued_messages_over_a_restart() {
    let node = Node::new().await;
    let (mut to, _) = Client::connect(node.address, New, "to", kept()).await;
    to.subscribe_with("t", options(1), Some(7)).await;
    to.bye().await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    from.put("t", b"1").await;
    let again = node.crash(std::time::Duration::ZERO).await;
    let (mut from, _) = Client::connect(again.address, New, "from", fresh()).await;
    from.put("t", b"2").await;
    let (mut to, _) = Client::connect(again.address, New, "to", kept()).await;
    for _ in 0..2 {
        assert_eq!(to.message().await.properties.unwrap().subscription_ids, [NonZeroU32::new(7).unwrap()]);
    }
}

#[tokio::test]
async fn what_is_local_is_left_out_where_that_is_asked_for() {
    let node = Node::new().await;
    let (mut client, _) = Client::connect(node.address, New, "a", fresh()).await;
    client.subscribe_with("t", SubscriptionOptions { no_local: true, ..options(1) }, None).await;
    client.publish("t", b"own", 1, 1).await;
    assert!(matches!(client.get().await, Got::PubAck(1, _)));
    let (mut other, _) = Client::connect(node.address, New, "b", fresh()).await;
    other.put("t", b"other").await;
    assert_eq!(client.message().await.payload[..], b"other"[..]);
    // A group cannot ask for that.
    let shared = v5::Subscribe {
        packet_id: id(7),
        id: None,
        user_properties: vec![],
        topic_filters: vec![("$share/g/t".into(), SubscriptionOptions { no_local: true, ..options(1) })],
    };
    client.send(MqttPacket::V5(v5::Packet::Subscribe(shared))).await;
    client.closed(0x82).await;
}

#[tokio::test]
async fn an_unsubscribed_filter_takes_no_more() {
    let node = Node::new().await;
    for version in BOTH {
        let (mut client, _) = Client::connect(node.address, version, "a", kept()).await;
        client.subscribe("a/+", 1).await;
        client.subscribe("a/b", 1).await;
        client.put("a/b", b"before").await;
        let before = client.message().await;
        let answer = |reasons: &[u8]| if version == New { reasons.to_vec() } else { vec![] };
        assert_eq!(client.unsubscribe("a/b").await, answer(&[0]));
        assert_eq!(client.unsubscribe("a/b").await, answer(&[0x11]));
        assert_eq!(client.unsubscribe("a/#").await, answer(&[0x11]), "it is compared by its characters");
        client.put("a/b", b"still").await;
        assert_eq!(client.message().await.payload[..], b"still"[..]);
        assert_eq!(client.unsubscribe("a/+").await, answer(&[0]));
        client.publish("a/b", b"no more", 0, 0).await;
        assert_eq!(client.quiet().await, []);
        // What was on its way goes on to its end.
        client.drop_dead().await;
        let (mut client, _) = Client::connect(node.address, version, "a", kept()).await;
        let again = client.message().await;
        assert_eq!((again.packet_id, again.dup), (before.packet_id, true));
        assert!(node.journal.state().sessions["a"].subscriptions.is_empty());
        let (client, _) = Client::connect(node.address, version, "a", fresh()).await;
        client.bye().await;
    }
}

#[tokio::test]
async fn several_filters_are_unsubscribed_with_one_answer() {
    let node = Node::new().await;
    for version in BOTH {
        let (mut client, _) = Client::connect(node.address, version, "a", fresh()).await;
        for filter in ["b", "c", "d"] {
            client.subscribe(filter, 0).await;
        }
        let topic_filters = ["a", "b", "a#", "d"].map(Into::into).to_vec();
        client
            .send(match version {
                Old => MqttPacket::V3(rmqtt_codec::v3::Packet::Unsubscribe { packet_id: id(9), topic_filters }),
                New => MqttPacket::V5(v5::Packet::Unsubscribe(v5::Unsubscribe {
                    packet_id: id(9),
                    user_properties: vec![],
                    topic_filters,
                })),
            })
            .await;
        let reasons = if version == New { vec![0x11, 0, 0x11, 0] } else { vec![] };
        assert_eq!(client.get().await, Got::UnsubAck(9, reasons));
        for topic in ["b", "c", "d"] {
            client.publish(topic, b"x", 0, 0).await;
        }
        assert_eq!(&*client.message().await.topic, "c");
        assert_eq!(client.quiet().await, []);
        // Without one it is none.
        client.raw(if version == New { &[0xa2, 3, 0, 1, 0] } else { &[0xa2, 2, 0, 1] }).await;
        client.closed(0x82).await;
    }
}

#[tokio::test]
async fn members_of_a_group_share_its_messages() {
    let node = Node::new().await;
    for version in BOTH {
        let mut members = Vec::new();
        for (n, level) in [0, 1, 2].into_iter().enumerate() {
            let (mut member, _) = Client::connect(node.address, version, &format!("m{n}"), fresh()).await;
            assert_eq!(member.subscribe("$share/g/t/+", level).await, level);
            members.push((member, level));
        }
        let (mut other, _) = Client::connect(node.address, version, "other", fresh()).await;
        other.subscribe("$share/h/t/+", 0).await;
        other.subscribe("t/1", 0).await;
        let (mut from, _) = Client::connect(node.address, version, "from", fresh()).await;
        for n in 0..6_u8 {
            from.publish("t/1", &[n], 2, n as u16 + 1).await;
            from.get().await;
        }
        for (member, level) in &mut members {
            let mine = [member.message().await, member.message().await];
            assert!(mine.iter().all(|message| message.qos == qos(*level)), "what was granted is what is sent");
        }
        for _ in 0..12 {
            other.message().await;
        }
        for (member, _) in &mut members {
            assert_eq!(member.unsubscribe("$share/g/t/+").await.first(), (version == New).then_some(&0));
            assert!(member.quiet().await.is_empty());
        }
        from.publish("t/1", b"x", 0, 0).await;
        assert_eq!(from.quiet().await, []);
        assert!(members[0].0.quiet().await.is_empty());
    }
}

#[tokio::test]
async fn a_group_whose_members_are_away_waits_for_one() {
    let node = Node::new().await;
    let (mut away, _) = Client::connect(node.address, New, "away", kept()).await;
    away.subscribe("$share/g/t", 2).await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    from.publish("t", b"1", 2, 1).await;
    assert_eq!(from.get().await, Got::PubRec(1, 0));
    let first = away.message().await;
    away.drop_dead().await;
    node.gone("away").await;
    from.put("t", b"2").await;
    let (mut here, _) = Client::connect(node.address, New, "here", fresh()).await;
    here.subscribe("$share/g/t", 2).await;
    from.put("t", b"3").await;
    assert_eq!(here.message().await.payload[..], b"3"[..], "who is here goes before who is away");
    assert_eq!(here.quiet().await, [], "what was chosen for one is not given to another");
    let (mut away, _) = Client::connect(node.address, New, "away", kept()).await;
    let again = away.message().await;
    assert_eq!((again.packet_id, again.dup, &again.payload[..]), (first.packet_id, true, &b"1"[..]));
    assert_eq!(away.message().await.payload[..], b"2"[..]);
    // The session ends: its QoS 2 message goes to nobody else, the other one does.
    node.broker.disconnect("away", true).await.unwrap();
    assert_eq!(here.message().await.payload[..], b"2"[..]);
    // Only spares of what is in memory stay.
    let is_gone = || node.journal.state().sessions.keys().all(|client| client.starts_with('\0'));
    until("the session to be forgotten", async || is_gone()).await;
    assert_eq!(here.quiet().await, []);
}
