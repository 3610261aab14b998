//! What is too much, and that it harms nobody else.

use std::time::Duration;

use marram_mqtt::Limits;

use crate::client::{BOTH, Client, Got, Hello, New, Old, fresh, kept, message, with};
use crate::node::{Node, until};

#[tokio::test]
async fn a_packet_over_the_limit_is_refused_before_it_is_kept() {
    let node = Node::limited(Limits { packet_bytes: 1_000, ..Limits::default() }).await;
    for version in BOTH {
        let (mut client, _) = Client::connect(node.address, version, "a", fresh()).await;
        // Fixed header 3, topic 3, and the rest; the empty properties of 5.0 are one byte.
        let most = if version == New { 993 } else { 994 };
        client.publish("t", &vec![0; most], 0, 0).await;
        assert_eq!(client.quiet().await, []);
        client.raw(&[0x30, 0xe6, 0x07]).await; // 998 bytes are to come, and 3 are there
        client.closed(0x95).await;
    }
    let mut client = Client::open(node.address, Old).await;
    client.raw(&[0x10, 0xff, 0xff, 0x7f]).await;
    assert_eq!(client.get().await, Got::End);
}

#[tokio::test]
async fn topics_are_limited() {
    let node = Node::new().await;
    for topic in ["x".repeat(1_025), "/".repeat(64), "a/+".into(), "#".into()] {
        for version in BOTH {
            let (mut client, _) = Client::connect(node.address, version, "a", fresh()).await;
            client.publish(&topic, b"", 0, 0).await;
            client.closed(0x90).await;
        }
    }
    let (mut client, _) = Client::connect(node.address, New, "a", fresh()).await;
    assert_eq!(client.subscribe(&"/".repeat(64), 0).await, 0x8f);
    client.put(&"/".repeat(63), b"").await;
}

#[tokio::test]
async fn more_open_messages_than_the_receive_maximum_end_a_5_0_connection_and_slow_a_3_1_1_one() {
    let node = Node::limited(Limits { receive_max: 4, ..Limits::default() }).await;
    node.journal.capture("#");
    let (mut new, _) = Client::connect(node.address, New, "new", fresh()).await;
    let (mut old, _) = Client::connect(node.address, Old, "old", fresh()).await;
    node.journal.hold();
    for n in 1..=5 {
        new.publish("t", b"x", 1, n).await;
    }
    new.closed(0x93).await;
    for n in 1..=100 {
        old.publish("t", b"x", 1, n).await;
    }
    // No ping is answered while it is not read from.
    until("as many to be read as may be", async || node.broker.counts().received >= 8).await;
    assert!(node.broker.counts().received <= 4 + 8, "no more is read");
    node.journal.release();
    for n in 1..=100 {
        assert_eq!(old.get().await, Got::PubAck(n, 0));
    }
    // QoS 2 messages are open until their PUBCOMP.
    let (mut new, _) = Client::connect(node.address, New, "new", fresh()).await;
    for n in 1..=4 {
        new.publish("t", b"x", 2, n).await;
        assert_eq!(new.get().await, Got::PubRec(n, 0));
    }
    new.ack(0x62, 1).await;
    assert_eq!(new.get().await, Got::PubComp(1, 0));
    new.publish("t", b"x", 2, 5).await;
    assert_eq!(new.get().await, Got::PubRec(5, 0));
    new.publish("t", b"x", 2, 6).await;
    new.closed(0x93).await;
    // 3.1.1 has no Receive Maximum: a client may send all that it has before it looks at the first PUBREC.
    let (mut old, _) = Client::connect(node.address, Old, "old", fresh()).await;
    for n in 1..=3_000 {
        old.publish("t", b"x", 2, n).await;
    }
    for n in 1..=3_000 {
        assert_eq!(old.get().await, Got::PubRec(n, 0));
    }
}

#[tokio::test]
async fn subscriptions_are_limited_for_a_client_and_for_all() {
    let node = Node::limited(Limits { filters_per_client: 3, filters: 8, ..Limits::default() }).await;
    for version in BOTH {
        let (mut a, _) = Client::connect(node.address, version, "a", fresh()).await;
        let (mut b, _) = Client::connect(node.address, version, "b", fresh()).await;
        let no = if version == New { 0x97 } else { 0x80 };
        for (filter, answer) in [("1", 0), ("2", 0), ("3", 0), ("4", no), ("1", 0)] {
            assert_eq!(a.subscribe(filter, 0).await, answer);
        }
        for (filter, answer) in [("1", 0), ("2", no)] {
            assert_eq!(b.subscribe(filter, 0).await, answer);
        }
        a.unsubscribe("1").await;
        assert_eq!(b.subscribe("2", 0).await, 0);
        a.bye().await;
        b.bye().await;
        node.gone("a").await;
        node.gone("b").await;
    }
}

#[tokio::test]
async fn sessions_and_connections_are_limited() {
    let node = Node::limited(Limits { sessions: 3, connections: 6, ..Limits::default() }).await;
    let (_a, _) = Client::connect(node.address, New, "a", fresh()).await;
    let (b, _) = Client::connect(node.address, New, "b", kept()).await;
    let mut c = Client::open(node.address, New).await;
    assert!(matches!(c.hello("c", fresh()).await, Got::ConnAck(false, 0x97, _)));
    assert_eq!(c.get().await, Got::End);
    b.bye().await;
    let mut c = Client::open(node.address, Old).await;
    assert_eq!(c.hello("c", fresh()).await, Got::ConnAck(false, 3, None), "a session without a connection counts too");
    drop(c);
    let (_b, present) = Client::connect(node.address, New, "b", kept()).await;
    assert!(present);
}

#[tokio::test]
async fn a_queue_that_is_full_drops_what_is_new_for_that_session_only() {
    let node = Node::limited(Limits { queue_messages: 5, ..Limits::default() }).await;
    for name in ["full", "other"] {
        let (mut to, _) = Client::connect(node.address, New, name, kept()).await;
        to.subscribe(if name == "full" { "#" } else { "t/9" }, 1).await;
        to.bye().await;
        node.gone(name).await;
    }
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    for n in 0..10 {
        from.put(&format!("t/{n}"), b"x").await;
    }
    let (mut full, _) = Client::connect(node.address, New, "full", kept()).await;
    for n in 0..5 {
        let got = full.message().await;
        assert_eq!(&*got.topic, &format!("t/{n}"));
        full.ack(0x40, got.packet_id.unwrap().get()).await;
    }
    assert_eq!(full.quiet().await, []);
    from.put("t/10", b"x").await;
    assert_eq!(&*full.message().await.topic, "t/10", "there is room again");
    let (mut other, _) = Client::connect(node.address, New, "other", kept()).await;
    assert_eq!(&*other.message().await.topic, "t/9");
    assert_eq!(node.broker.counts().dropped_full, 5);
    let clients = node.broker.clients().await.unwrap();
    assert_eq!(clients.iter().find(|state| *state.client == *"full").unwrap().dropped, 5);
}

#[tokio::test]
async fn the_bytes_of_a_queue_are_limited_too() {
    let node = Node::limited(Limits { queue_bytes: 10_000, ..Limits::default() }).await;
    let (mut to, _) = Client::connect(node.address, New, "to", kept()).await;
    to.subscribe("t", 1).await;
    to.bye().await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    for _ in 0..5 {
        from.put("t", &[0; 4_000]).await;
    }
    assert_eq!(node.journal.queued("to"), 2);
}

#[tokio::test]
async fn retained_messages_are_limited() {
    let node = Node::limited(Limits { retained: 3, ..Limits::default() }).await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    for topic in ["a", "b", "a"] {
        from.retain(topic, b"x", 1).await;
    }
    from.publish_with(rmqtt_codec::types::Publish { retain: true, ..message("c", b"x", 1, 5) }).await;
    assert_eq!(from.get().await, Got::PubAck(5, 0x97));
    from.retain("a", b"", 1).await;
    from.retain("c", b"x", 1).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_slows_nobody() {
    let write_time = Duration::from_secs(60);
    let limits = Limits { outbound_bytes: 100_000, memory_bytes: 16 << 20, write_time, ..Limits::default() };
    let node = Node::limited(limits).await;
    let (mut deaf, _) = Client::connect(node.address, New, "deaf", fresh()).await;
    deaf.subscribe("#", 1).await;
    let (mut deaf_kept, _) = Client::connect(node.address, New, "deaf-kept", kept()).await;
    deaf_kept.subscribe("#", 1).await;
    let (mut to, _) = Client::connect(node.address, New, "to", fresh()).await;
    to.subscribe("#", 1).await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    // More than the buffers of the sockets take.
    let payload = vec![7; 64 << 10];
    for n in 1..=400_u16 {
        let level = (n % 2) as u8;
        from.publish("t", &payload, level, if level > 0 { n } else { 0 }).await;
        if level > 0 {
            assert_eq!(from.get().await, Got::PubAck(n, 0));
        }
        let got = to.message().await;
        if let Some(packet) = got.packet_id {
            to.ack(0x40, packet.get()).await;
        }
    }
    let counts = node.broker.counts();
    assert!(counts.dropped_slow > 0 && counts.dropped_full > 0, "{counts:?}");
    assert!(counts.memory < 2_000_000, "{counts:?}");
    // The one with a session gets all of QoS 1, from the journal.
    let mut seen = 0;
    while seen < 200 {
        let got = deaf_kept.message().await;
        if let Some(packet) = got.packet_id {
            seen += 1;
            deaf_kept.ack(0x40, packet.get()).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_in_the_end() {
    let limits = Limits { write_time: Duration::from_millis(300), outbound_bytes: 64 << 20, ..Limits::default() };
    let node = Node::limited(limits).await;
    let (mut deaf, _) = Client::connect(node.address, Old, "deaf", fresh()).await;
    deaf.subscribe("#", 0).await;
    let (mut from, _) = Client::connect(node.address, Old, "from", fresh()).await;
    for _ in 0..200 {
        from.publish("t", &vec![7; 128 << 10], 0, 0).await;
    }
    node.gone("deaf").await;
    drop(deaf);
}

#[tokio::test]
async fn a_flood_does_not_keep_others_waiting() {
    let node = Node::new().await;
    node.journal.capture("#");
    let (mut flood, _) = Client::connect(node.address, Old, "flood", fresh()).await;
    let flooding = tokio::spawn(async move {
        for _ in 0..20_000 {
            flood.publish("flood", &[0; 200], 0, 0).await;
        }
        flood.quiet().await;
    });
    let (mut other, _) = Client::connect(node.address, New, "other", fresh()).await;
    let mut took = Vec::new();
    loop {
        let since = std::time::Instant::now();
        other.put("other", b"x").await;
        took.push(since.elapsed());
        if flooding.is_finished() {
            break;
        }
    }
    flooding.await.unwrap();
    let slow = nearly_slowest(took);
    assert!(slow < Duration::from_millis(500), "a message took {slow:?}");
}

/// As many filters as a client may have, each as deep as one may be, every one of them with wildcards that take the topic.
#[tokio::test]
async fn wildcards_at_every_level_slow_nobody() {
    let node = Node::new().await;
    let (mut greedy, _) = Client::connect(node.address, New, "greedy", fresh()).await;
    let deep = |n: usize| {
        let level = |at: usize| if (n >> (at % 8)) & 1 == 0 { "+" } else { "x" };
        let levels: Vec<_> = (0..63).map(level).collect();
        levels.join("/") + if n.is_multiple_of(2) { "/#" } else { "" }
    };
    for n in 0..256 {
        assert_eq!(greedy.subscribe(&deep(n), 0).await, 0, "{n}");
    }
    assert_eq!(greedy.subscribe("one/more", 0).await, 0x97);
    let (mut other, _) = Client::connect(node.address, New, "other", fresh()).await;
    let topic = ["x"; 63].join("/");
    let mut took = Vec::new();
    for _ in 0..200 {
        let since = std::time::Instant::now();
        other.put(&topic, b"x").await;
        took.push(since.elapsed());
        // However many of its filters take it, it comes once.
        assert_eq!(&*greedy.message().await.topic, &topic);
    }
    assert_eq!(greedy.quiet().await, []);
    let slow = nearly_slowest(took);
    assert!(slow < Duration::from_millis(200), "a message took {slow:?}");
}

/// The 95th percentile: the machine itself holds some up.
fn nearly_slowest(mut took: Vec<Duration>) -> Duration {
    took.sort();
    took[took.len().saturating_sub(1) * 95 / 100]
}

#[tokio::test]
async fn reasons_in_words_are_for_those_who_want_them_and_have_room() {
    let node = Node::new().await;
    node.journal.capture("#");
    node.journal.fail(Some(marram_core::Kind::StorageFull));
    let words = "the test says so".len() as u8;
    for (quiet, packet_max, length) in [(false, None, 7 + words), (true, None, 3), (false, Some(20), 3)] {
        for (level, first) in [(1, 0x40), (2, 0x50)] {
            let (mut client, _) = Client::connect(node.address, New, "a", Hello { quiet, packet_max, ..fresh() }).await;
            client.publish_with(with(message("t", b"x", level, 5), Default::default())).await;
            assert_eq!(client.bytes(5).await[..], [first, length, 0, 5, 0x97]);
        }
    }
}

#[tokio::test]
async fn a_small_packet_size_makes_refusals_short() {
    let node = Node::with(Limits::default(), Default::default(), Default::default(), Duration::ZERO).await;
    for (packet_max, has_words) in [(None, true), (Some(20), false)] {
        let mut client = Client::open(node.address, New).await;
        let Got::ConnAck(false, 0x87, Some(ack)) = client.hello("a", Hello { packet_max, ..fresh() }).await else {
            panic!("accepted")
        };
        assert_eq!(ack.reason_string.is_some(), has_words);
    }
    let node = Node::new().await;
    for (packet_max, bytes) in [(None, &[0xe0, 22, 0x81][..]), (Some(20), &[0xe0, 1, 0x81])] {
        let (mut client, _) = Client::connect(node.address, New, "a", Hello { packet_max, ..fresh() }).await;
        client.raw(&[0x30, 0x80, 0x00]).await;
        let came = client.bytes(3).await;
        assert_eq!((came[0], came[2], came[1] > 1), (bytes[0], bytes[2], bytes[1] > 1));
    }
}
