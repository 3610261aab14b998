//! What a consumer gives up on.

use std::time::Duration;

use marram_core::event::Attribute;
use marram_core::port::Streams as _;
use marram_core::port::streams::Settlement;
use marram_core::stream::{ConsumerPolicy, Overflow, Start, StreamPolicy};

use super::support::{consumer_id, stream};
use super::{Node, ack, nothing, places, pull, retry, settle};

fn policy() -> ConsumerPolicy {
    ConsumerPolicy {
        deliveries_max: 2,
        ack_wait: Duration::from_secs(60),
        backoff_min: Duration::from_secs(1),
        backoff_max: Duration::from_secs(10),
        ..ConsumerPolicy::default()
    }
}

fn text(text: &str) -> Attribute {
    Attribute::Text(text.into())
}

#[tokio::test]
async fn a_dead_letter_says_what_it_was_and_why_it_ended() {
    let node = Node::new();
    let consumer = node.consumer("shop/price/stream:s", policy()).await;
    node.publish(&["a", "b"]).await;
    let pulled = pull(&consumer, 10).await;
    let reason = "answered 400\nwith a body".to_owned();
    consumer.settle(vec![settle(&pulled[1], Settlement::DeadLetter { reason })]).await.unwrap();
    let dead = node.events("s.dead");
    let original = node.events("s").remove(1);
    assert_eq!((&dead[0].id, &dead[0].source, &dead[0].data), (&original.id, &original.source, &original.data));
    let expected = [
        ("marramconsumer", text("shop/price/stream:s")),
        ("marramreason", text("answered 400 with a body")),
        ("marramattempts", Attribute::Integer(1)),
        ("marramposition", text("2")),
        ("marramstream", text("s")),
    ];
    assert_eq!(dead[0].extensions, expected.map(|(name, value)| (name.to_owned(), value)).into());
    let state = node.consumer_state("shop/price/stream:s");
    assert_eq!((state.dead_lettered, state.acked, state.in_flight), (1, 0, 1));
}

#[tokio::test]
async fn the_last_retry_and_the_last_silence_end_there() {
    let node = Node::new();
    let consumer = node.consumer("c", policy()).await;
    node.publish(&["failing", "silent"]).await;
    let first = pull(&consumer, 10).await;
    consumer.settle(vec![settle(&first[0], retry(None))]).await.unwrap();
    node.pass(Duration::from_secs(60)).await;
    let second = pull(&consumer, 10).await;
    assert_eq!(places(&second), [(1, 2), (2, 2)]);
    consumer.settle(vec![settle(&second[0], retry(None))]).await.unwrap();
    assert_eq!(node.events("s.dead").len(), 1);
    node.pass(Duration::from_secs(60)).await;
    nothing(&consumer).await;
    let reasons: Vec<_> = node.events("s.dead").iter().map(|event| event.extensions["marramreason"].clone()).collect();
    assert_eq!(reasons, [text("it failed"), text("it was not settled in time")]);
    let state = node.consumer_state("c");
    assert_eq!((state.cursor, state.dead_lettered), (2, 2));
    let node = node.reopen();
    assert_eq!(node.consumer_state("c").dead_lettered, 2);
}

/// Each consumer has its own books, so two dead letters of one event are two, though they have one id.
#[tokio::test]
async fn each_consumer_has_its_own_dead_letters() {
    let node = Node::new();
    node.publish(&["a"]).await;
    for id in ["one", "two"] {
        let consumer = node.consumer(id, policy()).await;
        let pulled = pull(&consumer, 1).await;
        consumer.settle(vec![settle(&pulled[0], Settlement::DeadLetter { reason: id.into() })]).await.unwrap();
    }
    assert_eq!(node.events("s.dead").len(), 2);
}

#[tokio::test]
async fn a_full_dead_letter_stream_keeps_the_event_owed_and_stops_nobody_else() {
    let node = Node::new();
    let full = StreamPolicy { bytes_max: 1, overflow: Overflow::Reject, ..StreamPolicy::default() };
    node.streams.declare(&stream("s.dead"), full).await.unwrap();
    let consumer = node.consumer("c", policy()).await;
    node.publish(&["a", "b"]).await;
    let pulled = pull(&consumer, 10).await;
    let dead = Settlement::DeadLetter { reason: "no".into() };
    consumer.settle(vec![settle(&pulled[0], dead.clone()), settle(&pulled[1], Settlement::Ack)]).await.unwrap();
    let state = node.consumer_state("c");
    assert_eq!((state.cursor, state.acked, state.dead_lettered, state.retrying), (0, 1, 0, 1));
    node.streams.declare(&stream("s.dead"), StreamPolicy::default()).await.unwrap();
    node.pass(Duration::from_secs(10)).await;
    let pulled = pull(&consumer, 10).await;
    assert_eq!(places(&pulled), [(1, 2)]);
    consumer.settle(vec![settle(&pulled[0], dead)]).await.unwrap();
    let state = node.consumer_state("c");
    assert_eq!((state.cursor, state.acked, state.dead_lettered, state.retrying), (2, 1, 1, 0));
}

#[tokio::test]
async fn what_nobody_can_handle_stays_the_one_dead_letter_that_it_is() {
    let node = Node::new();
    let consumer = node.consumer("c", policy()).await;
    let dead = node.streams.consumer(&stream("s.dead"), &consumer_id("d"), policy()).await.unwrap();
    node.publish(&["a", "b"]).await;
    let refused = |reason: &str| Settlement::DeadLetter { reason: reason.into() };
    let pulled = pull(&consumer, 10).await;
    consumer.settle(pulled.iter().map(|delivery| settle(delivery, refused("no"))).collect()).await.unwrap();
    let letters = node.events("s.dead");
    let pulled = pull(&dead, 10).await;
    assert_eq!(places(&pulled), [(1, 1), (2, 1)]);
    // One is refused at once, and the other at its last delivery.
    dead.settle(vec![settle(&pulled[0], refused("still no")), settle(&pulled[1], retry(None))]).await.unwrap();
    node.pass(Duration::from_secs(10)).await;
    let pulled = pull(&dead, 10).await;
    assert_eq!(places(&pulled), [(2, 2)]);
    dead.settle(vec![settle(&pulled[0], retry(None))]).await.unwrap();
    nothing(&dead).await;
    assert_eq!(node.events("s.dead"), letters, "no copies, and the first reasons");
    let state = dead.state();
    assert_eq!((state.cursor, state.acked, state.dead_lettered, state.dropped), (2, 0, 2, 0));
    // They can still be delivered again.
    dead.seek(Start::First).await.unwrap();
    let again = pull(&dead, 10).await;
    assert_eq!(places(&again).len(), 2);
    ack(&dead, &again).await;
    assert_eq!(node.streams.redrive(&stream("s")).await.unwrap(), 2);
    assert!(node.events("s.dead").is_empty());
}
