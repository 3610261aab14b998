//! Topic names and filters: what is one, and which filter takes what (MQTT 5.0 §4.7, §4.8).

use marram_core::event::is_attribute_char;

use crate::limits::{TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX};

/// Whether this is a topic name that a client may publish to: no wildcards, and well-formed.
pub(crate) fn is_name(topic: &str) -> bool {
    is_bounded(topic) && !topic.contains(['+', '#']) && is_well_formed(topic)
}

/// Whether it has neither control characters nor noncharacters: MQTT 5.0 §1.5.4 and 3.1.1 §1.5.3 let a server take them for
/// malformed, and no subject of an event has them.
pub(crate) fn is_well_formed(topic: &str) -> bool {
    topic.chars().all(is_attribute_char)
}

/// Whether this is a topic filter: wildcards fill whole levels, `#` only the last (MQTT 5.0 §4.7.1).
pub(crate) fn is_filter(filter: &str) -> bool {
    let mut levels = filter.split('/').peekable();
    let mut good = is_bounded(filter);
    while let Some(level) = levels.next() {
        good &= !level.contains('#') || (level == "#" && levels.peek().is_none());
        good &= !level.contains('+') || level == "+";
    }
    good
}

fn is_bounded(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= TOPIC_BYTES_MAX
        && !text.contains('\0')
        && text.split('/').nth(TOPIC_LEVELS_MAX).is_none()
}

/// A filter as subscribed to: of a group (`$share/<group>/<filter>`) or of nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filter<'f> {
    /// The group of a shared subscription.
    pub(crate) group: Option<&'f str>,
    /// The topic filter.
    pub(crate) topic: &'f str,
}

/// Why a text is not a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FilterFault {
    /// It is not of the form.
    Invalid,
    /// It begins with `$` and is not a shared subscription: such topics are the server's own, and this one has none.
    Reserved,
}

impl<'f> Filter<'f> {
    /// Takes a filter apart and checks it.
    pub(crate) fn parse(text: &'f str) -> Result<Self, FilterFault> {
        let filter = match text.strip_prefix("$share/") {
            None => Self { group: None, topic: text },
            Some(rest) => {
                let (group, topic) = rest.split_once('/').ok_or(FilterFault::Invalid)?;
                if group.is_empty() || group.contains(['+', '#', '\0']) || group.len() > TOPIC_BYTES_MAX {
                    return Err(FilterFault::Invalid);
                }
                Self { group: Some(group), topic }
            }
        };
        if !is_filter(filter.topic) || text == "$share" {
            return Err(FilterFault::Invalid);
        }
        if filter.topic.starts_with('$') {
            return Err(FilterFault::Reserved);
        }
        Ok(filter)
    }
}

/// Whether a filter takes a topic. No allocation; linear in both.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut filters, mut levels) = (filter.split('/'), topic.split('/'));
    loop {
        match (filters.next(), levels.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(filter), Some(level)) if filter == level => {}
            _ => return false,
        }
    }
}

/// Whether everything that `narrow` takes `wide` takes as well. Both are filters.
pub(crate) fn covers(wide: &str, narrow: &str) -> bool {
    if narrow.starts_with('$') && wide.starts_with(['+', '#']) {
        return false;
    }
    let (mut wides, mut narrows) = (wide.split('/'), narrow.split('/'));
    loop {
        match (wides.next(), narrows.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(level)) if level != "#" => {}
            (Some(wide), Some(level)) if wide == level && level != "#" => {}
            _ => return false,
        }
    }
}

/// The filter of the topics that both of these take, if there are any.
pub(crate) fn meet(one: &str, other: &str) -> Option<String> {
    let (mut ones, mut others) = (one.split('/'), other.split('/'));
    let mut both = Vec::new();
    loop {
        match (ones.next(), others.next()) {
            (None, None) => break,
            (Some("#"), level) => {
                both.extend(level.into_iter().chain(others));
                break;
            }
            (level, Some("#")) => {
                both.extend(level.into_iter().chain(ones));
                break;
            }
            (Some("+"), Some(level)) | (Some(level), Some("+")) => both.push(level),
            (Some(one), Some(other)) if one == other => both.push(one),
            _ => return None,
        }
    }
    // The only level of both may be empty, and that is no topic.
    Some(both.join("/")).filter(|both| !both.is_empty())
}

/// Puts the client identifier for `%c` and the user for `%u`. `None` when one of them is asked for and is missing, or would
/// be more than one level or a wildcard: such a client has no topic of its own.
pub(crate) fn substitute(pattern: &str, client: &str, user: Option<&str>) -> Option<String> {
    let literal = |text: &str| !text.is_empty() && !text.contains(['/', '+', '#', '\0']);
    let (mut filter, mut rest) = (String::new(), pattern);
    while let Some(at) = rest.find('%') {
        let value = match rest.as_bytes().get(at + 1) {
            Some(b'c') => client,
            Some(b'u') => user?,
            _ => {
                filter.push_str(&rest[..=at]);
                rest = &rest[at + 1..];
                continue;
            }
        };
        literal(value).then_some(())?;
        filter.push_str(&rest[..at]);
        filter.push_str(value);
        rest = &rest[at + 2..];
    }
    filter.push_str(rest);
    Some(filter)
}

#[cfg(test)]
mod tests {
    use marram_core::event::SubjectFilter;

    use super::*;

    #[test]
    fn names_and_filters_are_told_apart() {
        for name in ["a", "/", "a/b", "a b", "/finance", "plant/7/ä"] {
            assert!(is_name(name) && is_filter(name), "{name:?}");
        }
        for bad in ["", "a+", "+/a", "#", "a\0", "a\u{1}", "\u{7f}", "a/\u{9f}", "\u{ffff}", "\u{fdd0}/b"] {
            assert!(!is_name(bad), "{bad:?}");
        }
        for bad in ["x".repeat(1025), "/".repeat(64)] {
            assert!(!is_name(&bad), "{bad:?}");
        }
        for filter in ["+", "#", "a/+/b", "a/#", "+/+", "/#"] {
            assert!(is_filter(filter), "{filter:?}");
        }
        for bad in ["", "a#", "a/#/b", "a+/b", "#/a", "a/b+", "a\0"] {
            assert!(!is_filter(bad), "{bad:?}");
        }
    }

    #[test]
    fn shared_filters_are_taken_apart() {
        assert_eq!(Filter::parse("$share/g/a/+"), Ok(Filter { group: Some("g"), topic: "a/+" }));
        assert_eq!(Filter::parse("a/+"), Ok(Filter { group: None, topic: "a/+" }));
        for bad in
            ["$share", "$share/", "$share//a", "$share/g", "$share/g/", "$share/+/a", "$share/g#/a", "$share/g/a#"]
        {
            assert_eq!(Filter::parse(bad), Err(FilterFault::Invalid), "{bad:?}");
        }
        for own in ["$SYS/#", "$x", "$share/g/$SYS/#"] {
            assert_eq!(Filter::parse(own), Err(FilterFault::Reserved), "{own:?}");
        }
    }

    #[test]
    fn a_filter_covers_what_it_takes_all_of() {
        for (wide, narrow) in
            [("#", "a/+/b"), ("a/#", "a"), ("a/#", "a/#"), ("a/+", "a/+"), ("a/+", "a/b"), ("+/#", "a/b/#"), ("a", "a")]
        {
            assert!(covers(wide, narrow), "{wide} does not cover {narrow}");
        }
        for (wide, narrow) in [
            ("a/+", "a/#"),
            ("a/b", "a/+"),
            ("a", "a/#"),
            ("+", "#"),
            ("a/+/c", "a/b/#"),
            ("#", "$SYS/a"),
            ("a/b", "a"),
        ] {
            assert!(!covers(wide, narrow), "{wide} covers {narrow}");
        }
    }

    #[test]
    fn what_a_client_calls_itself_cannot_widen_its_topics() {
        assert_eq!(substitute("d/%c/#", "pump-7", None).as_deref(), Some("d/pump-7/#"));
        assert_eq!(substitute("%u/%c", "c", Some("u")).as_deref(), Some("u/c"));
        assert_eq!(substitute("%u/%c", "c", Some("%c")).as_deref(), Some("%c/c"));
        assert_eq!(substitute("a/b", "#", None).as_deref(), Some("a/b"));
        for client in ["#", "+", "a/b", "", "a\0"] {
            assert_eq!(substitute("d/%c", client, None), None, "{client:?}");
        }
        assert_eq!(substitute("d/%u", "c", None), None);
        assert_eq!(substitute("d/%u", "c", Some("#")), None);
    }

    proptest::proptest! {
        #[test]
        fn matching_is_what_consumers_of_streams_do(filter in "[ab+#$/]{1,8}", topic in "[ab$/]{1,8}") {
            if let Ok(checked) = SubjectFilter::topic(&filter) {
                proptest::prop_assert!(is_filter(&filter));
                proptest::prop_assert_eq!(matches(&filter, &topic), checked.matches(&topic));
            } else {
                proptest::prop_assert!(!is_filter(&filter));
            }
        }

        #[test]
        fn filters_meet_in_what_both_take(one in "[ab+#/]{1,8}", other in "[ab+#/]{1,8}", topic in "[ab/]{1,8}") {
            if is_filter(&one) && is_filter(&other) {
                let both = meet(&one, &other);
                proptest::prop_assert!(both.as_deref().is_none_or(is_filter));
                let taken = both.is_some_and(|both| matches(&both, &topic));
                proptest::prop_assert_eq!(taken, matches(&one, &topic) && matches(&other, &topic));
            }
        }

        #[test]
        fn what_is_covered_is_matched(
            wide in "[ab+#/]{1,8}", narrow in "[ab+#/]{1,8}", topic in "[ab/]{1,8}",
        ) {
            if is_filter(&wide) && is_filter(&narrow) && covers(&wide, &narrow) && matches(&narrow, &topic) {
                proptest::prop_assert!(matches(&wide, &topic));
            }
        }
    }
}
