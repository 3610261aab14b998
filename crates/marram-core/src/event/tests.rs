//! Both codecs and what they refuse: the examples of the standards, every mode there and back, and mutated bytes.

use ::http::HeaderMap;
use ::http::header::CONTENT_TYPE;
use bytes::Bytes;
use proptest::prelude::*;

use super::http::{Mode, decode, encode, encode_batch, encode_structured, mode};
use super::{Attribute, Event, EventError, json};
use crate::limits::{EVENT_ATTRIBUTE_BYTES_MAX, EVENT_EXTENSIONS_MAX};
use crate::trace::{SpanId, TraceContext};

fn text(value: &str) -> Attribute {
    Attribute::Text(value.into())
}

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    list.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

fn one(list: &[(&'static str, &str)], body: &'static str) -> Result<Event, EventError> {
    Ok(decode(&headers(list), Bytes::from_static(body.as_bytes()))?.expect("an event").remove(0))
}

const REQUIRED: [(&str, &str); 4] = [
    ("ce-specversion", "1.0"),
    ("ce-type", "com.example.someevent"),
    ("ce-id", "1234-1234-1234"),
    ("ce-source", "/mycontext/subcontext"),
];

fn with(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    REQUIRED.iter().chain(more).copied().collect()
}

/// HTTP binding §3.1.4.
#[test]
fn binary_mode_as_in_the_standard() {
    let list = with(&[("ce-time", "2018-04-05T03:56:24Z"), ("content-type", "application/json; charset=utf-8")]);
    let event = one(&list, "{ }").unwrap();
    assert_eq!((&*event.id, &*event.source), ("1234-1234-1234", "/mycontext/subcontext"));
    assert_eq!((&*event.kind, &*event.time), ("com.example.someevent", "2018-04-05T03:56:24Z"));
    assert_eq!(event.data_content_type, "application/json; charset=utf-8");
    let mut back = HeaderMap::new();
    assert_eq!(encode(&event, &mut back).unwrap(), "{ }");
    assert_eq!(back, headers(&list));
}

/// HTTP binding §3.1.3.2, with its example.
#[test]
fn header_values_are_percent_encoded() {
    let mut event = one(&REQUIRED, "").unwrap();
    event.subject = "Euro € 😀".into();
    let mut encoded = HeaderMap::new();
    encode(&event, &mut encoded).unwrap();
    assert_eq!(encoded["ce-subject"], "Euro%20%E2%82%AC%20%F0%9F%98%80");
    let subject = |value: &'static str| one(&with(&[("ce-subject", value)]), "").map(|event| event.subject);
    assert_eq!(subject("Euro%20%e2%82%ac").unwrap(), "Euro €");
    assert_eq!(subject("%41b").unwrap(), "Ab");
    assert_eq!(subject("\"a \\\"b\\\\%20c\"").unwrap(), "a \"b\\ c");
    assert_eq!(subject("a b").unwrap(), "a b");
    for (bad, why) in [
        ("%C0%A0", "UTF-8"),
        ("%4", "hexadecimal"),
        ("%zz", "hexadecimal"),
        ("\"a", "closed"),
        ("\"a\\\"", "closed"),
        ("%00", "U+0000"),
    ] {
        let error = subject(bad).unwrap_err();
        assert_eq!(error.attribute(), Some("subject"), "{bad}");
        assert!(error.to_string().contains(why), "{bad}: {error}");
    }
}

#[test]
fn the_mode_is_told_by_the_content_type() {
    let of = |list: &[(&'static str, &str)]| mode(&headers(list));
    assert_eq!(of(&[("content-type", "Application/CloudEvents+JSON; charset=utf-8")]), Ok(Some(Mode::Structured)));
    assert_eq!(of(&[("content-type", "application/cloudevents-batch+json")]), Ok(Some(Mode::Batch)));
    assert_eq!(of(&[("content-type", "application/json"), ("ce-id", "1")]), Ok(Some(Mode::Binary)));
    assert_eq!(of(&[("content-type", "application/json"), ("ce-x", "1")]), Ok(None));
    assert_eq!(of(&[]), Ok(None));
    let error = of(&[("content-type", "application/cloudevents+avro")]).unwrap_err();
    assert!(error.to_string().contains("avro"), "{error}");
}

/// HTTP binding §3: who reads it goes by the content type, and so by what a publisher says of the data.
#[test]
fn data_that_says_that_it_is_an_event_is_not_taken_for_the_event() {
    let forged = r#"{"specversion":"1.0","id":"f","source":"/mqtt/another","type":"t"}"#;
    for content_type in [
        "application/cloudevents+json",
        "application/cloudevents-batch+json",
        "Application/CloudEvents+JSON; charset=utf-8",
        "application/cloudevents+avro",
        "application/cloudevents",
    ] {
        for data in [forged.to_owned(), format!("[{forged}]")] {
            let mut event = one(&REQUIRED, "").unwrap();
            event.data_content_type = content_type.into();
            event.data = Some(data.into());
            let mut headers = HeaderMap::new();
            let body = encode(&event, &mut headers).unwrap();
            assert_eq!(mode(&headers), Ok(Some(Mode::Structured)), "{content_type}");
            assert_eq!(decode(&headers, body).unwrap().unwrap(), [event.clone()], "{content_type}");
            let mut headers = HeaderMap::new();
            let body = encode_batch([&event], &mut headers);
            assert_eq!(decode(&headers, body).unwrap().unwrap(), [event], "{content_type}");
        }
    }
    // Space around a header's value is nothing.
    let event = Event { data_content_type: " application/cloudevents".into(), ..one(&REQUIRED, "").unwrap() };
    let mut headers = HeaderMap::new();
    encode(&event, &mut headers).unwrap();
    assert_eq!(mode(&headers), Ok(Some(Mode::Structured)));
}

#[test]
fn what_is_compressed_is_no_event() {
    let decoded = |coding: &[&'static str]| {
        let event = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];
        let mut headers = headers(&event);
        coding.iter().for_each(|coding| _ = headers.append("content-encoding", coding.parse().unwrap()));
        decode(&headers, Bytes::from_static(b"x"))
    };
    for coding in [&["gzip"][..], &["identity", "br"], &["zstd, gzip"]] {
        let refused = decoded(coding).unwrap_err().to_string();
        assert!(refused.contains("content-encoding"), "{refused}");
    }
    assert!(decoded(&[]).is_ok() && decoded(&["Identity"]).is_ok());
}

/// JSON format §3.2: each example, and what it is in binary mode.
#[test]
fn the_json_format_as_in_the_standard() {
    let head = r#""specversion":"1.0","type":"com.example.someevent","source":"/mycontext","id":"A234","time":"2018-04-05T17:31:00Z",
        "comexampleextension1":"value","comexampleothervalue":5,"unsetextension":null,"subject":null"#;
    let check = |rest: &str, content_type: &str, data: Option<&[u8]>| {
        let event = json::decode(&format!("{{ {head}{rest} }}").into()).unwrap();
        assert_eq!(event.data_content_type, content_type, "{rest}");
        assert_eq!(event.data.as_deref(), data, "{rest}");
        assert_eq!(event.extensions.get("comexampleothervalue"), Some(&Attribute::Integer(5)));
        assert_eq!((event.extensions.len(), &*event.subject), (2, ""));
        assert_eq!(json::decode(&json::encode(&event).into()).unwrap(), event, "{rest}");
    };
    check("", "", None);
    check(
        r#", "datacontenttype":"application/xml","data":"<much wow=\"xml\"/>""#,
        "application/xml",
        Some(b"<much wow=\"xml\"/>"),
    );
    check(r#", "datacontenttype":"a/x.thrift","data_base64":"AAH/""#, "a/x.thrift", Some(&[0, 1, 255]));
    check(r#", "data_base64":"AAH/""#, "", Some(&[0, 1, 255]));
    check(r#", "datacontenttype":"application/json","data":{"a": 1.50}"#, "application/json", Some(b"{\"a\": 1.50}"));
    check(r#", "datacontenttype":"application/vnd.x+json","data":"a\n""#, "application/vnd.x+json", Some(b"\"a\\n\""));
    check(r#", "data":1.5"#, "application/json", Some(b"1.5"));
    check(r#", "data":null"#, "application/json", Some(b"null"));
    check(r#", "datacontenttype":"text/plain","data":"héé""#, "text/plain", Some("héé".as_bytes()));
}

#[test]
fn json_data_keeps_its_text_and_a_line_has_no_break() {
    let json = "{\n  \"price\": 1.00,\r\n  \"big\": 12345678901234567890123, \"s\": \"a\\nb\" }";
    let event = Event {
        id: "1".into(),
        source: "/s".into(),
        kind: "t".into(),
        data_content_type: "application/json".into(),
        data: Some(Bytes::from_static(json.as_bytes())),
        ..Event::default()
    };
    let encoded = String::from_utf8(json::encode(&event)).unwrap();
    assert!(encoded.ends_with(&format!(",\"data\":{json}}}")), "{encoded}");
    let line = json::encode_line(&event);
    assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
    let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(value["data"]["s"], "a\nb");
    // What is not the JSON that it says it is travels as bytes.
    let broken = Event { data: Some(Bytes::from_static(b"{")), ..event };
    assert_eq!(json::decode(&json::encode(&broken).into()).unwrap(), broken);
}

#[test]
fn what_is_not_an_event_names_the_attribute() {
    let check = |text: &str, attribute: Option<&str>, why: &str| {
        let error = json::decode(&Bytes::from(text.to_owned())).unwrap_err();
        assert_eq!(error.attribute(), attribute, "{text}: {error}");
        assert!(error.to_string().contains(why), "{text}: {error}");
    };
    let head = r#""specversion":"1.0","id":"1","source":"/s","type":"t""#;
    check("{}", Some("specversion"), "required");
    check(r#"{"specversion":"0.3","id":"1"}"#, Some("specversion"), "1.0");
    check(r#"{"specversion":1.0,"id":"1"}"#, Some("specversion"), "as strings");
    check(r#"{"specversion":1,"id":"1"}"#, Some("specversion"), "1.0");
    check(r#"{"specversion":"1.0","source":"/s","type":"t"}"#, Some("id"), "required");
    check(r#"{"specversion":"1.0","id":"1","source":"","type":"t"}"#, Some("source"), "required and may not be empty");
    check(r#"{"specversion":"1.0","id":1,"source":"/s","type":"t"}"#, Some("id"), "string");
    check(r#"{"specversion":"1.0","id":"1","source":"a b","type":"t"}"#, Some("source"), "URI");
    let with = |rest: &str| format!("{{{head},{rest}}}");
    check(&with(r#""id":"2""#), Some("id"), "twice");
    check(&with(r#""x":"2","x":"2""#), Some("x"), "twice");
    check(&with(r#""subject":"""#), Some("subject"), "leave it out");
    check(&with(r#""time":"yesterday""#), Some("time"), "RFC 3339");
    check(&with(r#""datacontenttype":"json""#), Some("datacontenttype"), "media type");
    check(&with(r#""x":[1]"#), Some("x"), "list");
    check(&with(r#""x":1.5"#), Some("x"), "whole");
    check(&with(r#""x":3000000000"#), Some("x"), "32 bits");
    check(&with(r#""x":"a\u0007b""#), Some("x"), "U+0007");
    check(&with(r#""x":"\ufffe""#), Some("x"), "U+FFFE");
    check(&with(r#""camelCase":"1""#), Some("camelCase"), "lower-case");
    check(&with(r#""a-b":"1""#), Some("a-b"), "lower-case");
    check(&with(&format!("\"{}\":1", "x".repeat(21))), Some("xxxxxxxxxxxxxxxxxxxxx"), "20");
    check(&with(&format!("\"x\":\"{}\"", "x".repeat(4097))), Some("x"), "4096");
    check(&with(r#""data":1,"data_base64":"AA==""#), Some("data_base64"), "keep one");
    check(&with(r#""data_base64":"A""#), Some("data_base64"), "base64");
    check(&with(r#""data_base64":7"#), Some("data_base64"), "base64");
    check(&with(r#""datacontenttype":"text/plain","data":{}"#), Some("data"), "not a string");
    check(&with(&(0..70).map(|n| format!("\"x{n}\":1")).collect::<Vec<_>>().join(",")), None, "64 extension");
    check(&with(&format!("\"data\":\"{}\"", "x".repeat(1 << 20))), Some("data"), "more than 1048576");
    check("[]", None, "not a CloudEvent in JSON");
    check("{", None, "line 1");
    let duplicate = one(&with_pair("ce-id", "2"), "").unwrap_err();
    assert_eq!(duplicate.attribute(), Some("id"));
    let twice = one(&with_pair("ce-datacontenttype", "text/plain"), "").unwrap_err();
    assert!(twice.to_string().contains("content-type"), "{twice}");
    assert!(one(&with_pair("ce-foo-bar", "1"), "").unwrap_err().to_string().contains("`foo-bar`"));
    assert!(one(&with_pair("ce-data", "1"), "").unwrap_err().to_string().contains("`data`"));
}

fn with_pair(name: &'static str, value: &'static str) -> Vec<(&'static str, &'static str)> {
    with(&[(name, value)])
}

#[test]
fn a_batch_names_the_event() {
    let good = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;
    assert_eq!(json::decode_batch(&"[]".into()).unwrap(), []);
    assert_eq!(json::decode_batch(&format!("[{good},{good}]").into()).unwrap().len(), 2);
    let error = json::decode_batch(&format!("[{good},{{\"specversion\":\"1.0\"}}]").into()).unwrap_err();
    assert_eq!((error.index(), error.attribute()), (Some(1), Some("id")));
    assert!(error.to_string().starts_with("event 1 of the batch: `id`"), "{error}");
    let many = format!("[{}]", vec![good; 1001].join(","));
    assert!(json::decode_batch(&many.into()).unwrap_err().to_string().contains("more than 1000"));
}

#[test]
fn times_and_media_types() {
    for good in [
        "2018-04-05T17:31:00Z",
        "2024-02-29t23:59:60.123456789z",
        "0001-01-01T00:00:00+23:59",
        "2018-04-05T17:31:00.5-01:00",
    ] {
        assert!(super::check::is_rfc3339(good.as_bytes()), "{good}");
    }
    for bad in [
        "",
        "2018-04-05",
        "2018-04-05 17:31:00Z",
        "2018-04-05T17:31:00",
        "2018-13-05T17:31:00Z",
        "2023-02-29T17:31:00Z",
        "2018-04-05T24:31:00Z",
        "2018-04-05T17:31:61Z",
        "2018-04-05T17:31:00.Z",
        "2018-04-05T17:31:00Zx",
        "2018-04-05T17:31:00+1:00",
        "2018-04-05T17:31Z",
        "18-04-05T17:31:00Z",
        "2018-04-05T17:31:00é",
    ] {
        assert!(!super::check::is_rfc3339(bad.as_bytes()), "{bad}");
    }
    for good in ["application/json", "text/plain; charset=utf-8", "a/b;c=\"d e\"", "application/vnd.x+json"] {
        assert!(super::check::is_media_type(good.as_bytes()), "{good}");
    }
    for bad in ["", "json", "a/", "/b", "a b/c", "a/b c", "a/b\r\nx: y", "é/b"] {
        assert!(!super::check::is_media_type(bad.as_bytes()), "{bad}");
    }
}

#[test]
fn the_trace_travels_with_the_event() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let event = one(&with(&[("ce-traceparent", parent), ("ce-tracestate", "a=1,b=2")]), "").unwrap();
    let trace = event.trace().unwrap();
    assert_eq!(trace.header(), parent.as_bytes());
    assert_eq!(event.trace_state(), Some("a=1,b=2"));
    let mut other = one(&REQUIRED, "").unwrap();
    assert_eq!(other.trace(), None);
    let child = TraceContext { span: SpanId(7), ..trace };
    other.continue_trace(&child, Some("a=1,b=2"));
    assert_eq!((other.trace(), other.trace_state()), (Some(child), Some("a=1,b=2")));
    other.continue_trace(&trace, Some("c=3"));
    assert_eq!((other.trace(), other.trace_state()), (Some(child), Some("a=1,b=2")), "the first trace stays");
    other.check().unwrap();
    // A state without its trace, and one that is no attribute, do not come along.
    let long = "a".repeat(EVENT_ATTRIBUTE_BYTES_MAX + 1);
    for (state, kept) in
        [(None, None), (Some("c=3"), Some("c=3")), (Some(""), None), (Some("a\tb"), None), (Some(&*long), None)]
    {
        let mut event = one(&with(&[("ce-tracestate", "of=another")]), "").unwrap();
        event.continue_trace(&trace, state);
        assert_eq!((event.trace(), event.trace_state()), (Some(trace), kept));
        event.check().unwrap();
    }
}

#[test]
fn an_event_with_as_many_extensions_as_it_may_have_stays_one_when_a_trace_goes_on() {
    let trace = TraceContext::parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
    for (extensions, continued) in [(EVENT_EXTENSIONS_MAX - 1, Some(trace)), (EVENT_EXTENSIONS_MAX, None)] {
        let mut event = one(&REQUIRED, "").unwrap();
        event.extensions = (0..extensions).map(|n| (format!("x{n}"), Attribute::Integer(1))).collect();
        event.continue_trace(&trace, Some("a=1"));
        assert_eq!((event.trace(), event.trace_state()), (continued, None), "{extensions}");
        event.check().unwrap();
    }
}

prop_compose! {
    /// Text of an attribute: printable, of any script, not empty.
    fn attribute_text()(text in "[ -~äß€😀\u{a0}\u{3000}]{1,20}") -> String { text }
}

prop_compose! {
    fn extension()(name in "[a-z0-9]{1,20}", value in prop_oneof![
        any::<bool>().prop_map(Attribute::Boolean),
        any::<i32>().prop_map(Attribute::Integer),
        "[ -~ä€😀]{0,20}".prop_map(Attribute::Text),
    ]) -> (String, Attribute) { (name, value) }
}

prop_compose! {
    fn any_event()(
        id in attribute_text(),
        source in "[a-z:/.%?#äö-]{1,20}",
        kind in attribute_text(),
        subject in prop_oneof![Just(String::new()), attribute_text()],
        time in prop_oneof![Just(""), Just("2018-04-05T17:31:00Z"), Just("2018-04-05T17:31:00.123+02:00")],
        data_content_type in prop_oneof![Just(""), Just("application/json"), Just("text/plain; charset=utf-8"), Just("image/png"), Just("a/b+json"), Just("text/xml")],
        data_schema in prop_oneof![Just(""), Just("https://x.example/schema#1")],
        extensions in proptest::collection::btree_map("[a-z0-9]{1,20}", Just(()), 0..5),
        values in proptest::collection::vec(extension(), 5),
        data in prop_oneof![
            Just(None),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Some),
            "\\PC{0,20}".prop_map(|text| Some(text.into_bytes())),
            Just(Some(b"{\"a\": [1, 2.50, \"x\\ud83d\\ude00\"]}".to_vec())),
        ],
    ) -> Event {
        let reserved = ["id", "source", "type", "specversion", "subject", "time", "datacontenttype", "dataschema", "data"];
        let extensions = extensions.into_keys().zip(values).map(|(name, (_, value))| (name, value));
        Event {
            id, source, kind, subject,
            time: time.into(),
            data_content_type: data_content_type.into(),
            data_schema: data_schema.into(),
            extensions: extensions.filter(|(name, _)| !reserved.contains(&&**name)).collect(),
            data: data.map(Bytes::from),
        }
    }
}

/// Header fields have no types, and an empty body of a type is data.
fn as_in_binary_mode(mut event: Event) -> Event {
    for value in event.extensions.values_mut() {
        match value {
            Attribute::Boolean(is) => *value = text(if *is { "true" } else { "false" }),
            Attribute::Integer(number) => *value = text(&number.to_string()),
            Attribute::Text(_) => {}
        }
    }
    let data = event.data.take().unwrap_or_default();
    event.data = (!data.is_empty() || !event.data_content_type.is_empty()).then_some(data);
    event
}

/// White space around a JSON value is not kept.
fn as_in_json(mut event: Event) -> Event {
    if event.data_content_type.contains("json")
        && let Some(data) = &event.data
        && let Ok(value) = serde_json::from_slice::<&serde_json::value::RawValue>(data)
    {
        event.data = Some(Bytes::copy_from_slice(value.get().as_bytes()));
    }
    event
}

proptest! {
    #[test]
    fn every_mode_brings_back_what_it_took(events in proptest::collection::vec(any_event(), 1..4)) {
        let wanted: Vec<_> = events.iter().cloned().map(as_in_json).collect();
        let mut headers = HeaderMap::new();
        let body = encode_batch(&events, &mut headers);
        prop_assert_eq!(decode(&headers, body).unwrap().unwrap(), wanted);
        for event in events {
            prop_assert!(event.check().is_ok());
            let mut headers = HeaderMap::new();
            let body = encode_structured(&event, &mut headers);
            prop_assert_eq!(decode(&headers, body).unwrap().unwrap(), vec![as_in_json(event.clone())]);
            let line: serde_json::Value = serde_json::from_slice(&json::encode_line(&event)).unwrap();
            prop_assert_eq!(&line["id"], &event.id);
            let mut headers = HeaderMap::new();
            let body = encode(&event, &mut headers).unwrap();
            prop_assert_eq!(decode(&headers, body).unwrap().unwrap(), vec![as_in_binary_mode(event)]);
        }
    }

    #[test]
    fn mutated_messages_never_panic_and_what_is_taken_is_valid(
        event in any_event(),
        batch in any::<bool>(),
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..6),
    ) {
        let mut headers = HeaderMap::new();
        let body = if batch { encode_batch([&event, &event], &mut headers) } else { encode_structured(&event, &mut headers) };
        let mut bytes = body.to_vec();
        for (at, byte, how) in cuts {
            let at = at.index(bytes.len().max(1));
            match how {
                0 if at < bytes.len() => bytes[at] = byte,
                1 if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.insert(at, byte),
            }
        }
        for event in decode(&headers, bytes.into()).ok().flatten().unwrap_or_default() {
            prop_assert!(event.check().is_ok());
        }
    }

    #[test]
    fn any_header_values_never_panic(
        values in proptest::collection::vec(proptest::collection::vec(0x20u8..=0xff, 0..30), 8),
        body in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let names = ["ce-specversion", "ce-id", "ce-source", "ce-type", "ce-time", "ce-x", "ce-subject"];
        let mut headers = headers(&REQUIRED);
        for (name, value) in names.iter().zip(&values) {
            if value.len() % 3 == 0 && let Ok(value) = ::http::HeaderValue::from_bytes(value) {
                headers.insert(*name, value);
            }
        }
        if let Ok(value) = ::http::HeaderValue::from_bytes(&values[7]) && values[7].len() % 2 == 0 {
            headers.insert(CONTENT_TYPE, value);
        }
        for event in decode(&headers, body.clone().into()).ok().flatten().unwrap_or_default() {
            prop_assert!(event.check().is_ok());
        }
        let _ = (json::decode(&body.clone().into()), json::decode_batch(&body.into()));
    }
}
