//! The JSON event format (CloudEvents JSON format 1.0.2), one event or a batch.
//!
//! Data of a JSON media type is inlined as it is, byte for byte but for the white space around it; text is a JSON string;
//! everything else is `data_base64`. What is decoded is checked.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::check::{missing_spec_version, spec_version};
use super::{Attribute, Event, EventError};
use crate::limits::{EVENT_EXTENSIONS_MAX, EVENTS_PER_PUBLISH_MAX};

/// Members of one event: the attributes that CloudEvents has, `data`, `data_base64`, and extensions.
const MEMBERS_MAX: usize = EVENT_EXTENSIONS_MAX + 10;

/// Appends `event` as one JSON object.
pub fn write(event: &Event, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"specversion\":\"1.0\"");
    for (name, value) in event.texts() {
        if !value.is_empty() {
            member(out, name);
            string(out, value);
        }
    }
    for (name, value) in &event.extensions {
        member(out, name);
        match value {
            Attribute::Boolean(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Attribute::Integer(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Attribute::Text(value) => string(out, value),
        }
    }
    if let Some(data) = &event.data {
        write_data(&event.data_content_type, data, out);
    }
    out.push(b'}');
}

/// One event as JSON.
#[must_use]
pub fn encode(event: &Event) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity(event));
    write(event, &mut out);
    out
}

/// One event as JSON without a line break.
#[must_use]
pub fn encode_line(event: &Event) -> Vec<u8> {
    let mut out = encode(event);
    // Within a JSON string a line break is always escaped: the bytes that are left are white space.
    out.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    out
}

/// A batch as a JSON array.
#[must_use]
pub fn encode_batch<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<u8> {
    let mut out = vec![b'['];
    for event in events {
        if out.len() > 1 {
            out.push(b',');
        }
        out.reserve(capacity(event));
        write(event, &mut out);
    }
    out.push(b']');
    out
}

/// Reads one event. Its data is a part of `text`, where it does not have to be unescaped.
pub fn decode(text: &Bytes) -> Result<Event, EventError> {
    let members: Members<'_> = serde_json::from_slice(text).map_err(|error| not_json(&error))?;
    event(text, members)
}

/// Reads a batch, which may be empty.
pub fn decode_batch(text: &Bytes) -> Result<Vec<Event>, EventError> {
    let Batch(batch) = serde_json::from_slice(text).map_err(|error| not_json(&error))?;
    if batch.len() > EVENTS_PER_PUBLISH_MAX {
        return Err(EventError::new(format!("the batch has more than {EVENTS_PER_PUBLISH_MAX} events")).too_large());
    }
    batch
        .into_iter()
        .enumerate()
        .map(|(index, members)| event(text, members).map_err(|error| error.at(index)))
        .collect()
}

fn capacity(event: &Event) -> usize {
    // Names and quotes are about as long as the attributes; base64 is a third longer.
    160 + usize::try_from(event.size()).unwrap_or(0) * 3 / 2
}

fn member(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn string(out: &mut Vec<u8>, text: &str) {
    // Writing text to memory does not fail.
    let _ = serde_json::to_writer(out, text);
}

/// JSON format §3.1.1. Without a media type nothing is assumed of the data, and nothing may be said that has others assume.
fn write_data(content_type: &str, data: &[u8], out: &mut Vec<u8>) {
    if is_json(content_type)
        && let Ok(value) = serde_json::from_slice::<&RawValue>(data)
    {
        member(out, "data");
        out.extend_from_slice(value.get().as_bytes());
    } else if is_text(content_type)
        && let Ok(text) = std::str::from_utf8(data)
    {
        member(out, "data");
        string(out, text);
    } else {
        member(out, "data_base64");
        out.push(b'"');
        let start = out.len();
        out.resize(start + data.len().div_ceil(3) * 4, 0);
        // The room is exactly what the length needs.
        let _ = STANDARD.encode_slice(data, &mut out[start..]);
        out.push(b'"');
    }
}

/// The media type without parameters and white space.
pub(super) fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

fn ends_with_ignore_case(text: &str, end: &str) -> bool {
    text.len() >= end.len() && text.as_bytes()[text.len() - end.len()..].eq_ignore_ascii_case(end.as_bytes())
}

/// `*/json` or `*/*+json`.
pub(super) fn is_json(content_type: &str) -> bool {
    let essence = essence(content_type);
    ends_with_ignore_case(essence, "/json") || ends_with_ignore_case(essence, "+json")
}

/// What people read, and so should find as text in JSON.
fn is_text(content_type: &str) -> bool {
    let essence = essence(content_type);
    let text = essence.len() >= 5 && essence.as_bytes()[..5].eq_ignore_ascii_case(b"text/");
    text || ends_with_ignore_case(essence, "/xml") || ends_with_ignore_case(essence, "+xml")
}

fn not_json(error: &serde_json::Error) -> EventError {
    EventError::new(format!("not a CloudEvent in JSON: {error}"))
}

fn event(text: &Bytes, members: Members<'_>) -> Result<Event, EventError> {
    let mut event = Event::default();
    let (mut version, mut data, mut base64) = (false, None, None);
    for (name, value) in members.0 {
        let twice = || EventError::of(name.clone().into_owned(), "it is there twice");
        match &*name {
            "data" => data.replace(value).map_or(Ok(()), |_| Err(twice()))?,
            "data_base64" => base64.replace(value).map_or(Ok(()), |_| Err(twice()))?,
            "specversion" if version => return Err(twice()),
            "specversion" => match attribute(&name, value)? {
                Some(Attribute::Text(text)) => {
                    spec_version(&text)?;
                    version = true;
                }
                Some(_) => spec_version("")?,
                None => {}
            },
            _ => {
                if let Some(value) = attribute(&name, value)? {
                    event.set(&name, value)?;
                }
            }
        }
    }
    if !version {
        return Err(missing_spec_version());
    }
    event.data = match (data, base64.filter(|value| value.get() != "null")) {
        (None, None) => None,
        (Some(_), Some(_)) => return Err(EventError::of("data_base64", "there is `data` as well: keep one")),
        (Some(value), None) => Some(inline(text, value, &mut event)?),
        (None, Some(value)) => Some(decode_base64(value)?),
    };
    event.check()?;
    Ok(event)
}

/// JSON format §2.2; `null` is no attribute.
fn attribute(name: &str, value: &RawValue) -> Result<Option<Attribute>, EventError> {
    let raw = value.get();
    let wrong = |why: &'static str| EventError::of(name.to_owned(), why);
    match raw.as_bytes().first() {
        Some(b'"') => unescape(raw).map(|text| Some(Attribute::Text(text.into_owned()))).map_err(wrong),
        Some(b't' | b'f') => Ok(Some(Attribute::Boolean(raw == "true"))),
        Some(b'n') => Ok(None),
        Some(b'-' | b'0'..=b'9') => match raw.parse() {
            Ok(number) => Ok(Some(Attribute::Integer(number))),
            Err(_) => Err(wrong("a number has to be whole and of 32 bits: write others as strings")),
        },
        _ => Err(wrong("it is an object or a list: an attribute is a string, a number or a boolean")),
    }
}

/// The text of a JSON string.
fn unescape(raw: &str) -> Result<Cow<'_, str>, &'static str> {
    let inner = raw.get(1..raw.len() - 1).unwrap_or_default();
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    serde_json::from_str(raw).map(Cow::Owned).map_err(|_| "it has an escape that is not a character")
}

/// JSON format §3.1.2.
fn inline(text: &Bytes, value: &RawValue, event: &mut Event) -> Result<Bytes, EventError> {
    if event.data_content_type.is_empty() {
        // What others read as JSON because nothing is said is said here, since in other modes it is not assumed.
        event.data_content_type = "application/json".into();
    }
    let raw = value.get();
    if is_json(&event.data_content_type) {
        return Ok(text.slice_ref(raw.as_bytes()));
    }
    if !raw.starts_with('"') {
        let why = "it is not a string, and `datacontenttype` does not say that it is JSON";
        return Err(EventError::of("data", why));
    }
    match unescape(raw).map_err(|why| EventError::of("data", why))? {
        Cow::Borrowed(inner) => Ok(text.slice_ref(inner.as_bytes())),
        Cow::Owned(owned) => Ok(owned.into()),
    }
}

fn decode_base64(value: &RawValue) -> Result<Bytes, EventError> {
    let wrong = || EventError::of("data_base64", "it is not a string of base64 (RFC 4648 §4)");
    let encoded = value.get().starts_with('"').then(|| unescape(value.get()).ok()).flatten().ok_or_else(wrong)?;
    STANDARD.decode(encoded.as_bytes()).map(Bytes::from).map_err(|_| wrong())
}

/// The members of one object, as they stand there.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// The objects of an array.
struct Batch<'a>(Vec<Members<'a>>);

#[derive(Deserialize)]
struct Member<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with the attributes of an event")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(12);
                while let Some((Member(name), value)) = map.next_entry()? {
                    if members.len() == MEMBERS_MAX {
                        let why = format!("an event has at most {EVENT_EXTENSIONS_MAX} extension attributes");
                        return Err(serde::de::Error::custom(why));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }

        from.deserialize_map(Object)
    }
}

impl<'de> Deserialize<'de> for Batch<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Array;

        impl<'de> Visitor<'de> for Array {
            type Value = Batch<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of events")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut batch = Vec::new();
                while let Some(members) = list.next_element()? {
                    batch.push(members);
                    if batch.len() > EVENTS_PER_PUBLISH_MAX {
                        // Said by the caller, as too much and not as malformed.
                        while list.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                    }
                }
                Ok(Batch(batch))
            }
        }

        from.deserialize_seq(Array)
    }
}
