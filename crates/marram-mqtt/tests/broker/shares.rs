//! Nobody has more of what is limited for all than there is left for others.

use std::time::Duration;

use bytes::Bytes;
use marram_core::port::mqtt::{Publication, Qos};
use marram_mqtt::Limits;

use crate::client::{Client, Got, Hello, New, Old, fresh, kept, message};
use crate::fixture::Log;
use crate::journal::Memory;
use crate::node::{Node, until, users};

fn of(user: &'static str, hello: Hello) -> Hello {
    Hello { user: Some((user, "pw")), ..hello }
}

async fn of_two_users(limits: Limits, journal: Memory) -> Node {
    Node::with(limits, users(&["greedy", "other"]), journal, Duration::ZERO).await
}

#[tokio::test]
async fn one_user_does_not_take_all_sessions() {
    let limits = Limits { sessions: 8, ..Limits::default() };
    let node = of_two_users(limits.clone(), Memory::default()).await;
    let open = async |node: &Node, user, name: &str| {
        let mut client = Client::open(node.address, New).await;
        let Got::ConnAck(_, code, _) = client.hello(name, of(user, kept())).await else { panic!("no CONNACK") };
        code
    };
    for n in 0..8 {
        assert_eq!(open(&node, "greedy", &format!("g{n}")).await, if n < 4 { 0 } else { 0x97 }, "{n}");
    }
    assert_eq!(open(&node, "greedy", "g0").await, 0, "a session that is there is taken up");
    assert_eq!([open(&node, "other", "o0").await, open(&node, "other", "o1").await], [0, 0]);
    // Who a session belongs to is known after a start as well.
    node.broker.stop().await;
    let node = of_two_users(limits, node.journal.crash()).await;
    assert_eq!(open(&node, "greedy", "g9").await, 0x97);
    for n in 0..4 {
        assert!(node.broker.disconnect(&format!("g{n}"), true).await.unwrap());
    }
    assert_eq!(open(&node, "greedy", "g9").await, 0, "there is room again");
}

#[tokio::test]
async fn one_address_does_not_take_all_connections() {
    let node = Node::limited(Limits { connections: 6, ..Limits::default() }).await;
    let mut open = Vec::new();
    for name in ["a", "b", "c"] {
        open.push(Client::connect(node.address, New, name, fresh()).await);
    }
    let mut fourth = Client::open(node.address, New).await;
    assert_eq!(fourth.get().await, Got::End);
    open.pop();
    node.gone("c").await;
    until("a place to be free", async || node.broker.counts().connections == 2).await;
    Client::connect(node.address, New, "d", fresh()).await;
}

#[tokio::test]
async fn one_user_does_not_take_all_subscriptions() {
    let node = of_two_users(Limits { filters: 8, ..Limits::default() }, Memory::default()).await;
    let (mut greedy, _) = Client::connect(node.address, New, "greedy", of("greedy", fresh())).await;
    for n in 0..8 {
        assert_eq!(greedy.subscribe(&format!("g/{n}"), 0).await, if n < 4 { 0 } else { 0x97 }, "{n}");
    }
    let (mut other, _) = Client::connect(node.address, New, "other", of("other", fresh())).await;
    assert_eq!(other.subscribe("o", 0).await, 0);
    for n in 0..2 {
        assert_eq!(greedy.unsubscribe(&format!("g/{n}")).await, [0]);
    }
    assert_eq!(greedy.subscribe("again", 0).await, 0);
    greedy.drop_dead().await;
    node.gone("greedy").await;
    assert_eq!(other.subscribe("p", 0).await, 0);
    assert_eq!(other.subscribe("q", 0).await, 0, "what has ended takes nothing");
}

#[tokio::test]
async fn one_user_does_not_take_all_retained_messages() {
    let limits = Limits { retained: 8, ..Limits::default() };
    let node = of_two_users(limits, Memory::default()).await;
    let (mut greedy, _) = Client::connect(node.address, New, "greedy", of("greedy", fresh())).await;
    for n in 0..8_u16 {
        let retained = message(&format!("g/{n}"), b"x", 1, n + 1);
        greedy.publish_with(rmqtt_codec::types::Publish { retain: true, ..retained }).await;
    }
    for n in 0..8 {
        let Got::PubAck(packet, code) = greedy.get().await else { panic!("no PUBACK {n}") };
        assert_eq!(code == 0x97, packet > 4, "{packet}: {code}");
    }
    greedy.retain("g/0", b"y", 1).await;
    let (mut other, _) = Client::connect(node.address, Old, "other", of("other", fresh())).await;
    other.retain("o/0", b"x", 1).await;
    other.retain("o/1", b"x", 1).await;
    let topic = "functions".to_owned();
    let publication = Publication { topic, retain: true, payload: Bytes::from_static(b"x"), ..Publication::default() };
    node.broker.publish(publication).await.expect("the node's own has what is left");
}

/// Many that read and never acknowledge, of all that comes: who reads and acknowledges misses nothing.
#[tokio::test]
async fn those_who_never_acknowledge_lose_and_nobody_else() {
    let log = Log::default();
    let _listening = log.listen();
    let node = Node::limited(Limits { memory_bytes: 2 << 20, connections: 100, ..Limits::default() }).await;
    for n in 0..40 {
        let (mut client, _) = Client::connect(node.address, New, &format!("deaf-{n}"), fresh()).await;
        client.subscribe("flood", 1).await;
        tokio::spawn(async move { while client.get().await != Got::End {} });
    }
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    for size in [4_000, 1] {
        for _ in 0..250 {
            from.put("flood", &vec![7; size]).await;
        }
    }
    let counts = node.broker.counts();
    assert!(counts.dropped_full > 0, "{counts:?}");
    assert!(counts.memory < 2 << 20, "{counts:?}");
    assert_eq!(log.count("the queue of an MQTT session is full"), 40, "once each");
    for (level, hello) in [(0, fresh()), (1, fresh()), (1, kept())] {
        let (mut to, _) = Client::connect(node.address, New, "to", hello).await;
        to.subscribe("calm", level).await;
        for n in 0..50_u8 {
            from.put("calm", &[n; 100]).await;
        }
        for n in 0..50_u8 {
            let got = to.message().await;
            assert_eq!(got.payload[..], [n; 100]);
            if let Some(packet) = got.packet_id {
                to.ack(0x40, packet.get()).await;
            }
        }
        to.bye().await;
    }
    assert_eq!(node.broker.counts().dropped_slow, 0);
}

/// More than the window and a thousand messages or 1 MiB: what is in memory alone waits as what is on the disk does.
#[tokio::test]
async fn a_session_that_ends_with_its_connection_has_a_queue_while_it_lasts() {
    let node = Node::new().await;
    let (mut to, _) = Client::connect(node.address, Old, "to", fresh()).await;
    to.subscribe("t", 1).await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    for (count, size) in [(3_000_u32, 4), (2_500, 1_000)] {
        let payload = |n: u32| [&n.to_be_bytes()[..], &vec![0; size - 4]].concat();
        for n in 0..count {
            from.put("t", &payload(n)).await;
        }
        for n in 0..count {
            let got = to.message().await;
            assert_eq!(got.payload[..], payload(n));
            to.ack(0x40, got.packet_id.unwrap().get()).await;
        }
    }
    assert_eq!(node.broker.counts().dropped_full, 0);
}

/// A client that is slow with QoS 0 is said to be once.
#[tokio::test]
async fn that_a_client_is_too_slow_is_said_once() {
    let log = Log::default();
    let _listening = log.listen();
    let node = Node::limited(Limits { outbound_bytes: 100_000, ..Limits::default() }).await;
    let (mut deaf, _) = Client::connect(node.address, Old, "deaf", fresh()).await;
    deaf.subscribe("t", 0).await;
    let flood = async || {
        let payload = Bytes::from(vec![7; 64 << 10]);
        let qos = Qos::AtMostOnce;
        node.broker.publish(Publication { topic: "t".into(), payload, qos, ..Publication::default() }).await.unwrap();
        tokio::task::yield_now().await;
        node.broker.counts().dropped_slow > 50
    };
    until("messages to be dropped", flood).await;
    assert_eq!(log.count("too slowly"), 1);
    drop(deaf);
}

/// Many that never acknowledge have most of the memory: a member that inherits gets what fits, and the rest when it has taken that.
#[tokio::test]
async fn what_is_handed_over_while_memory_is_short_is_not_lost() {
    const COUNT: u8 = 130;
    let node = Node::limited(Limits { memory_bytes: 256 << 10, connections: 100, ..Limits::default() }).await;
    let (mut first, _) = Client::connect(node.address, New, "first", kept()).await;
    first.subscribe("$share/g/jobs", 1).await;
    first.bye().await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    for n in 0..COUNT {
        from.put("jobs", &[n; 1_000]).await;
    }
    for n in 0..40 {
        let (mut client, _) = Client::connect(node.address, New, &format!("deaf-{n}"), fresh()).await;
        client.subscribe(&format!("flood/{n}"), 1).await;
        tokio::spawn(async move { while client.get().await != Got::End {} });
    }
    for _ in 0..200 {
        for n in 0..40 {
            from.put(&format!("flood/{n}"), &[7; 200]).await;
        }
    }
    let dropped = node.broker.counts().dropped_full;
    assert!(dropped > 0, "memory is short");
    let (mut second, _) =
        Client::connect(node.address, New, "second", Hello { receive_max: Some(10), ..fresh() }).await;
    second.subscribe("$share/g/jobs", 1).await;
    assert!(node.broker.disconnect("first", true).await.unwrap());
    let mut taken = Vec::new();
    while taken.len() < usize::from(COUNT) {
        let got = second.message().await;
        taken.push(got.payload[0]);
        second.ack(0x40, got.packet_id.unwrap().get()).await;
    }
    taken.sort_unstable();
    assert_eq!(taken, (0..COUNT).collect::<Vec<_>>());
    until("the old session to be forgotten", async || node.journal.state().sessions.is_empty()).await;
    assert_eq!(node.broker.counts().dropped_full, dropped);
}
