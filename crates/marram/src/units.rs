//! Numbers as people read them: three digits and a unit.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
pub(crate) fn now_unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// `912 B`, `1.21 KiB`, `64.0 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", three(value), UNITS[unit])
}

/// `812 ns`, `1.24 ms`, `3.20 s`, `2.10 min`, `4.50 h`.
pub(crate) fn nanoseconds(ns: u64) -> String {
    const UNITS: [(&str, f64); 6] = [("h", 3.6e12), ("min", 6e10), ("s", 1e9), ("ms", 1e6), ("µs", 1e3), ("ns", 1.0)];
    if ns < 1_000 {
        return format!("{ns} ns");
    }
    let value = ns as f64;
    // 999.96 µs would be written as 1000 µs: it is 1.00 ms.
    let (unit, factor) = UNITS.iter().find(|(_, factor)| value >= factor * 0.9995).unwrap_or(&UNITS[5]);
    format!("{} {unit}", three(value / factor))
}

/// As [`nanoseconds`].
pub(crate) fn duration(duration: Duration) -> String {
    nanoseconds(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

/// `1 204`: thousands apart, by a thin space that is one column wide.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// `just now`, `12 s ago`, `3 min ago`, `5 h ago`, `2 d ago`.
pub(crate) fn ago(then_unix_ms: u64, now_unix_ms: u64) -> String {
    let seconds = now_unix_ms.saturating_sub(then_unix_ms) / 1_000;
    match seconds {
        0..=1 => "just now".into(),
        2..=119 => format!("{seconds} s ago"),
        120..=7_199 => format!("{} min ago", seconds / 60),
        7_200..=172_799 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// `12:34:56.789`, in UTC: what the lines of one night on several nodes have in common.
pub(crate) fn time_of_day(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1_000 % 86_400, unix_ms % 1_000);
    format!("{:02}:{:02}:{:02}.{ms:03}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// `2026-11-24 12:34:56`, in UTC.
pub(crate) fn date_time(unix_ms: u64) -> String {
    // Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days.
    let days = i64::try_from(unix_ms / 86_400_000).unwrap_or(0) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {}", &time_of_day(unix_ms)[..8])
}

/// `2026-11-24T12:34:56.789Z`: what the admin API takes (RFC 3339 §5.6).
pub(crate) fn rfc3339(unix_ms: u64) -> String {
    format!("{}.{:03}Z", date_time(unix_ms).replace(' ', "T"), unix_ms % 1_000)
}

/// Three digits: `1.24`, `12.4`, `124`.
fn three(value: f64) -> String {
    match value {
        v if v < 9.995 => format!("{v:.2}"),
        v if v < 99.95 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        let cases =
            [(0, "0 B"), (1_023, "1023 B"), (1_024, "1.00 KiB"), (1_048_575, "1.00 MiB"), (67_108_864, "64.0 MiB")];
        for (value, text) in cases {
            assert_eq!(bytes(value), text);
        }
        let cases = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_240_000, "1.24 ms"),
            (999_990, "1.00 ms"),
            (3_200_000_000, "3.20 s"),
            (126_000_000_000, "2.10 min"),
        ];
        for (value, text) in cases {
            assert_eq!(nanoseconds(value), text);
        }
        assert_eq!((count(7), count(1_204), count(1_000_000)), ("7".into(), "1 204".into(), "1 000 000".into()));
    }

    #[test]
    fn times() {
        assert_eq!(ago(1_000, 1_500), "just now");
        assert_eq!(ago(0, 3_600_000), "60 min ago");
        assert_eq!(ago(5_000, 0), "just now");
        assert_eq!(date_time(0), "1970-01-01 00:00:00");
        assert_eq!(date_time(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(date_time(1_795_514_096_789), "2026-11-24 09:54:56");
    }
}
