//! Nothing is acknowledged before it is kept, and what cannot be kept is said to be so.

use std::time::Duration;

use marram_core::Kind;
use marram_core::port::mqtt::{Publication, Qos};
use marram_mqtt::{AccessConfig, Limits, Permissions};

use crate::client::{BOTH, Client, DEADLINE, Got, Hello, New, Old, Will, fresh, kept};
use crate::fixture::Log;
use crate::node::{Node, until};

#[tokio::test]
async fn a_message_is_acknowledged_and_delivered_when_it_is_kept_and_not_before() {
    let node = Node::new().await;
    node.journal.capture("t");
    for version in BOTH {
        for level in [1, 2] {
            let (mut from, _) = Client::connect(node.address, version, "from", kept()).await;
            let (mut to, _) = Client::connect(node.address, version, "to", fresh()).await;
            to.subscribe("t", 2).await;
            node.journal.hold();
            from.publish("t", b"x", level, 3).await;
            until("the commit to begin", async || node.journal.held() > 0).await;
            // The connection goes on meanwhile.
            assert_eq!(from.quiet().await, []);
            assert_eq!(to.quiet().await, []);
            node.journal.release();
            let expected = if level == 1 { Got::PubAck(3, 0) } else { Got::PubRec(3, 0) };
            assert_eq!(from.get().await, expected);
            assert_eq!(to.message().await.payload[..], b"x"[..]);
            let (from, _) = Client::connect(node.address, version, "from", fresh()).await;
            from.bye().await;
        }
    }
}

#[tokio::test]
async fn acknowledgements_are_pipelined_and_in_order() {
    let node = Node::new().await;
    node.journal.capture("#");
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    node.journal.hold();
    for n in 1..=100 {
        from.publish("t", b"x", 1, n).await;
        if n % 10 == 0 {
            assert_eq!(from.quiet().await, [], "reading goes on");
        }
    }
    until("commits to be under way at the same time", async || node.journal.held() > 1).await;
    node.journal.release();
    for n in 1..=100 {
        assert_eq!(from.get().await, Got::PubAck(n, 0));
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_when_the_power_went_was_never_there() {
    let node = Node::new().await;
    node.journal.capture("#");
    let (mut from, _) = Client::connect(node.address, New, "from", kept()).await;
    from.publish("t", b"kept", 2, 1).await;
    assert_eq!(from.get().await, Got::PubRec(1, 0));
    node.journal.hold();
    from.publish("t", b"lost", 2, 2).await;
    until("the commit to begin", async || node.journal.held() > 0).await;
    let again = node.crash(Duration::ZERO).await;
    let (mut from, present) = Client::connect(again.address, New, "from", kept()).await;
    assert!(present);
    for packet in [1, 2] {
        from.publish("t", if packet == 1 { b"kept" } else { b"lost" }, 2, packet).await;
        assert_eq!(from.get().await, Got::PubRec(packet, 0));
        from.ack(0x62, packet).await;
        assert_eq!(from.get().await, Got::PubComp(packet, 0));
    }
    let events = again.journal.state().events;
    let payloads: Vec<_> = events.iter().map(|event| event.data.clone().unwrap()).collect();
    assert_eq!(payloads, [&b"kept"[..], b"lost"], "each is there once");
}

#[tokio::test]
async fn pubrec_and_pubrel_are_kept_before_they_are_answered() {
    let node = Node::new().await;
    let (mut to, _) = Client::connect(node.address, New, "to", kept()).await;
    to.subscribe("t", 2).await;
    let (mut from, _) = Client::connect(node.address, New, "from", kept()).await;
    from.publish("t", b"x", 2, 1).await;
    assert_eq!(from.get().await, Got::PubRec(1, 0));
    let packet = to.message().await.packet_id.unwrap().get();
    node.journal.hold();
    from.ack(0x62, 1).await;
    to.ack(0x50, packet).await;
    until("the commits to begin", async || node.journal.held() > 0).await;
    assert_eq!((from.quiet().await, to.quiet().await), (vec![], vec![]));
    node.journal.release();
    assert_eq!(from.get().await, Got::PubComp(1, 0));
    assert_eq!(to.get().await, Got::PubRel(packet, 0));
    // A node that starts now goes on from here: PUBREL, and no PUBLISH.
    let again = node.crash(Duration::ZERO).await;
    let (mut to, _) = Client::connect(again.address, New, "to", kept()).await;
    assert_eq!(to.get().await, Got::PubRel(packet, 0));
    to.ack(0x70, packet).await;
    assert_eq!(to.quiet().await, []);
}

#[tokio::test]
async fn a_full_disk_is_said_in_5_0_and_closes_3_1_1() {
    let node = Node::new().await;
    node.journal.capture("#");
    for kind in [Kind::StorageFull, Kind::Overloaded] {
        for level in [1, 2] {
            let (mut new, _) = Client::connect(node.address, New, "new", fresh()).await;
            let (mut old, _) = Client::connect(node.address, Old, "old", fresh()).await;
            let (mut to, _) = Client::connect(node.address, New, "to", fresh()).await;
            to.subscribe("t", 1).await;
            node.journal.fail(Some(kind));
            new.publish("t", b"x", level, 1).await;
            let refused = if level == 1 { Got::PubAck(1, 0x97) } else { Got::PubRec(1, 0x97) };
            assert_eq!(new.get().await, refused);
            old.publish("t", b"x", level, 1).await;
            assert_eq!(old.get().await, Got::End);
            assert_eq!(to.quiet().await, [], "what is not kept is not delivered");
            // It recovers by itself, and the identifier is free.
            node.journal.fail(None);
            new.publish("t", b"y", level, 1).await;
            assert!(matches!(new.get().await, Got::PubAck(1, 0) | Got::PubRec(1, 0)));
            assert_eq!(to.message().await.payload[..], b"y"[..]);
        }
    }
}

#[tokio::test]
async fn another_failure_is_not_called_a_quota() {
    let node = Node::new().await;
    node.journal.capture("#");
    let (mut new, _) = Client::connect(node.address, New, "new", fresh()).await;
    node.journal.fail(Some(Kind::Internal));
    new.publish("t", b"x", 1, 1).await;
    assert_eq!(new.get().await, Got::PubAck(1, 0x80));
}

#[tokio::test]
async fn a_full_stream_refuses_its_own_messages_and_no_others() {
    let node = Node::new().await;
    node.journal.capture("full/#");
    node.journal.capture("other");
    node.journal.full(Some("full/#"));
    let (mut to, _) = Client::connect(node.address, New, "to", kept()).await;
    to.subscribe("#", 1).await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    node.journal.hold();
    for (n, topic) in (1..).zip(["other", "full/1", "other"]) {
        from.publish(topic, topic.as_bytes(), 1, n).await;
    }
    until("all to be read", async || node.broker.counts().received == 3).await;
    node.journal.release();
    assert_eq!(
        [from.get().await, from.get().await, from.get().await],
        [Got::PubAck(1, 0), Got::PubAck(2, 0x97), Got::PubAck(3, 0)]
    );
    for _ in 0..2 {
        assert_eq!(&*to.message().await.topic, "other");
    }
    assert_eq!(to.quiet().await, []);
    assert_eq!(node.broker.clients().await.unwrap().iter().find(|c| *c.client == *"to").unwrap().queued, 2);
}

#[tokio::test]
async fn a_full_disk_refuses_sessions_and_subscriptions_but_no_clean_client() {
    let node = Node::new().await;
    let (mut to, _) = Client::connect(node.address, New, "to", kept()).await;
    node.journal.fail(Some(Kind::StorageFull));
    assert_eq!(to.subscribe("t", 1).await, 0x97);
    let mut new = Client::open(node.address, New).await;
    assert!(matches!(new.hello("new", kept()).await, Got::ConnAck(false, 0x97, _)));
    assert_eq!(new.get().await, Got::End);
    let mut old = Client::open(node.address, Old).await;
    assert_eq!(old.hello("old", kept()).await, Got::ConnAck(false, 3, None));
    // A session that is not kept needs no disk, nor does a message that is not.
    let (mut clean, _) = Client::connect(node.address, New, "clean", fresh()).await;
    assert_eq!(clean.subscribe("t", 1).await, 1);
    clean.publish("t", b"x", 1, 1).await;
    assert_eq!(clean.get().await, Got::PubAck(1, 0));
    assert_eq!(clean.message().await.payload[..], b"x"[..]);
    node.journal.fail(None);
    // The subscription that could not be kept is not there.
    clean.publish("t", b"x", 0, 0).await;
    assert_eq!(to.quiet().await, []);
    assert_eq!(to.subscribe("t", 1).await, 1);
    let (_new, present) = Client::connect(node.address, New, "new", kept()).await;
    assert!(!present);
}

#[tokio::test]
async fn one_message_is_one_change_with_everything_that_belongs_to_it() {
    let node = Node::new().await;
    node.journal.capture("#");
    let mut all = Vec::new();
    for n in 0..3 {
        let (mut to, _) = Client::connect(node.address, New, &format!("to{n}"), kept()).await;
        to.subscribe("t", 2).await;
        all.push(to);
    }
    let (mut from, _) = Client::connect(node.address, New, "from", kept()).await;
    let before = node.journal.state().commits;
    let publish = rmqtt_codec::types::Publish { retain: true, ..crate::client::message("t", b"x", 2, 9) };
    from.publish_with(publish).await;
    assert_eq!(from.get().await, Got::PubRec(9, 0));
    let state = node.journal.state();
    assert_eq!(state.commits, before + 1);
    assert_eq!((state.events.len(), state.retained.len()), (1, 1));
    assert!(state.sessions["from"].received.contains(&9));
    let bodies: Vec<_> =
        (0..3).map(|n| state.sessions[&*format!("to{n}")].queue.values().next().unwrap().message.clone()).collect();
    assert!(bodies.iter().all(|body| std::sync::Arc::ptr_eq(body, &bodies[0])), "the body is there once");
}

#[tokio::test]
async fn a_client_that_may_not_is_told_or_closed() {
    let mine = Permissions { publish: vec!["d/%c/#".into()], subscribe: vec!["d/%c/#".into(), "all".into()] };
    let access = AccessConfig { anonymous: Some(mine), ..AccessConfig::default() };
    let node = Node::with(Limits::default(), access, Default::default(), Duration::ZERO).await;
    for version in BOTH {
        for level in [0, 1, 2] {
            let (mut client, _) = Client::connect(node.address, version, "me", fresh()).await;
            assert_eq!(client.subscribe("d/me/+", 1).await, 1);
            assert_eq!(client.subscribe("$share/g/all", 1).await, 1);
            let no = if version == New { 0x87 } else { 0x80 };
            for filter in ["d/+/x", "#", "d/you/#", "$share/g/d/#", "$SYS/#", "+"] {
                assert_eq!(client.subscribe(filter, 1).await, no, "{filter}");
            }
            client.publish("d/me/x", b"1", 0, 0).await;
            assert_eq!(client.message().await.payload[..], b"1"[..]);
            client.publish("d/you/x", b"2", level, level.into()).await;
            match (version, level) {
                (_, 0) => assert_eq!(client.quiet().await, []),
                (New, 1) => assert_eq!(client.get().await, Got::PubAck(1, 0x87)),
                (New, _) => assert_eq!(client.get().await, Got::PubRec(2, 0x87)),
                (Old, _) => assert_eq!(client.get().await, Got::End),
            }
        }
        let (mut client, _) = Client::connect(node.address, New, "me", fresh()).await;
        client.publish("$SYS/x", b"2", 1, 1).await;
        assert_eq!(client.get().await, Got::PubAck(1, 0x90));
        // A name that would be more than one level has no topics of its own.
        let (mut wide, _) = Client::connect(node.address, New, "+", fresh()).await;
        assert_eq!(wide.subscribe("d/+/#", 1).await, 0x87);
    }
    let will = Some(Will { topic: "d/you/x", ..Will::default() });
    let mut client = Client::open(node.address, New).await;
    assert!(matches!(client.hello("me", Hello { will, ..fresh() }).await, Got::ConnAck(false, 0x87, _)));
}

/// Found on a node under load; `engine/tests.rs` has the same in every order.
#[tokio::test]
async fn what_is_under_commit_when_a_subscriber_goes_comes_when_it_is_back() {
    for version in BOTH {
        for taken_over in [false, true] {
            let node = Node::new().await;
            let address = node.address;
            let connect = move || Client::connect(address, version, "to", kept());
            let (mut to, _) = connect().await;
            to.subscribe("t", 1).await;
            let (mut from, _) = Client::connect(address, version, "from", fresh()).await;
            node.journal.hold();
            for n in 1..=5 {
                from.publish("t", &[n], 1, n.into()).await;
            }
            until("all to be on their way", async || node.broker.counts().received == 5).await;
            let held = node.journal.held();
            let connecting = if taken_over {
                let connecting = tokio::spawn(connect());
                until("the connection to be on its way", async || node.journal.held() > held).await;
                Some(connecting)
            } else {
                to.drop_dead().await;
                node.gone("to").await;
                None
            };
            node.journal.release();
            for n in 1..=5 {
                assert_eq!(from.get().await, Got::PubAck(n, 0));
            }
            let (mut to, present) = match connecting {
                Some(connecting) => connecting.await.unwrap(),
                None => connect().await,
            };
            assert!(present);
            for n in 1..=5 {
                let got = to.message().await;
                assert_eq!((&got.payload[..], got.dup), (&[n][..], false));
                to.ack(0x40, got.packet_id.unwrap().get()).await;
            }
            until("the queue to be empty", async || node.broker.queued().await.unwrap() == 0).await;
        }
    }
}

#[tokio::test]
async fn a_stop_ends_though_nothing_can_be_written() {
    let node = Node::new().await;
    let (mut to, _) = Client::connect(node.address, New, "to", kept()).await;
    to.subscribe("t", 1).await;
    node.broker.publish(publication("t")).await.unwrap();
    let packet = to.message().await.packet_id.unwrap().get();
    node.journal.fail(Some(Kind::StorageFull));
    to.ack(0x40, packet).await;
    until("the acknowledgement to be taken in", async || node.broker.queued().await.unwrap() == 0).await;
    assert!(tokio::time::timeout(DEADLINE, node.broker.stop()).await.is_ok());
    let failed = node.broker.counts().commits_failed;
    assert!((1..100).contains(&failed), "{failed} commits were tried");
    // That it was acknowledged could not be written: it comes again.
    let again = node.crash(Duration::ZERO).await;
    let (mut to, present) = Client::connect(again.address, New, "to", kept()).await;
    assert!(present && to.message().await.dup);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_commit_without_end() {
    let node = Node::new().await;
    node.journal.capture("#");
    let broker = node.broker.clone();
    node.journal.hold();
    let publishing = tokio::spawn(async move { broker.publish(publication("t")).await });
    until("the commit to begin", async || node.journal.held() > 0).await;
    // Nothing else is under way: time goes on by itself.
    tokio::time::pause();
    assert_eq!(tokio::time::timeout(DEADLINE, node.broker.stop()).await, Ok(0));
    assert_eq!(publishing.await.unwrap().unwrap_err().kind(), Kind::Draining);
    assert!(node.journal.state().events.is_empty());
}

#[tokio::test]
async fn a_failing_disk_is_said_once_until_it_works_again() {
    let node = Node::new().await;
    node.journal.capture("#");
    let log = Log::default();
    let _listening = log.listen();
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    for round in 1..=2 {
        for (kind, count, reason) in [(Some(Kind::StorageFull), 5, 0x97), (None, 2, 0)] {
            node.journal.fail(kind);
            for packet in 1..=count {
                from.publish("t", b"x", 1, packet).await;
                assert_eq!(from.get().await, Got::PubAck(packet, reason));
            }
        }
        assert_eq!((log.count("cannot be kept"), log.count("can be kept again")), (round, round));
    }
    assert_eq!(node.broker.counts().commits_failed, 10);
}

fn publication(topic: &str) -> Publication {
    Publication { topic: topic.into(), qos: Qos::AtLeastOnce, ..Publication::default() }
}
