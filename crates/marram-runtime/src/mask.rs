//! What logs and errors must not show: the values of a function's secrets. A function that writes one there, in a message, an
//! exception or the address of a request, finds its name in that place. What it encodes or cuts up is not found.

use std::collections::BTreeMap;

use marram_core::Failure;

/// Shorter ones are likely to stand in a line by chance, and are no secret for long.
const VALUE_BYTES_MIN: usize = 8;

/// The secrets of a function. Costs nothing where there are none.
#[derive(Default)]
pub(crate) struct Mask {
    /// Values and what is shown instead, the longest first: one may be a part of another.
    values: Vec<(String, String)>,
}

impl Mask {
    /// Of secrets by name. A value of several lines is also found line by line, because output becomes lines.
    pub(crate) fn of(secrets: &BTreeMap<&str, &str>) -> Self {
        let mut values = Vec::new();
        for (name, value) in secrets {
            let whole = std::iter::once(*value);
            for part in whole.chain(value.lines()).filter(|part| part.len() >= VALUE_BYTES_MIN) {
                values.push((part.to_owned(), format!("(secret {name})")));
            }
        }
        values.sort_by(|(one, _), (other, _)| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        values.dedup_by(|one, other| one.0 == other.0);
        Self { values }
    }

    /// Puts the name of each secret where its value stands.
    pub(crate) fn hide(&self, text: &mut String) {
        for (value, shown) in &self.values {
            if text.contains(value.as_str()) {
                *text = text.replace(value.as_str(), shown);
            }
        }
    }

    /// The same failure, without the values in what it tells and in its cause.
    pub(crate) fn hide_in(&self, failure: Failure) -> Failure {
        if self.values.is_empty() {
            return failure;
        }
        let (mut message, mut detail) = (failure.message().to_owned(), failure.detail());
        self.hide(&mut message);
        if let Some(detail) = &mut detail {
            self.hide(detail);
        }
        if message == failure.message() && detail == failure.detail() {
            return failure;
        }
        let hidden = Failure::new(failure.kind(), message).retry(failure.retry_after());
        match detail {
            Some(detail) => hidden.because(detail),
            None => hidden,
        }
    }

    /// Bytes of the longest value.
    pub(crate) fn longest(&self) -> usize {
        self.values.first().map_or(0, |(value, _)| value.len())
    }

    /// How many bytes at the end are the beginning of a value, whose rest may follow.
    pub(crate) fn begun(&self, bytes: &[u8]) -> usize {
        let begun = |value: &[u8]| (1..value.len()).rev().find(|length| bytes.ends_with(&value[..*length]));
        self.values.iter().filter_map(|(value, _)| begun(value.as_bytes())).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use marram_core::{Kind, Retry};

    use super::*;

    fn hidden(secrets: &[(&str, &str)], text: &str) -> String {
        let mut text = text.to_owned();
        Mask::of(&secrets.iter().copied().collect()).hide(&mut text);
        text
    }

    #[test]
    fn the_name_stands_where_the_value_was() {
        let secrets = [("api_key", "hunter2-hunter2"), ("pin", "1234")];
        assert_eq!(
            hidden(&secrets, "key=hunter2-hunter2, hunter2-hunter2!"),
            "key=(secret api_key), (secret api_key)!"
        );
        assert_eq!(hidden(&secrets, "1234 hunter2 is neither"), "1234 hunter2 is neither");
        assert_eq!(hidden(&[], "key=hunter2-hunter2"), "key=hunter2-hunter2");
    }

    #[test]
    fn of_two_that_overlap_nothing_is_left() {
        let secrets = [("a", "password"), ("b", "password-and-more")];
        assert_eq!(hidden(&secrets, "password-and-more password"), "(secret b) (secret a)");
    }

    #[test]
    fn a_value_of_several_lines_is_found_line_by_line() {
        let secrets = [("pem", "first line of it\r\nsecond line\nend\n")];
        assert_eq!(hidden(&secrets, "first line of it"), "(secret pem)");
        assert_eq!(hidden(&secrets, "> second line"), "> (secret pem)");
        assert_eq!(hidden(&secrets, "first line of it\r\nsecond line\nend\n"), "(secret pem)");
    }

    #[test]
    fn a_failure_without_a_secret_stays_what_it_was() {
        let mask = Mask::of(&BTreeMap::from([("token", "hunter2-hunter2")]));
        let failure = |text: &str| {
            let retry = Retry::After(Duration::from_secs(7));
            Failure::new(Kind::Upstream, text.to_owned()).because(std::io::Error::other(text.to_owned())).retry(retry)
        };
        let kept = mask.hide_in(failure("no answer"));
        assert!(kept.cause::<std::io::Error>().is_some(), "{kept:?}");
        let hidden = mask.hide_in(failure("no answer to hunter2-hunter2"));
        assert_eq!(hidden.message(), "no answer to (secret token)");
        assert_eq!(hidden.detail().as_deref(), Some("no answer to (secret token)"));
        assert_eq!((hidden.kind(), hidden.retry_after()), (kept.kind(), kept.retry_after()));
    }

    #[test]
    fn the_beginning_of_a_value_is_seen_at_the_end() {
        let mask = Mask::of(&BTreeMap::from([("a", "abcabcabd"), ("b", "bcabcaXY")]));
        for (text, begun) in [("", 0), ("xyz", 0), ("xyza", 1), ("zabcab", 5), ("zzabcabcab", 8), ("abcabcabd", 0)] {
            assert_eq!(mask.begun(text.as_bytes()), begun, "{text}");
        }
        assert_eq!((mask.longest(), Mask::default().longest(), Mask::default().begun(b"abc")), (9, 0, 0));
    }
}
