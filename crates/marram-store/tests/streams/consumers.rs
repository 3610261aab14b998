//! Pulling and settling.

use std::sync::Arc;
use std::time::Duration;

use marram_core::Kind;
use marram_core::event::SubjectFilter;
use marram_core::port::Streams as _;
use marram_core::port::streams::{Settle, Settlement};
use marram_core::stream::{ConsumerPolicy, Overflow, Start, StreamPolicy};

use super::support::{consumer_id, event, stream};
use super::{Node, ack, nothing, places, pull, retry, settle};

const ACK_WAIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn each_consumer_gets_every_event_once_and_goes_on_after_a_restart() {
    let node = Node::new();
    let one = node.consumer("one", ConsumerPolicy::default()).await;
    let two = node.consumer("two", ConsumerPolicy::default()).await;
    node.publish(&["a"; 5]).await;
    for consumer in [&one, &two] {
        assert_eq!(places(&pull(consumer, 3).await), [(1, 1), (2, 1), (3, 1)]);
    }
    let rest = pull(&one, 3).await;
    assert_eq!(places(&rest), [(4, 1), (5, 1)]);
    ack(&one, &rest).await;
    nothing(&one).await;
    let state = node.consumer_state("one");
    assert_eq!((state.cursor, state.handed, state.in_flight, state.acked), (0, 5, 3, 2));
    let node = node.reopen();
    // What was in flight is delivered again; what was settled is not.
    let one = node.consumer("one", ConsumerPolicy::default()).await;
    let again = pull(&one, 10).await;
    assert_eq!(places(&again), [(1, 1), (2, 1), (3, 1)]);
    ack(&one, &again).await;
    let state = node.consumer_state("one");
    assert_eq!((state.cursor, state.in_flight, state.acked), (5, 0, 5));
    let two = node.consumer("two", ConsumerPolicy::default()).await;
    assert_eq!(pull(&two, 10).await.len(), 5);
}

#[tokio::test]
async fn no_more_than_allowed_is_in_flight() {
    let node = Node::new();
    let policy = ConsumerPolicy { in_flight_max: 2, ..ConsumerPolicy::default() };
    let consumer = node.consumer("c", policy).await;
    node.publish(&["a"; 4]).await;
    let first = pull(&consumer, 10).await;
    assert_eq!(places(&first), [(1, 1), (2, 1)]);
    nothing(&consumer).await;
    ack(&consumer, &first[1..]).await;
    assert_eq!(places(&pull(&consumer, 10).await), [(3, 1)]);
}

#[tokio::test]
async fn a_pull_waits_for_an_event_and_for_room() {
    let node = Node::new();
    let policy = ConsumerPolicy { in_flight_max: 1, ..ConsumerPolicy::default() };
    let consumer = node.consumer("c", policy).await;
    let pulls = Arc::clone(&consumer);
    let waiting = tokio::spawn(async move { pull(&pulls, 1).await });
    tokio::task::yield_now().await;
    node.publish(&["a", "a"]).await;
    let first = waiting.await.unwrap();
    let pulls = Arc::clone(&consumer);
    let waiting = tokio::spawn(async move { pull(&pulls, 1).await });
    tokio::task::yield_now().await;
    ack(&consumer, &first).await;
    assert_eq!(places(&waiting.await.unwrap()), [(2, 1)]);
}

#[tokio::test]
async fn a_pull_that_is_dropped_takes_nothing() {
    let node = Node::new();
    let consumer = node.consumer("c", ConsumerPolicy::default()).await;
    let node = {
        node.publish(&["a"; 3]).await;
        drop(consumer);
        // From the disk, so that there is a read to be dropped.
        node.reopen()
    };
    let consumer = node.consumer("c", ConsumerPolicy::default()).await;
    for _ in 0..20 {
        let mut pulling = Box::pin(consumer.pull(1));
        if let std::task::Poll::Ready(done) = futures::poll!(&mut pulling) {
            let done = done.unwrap();
            assert_eq!(places(&done).len(), 1);
            ack(&consumer, &done).await;
            break;
        }
    }
    let mut rest = Vec::new();
    while node.consumer_state("c").acked < 3 {
        let pulled = pull(&consumer, 1).await;
        rest.extend(places(&pulled));
        ack(&consumer, &pulled).await;
    }
    assert!(rest.iter().all(|(_, attempt)| *attempt == 1) && rest.is_sorted(), "{rest:?}");
}

#[tokio::test]
async fn what_is_not_settled_in_time_is_delivered_again_and_late_settlements_have_no_effect() {
    let node = Node::new();
    let consumer = node.consumer("c", ConsumerPolicy { ack_wait: ACK_WAIT, ..Default::default() }).await;
    node.publish(&["a", "a"]).await;
    let first = pull(&consumer, 10).await;
    node.pass(ACK_WAIT - Duration::from_millis(1)).await;
    nothing(&consumer).await;
    // Still at it: the one waits again, the other does not.
    consumer.settle(vec![settle(&first[0], Settlement::InProgress)]).await.unwrap();
    node.pass(Duration::from_millis(1)).await;
    let second = pull(&consumer, 10).await;
    assert_eq!(places(&second), [(2, 2)]);
    ack(&consumer, &first).await;
    let state = node.consumer_state("c");
    assert_eq!((state.cursor, state.in_flight, state.acked, state.redelivered), (1, 1, 1, 1));
    ack(&consumer, &second).await;
    // Settled twice counts once.
    ack(&consumer, &second).await;
    let state = node.consumer_state("c");
    assert_eq!((state.cursor, state.in_flight, state.acked), (2, 0, 2));
}

#[tokio::test]
async fn what_is_given_back_is_delivered_again_at_once_and_does_not_count() {
    let node = Node::new();
    let consumer = node.consumer("c", ConsumerPolicy { deliveries_max: 1, ..Default::default() }).await;
    node.publish(&["a"]).await;
    for attempt in 1..4 {
        let pulled = pull(&consumer, 10).await;
        assert_eq!(places(&pulled), [(1, attempt)]);
        consumer.settle(vec![settle(&pulled[0], Settlement::Release)]).await.unwrap();
        // Once is enough, and it has no effect on the next delivery.
        consumer.settle(vec![settle(&pulled[0], Settlement::Release)]).await.unwrap();
    }
    let last = pull(&consumer, 10).await;
    assert_eq!(places(&last), [(1, 4)]);
    let state = node.consumer_state("c");
    assert_eq!((state.in_flight, state.redelivered, state.dead_lettered), (1, 0, 0));
    ack(&consumer, &last).await;
    assert_eq!(node.consumer_state("c").acked, 1);
}

/// Nobody else has it: the function was slow, and is not asked to do it again.
#[tokio::test]
async fn a_settlement_after_the_ack_wait_and_before_the_next_delivery_counts() {
    let node = Node::new();
    let consumer = node.consumer("c", ConsumerPolicy { ack_wait: ACK_WAIT, ..Default::default() }).await;
    node.publish(&["a"]).await;
    let first = pull(&consumer, 10).await;
    node.pass(ACK_WAIT * 2).await;
    ack(&consumer, &first).await;
    nothing(&consumer).await;
    assert_eq!(node.consumer_state("c").acked, 1);
}

#[tokio::test]
async fn a_retry_backs_off_honours_retry_after_and_survives_a_restart() {
    let node = Node::new();
    let policy = ConsumerPolicy {
        backoff_min: Duration::from_secs(1),
        backoff_max: Duration::from_secs(10),
        ..ConsumerPolicy::default()
    };
    let consumer = node.consumer("c", policy.clone()).await;
    node.publish(&["a"]).await;
    for (attempt, after, wait) in [(1, None, 1), (2, None, 2), (3, Some(7), 7), (4, Some(1_000), 10)] {
        let pulled = pull(&consumer, 1).await;
        assert_eq!(places(&pulled), [(1, attempt)]);
        consumer.settle(vec![settle(&pulled[0], retry(after.map(Duration::from_secs)))]).await.unwrap();
        assert_eq!((node.consumer_state("c").retrying, node.consumer_state("c").in_flight), (1, 0));
        node.pass(Duration::from_secs(wait) - Duration::from_millis(1)).await;
        nothing(&consumer).await;
        node.pass(Duration::from_millis(1)).await;
    }
    let pulled = pull(&consumer, 1).await;
    consumer.settle(vec![settle(&pulled[0], retry(None))]).await.unwrap();
    let node = node.reopen();
    let consumer = node.consumer("c", policy).await;
    assert_eq!(node.consumer_state("c").retrying, 1);
    nothing(&consumer).await;
    // The wall clock that went back a year does not make it wait for a year.
    node.clock.jump(-365 * 86_400);
    node.pass(Duration::from_secs(10)).await;
    assert_eq!(places(&pull(&consumer, 1).await), [(1, 6)]);
}

#[tokio::test]
async fn a_filter_takes_its_subjects_and_its_cursor_passes_the_others() {
    let node = Node::new();
    let filter = SubjectFilter::topic("plant/+/vibration").unwrap();
    let policy = ConsumerPolicy { filter, ..ConsumerPolicy::default() };
    let consumer = node.consumer("c", policy.clone()).await;
    node.publish(&["plant/1/vibration", "plant/1/heat", "", "plant/2/vibration", "other"]).await;
    let pulled = pull(&consumer, 10).await;
    assert_eq!(places(&pulled), [(1, 1), (4, 1)]);
    ack(&consumer, &pulled).await;
    assert_eq!(node.consumer_state("c").cursor, 5);
    for _ in 0..20 {
        node.publish(&["other"; 1_000]).await;
    }
    nothing(&consumer).await;
    // Written with maintenance: after a restart nothing is looked at again.
    node.pass(Duration::ZERO).await;
    let node = node.reopen();
    assert_eq!(node.consumer_state("c").cursor, 20_005);
    let consumer = node.consumer("c", policy).await;
    node.publish(&["plant/3/vibration"]).await;
    assert_eq!(places(&pull(&consumer, 10).await), [(20_006, 1)]);
}

#[tokio::test]
async fn another_filter_keeps_the_cursor() {
    let node = Node::new();
    let exact =
        |subject: &str| ConsumerPolicy { filter: SubjectFilter::Exact(subject.into()), ..ConsumerPolicy::default() };
    let consumer = node.consumer("c", exact("a")).await;
    node.publish(&["a", "b", "a", "b", "a"]).await;
    let pulled = pull(&consumer, 1).await;
    let again = node.consumer("c", exact("b")).await;
    assert_eq!(places(&pull(&again, 10).await), [(4, 1)], "2 was passed, 3 and 5 are no longer taken");
    ack(&consumer, &pulled).await;
    assert_eq!(node.consumer_state("c").cursor, 3);
    let node = node.reopen();
    let consumer = node.consumer("c", exact("b")).await;
    assert_eq!(places(&pull(&consumer, 10).await), [(4, 1)]);
}

#[tokio::test]
async fn a_paused_consumer_gets_nothing_until_it_is_resumed() {
    let node = Node::new();
    let consumer = node.consumer("c", ConsumerPolicy::default()).await;
    consumer.pause(true).await.unwrap();
    node.publish(&["a"]).await;
    nothing(&consumer).await;
    let node = node.reopen();
    let consumer = node.consumer("c", ConsumerPolicy::default()).await;
    assert!(node.consumer_state("c").paused);
    nothing(&consumer).await;
    let pulls = Arc::clone(&consumer);
    let waiting = tokio::spawn(async move { pull(&pulls, 1).await });
    tokio::task::yield_now().await;
    consumer.pause(false).await.unwrap();
    assert_eq!(places(&waiting.await.unwrap()), [(1, 1)]);
}

#[tokio::test]
async fn an_output_is_published_with_the_acknowledgement_or_neither_is() {
    let node = Node::new();
    let consumer = node.consumer("c", ConsumerPolicy::default()).await;
    node.publish(&["a", "a"]).await;
    let pulled = pull(&consumer, 10).await;
    let with_output = |n: usize, id: &str| Settle {
        outputs: vec![(stream("alarms"), event(id, "", b""))],
        ..settle(&pulled[n], Settlement::Ack)
    };
    consumer.settle(vec![with_output(0, "alarm 1")]).await.unwrap();
    // A settlement that comes too late publishes nothing.
    consumer.settle(vec![with_output(0, "alarm 2")]).await.unwrap();
    assert_eq!(node.events("alarms").len(), 1);
    let size = node.state("alarms").unwrap().bytes;
    let full = StreamPolicy { bytes_max: size, overflow: Overflow::Reject, ..StreamPolicy::default() };
    node.streams.declare(&stream("alarms"), full).await.unwrap();
    let refused = consumer.settle(vec![with_output(1, "alarm 3")]).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::StreamFull);
    let state = node.consumer_state("c");
    assert_eq!((state.acked, state.in_flight, state.cursor), (1, 1, 1));
    node.streams.declare(&stream("alarms"), StreamPolicy::default()).await.unwrap();
    consumer.settle(vec![with_output(1, "alarm 3")]).await.unwrap();
    assert_eq!((node.events("alarms").len(), node.consumer_state("c").acked), (2, 2));
    let invalid =
        Settle { outputs: vec![(stream("alarms"), event("", "", b""))], ..settle(&pulled[1], Settlement::Ack) };
    assert_eq!(consumer.settle(vec![invalid]).await.unwrap_err().kind(), Kind::Invalid);
}

/// What was answered to several events is published as long as one of them is owed, and once.
#[tokio::test]
async fn an_answer_to_several_events_outlives_one_that_was_dropped() {
    let node = Node::new();
    let consumer = node.consumer("c", ConsumerPolicy::default()).await;
    node.publish(&["a", "a"]).await;
    let size = node.state("s").unwrap().bytes / 2;
    let two = StreamPolicy { bytes_max: 2 * size, overflow: Overflow::DropOldest, ..StreamPolicy::default() };
    node.streams.declare(&stream("s"), two).await.unwrap();
    let pulled = pull(&consumer, 10).await;
    node.publish(&["a"]).await;
    assert_eq!(node.consumer_state("c").dropped, 1);
    let answered = |id: &str| Settle {
        others: places(&pulled[1..]),
        outputs: vec![(stream("alarms"), event(id, "", b""))],
        ..settle(&pulled[0], Settlement::Ack)
    };
    consumer.settle(vec![answered("alarm 1")]).await.unwrap();
    assert_eq!((node.events("alarms").len(), node.consumer_state("c").acked), (1, 1));
    // Nobody is owed any of them any more.
    consumer.settle(vec![answered("alarm 2")]).await.unwrap();
    assert_eq!((node.events("alarms").len(), node.consumer_state("c").cursor), (1, 2));
}

/// Events that are answered together find room together, or are refused for good: they do not push each other out.
#[tokio::test]
async fn an_answer_of_several_events_is_published_whole_or_not_at_all() {
    for overflow in [Overflow::Reject, Overflow::DropOldest] {
        let node = Node::new();
        let consumer = node.consumer("c", ConsumerPolicy::default()).await;
        node.publish(&["a", "a"]).await;
        let pulled = pull(&consumer, 10).await;
        let outputs: Vec<_> = ["1", "2", "3"].map(|id| (stream("alarms"), event(id, "", b"data"))).into();
        let size = outputs[0].1.size();
        let two = StreamPolicy { bytes_max: 2 * size, overflow, ..StreamPolicy::default() };
        node.streams.declare(&stream("alarms"), two).await.unwrap();
        let whole = Settle { others: places(&pulled[1..]), outputs, ..settle(&pulled[0], Settlement::Ack) };
        let refused = consumer.settle(vec![whole.clone()]).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::BodyTooLarge, "{overflow:?}");
        let state = node.consumer_state("c");
        assert_eq!((state.acked, state.in_flight, node.events("alarms").len()), (0, 2, 0), "{overflow:?}");
        let enough = StreamPolicy { bytes_max: 3 * size, ..two };
        node.streams.declare(&stream("alarms"), enough).await.unwrap();
        consumer.settle(vec![whole]).await.unwrap();
        assert_eq!((node.consumer_state("c").cursor, node.events("alarms").len()), (2, 3), "{overflow:?}");
    }
}

#[tokio::test]
async fn a_removed_consumer_is_owed_nothing() {
    let node = Node::new();
    let consumer = node.consumer("c", ConsumerPolicy::default()).await;
    node.publish(&["a"]).await;
    let pulled = pull(&consumer, 1).await;
    node.streams.remove_consumer(&stream("s"), &consumer_id("c")).await.unwrap();
    assert_eq!(consumer.pull(1).await.unwrap_err().kind(), Kind::NotFound);
    ack(&consumer, &pulled).await;
    assert_eq!(consumer.pause(true).await.unwrap_err().kind(), Kind::NotFound);
    let again = node.streams.remove_consumer(&stream("s"), &consumer_id("c")).await.unwrap_err();
    assert_eq!(again.kind(), Kind::NotFound);
    let next = node.consumer("c", ConsumerPolicy { start: Start::Next, ..Default::default() }).await;
    nothing(&next).await;
    assert_eq!(node.consumer_state("c").cursor, 1);
}

/// One consumer may hold so much open and no more, and goes on once some of it is settled.
#[tokio::test]
async fn what_is_open_is_bounded() {
    let node = Node::new();
    let policy =
        ConsumerPolicy { in_flight_max: u32::MAX, backoff_min: Duration::from_secs(1), ..ConsumerPolicy::default() };
    let consumer = node.consumer("c", policy).await;
    for _ in 0..6 {
        node.publish(&["a"; 1_000]).await;
    }
    let mut open = 0;
    while open < marram_store::limits::WINDOW_MAX {
        let pulled = pull(&consumer, 64).await;
        open += pulled.len();
        consumer.settle(pulled.iter().map(|delivery| settle(delivery, retry(None))).collect()).await.unwrap();
    }
    nothing(&consumer).await;
    let node = node.reopen();
    let consumer = node.consumer("c", ConsumerPolicy::default()).await;
    assert_eq!(node.consumer_state("c").retrying, marram_store::limits::WINDOW_MAX as u64);
    node.pass(Duration::from_secs(1)).await;
    let mut positions = std::collections::BTreeSet::new();
    while positions.len() < 6_000 {
        let pulled = pull(&consumer, 256).await;
        positions.extend(places(&pulled).into_iter().map(|(position, _)| position));
        ack(&consumer, &pulled).await;
    }
    let state = node.consumer_state("c");
    assert_eq!((state.cursor, state.acked), (6_000, 6_000));
}
