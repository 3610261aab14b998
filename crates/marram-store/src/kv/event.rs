//! A change of a key as an event, for the streams that ask for it (docs/adr/0013).

use bytes::Bytes;
use marram_core::Name;
use marram_core::event::{Attribute, Event, KEY_EVENT_PREFIX};
use marram_core::port::kv::KeyEvent;
use marram_core::time::Timestamp;
use marram_replica::Stamp;

/// What filters of captures and consumers see.
pub(super) fn subject(bucket: &Name, key: &str) -> String {
    format!("{bucket}/{key}")
}

/// The event of one change. Its id follows from the version, which no other change has; an entry that expires was already
/// the subject of the event of its write, so that id gets a mark.
pub(super) fn event(
    bucket: &Name,
    subject: String,
    what: KeyEvent,
    version: Stamp,
    value: Option<Bytes>,
    now_unix_ns: u64,
) -> Event {
    let version = format!("{:032x}", u128::from_be_bytes(version.to_bytes()));
    let id = if what == KeyEvent::Expired { format!("{version}-expired") } else { version.clone() };
    let media_type = if value.is_some() { "application/octet-stream" } else { "" };
    Event {
        id,
        source: format!("/kv/{bucket}"),
        kind: format!("{KEY_EVENT_PREFIX}{}", what.as_str()),
        subject,
        time: Timestamp(now_unix_ns).to_string(),
        data_content_type: media_type.into(),
        data_schema: String::new(),
        extensions: [("marramversion".to_owned(), Attribute::Text(version))].into(),
        data: value,
    }
}
