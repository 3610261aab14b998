//! Wills: published when a client goes without a farewell.

use std::time::{Duration, Instant};

use marram_core::Kind;
use marram_mqtt::{Limits, Peer};

use crate::client::{BOTH, Client, Got, Hello, New, Old, Will, fresh, kept, qos};
use crate::node::{Node, until};

fn will(level: u8, retain: bool, delay: u32) -> Option<Will> {
    Some(Will { topic: "will", payload: b"gone", qos: level, retain, delay })
}

#[tokio::test]
async fn a_will_is_published_when_the_connection_is_lost_and_not_after_a_farewell() {
    let node = Node::new().await;
    for version in BOTH {
        for level in 0..3 {
            for retain in [false, true] {
                let (mut watcher, _) = Client::connect(node.address, version, "watcher", fresh()).await;
                watcher.subscribe("will", 2).await;
                let hello = || Hello { will: will(level, retain, 0), ..fresh() };
                let (client, _) = Client::connect(node.address, version, "a", hello()).await;
                client.bye().await;
                node.gone("a").await;
                // Nor is there one where none was left.
                let (client, _) = Client::connect(node.address, version, "a", fresh()).await;
                client.drop_dead().await;
                node.gone("a").await;
                assert_eq!(watcher.quiet().await, []);
                let (client, _) = Client::connect(node.address, version, "a", hello()).await;
                client.drop_dead().await;
                let got = watcher.message().await;
                assert_eq!(
                    (&*got.topic, &got.payload[..], got.qos, got.retain),
                    ("will", &b"gone"[..], qos(level), false)
                );
                if version == New {
                    let said = got.properties.unwrap().user_properties;
                    assert_eq!(said, [("why".into(), "gone".into()), ("a".into(), "b".into())]);
                }
                node.gone("a").await;
                let (mut later, _) = Client::connect(node.address, version, "later", fresh()).await;
                later.subscribe("will", 2).await;
                if retain {
                    assert_eq!(later.message().await.payload[..], b"gone"[..]);
                    watcher.retain("will", b"", 1).await;
                } else {
                    assert_eq!(later.quiet().await, []);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_farewell_may_ask_for_the_will() {
    let node = Node::new().await;
    let (mut watcher, _) = Client::connect(node.address, New, "watcher", fresh()).await;
    watcher.subscribe("will", 0).await;
    let (mut client, _) = Client::connect(node.address, New, "a", Hello { will: will(0, false, 0), ..fresh() }).await;
    client.raw(&[0xe0, 1, 4]).await;
    assert_eq!(client.get().await, Got::End);
    assert_eq!(watcher.message().await.payload[..], b"gone"[..]);
}

/// Nor does the will wait for a peer that keeps its end open: time stands still unless everybody waits for it.
#[tokio::test(start_paused = true)]
async fn a_will_does_not_wait_for_the_end_of_the_socket() {
    let node = Node::new().await;
    let over = |version| {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        tokio::spawn(node.broker.serve(theirs, Peer::default()));
        Client::over(ours, version)
    };
    for version in BOTH {
        let (mut watcher, mut client) = (over(version), over(version));
        assert!(matches!(watcher.hello("watcher", fresh()).await, Got::ConnAck(_, 0, _)));
        watcher.subscribe("will", 0).await;
        let hello = Hello { will: will(0, false, 0), ..fresh() };
        assert!(matches!(client.hello("a", hello).await, Got::ConnAck(_, 0, _)));
        let began = tokio::time::Instant::now();
        client.raw(&[0x00, 0]).await;
        assert_eq!(watcher.message().await.payload[..], b"gone"[..]);
        assert!(began.elapsed() < Duration::from_millis(500), "it came after {:?}", began.elapsed());
        drop(client);
    }
}

#[tokio::test]
async fn a_protocol_error_is_no_farewell() {
    let node = Node::new().await;
    for version in BOTH {
        let (mut watcher, _) = Client::connect(node.address, version, "watcher", fresh()).await;
        watcher.subscribe("will", 0).await;
        let (mut client, _) =
            Client::connect(node.address, version, "a", Hello { will: will(0, false, 0), ..fresh() }).await;
        client.raw(&[0x00, 0]).await;
        client.closed(0x81).await;
        assert_eq!(watcher.message().await.payload[..], b"gone"[..]);
    }
}

#[tokio::test]
async fn a_will_waits_for_its_delay_and_not_longer_than_the_session() {
    let node = Node::new().await;
    let (mut watcher, _) = Client::connect(node.address, New, "watcher", fresh()).await;
    watcher.subscribe("will", 0).await;
    for (expiry, delay) in [(100, 1), (1, 100), (0, 100)] {
        let hello = Hello { will: will(0, false, delay), expiry, ..fresh() };
        let (client, _) = Client::connect(node.address, New, "a", hello).await;
        let since = Instant::now();
        client.drop_dead().await;
        watcher.message().await;
        let waited = since.elapsed();
        let least = Duration::from_secs(u64::from(expiry.min(delay)));
        assert!(waited >= least && waited < least + Duration::from_secs(5), "{waited:?} for {expiry} and {delay}");
    }
}

#[tokio::test]
async fn who_comes_back_in_time_has_no_will() {
    let node = Node::new().await;
    let (mut watcher, _) = Client::connect(node.address, New, "watcher", fresh()).await;
    watcher.subscribe("will", 0).await;
    let (client, _) = Client::connect(node.address, New, "a", Hello { will: will(0, false, 1), ..kept() }).await;
    client.drop_dead().await;
    let (mut client, present) = Client::connect(node.address, New, "a", kept()).await;
    assert!(present);
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(1_200) {
        assert_eq!(watcher.quiet().await, []);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A clean start ends the old session, and with it the will is due.
    client.ping().await;
    let (other, _) = Client::connect(node.address, New, "b", Hello { will: will(0, false, 100), ..kept() }).await;
    other.drop_dead().await;
    node.gone("b").await;
    assert_eq!(watcher.quiet().await, []);
    Client::connect(node.address, New, "b", fresh()).await;
    assert_eq!(watcher.message().await.payload[..], b"gone"[..]);
}

#[tokio::test]
async fn a_takeover_is_the_end_of_a_connection() {
    let node = Node::new().await;
    let (mut watcher, _) = Client::connect(node.address, New, "watcher", fresh()).await;
    watcher.subscribe("will", 0).await;
    let (_a, _) = Client::connect(node.address, New, "a", Hello { will: will(0, false, 0), ..kept() }).await;
    let (_b, _) = Client::connect(node.address, New, "a", kept()).await;
    assert_eq!(watcher.message().await.payload[..], b"gone"[..]);
}

#[tokio::test]
async fn a_will_survives_the_node() {
    for version in BOTH {
        for hello in [fresh(), kept()] {
            let node = Node::new().await;
            let (mut watcher, _) = Client::connect(node.address, version, "watcher", kept()).await;
            watcher.subscribe("will", 1).await;
            let (_client, _) =
                Client::connect(node.address, version, "a", Hello { will: will(1, false, 0), ..hello }).await;
            let again = node.crash(Duration::ZERO).await;
            let (mut watcher, present) = Client::connect(again.address, version, "watcher", kept()).await;
            assert!(present);
            let got = watcher.message().await;
            assert_eq!(got.payload[..], b"gone"[..]);
            watcher.ack(0x40, got.packet_id.unwrap().get()).await;
            until("the will to be forgotten", async || {
                again.journal.state().sessions.get("a").is_none_or(|session| session.record.will.is_none())
            })
            .await;
            // It is published once.
            until("the queue to be empty", async || again.journal.queued("watcher") == 0).await;
            let third = again.crash(Duration::ZERO).await;
            let (mut watcher, _) = Client::connect(third.address, version, "watcher", kept()).await;
            assert_eq!(watcher.quiet().await, []);
        }
    }
}

#[tokio::test]
async fn a_stop_keeps_wills_for_the_next_start() {
    let node = Node::new().await;
    let (mut watcher, _) = Client::connect(node.address, New, "watcher", kept()).await;
    watcher.subscribe("will", 1).await;
    let (client, _) = Client::connect(node.address, New, "a", Hello { will: will(1, false, 50), ..kept() }).await;
    node.broker.stop().await;
    drop(client);
    let again = node.crash(Duration::from_secs(60)).await;
    let (mut watcher, _) = Client::connect(again.address, New, "watcher", kept()).await;
    assert_eq!(watcher.message().await.payload[..], b"gone"[..]);
}

#[tokio::test]
async fn a_will_that_cannot_be_kept_is_not_forgotten() {
    let node = Node::new().await;
    let (client, _) = Client::connect(node.address, New, "a", Hello { will: will(1, true, 0), ..kept() }).await;
    node.journal.fail(Some(marram_core::Kind::StorageFull));
    client.drop_dead().await;
    node.gone("a").await;
    until("the will to be tried", async || node.broker.counts().rejected == 1).await;
    let again = node.crash(Duration::ZERO).await;
    until("the will to be published", async || again.journal.state().retained.contains_key("will")).await;
}

#[tokio::test]
async fn a_farewell_that_could_not_be_kept_at_once_takes_the_will_along() {
    let node = Node::new().await;
    let (client, _) = Client::connect(node.address, New, "a", Hello { will: will(1, false, 0), ..kept() }).await;
    node.journal.fail(Some(Kind::StorageFull));
    client.bye().await;
    until("the end of the connection to fail", async || node.broker.counts().commits_failed > 0).await;
    assert!(node.journal.state().sessions["a"].record.will.is_some());
    node.journal.fail(None);
    until("it to be kept", async || {
        let record = node.journal.state().sessions["a"].record.clone();
        record.will.is_none() && record.ended_unix_ns.is_some()
    })
    .await;
}

/// Its client has nobody to be told, and those who listen have to know.
#[tokio::test]
async fn a_will_that_there_is_no_room_to_retain_reaches_those_who_listen() {
    let node = Node::limited(Limits { retained: 2, ..Limits::default() }).await;
    for (version, hello) in [(New, fresh()), (New, kept()), (Old, fresh())] {
        let (mut panel, _) = Client::connect(node.address, version, "panel", fresh()).await;
        panel.subscribe("will", 2).await;
        panel.retain("a", b"x", 1).await;
        let hello = Hello { will: will(1, true, 0), ..hello };
        let (pump, _) = Client::connect(node.address, version, "pump", hello).await;
        pump.drop_dead().await;
        let got = panel.message().await;
        assert_eq!((&*got.topic, got.retain), ("will", false));
        node.gone("pump").await;
        // Said once, and not tried again.
        assert_eq!((node.broker.counts().retained, panel.quiet().await.len()), (1, 0));
    }
}
