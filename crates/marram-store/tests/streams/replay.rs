//! Starting somewhere, and going back.

use std::time::Duration;

use marram_core::event::SubjectFilter;
use marram_core::port::Streams as _;
use marram_core::stream::{ConsumerPolicy, Start};

use super::support::stream;
use super::{Node, ack, nothing, places, pull};

#[tokio::test]
async fn a_new_consumer_begins_where_it_says() {
    let node = Node::new();
    for _ in 0..4 {
        node.publish(&["a"]).await;
        node.clock.pass(Duration::from_secs(1));
    }
    let second = node.streams.read(&stream("s"), Start::Position(2), 1).unwrap()[0].stored_unix_ns;
    for (start, first) in [
        (Start::First, 1),
        (Start::Position(3), 3),
        (Start::Position(0), 1),
        (Start::Time(0), 1),
        (Start::Time(second), 2),
        (Start::Time(second + 1), 3),
    ] {
        let consumer = node.consumer(&format!("{start:?}"), ConsumerPolicy { start, ..Default::default() }).await;
        assert_eq!(pull(&consumer, 1).await[0].stored.position, first, "{start:?}");
    }
    for start in [Start::Next, Start::Position(99), Start::Time(u64::MAX)] {
        let consumer = node.consumer(&format!("{start:?}"), ConsumerPolicy { start, ..Default::default() }).await;
        assert_eq!(consumer.state().cursor, 4, "{start:?}");
    }
}

#[tokio::test]
async fn a_replay_owes_everything_again_and_forgets_what_was_in_flight() {
    let node = Node::new();
    let consumer = node.consumer("c", ConsumerPolicy { deliveries_max: 1, ..Default::default() }).await;
    node.publish(&["a"; 5]).await;
    let first = pull(&consumer, 4).await;
    ack(&consumer, &first[..1]).await;
    consumer.seek(Start::Position(2)).await.unwrap();
    assert_eq!((consumer.state().cursor, consumer.state().in_flight), (1, 0));
    // A settlement of a delivery before the replay has no effect, also once the event is delivered again.
    ack(&consumer, &first[1..2]).await;
    let again = pull(&consumer, 10).await;
    assert_eq!(again.iter().map(|delivery| delivery.stored.position).collect::<Vec<_>>(), [2, 3, 4, 5]);
    ack(&consumer, &first).await;
    assert_eq!((consumer.state().acked, consumer.state().in_flight), (1, 4));
    // It is no retry: the one delivery that there may be is not used up.
    ack(&consumer, &again).await;
    assert_eq!((consumer.state().acked, consumer.state().cursor, consumer.state().dead_lettered), (5, 5, 0));
    consumer.seek(Start::First).await.unwrap();
    let node = node.reopen();
    let consumer = node.consumer("c", ConsumerPolicy::default()).await;
    assert_eq!(places(&pull(&consumer, 10).await).len(), 5);
    consumer.seek(Start::Next).await.unwrap();
    nothing(&consumer).await;
    assert_eq!(consumer.state().cursor, 5);
}

#[tokio::test]
async fn what_a_seek_forward_passes_over_counts_as_dropped() {
    let node = Node::new();
    let only_b = ConsumerPolicy { filter: SubjectFilter::Exact("b".into()), ..Default::default() };
    let consumer = node.consumer("c", ConsumerPolicy::default()).await;
    let few = node.consumer("few", only_b).await;
    node.publish(&["a", "b", "a", "a", "b", "b", "a", "a", "a", "a"]).await;
    few.seek(Start::Position(6)).await.unwrap();
    assert_eq!((few.state().cursor, few.state().dropped), (5, 2), "what its filter does not take is not owed");
    let pulled = pull(&consumer, 4).await;
    // 2 is done; 1, 3, 4 are with somebody, and 5 with nobody.
    ack(&consumer, &pulled[1..2]).await;
    let refused = consumer.seek(Start::Position(12)).await.unwrap_err();
    assert!(refused.message().contains("a position up to 11"), "{refused}");
    assert_eq!((consumer.state().cursor, consumer.state().dropped), (0, 0), "nothing happened");
    consumer.seek(Start::Position(6)).await.unwrap();
    let state = consumer.state();
    assert_eq!((state.cursor, state.acked, state.dropped), (5, 1, 4));
    consumer.seek(Start::First).await.unwrap();
    assert_eq!(consumer.state().dropped, 4, "back is not over anything");
    consumer.seek(Start::Next).await.unwrap();
    nothing(&consumer).await;
    let node = node.reopen();
    let state = node.consumer_state("c");
    assert_eq!((state.cursor, state.acked, state.dropped), (10, 1, 14));
}

#[tokio::test]
async fn replay_by_time_finds_its_place_among_many() {
    let node = Node::new();
    let consumer = node.consumer("c", ConsumerPolicy::default()).await;
    for _ in 0..50 {
        node.publish(&["a"; 200]).await;
        node.clock.pass(Duration::from_secs(1));
    }
    let at = node.streams.read(&stream("s"), Start::Position(6_001), 1).unwrap()[0].stored_unix_ns;
    consumer.seek(Start::Time(at)).await.unwrap();
    assert_eq!(pull(&consumer, 1).await[0].stored.position, 6_001);
    consumer.seek(Start::Time(at - 1)).await.unwrap();
    assert_eq!(pull(&consumer, 1).await[0].stored.position, 6_001);
    consumer.seek(Start::Time(at + 1)).await.unwrap();
    assert_eq!(pull(&consumer, 1).await[0].stored.position, 6_201);
}
