//! Events: CloudEvents 1.0, as everything that is not a web request reaches a function.

mod check;
mod filter;
pub mod http;
pub mod json;
mod key;
#[cfg(test)]
mod tests;
mod trace;

use std::collections::BTreeMap;

use bytes::Bytes;

pub use check::{ATTRIBUTE_NAME_BYTES_MAX, EventError, check_attribute, is_attribute_char};
pub use filter::{FILTER_BYTES_MAX, FILTER_LEVELS_MAX, FilterError, SubjectFilter};
pub use key::{ChangedKey, KEY_EVENT_PREFIX};

/// One event (CloudEvents 1.0.2 §3). Attributes are checked where an event comes in and are valid from then on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Unique together with `source`; two events with the same pair are the same event (§3.1.1).
    pub id: String,
    /// A URI-reference: where it happened (§3.1.2).
    pub source: String,
    /// `type`: what happened (§3.1.4).
    pub kind: String,
    /// What it happened to, within the source; order and filters go by it (§3.2.3). Empty when there is none.
    pub subject: String,
    /// When it happened, as an RFC 3339 timestamp (§3.2.4). Empty when nobody said.
    pub time: String,
    /// Media type of `data` (§3.2.1). Empty when nobody said: then it is JSON for the JSON format, and unknown otherwise.
    pub data_content_type: String,
    /// A URI of what `data` adheres to (§3.2.2). Empty when there is none.
    pub data_schema: String,
    /// Extension attributes (§3.3), `traceparent` and `tracestate` among them: `[a-z0-9]{1,20}`, at most
    /// [`crate::limits::EVENT_EXTENSIONS_MAX`].
    pub extensions: BTreeMap<String, Attribute>,
    /// The payload. `None` differs from an empty one.
    pub data: Option<Bytes>,
}

/// The value of an extension attribute (CloudEvents 1.0.2 §3.1). URIs, timestamps and binary are kept in their canonical
/// text, so that they come out as they came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number of 32 bits.
    Integer(i32),
    /// Anything else.
    Text(String),
}

impl Event {
    /// The attributes that CloudEvents itself has, by their names there, without `specversion`. An empty one
    /// is not there.
    #[must_use]
    pub const fn texts(&self) -> [(&'static str, &String); 7] {
        [
            ("id", &self.id),
            ("source", &self.source),
            ("type", &self.kind),
            ("subject", &self.subject),
            ("time", &self.time),
            ("datacontenttype", &self.data_content_type),
            ("dataschema", &self.data_schema),
        ]
    }

    /// How many bytes this event counts for in the limits of a stream: its data, its attributes, and a few for the rest.
    #[must_use]
    pub fn size(&self) -> u64 {
        let extensions = self.extensions.iter().map(|(name, value)| {
            name.len()
                + match value {
                    Attribute::Boolean(_) => 1,
                    Attribute::Integer(_) => 4,
                    Attribute::Text(text) => text.len(),
                }
        });
        let bytes = self.texts().map(|(_, text)| text.len()).into_iter().chain(extensions).sum::<usize>()
            + self.data.as_ref().map_or(0, Bytes::len);
        bytes as u64 + 16
    }
}
