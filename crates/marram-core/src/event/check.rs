//! What makes an event valid (CloudEvents 1.0.2 §3), and how it is said what does not.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

use super::{Attribute, Event};
use crate::limits::{EVENT_ATTRIBUTE_BYTES_MAX, EVENT_DATA_BYTES_MAX, EVENT_EXTENSIONS_MAX};
use crate::{Failure, Kind};

/// The longest name of an attribute: what CloudEvents 1.0.2 §3.1 says that names should not exceed.
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 20;

/// Attributes that every event has.
const REQUIRED: [&str; 3] = ["id", "source", "type"];

/// Why something is not an event: which event of a batch, which attribute of it, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventError {
    index: Option<usize>,
    attribute: Option<Cow<'static, str>>,
    why: Cow<'static, str>,
    kind: Kind,
}

impl EventError {
    /// An error about the message as a whole.
    pub(super) fn new(why: impl Into<Cow<'static, str>>) -> Self {
        Self { index: None, attribute: None, why: why.into(), kind: Kind::BadRequest }
    }

    /// An error about an attribute, or about `data`.
    pub(super) fn of(attribute: impl Into<Cow<'static, str>>, why: impl Into<Cow<'static, str>>) -> Self {
        let mut attribute = attribute.into();
        if attribute.len() > 40 {
            attribute = attribute.chars().take(40).collect::<String>().into();
        }
        Self { attribute: Some(attribute), ..Self::new(why) }
    }

    pub(super) fn too_large(self) -> Self {
        Self { kind: Kind::BodyTooLarge, ..self }
    }

    /// The same, of the event at `index` of a batch.
    pub(super) fn at(self, index: usize) -> Self {
        Self { index: Some(index), ..self }
    }

    /// Which event of a batch, from 0.
    #[must_use]
    pub const fn index(&self) -> Option<usize> {
        self.index
    }

    /// Which attribute, or `data`.
    #[must_use]
    pub fn attribute(&self) -> Option<&str> {
        self.attribute.as_deref()
    }
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.index {
            write!(f, "event {index} of the batch: ")?;
        }
        if let Some(attribute) = &self.attribute {
            write!(f, "`{attribute}`: ")?;
        }
        f.write_str(&self.why)
    }
}

impl std::error::Error for EventError {}

impl From<EventError> for Failure {
    fn from(error: EventError) -> Self {
        Self::new(error.kind, error.to_string())
    }
}

impl Event {
    /// Whether every attribute is valid and within its limit.
    pub fn check(&self) -> Result<(), EventError> {
        for (name, value) in self.texts() {
            // One that need not be there is not there when it is empty.
            if !value.is_empty() || REQUIRED.contains(&name) {
                check_attribute(name, value)?;
            }
        }
        if self.extensions.len() > EVENT_EXTENSIONS_MAX {
            let why =
                format!("it has {} extension attributes, more than {EVENT_EXTENSIONS_MAX}", self.extensions.len());
            return Err(EventError::new(why).too_large());
        }
        for (name, value) in &self.extensions {
            extension_name(name)?;
            if let Attribute::Text(value) = value {
                text(name, value)?;
            }
        }
        data(self.data.as_ref())
    }

    /// Sets an attribute as it came in. `specversion` is not one of them: whoever decodes has looked at it.
    pub(super) fn set(&mut self, name: &str, value: Attribute) -> Result<(), EventError> {
        let field = match name {
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.kind,
            "subject" => &mut self.subject,
            "time" => &mut self.time,
            "datacontenttype" => &mut self.data_content_type,
            "dataschema" => &mut self.data_schema,
            _ => {
                // Counted here, so that no more of them are taken in than an event may have.
                if self.extensions.len() >= EVENT_EXTENSIONS_MAX {
                    let why = format!("it has more than {EVENT_EXTENSIONS_MAX} extension attributes");
                    return Err(EventError::new(why).too_large());
                }
                return match self.extensions.insert(name.to_owned(), value) {
                    None => Ok(()),
                    Some(_) => Err(EventError::of(name.to_owned(), "it is there twice")),
                };
            }
        };
        match value {
            Attribute::Text(value) if value.is_empty() && REQUIRED.contains(&name) => Err(empty(name)),
            Attribute::Text(value) if value.is_empty() => {
                Err(EventError::of(name.to_owned(), "it may not be empty: leave it out if there is none"))
            }
            Attribute::Text(_) if !field.is_empty() => Err(EventError::of(name.to_owned(), "it is there twice")),
            Attribute::Text(value) => {
                *field = value;
                Ok(())
            }
            Attribute::Boolean(_) | Attribute::Integer(_) => {
                Err(EventError::of(name.to_owned(), "it has to be a string"))
            }
        }
    }
}

/// Whether an event may have an attribute `name` whose text is `value`: what [`Event::check`] asks of each of them, for whoever
/// makes an event of something that others have written.
pub fn check_attribute(name: &str, value: &str) -> Result<(), EventError> {
    match name {
        _ if value.is_empty() && REQUIRED.contains(&name) => return Err(empty(name)),
        "id" | "type" | "subject" => {}
        "source" | "dataschema" => return uri(name, value),
        "time" if !is_rfc3339(value.as_bytes()) => {
            return Err(EventError::of("time", "it is not an RFC 3339 time, such as 2026-11-25T03:29:51.5Z"));
        }
        "datacontenttype" if !is_media_type(value.as_bytes()) => {
            text(name, value)?;
            return Err(EventError::of("datacontenttype", "it is not a media type, such as application/json"));
        }
        "time" | "datacontenttype" => {}
        _ => extension_name(name)?,
    }
    text(name, value)
}

/// Whether a String (§3.1) may have this character: neither control characters nor noncharacters.
#[must_use]
pub fn is_attribute_char(letter: char) -> bool {
    let code = u32::from(letter);
    let noncharacter = (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe;
    !letter.is_control() && !noncharacter
}

/// Only 1.0 is spoken.
pub(super) fn spec_version(version: &str) -> Result<(), EventError> {
    match version {
        "1.0" => Ok(()),
        _ => Err(EventError::of("specversion", "it is not \"1.0\", which is the only version that is read here")),
    }
}

pub(super) fn missing_spec_version() -> EventError {
    EventError::of("specversion", "it is required: write \"1.0\"")
}

fn empty(name: &str) -> EventError {
    EventError::of(name.to_owned(), "it is required and may not be empty")
}

fn data(data: Option<&Bytes>) -> Result<(), EventError> {
    match data {
        Some(data) if data.len() > EVENT_DATA_BYTES_MAX => {
            let why = format!("it has {} bytes, more than {EVENT_DATA_BYTES_MAX}", data.len());
            Err(EventError::of("data", why).too_large())
        }
        _ => Ok(()),
    }
}

fn extension_name(name: &str) -> Result<(), EventError> {
    let reserved = matches!(
        name,
        "id" | "source" | "type" | "specversion" | "subject" | "time" | "datacontenttype" | "dataschema" | "data"
    );
    let fits = (1..=ATTRIBUTE_NAME_BYTES_MAX).contains(&name.len());
    if !fits || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        let why = "it is not a name of an attribute: 1 to 20 lower-case letters and digits";
        return Err(EventError::of(name.to_owned(), why));
    }
    if reserved { Err(EventError::of(name.to_owned(), "an extension may not be called so")) } else { Ok(()) }
}

/// A String (§3.1).
fn text(name: &str, value: &str) -> Result<(), EventError> {
    let wrong = |why: String| EventError::of(name.to_owned(), why);
    if value.len() > EVENT_ATTRIBUTE_BYTES_MAX {
        let why = format!("it has {} bytes, more than {EVENT_ATTRIBUTE_BYTES_MAX}", value.len());
        return Err(wrong(why).too_large());
    }
    if value.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Ok(());
    }
    match value.chars().find(|c| !is_attribute_char(*c)) {
        Some(c) => Err(wrong(format!("it contains U+{:04X}, which no attribute may", u32::from(c)))),
        None => Ok(()),
    }
}

/// A URI-reference (§3.1). Letters beyond ASCII are taken as well, as RFC 3987 has them; what delimits URIs in text is not.
fn uri(name: &str, value: &str) -> Result<(), EventError> {
    text(name, value)?;
    match value.bytes().find(|b| b" \"<>\\^`{|}".contains(b)) {
        Some(b) => {
            let why = format!("it contains {:?}, which a URI does not: percent-encode it", char::from(b));
            Err(EventError::of(name.to_owned(), why))
        }
        None => Ok(()),
    }
}

/// RFC 3339 §5.6: `date-time`.
pub(super) fn is_rfc3339(text: &[u8]) -> bool {
    let number = |from: usize, to: usize| {
        text.get(from..to)?.iter().try_fold(0u32, |n, b| b.is_ascii_digit().then(|| n * 10 + u32::from(b - b'0')))
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b't'), (13, b':'), (16, b':')];
    if marks.iter().any(|(at, mark)| text.get(*at).map(u8::to_ascii_lowercase) != Some(*mark)) {
        return false;
    }
    let parts = (number(0, 4), number(5, 7), number(8, 10), number(11, 13), number(14, 16), number(17, 19));
    let (Some(year), Some(month), Some(day), Some(hour), Some(minute), Some(second)) = parts else { return false };
    let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return false,
    };
    // 60 is a leap second.
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return false;
    }
    let mut at = 19;
    if text.get(at) == Some(&b'.') {
        let digits = text[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return false;
        }
        at += 1 + digits;
    }
    match text.get(at) {
        Some(b'Z' | b'z') => at + 1 == text.len(),
        Some(b'+' | b'-') => {
            let offset = (number(at + 1, at + 3), text.get(at + 3), number(at + 4, at + 6));
            matches!(offset, (Some(0..=23), Some(b':'), Some(0..=59))) && at + 6 == text.len()
        }
        _ => false,
    }
}

/// RFC 2046: `type/subtype`, then parameters, which are not looked into.
pub(super) fn is_media_type(text: &[u8]) -> bool {
    let token = |part: &[u8]| {
        !part.is_empty() && part.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
    };
    if !text.iter().all(|b| (0x20..0x7f).contains(b)) {
        return false;
    }
    let essence = text.split(|b| *b == b';').next().unwrap_or_default().trim_ascii_end();
    let mut parts = essence.splitn(2, |b| *b == b'/');
    parts.next().is_some_and(token) && parts.next().is_some_and(token)
}
