//! How many events a second delivery takes to a function that does nothing, from a stream in memory: the cost of the engine
//! alone. `cargo run --release -p marram-trigger --example deliver_bench`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../tests/trigger/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use marram_core::manifest::Batch;
use marram_core::port::{Body, Call, Invoke, Streams as _, empty_body};
use marram_core::quantity::Span;
use marram_core::stream::{ConsumerId, ConsumerPolicy, StreamName};
use marram_core::{Digest, Event, Failure, FunctionId, Name};
use marram_trigger::deliver::{self, Counters, Plan, Shared, Target};
use support::{Counting, MemoryStreams, TestClock};
use tokio_util::sync::CancellationToken;

/// Reads its body and answers 204.
struct Nothing(Arc<FunctionId>);

impl Invoke for Nothing {
    fn id(&self) -> &Arc<FunctionId> {
        &self.0
    }

    fn request(&self, request: Request<Body>, _: Call) -> BoxFuture<'_, Result<Response<Body>, Failure>> {
        async {
            request.into_body().collect().await?;
            let mut response = Response::new(empty_body());
            *response.status_mut() = http::StatusCode::NO_CONTENT;
            Ok(response)
        }
        .boxed()
    }
}

#[tokio::main]
async fn main() {
    for (label, max) in [("one by one", None), ("batches of 64", Some(64)), ("batches of 256", Some(256))] {
        let mut rates: Vec<_> = Vec::new();
        for _ in 0..5 {
            rates.push(round(max).await);
        }
        rates.sort_by(f64::total_cmp);
        println!("{label:15} {:>9.0} events/s (median of 5; {:.0} to {:.0})", rates[2], rates[0], rates[4]);
    }
}

async fn round(max: Option<u32>) -> f64 {
    const EVENTS: usize = 200_000;
    let clock = TestClock::at("2026-11-25T03:29:51Z");
    let streams = MemoryStreams::new(Arc::clone(&clock) as _);
    let stream = StreamName::new("in").unwrap();
    let data = bytes::Bytes::from(vec![b'7'; 256]);
    let event = |n: usize| Event {
        id: n.to_string(),
        source: "/plant/machine".into(),
        kind: "com.example.vibration".into(),
        subject: "plant/7/vibration".into(),
        time: "2026-11-25T03:29:51.123Z".into(),
        data_content_type: "application/octet-stream".into(),
        data: Some(data.clone()),
        ..Event::default()
    };
    streams.publish(&stream, (0..EVENTS).map(event).collect()).await.unwrap();
    let batch = max.map(|max| Batch { max, wait: Span(Duration::from_millis(5)) });
    let in_flight_max = max.map_or(256, |max| max * 4);
    let policy = ConsumerPolicy { in_flight_max, ..ConsumerPolicy::default() };
    let name = |text| Name::new(text).unwrap();
    let id = FunctionId { app: name("plant"), function: name("nothing"), revision: Digest::of(b"") };
    let consumer = streams.take_up(&stream, &ConsumerId("a/b/c".into()), policy.clone());
    let shared = Arc::new(Shared {
        target: ArcSwap::from_pointee(Target::new(Arc::new(Nothing(Arc::new(id))), None, 8 << 20, 128)),
        plan: Plan { source: "stream:in".into(), batch, keys: false, ack_wait: policy.ack_wait, in_flight_max },
        clock,
        entropy: Arc::new(Counting::default()),
        counters: Counters::default(),
        stop: CancellationToken::new(),
        cut: CancellationToken::new(),
    });
    let began = Instant::now();
    let task = tokio::spawn(deliver::run(Arc::clone(&shared), Arc::clone(&consumer)));
    while shared.counters.read().acked < EVENTS as u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = began.elapsed();
    shared.stop.cancel();
    task.await.unwrap();
    EVENTS as f64 / took.as_secs_f64()
}
