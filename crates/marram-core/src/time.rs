//! Time of day as RFC 3339 text with nanoseconds, in UTC, and as HTTP writes it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A moment: nanoseconds since the Unix epoch, written `2026-11-24T04:09:29.000000001Z` (RFC 3339 §5.6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

/// Why a text is not a [`Timestamp`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time: write it as 2026-11-24T04:09:29Z")]
pub struct TimestampError(String);

const SECOND_NS: u64 = 1_000_000_000;

/// From the one of 1970-01-01.
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Timestamp {
    /// The second as a header has it: `Tue, 24 Nov 2026 04:09:29 GMT` (RFC 9110 §5.6.7).
    #[must_use]
    pub fn http_date(self) -> String {
        let seconds = self.0 / SECOND_NS;
        let days = seconds / 86_400;
        let (year, month, day) = civil(days);
        let (weekday, month) = (WEEKDAYS[(days % 7) as usize], MONTHS[(month - 1) as usize]);
        let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
        format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ns) = (self.0 / SECOND_NS, self.0 % SECOND_NS);
        let (year, month, day) = civil(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ns:09}Z")
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Timestamp {
    type Err = TimestampError;

    /// Reads UTC only: with `Z`, and with or without a fraction of at most nine digits.
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        read(text.as_bytes()).map(Self).ok_or_else(|| TimestampError(text.chars().take(40).collect()))
    }
}

fn read(text: &[u8]) -> Option<u64> {
    let number = |from: usize, to: usize| {
        text.get(from..to)?
            .iter()
            .try_fold(0u64, |value, digit| digit.is_ascii_digit().then(|| value * 10 + u64::from(digit - b'0')))
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if marks.iter().any(|(at, mark)| text.get(*at) != Some(mark)) || text.last() != Some(&b'Z') {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let valid = (1970..=2554).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !valid || hour > 23 || minute > 59 || second > 59 || civil(days(year, month, day)) != (year, month, day) {
        return None;
    }
    let ns = match text.len() - 1 {
        19 => 0,
        end @ 21..=29 if text[19] == b'.' => number(20, end)? * 10u64.pow(29 - end as u32),
        _ => return None,
    };
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    seconds.checked_mul(SECOND_NS)?.checked_add(ns)
}

/// Year, month and day of a day since 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    // Years begin in March here, so that the leap day comes last; 719,468 days lie between 0000-03-01 and 1970-01-01.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil`]; the year is at least 1970.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Timestamp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        // Checked with `date -u -d @…`.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_700_000_000, "2023-11-14T22:13:20.000000000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(Timestamp(seconds * SECOND_NS).to_string(), text);
        }
        // The last moment that fits.
        assert_eq!(Timestamp(u64::MAX).to_string().parse(), Ok(Timestamp(u64::MAX)));
        assert_eq!("2023-11-14T22:13:20Z".parse(), Ok(Timestamp(1_700_000_000 * SECOND_NS)));
        assert_eq!("2023-11-14T22:13:20.5Z".parse(), Ok(Timestamp(1_700_000_000_500_000_000)));
    }

    #[test]
    fn known_moments_in_headers() {
        // Checked with `date -u -R -d @…`; the first three are those of RFC 9110 §5.6.7, of a leap day and of 1970.
        for (seconds, text) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (1_700_000_000, "Tue, 14 Nov 2023 22:13:20 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (1_767_225_599, "Wed, 31 Dec 2025 23:59:59 GMT"),
        ] {
            assert_eq!(Timestamp(seconds * SECOND_NS).http_date(), text);
        }
    }

    #[test]
    fn not_a_time() {
        for bad in [
            "",
            "now",
            "2023-11-14",
            "2023-02-29T00:00:00Z",
            "2023-11-14T24:00:00Z",
            "2023-11-14T22:13:20+01:00",
            "2023-11-14T22:13:20.Z",
            "2023-11-14T22:13:20.0000000001Z",
            "1969-12-31T23:59:59Z",
            "9999-01-01T00:00:00Z",
            "2023-00-14T22:13:20Z",
        ] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad:?} was taken");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_shown_reads_back(ns in 0u64..) {
            assert_eq!(Timestamp(ns).to_string().parse(), Ok(Timestamp(ns)));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,40}") {
            let _ = text.parse::<Timestamp>();
        }
    }
}
