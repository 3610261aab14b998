//! When schedules come, clocks that are put forward and back included.
#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::due::{Due, due};
use super::*;

fn ns(time: &str) -> u64 {
    time.parse::<jiff::Timestamp>().expect(time).as_nanosecond() as u64
}

fn cron(expression: &str, zone: &str) -> Cron {
    Cron::new(expression, zone).unwrap()
}

/// The moments after `from`, on the schedule's own clock.
#[track_caller]
fn check(expression: &str, zone: &str, from: &str, expected: &[&str]) {
    let (cron, mut at) = (cron(expression, zone), ns(from));
    for expected in expected {
        at = cron.after(at).unwrap();
        assert_eq!(cron.local(at), *expected, "{expression} in {zone}");
    }
}

#[test]
fn five_fields_and_six() {
    check("*/5 * * * *", "UTC", "2026-11-25T03:29:51Z", &["2026-11-25T03:30:00+00:00", "2026-11-25T03:35:00+00:00"]);
    check("*/20 * * * * *", "UTC", "2026-11-25T03:29:51Z", &["2026-11-25T03:30:00+00:00", "2026-11-25T03:30:20+00:00"]);
    check("0 8 * * MON", "Europe/Berlin", "2026-11-25T00:00:00Z", &["2026-11-30T08:00:00+01:00"]);
    check("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", &["2028-02-29T00:00:00+00:00"]);
    check("0 0 L * *", "UTC", "2026-02-01T00:00:00Z", &["2026-02-28T00:00:00+00:00", "2026-03-31T00:00:00+00:00"]);
    check("0 0 * * 5L", "UTC", "2026-11-01T00:00:00Z", &["2026-11-27T00:00:00+00:00", "2026-12-25T00:00:00+00:00"]);
}

/// 2026-03-29: 02:00 is 03:00 in Berlin.
#[test]
fn where_the_clock_is_put_forward() {
    let before = "2026-03-28T12:00:00Z";
    let expected = ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"];
    check("30 2 * * *", "Europe/Berlin", before, &expected);
    let expected = ["2026-03-29T01:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-29T03:30:00+02:00"];
    check("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:10:00Z", &expected);
    check("0 3 * * *", "Europe/Berlin", before, &["2026-03-29T03:00:00+02:00", "2026-03-30T03:00:00+02:00"]);
}

/// 2026-10-25: 03:00 is 02:00 again in Berlin.
#[test]
fn where_the_clock_is_put_back() {
    let before = "2026-10-24T12:00:00Z";
    check("30 2 * * *", "Europe/Berlin", before, &["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]);
    let expected = [
        "2026-10-25T02:00:00+02:00",
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T02:30:00+01:00",
        "2026-10-25T03:00:00+01:00",
    ];
    check("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:40:00Z", &expected);
}

/// The last second before the clock is put back, and a part of it.
#[test]
fn what_has_not_come_yet_has_not_come_within_a_second_either() {
    for fraction in [0, 1, 250_000_000, 999_999_999] {
        let last = |expression: &str, zone: &str, before: &str| {
            let cron = cron(expression, zone);
            cron.local(cron.at_or_before(ns(before) + fraction).unwrap())
        };
        let before = "2026-10-25T00:59:59Z";
        assert_eq!(last("0 * * * *", "Europe/Berlin", before), "2026-10-25T02:00:00+02:00", "{fraction}");
        assert_eq!(last("0 */2 * * *", "Europe/Berlin", before), "2026-10-25T02:00:00+02:00", "{fraction}");
        let before = "2026-11-01T05:59:59Z";
        assert_eq!(last("0 1-3 * * *", "America/New_York", before), "2026-11-01T01:00:00-04:00", "{fraction}");
    }
    let (hourly, now) = (cron("0 * * * *", "Europe/Berlin"), ns("2026-10-25T00:59:59Z") + 250_000_000);
    let due = due(&hourly, ns("2026-10-24T23:00:00Z"), now, Missed::Once);
    assert_eq!(due, Due { fire: vec![ns("2026-10-25T00:00:00Z")], newest: Some(ns("2026-10-25T00:00:00Z")) });
}

#[test]
fn what_is_not_a_schedule_says_why() {
    let check = |expression: &str, zone: &str, about: &str, why: &str| {
        let error = Cron::new(expression, zone).unwrap_err();
        assert_eq!(error.about(), about);
        assert!(error.to_string().contains(why), "{error}");
    };
    check("61 * * * *", "UTC", "61 * * * *", "is not a schedule");
    check("* * * * * * *", "UTC", "* * * * * * *", "is not a schedule");
    check("0 0 30 2 *", "UTC", "0 0 30 2 *", "never comes");
    let last = "field day of week, \"L\", is not understood";
    check("0 0 * * L", "UTC", "0 0 * * L", last);
    check("0 0 0 * * l", "UTC", "0 0 0 * * l", "field day of week, \"l\", is not understood");
    check("0 0 * * 1,L", "UTC", "0 0 * * 1,L", "field day of week, \"1,L\", is not understood");
    check("1,2,,3 * * * *", "UTC", "1,2,,3 * * * *", "field minutes, \"1,2,,3\", has nothing before or after a comma");
    check("5, * * * * *", "UTC", "5, * * * * *", "field seconds, \"5,\", has nothing");
    check("* * * * *", "Europe/Berlinn", "Europe/Berlinn", "is not a time zone");
    check("* * * * *", "../etc/passwd", "../etc/passwd", "is not a time zone");
}

#[test]
fn what_is_due() {
    let every = cron("0 * * * *", "UTC");
    let at = |time: &str| ns(&format!("2026-11-25T{time}Z"));
    let check = |last: &str, now: &str, missed, fire: &[&str], newest: Option<&str>| {
        let expected = Due { fire: fire.iter().map(|time| at(time)).collect(), newest: newest.map(at) };
        assert_eq!(due(&every, at(last), at(now), missed), expected, "{last} to {now}, {missed:?}");
    };
    for missed in [Missed::Once, Missed::Skip, Missed::All] {
        check("03:00:00", "03:59:59", missed, &[], None);
        check("03:00:00", "04:00:00", missed, &["04:00:00"], Some("04:00:00"));
        check("03:00:00", "04:00:30", missed, &["04:00:00"], Some("04:00:00"));
        // The clock went back.
        check("04:00:00", "03:30:00", missed, &[], None);
    }
    check("03:00:00", "06:30:00", Missed::Once, &["06:00:00"], Some("06:00:00"));
    check("03:00:00", "06:30:00", Missed::Skip, &[], Some("06:00:00"));
    check("03:00:00", "06:30:00", Missed::All, &["04:00:00", "05:00:00", "06:00:00"], Some("06:00:00"));
    check("03:00:00", "06:00:10", Missed::Skip, &["06:00:00"], Some("06:00:00"));
    let second = cron("* * * * * *", "UTC");
    let all = due(&second, ns("2020-01-01T00:00:00Z"), ns("2026-01-01T00:00:00Z"), Missed::All);
    assert_eq!((all.fire.len(), all.fire[0]), (1_000, ns("2025-12-31T23:43:21Z")), "no more than a thousand");
}

#[test]
fn an_event_is_the_same_each_time() {
    let name = |text| Name::new(text).unwrap();
    let text = "manifest_version = 1\n[app]\nname = \"shop\"\n[[function]]\nname = \"report\"\ncomponent = \"x\"\non = [{ schedule = \"0 8  * * *\", timezone = \"Europe/Berlin\" }]";
    let manifest = marram_core::manifest::Manifest::parse(text).unwrap();
    let marram_core::manifest::On::Schedule(trigger) = &manifest.functions[0].on[0] else { panic!("a schedule") };
    let schedule = Schedule::new(&name("shop"), &name("report"), trigger).unwrap();
    let event = schedule.event(ns("2026-11-25T07:00:00Z"));
    event.check().unwrap();
    assert_eq!(event.subject, "shop/report/0 8 * * * Europe/Berlin");
    assert_eq!(event.id, "shop/report/0 8 * * * Europe/Berlin 2026-11-25T07:00:00Z");
    let data = r#"{"planned":"2026-11-25T08:00:00+01:00","schedule":"0 8 * * *","timezone":"Europe/Berlin"}"#;
    assert_eq!(event.data.as_deref(), Some(data.as_bytes()));
    assert_eq!(schedule.event(ns("2026-11-25T07:00:00Z")), event);
}

#[test]
fn the_line_of_a_bad_schedule_is_shown() {
    let manifest = |on: &str| {
        let text = format!(
            "manifest_version = 1\n[app]\nname = \"shop\"\n[[function]]\nname = \"report\"\ncomponent = \"x\"\non = [{on}]\n"
        );
        (marram_core::manifest::Manifest::parse(&text).unwrap(), text)
    };
    let check = |on: &str, part: &str| {
        let (manifest, text) = manifest(on);
        let error = crate::check(&manifest, &text).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("line 7"), "{error}");
    };
    check("{ schedule = \"0 25 * * *\" }", "is not a schedule");
    check("{ schedule = \"0 2 * * *\", timezone = \"Mars/Base\" }", "\"Mars/Base\" is not a time zone");
    let (manifest, text) = manifest("{ schedule = \"0 2 * * *\", timezone = \"Europe/Berlin\" }");
    assert_eq!(crate::check(&manifest, &text), Ok(()));
}

proptest::proptest! {
    /// Looking back finds what looking ahead found, through every change of the clocks.
    #[test]
    fn back_and_forth_agree(
        expression in proptest::sample::select(&["30 2 * * *", "*/30 * * * *", "0 * * * *", "15 1,2,3 * * *", "0 0 2 * * *", "*/7 2 * * SUN", "0 3 29 3 *"][..]),
        zone in proptest::sample::select(&["Europe/Berlin", "UTC", "America/New_York", "Australia/Lord_Howe"][..]),
        day in 0u64..400, second in 0u64..86_400,
    ) {
        let cron = cron(expression, zone);
        let start = (1_767_225_600 + day * 86_400 + second) * 1_000_000_000;
        let first = cron.after(start).unwrap();
        let second = cron.after(first).unwrap();
        proptest::prop_assert!(start < first && first < second);
        proptest::prop_assert_eq!(cron.at_or_before(first), Some(first));
        proptest::prop_assert_eq!(cron.at_or_before(second - 1), Some(first));
    }
}

const ZONES: [&str; 5] =
    ["Europe/Berlin", "America/New_York", "Africa/Casablanca", "Australia/Lord_Howe", "America/Santiago"];

/// Whether something comes at this hour and minute of the wall clock.
type Comes = fn(i8, i8) -> bool;

/// Expressions that repeat.
const REPEATING: [(&str, Comes); 5] = [
    ("0 * * * *", |_, minute| minute == 0),
    ("45 * * * *", |_, minute| minute == 45),
    ("0 */2 * * *", |hour, minute| minute == 0 && hour % 2 == 0),
    ("0 1-3 * * *", |hour, minute| minute == 0 && (1..=3).contains(&hour)),
    ("*/15 0-3 * * *", |hour, minute| minute % 15 == 0 && hour <= 3),
];

/// The last whole minute at or before this second that `comes` takes on the wall clock of the zone.
fn last_by_looking_at_each(zone: &TimeZone, at_s: i64, comes: Comes) -> i64 {
    let minutes = (0..).map(|n| at_s.div_euclid(60) * 60 - n * 60);
    let is_taken = |second: &i64| {
        let wall = zone.to_datetime(Timestamp::from_second(*second).unwrap());
        comes(wall.hour(), wall.minute())
    };
    minutes.take(3 * 1_440).find(is_taken).unwrap()
}

proptest! {
    /// Around every change of the clock, whatever part of a second it is.
    #[test]
    fn the_last_moment_is_the_greatest_that_has_come(
        zone in prop::sample::select(&ZONES[..]),
        change in 0..6_usize,
        around in prop_oneof![-3..3_i64, -9_000..9_000_i64],
        fraction in prop_oneof![Just(0), Just(1), Just(999_999_999), 0..1_000_000_000_u64],
    ) {
        let tz = TimeZone::get(zone).unwrap();
        let from: Timestamp = "2025-01-01T00:00:00Z".parse().unwrap();
        let changed_s = tz.following(from).nth(change).unwrap().timestamp().as_second();
        let at_s = changed_s + around;
        let now = at_s as u64 * 1_000_000_000 + fraction;
        for (expression, comes) in REPEATING {
            let cron = cron(expression, zone);
            let last = cron.at_or_before(now).unwrap();
            prop_assert!(last <= now, "{expression} comes in the future at {}", cron.local(now));
            let expected = last_by_looking_at_each(&tz, at_s, comes) as u64 * 1_000_000_000;
            prop_assert_eq!(last, expected, "{} at {}: {}", expression, cron.local(now), cron.local(last));
            prop_assert!(cron.after(last).unwrap() > now, "{expression} at {}", cron.local(now));
        }
        // One that names an hour and a minute comes once, right after a gap if it lies in that.
        let cron = cron("30 2 * * *", zone);
        let last = cron.at_or_before(now).unwrap();
        prop_assert!(last <= now && cron.after(last).unwrap() > now, "{}: {}", cron.local(now), cron.local(last));
    }
}
