//! The resolver's cache and bounds, in paused time.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::super::limits::{LOOKUP_FAILURE_KEPT, LOOKUP_KEPT, LOOKUP_WAIT, LOOKUPS_PER_GRANT_MAX};
use super::super::resolve::Resolver;
use super::*;

fn counting(answer: fn() -> io::Result<Vec<IpAddr>>) -> (Resolver, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let lookup: Lookup = Arc::new(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { answer() })
    });
    (Resolver::new(lookup), asked)
}

#[tokio::test(start_paused = true)]
async fn answers_are_kept_for_a_while_and_failures_for_less() {
    let name = "a.example".into();
    let own = Arc::new(Semaphore::new(1));
    for (answer, kept) in [
        ((|| Ok(vec![IpAddr::from([1, 1, 1, 1])])) as fn() -> _, LOOKUP_KEPT),
        (|| Err(io::Error::other("no such name")), LOOKUP_FAILURE_KEPT),
    ] {
        let (resolver, asked) = counting(answer);
        for (advance, expected) in [(Duration::ZERO, 1), (kept / 2, 1), (kept / 2, 2), (kept / 2, 2)] {
            tokio::time::advance(advance).await;
            assert_eq!(resolver.resolve(&name, &own).await.is_ok(), kept == LOOKUP_KEPT);
            assert_eq!(asked.load(Ordering::SeqCst), expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn slow_names_of_one_function_leave_room_for_another() {
    // Names below "slow" are never answered; the permits stay with the look-up, as with a blocked thread.
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let lookup: Lookup = Arc::new(move |name, permits| {
        count.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            if name.starts_with("slow") {
                std::mem::forget(permits);
                std::future::pending::<()>().await;
            }
            Ok(vec![IpAddr::from([1, 1, 1, 1])])
        })
    });
    let resolver = Arc::new(Resolver::new(lookup));
    let (greedy, other) =
        (Arc::new(Semaphore::new(LOOKUPS_PER_GRANT_MAX)), Arc::new(Semaphore::new(LOOKUPS_PER_GRANT_MAX)));
    let slow: Vec<_> = (0..100)
        .map(|at| {
            let (resolver, greedy) = (resolver.clone(), greedy.clone());
            tokio::spawn(async move { resolver.resolve(&format!("slow{at}.example").into(), &greedy).await })
        })
        .collect();
    tokio::task::yield_now().await;
    assert!(resolver.resolve(&"fast.example".into(), &other).await.is_ok());
    assert_eq!(asked.load(Ordering::SeqCst), LOOKUPS_PER_GRANT_MAX + 1);
    let started = tokio::time::Instant::now();
    for lookup in slow {
        assert!(matches!(lookup.await.unwrap(), Err(OutboundError::Dns { .. })));
    }
    assert!(started.elapsed() <= LOOKUP_WAIT + Duration::from_millis(10));
}

#[tokio::test]
async fn the_systems_resolver() {
    let resolver = Resolver::new(super::super::resolve::system());
    let own = Arc::new(Semaphore::new(1));
    let found = resolver.resolve(&"localhost".into(), &own).await.unwrap();
    assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty());
    let error = resolver.resolve(&"does-not-exist.invalid".into(), &own).await.unwrap_err();
    assert!(error.to_string().starts_with("the name does-not-exist.invalid cannot be resolved: "), "{error}");
    // Nobody waits any more, and the permit is back once the look-up is over.
    drop(tokio::time::timeout(DEADLINE, own.acquire()).await.expect("the permit did not come back"));
}
