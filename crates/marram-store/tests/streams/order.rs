//! Order by subject.

use std::sync::Arc;
use std::time::Duration;

use marram_core::port::Consumer;
use marram_core::port::streams::Settlement;
use marram_core::stream::ConsumerPolicy;

use super::{Node, ack, nothing, places, pull, retry, settle};

async fn ordered(node: &Node) -> Arc<dyn Consumer> {
    let policy = ConsumerPolicy {
        order_by_subject: true,
        backoff_min: Duration::from_secs(1),
        deliveries_max: 3,
        ..ConsumerPolicy::default()
    };
    node.consumer("c", policy).await
}

#[tokio::test]
async fn an_event_waits_for_the_one_before_it_and_other_subjects_go_on() {
    let node = Node::new();
    let consumer = ordered(&node).await;
    node.publish(&["a", "a", "b", "a", "b", "c"]).await;
    let first = pull(&consumer, 10).await;
    assert_eq!(places(&first), [(1, 1), (3, 1), (6, 1)]);
    assert_eq!(node.consumer_state("c").held, 3);
    nothing(&consumer).await;
    ack(&consumer, &first[1..2]).await;
    assert_eq!(places(&pull(&consumer, 10).await), [(5, 1)]);
    // A retry keeps the rest of its subject waiting.
    consumer.settle(vec![settle(&first[0], retry(None))]).await.unwrap();
    nothing(&consumer).await;
    node.pass(Duration::from_secs(1)).await;
    let again = pull(&consumer, 10).await;
    assert_eq!(places(&again), [(1, 2)]);
    ack(&consumer, &again).await;
    let second = pull(&consumer, 10).await;
    assert_eq!(places(&second), [(2, 1)]);
    // A dead letter lets the next one go.
    consumer.settle(vec![settle(&second[0], Settlement::DeadLetter { reason: "no".into() })]).await.unwrap();
    assert_eq!(places(&pull(&consumer, 10).await), [(4, 1)]);
}

#[tokio::test]
async fn order_holds_across_a_restart() {
    let node = Node::new();
    let consumer = ordered(&node).await;
    node.publish(&["a", "b", "a", "b", "a"]).await;
    let first = pull(&consumer, 10).await;
    consumer.settle(vec![settle(&first[0], retry(None)), settle(&first[1], Settlement::Ack)]).await.unwrap();
    let node = node.reopen();
    let consumer = ordered(&node).await;
    assert_eq!(places(&pull(&consumer, 10).await), [(4, 1)], "1 waits for its retry, 3 and 5 for 1");
    node.publish(&["a", "c"]).await;
    assert_eq!(places(&pull(&consumer, 10).await), [(7, 1)]);
    node.pass(Duration::from_secs(1)).await;
    for (position, attempt) in [(1, 2), (3, 1), (5, 1), (6, 1)] {
        let pulled = pull(&consumer, 10).await;
        assert_eq!(places(&pulled), [(position, attempt)]);
        ack(&consumer, &pulled).await;
    }
}

#[tokio::test]
async fn order_can_be_asked_for_and_given_up_later() {
    let node = Node::new();
    let consumer = node.consumer("c", ConsumerPolicy { in_flight_max: 3, ..Default::default() }).await;
    node.publish(&["a", "a", "b", "b", "a"]).await;
    let first = pull(&consumer, 10).await;
    assert_eq!(places(&first), [(1, 1), (2, 1), (3, 1)]);
    ack(&consumer, &first[2..]).await;
    // After a restart the subjects of what is open are not known, and have to be learnt.
    let node = node.reopen();
    let consumer = ordered(&node).await;
    assert_eq!(places(&pull(&consumer, 10).await), [(1, 1)]);
    assert_eq!(places(&pull(&consumer, 10).await), [(4, 1)]);
    nothing(&consumer).await;
    let consumer = node.consumer("c", ConsumerPolicy::default()).await;
    assert_eq!(places(&pull(&consumer, 10).await), [(2, 1), (5, 1)]);
}

/// The commit in which order is asked for has what is open without its subjects.
#[tokio::test]
async fn order_that_was_asked_for_while_events_were_open_holds_across_a_restart() {
    let node = Node::new();
    let consumer = node.consumer("c", ConsumerPolicy { in_flight_max: 3, ..Default::default() }).await;
    node.publish(&["a", "b", "b"]).await;
    assert_eq!(places(&pull(&consumer, 10).await), [(1, 1), (2, 1), (3, 1)]);
    ordered(&node).await;
    let node = node.reopen();
    node.publish(&["b", "a", "c"]).await;
    let consumer = ordered(&node).await;
    // 3 and 4 wait for 2, and 5 for 1.
    let first = pull(&consumer, 10).await;
    assert_eq!(places(&first), [(1, 1), (2, 1)]);
    assert_eq!(places(&pull(&consumer, 10).await), [(6, 1)]);
    nothing(&consumer).await;
    ack(&consumer, &first).await;
    assert_eq!(places(&pull(&consumer, 10).await), [(3, 1), (5, 1)]);
    // What was learnt is on the disk.
    let node = node.reopen();
    let consumer = ordered(&node).await;
    assert_eq!(places(&pull(&consumer, 10).await), [(3, 1), (5, 1), (6, 1)]);
}

/// One stuck subject with more events than may be open at once.
#[tokio::test]
async fn a_long_line_of_one_subject_is_served_in_order() {
    let node = Node::new();
    let consumer = ordered(&node).await;
    for _ in 0..5 {
        node.publish(&["a"; 999]).await;
        node.publish(&["b"]).await;
    }
    let mut seen = Vec::new();
    for _ in 0..200 {
        let pulled = pull(&consumer, 10).await;
        seen.extend(places(&pulled).into_iter().map(|(position, _)| position));
        ack(&consumer, &pulled).await;
    }
    let a: Vec<u64> = seen.iter().copied().filter(|at| at % 1_000 != 0).collect();
    assert_eq!(a, (1..=a.len() as u64).collect::<Vec<_>>());
    assert!(seen.contains(&1_000) && seen.contains(&4_000), "the other subject goes on");
}
