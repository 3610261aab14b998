//! The HTTP binding (CloudEvents HTTP binding 1.0.2): binary, structured and batch mode, in requests and answers.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::check::{missing_spec_version, spec_version};
use super::{Attribute, Event, EventError, json};

/// The media type of one event.
pub const STRUCTURED: &str = "application/cloudevents+json";
/// The media type of a batch.
pub const BATCH: &str = "application/cloudevents-batch+json";

const PREFIX: &str = "ce-";
const SPEC_VERSION: HeaderName = HeaderName::from_static("ce-specversion");
const ID: HeaderName = HeaderName::from_static("ce-id");
const SOURCE: HeaderName = HeaderName::from_static("ce-source");
const TYPE: HeaderName = HeaderName::from_static("ce-type");
const SUBJECT: HeaderName = HeaderName::from_static("ce-subject");
const TIME: HeaderName = HeaderName::from_static("ce-time");
const DATA_SCHEMA: HeaderName = HeaderName::from_static("ce-dataschema");

/// How an event is in an HTTP message (§1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Attributes are header fields, data is the body.
    Binary,
    /// The body is one event in JSON.
    Structured,
    /// The body is a list of events in JSON.
    Batch,
}

/// Which mode a message is in, by its header section (§3); `None` if it is not a CloudEvent.
///
/// A message is in binary mode if it has one of the required attributes: one that lacks another is malformed, rather than
/// something else.
pub fn mode(headers: &HeaderMap) -> Result<Option<Mode>, EventError> {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if is_no_data(content_type) {
        let text = String::from_utf8_lossy(content_type);
        let essence = json::essence(&text);
        return match essence {
            _ if essence.eq_ignore_ascii_case(STRUCTURED) => Ok(Some(Mode::Structured)),
            _ if essence.eq_ignore_ascii_case(BATCH) => Ok(Some(Mode::Batch)),
            _ => Err(EventError::new(format!(
                "{:?} is not read here: send {STRUCTURED} or {BATCH}, or the attributes as header fields",
                essence.chars().take(80).collect::<String>()
            ))),
        };
    }
    let binary = [SPEC_VERSION, ID, SOURCE, TYPE].iter().any(|name| headers.contains_key(name));
    Ok(binary.then_some(Mode::Binary))
}

/// The events of a message, checked; `None` if it is not a CloudEvent. A batch may be empty.
pub fn decode(headers: &HeaderMap, body: Bytes) -> Result<Option<Vec<Event>>, EventError> {
    let mode = mode(headers)?;
    if mode.is_some() {
        check_coding(headers)?;
    }
    match mode {
        None => Ok(None),
        Some(Mode::Binary) => decode_binary(headers, body).map(|event| Some(vec![event])),
        Some(Mode::Structured) => json::decode(&body).map(|event| Some(vec![event])),
        Some(Mode::Batch) => json::decode_batch(&body).map(Some),
    }
}

/// An event has no attribute that says how its data is coded: nobody who gets it could read what is compressed.
fn check_coding(headers: &HeaderMap) -> Result<(), EventError> {
    let coded = |value: &&HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
    let Some(coding) = headers.get_all(CONTENT_ENCODING).iter().find(coded) else { return Ok(()) };
    let coding: String = String::from_utf8_lossy(coding.as_bytes()).chars().take(80).collect();
    Err(EventError::new(format!("an event with the content-encoding {coding:?} is not read here: send it as it is")))
}

/// One event, by itself: sets its header fields in `headers`, and gives the body. Fails for an event that was never checked.
///
/// In binary mode, unless its data says that it is a CloudEvent: then a reader would take the data, which anybody may have
/// written, for the event itself. Such an event goes in structured mode, where its data is inside of it.
pub fn encode(event: &Event, headers: &mut HeaderMap) -> Result<Bytes, EventError> {
    if is_no_data(event.data_content_type.trim_start().as_bytes()) {
        return Ok(encode_structured(event, headers));
    }
    encode_binary(event, headers)
}

/// Whether a message of this content type is in a mode other than binary, by the words that it begins with (§3).
fn is_no_data(content_type: &[u8]) -> bool {
    let prefix = b"application/cloudevents";
    content_type.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
}

/// Binary mode (§3.1).
fn encode_binary(event: &Event, headers: &mut HeaderMap) -> Result<Bytes, EventError> {
    headers.insert(SPEC_VERSION, HeaderValue::from_static("1.0"));
    let texts = [
        (ID, &event.id),
        (SOURCE, &event.source),
        (TYPE, &event.kind),
        (SUBJECT, &event.subject),
        (TIME, &event.time),
        (DATA_SCHEMA, &event.data_schema),
    ];
    for (name, value) in texts {
        if !value.is_empty() {
            headers.insert(name, header_value(value)?);
        }
    }
    if !event.data_content_type.is_empty() {
        let value = HeaderValue::from_str(&event.data_content_type);
        let value = value.map_err(|_| EventError::of("datacontenttype", "it cannot be sent in a header"))?;
        headers.insert(CONTENT_TYPE, value);
    }
    for (name, value) in &event.extensions {
        headers.insert(header_name(name)?, extension_value(value)?);
    }
    Ok(event.data.clone().unwrap_or_default())
}

/// Structured mode (§3.2): the content type and the body.
#[must_use]
pub fn encode_structured(event: &Event, headers: &mut HeaderMap) -> Bytes {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(STRUCTURED));
    json::encode(event).into()
}

/// Batch mode (§3.3): the content type and the body.
#[must_use]
pub fn encode_batch<'a>(events: impl IntoIterator<Item = &'a Event>, headers: &mut HeaderMap) -> Bytes {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(BATCH));
    json::encode_batch(events).into()
}

fn decode_binary(headers: &HeaderMap, body: Bytes) -> Result<Event, EventError> {
    let mut event = Event::default();
    let mut version = false;
    for (name, value) in headers {
        let Some(attribute) = name.as_str().strip_prefix(PREFIX) else { continue };
        let text = decode_value(value.as_bytes()).map_err(|why| EventError::of(attribute.to_owned(), why))?;
        match attribute {
            "specversion" if version => return Err(EventError::of("specversion", "it is there twice")),
            "specversion" => {
                spec_version(&text)?;
                version = true;
            }
            "datacontenttype" => {
                return Err(EventError::of(
                    "datacontenttype",
                    "over HTTP it is the content-type (HTTP binding §3.1.1)",
                ));
            }
            _ => event.set(attribute, Attribute::Text(text.into_owned()))?,
        }
    }
    if !version {
        return Err(missing_spec_version());
    }
    if let Some(value) = headers.get(CONTENT_TYPE) {
        let text = value.to_str().map_err(|_| EventError::of("datacontenttype", "it is not ASCII"))?;
        event.data_content_type = text.trim().to_owned();
    }
    // An empty body of no type is no data; one that has a type is data of no bytes.
    event.data = (!body.is_empty() || !event.data_content_type.is_empty()).then_some(body);
    event.check()?;
    Ok(event)
}

fn header_name(attribute: &str) -> Result<HeaderName, EventError> {
    let mut name = String::with_capacity(PREFIX.len() + attribute.len());
    name.push_str(PREFIX);
    name.push_str(attribute);
    HeaderName::try_from(name).map_err(|_| EventError::of(attribute.to_owned(), "it is not a name of an attribute"))
}

fn extension_value(value: &Attribute) -> Result<HeaderValue, EventError> {
    match value {
        Attribute::Boolean(true) => Ok(HeaderValue::from_static("true")),
        Attribute::Boolean(false) => Ok(HeaderValue::from_static("false")),
        Attribute::Integer(number) => Ok(HeaderValue::from(*number)),
        Attribute::Text(text) => header_value(text),
    }
}

/// §3.1.3.2: percent-encoded are space, `"`, `%`, and what is not printable ASCII.
fn header_value(text: &str) -> Result<HeaderValue, EventError> {
    let plain = |b: &u8| (0x21..=0x7e).contains(b) && !b"\"%".contains(b);
    let value = if text.as_bytes().iter().all(plain) {
        HeaderValue::from_str(text)
    } else {
        let mut out = Vec::with_capacity(text.len() + 32);
        for byte in text.bytes() {
            if plain(&byte) {
                out.push(byte);
            } else {
                let digit = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble)];
                out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
        HeaderValue::from_maybe_shared(Bytes::from(out))
    };
    value.map_err(|_| EventError::new("an attribute cannot be sent in a header"))
}

/// The other way round: quotes of older senders first, then one round of percent-decoding.
fn decode_value(value: &[u8]) -> Result<Cow<'_, str>, &'static str> {
    let unquoted = unquote(value)?;
    if !unquoted.contains(&b'%') {
        return text(unquoted);
    }
    let mut out = Vec::with_capacity(unquoted.len());
    let mut rest = &*unquoted;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let digit = |at: usize| after.get(at).and_then(|b| char::from(*b).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return Err("it has a % that two hexadecimal digits do not follow");
        };
        out.push((high * 16 + low) as u8);
        rest = &after[2..];
    }
    text(Cow::Owned(out))
}

/// RFC 7230 §3.2.6: `"a \"b\""` is `a "b"`.
fn unquote(value: &[u8]) -> Result<Cow<'_, [u8]>, &'static str> {
    let Some(inner) = value.strip_prefix(b"\"") else { return Ok(Cow::Borrowed(value)) };
    let inner = inner.strip_suffix(b"\"").ok_or("it begins with a quote that is not closed")?;
    if !inner.contains(&b'\\') && !inner.contains(&b'"') {
        return Ok(Cow::Borrowed(inner));
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => out.push(*bytes.next().ok_or("it begins with a quote that is not closed")?),
            b'"' => return Err("it has a quote within its quotes"),
            _ => out.push(*byte),
        }
    }
    Ok(Cow::Owned(out))
}

fn text(bytes: Cow<'_, [u8]>) -> Result<Cow<'_, str>, &'static str> {
    let why = "it is not UTF-8";
    match bytes {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| why),
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| why),
    }
}
