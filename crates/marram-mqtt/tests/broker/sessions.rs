//! Sessions that outlive their connections.

use std::time::Duration;

use marram_core::Kind;
use marram_mqtt::Limits;

use crate::client::{BOTH, Client, Got, Hello, New, Old, fresh, kept, qos};
use crate::node::{Node, until, users};

#[tokio::test]
async fn a_session_is_there_again_with_its_subscriptions_and_messages() {
    let node = Node::new().await;
    for version in BOTH {
        let (mut to, present) = Client::connect(node.address, version, "to", kept()).await;
        assert!(!present);
        to.subscribe("t", 1).await;
        to.bye().await;
        let (mut from, _) = Client::connect(node.address, version, "from", fresh()).await;
        from.publish("t", b"lost", 0, 0).await;
        from.put("t", b"1").await;
        from.publish("t", b"2", 2, 2).await;
        assert_eq!(from.get().await, Got::PubRec(2, 0));
        let (mut to, present) = Client::connect(node.address, version, "to", kept()).await;
        assert!(present);
        for payload in [b"1", b"2"] {
            let got = to.message().await;
            assert_eq!((&got.payload[..], got.qos, got.dup), (&payload[..], qos(1), false));
            to.ack(0x40, got.packet_id.unwrap().get()).await;
        }
        // What came while it was away is the past: this is new.
        from.put("t", b"3").await;
        assert_eq!(to.message().await.payload[..], b"3"[..]);
        // A clean start forgets all of it.
        let (mut to, present) = Client::connect(node.address, version, "to", fresh()).await;
        assert!(!present);
        from.put("t", b"4").await;
        assert_eq!(to.quiet().await, []);
        to.bye().await;
        let (to, present) = Client::connect(node.address, version, "to", kept()).await;
        assert!(!present, "a session without expiry has ended");
        to.bye().await;
        let (to, _) = Client::connect(node.address, version, "to", fresh()).await;
        to.bye().await;
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_as_it_was() {
    let node = Node::new().await;
    for version in BOTH {
        let (mut to, _) = Client::connect(node.address, version, "to", kept()).await;
        to.subscribe("t", 2).await;
        let (mut from, _) = Client::connect(node.address, version, "from", fresh()).await;
        for (n, level) in [1, 2, 1, 2, 2].into_iter().enumerate() {
            from.publish("t", &[n as u8], level, n as u16 + 1).await;
            from.get().await;
        }
        let mut sent = Vec::new();
        for _ in 0..5 {
            sent.push(to.message().await);
        }
        let packet = |n: usize| sent[n].packet_id.unwrap().get();
        assert!(sent.iter().all(|message| !message.dup));
        // The third is acknowledged; the second has come as far as PUBREL, the fifth to its end.
        to.ack(0x40, packet(2)).await;
        to.ack(0x50, packet(1)).await;
        assert_eq!(to.get().await, Got::PubRel(packet(1), 0));
        to.ack(0x50, packet(4)).await;
        assert_eq!(to.get().await, Got::PubRel(packet(4), 0));
        to.ack(0x70, packet(4)).await;
        assert_eq!(to.quiet().await, []);
        to.drop_dead().await;
        let (mut to, present) = Client::connect(node.address, version, "to", kept()).await;
        assert!(present);
        let mut again = vec![to.get().await, to.get().await, to.get().await];
        assert_eq!(to.quiet().await, [], "nothing else comes, and nothing comes twice");
        again.retain(|got| *got != Got::PubRel(packet(1), 0));
        let again: Vec<_> = again
            .into_iter()
            .map(|got| match got {
                Got::Message(message) => (message.payload[0], message.dup, message.packet_id.unwrap().get()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(again, [(0, true, packet(0)), (3, true, packet(3))]);
        to.ack(0x70, packet(1)).await;
        let (to, _) = Client::connect(node.address, version, "to", fresh()).await;
        to.bye().await;
    }
}

#[tokio::test]
async fn a_qos_2_message_that_is_sent_again_after_a_reconnect_is_one_message() {
    let node = Node::new().await;
    node.journal.capture("#");
    for version in BOTH {
        let before = node.journal.state().events.len();
        let (mut from, _) = Client::connect(node.address, version, "from", kept()).await;
        from.publish("t", b"x", 2, 7).await;
        assert_eq!(from.get().await, Got::PubRec(7, 0));
        from.drop_dead().await;
        let (mut from, present) = Client::connect(node.address, version, "from", kept()).await;
        assert!(present);
        from.publish("t", b"x", 2, 7).await;
        assert_eq!(from.get().await, Got::PubRec(7, 0));
        from.ack(0x62, 7).await;
        assert_eq!(from.get().await, Got::PubComp(7, 0));
        assert_eq!(node.journal.state().events.len(), before + 1);
        let (from, _) = Client::connect(node.address, version, "from", fresh()).await;
        from.bye().await;
    }
}

#[tokio::test]
async fn a_second_connection_takes_over() {
    let node = Node::new().await;
    for version in BOTH {
        let (mut first, _) = Client::connect(node.address, version, "a", kept()).await;
        first.subscribe("t", 1).await;
        let (mut second, present) = Client::connect(node.address, version, "a", kept()).await;
        assert!(present);
        first.closed(0x8e).await;
        let (mut from, _) = Client::connect(node.address, version, "from", fresh()).await;
        from.put("t", b"x").await;
        assert_eq!(second.message().await.payload[..], b"x"[..]);
        let (second, _) = Client::connect(node.address, version, "a", fresh()).await;
        second.bye().await;
        node.gone("a").await;
    }
}

#[tokio::test]
async fn a_session_expires_when_its_time_is_over() {
    let node = Node::new().await;
    let (client, _) = Client::connect(node.address, New, "a", Hello { expiry: 1, ..fresh() }).await;
    client.bye().await;
    let (client, present) = Client::connect(node.address, New, "a", Hello { expiry: 1, ..Hello::default() }).await;
    assert!(present, "it has not been a second");
    client.bye().await;
    until("the session to expire", async || node.broker.counts().sessions == 0).await;
    until("the journal to forget it", async || node.journal.state().sessions.is_empty()).await;
    let (_client, present) = Client::connect(node.address, New, "a", Hello { expiry: 1, ..Hello::default() }).await;
    assert!(!present);
}

#[tokio::test]
async fn a_farewell_may_change_the_expiry_but_not_give_one() {
    let node = Node::new().await;
    let (mut client, _) = Client::connect(node.address, New, "a", kept()).await;
    client.raw(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0]).await;
    assert_eq!(client.get().await, Got::End);
    node.gone("a").await;
    assert_eq!(node.broker.counts().sessions, 0);
    let (mut client, _) = Client::connect(node.address, New, "a", fresh()).await;
    client.raw(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 9]).await;
    client.closed(0x82).await;
}

#[tokio::test]
async fn a_session_of_3_1_1_has_no_end_but_a_clean_one_has() {
    let node = Node::new().await;
    let (client, _) = Client::connect(node.address, Old, "a", kept()).await;
    client.bye().await;
    node.gone("a").await;
    let clients = node.broker.clients().await.unwrap();
    // As long as the operator lets it be: for ever is cut to that.
    assert_eq!(clients[0].expiry_s, 30 * 86_400);
    let (client, present) = Client::connect(node.address, Old, "a", fresh()).await;
    assert!(!present);
    client.bye().await;
    node.gone("a").await;
    assert_eq!(node.broker.counts().sessions, 0);
}

#[tokio::test]
async fn a_session_survives_a_crash_and_a_stop() {
    for version in BOTH {
        for crash in [true, false] {
            let node = Node::new().await;
            let (mut to, _) = Client::connect(node.address, version, "to", kept()).await;
            to.subscribe("t", 1).await;
            let (mut from, _) = Client::connect(node.address, version, "from", fresh()).await;
            from.put("t", b"1").await;
            let first = to.message().await;
            if !crash {
                node.broker.stop().await;
            }
            let again = node.crash(Duration::ZERO).await;
            let (mut from, _) = Client::connect(again.address, version, "from", fresh()).await;
            from.put("t", b"2").await;
            let (mut to, present) = Client::connect(again.address, version, "to", kept()).await;
            assert!(present);
            let got = to.message().await;
            assert_eq!((got.packet_id, got.dup, &got.payload[..]), (first.packet_id, true, &b"1"[..]));
            let got = to.message().await;
            assert_eq!((got.dup, &got.payload[..]), (false, &b"2"[..]));
            assert_ne!(got.packet_id, first.packet_id);
        }
    }
}

#[tokio::test]
async fn expiry_goes_on_while_the_node_is_off() {
    let node = Node::new().await;
    let (client, _) = Client::connect(node.address, New, "short", Hello { expiry: 100, ..fresh() }).await;
    client.bye().await;
    let (client, _) = Client::connect(node.address, New, "long", Hello { expiry: 10_000, ..fresh() }).await;
    client.bye().await;
    node.gone("long").await;
    node.broker.stop().await;
    let again = node.crash(Duration::from_secs(1_000)).await;
    let clients = again.broker.clients().await.unwrap();
    assert_eq!(clients.iter().map(|state| &*state.client).collect::<Vec<_>>(), ["long"]);
    until("the journal to forget the other", async || again.journal.state().sessions.len() == 1).await;
}

#[tokio::test]
async fn a_long_queue_is_read_in_parts_and_in_order() {
    let node = Node::new().await;
    let (mut to, _) = Client::connect(node.address, New, "to", kept()).await;
    to.subscribe("t", 1).await;
    to.bye().await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    let count = 1_500_u16;
    for n in 1..=count {
        from.publish("t", &n.to_be_bytes(), 1, n).await;
        if n % 100 == 0 {
            for n in n - 99..=n {
                assert_eq!(from.get().await, Got::PubAck(n, 0));
            }
        }
    }
    let (mut to, _) = Client::connect(node.address, New, "to", kept()).await;
    for n in 1..=count {
        if n == count / 2 {
            // What comes meanwhile comes after what was there.
            from.put("t", &(count + 1).to_be_bytes()).await;
        }
        let got = to.message().await;
        assert_eq!(got.payload[..], n.to_be_bytes());
        to.ack(0x40, got.packet_id.unwrap().get()).await;
    }
    let got = to.message().await;
    assert_eq!(got.payload[..], (count + 1).to_be_bytes());
    to.ack(0x40, got.packet_id.unwrap().get()).await;
    from.put("t", b"last").await;
    assert_eq!(to.message().await.payload[..], b"last"[..]);
    assert!(node.journal.reads() >= 10, "it was read in parts");
    until("the journal to forget what was acknowledged", async || node.journal.queued("to") == 1).await;
}

/// Found by killing a node under load: a session that had seen more than 65,000 messages lost what came while it connected.
#[tokio::test]
async fn an_old_session_loses_nothing_while_it_connects() {
    let node = Node::new().await;
    let (mut to, _) = Client::connect(node.address, New, "to", kept()).await;
    to.subscribe("t", 1).await;
    to.bye().await;
    node.gone("to").await;
    node.broker.stop().await;
    node.journal.edit(|state| state.sessions.get_mut("to").unwrap().record.sent_seq = 70_000);
    let again = node.crash(Duration::ZERO).await;
    let (mut from, _) = Client::connect(again.address, New, "from", fresh()).await;
    from.put("t", b"1").await;
    again.journal.hold();
    let address = again.address;
    let connecting = tokio::spawn(async move { Client::connect(address, New, "to", kept()).await });
    until("the connection to be on its way", async || again.journal.held() > 0).await;
    from.publish("t", b"2", 1, 2).await;
    until("the message to be on its way", async || again.journal.held() > 1).await;
    again.journal.release();
    assert_eq!(from.get().await, Got::PubAck(2, 0));
    let (mut to, present) = connecting.await.unwrap();
    assert!(present);
    for payload in [b"1", b"2"] {
        let got = to.message().await;
        assert_eq!((&got.payload[..], got.dup), (&payload[..], false));
    }
    assert_eq!(again.broker.counts().dropped_full, 0);
}

/// Packet identifiers come around after 65,535 messages.
#[tokio::test]
async fn packet_identifiers_come_around() {
    let node = Node::new().await;
    let (to, _) = Client::connect(node.address, New, "to", kept()).await;
    to.bye().await;
    node.gone("to").await;
    node.broker.stop().await;
    node.journal.edit(|state| state.sessions.get_mut("to").unwrap().record.sent_seq = 65_530);
    let again = node.crash(Duration::ZERO).await;
    let (mut to, _) = Client::connect(again.address, New, "to", kept()).await;
    to.subscribe("t", 1).await;
    let (mut from, _) = Client::connect(again.address, New, "from", fresh()).await;
    let mut packets = Vec::new();
    for _ in 0..10 {
        from.put("t", b"x").await;
        packets.push(to.message().await.packet_id.unwrap().get());
    }
    assert_eq!(packets, [65_532, 65_533, 65_534, 65_535, 1, 2, 3, 4, 5, 6]);
    packets.iter().for_each(|packet| assert!(*packet > 0));
    for packet in packets {
        to.ack(0x40, packet).await;
    }
    until("the queue to be empty", async || again.journal.queued("to") == 0).await;
}

#[tokio::test]
async fn a_session_belongs_to_its_user() {
    let access = users(&["ann", "bob"]);
    let node = Node::with(Limits::default(), access, Default::default(), Duration::ZERO).await;
    let (_ann, _) = Client::connect(node.address, New, "pump", Hello { user: Some(("ann", "pw")), ..kept() }).await;
    for clean in [true, false] {
        let mut bob = Client::open(node.address, New).await;
        let hello = Hello { user: Some(("bob", "pw")), clean, ..kept() };
        assert!(matches!(bob.hello("pump", hello).await, Got::ConnAck(false, 0x87, _)));
    }
}

#[tokio::test]
async fn a_session_that_has_ended_is_not_there_again_though_its_end_could_not_be_kept_at_once() {
    for by_client in [true, false] {
        let node = Node::new().await;
        let (mut client, _) = Client::connect(node.address, New, "a", kept()).await;
        node.journal.fail(Some(Kind::StorageFull));
        if by_client {
            // A farewell that sets the expiry to 0.
            client.raw(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0]).await;
            assert_eq!(client.get().await, Got::End);
        } else {
            assert!(node.broker.disconnect("a", true).await.unwrap());
            client.closed(0x98).await;
        }
        until("the session to end", async || node.broker.counts().sessions == 0).await;
        until("its end to fail", async || node.broker.counts().commits_failed > 0).await;
        assert_eq!(node.journal.state().sessions.len(), 1);
        node.journal.fail(None);
        until("its end to be kept", async || node.journal.state().sessions.is_empty()).await;
    }
}

#[tokio::test]
async fn a_clean_start_that_cannot_forget_the_old_session_is_refused() {
    for version in BOTH {
        let node = Node::new().await;
        let (client, _) = Client::connect(node.address, version, "a", kept()).await;
        client.bye().await;
        node.gone("a").await;
        node.journal.fail(Some(Kind::StorageFull));
        let mut client = Client::open(node.address, version).await;
        let got = client.hello("a", fresh()).await;
        assert!(
            matches!((version, &got), (Old, Got::ConnAck(false, 3, _)) | (New, Got::ConnAck(false, 0x97, _))),
            "{got:?}"
        );
        node.journal.fail(None);
        until("the old session to be forgotten", async || node.journal.state().sessions.is_empty()).await;
        let (_client, present) = Client::connect(node.address, version, "a", kept()).await;
        assert!(!present);
    }
}

/// What is written again is what a session is by then: it comes after what is under way already.
#[tokio::test]
async fn a_new_session_outlives_the_end_of_the_old_one_that_could_not_be_kept() {
    let node = Node::new().await;
    let (mut old, _) = Client::connect(node.address, New, "a", kept()).await;
    assert_eq!(old.subscribe("old", 1).await, 1);
    node.journal.hold();
    assert!(node.broker.disconnect("a", true).await.unwrap());
    until("its end to be on its way", async || node.journal.held() == 1).await;
    let address = node.address;
    let connecting = tokio::spawn(async move { Client::connect(address, New, "a", kept()).await });
    until("the new session to be on its way", async || node.journal.held() == 2).await;
    node.journal.fail_first(Kind::StorageFull);
    node.journal.release();
    let (mut new, present) = connecting.await.unwrap();
    assert!(!present);
    assert_eq!(new.subscribe("new", 1).await, 1);
    let state = node.journal.state();
    assert_eq!(state.sessions["a"].subscriptions.keys().map(|filter| &**filter).collect::<Vec<_>>(), ["new"]);
}
