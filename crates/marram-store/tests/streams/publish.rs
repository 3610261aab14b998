//! Publishing: durable, all or none, each event once.

use std::time::Duration;

use marram_core::Kind;
use marram_core::event::Event;
use marram_core::limits::{EVENT_DATA_BYTES_MAX, EVENTS_PER_PUBLISH_MAX};
use marram_core::port::Streams as _;
use marram_core::port::streams::Published;
use marram_core::stream::{Start, StreamPolicy};

use super::Node;
use super::support::{event, stream};

#[tokio::test]
async fn events_are_kept_in_order_across_a_restart() {
    let node = Node::new();
    assert_eq!(node.publish(&["a", "b"]).await, [1, 2]);
    assert_eq!(node.publish(&["c"]).await, [3]);
    let node = node.reopen();
    assert_eq!(node.publish(&["d"]).await, [4]);
    let read = node.streams.read(&stream("s"), Start::Position(2), 2).unwrap();
    let places: Vec<_> = read.iter().map(|stored| (stored.position, stored.event.subject.as_str())).collect();
    assert_eq!(places, [(2, "b"), (3, "c")]);
    assert_eq!(node.streams.read(&stream("s"), Start::Next, 10).unwrap(), []);
    let state = node.state("s").unwrap();
    let size: u64 = node.events("s").iter().map(Event::size).sum();
    assert_eq!((state.first, state.last, state.events, state.bytes), (1, 4, 4, size));
    assert_eq!(node.streams.read(&stream("other"), Start::First, 1).unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn the_same_event_within_the_window_is_not_stored_again() {
    let node = Node::new();
    let policy = StreamPolicy { dedupe: Duration::from_secs(10), ..StreamPolicy::default() };
    node.streams.declare(&stream("s"), policy).await.unwrap();
    let publish = async |node: &Node, ids: &[&str]| {
        let events = ids.iter().map(|id| event(id, "", b"")).collect();
        let published = node.streams.publish(&stream("s"), events).await.unwrap();
        published.into_iter().map(|Published { position, duplicate }| (position, duplicate)).collect::<Vec<_>>()
    };
    // Within one publish as well.
    assert_eq!(publish(&node, &["a", "b", "a"]).await, [(1, false), (2, false), (1, true)]);
    assert_eq!(publish(&node, &["b"]).await, [(2, true)]);
    // Another source is another event.
    let other = Event { source: "/other".into(), ..event("a", "", b"") };
    assert_eq!(node.streams.publish(&stream("s"), vec![other]).await.unwrap()[0].position, 3);
    // After a restart as well.
    node.clock.pass(Duration::from_secs(9));
    let node = node.reopen();
    assert_eq!(publish(&node, &["b", "c"]).await, [(2, true), (4, false)]);
    assert_eq!(node.state("s").unwrap().duplicates, 1);
    node.clock.pass(Duration::from_secs(1));
    assert_eq!(publish(&node, &["b", "c"]).await, [(5, false), (4, true)]);
}

/// An event that had to make room is not published again either, not even after a restart.
#[tokio::test]
async fn a_removed_event_is_remembered_for_the_rest_of_the_window() {
    let node = Node::new();
    let size = event("a", "", b"").size();
    let policy = StreamPolicy {
        bytes_max: size,
        overflow: marram_core::stream::Overflow::DropOldest,
        dedupe: Duration::from_secs(10),
        ..StreamPolicy::default()
    };
    node.streams.declare(&stream("s"), policy).await.unwrap();
    let publish =
        async |node: &Node, id: &str| node.streams.publish(&stream("s"), vec![event(id, "", b"")]).await.unwrap()[0];
    publish(&node, "a").await;
    publish(&node, "b").await;
    assert_eq!(node.state("s").unwrap().first, 2);
    assert_eq!(publish(&node, "a").await, Published { position: 1, duplicate: true });
    let node = node.reopen();
    assert_eq!(publish(&node, "a").await, Published { position: 1, duplicate: true });
    node.pass(Duration::from_secs(10)).await;
    assert_eq!(publish(&node, "a").await, Published { position: 3, duplicate: false });
}

#[tokio::test]
async fn a_publish_is_all_or_none() {
    let node = Node::new();
    let bad =
        [event("", "", b""), Event { kind: String::new(), ..event("b", "", b"") }, event("c", &"x".repeat(5_000), b"")];
    for bad in bad {
        let refused = node.streams.publish(&stream("s"), vec![event("a", "", b""), bad]).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Invalid);
    }
    let large = event("d", "", &vec![0; EVENT_DATA_BYTES_MAX + 1]);
    let refused = node.streams.publish(&stream("s"), vec![event("a", "", b""), large]).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::BodyTooLarge);
    let many = (0..=EVENTS_PER_PUBLISH_MAX).map(|n| event(&n.to_string(), "", b"")).collect();
    assert_eq!(node.streams.publish(&stream("s"), many).await.unwrap_err().kind(), Kind::Invalid);
    assert!(node.state("s").is_none());
    let most = (0..EVENTS_PER_PUBLISH_MAX).map(|n| event(&n.to_string(), "", b"")).collect();
    assert_eq!(node.streams.publish(&stream("s"), most).await.unwrap().len(), EVENTS_PER_PUBLISH_MAX);
    assert_eq!(node.streams.publish(&stream("s"), Vec::new()).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn publishers_at_the_same_time_get_positions_without_a_gap() {
    let node = Node::new();
    let tasks: Vec<_> = (0..32)
        .map(|task| {
            let streams = node.streams.clone();
            tokio::spawn(async move {
                let mut positions = Vec::new();
                for n in 0..20 {
                    let event = event(&format!("{task}.{n}"), "", b"");
                    positions.push(streams.publish(&stream("s"), vec![event]).await.unwrap()[0].position);
                }
                assert!(positions.is_sorted(), "what one publisher waits for is in its order");
                positions
            })
        })
        .collect();
    let mut positions = Vec::new();
    for task in tasks {
        positions.extend(task.await.unwrap());
    }
    positions.sort_unstable();
    assert_eq!(positions, (1..=640).collect::<Vec<u64>>());
}

#[tokio::test]
async fn whoever_waits_for_an_event_is_told_after_it_is_durable() {
    let node = Node::new();
    let waits = node.streams.clone();
    let waiting = tokio::spawn(async move {
        waits.wait(&stream("s"), 1).await.unwrap();
        waits.read(&stream("s"), Start::Position(2), 1).unwrap().len()
    });
    node.publish(&["a"]).await;
    assert!(!waiting.is_finished());
    node.publish(&["b"]).await;
    assert_eq!(waiting.await.unwrap(), 1);
    node.streams.wait(&stream("s"), 0).await.unwrap();
}

#[tokio::test]
async fn a_closed_store_ends_every_wait() {
    let node = Node::new();
    let consumer = node.consumer("c", Default::default()).await;
    let (waits, pulls) = (node.streams.clone(), consumer.clone());
    let waiting = tokio::spawn(async move { waits.wait(&stream("s"), 1).await });
    let pulling = tokio::spawn(async move { pulls.pull(1).await });
    tokio::task::yield_now().await;
    node.store.close();
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), Kind::Draining);
    assert_eq!(pulling.await.unwrap().unwrap_err().kind(), Kind::Draining);
    let refused = node.streams.publish(&stream("s"), vec![event("a", "", b"")]).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Draining);
}
