//! Lines come out in order or with their gap told, live and from the disk, and never past the limits.
use std::time::Duration;

use crate::support::{HandClock, NOW, SECOND, id, line, open};
use marram_core::port::Observe as _;
use marram_core::record::Level;
use marram_core::trace::RequestId;
use marram_telemetry::{Followed, LogEntry, LogQuery, Telemetry, TelemetryConfig, limits};

#[test]
fn the_json_form_is_the_documented_one() {
    let dir = tempfile::tempdir().unwrap();
    let (telemetry, _task) = open(&dir);
    let mut odd = line(&id("shop", "price"), 255, "a \"quoted\" line");
    odd.trace = None;
    telemetry.log(odd);
    let lines = telemetry.logs(&LogQuery::default()).unwrap();
    let revision = marram_core::Digest::of(b"revision");
    assert_eq!(
        serde_json::to_string(&lines[0]).unwrap(),
        format!(
            r#"{{"time":"2023-11-14T22:13:20.000000255Z","level":"info","app":"shop","function":"price","revision":"{revision}","request":"00000000000000ff","trace":null,"source":"stdout","context":"","text":"a \"quoted\" line"}}"#
        )
    );
    let back: LogEntry = serde_json::from_str(&serde_json::to_string(&lines[0]).unwrap()).unwrap();
    assert_eq!(back, lines[0]);
}

#[test]
fn memory_and_disk_answer_together_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = TelemetryConfig { log_ring_bytes: 20_000, ..TelemetryConfig::new(dir.path()) };
    let (price, audit) = (id("shop", "price"), id("shop", "audit"));
    let (telemetry, task) = Telemetry::open(config.clone(), HandClock::at(NOW)).unwrap();
    for n in 0..3_000 {
        let mut line = line(if n % 3 == 0 { &audit } else { &price }, n, format!("line {n}"));
        line.level = if n % 100 == 0 { Level::Error } else { Level::Info };
        telemetry.log(line);
        if n % 500 == 0 {
            telemetry.flush().unwrap();
        }
    }
    let check = |telemetry: &Telemetry| {
        let texts =
            |query: LogQuery| telemetry.logs(&query).unwrap().into_iter().map(|line| line.text).collect::<Vec<_>>();
        let all: Vec<_> = (0..3_000).map(|n| format!("line {n}")).collect();
        assert_eq!(texts(LogQuery::default()), all);
        assert_eq!(texts(LogQuery { limit: Some(5), ..LogQuery::default() }), all[2_995..]);
        assert_eq!(texts(LogQuery { request: Some(RequestId(17)), ..LogQuery::default() }), ["line 17"]);
        assert_eq!(texts(LogQuery { level: Some(Level::Warn), ..LogQuery::default() }).len(), 30);
        assert_eq!(texts(LogQuery { function: Some(audit.function.clone()), ..LogQuery::default() }).len(), 1_000);
        assert_eq!(texts(LogQuery { since_unix_ns: Some(NOW + 2_990), ..LogQuery::default() }), all[2_990..]);
        assert_eq!(texts(LogQuery { limit: Some(0), ..LogQuery::default() }).len(), 0);
    };
    check(&telemetry);
    task.stop();
    let (telemetry, _task) = Telemetry::open(config, HandClock::at(NOW)).unwrap();
    check(&telemetry);
}

#[tokio::test]
async fn a_follower_sees_every_line_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (telemetry, task) = open(&dir);
    let price = id("shop", "price");
    for n in 0..10 {
        telemetry.log(line(&price, n, n.to_string()));
    }
    let mut follow = telemetry.follow(LogQuery { limit: Some(4), ..LogQuery::default() }).unwrap();
    let mut now_on = telemetry.follow(LogQuery::default()).unwrap();
    let writer = std::thread::spawn({
        let (telemetry, price) = (telemetry.clone(), price.clone());
        move || {
            for n in 10..20_000 {
                telemetry.log(line(&price, n, n.to_string()));
                if n % 500 == 0 {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        }
    });
    for (follow, first) in [(&mut follow, 6), (&mut now_on, 10)] {
        let mut next = first;
        while next < 20_000 {
            match tokio::time::timeout(Duration::from_secs(20), follow.next()).await.unwrap().unwrap() {
                Followed::Line(line) => {
                    assert_eq!(line.text, next.to_string());
                    next += 1;
                }
                Followed::Missed(lines) => next += lines,
            }
        }
        assert_eq!(next, 20_000);
    }
    writer.join().unwrap();
    task.stop();
    assert_eq!(follow.next().await, None, "followers are told of the end");
}

#[tokio::test]
async fn a_slow_follower_is_told_what_it_missed() {
    let dir = tempfile::tempdir().unwrap();
    let config = TelemetryConfig { log_ring_bytes: 30_000, ..TelemetryConfig::new(dir.path()) };
    let (telemetry, task) = Telemetry::open(config, HandClock::at(NOW)).unwrap();
    let (price, audit) = (id("shop", "price"), id("shop", "audit"));
    let mut follow =
        telemetry.follow(LogQuery { function: Some(audit.function.clone()), ..LogQuery::default() }).unwrap();
    for n in 0..5_000 {
        telemetry.log(line(if n % 2 == 0 { &price } else { &audit }, n, n.to_string()));
    }
    task.stop();
    let (mut missed, mut lines, mut last) = (0, 0, None);
    while let Some(followed) = follow.next().await {
        match followed {
            Followed::Missed(lines) => missed += lines,
            Followed::Line(line) => {
                assert_eq!(line.function, audit.function);
                lines += 1;
                last = Some(line.text);
            }
        }
    }
    assert_eq!(last.as_deref(), Some("4999"));
    assert!(missed > 4_000, "{missed}");
    // Of the lines that were looked at, every other was for this follower.
    assert_eq!(missed + 2 * lines, 5_000 + (missed % 2));
}

#[test]
fn a_flood_is_dropped_counted_and_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (telemetry, _task) = open(&dir);
    let price = id("shop", "price");
    let huge = "x".repeat(64 << 10);
    for n in 0..3_000 {
        telemetry.log(line(&price, n, huge.clone()));
    }
    let metrics = telemetry.metrics();
    let dropped: u64 = metrics
        .lines()
        .find_map(|line| line.strip_prefix("marram_telemetry_lost_total{what=\"log_lines\"} "))
        .unwrap()
        .parse()
        .unwrap();
    let lines = telemetry.logs(&LogQuery::default()).unwrap();
    assert!(lines.iter().all(|line| line.text.len() == marram_core::limits::LOG_LINE_BYTES_MAX), "lines are cut");
    assert!(lines.len() as u64 + dropped <= 3_000);
}

#[test]
fn the_disk_holds_no_more_than_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        TelemetryConfig { log_disk_bytes: 1 << 20, log_ring_bytes: 10_000, ..TelemetryConfig::new(dir.path()) };
    let clock = HandClock::at(NOW);
    let price = id("shop", "price");
    let mut number = 0u64;
    let mut random = 1u64;
    let stored = || {
        let db = rusqlite::Connection::open(dir.path().join("telemetry.db")).unwrap();
        db.query_row("SELECT coalesce(sum(length(lines)), 0) FROM log_block", [], |row| row.get::<_, u64>(0)).unwrap()
    };
    for _ in 0..6 {
        let (telemetry, task) = Telemetry::open(config.clone(), clock.clone()).unwrap();
        for _ in 0..2_000 {
            // Noise, so that it does not compress away.
            let mut text = String::new();
            for _ in 0..20 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push_str(&format!("{:016x}", random));
            }
            telemetry.log(line(&price, number, text));
            number += 1;
            if number.is_multiple_of(100) {
                telemetry.flush().unwrap();
            }
        }
        task.stop();
    }
    // The next start drops what is too much.
    Telemetry::open(config.clone(), clock.clone()).unwrap().1.stop();
    assert!(stored() <= 1 << 20, "{} bytes", stored());
    assert!(stored() > 700 << 10, "only what is too much is dropped: {} bytes", stored());
    let file = std::fs::metadata(dir.path().join("telemetry.db")).unwrap().len();
    assert!(file < 2 << 20, "the file gives its pages back: {file} bytes");

    let (telemetry, task) = Telemetry::open(config.clone(), clock.clone()).unwrap();
    let kept = telemetry.logs(&LogQuery::default()).unwrap();
    assert_eq!(kept.last().unwrap().time.0, NOW + number - 1, "the latest are kept");
    task.stop();

    clock.set(NOW + (limits::LOG_DISK_AGE.as_secs() + 7_200) * SECOND);
    let (telemetry, task) = Telemetry::open(config.clone(), clock.clone()).unwrap();
    telemetry.log(line(&price, number, "new"));
    task.stop();
    Telemetry::open(config, clock).unwrap().1.stop();
    assert!(stored() < 10 << 10, "{} bytes are past their age", stored());
}

#[test]
fn a_damaged_database_does_not_keep_a_node_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("telemetry.db"), "not a database, and long enough to be one".repeat(100)).unwrap();
    let (telemetry, _task) = open(&dir);
    telemetry.log(line(&id("shop", "price"), 1, "hello"));
    telemetry.flush().unwrap();
    assert_eq!(telemetry.logs(&LogQuery::default()).unwrap().len(), 1);
    assert!(dir.path().join("telemetry.db.damaged").exists());
}

/// A file that cannot be made stands for the disk that has no room for it.
#[test]
fn a_disk_without_room_does_not_keep_a_node_from_starting_and_lines_go_there_once_it_has_some() {
    let dir = tempfile::tempdir().unwrap();
    let price = id("shop", "price");
    let texts = |telemetry: &Telemetry| -> Vec<String> {
        telemetry.logs(&LogQuery::default()).unwrap().into_iter().map(|entry| entry.text).collect()
    };
    let (telemetry, task) = open(&dir);
    telemetry.log(line(&price, 1, "before"));
    task.stop();
    drop(telemetry);

    let shared_memory = dir.path().join("telemetry.db-shm");
    std::os::unix::fs::symlink("nowhere", &shared_memory).unwrap();
    let (telemetry, task) = open(&dir);
    telemetry.log(line(&price, 2, "meanwhile"));
    assert!(telemetry.flush().is_err(), "there is no room");
    assert_eq!(texts(&telemetry), ["meanwhile"], "what is in memory is shown");
    std::fs::remove_file(&shared_memory).unwrap();
    telemetry.flush().unwrap();
    assert_eq!(texts(&telemetry), ["before", "meanwhile"]);
    telemetry.log(line(&price, 3, "after"));
    task.stop();
    drop(telemetry);
    let (telemetry, _task) = open(&dir);
    assert_eq!(texts(&telemetry), ["before", "meanwhile", "after"]);
}
