//! `marram stream publish`: an event goes in, or a batch of them.

use anyhow::Context as _;
use clap::Args;
use http::Method;
use http_body_util::{BodyExt as _, Limited};
use marram_core::limits::PUBLISH_BYTES_MAX;
use marram_node::api::{PublishedEvent, PublishedEvents};

use super::print_line;
use crate::cli::{JsonArgs, NodeArgs};
use crate::client::{self, Client, escape};
use crate::output::{self, GREEN, paint};
use crate::{data, units};

/// One CloudEvent in JSON, and an array of them.
const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

#[derive(Args, Debug)]
pub(super) struct Publish {
    /// The stream
    stream: String,
    /// What the event carries: text, `@file`, or `@-` for stdin
    #[arg(long, short)]
    data: Option<String>,
    /// The media type of the data; if left out, application/json for data that is JSON, and text/plain for other
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// What happened
    #[arg(long = "type", value_name = "TYPE", default_value = "marram.cli.published")]
    kind: String,
    /// Where it happened
    #[arg(long, value_name = "URI", default_value = "/marram/cli")]
    source: String,
    /// What it happened to
    #[arg(long)]
    subject: Option<String>,
    /// The event's id, so that it is stored once however often it is sent; a new one if left out
    #[arg(long)]
    id: Option<String>,
    /// The data is CloudEvents in JSON already: one, or an array of them
    #[arg(long, conflicts_with_all = ["kind", "source", "subject", "id", "content_type"])]
    cloudevents: bool,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    node: NodeArgs,
}

/// Sends it, and says where it is.
pub(super) async fn run(args: &Publish) -> anyhow::Result<()> {
    let client = Client::new(&args.node)?;
    let mut request = client.request(Method::POST, &format!("/v1/streams/{}/events", escape(&args.stream)));
    let mut body = data::body(args.data.as_deref()).await?;
    if args.cloudevents {
        let events = body.collect().await?.to_bytes();
        let batch = events.trim_ascii_start().starts_with(b"[");
        request = request.header("content-type", if batch { BATCH } else { STRUCTURED });
        body = client::full(events);
    } else {
        let id = args.id.clone().map_or_else(new_id, Ok)?;
        if args.content_type.is_none() {
            let data = Limited::new(body, PUBLISH_BYTES_MAX).collect().await.map_err(anyhow::Error::from_boxed);
            let data =
                data.with_context(|| format!("cannot read at most {PUBLISH_BYTES_MAX} bytes of data"))?.to_bytes();
            if let Some(media_type) = media_type(&data) {
                request = request.header("content-type", media_type);
            }
            body = client::full(data);
        }
        if let Some(media_type) = &args.content_type {
            request = request.header("content-type", media_type);
        }
        request = request
            .header("ce-specversion", "1.0")
            .header("ce-id", escape_header(&id))
            .header("ce-type", escape_header(&args.kind))
            .header("ce-source", escape_header(&args.source))
            .header("ce-time", units::rfc3339(units::now_unix_ms()));
        if let Some(subject) = &args.subject {
            request = request.header("ce-subject", escape_header(subject));
        }
    }
    let answer = client.exchange(request.body(body)?).await?.ok().await?;
    let published: PublishedEvents =
        serde_json::from_value(answer.json().await?).context("the node's answer is of another version")?;
    if args.json.json {
        return published.published.iter().try_for_each(print_line);
    }
    output::message(&format!("{} {}", paint(GREEN, "published"), counted(&published.published)));
    Ok(())
}

/// `at 7`, or of a batch `3 events, the last at 9`; and what of that is not new.
fn counted(events: &[PublishedEvent]) -> String {
    let again = events.iter().filter(|event| event.duplicate).count();
    match (events, again) {
        ([one], 0) => format!("at {}", one.position),
        ([one], _) => format!("at {} (it was there already)", one.position),
        ([], _) => "0 events".to_owned(),
        ([.., last], 0) => format!("{} events, the last at {}", events.len(), last.position),
        ([.., last], _) => {
            format!("{} events, the last at {} ({again} were there already)", events.len(), last.position)
        }
    }
}

/// What data is if nobody says it; nothing where there is none.
fn media_type(data: &[u8]) -> Option<&'static str> {
    match serde_json::from_slice::<serde::de::IgnoredAny>(data) {
        _ if data.is_empty() => None,
        Ok(_) => Some("application/json"),
        Err(_) if std::str::from_utf8(data).is_ok() => Some("text/plain"),
        Err(_) => Some("application/octet-stream"),
    }
}

/// Another one each time (RFC 9562 §5.4 would say no more).
fn new_id() -> anyhow::Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("the system gives no random bytes: {error}"))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// As the HTTP binding writes an attribute (CloudEvents HTTP binding 1.0.2 §3.1.3.2).
fn escape_header(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_graphic() && byte != b'"' && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_has_the_media_type_that_it_looks_like() {
        let cases: [(&[u8], _); 6] = [
            (b"", None),
            (b"{\"n\": 1}", Some("application/json")),
            (b" 17\n", Some("application/json")),
            (b"plain", Some("text/plain")),
            ("{é".as_bytes(), Some("text/plain")),
            (b"\xff\x00", Some("application/octet-stream")),
        ];
        for (data, expected) in cases {
            assert_eq!(media_type(data), expected, "{data:?}");
        }
    }

    #[test]
    fn a_batch_is_one_line() {
        let event = |position, duplicate| PublishedEvent { position, duplicate };
        let cases = [
            (vec![event(7, false)], "at 7"),
            (vec![event(7, true)], "at 7 (it was there already)"),
            (vec![event(7, false), event(8, false)], "2 events, the last at 8"),
            (vec![event(7, true), event(8, true), event(9, false)], "3 events, the last at 9 (2 were there already)"),
            (vec![], "0 events"),
        ];
        for (events, text) in cases {
            assert_eq!(counted(&events), text);
        }
    }

    #[test]
    fn attributes_travel_in_headers() {
        assert_eq!(escape_header("a/b c%\"é"), "a/b%20c%25%22%C3%A9");
    }
}
