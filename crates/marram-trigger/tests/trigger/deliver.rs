//! Delivery of one event at a time, on streams in memory and functions that are closures.
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::rig::{Rig, name, policy, target};
use crate::support::{answer, event, fake, until};
use arc_swap::ArcSwap;
use marram_core::event::{Attribute, Event};
use marram_core::port::Streams as _;
use marram_core::stream::ConsumerPolicy;
use marram_core::{Failure, Kind};
use marram_trigger::deliver::{self, Counters, Shared, Target};
use tokio_util::sync::CancellationToken;

/// What happens to an event.
#[derive(Debug, PartialEq)]
enum Fate {
    Acked,
    /// Retried until it was given up on.
    Retried,
    DeadAtOnce,
}

/// The table of DESIGN §1, by every status and every kind of failure.
#[tokio::test(start_paused = true)]
async fn every_answer_settles_as_the_rules_say() {
    let mut cases: Vec<(String, Fate)> = Vec::new();
    for status in 200..600_u16 {
        let fate = match status {
            200..=299 => Fate::Acked,
            408 | 425 | 429 | 500..=599 => Fate::Retried,
            _ => Fate::DeadAtOnce,
        };
        cases.push((status.to_string(), fate));
    }
    for kind in Kind::ALL {
        let fate = match kind {
            // The function did not run: it is tried until it does.
            Kind::Overloaded | Kind::Draining | Kind::StorageFull | Kind::StreamFull => Fate::Acked,
            kind if kind.status() < 500 => Fate::DeadAtOnce,
            _ => Fate::Retried,
        };
        cases.push((kind.label().to_owned(), fate));
    }
    let refusals = Arc::new(Mutex::new(std::collections::HashMap::<String, u32>::new()));
    let refused = Arc::clone(&refusals);
    let rig = Rig::new(None, policy(), move |got| {
        let id = got.events[0].id.clone();
        let times = {
            let mut refused = refused.lock().unwrap();
            let times = refused.entry(id.clone()).or_default();
            *times += 1;
            *times
        };
        async move {
            if let Ok(status) = id.parse() {
                return answer(status, &[], "because of\n this");
            }
            let kind = *Kind::ALL.iter().find(|kind| kind.label() == id).unwrap();
            if kind.blame() == marram_core::Blame::Host && kind.status() >= 503 && times > 20 {
                return answer(200, &[], "");
            }
            Err(Failure::new(kind, "it happened"))
        }
    })
    .start();
    let ids: Vec<_> = cases.iter().map(|(id, _)| id.as_str()).collect();
    rig.publish(&ids).await;
    rig.settled().await;
    let dead: std::collections::HashMap<_, _> = rig.streams.reasons("in.dead").into_iter().collect();
    for (id, fate) in &cases {
        let runs = rig.got().iter().filter(|ids| ids[0] == *id).count();
        let found = match (dead.contains_key(id), runs) {
            (false, _) => Fate::Acked,
            (true, 1) => Fate::DeadAtOnce,
            (true, 3) => Fate::Retried,
            (true, runs) => panic!("{id}: {runs} runs"),
        };
        assert_eq!(found, *fate, "{id}");
    }
    assert_eq!(dead["400"], "400 Bad Request: because of this");
    assert_eq!(dead["503"], "503 Service Unavailable: because of this");
    assert_eq!(dead["trap"], "trap: it happened");
    let counts = rig.shared.counters.read();
    assert_eq!(counts.acked + dead.len() as u64, cases.len() as u64, "the books balance");
    assert_eq!(counts.held, 4 * 20);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_function_sees_the_event_in_binary_mode_and_its_trace() {
    let rig = Rig::new(None, policy(), |_| async { answer(204, &[], "") }).start();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut traced = event("1", "a b");
    traced.extensions.insert("traceparent".into(), Attribute::Text(parent.into()));
    traced.extensions.insert("tracestate".into(), Attribute::Text("x=1".into()));
    rig.streams.publish(&name("in"), vec![traced.clone(), event("2", "")]).await.unwrap();
    rig.settled().await;
    let got = rig.got.lock().unwrap().clone();
    let got: Vec<_> = ["1", "2"].map(|id| got.iter().find(|got| got.events[0].id == id).unwrap().clone()).into();
    assert_eq!(got[0].events, [traced]);
    assert_eq!(got[0].uri, "http://spectrum.internal/");
    let header = |name: &str| got[0].headers[name].to_str().unwrap().to_owned();
    assert_eq!((header("host"), header("ce-subject")), ("spectrum.internal".into(), "a%20b".into()));
    assert_eq!((header("marram-trigger"), header("marram-attempt")), ("stream:in".into(), "1".into()));
    assert_eq!(got[0].call.trace.trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_ne!(got[0].call.trace.span.to_string(), "b7ad6b7169203331");
    assert_eq!(header("traceparent").as_bytes(), got[0].call.trace.header());
    assert_eq!(header("tracestate"), "x=1");
    assert_ne!(got[1].call.trace.trace, got[0].call.trace.trace, "a trace of its own");
    assert_ne!(got[1].call.request, got[0].call.request);
    rig.stop().await;
}

/// CloudEvents HTTP binding §3: a function would read the body of such a content type as the event.
#[tokio::test(start_paused = true)]
async fn data_that_says_that_it_is_an_event_is_not_read_as_the_event() {
    let rig = Rig::new(None, policy(), |_| async { answer(204, &[], "") }).start();
    let forged = r#"{"specversion":"1.0","id":"1","source":"/mqtt/another","type":"forged"}"#;
    let content_types = ["application/cloudevents+json", "Application/CloudEvents-Batch+JSON"];
    let told = content_types.map(|content_type| {
        let list = content_type.contains("Batch");
        let data = if list { format!("[{forged}]") } else { forged.to_owned() };
        let id = content_type.to_lowercase();
        Event { data_content_type: content_type.into(), data: Some(data.into()), ..event(&id, "s") }
    });
    rig.streams.publish(&name("in"), told.to_vec()).await.unwrap();
    rig.settled().await;
    let got = rig.got.lock().unwrap().clone();
    for told in told {
        let got =
            got.iter().find(|got| got.events == [told.clone()]).unwrap_or_else(|| panic!("{told:?} did not come"));
        assert_eq!(got.headers["content-type"], "application/cloudevents+json");
        assert!(!got.headers.contains_key("ce-source"), "one event is not said in two ways");
        assert_eq!(got.headers["marram-attempt"], "1");
    }
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_function_answers_has_the_trace_state_of_what_it_was_given() {
    let rig = Rig::new(None, policy(), |_| async {
        answer(200, &[("ce-specversion", "1.0"), ("ce-id", "a"), ("ce-source", "/f"), ("ce-type", "alarm")], "hot")
    })
    .start();
    let mut traced = event("1", "a");
    for (name, text) in
        [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("tracestate", "x=1")]
    {
        traced.extensions.insert(name.into(), Attribute::Text(text.into()));
    }
    rig.streams.publish(&name("in"), vec![traced]).await.unwrap();
    rig.settled().await;
    assert_eq!(rig.streams.events("out")[0].trace_state(), Some("x=1"));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_an_event_is_published_with_the_acknowledgement() {
    let rig = Rig::new(None, policy(), |got| async move {
        let ce = [("ce-specversion", "1.0"), ("ce-id", "alarm"), ("ce-source", "/f"), ("ce-type", "alarm")];
        match got.events[0].id.as_str() {
            "binary" => answer(200, &ce, "hot"),
            "batch" => answer(
                200,
                &[("content-type", "application/cloudevents-batch+json")],
                r#"[{"specversion":"1.0","id":"x","source":"/f","type":"t"},{"specversion":"1.0","id":"y","source":"/f","type":"t"}]"#,
            ),
            "malformed" => answer(200, &ce[..2], ""),
            "failed" => answer(500, &ce, "hot"),
            _ => answer(200, &[("content-type", "application/json")], "{}"),
        }
    })
    .start();
    rig.publish(&["binary", "batch", "malformed", "failed", "plain"]).await;
    rig.settled().await;
    let mut out = rig.streams.events("out");
    out.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(out.iter().map(|event| &*event.id).collect::<Vec<_>>(), ["alarm", "x", "y"]);
    assert_eq!(out[0].data.as_deref(), Some(&b"hot"[..]));
    let run = rig.got.lock().unwrap().iter().find(|got| got.events[0].id == "binary").unwrap().call.trace;
    assert_eq!(out[0].trace(), Some(run), "the trace goes on through the queue");
    let dead = rig.streams.reasons("in.dead");
    assert_eq!(dead[0].0, "malformed");
    assert!(dead[0].1.starts_with("its answer is not a CloudEvent: `"), "{dead:?}");
    assert_eq!(dead[1].0, "failed");
    assert_eq!(rig.shared.counters.read().outputs, 3);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_an_output_an_answer_that_is_an_event_is_counted_and_dropped() {
    let rig = Rig::new(None, policy(), |_| async { answer(200, &[("ce-id", "1")], "") });
    let invoke = Arc::clone(&fake(|_| async { answer(200, &[("ce-id", "1")], "") }));
    rig.shared.target.store(Arc::new(Target::new(invoke, None, 1 << 20, 8)));
    let rig = rig.start();
    rig.publish(&["1"]).await;
    rig.settled().await;
    let counts = rig.shared.counters.read();
    assert_eq!((counts.acked, counts.outputs, counts.outputs_unused), (1, 0, 1));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured_in_seconds_and_as_a_date() {
    // The clock says 03:29:51, give or take what has passed.
    for (value, least, most) in
        [("7", 7, 8), ("Wed, 25 Nov 2026 03:30:21 GMT", 29, 31), ("nonsense", 1, 2), ("0", 1, 2)]
    {
        let runs = Arc::new(Mutex::new(Vec::new()));
        let times = Arc::clone(&runs);
        let rig = Rig::new(None, policy(), move |_| {
            let mut times = times.lock().unwrap();
            times.push(tokio::time::Instant::now());
            let first = times.len() == 1;
            async move { if first { answer(429, &[("retry-after", value)], "") } else { answer(200, &[], "") } }
        })
        .start();
        rig.publish(&["1"]).await;
        rig.settled().await;
        let runs = runs.lock().unwrap().clone();
        let waited = (runs[1] - runs[0]).as_secs_f64();
        assert!((f64::from(least)..f64::from(most)).contains(&waited), "{value}: {waited}");
        rig.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn order_by_subject_holds_through_retries() {
    let failed = Arc::new(AtomicUsize::new(0));
    let policy = ConsumerPolicy { order_by_subject: true, ..policy() };
    let rig = Rig::new(None, policy, move |got| {
        let fail = got.events[0].id == "a1" && failed.fetch_add(1, Ordering::SeqCst) < 2;
        async move { if fail { answer(500, &[], "") } else { answer(200, &[], "") } }
    });
    rig.publish(&["a1", "a2", "b1", "a3", "b2"]).await;
    let rig = rig.start();
    rig.settled().await;
    let got: Vec<_> = rig.got().into_iter().flatten().collect();
    let of = |subject: char| got.iter().filter(|id| id.starts_with(subject)).cloned().collect::<Vec<_>>();
    assert_eq!(of('a'), ["a1", "a1", "a1", "a2", "a3"]);
    assert_eq!(of('b'), ["b1", "b2"]);
    let position = |id: &str| got.iter().rposition(|got| got == id).unwrap();
    assert!(position("b2") < position("a1"), "another subject does not wait: {got:?}");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_ack_wait_is_extended_while_the_function_runs() {
    let policy = ConsumerPolicy { ack_wait: Duration::from_secs(3), ..policy() };
    let rig = Rig::new(None, policy, |_| async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        answer(200, &[], "")
    })
    .start();
    rig.publish(&["1"]).await;
    rig.settled().await;
    assert_eq!(rig.got().len(), 1, "it was not delivered again");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn draining_waits_for_what_runs_and_gives_back_what_waits() {
    let policy = ConsumerPolicy { in_flight_max: 64, deliveries_max: 1, ..policy() };
    let rig = Rig::new(None, policy, |_| async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        answer(200, &[], "")
    });
    let ids: Vec<_> = (0..20).map(|n| format!("n{n}")).collect();
    rig.publish(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let rig = rig.start();
    until("runs", || rig.got().len() == 4).await;
    let (streams, consumer, shared) = (Arc::clone(&rig.streams), Arc::clone(&rig.consumer), Arc::clone(&rig.shared));
    rig.stop().await;
    let state = consumer.state();
    assert_eq!((state.acked, state.in_flight, state.dead_lettered), (4, 0, 0));
    // Whoever comes next gets the rest at once, and for none of it a delivery has counted.
    let next = Shared {
        target: ArcSwap::from_pointee(target(fake(|_| async { answer(200, &[], "") }))),
        plan: shared.plan.clone(),
        clock: Arc::clone(&shared.clock),
        entropy: Arc::clone(&shared.entropy),
        counters: Counters::default(),
        stop: CancellationToken::new(),
        cut: CancellationToken::new(),
    };
    let began = tokio::time::Instant::now();
    let next = Arc::new(next);
    let task = tokio::spawn(deliver::run(Arc::clone(&next), Arc::clone(&consumer)));
    until("the rest", || consumer.state().acked == 20).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(streams.ids("in.dead").is_empty());
    next.stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_cut_off_is_given_back() {
    let rig = Rig::new(None, policy(), |_| std::future::pending()).start();
    rig.publish(&["1", "2"]).await;
    until("runs", || rig.got().len() == 2).await;
    let (shared, consumer) = (Arc::clone(&rig.shared), Arc::clone(&rig.consumer));
    shared.stop.cancel();
    shared.cut.cancel();
    rig.stop().await;
    let state = consumer.state();
    assert_eq!((state.in_flight, state.retrying, state.acked), (0, 2, 0));
    assert_eq!(shared.counters.read().running, 0);
}

#[tokio::test(start_paused = true)]
async fn what_found_no_place_is_given_back_when_delivery_stops() {
    let rig = Rig::new(None, policy(), |_| async { Err(Failure::new(Kind::Overloaded, "full")) }).start();
    rig.publish(&["1"]).await;
    until("it to wait", || rig.got().len() > 3).await;
    let consumer = Arc::clone(&rig.consumer);
    rig.stop().await;
    assert_eq!((consumer.state().in_flight, consumer.state().dead_lettered), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn settlements_that_fail_are_made_again_and_a_full_output_holds_up_only_what_needs_it() {
    let ce = [("ce-specversion", "1.0"), ("ce-id", "o"), ("ce-source", "/f"), ("ce-type", "t")];
    let rig = Rig::new(None, policy(), move |got| async move {
        if got.events[0].id.starts_with('o') { answer(200, &ce, "") } else { answer(200, &[], "") }
    });
    rig.streams.fail_settles(true, (0..4).map(|_| Failure::new(Kind::StreamFull, "the stream is full")).collect());
    rig.streams.fail_settles(false, vec![Failure::new(Kind::StorageFull, "the disk is full")]);
    rig.publish(&["o1", "p1", "p2"]).await;
    let rig = rig.start();
    let began = tokio::time::Instant::now();
    until("the disk to have room", || rig.consumer.state().acked == 2).await;
    // A full disk asks for patience, and it gets some; a full output is not theirs.
    assert!(began.elapsed() < Duration::from_secs(11), "{:?}", began.elapsed());
    assert_eq!(rig.streams.ids("out"), Vec::<String>::new());
    rig.settled().await;
    assert_eq!(rig.got().len(), 3, "nothing ran twice");
    assert_eq!(rig.streams.ids("out"), ["o"]);
    assert_eq!(rig.consumer.state().acked, 3);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_publishes_nothing_does_not_wait_for_a_full_output() {
    let ce = [("ce-specversion", "1.0"), ("ce-id", "o"), ("ce-source", "/f"), ("ce-type", "t")];
    let rig = Rig::new(None, policy(), move |got| async move {
        if got.events[0].id.starts_with('o') { answer(200, &ce, "") } else { answer(200, &[], "") }
    });
    rig.streams.fail_settles(true, (0..4).map(|_| Failure::new(Kind::StreamFull, "the stream is full")).collect());
    rig.publish(&["o1", "p1", "p2"]).await;
    let rig = rig.start();
    let began = tokio::time::Instant::now();
    until("the others", || rig.consumer.state().acked == 2).await;
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    rig.settled().await;
    assert!(began.elapsed() > Duration::from_secs(3), "it was asked for patience: {:?}", began.elapsed());
    assert_eq!(rig.streams.ids("out"), ["o"]);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_the_output_refuses_for_good_is_dead_lettered() {
    let ce = [("ce-specversion", "1.0"), ("ce-id", "o"), ("ce-source", "/f"), ("ce-type", "t")];
    let rig = Rig::new(None, policy(), move |_| async move { answer(200, &ce, "") });
    rig.streams.fail_settles(true, vec![Failure::new(Kind::Invalid, "no")]);
    rig.publish(&["1"]).await;
    let rig = rig.start();
    rig.settled().await;
    let dead = rig.streams.reasons("in.dead");
    assert_eq!(dead, [("1".to_owned(), "its answer cannot be published: invalid: no".to_owned())]);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_past_the_body_limit_is_dead_lettered() {
    let rig = Rig::new(None, policy(), |_| async { answer(200, &[], "") });
    let small = Target::new(fake(|_| async { answer(200, &[], "") }), None, 3, 8);
    rig.shared.target.store(Arc::new(small));
    let rig = rig.start();
    rig.publish(&["1234", "ok"]).await;
    rig.settled().await;
    let dead = rig.streams.reasons("in.dead");
    assert_eq!(dead[0].1, "its body has 4 bytes, and the function's limit `body` is 3");
    assert_eq!(rig.consumer.state().acked, 1);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_host_is_a_retry() {
    let runs = Arc::new(AtomicUsize::new(0));
    let rig = Rig::new(None, policy(), move |_| {
        let first = runs.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            assert!(!first, "the host has a bug");
            answer(200, &[], "")
        }
    })
    .start();
    rig.publish(&["1"]).await;
    rig.settled().await;
    assert_eq!((rig.got().len(), rig.consumer.state().acked), (2, 1));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn another_revision_takes_the_next_event() {
    let rig = Rig::new(None, policy(), |_| async { answer(200, &[], "") }).start();
    rig.publish(&["1"]).await;
    rig.settled().await;
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    rig.shared.target.store(Arc::new(target(fake(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async { answer(200, &[], "") }
    }))));
    rig.publish(&["2"]).await;
    rig.settled().await;
    assert_eq!((rig.got().len(), seen.load(Ordering::SeqCst)), (1, 1));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn no_more_runs_at_once_than_half_of_the_functions_limit() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (running, seen) = (Arc::clone(&now), Arc::clone(&most));
    let rig = Rig::new(None, policy(), move |_| {
        seen.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let running = Arc::clone(&running);
        async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            running.fetch_sub(1, Ordering::SeqCst);
            answer(200, &[], "")
        }
    });
    let ids: Vec<_> = (0..50).map(|n| format!("n{n}")).collect();
    rig.publish(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let rig = rig.start();
    rig.settled().await;
    assert_eq!(most.load(Ordering::SeqCst), 4);
    rig.stop().await;
}
