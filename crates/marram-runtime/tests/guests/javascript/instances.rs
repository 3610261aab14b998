//! How instances are used: alone, one after the other, by several requests at a time, and not at all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use marram_core::record::{Outcome, Start};

use super::script;
use crate::host::{Observed, eventually, get};

const COUNTING: &str = "let served = 0; export default { fetch: () => new Response(String(++served)) }";
/// Answers when as many requests are in the instance as the path says.
const MEETING: &str = "let here = []; export default { async fetch(request) {
    const wanted = Number(new URL(request.url).pathname.slice(1));
    await new Promise((resolve) => {
        here.push(resolve);
        console.log('here');
        if (here.length === wanted) here.splice(0).forEach((go) => go());
        else setTimeout(resolve, 20_000);
    });
    return new Response(String(wanted));
} }";

#[tokio::test]
async fn fresh_means_that_nothing_is_left_of_the_one_before() {
    let host = script(COUNTING, "instances = \"fresh\"").await;
    for _ in 0..3 {
        assert_eq!(host.get("/").await.unwrap().1, "1");
    }
    let records =
        host.observed.until("3 records", |seen| (seen.records.lock().unwrap().len() == 3).then_some(())).await;
    let () = records;
    assert!(host.observed.records.lock().unwrap().iter().all(|record| record.start == Start::Fresh));
    assert_eq!(host.function("f").status().idle, 0);
}

#[tokio::test]
async fn an_instance_is_replaced_after_its_number_of_requests() {
    let host = script(COUNTING, "instances = { reuse = 3, idle = \"5m\" }").await;
    for (expected, idle) in [("1", 1), ("2", 1), ("3", 0), ("1", 1), ("2", 1), ("3", 0), ("1", 1)] {
        assert_eq!(host.get_alone("/", idle).await, expected);
    }
}

#[tokio::test]
async fn requests_meet_in_one_instance() {
    let host = Arc::new(script(MEETING, "instances = { concurrent = 16 }").await);
    let mut asked = Vec::new();
    for present in 1..=16 {
        let asking = Arc::clone(&host);
        asked.push(tokio::spawn(async move { asking.get("/16").await.unwrap().1 }));
        // One that is running would be spared the next request, which would get an instance of its own.
        let here = |texts: Vec<String>| texts.iter().filter(|text| *text == "here").count();
        host.observed.until("one more", |seen| (here(seen.texts()) == present).then_some(())).await;
    }
    for answer in asked {
        assert_eq!(answer.await.unwrap(), "16");
    }
    assert_eq!(host.function("f").status().idle, 1, "they were in one instance");
}

#[tokio::test]
async fn no_more_than_its_number_at_a_time() {
    let source = "let here = 0; let most = 0; export default { async fetch() {
        most = Math.max(most, ++here);
        await new Promise((resolve) => setTimeout(resolve, 20));
        here--;
        return new Response(String(most));
    } }";
    let host = Arc::new(script(source, "instances = { concurrent = 2 }").await);
    let asked: Vec<_> = (0..12)
        .map(|_| {
            let host = Arc::clone(&host);
            tokio::spawn(async move { host.get("/").await.unwrap().1 })
        })
        .collect();
    for answer in asked {
        assert!(["1", "2"].contains(&answer.await.unwrap().as_str()));
    }
}

#[tokio::test]
async fn what_the_function_waits_for_goes_on_after_the_answer() {
    let source = "let waits = false, go = false; export default { fetch(request, env, ctx) {
        if (request.url.endsWith('/go')) { go = waits; return new Response(go ? 'goes on' : 'another instance'); }
        waits = true;
        ctx.waitUntil(new Promise((resolve) => {
            const look = setInterval(() => { if (go) { clearInterval(look); resolve(); } }, 1);
        }).then(() => console.log('afterwards')));
        return new Response('now');
    } }";
    let host = script(source, "").await;
    assert_eq!(host.get("/").await.unwrap().1, "now");
    assert_eq!((host.observed.texts().len(), host.function("f").status().running), (0, 1));
    assert!(host.observed.records.lock().unwrap().is_empty(), "the record covers what comes after the answer");
    let deadline = Instant::now() + Duration::from_secs(20);
    while host.get("/go").await.unwrap().1 != "goes on" {
        assert!(Instant::now() < deadline, "no request comes to the instance that waits");
    }
    let afterwards = |seen: &Observed| seen.logs.lock().unwrap().iter().find(|line| line.text == "afterwards").cloned();
    let line = host.observed.until("the line", afterwards).await;
    assert!(line.request.is_some());
    let of_it = |seen: &Observed| {
        seen.records.lock().unwrap().iter().find(|record| Some(record.request) == line.request).cloned()
    };
    let record = host.observed.until("its record", of_it).await;
    assert_eq!((record.outcome, record.request.0), (Outcome::Answered, 1));
}

#[tokio::test]
async fn a_client_that_leaves_is_told_to_the_function() {
    let source = "export default { async fetch(request) {
        if (request.url.endsWith('/quick')) return new Response('quick');
        await new Promise((resolve) => request.signal.addEventListener('abort', resolve));
        console.log('gone');
        return new Response('nobody reads this');
    } }";
    let host = Arc::new(script(source, "").await);
    let asking = tokio::spawn({
        let host = Arc::clone(&host);
        async move { host.get("/slow").await }
    });
    let running = host.function("f").clone();
    while running.status().running == 0 {
        tokio::task::yield_now().await;
    }
    // Another request's answer shows that the first one is in the instance.
    assert_eq!(host.get("/quick").await.unwrap().1, "quick");
    asking.abort();
    host.observed.until("the line", |seen| seen.texts().contains(&"gone".to_owned()).then_some(())).await;
    let gone =
        |record: &&marram_core::record::MeterRecord| record.outcome == Outcome::Failed(marram_core::Kind::ClientGone);
    host.observed.until("its record", |seen| seen.records.lock().unwrap().iter().find(gone).cloned()).await;
    assert_eq!(host.get("/quick").await.unwrap().1, "quick");
}

#[tokio::test]
async fn idle_instances_and_then_the_code_go_and_come_back() {
    let functions = "[[function]]\nname = \"f\"\ncomponent = \"src/index.js\"\ninstances = { idle = \"50ms\" }\n";
    let sources = [("src/index.js", COUNTING)];
    let host = crate::host::Host::try_sources_with(functions, &sources, |config| {
        config.code_idle = Duration::from_millis(100);
    });
    let host = host.await.unwrap();
    assert_eq!(host.get("/").await.unwrap().1, "1");
    eventually("nothing is mapped", || !host.function("f").status().mapped).await;
    assert_eq!(host.function("f").status().idle, 0);
    host.observed.records.lock().unwrap().clear();
    assert_eq!(host.get("/").await.unwrap().1, "1");
    assert_eq!(host.observed.record().await.start, Start::Cold);
}

#[tokio::test]
async fn warm_instances_are_there_before_the_first_request() {
    let host = script(COUNTING, "instances = { reuse = 1, concurrent = 1, warm = 2 }").await;
    assert_eq!(host.function("f").status().idle, 2);
    let response = host.send(get("/")).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "1");
}

#[tokio::test]
async fn a_warm_instance_that_is_used_up_is_replaced() {
    // Nobody looks for idle instances before the test is over.
    let policy = "instances = { reuse = 1, concurrent = 1, warm = 2, idle = \"5m\" }";
    let host = script(COUNTING, policy).await;
    let mut used = 0;
    for _ in 0..5 {
        assert_eq!(host.function("f").status().idle, 2);
        assert_eq!(host.get("/").await.unwrap().1, "1");
        used += usize::from(host.function("f").status().idle < 2);
        eventually("two are ready again", || host.function("f").status().idle == 2).await;
    }
    // On this one thread none was made behind the test's back, but for a run that was interrupted.
    assert!(used > 0, "no request used what was ready");
}
