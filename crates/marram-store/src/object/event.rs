//! What happens to an object as an event, for the streams that ask for it (docs/adr/0013).

use std::fmt::Write as _;

use marram_core::Name;
use marram_core::event::{Attribute, Event};
use marram_core::port::blobs::{Object, Version};
use marram_core::time::Timestamp;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// There is a new content under the name.
    Created,
    /// There is none any more.
    Deleted,
}

/// What filters of captures and consumers see.
pub(super) fn subject(bucket: &Name, name: &str) -> String {
    format!("{bucket}/{name}")
}

/// The event of one change. Its id follows from the version of the change, which no other has. The content is not in it:
/// who wants that reads the object.
pub(super) fn event(bucket: &Name, subject: String, what: What, object: &Object, version: Version, now: u64) -> Event {
    let version = format!("{:016x}", version.0);
    let kind = match what {
        What::Created => "marram.object.created",
        What::Deleted => "marram.object.deleted",
    };
    Event {
        id: version.clone(),
        source: format!("/objects/{bucket}"),
        kind: kind.into(),
        subject,
        time: Timestamp(now).to_string(),
        data_content_type: "application/json".into(),
        data_schema: String::new(),
        extensions: [("marramversion".to_owned(), Attribute::Text(version))].into(),
        data: Some(data(bucket, object).into()),
    }
}

fn data(bucket: &Name, object: &Object) -> String {
    let mut json = format!("{{\"bucket\":\"{bucket}\",\"name\":");
    quote(&mut json, &object.name);
    let _ = write!(json, ",\"size\":{},\"etag\":", object.size);
    quote(&mut json, &object.etag);
    if let Some(content_type) = &object.attributes.content_type {
        json.push_str(",\"content_type\":");
        quote(&mut json, content_type);
    }
    json.push('}');
    json
}

/// A JSON string (RFC 8259 §7).
fn quote(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c.is_control() => _ = write!(json, "\\u{:04x}", u32::from(c)),
            c => json.push(c),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_json_whatever_the_name_is() {
        let object = Object {
            name: "a\"b\\c/ä".into(),
            size: 7,
            digest: None,
            etag: "e-2".into(),
            attributes: marram_core::port::blobs::Attributes {
                content_type: Some("te\u{1}xt".into()),
                ..Default::default()
            },
            checksum: None,
            modified_unix_ns: 0,
            version: Version(1),
        };
        assert_eq!(
            data(&Name::new("b").unwrap(), &object),
            r#"{"bucket":"b","name":"a\"b\\c/ä","size":7,"etag":"e-2","content_type":"te\u0001xt"}"#
        );
    }
}
