//! CONNECT and CONNACK, keep-alive, farewells, malformed packets.

use std::time::{Duration, Instant};

use marram_core::port::mqtt::{Publication, Qos};
use marram_mqtt::Limits;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::client::{BOTH, Client, Got, Hello, New, Old, Will, fresh, kept, message, qos};
use crate::node::Node;

#[tokio::test]
async fn a_client_is_accepted_with_what_it_may_use() {
    let node = Node::new().await;
    let mut old = Client::open(node.address, Old).await;
    assert_eq!(old.hello("a", fresh()).await, Got::ConnAck(false, 0, None));
    let mut new = Client::open(node.address, New).await;
    let Got::ConnAck(false, 0, Some(granted)) = new.hello("b", Hello { keep_alive: 60, ..fresh() }).await else {
        panic!("not accepted")
    };
    assert_eq!((granted.receive_max.get(), granted.topic_alias_max), (256, 16));
    assert_eq!(granted.max_packet_size, Some(1 << 20));
    assert_eq!((granted.session_expiry_interval_secs, granted.server_keepalive_sec), (None, None));
    assert_eq!((granted.assigned_client_id, granted.auth_method, granted.response_info), (None, None, None));
    assert_eq!(granted.max_qos, qos(2));
    assert!(granted.retain_available && granted.wildcard_subscription_available);
    assert!(granted.subscription_identifiers_available && granted.shared_subscription_available);
}

#[tokio::test]
async fn what_is_asked_for_beyond_the_limits_is_granted_within_them() {
    let node = Node::limited(Limits { session_expiry_s: 100, keep_alive_s: 50, ..Limits::default() }).await;
    let mut client = Client::open(node.address, New).await;
    let Got::ConnAck(_, 0, Some(granted)) = client.hello("a", Hello { expiry: 101, ..fresh() }).await else {
        panic!("not accepted")
    };
    assert_eq!((granted.session_expiry_interval_secs, granted.server_keepalive_sec), (Some(100), Some(50)));
}

#[tokio::test]
async fn a_client_without_an_identifier_gets_one_of_its_own() {
    let node = Node::new().await;
    let mut seen = Vec::new();
    for hello in [fresh(), kept()] {
        let mut client = Client::open(node.address, New).await;
        let Got::ConnAck(false, 0, Some(granted)) = client.hello("", hello).await else { panic!("not accepted") };
        let assigned = granted.assigned_client_id.expect("an identifier is assigned").to_string();
        assert!(!seen.contains(&assigned));
        let clients = node.broker.clients().await.unwrap();
        assert!(clients.iter().any(|state| *state.client == *assigned));
        seen.push(assigned);
    }
    let mut old = Client::open(node.address, Old).await;
    assert_eq!(old.hello("", fresh()).await, Got::ConnAck(false, 0, None));
    // 3.1.1 has no way to tell the identifier: without a clean session it is refused.
    let mut old = Client::open(node.address, Old).await;
    old.raw(&[0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, 0, 0, 0, 0, 0]).await;
    assert_eq!((old.get().await, old.get().await), (Got::ConnAck(false, 2, None), Got::End));
}

#[tokio::test]
async fn every_character_that_an_identifier_must_be_allowed_is() {
    let node = Node::new().await;
    let all = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for version in BOTH {
        for id in all.as_bytes().chunks(23).chain([&b"a"[..]]) {
            Client::connect(node.address, version, std::str::from_utf8(id).unwrap(), fresh()).await;
        }
    }
}

#[tokio::test]
async fn other_versions_and_other_protocols_are_refused() {
    let node = Node::new().await;
    // 0x84 is what a bridge of mosquitto begins with: 3.1.1 with more to it.
    for level in [3, 0x84, 0x83] {
        let mut unknown = Client::open(node.address, Old).await;
        unknown.raw(&[&b"\x10\x0d\0\x04MQTT"[..], &[level], b"\x02\0\0\0\x01a"].concat()).await;
        assert_eq!((unknown.get().await, unknown.get().await), (Got::ConnAck(false, 1, None), Got::End));
    }
    let mut later = Client::open(node.address, New).await;
    later.raw(b"\x10\x0e\0\x04MQTT\x06\x02\0\0\0\0\x01a").await;
    let Got::ConnAck(false, 0x84, _) = later.get().await else { panic!("6 is not 5") };
    assert_eq!(later.get().await, Got::End);
    for stranger in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x10\x0d\0\x04MQTX\x04\x02\0\0\0\x01a", b"\xc0\0", b"\x16\x03\x01"]
    {
        let mut client = Client::open(node.address, Old).await;
        client.raw(stranger).await;
        assert_eq!(client.get().await, Got::End, "{stranger:?}");
    }
}

#[tokio::test]
async fn a_connect_that_is_wrong_ends_the_connection() {
    let node = Node::new().await;
    for bytes in [
        &b"\x10\x0d\0\x04MQTT\x04\x03\0\0\0\x01a"[..],   // the reserved flag
        b"\x10\x0d\0\x04MQTT\x04\x0a\0\0\0\x01a",        // a will's QoS without a will
        b"\x10\x0d\0\x04MQTT\x04\x22\0\0\0\x01a",        // a retained will without a will
        b"\x10\x10\0\x04MQTT\x04\x42\0\0\0\x01a\0\x01p", // a password without a user
        b"\x10\x0d\0\x04MQTT\x04\x82\0\0\0\x01a",        // a user that is not there
        b"\x10\x0d\0\x04MQTT\x04\x06\0\0\0\x01a",        // a will that is not there
        b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01\xff",     // not UTF-8
        b"\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x01a!",       // something behind it
    ] {
        let mut client = Client::open(node.address, Old).await;
        client.raw(bytes).await;
        assert_eq!(client.get().await, Got::End, "{bytes:?}");
    }
    assert_eq!(node.broker.counts().sessions, 0);
}

#[tokio::test]
async fn a_will_that_cannot_be_published_is_refused() {
    let node = Node::new().await;
    for topic in ["a/+", "$SYS/a", ""] {
        let mut client = Client::open(node.address, New).await;
        let hello = Hello { will: Some(Will { topic, ..Will::default() }), ..fresh() };
        let Got::ConnAck(false, 0x87 | 0x90, _) = client.hello("a", hello).await else { panic!("{topic:?} was taken") };
        assert_eq!(client.get().await, Got::End);
    }
}

#[tokio::test]
async fn authentication_methods_are_refused() {
    let node = Node::new().await;
    let mut client = Client::open(node.address, New).await;
    let Got::ConnAck(false, 0x8c, Some(ack)) = client.hello("a", Hello { method: Some("SCRAM"), ..fresh() }).await
    else {
        panic!("accepted")
    };
    assert_eq!((ack.auth_method, client.get().await), (None, Got::End));
    let (mut client, _) = Client::connect(node.address, New, "b", fresh()).await;
    client.raw(&[0xf0, 0]).await;
    client.closed(0x82).await;
}

#[tokio::test]
async fn a_second_connect_ends_the_connection() {
    let node = Node::new().await;
    for version in BOTH {
        let (mut client, _) = Client::connect(node.address, version, "a", fresh()).await;
        client.raw(b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a").await;
        client.closed(0x82).await;
    }
}

#[tokio::test]
async fn what_comes_with_a_refused_connect_is_not_looked_at() {
    let node = Node::with(Limits::default(), Default::default(), Default::default(), Duration::ZERO).await;
    node.journal.capture("#");
    for (version, refused, bytes) in [
        (Old, 5, &b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a\x30\x04\0\x01tx"[..]),
        (New, 0x87, b"\x10\x0e\0\x04MQTT\x05\x02\0\0\0\0\x01a\x30\x05\0\x01t\0x"),
    ] {
        let mut client = Client::open(node.address, version).await;
        client.raw(bytes).await;
        let Got::ConnAck(false, code, _) = client.get().await else { panic!("no CONNACK") };
        assert_eq!((code, client.get().await), (refused, Got::End));
    }
    assert_eq!((node.broker.counts().received, node.journal.state().events.len()), (0, 0));
}

#[tokio::test]
async fn a_client_may_send_before_its_connack() {
    let node = Node::new().await;
    let mut client = Client::open(node.address, Old).await;
    client.raw(b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a\x82\x06\0\x07\0\x01t\x01\x30\x04\0\x01tx\xc0\0").await;
    assert_eq!(client.get().await, Got::ConnAck(false, 0, None));
    let rest = [client.get().await, client.get().await, client.get().await];
    assert!(rest.contains(&Got::SubAck(7, vec![1])) && rest.contains(&Got::Pong), "{rest:?}");
    assert!(rest.contains(&Got::Message(Box::new(message("t", b"x", 0, 0)))), "{rest:?}");
}

#[tokio::test]
async fn a_ping_is_answered() {
    let node = Node::new().await;
    for version in BOTH {
        let (mut client, _) = Client::connect(node.address, version, "a", fresh()).await;
        client.ping().await;
        assert_eq!(client.get().await, Got::Pong);
    }
}

#[tokio::test]
async fn a_silent_client_is_cut_after_one_and_a_half_times_its_keep_alive() {
    let node = Node::new().await;
    let (mut watcher, _) = Client::connect(node.address, Old, "w", fresh()).await;
    watcher.subscribe("gone", 0).await;
    for version in BOTH {
        let will = Some(Will { topic: "gone", payload: b"x", ..Will::default() });
        let since = Instant::now();
        let (mut client, _) =
            Client::connect(node.address, version, "a", Hello { keep_alive: 1, will, ..fresh() }).await;
        client.closed(0x8d).await;
        let silence = since.elapsed();
        assert!(silence >= Duration::from_millis(1_500), "cut after {silence:?}");
        assert_eq!(&*watcher.message().await.topic, "gone");
    }
}

#[tokio::test]
async fn pings_keep_a_connection() {
    let node = Node::new().await;
    let (mut client, _) = Client::connect(node.address, New, "a", Hello { keep_alive: 1, ..fresh() }).await;
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(2) {
        client.ping().await;
        assert_eq!(client.get().await, Got::Pong);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_connection_without_a_connect_is_cut() {
    let node = Node::limited(Limits { connect_time: Duration::from_millis(100), ..Limits::default() }).await;
    for sent in [&b""[..], b"\x10", b"\x10\x0d\0\x04MQT"] {
        let mut client = Client::open(node.address, Old).await;
        client.raw(sent).await;
        assert_eq!(client.get().await, Got::End);
    }
}

#[tokio::test]
async fn half_a_packet_is_not_waited_for_for_ever() {
    let node = Node::limited(Limits { packet_time: Duration::from_millis(100), ..Limits::default() }).await;
    for version in BOTH {
        let (mut client, _) = Client::connect(node.address, version, "a", fresh()).await;
        client.raw(&[0x30, 100, 0]).await;
        client.closed(0x81).await;
    }
}

#[tokio::test]
async fn a_malformed_packet_ends_its_connection_and_no_other() {
    let node = Node::new().await;
    let (mut other, _) = Client::connect(node.address, New, "other", fresh()).await;
    for (bytes, reason) in [
        (&[0x00, 0][..], 0x81),
        (&[0x36, 4, 0, 1, b'a', 0], 0x81),
        (&[0x60, 2, 0, 1], 0x81),
        (&[0x82, 2, 0, 1], 0x82), // 3.1.1: no filter
        (&[0x82, 3, 0, 1, 0], 0x82),
        (&[0x30, 0x80, 0x80, 0x80, 0x80, 0x01], 0x81),
        (&[0x30, 0xff, 0xff, 0xff, 0x7f], 0x95),
        (&[0xd0, 0], 0x82),
    ] {
        for version in BOTH {
            if bytes[0] == 0x82 && (version == New) != (bytes.len() == 5) {
                continue;
            }
            let (mut client, _) = Client::connect(node.address, version, "a", fresh()).await;
            client.raw(bytes).await;
            client.closed(reason).await;
        }
    }
    assert_eq!(other.quiet().await, []);
}

#[tokio::test]
async fn packets_arrive_in_any_pieces() {
    let node = Node::new().await;
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let bytes = b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a\x82\x06\0\x07\0\x01t\x01\x32\x06\0\x01t\0\x05x\xc0\0";
    for byte in bytes {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut client = Client::over(stream, Old);
    assert_eq!(client.get().await, Got::ConnAck(false, 0, None));
    let mut rest = vec![client.get().await, client.get().await, client.get().await, client.get().await];
    rest.retain(|got| !matches!(got, Got::Message(_)));
    assert_eq!(rest.len(), 3);
    assert!(rest.contains(&Got::PubAck(5, 0)) && rest.contains(&Got::SubAck(7, vec![1])), "{rest:?}");
}

#[tokio::test]
async fn a_drain_tells_clients_and_answers_what_they_sent() {
    let node = Node::new().await;
    node.journal.capture("#");
    let (mut new, _) = Client::connect(node.address, New, "new", fresh()).await;
    let (mut old, _) = Client::connect(node.address, Old, "old", fresh()).await;
    node.journal.hold();
    new.publish("t", b"x", 1, 7).await;
    old.publish("t", b"x", 1, 8).await;
    crate::node::until("the messages to be on their way", async || {
        node.journal.held() > 0 && node.broker.counts().received == 2
    })
    .await;
    let broker = node.broker.clone();
    let stopped = tokio::spawn(async move { broker.stop().await });
    node.journal.release();
    assert_eq!(new.get().await, Got::PubAck(7, 0));
    new.closed(0x8b).await;
    assert_eq!(old.get().await, Got::PubAck(8, 0));
    old.closed(0x8b).await;
    assert_eq!(stopped.await.unwrap(), 0);
    assert!(TcpStream::connect(node.address).await.is_err());
    assert_eq!(node.journal.state().events.len(), 2);
}

#[tokio::test]
async fn a_drain_ends_when_what_was_under_way_is_kept() {
    let node = Node::new().await;
    node.journal.capture("#");
    node.journal.hold();
    let publications: Vec<_> = (1..=3)
        .map(|n| {
            let (broker, topic) = (node.broker.clone(), format!("t/{n}"));
            let publication = Publication { topic, qos: Qos::AtLeastOnce, ..Publication::default() };
            tokio::spawn(async move { broker.publish(publication).await })
        })
        .collect();
    crate::node::until("commits to be under way", async || node.journal.held() > 0).await;
    let broker = node.broker.clone();
    let stopped = tokio::spawn(async move { broker.stop().await });
    // The broker hears that it is to stop while they are under way: all of it runs on this thread.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert!(!stopped.is_finished());
    node.journal.release();
    assert_eq!(tokio::time::timeout(Duration::from_secs(20), stopped).await.unwrap().unwrap(), 0);
    for publication in publications {
        publication.await.unwrap().unwrap();
    }
}
