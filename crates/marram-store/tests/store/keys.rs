//! Keys: values, versions, expiry, counters, lists, watches, and what is refused.
use std::sync::Arc;
use std::time::Duration;

use crate::support::{NOW, TestClock, delete, name, open, set, set_for, set_if};
use futures::{FutureExt as _, StreamExt as _};
use marram_core::port::Kv as _;
use marram_core::port::kv::{Expect, KeyEvent, Version, Watched};
use marram_core::{Kind, Name};
use marram_store::{Keys, Store, StoreConfig, limits};

struct Fixture {
    keys: Keys,
    store: Store,
    clock: Arc<TestClock>,
    bucket: Name,
    dir: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let (store, clock) = (open(&dir), TestClock::new());
    Fixture { keys: store.kv(Arc::clone(&clock) as _), store, clock, bucket: name("b"), dir }
}

impl Fixture {
    async fn put(&self, key: &str, value: &str) -> Version {
        self.keys.apply(&self.bucket, vec![set(key, value)]).await.unwrap()[0].unwrap()
    }

    fn get(&self, key: &str) -> Option<String> {
        let entry = self.keys.get(&self.bucket, key).unwrap()?;
        Some(String::from_utf8(entry.value.to_vec()).unwrap())
    }

    fn list(&self, prefix: &str) -> Vec<String> {
        self.keys.list(&self.bucket, prefix, None, 1_000).unwrap().keys
    }

    fn reopen(self) -> Self {
        let Self { keys, store, clock, bucket, dir } = self;
        drop((keys, store));
        let store = open(&dir);
        Self { keys: store.kv(Arc::clone(&clock) as _), store, clock, bucket, dir }
    }
}

#[tokio::test]
async fn a_value_is_there_until_it_is_replaced_or_removed() {
    let f = fixture();
    assert_eq!(f.get("k"), None);
    let first = f.put("k", "one").await;
    assert_eq!(f.get("k").as_deref(), Some("one"));
    let second = f.put("k", "").await;
    assert!(second > first);
    let f = f.reopen();
    let entry = f.keys.get(&f.bucket, "k").unwrap().unwrap();
    assert_eq!((&entry.value[..], entry.version, entry.expires_unix_ns), (&b""[..], second, None));
    assert_eq!(f.keys.get(&name("other"), "k").unwrap(), None);
    let written = f.keys.apply(&f.bucket, vec![delete("k"), delete("k"), delete("never")]).await.unwrap();
    assert!(written[0] > Some(second) && written[1].is_none() && written[2].is_none());
    let f = f.reopen();
    assert_eq!(f.get("k"), None);
    // What was left of it goes at once when it is there again.
    assert!(f.keys.next_due_unix_ns().unwrap().is_some());
    assert!(f.put("k", "three").await > written[0].unwrap());
    assert_eq!((f.get("k").as_deref(), f.keys.next_due_unix_ns().unwrap()), (Some("three"), None));
}

#[tokio::test]
async fn what_is_expected_has_to_be_there() {
    let f = fixture();
    let check = async |key: &str, expect, outcome: Result<(), &str>| {
        let done = f.keys.apply(&f.bucket, vec![set_if(key, "new", expect)]).await;
        let failed = done.as_ref().map(|_| ()).map_err(|failure| {
            assert_eq!(failure.kind(), Kind::Conflict);
            failure.message().to_owned()
        });
        assert_eq!(failed, outcome.map_err(str::to_owned));
    };
    let version = f.put("k", "old").await;
    check("k", Expect::Absent, Err(r#"the key "k" of bucket "b" is there already"#)).await;
    check("k", Expect::Version(version), Ok(())).await;
    check(
        "k",
        Expect::Version(version),
        Err(r#"the key "k" of bucket "b" was changed by somebody else: read it again"#),
    )
    .await;
    check("new", Expect::Version(version), Err(r#"the key "new" of bucket "b" is not there any more"#)).await;
    check("new", Expect::Absent, Ok(())).await;
    f.keys.apply(&f.bucket, vec![delete("k")]).await.unwrap();
    check("k", Expect::Absent, Ok(())).await;
    // An increment is a write like any other.
    let version = f.put("n", "1").await;
    f.keys.increment(&f.bucket, "n", 1).await.unwrap();
    check(
        "n",
        Expect::Version(version),
        Err(r#"the key "n" of bucket "b" was changed by somebody else: read it again"#),
    )
    .await;
}

#[tokio::test]
async fn a_batch_is_all_or_nothing_and_in_order() {
    let f = fixture();
    f.put("a", "before").await;
    let batch = vec![set("a", "after"), set("b", "new"), set_if("a", "no", Expect::Absent)];
    assert_eq!(f.keys.apply(&f.bucket, batch).await.unwrap_err().kind(), Kind::Conflict);
    assert_eq!((f.get("a").as_deref(), f.get("b")), (Some("before"), None));
    let batch = vec![delete("a"), set_if("a", "1", Expect::Absent), set("a", "2"), set("b", "3")];
    let versions = f.keys.apply(&f.bucket, batch).await.unwrap();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    let f = f.reopen();
    assert_eq!((f.get("a").as_deref(), f.get("b").as_deref()), (Some("2"), Some("3")));
    assert_eq!(f.keys.apply(&f.bucket, Vec::new()).await.unwrap(), []);
}

#[tokio::test]
async fn an_entry_whose_time_is_over_is_absent_at_once_and_swept_later() {
    let f = fixture();
    let second = Duration::from_secs(1);
    let changes = vec![set_for("k", "5", second), set_for("l", "x", 2 * second), set("m", "stays")];
    f.keys.apply(&f.bucket, changes).await.unwrap();
    f.keys.apply(&name("short"), vec![set_for("k", "x", second)]).await.unwrap();
    assert_eq!(f.keys.get(&f.bucket, "k").unwrap().unwrap().expires_unix_ns, Some(NOW + 1_000_000_000));
    // An increment keeps the time.
    assert_eq!(f.keys.increment(&f.bucket, "k", 1).await.unwrap(), 6);
    assert_eq!(f.keys.next_due_unix_ns().unwrap(), Some(NOW + 1_000_000_000));
    f.clock.pass(second - Duration::from_nanos(1));
    assert_eq!(f.get("k").as_deref(), Some("6"));
    assert_eq!(f.keys.maintain().await.unwrap().expired, 0);

    f.clock.pass(Duration::from_nanos(1));
    assert_eq!((f.get("k"), f.list("")), (None, vec!["l".to_owned(), "m".to_owned()]));
    assert_eq!(f.keys.buckets().unwrap(), [name("b")]);
    let f = f.reopen();
    assert_eq!(f.get("k"), None);
    // Whoever counts on counts from nothing.
    assert_eq!(f.keys.increment(&f.bucket, "k", 1).await.unwrap(), 1);
    assert_eq!(f.keys.get(&f.bucket, "k").unwrap().unwrap().expires_unix_ns, None);
    let swept = f.keys.maintain().await.unwrap();
    assert_eq!((swept.expired, swept.more), (1, false), "the one in the other bucket");
    f.clock.pass(second);
    assert_eq!(f.keys.maintain().await.unwrap().expired, 1);
    // What is left of them goes after its time; nothing else is due.
    let tombstones_ns = limits::KV_TOMBSTONE_KEPT.as_nanos() as u64;
    assert_eq!(f.keys.next_due_unix_ns().unwrap(), Some(NOW + 1_000_000_000 + tombstones_ns));
    f.clock.pass(limits::KV_TOMBSTONE_KEPT);
    assert_eq!(f.keys.maintain().await.unwrap().collected, 2);
    assert_eq!(f.keys.next_due_unix_ns().unwrap(), None);
    assert_eq!(f.list(""), ["k", "m"]);
}

#[tokio::test]
async fn maintenance_is_done_in_steps() {
    let f = fixture();
    let count = 2 * limits::KV_MAINTAINED_MAX + 1;
    for from in (0..count).step_by(500) {
        let batch =
            (from..count.min(from + 500)).map(|n| set_for(&format!("{n:05}"), "x", Duration::from_nanos(n as u64)));
        f.keys.apply(&f.bucket, batch.collect()).await.unwrap();
    }
    f.clock.pass(Duration::from_secs(1));
    let mut expired = Vec::new();
    loop {
        let done = f.keys.maintain().await.unwrap();
        expired.push(done.expired);
        if !done.more {
            break;
        }
    }
    assert_eq!(expired, [limits::KV_MAINTAINED_MAX, limits::KV_MAINTAINED_MAX, 1]);
}

#[tokio::test]
async fn keys_are_listed_in_order_by_prefix_and_page() {
    let f = fixture();
    // Around the ends of code points: before and after the surrogates, and the last one.
    let keys = [
        "",
        "a",
        "a/",
        "a/1",
        "a/2",
        "a0",
        "b",
        "\u{d7ff}",
        "\u{d7ff}x",
        "\u{e000}",
        "\u{10ffff}",
        "\u{10ffff}\u{10ffff}",
    ];
    for key in &keys[1..] {
        f.put(key, "x").await;
    }
    f.keys.apply(&name("a"), vec![set("other", "x")]).await.unwrap();
    f.put("gone", "x").await;
    f.keys.apply(&f.bucket, vec![delete("gone")]).await.unwrap();
    for prefix in keys.into_iter().chain(["c", "a/3", "\u{d7fe}"]) {
        let expected: Vec<_> = keys[1..].iter().copied().filter(|key| key.starts_with(prefix)).collect();
        assert_eq!(f.list(prefix), expected, "{prefix:?}");
        let mut paged = Vec::new();
        loop {
            let page = f.keys.list(&f.bucket, prefix, paged.last().map(String::as_str), 2).unwrap();
            assert!(page.keys.len() == 2 || !page.more, "{page:?}");
            paged.extend(page.keys);
            if !page.more {
                break;
            }
        }
        assert_eq!(paged, expected, "{prefix:?} in pages");
    }
    // A cursor that is not a key, and one before the prefix.
    let after = |prefix, after| f.keys.list(&f.bucket, prefix, Some(after), 2).unwrap().keys;
    assert_eq!(after("", "a/15"), ["a/2", "a0"]);
    assert_eq!(after("a/", "A"), ["a/", "a/1"]);
    assert_eq!(after("a/", "z"), [""; 0]);
    assert_eq!(f.keys.buckets().unwrap(), [name("a"), name("b")]);
}

#[tokio::test]
async fn counters_are_exact_and_stay_in_range() {
    let f = fixture();
    let increment = async |key: &str, delta| f.keys.increment(&f.bucket, key, delta).await.map_err(|f| f.kind());
    assert_eq!(increment("n", 5).await, Ok(5));
    assert_eq!(increment("n", -7).await, Ok(-2));
    assert_eq!(f.get("n").as_deref(), Some("-2"));
    f.put("n", "40").await;
    assert_eq!(increment("n", 2).await, Ok(42));
    f.put("n", "forty").await;
    assert_eq!(increment("n", 2).await, Err(Kind::Conflict));
    assert_eq!(f.get("n").as_deref(), Some("forty"));
    assert_eq!(increment("max", i64::MAX).await, Ok(i64::MAX));
    assert_eq!(increment("max", 1).await, Err(Kind::Conflict));
    assert_eq!(increment("max", i64::MIN).await, Ok(-1));
    let many: Vec<_> = (0..500).map(|_| f.keys.increment(&f.bucket, "many", 3)).collect();
    let mut sums: Vec<_> = futures::future::join_all(many).await.into_iter().map(Result::unwrap).collect();
    sums.sort_unstable();
    assert_eq!(sums, (1..=500).map(|n| 3 * n).collect::<Vec<_>>());
    let f = f.reopen();
    assert_eq!((f.get("many").as_deref(), f.get("max").as_deref()), (Some("1500"), Some("-1")));
    // Removed, it begins again.
    f.keys.apply(&f.bucket, vec![delete("many")]).await.unwrap();
    assert_eq!(f.keys.increment(&f.bucket, "many", 1).await.unwrap(), 1);
}

/// Where a caller cannot be told a number below some other, it must not come about.
#[tokio::test]
async fn an_increment_to_less_than_was_asked_for_changes_nothing() {
    let f = fixture();
    f.put("n", "-5").await;
    let version = f.put("text", "five").await;
    let to_zero = async |key: &str, delta| f.keys.increment_to(&f.bucket, key, delta, 0).await.map_err(|f| f.kind());
    assert_eq!((to_zero("n", 1).await, f.get("n").as_deref()), (Ok(None), Some("-5")));
    assert_eq!((to_zero("none", -1).await, f.get("none")), (Ok(None), None));
    assert_eq!(f.list(""), ["n", "text"]);
    assert_eq!(to_zero("text", 1).await, Err(Kind::Conflict));
    assert_eq!(f.keys.get(&f.bucket, "text").unwrap().unwrap().version, version);
    assert_eq!(to_zero("n", 5).await, Ok(Some(0)));
    // A counter, too, and one whose time is over begins at 0.
    assert_eq!((to_zero("n", -1).await, f.get("n").as_deref()), (Ok(None), Some("0")));
    let second = Duration::from_secs(1);
    f.keys.apply(&f.bucket, vec![set_for("short", "7", second)]).await.unwrap();
    f.clock.pass(second);
    assert_eq!((to_zero("short", -1).await, f.get("short")), (Ok(None), None));
    assert_eq!(to_zero("short", 2).await, Ok(Some(2)));
}

/// A day ahead, a day back, and restarts in between: later writes win, and their versions say so.
#[tokio::test]
async fn a_wall_clock_that_jumps_changes_no_order() {
    let mut f = fixture();
    let node = f.keys.node();
    let day = 86_400_000_000_000;
    let mut last = f.put("k", "first").await;
    for (n, now) in [NOW + day, NOW, 0, NOW + 1, NOW + day + 1_000_000_000, NOW].into_iter().enumerate() {
        f.clock.set(now);
        if n % 2 == 0 {
            f = f.reopen();
        }
        assert_eq!(f.keys.node(), node, "the id is kept");
        let version = f.put("k", &format!("write {n}")).await;
        assert!(version > last, "write {n}");
        assert_eq!(f.get("k"), Some(format!("write {n}")));
        last = version;
    }
    assert_eq!(f.keys.clock_ahead_ms(), 86_401_000);
    let f = f.reopen();
    assert_eq!((f.get("k").as_deref(), f.keys.clock_ahead_ms()), (Some("write 5"), 86_401_000));
    f.clock.set(NOW + 2 * day);
    assert_eq!(f.keys.clock_ahead_ms(), 0);
}

#[tokio::test]
async fn an_entry_that_has_expired_does_not_come_back_with_the_clock() {
    let f = fixture();
    let minute = Duration::from_secs(60);
    f.keys.apply(&f.bucket, vec![set_for("early", "x", minute), set_for("late", "x", minute)]).await.unwrap();
    // A clock that goes back gives it more time, and nothing else.
    f.clock.jump(-3_600);
    f.clock.pass(minute);
    assert_eq!(f.keys.maintain().await.unwrap().expired, 0);
    assert_eq!(f.get("early").as_deref(), Some("x"));
    // One that goes forward ends it, for good once that was told.
    f.clock.jump(2 * 3_600);
    assert_eq!(f.get("early"), None);
    assert_eq!(f.keys.maintain().await.unwrap().expired, 2);
    f.clock.jump(-2 * 3_600);
    let f = f.reopen();
    assert_eq!((f.get("early"), f.get("late")), (None, None));
    f.put("early", "again").await;
    assert_eq!(f.get("early").as_deref(), Some("again"));
}

#[tokio::test]
async fn a_watch_sees_what_is_durable_in_order_and_knows_what_it_missed() {
    let f = fixture();
    let mut watch = f.keys.watch(&f.bucket, "a/").unwrap();
    let mut slow = f.keys.watch(&f.bucket, "").unwrap();
    f.put("a/1", "one").await;
    f.put("b", "not seen").await;
    f.keys.apply(&name("other"), vec![set("a/1", "not seen")]).await.unwrap();
    f.keys
        .apply(&f.bucket, vec![set_for("a/1", "two", Duration::from_secs(1)), set("a/2", &"x".repeat(5_000))])
        .await
        .unwrap();
    let failed = f.keys.apply(&f.bucket, vec![set("a/3", "not seen"), set_if("a/2", "", Expect::Absent)]).await;
    assert_eq!(failed.unwrap_err().kind(), Kind::Conflict);
    f.keys.apply(&f.bucket, vec![delete("a/2"), delete("a/9")]).await.unwrap();
    f.clock.pass(Duration::from_secs(1));
    f.keys.maintain().await.unwrap();
    f.keys.increment(&f.bucket, "a/n", 7).await.unwrap();
    let mut seen = Vec::new();
    while let Some(Some(Watched::Changed(change))) = watch.next().now_or_never() {
        seen.push((change.key, change.event, change.value.map(|value| String::from_utf8(value.to_vec()).unwrap())));
    }
    let change = |key: &str, event, value: Option<&str>| (key.to_owned(), event, value.map(str::to_owned));
    assert_eq!(
        seen,
        [
            change("a/1", KeyEvent::Created, Some("one")),
            change("a/1", KeyEvent::Updated, Some("two")),
            change("a/2", KeyEvent::Created, None),
            change("a/2", KeyEvent::Deleted, None),
            change("a/1", KeyEvent::Expired, None),
            change("a/n", KeyEvent::Created, Some("7")),
        ]
    );
    let batch = || (0..1_000).map(|n| set(&n.to_string(), "x")).collect();
    f.keys.apply(&f.bucket, batch()).await.unwrap();
    f.keys.apply(&f.bucket, batch()).await.unwrap();
    let Some(Watched::Missed(missed)) = slow.next().await else { panic!("it was told nothing") };
    assert_eq!(missed, 2_008 - limits::KV_WATCHED_CHANGES_MAX as u64);
    assert!(matches!(slow.next().await, Some(Watched::Changed(_))));

    drop((watch, slow));
    let watches: Vec<_> = (0..limits::KV_WATCHES_MAX).map(|_| f.keys.watch(&f.bucket, "").unwrap()).collect();
    assert_eq!(f.keys.watch(&f.bucket, "").map(drop).unwrap_err().kind(), Kind::Overloaded);
    drop(watches);
    assert!(f.keys.watch(&f.bucket, "").is_ok());
}

#[tokio::test]
async fn what_is_too_long_is_refused_by_name() {
    let f = fixture();
    let check = async |changes, kind, text: &str| {
        let failure = f.keys.apply(&f.bucket, changes).await.unwrap_err();
        assert_eq!(failure.kind(), kind);
        assert!(failure.message().contains(text), "{failure}");
    };
    check(vec![set("", "x")], Kind::Invalid, r#"the key "" of bucket "b" is empty"#).await;
    check(vec![set(&"k".repeat(1_025), "x")], Kind::Invalid, "has 1025 bytes, more than 1024").await;
    check(vec![set("a\nb", "x")], Kind::Invalid, "control character").await;
    check(vec![delete("a\0")], Kind::Invalid, "control character").await;
    let large = "x".repeat((1 << 20) + 1);
    check(vec![set("k", &large)], Kind::BodyTooLarge, r#""k" of bucket "b" has 1048577 bytes"#).await;
    let many = (0..1_001).map(|n| set(&n.to_string(), "")).collect();
    check(many, Kind::BodyTooLarge, "1001 changes, more than 1000").await;
    let bytes = (0..9).map(|n| set(&n.to_string(), &large[1..])).collect();
    check(bytes, Kind::BodyTooLarge, "split it").await;
    assert_eq!(f.keys.get(&f.bucket, "").unwrap_err().kind(), Kind::Invalid);
    assert_eq!(f.keys.increment(&f.bucket, "\u{1}", 1).await.unwrap_err().kind(), Kind::Invalid);
    assert_eq!(f.keys.buckets().unwrap(), []);
    // The largest that may be.
    f.put(&"k".repeat(1_024), &large[1..]).await;
    assert_eq!(f.reopen().get(&"k".repeat(1_024)).unwrap().len(), 1 << 20);
}

#[tokio::test]
async fn a_full_disk_refuses_and_keeps_what_it_has() {
    let f = fixture();
    let value = "x".repeat(100_000);
    let pages = |count: Option<i64>| {
        let resize = f.store.writer().write(move |tx| {
            let now: i64 = tx.pragma_query_value(None, "page_count", |row| row.get(0))?;
            let most = count.map_or(1 << 30, |more| now + more);
            Ok(tx.pragma_update_and_check(None, "max_page_count", most, |row| row.get::<_, i64>(0))?)
        });
        async { assert!(resize.await.unwrap() > 0) }
    };
    f.put("before", "kept").await;
    f.keys.increment(&f.bucket, "n", 1).await.unwrap();
    pages(Some(100)).await;
    let mut written = 0;
    let refused = loop {
        match f.keys.apply(&f.bucket, vec![set(&written.to_string(), &value)]).await {
            Ok(_) => written += 1,
            Err(failure) => break failure,
        }
    };
    assert_eq!(refused.kind(), Kind::StorageFull, "{refused}");
    assert!((1..10).contains(&written), "{written}");
    let check = |f: &Fixture| {
        assert_eq!((f.get("before").as_deref(), f.get("n").as_deref()), (Some("kept"), Some("1")));
        assert!((0..written).all(|n| f.get(&n.to_string()).as_ref() == Some(&value)));
        assert_eq!(f.get(&written.to_string()), None);
    };
    check(&f);
    pages(None).await;
    f.put(&written.to_string(), "now").await;
    assert_eq!(f.get(&written.to_string()).as_deref(), Some("now"));
    f.keys.apply(&f.bucket, vec![delete(&written.to_string())]).await.unwrap();
    check(&f.reopen());
}

/// Readers beside a writer, with a cache so small that it keeps evicting: nobody ever sees a value go back, and after an
/// acknowledgement everybody sees at least that value.
#[test]
fn the_cache_is_never_behind() {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig { kv_cache_bytes: 20_000, ..StoreConfig::new(dir.path()) };
    let store = Store::open(&config).unwrap();
    let keys = store.kv(TestClock::new());
    let bucket = name("b");
    const KEYS: usize = 200;
    let acknowledged: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..3 {
            let (keys, bucket, acknowledged, done) = (&keys, &bucket, &acknowledged, &done);
            scope.spawn(move || {
                let mut seen = [0; KEYS];
                for n in (reader..).step_by(7) {
                    let key = n % KEYS;
                    let least = acknowledged[key].load(Ordering::SeqCst).max(seen[key]);
                    let entry = keys.get(bucket, &key.to_string()).unwrap();
                    let value = entry.map_or(0, |entry| std::str::from_utf8(&entry.value).unwrap().parse().unwrap());
                    assert!(value >= least, "key {key} has {value}, and {least} was seen or acknowledged before");
                    seen[key] = value;
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for round in 1..=15 {
                let writes = (0..KEYS).map(|key| {
                    let (keys, bucket, acknowledged) = (&keys, &bucket, &acknowledged);
                    async move {
                        keys.apply(bucket, vec![set(&key.to_string(), &round.to_string())]).await.unwrap();
                        acknowledged[key].store(round, Ordering::SeqCst);
                    }
                });
                futures::future::join_all(writes).await;
            }
        });
        done.store(true, Ordering::Relaxed);
    });
    assert!(keys.cache_bytes() <= 20_000, "{}", keys.cache_bytes());
}
