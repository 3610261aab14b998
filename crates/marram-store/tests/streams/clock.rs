//! Wall clocks that jump: what is owed stays owed, nothing is lost, and what is measured goes by the time that passes.

use std::time::Duration;

use marram_core::port::Streams as _;
use marram_core::port::streams::Published;
use marram_core::stream::{ConsumerPolicy, Overflow, Start, StreamPolicy};

use super::support::{event, stream};
use super::{Node, ack, nothing, places, pull, retry, settle};

const DAY: i64 = 86_400;
const YEARS: i64 = 10 * 365 * DAY;

async fn publish(node: &Node, id: &str) -> Published {
    node.streams.publish(&stream("s"), vec![event(id, "a", b"")]).await.unwrap()[0]
}

/// The window is by the clock: one that goes back makes it longer, one that goes forward ends it. Nothing is refused.
#[tokio::test]
async fn a_repeated_event_is_known_while_the_clock_says_that_it_is_recent() {
    let node = Node::new();
    publish(&node, "before").await;
    node.clock.jump(-DAY);
    assert_eq!(publish(&node, "before").await, Published { position: 1, duplicate: true });
    assert_eq!(publish(&node, "meanwhile").await, Published { position: 2, duplicate: false });
    let node = node.reopen();
    assert_eq!(publish(&node, "before").await, Published { position: 1, duplicate: true });
    assert_eq!(publish(&node, "meanwhile").await, Published { position: 2, duplicate: true });
    node.pass(Duration::ZERO).await;
    node.clock.jump(DAY);
    assert_eq!(publish(&node, "before").await, Published { position: 1, duplicate: true }, "no time has passed");
    assert_eq!(publish(&node, "meanwhile").await, Published { position: 3, duplicate: false }, "it was a day ago");
    node.clock.jump(YEARS);
    node.pass(Duration::ZERO).await;
    assert_eq!(publish(&node, "before").await, Published { position: 4, duplicate: false });
}

/// What is remembered of events that are gone goes with the window, also behind what was stored while the clock was ahead.
#[tokio::test]
async fn identities_from_the_future_do_not_keep_others() {
    let node = Node::new();
    let policy = StreamPolicy {
        bytes_max: event("1", "a", b"").size(),
        overflow: Overflow::DropOldest,
        dedupe: Duration::from_secs(10),
        ..StreamPolicy::default()
    };
    node.streams.declare(&stream("s"), policy).await.unwrap();
    node.clock.jump(YEARS);
    publish(&node, "1").await;
    publish(&node, "2").await;
    node.clock.jump(-YEARS);
    for id in ["3", "4", "5"] {
        publish(&node, id).await;
    }
    // Of five events four are gone, two of which were stored in what is the future now.
    assert_eq!(node.streams.maintain().await.unwrap().rows, 0);
    node.clock.pass(Duration::from_secs(10));
    assert_eq!(node.streams.maintain().await.unwrap().rows, 2);
    assert_eq!(publish(&node, "1").await, Published { position: 1, duplicate: true });
    node.clock.jump(YEARS);
    assert_eq!(node.streams.maintain().await.unwrap().rows, 2);
}

/// A machine without a clock of its own wakes up in 1970, and takes events until it is told the time.
#[tokio::test]
async fn what_was_stored_in_the_past_hides_nothing_from_a_restart() {
    let node = Node::new();
    publish(&node, "before").await;
    node.clock.jump(-YEARS);
    publish(&node, "in the past").await;
    node.clock.jump(YEARS);
    publish(&node, "after").await;
    let node = node.reopen();
    for (id, position) in [("before", 1), ("after", 3)] {
        assert_eq!(publish(&node, id).await, Published { position, duplicate: true }, "{id}");
    }
    assert_eq!(publish(&node, "in the past").await, Published { position: 4, duplicate: false });
}

#[tokio::test]
async fn waiting_goes_by_the_time_that_passes() {
    let node = Node::new();
    let policy = ConsumerPolicy {
        ack_wait: Duration::from_secs(60),
        backoff_min: Duration::from_secs(100),
        backoff_max: Duration::from_secs(100),
        ..ConsumerPolicy::default()
    };
    let consumer = node.consumer("c", policy).await;
    node.publish(&["failing", "silent"]).await;
    let first = pull(&consumer, 10).await;
    consumer.settle(vec![settle(&first[0], retry(None))]).await.unwrap();
    for jump in [YEARS, -2 * YEARS, YEARS] {
        node.clock.jump(jump);
        node.pass(Duration::ZERO).await;
        nothing(&consumer).await;
    }
    node.clock.jump(-YEARS);
    node.pass(Duration::from_secs(60)).await;
    assert_eq!(places(&pull(&consumer, 10).await), [(2, 2)]);
    node.pass(Duration::from_secs(40)).await;
    assert_eq!(places(&pull(&consumer, 10).await), [(1, 2)]);
}

/// A node that began in 1970 and is put right is a clock that jumps by fifty years: what it has stored until then is not old.
#[tokio::test]
async fn nothing_goes_for_its_age_right_after_a_jump() {
    for overflow in [Overflow::Reject, Overflow::DropOldest] {
        let node = Node::new();
        let policy = StreamPolicy { age_max: Duration::from_secs(100), overflow, ..StreamPolicy::default() };
        node.streams.declare(&stream("s"), policy).await.unwrap();
        node.pass(Duration::ZERO).await;
        node.publish(&["a", "b"]).await;
        node.clock.jump(YEARS);
        node.pass(Duration::ZERO).await;
        node.pass(Duration::from_secs(3_599)).await;
        assert_eq!(node.state("s").unwrap().events, 2, "{overflow:?}");
        // A consumer has had an hour to take them.
        node.pass(Duration::from_secs(1)).await;
        assert_eq!(node.state("s").unwrap().events, 0, "{overflow:?}");
    }
    // What a consumer is owed stays where nothing is to be dropped, whatever the clock says.
    let node = Node::new();
    let consumer = node.consumer("c", ConsumerPolicy::default()).await;
    node.publish(&["a"]).await;
    node.pass(Duration::ZERO).await;
    node.clock.jump(YEARS);
    node.pass(Duration::from_secs(7_200)).await;
    node.pass(Duration::from_secs(7_200)).await;
    ack(&consumer, &pull(&consumer, 1).await).await;
    assert_eq!(node.consumer_state("c").acked, 1);
}

#[tokio::test]
async fn positions_and_order_do_not_know_the_clock() {
    let node = Node::new();
    let policy = ConsumerPolicy { order_by_subject: true, ..ConsumerPolicy::default() };
    let consumer = node.consumer("c", policy).await;
    for (jump, position) in [(0, 1), (YEARS, 2), (-2 * YEARS, 3), (YEARS, 4)] {
        node.clock.jump(jump);
        assert_eq!(node.publish(&["a"]).await, [position]);
    }
    for position in 1..=4 {
        let pulled = pull(&consumer, 10).await;
        assert_eq!(places(&pulled), [(position, 1)]);
        ack(&consumer, &pulled).await;
    }
    // Times that are not in order give some place to start from, and no error.
    for seconds in [0, 1_500_000_000, 1_700_000_000, 2_500_000_000_u64] {
        node.streams.read(&stream("s"), Start::Time(seconds * 1_000_000_000), 10).unwrap();
    }
}
