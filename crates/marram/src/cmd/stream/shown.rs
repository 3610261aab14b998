//! An event as people read it. Whoever published it must never be able to write a second line.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::output::{BOLD, DIM, on_one_line, paint};

/// What is shown of an event.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "marramposition", default)]
    position: String,
    #[serde(default)]
    time: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    subject: String,
    #[serde(rename = "datacontenttype", default)]
    media_type: String,
    /// As it was written: a number keeps its digits, and an object the order of its members.
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(rename = "data_base64", default)]
    base64: Option<String>,
}

/// `17  2026-11-24T04:09:29Z  plant.reading  plant/1/vibration  {"rms":1.4}`, of an event in JSON.
pub(super) fn line(event: &[u8]) -> serde_json::Result<String> {
    let event: Event<'_> = serde_json::from_slice(event)?;
    let what = match (event.data, &event.base64) {
        (Some(data), _) => written(data.get(), &event.media_type),
        (None, Some(base64)) => binary(base64, &event.media_type),
        (None, None) => String::new(),
    };
    let [position, time] = [&event.position, &event.time].map(|text| paint(DIM, text));
    let [kind, subject] = [&event.kind, &event.subject].map(|text| on_one_line(text).into_owned());
    let parts = [position, time, paint(BOLD, kind), subject, what];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    Ok(parts.join("  "))
}

/// Text without the quotes that JSON puts it in; JSON as it is.
fn written(data: &str, media_type: &str) -> String {
    match serde_json::from_str::<String>(data) {
        Ok(text) if !is_json(media_type) => on_one_line(&text).into_owned(),
        _ => on_one_line(&close(data)).into_owned(),
    }
}

/// Data of no media type is JSON where it is a member of a CloudEvent (CloudEvents JSON format 1.0.2 §3.1).
fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.is_empty() || essence.ends_with("/json") || essence.ends_with("+json")
}

/// JSON with one space where there were blanks and line breaks between its parts. What is in its strings stays.
fn close(json: &str) -> String {
    let (mut out, mut in_string, mut escaped) = (String::with_capacity(json.len()), false, false);
    for letter in json.chars() {
        if !in_string && matches!(letter, ' ' | '\t' | '\r' | '\n') {
            // A string ends with its quote: a space that is last is one of these.
            out.push_str(if out.ends_with(' ') { "" } else { " " });
            continue;
        }
        in_string ^= letter == '"' && !escaped;
        escaped = in_string && letter == '\\' && !escaped;
        out.push(letter);
    }
    out
}

/// `3 bytes of image/png`, of what is in base64 (RFC 4648 §4).
fn binary(base64: &str, media_type: &str) -> String {
    let bytes = base64.trim_end_matches('=').len() * 3 / 4;
    if media_type.is_empty() { format!("{bytes} bytes") } else { format!("{bytes} bytes of {media_type}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(event: &str) -> String {
        anstream::adapter::strip_str(&line(event.as_bytes()).expect("an event")).to_string()
    }

    #[test]
    fn an_event_is_one_line() {
        let event = r#"{"specversion":"1.0","id":"1","source":"/s","type":"plant.reading","subject":"plant/1",
            "marramposition":"17","data":{"rms":1.4}}"#;
        assert_eq!(plain(event), "17    plant.reading  plant/1  {\"rms\":1.4}");
        let bytes = r#"{"type":"t","datacontenttype":"image/png","data_base64":"AAAA"}"#;
        assert!(plain(bytes).ends_with("t  3 bytes of image/png"), "{}", plain(bytes));
        for (base64, text) in [("", "0 bytes"), ("AA==", "1 bytes"), ("AAA=", "2 bytes"), ("AAAAAA==", "4 bytes")] {
            assert_eq!(binary(base64, ""), text, "{base64:?}");
        }
    }

    #[test]
    fn data_can_forge_no_other_line() {
        let cases = [
            ("text/plain", r#""a\n17  2026\r\tforged\u001b[2J\u2028""#, r"a\n17  2026\r\tforged\u001b[2J\u2028"),
            ("text/plain", r#""a \"b\"  c""#, r#"a "b"  c"#),
            ("application/json", r#""a\nb""#, r#""a\nb""#),
            ("", "\"a\u{9b}b\"", r#""a\u009bb""#),
            ("Application/X+JSON; v=1", "[1.10,\n\t  12345678901234567890123 ]", "[1.10, 12345678901234567890123 ]"),
            (
                "application/json",
                "{\n  \"z\": \"a  \\\"  b\\\\\",\r\n  \"a\": 1e2\n}",
                r#"{ "z": "a  \"  b\\", "a": 1e2 }"#,
            ),
        ];
        for (media_type, data, shown) in cases {
            let event = format!(r#"{{"type":"t","datacontenttype":"{media_type}","data":{data}}}"#);
            assert_eq!(plain(&event).trim_start(), format!("t  {shown}"));
        }
    }
}
