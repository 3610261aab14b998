//! When a schedule comes: a cron expression on the wall clock of a time zone.
//!
//! Where the clock is put forward, an expression that names an hour and a minute comes right after the gap, and one that
//! repeats comes as it does after the gap, without what was left out. Where it is put back, the first comes once, the
//! first time; the second comes both times (Vixie cron, and the Open Cron Pattern Specification).

use std::fmt;

use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// A schedule that is known to come.
#[derive(Clone, Debug)]
pub struct Cron {
    cron: croner::Cron,
    zone: TimeZone,
}

/// Why a text is not a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronError {
    about: String,
    why: String,
}

impl CronError {
    /// The expression or the time zone, as it was written.
    #[must_use]
    pub fn about(&self) -> &str {
        &self.about
    }
}

impl fmt::Display for CronError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.about, self.why)
    }
}

impl std::error::Error for CronError {}

impl Cron {
    /// Reads an expression and the IANA name of a time zone.
    pub fn new(expression: &str, zone: &str) -> Result<Self, CronError> {
        let wrong = |about: &str, why: String| CronError { about: about.chars().take(120).collect(), why };
        check_fields(expression).map_err(|why| wrong(expression, format!("is not a schedule: {why}")))?;
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron =
            parser.parse(expression).map_err(|error| wrong(expression, format!("is not a schedule: {error}")))?;
        let zone = TimeZone::get(zone)
            .map_err(|_| wrong(zone, "is not a time zone: write its IANA name, such as \"Europe/Berlin\"".into()))?;
        let schedule = Self { cron, zone };
        // Any day that exists comes within eight years, and from here on it is known that there is a next time.
        let never = || wrong(expression, "never comes: no year has such a day".into());
        schedule.after(946_684_800_000_000_000).ok_or_else(never)?;
        Ok(schedule)
    }

    /// The first moment after this one, in nanoseconds since the Unix epoch, at which it comes.
    #[must_use]
    pub fn after(&self, unix_ns: u64) -> Option<u64> {
        self.cron.find_next_occurrence(&self.wall(unix_ns)?, false).ok().and_then(|at| ns(&at))
    }

    /// The last moment at or before this one at which it came.
    #[must_use]
    pub fn at_or_before(&self, unix_ns: u64) -> Option<u64> {
        let found = self.cron.find_previous_occurrence(&self.wall(unix_ns)?, true).ok().and_then(|at| ns(&at));
        found.filter(|at| *at <= unix_ns)
    }

    /// The moment on the schedule's wall clock: `2026-03-29T03:00:00+02:00`.
    #[must_use]
    pub fn local(&self, unix_ns: u64) -> String {
        self.wall(unix_ns).map_or_else(String::new, |wall| wall.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string())
    }

    /// In whole seconds, as moments are: where the clock is about to be put back, a fraction more would count as that second.
    fn wall(&self, unix_ns: u64) -> Option<Zoned> {
        let seconds = i64::try_from(unix_ns / 1_000_000_000).ok()?;
        Some(Timestamp::from_second(seconds).ok()?.to_zoned(self.zone.clone()))
    }
}

/// The fields of an expression, from the last one back: seconds may be left out.
const FIELDS: [&str; 6] = ["day of week", "month", "day of month", "hours", "minutes", "seconds"];

/// Refuses what the parser would take for nothing: an entry that is empty, and a last day of the week.
fn check_fields(expression: &str) -> Result<(), String> {
    let fields = expression.split_whitespace().rev();
    // How many there have to be, and nicknames such as `@daily`, is the parser's.
    if !matches!(fields.clone().count(), 5 | 6) {
        return Ok(());
    }
    for (field, name) in fields.zip(FIELDS) {
        if field.split(',').any(str::is_empty) {
            return Err(format!("the field {name}, {field:?}, has nothing before or after a comma"));
        }
        let last = field.trim_start_matches('+').split(',').any(|entry| entry.eq_ignore_ascii_case("L"));
        if name == "day of week" && last {
            return Err(format!(
                "the field {name}, {field:?}, is not understood: write a weekday before the L, such as 5L for the last Friday of a month"
            ));
        }
    }
    Ok(())
}

/// Nanoseconds since the Unix epoch as RFC 3339 in UTC.
pub(super) fn utc(unix_ns: u64) -> String {
    Timestamp::from_nanosecond(i128::from(unix_ns)).map_or_else(|_| String::new(), |at| at.to_string())
}

fn ns(at: &Zoned) -> Option<u64> {
    u64::try_from(at.timestamp().as_nanosecond()).ok()
}
