//! What a message is as an event, for streams that capture its topic (docs/adr/0013).
//!
//! A publisher's words become attributes only where an attribute may have them: every event that is made here is valid.
//!
//! | Event | From |
//! |---|---|
//! | `id` | unique; the user property `id` of a message that says `specversion` `1.0` (CloudEvents MQTT binding §3.1), so that a device that sends it twice is heard once |
//! | `source` | `/mqtt/<client id>`, percent-encoded; nobody can say it for another |
//! | `type` | `marram.mqtt.message`, or the user property `type` of a CloudEvent |
//! | `subject` | the topic |
//! | `time` | when it came in, or the user property `time` of a CloudEvent |
//! | `datacontenttype` | the content type, if it is a media type |
//! | `mqttcontenttype` | the content type, if it is none: MQTT leaves open what it is |
//! | `mqttqos`, `mqttretain` | QoS, and whether it was published to be retained |
//! | `mqttresponsetopic`, `mqttcorrelationdata` | response topic, and correlation data in base64 |
//! | `traceparent`, `tracestate`, … | every user property whose name an extension may have (`[a-z0-9]{1,20}`); of one that is there twice, the first |
//! | `mqttproperties` | the other user properties, and those whose value their attribute may not have, as a JSON array of `[name, value]`; left out past 4 KiB |

use std::collections::BTreeMap;
use std::fmt::Write as _;

use marram_core::Event;
use marram_core::event::{Attribute, check_attribute, is_attribute_char};
use marram_core::limits::EVENT_EXTENSIONS_MAX;
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
    let good = |name: &str, value: &str| check_attribute(name, value).is_ok();
    let put = |extensions: &mut BTreeMap<String, Attribute>, name: &str, value: String| {
        if good(name, &value) && extensions.len() < EVENT_EXTENSIONS_MAX && !extensions.contains_key(name) {
            extensions.insert(name.into(), Attribute::Text(value));
        }
    };
    match &properties.content_type {
        Some(content_type) if good("datacontenttype", content_type) => event.data_content_type.clone_from(content_type),
        Some(content_type) if !content_type.is_empty() => {
            put(&mut event.extensions, "mqttcontenttype", content_type.clone());
        }
        _ => {}
    }
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
            Some(attribute) if is_cloud_event && good(name, value) => attribute.clone_from(value),
            // What else a CloudEvent says of itself is said here in another way.
            None if is_cloud_event && RESERVED.contains(&name.as_str()) => {}
            None if is_extension(name) && good(name, value) => put(&mut event.extensions, name, value.clone()),
            _ => others.push((name, value)),
        }
    }
    if !others.is_empty() {
        put(&mut event.extensions, "mqttproperties", json(&others));
    }
}

/// Whether it is neither an attribute of every event nor one that is said here, as all that begin with `mqtt` are. Whether an
/// extension may be called so is for the check to tell.
fn is_extension(name: &str) -> bool {
    !RESERVED.contains(&name) && !name.starts_with("mqtt")
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

/// RFC 8259 §7. What no attribute may have is escaped, since this is one.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            letter if is_attribute_char(letter) => out.push(letter),
            letter => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
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
    fn words_that_no_attribute_may_have_become_none() {
        const MADE: &str = "2024-02-29T12:34:56.789Z";
        let properties = |name: &str, value: &str| user(&[("specversion", "1.0"), (name, value)]);
        // What is said, and what is then said of it in `mqttproperties`.
        for (name, value, others) in [
            ("time", "nope", Some(r#"[["time","nope"]]"#)),
            ("time", "2024-13-01T00:00:00Z", Some(r#"[["time","2024-13-01T00:00:00Z"]]"#)),
            ("id", "a\u{1}b", Some(r#"[["id","a\u0001b"]]"#)),
            ("type", "a\nb: c", Some(r#"[["type","a\u000ab: c"]]"#)),
            ("site", "a\u{7f}\u{85}ä", Some(r#"[["site","a\u007f\u0085ä"]]"#)),
            ("site", "\u{ffff}\u{1fffe}\u{fdd0}", Some(r#"[["site","\uffff\ud83f\udffe\ufdd0"]]"#)),
            ("a\u{2}", "b", Some(r#"[["a\u0002","b"]]"#)),
            ("site", "x".repeat(4097).as_str(), None),
        ] {
            let made = event(&message(properties(name, value)), "x-1".into());
            assert_eq!(made.check(), Ok(()), "{name}: {value:?}");
            let own = (made.id.as_str(), made.kind.as_str(), made.time.as_str(), text(&made, "site"));
            assert_eq!(own, ("x-1", MESSAGE_TYPE, MADE, None), "{name}: {value:?}");
            assert_eq!(text(&made, "mqttproperties"), others, "{name}: {value:?}");
        }
        for (content_type, data, other) in [
            ("text/plain; charset=utf-8", "text/plain; charset=utf-8", None),
            ("json", "", Some("json")),
            ("no type", "", Some("no type")),
            ("a\nb: c", "", None),
            ("", "", None),
        ] {
            let properties = Properties { content_type: Some(content_type.into()), ..Properties::default() };
            let made = event(&message(Some(properties)), "x".into());
            assert_eq!(made.check(), Ok(()), "{content_type:?}");
            assert_eq!((made.data_content_type.as_str(), text(&made, "mqttcontenttype")), (data, other));
        }
        let good = event(&message(properties("time", "2024-02-29T23:59:59+01:00")), "x".into());
        assert_eq!((good.time.as_str(), text(&good, "mqttproperties")), ("2024-02-29T23:59:59+01:00", None));
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_client_says_its_message_is_a_valid_event(
            client in "\\PC{0,40}", content_type in ".{0,20}", cloud_event: bool,
            said in proptest::collection::vec(("id|type|time|source|subject|data|mqttqos|[a-z]{1,3}|.{0,25}", ".{0,30}"), 0..64),
        ) {
            let version = cloud_event.then(|| ("specversion".to_owned(), "1.0".to_owned()));
            let user = said.into_iter().chain(version).collect();
            let properties = Properties { user, content_type: Some(content_type), ..Properties::default() };
            let said = Message { publisher: client.into(), ..message(Some(properties)) };
            proptest::prop_assert_eq!(event(&said, "x".into()).check(), Ok(()));
        }
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
