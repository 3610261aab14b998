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
        self.cron.find_previous_occurrence(&self.wall(unix_ns)?, true).ok().and_then(|at| ns(&at))
    }

    /// The moment on the schedule's wall clock: `2026-03-29T03:00:00+02:00`.
    #[must_use]
    pub fn local(&self, unix_ns: u64) -> String {
        self.wall(unix_ns).map_or_else(String::new, |wall| wall.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string())
    }

    fn wall(&self, unix_ns: u64) -> Option<Zoned> {
        Some(Timestamp::from_nanosecond(i128::from(unix_ns)).ok()?.to_zoned(self.zone.clone()))
    }
}

/// Nanoseconds since the Unix epoch as RFC 3339 in UTC.
pub(super) fn utc(unix_ns: u64) -> String {
    Timestamp::from_nanosecond(i128::from(unix_ns)).map_or_else(|_| String::new(), |at| at.to_string())
}

fn ns(at: &Zoned) -> Option<u64> {
    u64::try_from(at.timestamp().as_nanosecond()).ok()
}
