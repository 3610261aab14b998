//! Batches, and what happens to those that fail.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::rig::{Rig, batch, policy};
use crate::support::{answer, until};
use marram_core::stream::ConsumerPolicy;
use marram_core::{Failure, Kind};

#[tokio::test(start_paused = true)]
async fn a_batch_fills_up_or_waits_no_longer_than_it_says() {
    let rig = Rig::new(batch(3, 20), policy(), |got| async move {
        assert_eq!(got.headers["content-type"], "application/cloudevents-batch+json");
        answer(200, &[], "")
    })
    .start();
    // After a long time without events.
    tokio::time::sleep(Duration::from_secs(3_610)).await;
    let began = tokio::time::Instant::now();
    rig.publish(&["1"]).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    rig.publish(&["2"]).await;
    rig.settled().await;
    let took = began.elapsed();
    assert_eq!(rig.got(), [["1", "2"]]);
    assert!((Duration::from_millis(20)..Duration::from_millis(30)).contains(&took), "{took:?}");
    let began = tokio::time::Instant::now();
    rig.publish(&["3", "4", "5", "6"]).await;
    rig.settled().await;
    let took = began.elapsed();
    assert_eq!(rig.got()[1..], [vec!["3", "4", "5"], vec!["6"]]);
    assert!((Duration::from_millis(20)..Duration::from_millis(30)).contains(&took), "{took:?}");
    rig.stop().await;
}

/// 64 events, of which one always traps: it alone is given up on, and the others are acknowledged at once.
#[tokio::test(start_paused = true)]
async fn a_poison_event_does_not_take_its_batch_along() {
    for poison in ["n0", "n1", "n37", "n63"] {
        let rig = Rig::new(batch(64, 0), policy(), move |got| async move {
            if got.ids().iter().any(|id| id == poison) {
                return Err(Failure::new(Kind::Trap, "the function crashed"));
            }
            answer(200, &[], "")
        });
        let ids: Vec<_> = (0..64).map(|n| format!("n{n}")).collect();
        rig.publish(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let rig = rig.start();
        rig.settled().await;
        assert_eq!(rig.streams.reasons("in.dead"), [(poison.to_owned(), "trap: the function crashed".to_owned())]);
        assert_eq!(rig.consumer.state().acked, 63);
        let runs = rig.got();
        assert!(runs.len() <= 1 + 2 * 6 + 2, "{poison}: {} runs", runs.len());
        assert_eq!(runs.iter().filter(|ids| ids.iter().any(|id| *id == poison)).count(), 7 + 2, "alone from then on");
        let again = runs.iter().filter(|ids| ids.iter().any(|id| id == "n5")).count();
        assert!(again <= 7, "a good one runs again only as long as it is with the poison: {again}");
        rig.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_culprit_that_comes_again_does_not_join_others() {
    let rig = Rig::new(batch(2, 2_000), policy(), |got| async move {
        if got.ids().iter().any(|id| id == "poison") { answer(500, &[], "") } else { answer(200, &[], "") }
    })
    .start();
    rig.publish(&["poison", "a"]).await;
    until("the first batch to be taken apart", || rig.got().len() == 3).await;
    // It waits for a second one when the poison comes again, after a second.
    rig.publish(&["b"]).await;
    rig.settled().await;
    let expected = [vec!["poison", "a"], vec!["poison"], vec!["a"], vec!["poison"], vec!["b"], vec!["poison"]];
    assert_eq!(rig.got(), expected);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_refused_is_taken_apart_as_well_but_later_means_all() {
    let busy = Arc::new(AtomicUsize::new(0));
    let rig = Rig::new(batch(8, 0), policy(), move |got| {
        let first = busy.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            match () {
                () if first => answer(503, &[("retry-after", "5")], "busy"),
                () if got.ids().iter().any(|id| id == "c") => answer(400, &[], "no"),
                () => answer(200, &[], ""),
            }
        }
    });
    rig.publish(&["a", "b", "c", "d"]).await;
    let rig = rig.start();
    rig.settled().await;
    assert_eq!(rig.streams.reasons("in.dead"), [("c".to_owned(), "400 Bad Request: no".to_owned())]);
    let expected =
        [vec!["a", "b", "c", "d"], vec!["a", "b", "c", "d"], vec!["a", "b"], vec!["c", "d"], vec!["c"], vec!["d"]];
    assert_eq!(rig.got(), expected);
    rig.stop().await;
}

/// Half of the batch is bad, which is more than halving finds out: that costs the others no delivery, also their last.
#[tokio::test(start_paused = true)]
async fn many_culprits_take_no_healthy_event_along() {
    for (deliveries_max, busy_first) in [(1, false), (2, true)] {
        let busy = Arc::new(AtomicUsize::new(usize::from(!busy_first)));
        let policy = ConsumerPolicy { deliveries_max, ..policy() };
        let rig = Rig::new(batch(8, 0), policy, move |got| {
            let first = busy.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                match () {
                    () if first => answer(503, &[], "busy"),
                    () if got.ids().iter().any(|id| id.starts_with("bad")) => answer(400, &[], "no"),
                    () => answer(200, &[], ""),
                }
            }
        });
        rig.publish(&["good0", "bad1", "good2", "bad3", "good4", "bad5", "good6", "bad7"]).await;
        let rig = rig.start();
        rig.settled().await;
        let mut dead = rig.streams.reasons("in.dead");
        dead.sort();
        let expected = ["bad1", "bad3", "bad5", "bad7"].map(|id| (id.to_owned(), "400 Bad Request: no".to_owned()));
        assert_eq!(dead, expected, "{deliveries_max} deliveries");
        assert_eq!(rig.consumer.state().acked, 4);
        assert!(rig.got().len() <= 1 + 1 + 2 * 4 + 8, "{} runs", rig.got().len());
        rig.stop().await;
    }
}

/// Where everything fails, a batch costs a bounded number of runs, and then each event its own deliveries.
#[tokio::test(start_paused = true)]
async fn a_function_that_always_traps_is_not_run_without_end() {
    let rig = Rig::new(batch(32, 0), policy(), |_| async { Err(Failure::new(Kind::Trap, "crashed")) });
    let ids: Vec<_> = (0..32).map(|n| format!("n{n}")).collect();
    rig.publish(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let rig = rig.start();
    rig.settled().await;
    assert_eq!(rig.consumer.state().dead_lettered, 32);
    assert!(rig.got().len() <= 1 + 12 + 32 * 3, "{} runs", rig.got().len());
    rig.stop().await;
}

/// As long as the answer cannot be published, no event of its batch is done: were the node to stop now, all come again.
#[tokio::test(start_paused = true)]
async fn a_batch_is_acknowledged_together_with_its_answer() {
    let rig = Rig::new(batch(8, 0), policy(), |got| async move {
        let id = got.ids().concat();
        answer(200, &[("ce-specversion", "1.0"), ("ce-id", &id), ("ce-source", "/f"), ("ce-type", "t")], "")
    });
    rig.streams.fail_settles(true, (0..3).map(|_| Failure::new(Kind::StreamFull, "the stream is full")).collect());
    rig.publish(&["a", "b", "c"]).await;
    let rig = rig.start();
    until("the output to be full", || rig.shared.counters.read().last_failure.is_some()).await;
    // It is tried again after a second.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let state = rig.consumer.state();
    assert_eq!((state.acked, state.in_flight), (0, 3));
    rig.settled().await;
    assert_eq!(rig.streams.ids("out"), ["abc"]);
    assert_eq!(rig.streams.settles(), [1], "in one transaction");
    let counts = rig.shared.counters.read();
    assert_eq!((counts.acked, counts.outputs, rig.got().len()), (3, 1, 1));
    rig.stop().await;
}

/// What the output never takes for all of them it may take for each; this costs nobody a delivery.
#[tokio::test(start_paused = true)]
async fn a_batch_whose_answer_is_refused_for_good_is_tried_one_by_one() {
    let policy = ConsumerPolicy { deliveries_max: 1, ..policy() };
    let rig = Rig::new(batch(8, 0), policy, |got| async move {
        let id = got.ids().concat();
        answer(200, &[("ce-specversion", "1.0"), ("ce-id", &id), ("ce-source", "/f"), ("ce-type", "t")], "")
    });
    rig.streams.fail_settles(true, vec![Failure::new(Kind::BodyTooLarge, "it keeps no more than 9 bytes")]);
    rig.publish(&["a", "b", "c"]).await;
    let rig = rig.start();
    rig.settled().await;
    let mut runs = rig.got();
    runs[1..].sort();
    assert_eq!(runs, [vec!["a", "b", "c"], vec!["a"], vec!["b"], vec!["c"]]);
    let mut out = rig.streams.ids("out");
    out.sort();
    assert_eq!((out, rig.consumer.state().dead_lettered), (vec!["a".into(), "b".into(), "c".into()], 0));
    rig.stop().await;
}
