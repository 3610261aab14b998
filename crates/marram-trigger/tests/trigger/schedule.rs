//! Schedules on a clock that is simulated, with nodes that stop and come back.
use std::sync::Arc;
use std::time::Duration;

use crate::support::{Counting, MemoryKv, MemoryStreams, TestClock, unix_ns};
use marram_core::manifest::{Manifest, On};
use marram_core::port::Clock as _;
use marram_core::{Failure, Kind, Name};
use marram_trigger::schedule::{self, Schedule, Timer};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What outlives a node.
struct World {
    clock: Arc<TestClock>,
    streams: Arc<MemoryStreams>,
    kv: Arc<MemoryKv>,
    schedule: Schedule,
}

/// A node that runs.
struct Node {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl World {
    fn new(now: &str, on: &str) -> Self {
        let text = format!(
            "manifest_version = 1\n[app]\nname = \"shop\"\n[[function]]\nname = \"report\"\ncomponent = \"x\"\non = [{on}]"
        );
        let manifest = Manifest::parse(&text).unwrap();
        let On::Schedule(trigger) = &manifest.functions[0].on[0] else { panic!("a schedule") };
        let schedule = Schedule::new(&manifest.app.name, &Name::new("report").unwrap(), trigger).unwrap();
        let clock = TestClock::at(now);
        let streams = MemoryStreams::new(Arc::clone(&clock) as _);
        Self { clock, streams, kv: Arc::default(), schedule }
    }

    async fn start(&self) -> Node {
        let stop = CancellationToken::new();
        let timer = Timer {
            schedule: self.schedule.clone(),
            streams: self.streams.port(),
            kv: Arc::clone(&self.kv) as _,
            clock: Arc::clone(&self.clock) as _,
            entropy: Arc::new(Counting::default()),
            stop: stop.clone(),
        };
        let last = timer.prepare().await.unwrap();
        Node { stop, task: tokio::spawn(schedule::run(timer, last)) }
    }

    /// The planned moments of what was published, in order.
    fn fired(&self) -> Vec<String> {
        self.streams.events("schedule").into_iter().map(|event| event.time).collect()
    }

    fn last(&self) -> Option<u64> {
        use marram_core::port::Kv as _;
        let entry = self.kv.get(&Name::new(schedule::BUCKET).unwrap(), &self.schedule.subject).unwrap()?;
        std::str::from_utf8(&entry.value).unwrap().parse().ok()
    }
}

impl Node {
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

async fn passes(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn moments_come_on_time_and_once() {
    let world = World::new("2026-11-25T03:29:51Z", r#"{ schedule = "0 */5 * * * *", timezone = "Europe/Berlin" }"#);
    let node = world.start().await;
    passes(8).await;
    assert!(world.fired().is_empty());
    passes(2).await;
    assert_eq!(world.fired(), ["2026-11-25T03:30:00Z"]);
    let stored =
        world.streams.port().read(&marram_core::stream::StreamName::schedule(), marram_core::stream::Start::First, 9);
    let late = stored.unwrap()[0].stored_unix_ns - unix_ns("2026-11-25T03:30:00Z");
    assert!(late < 5_000_000, "{late} ns late");
    passes(600).await;
    assert_eq!(world.fired().len(), 3);
    assert_eq!(world.last(), Some(unix_ns("2026-11-25T03:40:00Z")));
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn every_second_is_not_missed() {
    let world = World::new("2026-11-25T03:29:51.5Z", r#"{ schedule = "* * * * * *", missed = "all" }"#);
    let node = world.start().await;
    passes(120).await;
    assert_eq!(world.fired().len(), 120);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_is_made_up_for_as_it_is_written() {
    for (missed, expected) in [
        ("once", &["2026-11-25T07:00:00Z"][..]),
        ("skip", &[]),
        ("all", &["2026-11-25T04:00:00Z", "2026-11-25T05:00:00Z", "2026-11-25T06:00:00Z", "2026-11-25T07:00:00Z"]),
    ] {
        let world =
            World::new("2026-11-25T03:29:00Z", &format!(r#"{{ schedule = "0 * * * *", missed = "{missed}" }}"#));
        world.start().await.stop().await;
        passes(4 * 3600).await;
        let node = world.start().await;
        passes(1).await;
        assert_eq!(world.fired(), expected, "{missed}");
        node.stop().await;
        // Once only.
        let node = world.start().await;
        passes(60).await;
        assert_eq!(world.fired(), expected, "{missed}");
        passes(3600).await;
        assert_eq!(world.fired().len(), expected.len() + 1, "{missed}: and it goes on");
        node.stop().await;
    }
}

/// A node dies after the event is durable and before that is written down; it is away for longer than ids are remembered.
#[tokio::test(start_paused = true)]
async fn a_restart_does_not_fire_twice() {
    for away in [1, 3_000] {
        let world = World::new("2026-11-25T03:59:50Z", r#"{ schedule = "0 * * * *", missed = "all" }"#);
        let node = world.start().await;
        passes(1).await;
        world.kv.fail((0..100).map(|_| Failure::new(Kind::StorageFull, "the disk is full")).collect());
        passes(10).await;
        node.task.abort();
        assert_eq!(world.fired(), ["2026-11-25T04:00:00Z"]);
        assert!(world.last().unwrap() < unix_ns("2026-11-25T04:00:00Z"), "it was not written down");
        passes(away).await;
        let node = world.start().await;
        passes(30).await;
        assert_eq!(world.fired(), ["2026-11-25T04:00:00Z"], "after {away} s");
        node.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_fails_is_made_again() {
    let world = World::new("2026-11-25T03:59:50Z", r#"{ schedule = "0 * * * *" }"#);
    world.streams.fail_publishes(vec![Failure::new(Kind::StreamFull, "full"), Failure::new(Kind::Internal, "broken")]);
    let node = world.start().await;
    passes(20).await;
    assert_eq!(world.fired(), ["2026-11-25T04:00:00Z"]);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_forward_misses_what_lies_between() {
    let world = World::new("2026-11-25T03:29:00Z", r#"{ schedule = "0 * * * *", missed = "once" }"#);
    let node = world.start().await;
    passes(10).await;
    world.clock.jump(3 * 3600);
    passes(31).await;
    assert_eq!(world.fired(), ["2026-11-25T06:00:00Z"], "noticed within 30 seconds");
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_back_does_not_fire_again() {
    let world = World::new("2026-11-25T03:59:00Z", r#"{ schedule = "*/10 * * * *" }"#);
    let node = world.start().await;
    passes(120).await;
    assert_eq!(world.fired(), ["2026-11-25T04:00:00Z"]);
    world.clock.jump(-30 * 60);
    passes(38 * 60).await;
    assert_eq!(world.fired().len(), 1, "these moments were there already");
    passes(5 * 60).await;
    assert_eq!(world.fired(), ["2026-11-25T04:00:00Z", "2026-11-25T04:10:00Z"]);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_years_ahead_is_believed_after_an_hour() {
    let world = World::new("2036-01-01T00:00:30Z", r#"{ schedule = "*/10 * * * *" }"#);
    let node = world.start().await;
    passes(600).await;
    assert_eq!(world.fired(), ["2036-01-01T00:10:00Z"]);
    world
        .clock
        .jump(unix_ns("2026-11-25T00:00:00Z") as i64 / 1_000_000_000 - world.clock.unix_ns() as i64 / 1_000_000_000);
    passes(3_000).await;
    assert_eq!(world.fired().len(), 1);
    passes(1_500).await;
    assert_eq!(world.fired()[1..], ["2026-11-25T01:10:00Z"]);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_night_without_an_hour_and_a_night_with_one_more() {
    let daily = r#"{ schedule = "30 2 * * *", timezone = "Europe/Berlin" }"#;
    for (from, expected) in [
        ("2026-03-28T12:00:00Z", ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]),
        ("2026-10-24T12:00:00Z", ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]),
    ] {
        let world = World::new(from, daily);
        let node = world.start().await;
        passes(40 * 3600).await;
        assert_eq!(world.fired(), expected);
        node.stop().await;
    }
}
