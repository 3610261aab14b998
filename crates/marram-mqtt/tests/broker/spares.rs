//! What a member of a group has in memory alone is there after a crash, for members whose session lasts.

use std::time::Duration;

use marram_core::Kind;

use crate::client::{BOTH, Client, Got, New, Version, fresh, kept};
use crate::node::{Node, until};

const FILTER: &str = "$share/g/t";

/// A member with a session that lasts, away, and one without, connected.
async fn keeper_and_worker(node: &Node, version: Version, level: u8) -> Client {
    let (mut keeper, _) = Client::connect(node.address, version, "keeper", kept()).await;
    assert_eq!(keeper.subscribe(FILTER, level).await, level);
    keeper.bye().await;
    node.gone("keeper").await;
    let (mut worker, _) = Client::connect(node.address, version, "worker", fresh()).await;
    assert_eq!(worker.subscribe(FILTER, 1).await, 1);
    worker
}

/// How many spares the journal has.
fn spares(node: &Node) -> usize {
    let state = node.journal.state();
    state.sessions.iter().filter(|(client, _)| client.starts_with('\0')).map(|(_, spares)| spares.queue.len()).sum()
}

/// What comes to the keeper, which acknowledges it.
async fn kept_for(node: &Node, version: Version, count: u8) -> Vec<u8> {
    let (mut keeper, present) = Client::connect(node.address, version, "keeper", kept()).await;
    assert!(present);
    let mut got = Vec::new();
    for _ in 0..count {
        let message = keeper.message().await;
        got.push(message.payload[0]);
        keeper.ack(0x40, message.packet_id.unwrap().get()).await;
    }
    assert_eq!(keeper.quiet().await, []);
    keeper.bye().await;
    got
}

/// Found by killing nodes: it was lost, though it was acknowledged and a member could have had it.
#[tokio::test]
async fn what_a_clean_member_has_not_acknowledged_comes_to_one_that_lasts_after_a_crash() {
    for version in BOTH {
        let node = Node::new().await;
        let mut worker = keeper_and_worker(&node, version, 1).await;
        let (mut from, _) = Client::connect(node.address, version, "from", fresh()).await;
        for n in 0..5 {
            from.put("t", &[n]).await;
            let got = worker.message().await;
            assert_eq!(got.payload[..], [n]);
            if n < 2 {
                worker.ack(0x40, got.packet_id.unwrap().get()).await;
            }
        }
        until("what is acknowledged to be forgotten", async || spares(&node) == 3).await;
        // Twice: the second time it is in the keeper's own queue, or on its way there.
        let again = node.crash(Duration::ZERO).await;
        let third = again.crash(Duration::ZERO).await;
        assert_eq!(kept_for(&third, version, 3).await, [2, 3, 4]);
        until("nothing to be left", async || spares(&third) == 0 && third.journal.queued("keeper") == 0).await;
        let fourth = third.crash(Duration::ZERO).await;
        assert_eq!(kept_for(&fourth, version, 0).await, [0_u8; 0]);
    }
}

#[tokio::test]
async fn what_a_clean_member_leaves_comes_once() {
    let node = Node::new().await;
    let worker = keeper_and_worker(&node, New, 1).await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    for n in 0..3 {
        from.put("t", &[n]).await;
    }
    // To another of its kind, and from there to the keeper.
    let (mut other, _) = Client::connect(node.address, New, "other", fresh()).await;
    assert_eq!(other.subscribe(FILTER, 1).await, 1);
    worker.drop_dead().await;
    for n in 0..3 {
        assert_eq!(other.message().await.payload[..], [n]);
    }
    assert_eq!(spares(&node), 3);
    other.drop_dead().await;
    node.gone("other").await;
    until("the keeper to have all", async || node.journal.queued("keeper") == 3).await;
    assert_eq!(spares(&node), 0, "a place in a queue and no spare are one commit");
    assert_eq!(kept_for(&node, New, 3).await, [0, 1, 2]);
    until("nothing to be left", async || node.journal.queued("keeper") == 0).await;
    let again = node.crash(Duration::ZERO).await;
    assert_eq!(kept_for(&again, New, 0).await, [0_u8; 0]);
}

#[tokio::test]
async fn a_message_of_such_a_group_is_acknowledged_when_its_spare_is_kept() {
    let node = Node::new().await;
    let mut worker = keeper_and_worker(&node, New, 1).await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    node.journal.fail(Some(Kind::StorageFull));
    from.publish("t", b"x", 1, 1).await;
    assert_eq!(from.get().await, Got::PubAck(1, 0x97));
    assert_eq!(worker.quiet().await, []);
    node.journal.fail(None);
    from.put("t", b"y").await;
    assert_eq!(worker.message().await.payload[..], b"y"[..]);
    assert_eq!(spares(&node), 1);
}

/// QoS 2 goes to the member that was chosen or to nobody, and who subscribed at QoS 0 keeps nothing.
#[tokio::test]
async fn there_are_spares_only_for_those_who_would_get_them() {
    let node = Node::new().await;
    let mut worker = keeper_and_worker(&node, New, 0).await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    from.put("t", b"x").await;
    worker.message().await;
    let (mut keeper, _) = Client::connect(node.address, New, "keeper", kept()).await;
    assert_eq!(keeper.subscribe(FILTER, 2).await, 2);
    keeper.bye().await;
    node.gone("keeper").await;
    assert_eq!(worker.subscribe(FILTER, 2).await, 2);
    from.publish("t", b"y", 2, 1).await;
    assert_eq!(from.get().await, Got::PubRec(1, 0));
    worker.message().await;
    assert_eq!(node.journal.state().sessions.keys().map(|client| &**client).collect::<Vec<_>>(), ["keeper"]);
    // Nor when it has gone for good.
    assert!(node.broker.disconnect("keeper", true).await.unwrap());
    from.put("t", b"z").await;
    worker.message().await;
    assert_eq!(spares(&node), 0);
}
