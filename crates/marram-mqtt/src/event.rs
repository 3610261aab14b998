//! What a message is as an event, for streams that capture its topic (docs/adr/0013).
//!
//! | Event | From |
//! |---|---|
//! | `id` | unique; the user property `id` of a message that says `specversion` `1.0` (CloudEvents MQTT binding §3.1), so that a device that sends it twice is heard once |
//! | `source` | `/mqtt/<client id>`, percent-encoded; nobody can say it for another |
//! | `type` | `marram.mqtt.message`, or the user property `type` of a CloudEvent |
//! | `subject` | the topic |
//! | `time` | when it came in, or the user property `time` of a CloudEvent |
//! | `datacontenttype` | the content type |
//! | `mqttqos`, `mqttretain` | QoS, and whether it was published to be retained |
//! | `mqttresponsetopic`, `mqttcorrelationdata` | response topic, and correlation data in base64 |
//! | `traceparent`, `tracestate`, … | every user property whose name an extension may have (`[a-z0-9]{1,20}`); of one that is there twice, the first |
//! | `mqttproperties` | the other user properties, as a JSON array of `[name, value]`; left out past 4 KiB |

use std::collections::BTreeMap;
use std::fmt::Write as _;

use marram_core::Event;
use marram_core::event::Attribute;
use marram_core::limits::{EVENT_ATTRIBUTE_BYTES_MAX, EVENT_EXTENSIONS_MAX};
use marram_core::port::mqtt::{Message, Properties};

/// The type of an event that is a message.
pub const MESSAGE_TYPE: &str = "marram.mqtt.message";

/// Names that are attributes of every event, and so no extensions (CloudEvents 1.0.2 §3.1).
const RESERVED: &[&str] =
    &["id", "source", "type", "specversion", "subject", "time", "datacontenttype", "dataschema", "data", "data_base64"];

/// `id` is what the event is called if the message does not say so itself.
pub(crate) fn event(message: &Message, id: String) -> Event {
    let mut event = Event {
        id,
        source: source(&message.publisher),
        kind: MESSAGE_TYPE.into(),
        subject: String::from(&*message.topic),
        time: rfc3339(message.published_unix_ns),
        data: Some(message.payload.clone()),
        ..Event::default()
    };
    event.extensions.insert("mqttqos".into(), Attribute::Integer(i32::from(message.qos.level())));
    if message.retain {
        event.extensions.insert("mqttretain".into(), Attribute::Boolean(true));
    }
    if let Some(properties) = &message.properties {
        describe(properties, &mut event);
    }
    event
}

/// The source of everything that a client publishes.
pub(crate) fn source(client: &str) -> String {
    let mut source = String::with_capacity(6 + client.len());
    source.push_str("/mqtt/");
    for byte in client.bytes() {
        // RFC 3986 §2.3: what a path segment may have as it is.
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            source.push(char::from(byte));
        } else {
            let _ = write!(source, "%{byte:02X}");
        }
    }
    source
}

fn describe(properties: &Properties, event: &mut Event) {
    let short = |text: &str| text.len() <= EVENT_ATTRIBUTE_BYTES_MAX;
    if let Some(content_type) = properties.content_type.as_deref().filter(|text| short(text)) {
        event.data_content_type = content_type.into();
    }
    let put = |extensions: &mut BTreeMap<String, Attribute>, name: &str, value: String| {
        if short(&value) && extensions.len() < EVENT_EXTENSIONS_MAX && !extensions.contains_key(name) {
            extensions.insert(name.into(), Attribute::Text(value));
        }
    };
    if let Some(topic) = &properties.response_topic {
        put(&mut event.extensions, "mqttresponsetopic", topic.clone());
    }
    if let Some(data) = &properties.correlation {
        put(&mut event.extensions, "mqttcorrelationdata", base64(data));
    }
    let is_cloud_event = properties.user.iter().any(|(name, value)| name == "specversion" && value == "1.0");
    let mut others = Vec::new();
    for (name, value) in &properties.user {
        let attribute = match name.as_str() {
            "id" => Some(&mut event.id),
            "type" => Some(&mut event.kind),
            "time" => Some(&mut event.time),
            _ => None,
        };
        match attribute {
            Some(attribute) if is_cloud_event && !value.is_empty() && short(value) => attribute.clone_from(value),
            None if is_extension(name) => put(&mut event.extensions, name, value.clone()),
            _ => others.push((name, value)),
        }
    }
    others.retain(|(name, _)| !(is_cloud_event && RESERVED.contains(&name.as_str())));
    if !others.is_empty() {
        put(&mut event.extensions, "mqttproperties", json(&others));
    }
}

/// CloudEvents 1.0.2 §3.1: lower-case letters and digits; those that begin with `mqtt` are said here.
fn is_extension(name: &str) -> bool {
    (1..=20).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        && !RESERVED.contains(&name)
        && !name.starts_with("mqtt")
}

fn json(pairs: &[(&String, &String)]) -> String {
    let mut text = String::from("[");
    for (at, (name, value)) in pairs.iter().enumerate() {
        text.push_str(if at == 0 { "[" } else { ",[" });
        quote(name, &mut text);
        text.push(',');
        quote(value, &mut text);
        text.push(']');
    }
    text.push(']');
    text
}

/// RFC 8259 §7.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            letter if letter < ' ' => {
                let _ = write!(out, "\\u{:04x}", letter as u32);
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
}

/// RFC 4648 §4.
fn base64(data: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(data.len().div_ceil(3) * 4);
    for chunk in data.chunks(3) {
        let bits = chunk.iter().enumerate().fold(0_u32, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
        for at in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if at > chunk.len() { '=' } else { char::from(letter) });
        }
    }
    text
}

/// RFC 3339 §5.6, in UTC with milliseconds. Days are counted as in Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn rfc3339(unix_ns: u64) -> String {
    let (seconds, ms) = (unix_ns / 1_000_000_000, unix_ns / 1_000_000 % 1_000);
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use marram_core::port::mqtt::Qos;

    use super::*;

    fn message(properties: Option<Properties>) -> Message {
        Message {
            topic: "plant/7/vibration".into(),
            payload: Bytes::from_static(b"1.5"),
            qos: Qos::AtLeastOnce,
            retain: false,
            publisher: "pump 7/ä".into(),
            published_unix_ns: 1_709_210_096_789_000_000,
            expires_unix_ns: None,
            properties: properties.map(Box::new),
        }
    }

    fn text<'e>(event: &'e Event, name: &str) -> Option<&'e str> {
        match event.extensions.get(name) {
            Some(Attribute::Text(text)) => Some(text),
            _ => None,
        }
    }

    fn user(pairs: &[(&str, &str)]) -> Option<Properties> {
        let user = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Some(Properties { user, ..Properties::default() })
    }

    #[test]
    fn a_message_is_an_event_of_its_client() {
        let event = event(&message(None), "x-1".into());
        assert_eq!(event.source, "/mqtt/pump%207%2F%C3%A4");
        assert_eq!((event.id.as_str(), event.kind.as_str()), ("x-1", MESSAGE_TYPE));
        assert_eq!((event.subject.as_str(), event.time.as_str()), ("plant/7/vibration", "2024-02-29T12:34:56.789Z"));
        assert_eq!(event.data.as_deref(), Some(&b"1.5"[..]));
        assert_eq!(event.extensions.get("mqttqos"), Some(&Attribute::Integer(1)));
        assert_eq!(event.extensions.len(), 1);
    }

    #[test]
    fn properties_become_attributes() {
        let mut properties = user(&[
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("site", "north"),
            ("site", "south"),
            ("Unit", "mm\"/s"),
            ("source", "/spoofed"),
            ("mqttqos", "2"),
        ]);
        if let Some(properties) = &mut properties {
            properties.content_type = Some("text/plain".into());
            properties.response_topic = Some("answers".into());
            properties.correlation = Some(Bytes::from_static(b"abcd"));
        }
        let event = event(&message(properties), "x".into());
        assert_eq!(event.data_content_type, "text/plain");
        assert_eq!(text(&event, "traceparent"), Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        assert_eq!(text(&event, "site"), Some("north"));
        assert_eq!(text(&event, "mqttresponsetopic"), Some("answers"));
        assert_eq!(text(&event, "mqttcorrelationdata"), Some("YWJjZA=="));
        assert_eq!(
            text(&event, "mqttproperties"),
            Some(r#"[["Unit","mm\"/s"],["source","/spoofed"],["mqttqos","2"]]"#)
        );
        assert_eq!(event.source, "/mqtt/pump%207%2F%C3%A4");
    }

    #[test]
    fn a_cloud_event_keeps_its_id_and_type_but_not_its_source() {
        let properties =
            user(&[("specversion", "1.0"), ("id", "42"), ("type", "t"), ("source", "/other"), ("time", "")]);
        let made = event(&message(properties), "x".into());
        assert_eq!(
            (made.id.as_str(), made.kind.as_str(), made.source.as_str()),
            ("42", "t", "/mqtt/pump%207%2F%C3%A4")
        );
        let made = event(&message(user(&[("id", "pump")])), "x".into());
        assert_eq!(made.id, "x", "a property that happens to be called id is not one");
        assert_eq!(text(&made, "mqttproperties"), Some(r#"[["id","pump"]]"#));
    }

    #[test]
    fn dates_are_right() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (4_102_444_799, "2099-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(rfc3339(seconds * 1_000_000_000), date);
        }
    }
}
