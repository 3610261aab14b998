//! Events as the disk has them: one byte of version, the attributes in postcard, then the data as it is.
//!
//! The subject comes first, so that a filter looks at it without decoding the rest.

use std::sync::Arc;

use bytes::Bytes;
use marram_core::event::{Attribute, Event};
use marram_core::limits::{EVENT_ATTRIBUTE_BYTES_MAX, EVENT_DATA_BYTES_MAX, EVENT_EXTENSIONS_MAX};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::StoreError;

/// The only version so far.
const VERSION: u8 = 1;

/// An event that is ready to be stored: encoded before it queues for the writer. Cloning is a reference count.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    pub(super) event: Arc<Event>,
    pub(super) bytes: Bytes,
    /// [`Event::size`].
    pub(super) size: u64,
    /// A hash of source and id.
    pub(super) identity: i64,
}

impl Encoded {
    /// Checks the event's limits and encodes it.
    pub(crate) fn new(event: Event) -> Result<Self, StoreError> {
        check(&event)?;
        Ok(Self::unchecked(event))
    }

    /// What it happened to: captures go by it.
    pub(crate) fn subject(&self) -> &str {
        &self.event.subject
    }

    /// The same for an event that the node made of one that was checked.
    pub(super) fn unchecked(event: Event) -> Self {
        Self { bytes: encode(&event).into(), size: event.size(), identity: identity(&event), event: Arc::new(event) }
    }
}

#[derive(Serialize, Deserialize)]
struct Head<'a> {
    subject: &'a str,
    id: &'a str,
    source: &'a str,
    kind: &'a str,
    time: &'a str,
    data_content_type: &'a str,
    data_schema: &'a str,
    #[serde(borrow)]
    extensions: Vec<(&'a str, Value<'a>)>,
    has_data: bool,
}

#[derive(Serialize, Deserialize)]
enum Value<'a> {
    Boolean(bool),
    Integer(i32),
    Text(&'a str),
}

impl<'a> From<&'a Attribute> for Value<'a> {
    fn from(value: &'a Attribute) -> Self {
        match value {
            Attribute::Boolean(value) => Self::Boolean(*value),
            Attribute::Integer(value) => Self::Integer(*value),
            Attribute::Text(text) => Self::Text(text),
        }
    }
}

impl From<Value<'_>> for Attribute {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Boolean(value) => Self::Boolean(value),
            Value::Integer(value) => Self::Integer(value),
            Value::Text(text) => Self::Text(text.into()),
        }
    }
}

fn encode(event: &Event) -> Vec<u8> {
    let head = Head {
        subject: &event.subject,
        id: &event.id,
        source: &event.source,
        kind: &event.kind,
        time: &event.time,
        data_content_type: &event.data_content_type,
        data_schema: &event.data_schema,
        extensions: event.extensions.iter().map(|(name, value)| (name.as_str(), value.into())).collect(),
        has_data: event.data.is_some(),
    };
    let mut bytes = Vec::with_capacity(usize::try_from(event.size()).unwrap_or(0) + 32);
    bytes.push(VERSION);
    let mut bytes = postcard::to_extend(&head, bytes).expect("a vector grows, and none of this has an unknown length");
    bytes.extend_from_slice(event.data.as_deref().unwrap_or_default());
    bytes
}

/// The event of a row.
pub(super) fn decode(bytes: &[u8]) -> Result<Event, StoreError> {
    let (head, data): (Head<'_>, _) = postcard::take_from_bytes(body(bytes)?).map_err(damaged)?;
    Ok(Event {
        id: head.id.into(),
        source: head.source.into(),
        kind: head.kind.into(),
        subject: head.subject.into(),
        time: head.time.into(),
        data_content_type: head.data_content_type.into(),
        data_schema: head.data_schema.into(),
        extensions: head.extensions.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        data: head.has_data.then(|| Bytes::copy_from_slice(data)),
    })
}

/// The subject of a row's event, without the rest.
pub(super) fn subject(bytes: &[u8]) -> Result<&str, StoreError> {
    Ok(postcard::take_from_bytes(body(bytes)?).map_err(damaged)?.0)
}

/// Whether the row's event is `event`, by source and id.
pub(super) fn is_same(bytes: &[u8], event: &Event) -> Result<bool, StoreError> {
    let ((_, id, source), _): ((&str, &str, &str), _) = postcard::take_from_bytes(body(bytes)?).map_err(damaged)?;
    Ok(id == event.id && source == event.source)
}

fn body(bytes: &[u8]) -> Result<&[u8], StoreError> {
    match bytes {
        [VERSION, body @ ..] => Ok(body),
        [version, ..] => Err(StoreError::Damaged(format!("an event has the unknown version {version}"))),
        [] => Err(StoreError::Damaged("an event is empty".into())),
    }
}

fn damaged(error: postcard::Error) -> StoreError {
    StoreError::Damaged(format!("an event cannot be decoded: {error}"))
}

/// 64 bits of a digest: a hit is compared with the event itself wherever that is still there.
fn identity(event: &Event) -> i64 {
    let mut hash = Sha256::new();
    hash.update((event.source.len() as u64).to_le_bytes());
    hash.update(event.source.as_bytes());
    hash.update(event.id.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.finalize()[..8]);
    i64::from_le_bytes(first)
}

fn check(event: &Event) -> Result<(), StoreError> {
    let data = event.data.as_ref().map_or(0, Bytes::len);
    if data > EVENT_DATA_BYTES_MAX {
        return Err(StoreError::EventTooLarge(data));
    }
    let invalid = |why: String| Err(StoreError::Invalid(format!("event {:?}: {why}", shown(&event.id))));
    if event.id.is_empty() || event.source.is_empty() || event.kind.is_empty() {
        return invalid("id, source and type may not be empty (CloudEvents 1.0.2 §3.1)".into());
    }
    if event.extensions.len() > EVENT_EXTENSIONS_MAX {
        return invalid(format!(
            "it has {} extension attributes, more than {EVENT_EXTENSIONS_MAX}",
            event.extensions.len()
        ));
    }
    let extensions = event.extensions.iter().filter_map(|(name, value)| match value {
        Attribute::Text(text) => Some((name.as_str(), text)),
        _ => None,
    });
    for (name, text) in event.texts().into_iter().chain(extensions) {
        if text.len() > EVENT_ATTRIBUTE_BYTES_MAX || name.len() > EVENT_ATTRIBUTE_BYTES_MAX {
            return invalid(format!("attribute \"{}\" is longer than {EVENT_ATTRIBUTE_BYTES_MAX} bytes", shown(name)));
        }
    }
    Ok(())
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            id: "42".into(),
            source: "/plant/7".into(),
            kind: "reading".into(),
            subject: "plant/7/vibration".into(),
            time: "2026-11-25T03:00:12Z".into(),
            data_content_type: "application/json".into(),
            data_schema: String::new(),
            extensions: [
                ("retained".to_owned(), Attribute::Boolean(true)),
                ("qos".to_owned(), Attribute::Integer(-1)),
                ("traceparent".to_owned(), Attribute::Text("00-a-b-01".into())),
            ]
            .into(),
            data: Some(Bytes::from_static(b"{}")),
        }
    }

    #[test]
    fn an_event_comes_back_as_it_was() {
        for data in [None, Some(Bytes::new()), Some(Bytes::from(vec![0xff; 10_000]))] {
            let event = Event { data, ..event() };
            let encoded = Encoded::new(event.clone()).unwrap();
            assert_eq!(decode(&encoded.bytes).unwrap(), event);
            assert_eq!(subject(&encoded.bytes).unwrap(), event.subject);
            assert!(is_same(&encoded.bytes, &event).unwrap());
            assert!(!is_same(&encoded.bytes, &Event { id: "43".into(), ..event }).unwrap());
        }
    }

    /// What version 1 wrote must be read by every later one.
    #[test]
    fn the_encoding_does_not_change() {
        let event = Event { id: "i".into(), source: "s".into(), kind: "k".into(), subject: "a/b".into(), ..event() };
        let bytes = Encoded::new(event).unwrap().bytes;
        let text: String = bytes.iter().flat_map(|byte| byte.escape_ascii()).map(char::from).collect();
        assert_eq!(
            text,
            "\\x01\\x03a/b\\x01i\\x01s\\x01k\\x142026-11-25T03:00:12Z\\x10application/json\\x00\\x03\\x03qos\\x01\\x01\\x08retained\\x00\\x01\\x0btraceparent\\x02\\t00-a-b-01\\x01{}"
        );
    }

    #[test]
    fn identity_is_of_source_and_id_and_does_not_run_them_together() {
        let of = |source: &str, id: &str| identity(&Event { source: source.into(), id: id.into(), ..Event::default() });
        assert_eq!(of("a", "b"), of("a", "b"));
        assert_ne!(of("ab", ""), of("a", "b"));
    }

    #[test]
    fn what_is_too_large_or_lacks_what_it_must_have_is_refused() {
        let refused = |event: Event| Encoded::new(event).unwrap_err();
        let large = Bytes::from(vec![0; EVENT_DATA_BYTES_MAX + 1]);
        assert!(matches!(refused(Event { data: Some(large), ..event() }), StoreError::EventTooLarge(_)));
        for bad in [
            Event { id: String::new(), ..event() },
            Event { source: String::new(), ..event() },
            Event { kind: String::new(), ..event() },
            Event { subject: "x".repeat(EVENT_ATTRIBUTE_BYTES_MAX + 1), ..event() },
            Event { extensions: [("a".into(), Attribute::Text("x".repeat(5_000)))].into(), ..event() },
            Event { extensions: (0..65).map(|n| (format!("x{n}"), Attribute::Integer(n))).collect(), ..event() },
        ] {
            assert!(matches!(refused(bad), StoreError::Invalid(_)));
        }
    }

    #[test]
    fn a_damaged_row_is_an_error() {
        let bytes = Encoded::new(event()).unwrap().bytes;
        for bad in [&[][..], &[9, 1, 2], &bytes[..5]] {
            assert!(matches!(decode(bad), Err(StoreError::Damaged(_))));
        }
    }
}
