//! `/v1/streams`: what streams keep, events in and out, and their consumers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::{Stream, stream};
use marram_core::event::Attribute;
use marram_core::event::json;
use marram_core::limits::PUBLISH_BYTES_MAX;
use marram_core::port::streams::{ConsumerState, Stored, StreamState};
use marram_core::port::{Consumer, Streams as _};
use marram_core::stream::{ConsumerId, Overflow, Start, StreamName};
use marram_core::{Failure, Kind};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use super::input::{self, Segments};
use super::operation::{Content, Operation};
use super::problem::Refusal;
use super::{Admin, follow};
use crate::api::{ConsumerView, PauseRequest, PublishedEvents, Redriven, ReplayRequest, StreamView, Streams};
use crate::events;

/// Events read at once for a tail.
const CHUNK_EVENTS: usize = 256;

pub(super) fn operations() -> Vec<Operation> {
    const ONE: &str = "/v1/streams/{stream}";
    const EVENTS: &str = "/v1/streams/{stream}/events";
    vec![
        Operation::new(Method::GET, "/v1/streams", "listStreams", "Streams, what they keep, who consumes them", list)
            .json::<Streams>(200, "By name"),
        Operation::new(Method::GET, EVENTS, "readEvents", "Events of a stream; with `follow`, an answer without an end", tail)
            .query::<TailParameters>()
            .answer(
                200,
                "One CloudEvent in JSON a line, oldest first, with its place in the extension `marramposition`; empty lines \
                 say only that the connection lives",
                Some(Content::Bytes("application/x-ndjson")),
            ),
        Operation::new(
            Method::POST,
            EVENTS,
            "publishEvents",
            "Stores events: a CloudEvent in binary or structured mode, or a batch",
            publish,
        )
        .takes_bytes()
        .json::<PublishedEvents>(200, "They are on the disk"),
        Operation::new(
            Method::DELETE,
            ONE,
            "removeStream",
            "Removes a stream with its events and consumers; refused while a deployed app declares or consumes it",
            remove,
        )
        .answer(204, "It is gone", None),
        Operation::new(
            Method::POST,
            "/v1/streams/{stream}/replay",
            "replayStream",
            "Moves a consumer's cursor: what comes from there on is delivered again",
            replay,
        )
        .takes::<ReplayRequest>()
        .json::<ConsumerView>(200, "Where the consumer stands now"),
        Operation::new(Method::POST, "/v1/streams/{stream}/pause", "pauseConsumer", "Stops or resumes a consumer", pause)
            .takes::<PauseRequest>()
            .json::<ConsumerView>(200, "Where the consumer stands now"),
        Operation::new(
            Method::POST,
            "/v1/streams/{stream}/redrive",
            "redriveStream",
            "Puts the dead letters of a stream back into it",
            redrive,
        )
        .json::<Redriven>(200, "How many"),
    ]
}

/// Which events.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TailParameters {
    /// From where: `first`, `next`, a position, a time (RFC 3339 in UTC), or a span back from now, such as `15m`. If left
    /// out, the first; with `follow`, the next.
    from: Option<String>,
    /// At most this many.
    limit: Option<u64>,
    /// Go on with every event that comes.
    #[serde(default)]
    follow: bool,
}

async fn list(State(admin): State<Arc<Admin>>) -> Result<Json<Streams>, Refusal> {
    let streams = Arc::clone(&admin.parts.streams);
    let states = input::blocking(move || streams.list()).await??;
    Ok(Json(Streams { streams: states.into_iter().map(view).collect() }))
}

async fn publish(
    State(admin): State<Arc<Admin>>,
    Segments(stream): Segments<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<PublishedEvents>, Refusal> {
    let stream = name(&stream)?;
    if stream.is_source() {
        let message = format!("only the node publishes to \"{stream}\": choose another stream");
        return Err(Refusal::new(Kind::Conflict, message));
    }
    if stream.is_dead_letter() {
        let message = format!(
            "\"{stream}\" is a dead-letter stream, which only the node publishes to: publish to the stream that it belongs to"
        );
        return Err(Refusal::new(Kind::Conflict, message));
    }
    let body = input::gather(body, PUBLISH_BYTES_MAX).await?;
    let events = events::read(&headers, body, events::trace_of(&headers).as_ref())?;
    let published = admin.parts.streams.publish(&stream, events).await?;
    Ok(Json(events::published(&published)))
}

async fn remove(State(admin): State<Arc<Admin>>, Segments(stream): Segments<String>) -> Result<StatusCode, Refusal> {
    admin.parts.reconciler.remove_stream(name(&stream)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn replay(
    State(admin): State<Arc<Admin>>,
    Segments(stream): Segments<String>,
    body: Body,
) -> Result<Json<ConsumerView>, Refusal> {
    let request: ReplayRequest = input::json(body, "{}").await?;
    let from = start(&request.from, admin.parts.clock.unix_ns())?;
    let consumer = find(&admin, &name(&stream)?, &request.consumer)?;
    consumer.seek(from).await?;
    Ok(Json(consumer_view(consumer.state())))
}

async fn pause(
    State(admin): State<Arc<Admin>>,
    Segments(stream): Segments<String>,
    body: Body,
) -> Result<Json<ConsumerView>, Refusal> {
    let request: PauseRequest = input::json(body, "{}").await?;
    let consumer = find(&admin, &name(&stream)?, &request.consumer)?;
    consumer.pause(request.paused).await?;
    Ok(Json(consumer_view(consumer.state())))
}

async fn redrive(
    State(admin): State<Arc<Admin>>,
    Segments(stream): Segments<String>,
) -> Result<Json<Redriven>, Refusal> {
    let redriven = admin.parts.streams.redrive(&name(&stream)?).await?;
    Ok(Json(Redriven { redriven }))
}

async fn tail(
    State(admin): State<Arc<Admin>>,
    Segments(stream): Segments<String>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let TailParameters { from, limit, follow } = input::query(&uri)?;
    let name = name(&stream)?;
    let default = if follow { Start::Next } else { Start::First };
    let from = from.map_or(Ok(default), |text| start(&text, admin.parts.clock.unix_ns()))?;
    let place = follow.then(|| follow::place(&admin)).transpose()?;
    let (streams, of) = (Arc::clone(&admin.parts.streams), name.clone());
    // What does not exist is said with a status and not by an answer that ends.
    let state = input::blocking(move || streams.list()).await??.into_iter().find(|state| state.name == of);
    let state = state.ok_or_else(|| no_stream(&name))?;
    let from = if from == Start::Next { Start::Position(state.last + 1) } else { from };
    let end = if follow { u64::MAX } else { state.last };
    let tail = Tail { admin, name, from, left: limit.unwrap_or(u64::MAX), end, done: false, _place: place };
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(lines(tail))).into_response())
}

/// A reader of a stream's events.
struct Tail {
    admin: Arc<Admin>,
    name: StreamName,
    from: Start,
    /// How many more it may send.
    left: u64,
    /// The last position that it sends.
    end: u64,
    done: bool,
    _place: Option<OwnedSemaphorePermit>,
}

fn lines(tail: Tail) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    stream::unfold(tail, |mut tail| async move {
        if tail.done {
            return None;
        }
        let bytes = tail.next().await.unwrap_or_else(|failure| {
            tail.done = true;
            tracing::warn!(stream = %tail.name, "a tail ended early: {failure:?}");
            Bytes::new()
        });
        (!bytes.is_empty()).then_some((Ok(bytes), tail))
    })
}

impl Tail {
    /// The next lines; nothing at the end.
    async fn next(&mut self) -> Result<Bytes, Failure> {
        loop {
            if self.left == 0 {
                return Ok(Bytes::new());
            }
            let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(CHUNK_EVENTS);
            let (streams, name, from) = (Arc::clone(&self.admin.parts.streams), self.name.clone(), self.from);
            let events = input::blocking(move || streams.read(&name, from, most)).await??;
            let events: Vec<_> = events.into_iter().take_while(|stored| stored.position <= self.end).collect();
            if let Some(last) = events.last() {
                self.from = Start::Position(last.position + 1);
                self.left -= events.len() as u64;
                return Ok(events.iter().fold(BytesMut::new(), write).freeze());
            }
            if self.end != u64::MAX {
                return Ok(Bytes::new());
            }
            let after = if let Start::Position(next) = self.from { next.saturating_sub(1) } else { 0 };
            let more = self.admin.parts.streams.wait(&self.name, after);
            match self.admin.stop.run_until_cancelled(tokio::time::timeout(follow::KEEP_ALIVE, more)).await {
                None => return Ok(Bytes::new()),
                Some(Err(_)) => return Ok(Bytes::from_static(b"\n")),
                Some(Ok(waited)) => waited?,
            }
        }
    }
}

fn write(mut lines: BytesMut, stored: &Stored) -> BytesMut {
    let mut event = (*stored.event).clone();
    event.extensions.insert("marramposition".into(), Attribute::Text(stored.position.to_string()));
    lines.extend_from_slice(&json::encode_line(&event));
    lines.extend_from_slice(b"\n");
    lines
}

fn name(text: &str) -> Result<StreamName, Failure> {
    StreamName::new(text).map_err(|error| Failure::new(Kind::BadRequest, error.to_string()))
}

fn no_stream(name: &StreamName) -> Failure {
    Failure::new(Kind::NotFound, format!("there is no stream \"{name}\" on this node: `marram stream ls` lists them"))
}

fn find(admin: &Admin, stream: &StreamName, consumer: &str) -> Result<Arc<dyn Consumer>, Failure> {
    let id = ConsumerId(consumer.into());
    admin.parts.streams.find_consumer(stream, &id).ok_or_else(|| {
        let shown: String = consumer.chars().take(80).collect();
        Failure::new(
            Kind::NotFound,
            format!("stream \"{stream}\" has no consumer {shown:?}: `marram stream ls --json` lists them"),
        )
    })
}

/// Where to begin, as people write it.
fn start(text: &str, now_unix_ns: u64) -> Result<Start, Failure> {
    match text {
        "first" => Ok(Start::First),
        "next" => Ok(Start::Next),
        _ => match text.parse() {
            Ok(position) => Ok(Start::Position(position)),
            Err(_) => input::time(text, now_unix_ns).map(Start::Time).map_err(|failure| {
                Failure::new(
                    Kind::BadRequest,
                    format!("{}; `first`, `next` and a position are taken, too", failure.message()),
                )
            }),
        },
    }
}

fn view(state: StreamState) -> StreamView {
    StreamView {
        name: state.name.to_string(),
        events: state.events,
        bytes: state.bytes,
        first: state.first,
        last: state.last,
        bytes_max: state.policy.bytes_max,
        age_max_ms: millis(state.policy.age_max),
        overflow: match state.policy.overflow {
            Overflow::Reject => "reject".into(),
            Overflow::DropOldest => "drop-oldest".into(),
        },
        dropped: state.dropped,
        rejected: state.rejected,
        duplicates: state.duplicates,
        consumers: state.consumers.into_iter().map(consumer_view).collect(),
    }
}

fn consumer_view(state: ConsumerState) -> ConsumerView {
    ConsumerView {
        id: state.id.to_string(),
        cursor: state.cursor,
        handed: state.handed,
        in_flight: state.in_flight,
        retrying: state.retrying,
        held: state.held,
        acked: state.acked,
        dead_lettered: state.dead_lettered,
        dropped: state.dropped,
        redelivered: state.redelivered,
        paused: state.paused,
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
