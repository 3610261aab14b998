//! From a manifest's words to the consumer and the stream: each option arrives where it belongs.
//!
//! No value here is a default, and no two are the same, so that what is left out or swapped shows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{Counting, MemoryKv, MemoryStreams, TestClock};
use marram_core::event::SubjectFilter;
use marram_core::manifest::{Batch, Manifest};
use marram_core::quantity::Span;
use marram_core::stream::{ConsumerPolicy, Overflow, Start, StreamName, StreamPolicy};
use marram_trigger::{Ports, Triggers, Wiring};

fn manifest(on: &str, rest: &str) -> Manifest {
    let head = "manifest_version = 1\n[app]\nname = \"plant\"\n";
    let function = format!("[[function]]\nname = \"spectrum\"\ncomponent = \"x\"\non = [{on}]\n");
    Manifest::parse(&format!("{head}{function}{rest}")).unwrap_or_else(|error| panic!("{on}: {error}"))
}

/// The wiring of the one trigger.
fn wiring(on: &str) -> Wiring {
    let manifest = manifest(on, "");
    let function = &manifest.functions[0];
    let on = function.events().next().unwrap();
    Wiring::of(&manifest.app.name, &function.name, on).unwrap()
}

/// The streams after a deployment of it. Its function cannot be run here: nothing is delivered.
async fn apply(manifest: &Manifest) -> Arc<MemoryStreams> {
    let clock = TestClock::at("2026-11-25T03:29:51Z");
    let streams = MemoryStreams::new(Arc::clone(&clock) as _);
    let (kv, entropy) = (Arc::<MemoryKv>::default(), Arc::<Counting>::default());
    let triggers = Triggers::new(Ports { streams: streams.port(), kv, clock, entropy });
    triggers.apply(manifest, &BTreeMap::new()).await.unwrap();
    streams
}

const OPTIONS: &str = "in_flight = 17, ack_wait = \"31s\", retry = { max = 5, backoff = \"70ms..9s\" }";

/// What [`OPTIONS`] say.
fn options() -> ConsumerPolicy {
    ConsumerPolicy {
        in_flight_max: 17,
        ack_wait: Duration::from_secs(31),
        deliveries_max: 5,
        backoff_min: Duration::from_millis(70),
        backoff_max: Duration::from_secs(9),
        ..ConsumerPolicy::default()
    }
}

#[tokio::test]
async fn every_option_of_every_source_reaches_its_consumer() {
    let topic = SubjectFilter::topic("plant/+/v").unwrap();
    let glob = |text| SubjectFilter::glob(text).unwrap();
    // Where a source begins with new events, `first` is what is not the default, and the other way round.
    for (source, from, start, filter, stream) in [
        ("mqtt = \"plant/+/v\"", "first", Start::First, topic, "mqtt"),
        ("stream = \"readings\"", "new", Start::Next, SubjectFilter::All, "readings"),
        ("key = \"limits/*\"", "first", Start::First, glob("limits/*"), "keys"),
        ("object = \"up/*.png\"", "first", Start::First, glob("up/*.png"), "objects"),
    ] {
        let batch = "batch = { max = 3, wait = \"40ms\" }";
        let on = format!("{{ {source}, {OPTIONS}, order = \"subject\", from = \"{from}\", {batch} }}");
        let wired = wiring(&on);
        let wanted = ConsumerPolicy { filter, start, order_by_subject: true, ..options() };
        assert_eq!((&wired.policy, wired.stream.as_str()), (&wanted, stream), "{source}");
        assert_eq!(wired.batch, Some(Batch { max: 3, wait: Span(Duration::from_millis(40)) }), "{source}");
        assert_eq!(apply(&manifest(&on, "")).await.consumer_policy(stream), wanted, "{source}: as it is deployed");
    }
    let wired = wiring(&format!("{{ schedule = \"*/5 * * * *\", {OPTIONS} }}"));
    let filter = SubjectFilter::Exact("plant/spectrum/*/5 * * * * UTC".to_owned());
    let wanted = ConsumerPolicy { filter, start: Start::First, ..options() };
    assert_eq!((wired.policy, wired.stream, wired.batch), (wanted, StreamName::schedule(), None));
}

#[test]
fn each_option_changes_nothing_but_itself() {
    let default = || wiring("{ stream = \"readings\" }").policy;
    assert_eq!(default(), ConsumerPolicy::default(), "what is left out has a default");
    let secs = Duration::from_secs;
    for (option, wanted) in [
        ("in_flight = 17", ConsumerPolicy { in_flight_max: 17, ..default() }),
        ("ack_wait = \"31s\"", ConsumerPolicy { ack_wait: secs(31), ..default() }),
        ("retry = { max = 5 }", ConsumerPolicy { deliveries_max: 5, ..default() }),
        (
            "retry = { backoff = \"2s..9s\" }",
            ConsumerPolicy { backoff_min: secs(2), backoff_max: secs(9), ..default() },
        ),
        ("retry = { backoff = \"3s\" }", ConsumerPolicy { backoff_min: secs(3), backoff_max: secs(3), ..default() }),
        ("order = \"subject\"", ConsumerPolicy { order_by_subject: true, ..default() }),
        ("order = \"none\"", default()),
        ("from = \"new\"", ConsumerPolicy { start: Start::Next, ..default() }),
        ("from = \"first\"", default()),
        // Four batches of it, where nothing else is said.
        ("batch = { max = 100 }", ConsumerPolicy { in_flight_max: 400, ..default() }),
        ("batch = { max = 8 }", default()),
        ("batch = { max = 100 }, in_flight = 17", ConsumerPolicy { in_flight_max: 17, ..default() }),
    ] {
        assert_eq!(wiring(&format!("{{ stream = \"readings\", {option} }}")).policy, wanted, "{option}");
    }
}

#[tokio::test]
async fn every_word_of_a_stream_reaches_the_stream() {
    let default = StreamPolicy::default;
    let secs = Duration::from_secs;
    let all =
        StreamPolicy { bytes_max: 3 << 20, age_max: secs(7200), overflow: Overflow::DropOldest, dedupe: secs(77) };
    for (table, wanted) in [
        ("", default()),
        ("retain = { bytes = \"3MiB\" }", StreamPolicy { bytes_max: 3 << 20, ..default() }),
        ("retain = { age = \"2h\" }", StreamPolicy { age_max: secs(7200), ..default() }),
        ("overflow = \"drop-oldest\"", StreamPolicy { overflow: Overflow::DropOldest, ..default() }),
        ("overflow = \"reject\"", default()),
        ("dedupe = \"77s\"", StreamPolicy { dedupe: secs(77), ..default() }),
        ("retain = { bytes = \"3MiB\", age = \"2h\" }\noverflow = \"drop-oldest\"\ndedupe = \"77s\"", all),
    ] {
        let streams = apply(&manifest("{ http = \"/\" }", &format!("[stream.readings]\n{table}\n"))).await;
        let states = streams.port().list().unwrap();
        let found: Vec<_> = states.iter().map(|state| (state.name.as_str(), state.policy)).collect();
        assert_eq!(found, [("readings", wanted)], "{table}");
    }
}
