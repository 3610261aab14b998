//! Commits that fail while the client goes on: what was refused is not taken for kept, and what there was stays.

use marram_core::Kind;
use marram_core::port::mqtt::{Publication, Qos};
use rmqtt_codec::types::Publish;

use crate::client::{BOTH, Client, Got, New, Old, Version, kept, message};
use crate::node::{Node, until};

#[tokio::test]
async fn a_qos_2_message_that_is_repeated_while_its_commit_fails_is_not_received() {
    for version in BOTH {
        let node = Node::new().await;
        node.journal.capture("#");
        let (mut from, _) = Client::connect(node.address, version, "from", kept()).await;
        node.journal.hold();
        let again = Publish { dup: true, ..message("t", b"x", 2, 1) };
        from.publish("t", b"x", 2, 1).await;
        until("the commit to begin", async || node.journal.held() == 1).await;
        from.publish_with(again.clone()).await;
        until("both to be read", async || node.broker.counts().received == 2).await;
        node.journal.fail_first(Kind::StorageFull);
        match version {
            New => assert_eq!([from.get().await, from.get().await], [Got::PubRec(1, 0x97), Got::PubRec(1, 0x97)]),
            // It has no other word for it than silence, and sends it again when it is back.
            Old => assert_eq!(from.get().await, Got::End),
        }
        node.journal.release();
        // On the next connection it comes while the first commit is under way, and is tried by itself when that has failed.
        let (mut from, _) = Client::connect(node.address, version, "from", kept()).await;
        node.journal.hold();
        from.publish("t", b"x", 2, 1).await;
        until("the commit to begin", async || node.journal.held() == 1).await;
        let mut next = Client::open(node.address, version).await;
        let connecting = tokio::spawn(async move {
            let answer = next.hello("from", kept()).await;
            next.publish_with(again).await;
            (answer, next.get().await, next)
        });
        until("the connection to be on its way", async || node.journal.held() == 2).await;
        node.journal.fail_first(Kind::StorageFull);
        node.journal.release();
        let (answer, received, mut next) = connecting.await.unwrap();
        assert!(matches!(answer, Got::ConnAck(true, 0, _)));
        assert_eq!(received, Got::PubRec(1, 0));
        assert_eq!(node.journal.state().events.len(), 1, "what is received is kept");
        next.ack(0x62, 1).await;
        assert_eq!(next.get().await, Got::PubComp(1, 0));
    }
}

#[tokio::test]
async fn a_3_1_1_client_gets_no_acknowledgement_after_one_that_it_did_not_get() {
    for level in [1, 2] {
        let node = Node::new().await;
        node.journal.capture("#");
        let (mut from, _) = Client::connect(node.address, Old, "from", kept()).await;
        node.journal.hold();
        for packet in 1..=2 {
            from.publish("t", &[packet], level, packet.into()).await;
            until("its commit to begin", async || node.journal.held() == usize::from(packet)).await;
        }
        // Both end before the connection has its turn.
        node.journal.fail_first(Kind::StorageFull);
        node.journal.release();
        assert_eq!(from.get().await, Got::End);
        assert_eq!(node.journal.state().events.len(), 1, "the second was kept");
    }
}

/// A SUBSCRIBE to the filter `t`, as it is on the wire.
fn subscribe(version: Version, level: u8) -> Vec<u8> {
    match version {
        Old => vec![0x82, 6, 0, 1, 0, 1, b't', level],
        New => vec![0x82, 7, 0, 1, 0, 0, 1, b't', level],
    }
}

/// An UNSUBSCRIBE from it.
fn unsubscribe(version: Version) -> Vec<u8> {
    match version {
        Old => vec![0xa2, 5, 0, 2, 0, 1, b't'],
        New => vec![0xa2, 6, 0, 2, 0, 0, 1, b't'],
    }
}

/// Two packets about a filter that is there with QoS 2 are under way at once: the first `removes` it or asks for QoS 0, the
/// second asks for QoS 1. Each is kept, or is not. What there is then, and what the next start finds.
async fn check(version: Version, removes: bool, kept_of_both: [bool; 2], expected: Option<u8>) {
    let case = (version, removes, kept_of_both);
    let node = Node::new().await;
    let (mut to, _) = Client::connect(node.address, version, "to", kept()).await;
    assert_eq!(to.subscribe("t", 2).await, 2);
    node.journal.hold();
    let first = if removes { unsubscribe(version) } else { subscribe(version, 0) };
    for (packet, held) in [(first, 1), (subscribe(version, 1), 2)] {
        to.raw(&packet).await;
        until("its commit to begin", async || node.journal.held() == held).await;
    }
    for well in kept_of_both {
        if well {
            node.journal.keep_first();
        } else {
            node.journal.fail_first(Kind::StorageFull);
        }
    }
    node.journal.release();
    let refused = if version == New { 0x97 } else { 0x80 };
    let granted = |at: usize| Got::SubAck(1, vec![if kept_of_both[at] { at as u8 } else { refused }]);
    match (removes, kept_of_both[0]) {
        (true, true) => assert_eq!(to.get().await, Got::UnsubAck(2, if version == New { vec![0] } else { vec![] })),
        (true, false) => {
            // There is no other answer to an UNSUBSCRIBE.
            to.closed(0x97).await;
            to = Client::connect(node.address, version, "to", kept()).await.0;
        }
        (false, _) => assert_eq!(to.get().await, granted(0)),
    }
    if !removes || kept_of_both[0] {
        assert_eq!(to.get().await, granted(1));
    }
    let publication = Publication { topic: "t".into(), qos: Qos::ExactlyOnce, ..Publication::default() };
    node.broker.publish(publication).await.unwrap();
    let level = match &to.quiet().await[..] {
        [] => None,
        [Got::Message(message)] => Some(message.qos.value()),
        other => panic!("{case:?}: {other:?}"),
    };
    assert_eq!(level, expected, "{case:?}");
    let state = node.journal.state();
    let there = state.sessions["to"].subscriptions.get("t");
    assert_eq!(there.map(|there| there.qos.level()), expected, "{case:?}: after a restart");
}

#[tokio::test]
async fn a_subscription_that_cannot_be_replaced_or_removed_stays_as_it_was() {
    for version in BOTH {
        for removes in [false, true] {
            let first = (!removes).then_some(0);
            check(version, removes, [true, true], Some(1)).await;
            check(version, removes, [true, false], first).await;
            check(version, removes, [false, true], Some(1)).await;
            check(version, removes, [false, false], Some(2)).await;
        }
    }
}
