//! `marram stream`: events of a node's streams, in and out, and who consumes them.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use http::Method;
use http_body_util::{BodyExt as _, Limited};
use marram_core::limits::PUBLISH_BYTES_MAX;
use marram_node::api::{ConsumerView, PublishedEvent, PublishedEvents, StreamView, Streams};
use serde_json::{Value, json};

use crate::cli::{JsonArgs, NodeArgs};
use crate::client::{self, Client, escape};
use crate::output::{self, BOLD, DIM, GREEN, YELLOW, paint};
use crate::table::{Column, table};
use crate::{data, units};

/// One CloudEvent in JSON, and an array of them.
const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

/// Looks at streams, follows and publishes events, replays, and tends dead letters.
#[derive(Args, Debug)]
pub(crate) struct Stream {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List streams and their consumers
    Ls {
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Print the events of a stream, and those that come
    Tail(Tail),
    /// Publish an event; it is on the disk when the command ends
    Publish(Publish),
    /// Deliver again what a consumer has had
    Replay {
        /// The stream
        stream: String,
        /// Whose cursor moves, as `marram stream ls` shows it
        #[arg(long, value_name = "ID")]
        consumer: String,
        /// `first`, a position, a time such as 2026-11-24T04:09:29Z, a span back from now such as 15m, or `next`: what is owed
        /// and passed over counts as dropped
        #[arg(long, value_name = "WHERE")]
        from: String,
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Stop delivering to a consumer, or go on with --resume
    Pause {
        /// The stream
        stream: String,
        /// Which consumer, as `marram stream ls` shows it
        #[arg(long, value_name = "ID")]
        consumer: String,
        /// Go on
        #[arg(long)]
        resume: bool,
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Show what the consumers of a stream gave up on, which is kept for 7 days, or put it back with --redrive
    Dlq {
        /// The stream
        stream: String,
        /// Put the dead letters back into the stream
        #[arg(long)]
        redrive: bool,
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Remove a stream with its events and consumers
    Rm {
        /// The stream
        stream: String,
        #[command(flatten)]
        node: NodeArgs,
    },
}

#[derive(Args, Debug)]
struct Tail {
    /// The stream
    stream: String,
    /// `first`, `next`, a position, a time such as 2026-11-24T04:09:29Z, or a span back from now such as 15m
    /// [default: next; with --no-follow, first]
    #[arg(long, value_name = "WHERE")]
    from: Option<String>,
    /// End after the last event that is there
    #[arg(long)]
    no_follow: bool,
    /// At most this many events
    #[arg(long, short = 'n', value_name = "EVENTS")]
    limit: Option<u64>,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Args, Debug)]
struct Publish {
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

/// Does one of them.
pub(crate) async fn run(args: &Stream) -> anyhow::Result<()> {
    match &args.action {
        Action::Ls { json, node } => list(json.json, &Client::new(node)?).await,
        Action::Tail(args) => tail(args).await,
        Action::Publish(args) => publish(args).await,
        Action::Replay { stream, consumer, from, json, node } => {
            let body = json!({ "consumer": consumer, "from": from });
            let now = moved(&Client::new(node)?, stream, "replay", &body).await?;
            if json.json {
                return print_line(&now);
            }
            output::message(&format!("{} goes on at {}", paint(BOLD, consumer), now.cursor + 1));
            Ok(())
        }
        Action::Pause { stream, consumer, resume, json, node } => {
            let body = json!({ "consumer": consumer, "paused": !resume });
            let now = moved(&Client::new(node)?, stream, "pause", &body).await?;
            if json.json {
                return print_line(&now);
            }
            output::message(&format!("{} {consumer}", paint(GREEN, if *resume { "resumed" } else { "paused" })));
            Ok(())
        }
        Action::Dlq { stream, redrive: true, json, node } => redrive(stream, json.json, &Client::new(node)?).await,
        Action::Dlq { stream, redrive: false, json, node } => dead(stream, json.json, &Client::new(node)?).await,
        Action::Rm { stream, node } => {
            let path = format!("/v1/streams/{}", escape(stream));
            Client::new(node)?.send(Method::DELETE, &path, client::empty()).await?.ok().await?;
            output::message(&format!("{} {}", paint(GREEN, "removed"), paint(BOLD, stream)));
            Ok(())
        }
    }
}

async fn list(json: bool, client: &Client) -> anyhow::Result<()> {
    let answer = client.get("/v1/streams").await?;
    let list: Streams = serde_json::from_value(answer).context("the node's answer is of another version")?;
    if json {
        return list.streams.iter().try_for_each(print_line);
    }
    if list.streams.is_empty() {
        output::message("no streams yet");
        output::hint("declare one as [stream.NAME] in an app's manifest, or `marram stream publish NAME --data …`");
        return Ok(());
    }
    let columns = [
        Column::Left("STREAM"),
        Column::Right("EVENTS"),
        Column::Right("SIZE"),
        Column::Right("LAST"),
        Column::Right("WAITING"),
        Column::Right("RETRYING"),
        Column::Right("DEAD"),
        Column::Left("CONSUMER"),
    ];
    let rows: Vec<_> = list.streams.iter().flat_map(rows).collect();
    Ok(output::line(&table(&columns, &rows))?)
}

/// A row for the stream, and one for each of its consumers.
fn rows(stream: &StreamView) -> Vec<Vec<String>> {
    let mut rows = vec![vec![
        stream.name.clone(),
        units::count(stream.events),
        units::bytes(stream.bytes),
        units::count(stream.last),
    ]];
    rows[0].resize(8, String::new());
    for consumer in &stream.consumers {
        let waiting = stream.last.saturating_sub(consumer.handed) + consumer.held;
        let id =
            if consumer.paused { format!("{} {}", consumer.id, paint(YELLOW, "paused")) } else { consumer.id.clone() };
        let mut row = vec![String::new(); 4];
        row.extend([units::count(waiting), units::count(consumer.retrying), units::count(consumer.dead_lettered), id]);
        rows.push(row);
    }
    rows
}

async fn tail(args: &Tail) -> anyhow::Result<()> {
    let path = client::with_query(
        &format!("/v1/streams/{}/events", escape(&args.stream)),
        &[
            ("from", args.from.clone()),
            ("limit", args.limit.map(|limit| limit.to_string())),
            ("follow", (!args.no_follow).then(|| "true".to_owned())),
        ],
    );
    let client = Client::new(&args.node)?;
    let mut answer = client.send(Method::GET, &path, client::empty()).await?.ok().await?;
    let mut shown = 0;
    while let Some(line) = answer.line().await? {
        shown += 1;
        if args.json.json {
            output::bytes(&[&line[..], b"\n"].concat())?;
        } else {
            output::line(&pretty(&serde_json::from_slice(&line).context("the node sent a line that is no event")?))?;
        }
    }
    anyhow::ensure!(
        args.no_follow || args.limit == Some(shown),
        "the node ended the stream: it has stopped or was drained"
    );
    Ok(())
}

/// `17  2026-11-24T04:09:29Z  plant.reading  plant/1/vibration  {"rms":1.4}`.
fn pretty(event: &Value) -> String {
    let text = |name: &str| event[name].as_str().unwrap_or_default();
    let what = match (&event["data"], &event["data_base64"]) {
        (Value::String(data), _) => data.clone(),
        (Value::Null, Value::String(data)) => binary(data, text("datacontenttype")),
        (Value::Null, _) => String::new(),
        (data, _) => data.to_string(),
    };
    let [position, time] = [text("marramposition"), text("time")].map(|text| paint(DIM, text));
    let parts = [position, time, paint(BOLD, text("type")), text("subject").to_owned(), what];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("  ")
}

/// `3 bytes of image/png`, of what is in base64 (RFC 4648 §4).
fn binary(base64: &str, media_type: &str) -> String {
    let bytes = base64.trim_end_matches('=').len() * 3 / 4;
    if media_type.is_empty() { format!("{bytes} bytes") } else { format!("{bytes} bytes of {media_type}") }
}

async fn publish(args: &Publish) -> anyhow::Result<()> {
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

async fn moved(client: &Client, stream: &str, verb: &str, body: &Value) -> anyhow::Result<ConsumerView> {
    let answer = client.call(Method::POST, &format!("/v1/streams/{}/{verb}", escape(stream)), body).await?;
    serde_json::from_value(answer).context("the node's answer is of another version")
}

async fn redrive(stream: &str, json: bool, client: &Client) -> anyhow::Result<()> {
    let path = format!("/v1/streams/{}/redrive", escape(stream));
    let answer = client.call(Method::POST, &path, &json!({})).await?;
    if json {
        return Ok(output::line(&answer.to_string())?);
    }
    let count = answer["redriven"].as_u64().unwrap_or_default();
    let events = if count == 1 { "event" } else { "events" };
    let (done, count, stream) = (paint(GREEN, "put back"), units::count(count), paint(BOLD, stream));
    output::message(&format!("{done} {count} {events} to {stream}"));
    Ok(())
}

async fn dead(stream: &str, json: bool, client: &Client) -> anyhow::Result<()> {
    let path = format!("/v1/streams/{}/events", escape(&format!("{stream}.dead")));
    let answer = client.send(Method::GET, &path, client::empty()).await?;
    if answer.head().status() == http::StatusCode::NOT_FOUND {
        drop(answer);
        // Without dead letters there is no such stream; without the stream itself, its name is misspelt.
        let path =
            client::with_query(&format!("/v1/streams/{}/events", escape(stream)), &[("limit", Some("1".into()))]);
        client.send(Method::GET, &path, client::empty()).await?.ok().await?;
        if !json {
            output::message(&format!("{stream} has no dead letters"));
        }
        return Ok(());
    }
    let mut answer = answer.ok().await?;
    let mut rows = Vec::new();
    while let Some(line) = answer.line().await? {
        if json {
            output::bytes(&[&line[..], b"\n"].concat())?;
            continue;
        }
        let event: Value = serde_json::from_slice(&line).context("the node sent a line that is no event")?;
        let names = ["marramposition", "id", "marramattempts", "marramconsumer", "marramreason"];
        rows.push(names.map(|name| cell(&event[name])).to_vec());
    }
    if !rows.is_empty() {
        let columns = [
            Column::Right("POSITION"),
            Column::Left("ID"),
            Column::Right("TRIES"),
            Column::Left("CONSUMER"),
            Column::Left("WHY"),
        ];
        output::line(&table(&columns, &rows))?;
    } else if !json {
        output::message(&format!("{stream} has no dead letters"));
    }
    Ok(())
}

/// An attribute as a table has it.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn print_line(value: &impl serde::Serialize) -> anyhow::Result<()> {
    Ok(output::line(&serde_json::to_string(value)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event = json!({
            "specversion": "1.0", "id": "1", "source": "/s", "type": "plant.reading", "subject": "plant/1",
            "marramposition": "17", "data": { "rms": 1.4 },
        });
        let plain = |event: &Value| anstream::adapter::strip_str(&pretty(event)).to_string();
        assert_eq!(plain(&event), "17    plant.reading  plant/1  {\"rms\":1.4}");
        let binary = json!({ "type": "t", "datacontenttype": "image/png", "data_base64": "AAAA" });
        assert!(plain(&binary).ends_with("t  3 bytes of image/png"), "{}", plain(&binary));
        for (base64, text) in [("", "0 bytes"), ("AA==", "1 bytes"), ("AAA=", "2 bytes"), ("AAAAAA==", "4 bytes")] {
            assert_eq!(super::binary(base64, ""), text, "{base64:?}");
        }
    }

    #[test]
    fn an_attribute_that_an_event_does_not_have_is_a_dash() {
        for (value, text) in [(Value::Null, "-"), (json!("why"), "why"), (json!(8), "8")] {
            assert_eq!(cell(&value), text);
        }
    }

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
