//! What a stream keeps: bytes, age, and what goes when there is no room.

use std::time::Duration;

use marram_core::Kind;
use marram_core::port::Streams as _;
use marram_core::stream::{ConsumerPolicy, Overflow, StreamPolicy};

use super::support::{consumer_id, event, stream};
use super::{Node, ack, nothing, places, pull};

const OWED: &str = "still owed: let its consumers catch up";

/// Room for `events` events as [`Node::publish`] makes them, of which `overflow` decides.
async fn declare(node: &Node, events: u64, overflow: Overflow) {
    let size = event("1", "a", b"data").size();
    let policy = StreamPolicy { bytes_max: events * size, overflow, ..StreamPolicy::default() };
    node.streams.declare(&stream("s"), policy).await.unwrap();
}

/// It takes nothing more, and says why.
async fn is_full(node: &Node, why: &str) {
    let refused = node.streams.publish(&stream("s"), vec![event("x", "a", b"data")]).await.unwrap_err();
    assert_eq!((refused.kind(), refused.status().as_u16()), (Kind::StreamFull, 507));
    assert!(refused.message().contains(why), "{refused}");
}

/// What the stream could never keep is refused for good.
async fn is_too_large(node: &Node, events: Vec<marram_core::event::Event>, what: &str) {
    let refused = node.streams.publish(&stream("s"), events).await.unwrap_err();
    assert_eq!((refused.kind(), refused.status().as_u16()), (Kind::BodyTooLarge, 413));
    assert!(refused.message().starts_with(what) && refused.message().contains("`retain.bytes`"), "{refused}");
}

#[tokio::test]
async fn a_full_stream_refuses_until_every_consumer_has_settled() {
    let node = Node::new();
    declare(&node, 4, Overflow::Reject).await;
    let one = node.consumer("one", ConsumerPolicy::default()).await;
    let two = node.consumer("two", ConsumerPolicy::default()).await;
    node.publish(&["a", "a", "a", "a"]).await;
    is_full(&node, OWED).await;
    let deliveries = pull(&one, 10).await;
    ack(&one, &deliveries).await;
    is_full(&node, OWED).await;
    let deliveries = pull(&two, 10).await;
    // Out of order: the first is still owed, so nothing goes.
    ack(&two, &deliveries[1..3]).await;
    is_full(&node, OWED).await;
    assert_eq!(node.state("s").unwrap().rejected, 3);
    ack(&two, &deliveries[..1]).await;
    node.publish(&["a", "a"]).await;
    let state = node.state("s").unwrap();
    assert_eq!((state.first, state.last, state.events, state.dropped), (3, 6, 4, 0));
    // Positions 3 of both, and 4 of one, are settled: one more has room, two have not.
    node.publish(&["a"]).await;
    is_full(&node, OWED).await;
    assert_eq!(node.state("s").unwrap().first, 4);
    // Nothing of a publish that does not fit is stored, and nothing went for it.
    let many = |count: u64| (0..count).map(|n| event(&format!("y{n}"), "a", b"data")).collect();
    let refused = node.streams.publish(&stream("s"), many(3)).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::StreamFull);
    is_too_large(&node, many(5), "the 5 events of this publish together have ").await;
    assert_eq!(node.state("s").unwrap().events, 4);
}

#[tokio::test]
async fn a_full_stream_without_a_consumer_refuses() {
    let node = Node::new();
    declare(&node, 2, Overflow::Reject).await;
    node.publish(&["a", "a"]).await;
    is_full(&node, "nothing consumes it").await;
    // A consumer that begins at the end is owed none of it.
    node.consumer("late", ConsumerPolicy { start: marram_core::stream::Start::Next, ..Default::default() }).await;
    node.publish(&["a"]).await;
    node.streams.remove_consumer(&stream("s"), &consumer_id("late")).await.unwrap();
    is_full(&node, "nothing consumes it").await;
}

#[tokio::test]
async fn drop_oldest_makes_room_and_counts_what_was_owed() {
    let node = Node::new();
    declare(&node, 3, Overflow::DropOldest).await;
    let all = node.consumer("all", ConsumerPolicy::default()).await;
    let filter = marram_core::event::SubjectFilter::Exact("b".into());
    let few = node.consumer("few", ConsumerPolicy { filter, ..Default::default() }).await;
    node.publish(&["a", "b", "a"]).await;
    let deliveries = pull(&all, 2).await;
    ack(&all, &deliveries[..1]).await;
    // 1 is settled by one and not for the other, so it is nobody's loss; 2 is in flight; 3 is read ahead.
    node.publish(&["a", "a", "b"]).await;
    let state = node.state("s").unwrap();
    assert_eq!((state.first, state.last, state.dropped), (4, 6, 2));
    assert_eq!((node.consumer_state("all").dropped, node.consumer_state("few").dropped), (2, 1));
    // A settlement of what was dropped has no effect.
    ack(&all, &deliveries[1..]).await;
    assert_eq!(node.consumer_state("all").acked, 1);
    assert_eq!(places(&pull(&all, 10).await), [(4, 1), (5, 1), (6, 1)]);
    assert_eq!(places(&pull(&few, 10).await), [(6, 1)]);
    let node = node.reopen();
    assert_eq!((node.consumer_state("all").dropped, node.state("s").unwrap().dropped), (2, 2));
    // What is larger than all that the stream keeps drops nothing.
    is_too_large(&node, vec![event("large", "a", &[0; 1_000])], "the event has ").await;
    assert_eq!(node.state("s").unwrap().events, 3);
}

/// More have to go than one publish removes, and no consumer is owed any of them.
#[tokio::test]
async fn a_stream_of_small_events_makes_room_for_a_large_one() {
    for overflow in [Overflow::DropOldest, Overflow::Reject] {
        let node = Node::new();
        for _ in 0..25 {
            node.publish(&["a"; 1_000]).await;
        }
        let bytes_max = node.state("s").unwrap().bytes;
        let policy = StreamPolicy { bytes_max, overflow, ..StreamPolicy::default() };
        node.streams.declare(&stream("s"), policy).await.unwrap();
        let at_end = ConsumerPolicy { start: marram_core::stream::Start::Next, ..Default::default() };
        node.consumer("settled", at_end).await;
        let large = || vec![event("large", "a", &vec![0; bytes_max as usize * 2 / 3])];
        let refused = node.streams.publish(&stream("s"), large()).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::StreamFull, "{overflow:?}");
        assert!(refused.message().contains("room is being made") && !refused.message().contains("owed"), "{refused}");
        assert_eq!(node.state("s").unwrap().events, 25_000, "what is refused leaves nothing behind");
        let made = node.streams.maintain().await.unwrap();
        assert!(made.rows > 10_000 && !made.more, "{made:?}");
        node.streams.publish(&stream("s"), large()).await.unwrap();
        let state = node.state("s").unwrap();
        assert!(state.bytes <= bytes_max && state.events > 1 && state.dropped == 0, "{state:?}");
        // It was made once, for whoever asked, and not for ever.
        assert_eq!(node.streams.maintain().await.unwrap().rows, 0);
    }
}

#[tokio::test]
async fn old_events_go_but_not_those_that_somebody_is_owed() {
    let node = Node::new();
    let policy = StreamPolicy { age_max: Duration::from_secs(100), ..StreamPolicy::default() };
    node.streams.declare(&stream("s"), policy).await.unwrap();
    let consumer = node.consumer("c", ConsumerPolicy::default()).await;
    node.publish(&["a", "a"]).await;
    node.clock.pass(Duration::from_secs(60));
    node.publish(&["a"]).await;
    let deliveries = pull(&consumer, 10).await;
    ack(&consumer, &deliveries[..1]).await;
    node.pass(Duration::from_secs(39)).await;
    assert_eq!(node.state("s").unwrap().first, 1);
    node.pass(Duration::from_secs(1)).await;
    assert_eq!(node.state("s").unwrap().first, 2, "2 is still owed");
    node.pass(Duration::from_secs(1_000)).await;
    assert_eq!(node.state("s").unwrap().first, 2);
    ack(&consumer, &deliveries[1..]).await;
    node.pass(Duration::ZERO).await;
    let state = node.state("s").unwrap();
    assert_eq!((state.first, state.last, state.events, state.bytes, state.dropped), (4, 3, 0, 0, 0));
    // Positions go on, also after a restart of an empty stream.
    let node = node.reopen();
    assert_eq!(node.publish(&["a"]).await, [4]);
    // Where nobody is owed anything, age alone decides; where the oldest is dropped, too.
    node.streams.remove_consumer(&stream("s"), &consumer_id("c")).await.unwrap();
    node.pass(Duration::from_secs(100)).await;
    assert_eq!(node.state("s").unwrap().events, 0);
}

#[tokio::test]
async fn a_smaller_limit_takes_effect_with_maintenance() {
    let node = Node::new();
    node.publish(&["a"; 100]).await;
    let size = node.state("s").unwrap().bytes / 100;
    let policy = StreamPolicy { bytes_max: 10 * size, overflow: Overflow::DropOldest, ..StreamPolicy::default() };
    node.streams.declare(&stream("s"), policy).await.unwrap();
    node.pass(Duration::ZERO).await;
    let state = node.state("s").unwrap();
    assert!(state.bytes <= 10 * size + 10 && state.first > 85, "{state:?}");
}

#[tokio::test]
async fn a_removed_stream_is_gone_at_once_and_its_rows_a_little_later() {
    let node = Node::new();
    let consumer = node.consumer("c", ConsumerPolicy::default()).await;
    for _ in 0..6 {
        node.publish(&["a"; 1_000]).await;
    }
    node.streams.remove(&stream("s")).await.unwrap();
    assert!(node.state("s").is_none());
    assert_eq!(consumer.pull(1).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(consumer.seek(marram_core::stream::Start::First).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(node.streams.remove(&stream("s")).await.unwrap_err().kind(), Kind::NotFound);
    // Another of the same name begins anew while the rows of the old one are still there.
    assert_eq!(node.publish(&["b"]).await, [1]);
    let consumer = node.consumer("c", ConsumerPolicy::default()).await;
    assert_eq!(places(&pull(&consumer, 10).await), [(1, 1)]);
    nothing(&consumer).await;
    let mut rows = 0;
    loop {
        let done = node.streams.maintain().await.unwrap();
        rows += done.rows;
        if !done.more {
            break;
        }
    }
    assert_eq!(rows, 6_000);
    let node = node.reopen();
    assert_eq!((node.events("s").len(), node.state("s").unwrap().consumers.len()), (1, 1));
    assert_eq!(node.store.check().unwrap(), []);
}
