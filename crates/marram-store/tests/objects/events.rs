//! Objects as events: in the same transaction as the change, or not at all.

use marram_core::Kind;
use marram_core::capture::{Capture, Source};
use marram_core::event::SubjectFilter;
use marram_core::port::Blobs as _;
use marram_core::port::Streams as _;
use marram_core::port::blobs::{CopyOptions, Expect};
use marram_core::stream::{Start, StreamName, StreamPolicy};

use crate::support::{NoEntropy, TestClock, name, stream};
use crate::{delete, fresh, put, read};

#[tokio::test]
async fn creations_and_deletions_that_somebody_asks_for_are_events() {
    let (_dir, store, objects, _) = fresh().await;
    let streams = store.streams(TestClock::new(), std::sync::Arc::new(NoEntropy));
    let to: StreamName = Source::Object.stream();
    let filter = SubjectFilter::glob("b/*.png").unwrap();
    store.set_captures(vec![Capture { source: Source::Object, filter, stream: to.clone() }]);
    put(&objects, "a.txt", b"text").await;
    let first = put(&objects, "a.png", b"one").await;
    put(&objects, "a.png", b"two!").await;
    objects.copy((&name("b"), "a.png"), (&name("b"), "b.png"), CopyOptions::default()).await.unwrap();
    assert!(!delete(&objects, "none.png", Expect::Any).await.unwrap());
    assert!(delete(&objects, "a.png", Expect::Etag("no".into())).await.is_err());
    assert!(delete(&objects, "a.png", Expect::Any).await.unwrap());

    let events: Vec<_> = streams.read(&to, Start::First, 100).unwrap().into_iter().map(|stored| stored.event).collect();
    let said: Vec<_> = events.iter().map(|event| (event.kind.as_str(), event.subject.as_str())).collect();
    let (created, deleted) = ("marram.object.created", "marram.object.deleted");
    assert_eq!(said, [(created, "b/a.png"), (created, "b/a.png"), (created, "b/b.png"), (deleted, "b/a.png")]);
    assert_eq!(events[0].id, format!("{:016x}", first.version.0));
    assert_eq!(events[0].source, "/objects/b");
    let data = format!(r#"{{"bucket":"b","name":"a.png","size":3,"etag":"{}"}}"#, first.etag);
    assert_eq!(events[0].data.as_deref(), Some(data.as_bytes()));
}

#[tokio::test]
async fn an_object_whose_event_has_no_room_is_not_there_and_one_to_delete_or_rename_stays() {
    let (_dir, store, objects, _) = fresh().await;
    let streams = store.streams(TestClock::new(), std::sync::Arc::new(NoEntropy));
    store.set_captures(vec![Capture { source: Source::Object, filter: SubjectFilter::All, stream: stream("objects") }]);
    put(&objects, "old", b"old").await;
    put(&objects, "older", b"older").await;
    // The next two events are as large as the first two: there is room for one of them.
    let kept = streams.list().unwrap()[0].bytes;
    let room = StreamPolicy { bytes_max: kept + kept / 2, ..StreamPolicy::default() };
    streams.declare(&stream("objects"), room).await.unwrap();
    let half = objects.rename((&name("b"), "old"), (&name("b"), "new")).await.unwrap_err();
    assert_eq!(half.kind(), Kind::StreamFull);
    assert_eq!((read(&objects, "new").await, read(&objects, "old").await), (None, Some(b"old".to_vec())));
    assert_eq!(streams.list().unwrap()[0].bytes, kept, "no event tells of what did not happen");
    let policy = StreamPolicy { bytes_max: kept, ..StreamPolicy::default() };
    streams.declare(&stream("objects"), policy).await.unwrap();
    let refused = crate::put_if(&objects, "k", b"1", Expect::Any).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::StreamFull);
    assert_eq!(delete(&objects, "old", Expect::Any).await.unwrap_err().kind(), Kind::StreamFull);
    assert_eq!((read(&objects, "k").await, read(&objects, "old").await), (None, Some(b"old".to_vec())));
    store.set_captures(Vec::new());
    put(&objects, "k", b"1").await;
}
