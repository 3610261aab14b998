//! Changes of keys as events: how the store names them, and what a component that watches keys is told of one.

use bytes::Bytes;

use super::Event;
use crate::Name;
use crate::port::kv::KeyEvent;

/// What the type of such an event begins with; [`KeyEvent::as_str`] follows.
pub const KEY_EVENT_PREFIX: &str = "marram.key.";

/// A change of a key, read from its event.
///
/// A `key` trigger puts it on the request that it makes of the event, as an extension of the [`http::Request`], for functions
/// that export `wasi:keyvalue/watcher`. Nothing that comes over a network has extensions, so nobody can claim a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedKey {
    /// The bucket.
    pub bucket: Name,
    /// The key.
    pub key: String,
    /// What it holds now: no bytes for a set or a map, which can be read. `None` where nothing is left.
    pub value: Option<Bytes>,
}

impl ChangedKey {
    /// The change that `event` tells of; `None` if it tells of something else.
    #[must_use]
    pub fn of(event: &Event) -> Option<Self> {
        let what = event.kind.strip_prefix(KEY_EVENT_PREFIX)?;
        let kinds = [KeyEvent::Created, KeyEvent::Updated, KeyEvent::Deleted, KeyEvent::Expired];
        let kind = kinds.into_iter().find(|kind| kind.as_str() == what)?;
        let (bucket, key) = event.subject.split_once('/').filter(|(_, key)| !key.is_empty())?;
        let left = matches!(kind, KeyEvent::Created | KeyEvent::Updated);
        Some(Self {
            bucket: Name::new(bucket).ok()?,
            key: key.to_owned(),
            value: left.then(|| event.data.clone().unwrap_or_default()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: &str, subject: &str, data: Option<&'static str>) -> Option<(String, String, Option<Bytes>)> {
        let data = data.map(|data| Bytes::from_static(data.as_bytes()));
        let event = Event { kind: kind.into(), subject: subject.into(), data, ..Event::default() };
        ChangedKey::of(&event).map(|change| (change.bucket.to_string(), change.key, change.value))
    }

    #[test]
    fn a_change_is_read_from_its_event_and_nothing_else_is_one() {
        let change = |value: Option<&'static str>| {
            let value = value.map(|value| Bytes::from_static(value.as_bytes()));
            Some(("state".to_owned(), "a/b".to_owned(), value))
        };
        assert_eq!(told("marram.key.created", "state/a/b", Some("1")), change(Some("1")));
        assert_eq!(told("marram.key.updated", "state/a/b", None), change(Some("")));
        assert_eq!(told("marram.key.deleted", "state/a/b", None), change(None));
        assert_eq!(told("marram.key.expired", "state/a/b", Some("ignored")), change(None));
        for (kind, subject) in [
            ("marram.key.renamed", "state/a"),
            ("marram.object.created", "state/a"),
            ("created", "state/a"),
            ("marram.key.created", "state"),
            ("marram.key.created", "state/"),
            ("marram.key.created", "No Name/a"),
        ] {
            assert_eq!(told(kind, subject, None), None, "{kind} {subject}");
        }
    }
}
