//! Deployments: what starts, goes on, changes and ends, and that no event is lost or delivered twice on the way.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{Counting, MemoryKv, MemoryStreams, TestClock, answer, event, fake, until};
use marram_core::capture::{Capture, Source};
use marram_core::event::SubjectFilter;
use marram_core::manifest::Manifest;
use marram_core::port::{Consumer, Invoke};
use marram_core::stream::{ConsumerId, ConsumerPolicy, StreamName, StreamPolicy};
use marram_core::{Failure, Kind, Name};
use marram_trigger::{Ports, Ready, TriggerState, Triggers};

struct Node {
    clock: Arc<TestClock>,
    streams: Arc<MemoryStreams>,
    kv: Arc<MemoryKv>,
    triggers: Triggers,
    seen: Arc<Mutex<Vec<(&'static str, String)>>>,
}

impl Node {
    fn new() -> Self {
        let clock = TestClock::at("2026-11-25T03:29:51Z");
        let streams = MemoryStreams::new(Arc::clone(&clock) as _);
        let kv = Arc::<MemoryKv>::default();
        let triggers = Triggers::new(Ports {
            streams: streams.port(),
            kv: Arc::clone(&kv) as _,
            clock: Arc::clone(&clock) as _,
            entropy: Arc::new(Counting::default()),
        });
        Self { clock, streams, kv, triggers, seen: Arc::default() }
    }

    /// A function that writes down what it saw, and takes its time.
    fn function(&self, revision: &'static str, takes: Duration) -> Arc<dyn Invoke> {
        let seen = Arc::clone(&self.seen);
        fake(move |got| {
            seen.lock().unwrap().extend(got.ids().into_iter().map(|id| (revision, id)));
            async move {
                tokio::time::sleep(takes).await;
                answer(200, &[], "")
            }
        })
    }

    async fn apply(&self, rest: &str, function: Option<Arc<dyn Invoke>>) -> Result<(), Failure> {
        self.apply_as("plant", rest, function).await
    }

    /// A deployment that is kept.
    async fn apply_as(&self, app: &str, rest: &str, function: Option<Arc<dyn Invoke>>) -> Result<(), Failure> {
        let manifest = manifest(app, rest);
        // A node applies within tasks.
        sent(self.triggers.apply(&manifest, &functions(function))).await?;
        sent(self.triggers.forget_unwanted(&manifest)).await;
        Ok(())
    }

    /// Everything of a deployment that comes before it is kept.
    async fn prepare(&self, rest: &str, function: Option<Arc<dyn Invoke>>) -> Result<Ready, Failure> {
        sent(self.triggers.prepare(&manifest("plant", rest), &functions(function))).await
    }

    /// Another process on the same streams and keys.
    fn restart(&mut self) {
        self.triggers = Triggers::new(Ports {
            streams: self.streams.port(),
            kv: Arc::clone(&self.kv) as _,
            clock: Arc::clone(&self.clock) as _,
            entropy: Arc::new(Counting::default()),
        });
    }

    fn consumer(&self, stream: &str, id: &str) -> Arc<dyn Consumer> {
        self.streams.port().find_consumer(&StreamName::new(stream).unwrap(), &ConsumerId(id.into())).unwrap()
    }

    async fn publish(&self, stream: &str, id: &str) {
        let stream = StreamName::new(stream).unwrap();
        self.streams.port().publish(&stream, vec![event(id, "plant/1/vibration")]).await.unwrap();
    }

    fn seen(&self) -> Vec<(&'static str, String)> {
        self.seen.lock().unwrap().clone()
    }

    fn consumers(&self) -> Vec<String> {
        let states = self.streams.port().list().unwrap();
        states.iter().flat_map(|state| state.consumers.iter().map(|consumer| consumer.id.0.to_string())).collect()
    }
}

fn on(triggers: &str) -> String {
    format!("[[function]]\nname = \"spectrum\"\ncomponent = \"x\"\non = [{triggers}]\n")
}

fn manifest(app: &str, rest: &str) -> Manifest {
    let text = format!("manifest_version = 1\n[app]\nname = \"{app}\"\n{rest}");
    Manifest::parse(&text).unwrap_or_else(|error| panic!("{error}"))
}

fn functions(function: Option<Arc<dyn Invoke>>) -> BTreeMap<Name, Arc<dyn Invoke>> {
    function.into_iter().map(|function| (Name::new("spectrum").unwrap(), function)).collect()
}

fn sent<T: Send>(future: T) -> T {
    future
}

const NOW: Duration = Duration::ZERO;

#[tokio::test(start_paused = true)]
async fn every_source_is_a_consumer_of_its_stream() {
    let node = Node::new();
    let all = on(
        r#"{ mqtt = "plant/+/vibration" }, { stream = "readings" }, { key = "limits/*" }, { object = "up/*.png" }, { schedule = "*/5 * * * *" }, { http = "/" }"#,
    );
    let rest = format!("{all}[stream.trends]\nmqtt = [\"trend/#\"]\nretain = {{ bytes = \"3MiB\" }}\n");
    node.apply(&rest, Some(node.function("1", NOW))).await.unwrap();
    let mut status = node.triggers.status();
    status.sort_by(|a, b| a.source.cmp(&b.source));
    let rows: Vec<_> = status.iter().map(|row| (row.source.as_str(), row.stream.as_str())).collect();
    let expected = [
        ("key:limits/*", "keys"),
        ("mqtt:plant/+/vibration", "mqtt"),
        ("object:up/*.png", "objects"),
        ("schedule:*/5 * * * * UTC", "schedule"),
        ("stream:readings", "readings"),
    ];
    assert_eq!(rows, expected);
    assert!(status.iter().all(|row| row.state == TriggerState::Running && row.function.as_str() == "spectrum"));
    let capture = |source, filter, stream: &str| Capture { source, filter, stream: StreamName::new(stream).unwrap() };
    let topic = |text| SubjectFilter::topic(text).unwrap();
    let glob = |text| SubjectFilter::glob(text).unwrap();
    let captures = node.triggers.captures();
    let expected = [
        capture(Source::Mqtt, topic("plant/+/vibration"), "mqtt"),
        capture(Source::Key, glob("limits/*"), "keys"),
        capture(Source::Object, glob("up/*.png"), "objects"),
        capture(Source::Mqtt, topic("trend/#"), "trends"),
    ];
    assert!(captures.len() == 4 && expected.iter().all(|wanted| captures.contains(wanted)), "{captures:?}");
    let states = node.streams.port().list().unwrap();
    let trends = states.iter().find(|state| state.name.as_str() == "trends").unwrap();
    assert_eq!(trends.policy.bytes_max, 3 << 20);
    // Each gets what is its own, and the schedule comes.
    for (stream, id) in [("mqtt", "m"), ("readings", "r"), ("keys", "k")] {
        node.publish(stream, id).await;
    }
    until("all to be seen", || node.seen().len() == 3).await;
    let mut ids: Vec<_> = node.seen().into_iter().map(|(_, id)| id).collect();
    ids.sort();
    let expected = ["m", "plant/spectrum/*/5 * * * * UTC 2026-11-25T03:30:00Z", "r"];
    assert_eq!(ids, expected, "the changed key is of another bucket");
    node.triggers.drain(Duration::from_secs(1)).await;
    assert!(node.triggers.status().is_empty());
    assert_eq!(node.consumers().len(), 5, "they are there for the next start");
}

#[tokio::test(start_paused = true)]
async fn a_deployment_loses_nothing_and_delivers_nothing_twice() {
    let node = Node::new();
    let rest = on(r#"{ stream = "readings" }"#);
    node.apply(&rest, Some(node.function("1", Duration::from_millis(10)))).await.unwrap();
    let publish = async {
        for n in 0..300 {
            node.publish("readings", &format!("n{n}")).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let deploy = async {
        for (revision, rest) in [
            ("2", rest.clone()),
            ("3", on(r#"{ stream = "readings", batch = { max = 7, wait = "3ms" } }"#)),
            ("4", on(r#"{ stream = "readings", order = "subject" }, { stream = "other" }"#)),
            ("5", rest.clone()),
        ] {
            tokio::time::sleep(Duration::from_millis(50)).await;
            node.apply(&rest, Some(node.function(revision, Duration::from_millis(10)))).await.unwrap();
        }
    };
    tokio::join!(publish, deploy);
    until("all to be acknowledged", || node.streams.consumer_state("readings").acked == 300).await;
    let mut ids: Vec<_> = node.seen().into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids.len(), 300, "none was delivered twice");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 300);
    for revision in ["1", "2", "3", "4", "5"] {
        assert!(node.seen().iter().any(|(by, _)| *by == revision), "revision {revision} saw nothing");
    }
    assert_eq!(node.consumers(), ["plant/spectrum/stream:readings"], "the other is forgotten");
    node.triggers.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_trigger_runs_ends_before_it_changes_and_goes_on_where_it_stays_the_same() {
    let node = Node::new();
    let rest = on(r#"{ stream = "readings" }"#);
    let changed = on(r#"{ stream = "readings", in_flight = 9 }"#);
    let slow = |revision| Some(node.function(revision, Duration::from_secs(2)));
    node.apply(&rest, slow("1")).await.unwrap();
    node.publish("readings", "a").await;
    until("it to run", || node.seen().len() == 1).await;
    node.apply(&rest, slow("2")).await.unwrap();
    assert_eq!(node.streams.consumer_state("readings").in_flight, 1, "nobody waited");
    node.apply(&changed, slow("3")).await.unwrap();
    let state = node.streams.consumer_state("readings");
    assert_eq!((state.in_flight, state.acked), (0, 1));
    node.triggers.drain(Duration::from_secs(1)).await;
    assert_eq!(node.seen(), [("1", "a".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn what_is_new_begins_at_its_deployment_and_what_is_kept_at_the_first() {
    let node = Node::new();
    for stream in ["mqtt", "readings"] {
        node.publish(stream, &format!("old-{stream}")).await;
    }
    let rest = on(r#"{ mqtt = "plant/#" }, { stream = "readings" }"#);
    node.apply(&rest, Some(node.function("1", NOW))).await.unwrap();
    node.publish("mqtt", "new").await;
    until("both", || node.seen().len() == 2).await;
    let mut ids: Vec<_> = node.seen().into_iter().map(|(_, id)| id).collect();
    ids.sort();
    assert_eq!(ids, ["new", "old-readings"]);
    node.triggers.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_function_that_cannot_run_is_still_owed_its_events() {
    let node = Node::new();
    let rest = on(r#"{ mqtt = "plant/#" }"#);
    node.apply(&rest, None).await.unwrap();
    assert_eq!(node.triggers.status()[0].state, TriggerState::Unavailable);
    node.publish("mqtt", "1").await;
    node.apply(&rest, Some(node.function("2", NOW))).await.unwrap();
    until("it", || node.seen() == [("2", "1".to_owned())]).await;
    node.triggers.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_removed_app_leaves_nothing_but_its_streams() {
    let node = Node::new();
    let rest = on(r#"{ mqtt = "plant/#" }, { schedule = "* * * * *" }"#) + "[stream.trends]\n";
    node.apply(&rest, Some(node.function("1", NOW))).await.unwrap();
    node.apply_as("plant2", &on(r#"{ mqtt = "plant/#" }"#), Some(node.function("2", NOW))).await.unwrap();
    assert_eq!(node.kv.keys(), ["plant/spectrum/* * * * * UTC"]);
    sent(node.triggers.remove(&Name::new("plant").unwrap())).await;
    assert_eq!(node.consumers(), ["plant2/spectrum/mqtt:plant/#"]);
    assert_eq!(node.kv.keys(), Vec::<String>::new());
    assert_eq!((node.triggers.captures().len(), node.triggers.status().len()), (1, 1));
    assert!(node.streams.port().list().unwrap().iter().any(|state| state.name.as_str() == "trends"));
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(node.streams.events("schedule").is_empty(), "its timer is gone");
    node.triggers.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_deployed_changes_nothing() {
    let node = Node::new();
    let declare = |age: &str| format!("[stream.readings]\nretain = {{ age = \"{age}\" }}\n");
    let rest = on(r#"{ stream = "readings" }"#) + &declare("1d");
    node.apply(&rest, Some(node.function("1", NOW))).await.unwrap();
    let failure = node.apply_as("other", &declare("2d"), None).await.unwrap_err();
    assert_eq!(failure.kind(), Kind::Conflict);
    assert!(failure.message().contains("\"readings\"") && failure.message().contains("\"plant\""), "{failure}");
    node.apply_as("other", &declare("1d"), None).await.unwrap();
    let bad = on(r#"{ stream = "a" }, { stream = "b" }, { schedule = "0 0 31 2 *" }"#);
    let failure = node.apply(&bad, Some(node.function("2", NOW))).await.unwrap_err();
    assert_eq!(failure.kind(), Kind::Invalid);
    assert!(failure.message().contains("never comes"), "{failure}");
    assert_eq!(node.consumers(), ["plant/spectrum/stream:readings"]);
    node.publish("readings", "1").await;
    until("it", || node.seen() == [("1", "1".to_owned())]).await;
    node.triggers.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_declares_any_more_has_no_limits_of_an_app() {
    let node = Node::new();
    let policy = |stream: &str| {
        let states = node.streams.port().list().unwrap();
        states.into_iter().find(|state| state.name.as_str() == stream).expect("the stream").policy
    };
    let declare = |stream: &str, keys: &str| format!("[stream.{stream}]\n{keys}\n");
    let tight = "retain = { age = \"2s\", bytes = \"2MiB\" }\noverflow = \"drop-oldest\"";
    let trigger = on(r#"{ stream = "readings" }"#);
    // A revision without the declaration, and an app that goes.
    node.apply(&(trigger.clone() + &declare("readings", tight)), None).await.unwrap();
    node.apply_as("other", &declare("keys", tight), None).await.unwrap();
    assert_eq!((policy("readings").bytes_max, policy("keys").bytes_max), (2 << 20, 2 << 20));
    node.apply(&trigger, None).await.unwrap();
    assert_eq!((policy("readings"), policy("keys").bytes_max), (StreamPolicy::default(), 2 << 20));
    node.triggers.remove(&Name::new("other").unwrap()).await;
    assert_eq!(policy("keys"), StreamPolicy::default());
    // Nothing goes because an app did; and what could not be deployed has declared nothing.
    node.apply_as("other", &declare("large", "retain = { age = \"90d\", bytes = \"20GiB\" }"), None).await.unwrap();
    node.triggers.remove(&Name::new("other").unwrap()).await;
    let days = Duration::from_secs(90 * 86_400);
    assert_eq!((policy("large").bytes_max, policy("large").age_max), (20 << 30, days));
    let bad = on(r#"{ schedule = "0 0 31 2 *" }"#) + &declare("trends", tight);
    node.apply_as("other", &bad, None).await.unwrap_err();
    assert_eq!(policy("trends"), StreamPolicy::default());
    // While nobody knows what an app declares, everything stays.
    node.apply_as("other", &declare("keys", tight), None).await.unwrap();
    let unreadable = [(Name::new("broken").unwrap(), None)].into();
    node.triggers.forget_strays(&unreadable).await;
    node.triggers.remove(&Name::new("other").unwrap()).await;
    assert_eq!(policy("keys").bytes_max, 2 << 20);
}

const READINGS: &str = "plant/spectrum/stream:readings";

/// The consumer that is owed something and paused, and a revision that does not have it.
async fn owing(node: &Node) -> String {
    let rest = on(r#"{ stream = "readings" }, { schedule = "0 8 * * *" }"#);
    node.apply(&rest, Some(node.function("1", NOW))).await.unwrap();
    node.consumer("readings", READINGS).pause(true).await.unwrap();
    node.publish("readings", "owed").await;
    assert_eq!(node.kv.keys(), ["plant/spectrum/0 8 * * * UTC"]);
    on(r#"{ stream = "other" }, { schedule = "0 9 * * *" }"#)
}

/// It stands where it stood, and what only the other revision has is not there.
fn still_owes(node: &Node) {
    assert_eq!(node.consumers(), [READINGS, "plant/spectrum/schedule:0 8 * * * UTC"]);
    assert_eq!(node.kv.keys(), ["plant/spectrum/0 8 * * * UTC"]);
    let state = node.consumer("readings", READINGS).state();
    assert!(state.paused && state.cursor == 0 && state.acked == 0, "{state:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_is_not_kept_forgets_nothing_and_leaves_nothing() {
    let node = Node::new();
    let next = owing(&node).await;
    let ready = node.prepare(&next, Some(node.function("2", NOW))).await.unwrap();
    sent(node.triggers.take_back(ready)).await;
    still_owes(&node);
    // Where the last of its triggers cannot be, neither do the others before it stay.
    let bad = on(r#"{ stream = "other" }, { schedule = "0 9 * * *" }, { schedule = "0 0 31 2 *" }"#);
    let failure = node.prepare(&bad, Some(node.function("2", NOW))).await.err().unwrap();
    assert_eq!(failure.kind(), Kind::Invalid);
    still_owes(&node);
    // What ran has never stopped.
    node.consumer("readings", READINGS).pause(false).await.unwrap();
    until("it", || node.seen() == [("1", "owed".to_owned())]).await;
    node.triggers.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_ends_before_a_deployment_is_kept_has_what_it_had() {
    let mut node = Node::new();
    let next = owing(&node).await;
    drop(node.prepare(&next, Some(node.function("2", NOW))).await.unwrap());
    assert_eq!(node.consumers().len(), 4);
    node.triggers.drain(Duration::from_secs(1)).await;
    node.restart();
    let rest = on(r#"{ stream = "readings" }, { schedule = "0 8 * * *" }"#);
    let manifest = Arc::new(manifest("plant", &rest));
    sent(node.triggers.apply(&manifest, &functions(Some(node.function("1", NOW))))).await.unwrap();
    sent(node.triggers.forget_strays(&BTreeMap::from([(manifest.app.name.clone(), Some(Arc::clone(&manifest)))])))
        .await;
    still_owes(&node);
    node.triggers.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_forgotten_is_forgotten_by_the_next_start() {
    let mut node = Node::new();
    let next = owing(&node).await;
    let no = || Failure::new(Kind::Internal, "the disk failed");
    node.streams.fail_removals(vec![no(), no()]);
    // It is deployed all the same.
    node.apply(&next, Some(node.function("2", NOW))).await.unwrap();
    assert_eq!(node.consumers().len(), 4);
    for id in ["gone/f/stream:other", "plant2/f/stream:other", "unreadable/f/stream:other", "somebody"] {
        let stream = StreamName::new("other").unwrap();
        drop(node.streams.take_up(&stream, &ConsumerId(id.into()), ConsumerPolicy::default()));
    }
    node.triggers.drain(Duration::from_secs(1)).await;
    node.restart();
    let name = |text: &str| Name::new(text).unwrap();
    let apps = BTreeMap::from([
        (name("plant"), Some(Arc::new(manifest("plant", &next)))),
        (name("plant2"), Some(Arc::new(manifest("plant2", "[stream.other]\n")))),
        (name("unreadable"), None),
    ]);
    sent(node.triggers.forget_strays(&apps)).await;
    let stay = ["plant/spectrum/stream:other", "somebody", "unreadable/f/stream:other"];
    let schedule = "plant/spectrum/schedule:0 9 * * * UTC";
    assert_eq!(node.consumers(), [&stay[..], &[schedule]].concat());
    assert_eq!(node.kv.keys(), ["plant/spectrum/0 9 * * * UTC"]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_cuts_off_what_does_not_end() {
    let node = Node::new();
    let slow = node.function("1", Duration::from_secs(1_000));
    node.apply(&on(r#"{ stream = "readings" }"#), Some(slow)).await.unwrap();
    node.publish("readings", "1").await;
    until("it to run", || node.seen().len() == 1).await;
    let began = tokio::time::Instant::now();
    node.triggers.drain(Duration::from_secs(5)).await;
    let took = began.elapsed();
    assert!((Duration::from_secs(5)..Duration::from_secs(6)).contains(&took), "{took:?}");
    assert_eq!(node.streams.consumer_state("readings").in_flight, 0, "given back");
}

#[tokio::test(start_paused = true)]
async fn what_comes_before_an_app_is_applied_and_after_the_drain_is_captured() {
    let node = Node::new();
    let rest = on(r#"{ mqtt = "plant/#" }, { key = "limits/*" }"#) + "[stream.trends]\nmqtt = [\"trend/#\"]\n";
    let captures = || {
        let mut all: Vec<_> =
            node.triggers.captures().into_iter().map(|capture| capture.stream.as_str().to_owned()).collect();
        all.sort();
        all
    };
    node.triggers.expect(&manifest("plant", &rest));
    assert_eq!((captures(), node.triggers.status().len()), (vec!["keys".into(), "mqtt".into(), "trends".into()], 0));
    node.apply(&rest, Some(node.function("1", NOW))).await.unwrap();
    assert_eq!((captures().len(), node.triggers.status().len()), (3, 2));

    node.triggers.drain(Duration::from_secs(1)).await;
    assert_eq!((captures().len(), node.triggers.status().len()), (3, 0));
    // A deployment that was under way starts nothing that nobody would stop; its events wait for the next start.
    node.apply_as("late", &on(r#"{ object = "up/*" }"#), Some(node.function("2", NOW))).await.unwrap();
    assert_eq!((captures().len(), node.triggers.status().len()), (4, 0));
    assert!(node.consumers().iter().any(|id| id.starts_with("late/")));
}
