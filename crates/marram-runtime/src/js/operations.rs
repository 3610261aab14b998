//! What JavaScript asked for in a turn, carried out. What takes time becomes a task that ends with an event.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use marram_core::limits::HANDLES_MAX;
use marram_core::port::{Body, empty_body, full_body};
use marram_core::{Failure, Kind};
use marram_js_abi::{Action, Batch, BodyIn, BodyOut, Event, Redirect, ScriptError, Sink, Source, lines};
use wasmtime::{Result, ensure};

use super::engine::State;
use super::incoming::{Arriving, Start};
use super::instance::malformed;
use super::live::{Live, Shared};
use super::outgoing::Feed;
use super::redirect::{Sending, follow};
use super::tasks::{SinkReader, spawn};
use super::thrown;
use crate::outbound::strip_hop_by_hop;

impl<T: State> Live<T> {
    pub(super) fn carry_out(self: &Arc<Self>, actions: &[u8]) -> Result<()> {
        for action in Batch::<Action<'_>>::new(actions) {
            self.act(action.map_err(malformed)?)?;
        }
        Ok(())
    }

    fn act(self: &Arc<Self>, action: Action<'_>) -> Result<()> {
        match action {
            Action::Respond { request, status, headers, body } => self.respond(request, status, headers, body),
            Action::Chunk { to, bytes } => self.with_feed(to, |feed| feed.push(bytes)),
            Action::End { to } => self.end_feed(to, Ok(())),
            Action::Broken { to, message } => {
                self.end_feed(
                    to,
                    Err(Failure::new(Kind::NoResponse, "the function broke its answer off").because(message)),
                );
            }
            Action::Fetch { op, request, method, url, headers, body, redirect } => {
                return self.fetch(op, request, (method, url, headers), body, redirect);
            }
            Action::AbortFetch { op } => {
                self.lock().sources.remove(&Source::Fetch(op));
                self.stop_task(op);
            }
            Action::Pull { of } => self.pull(of),
            Action::Discard { of } => drop(self.take_source(of)),
            Action::SetTimer { op, after_ms, .. } => {
                return self.set_timer(op, Duration::from_millis(after_ms.into()));
            }
            Action::ClearTimer { op } => self.clear_timer(op),
            Action::Log { request, level, text } => self.host.log(number(request), level, text),
            Action::Done { request } => self.finish(request, None),
            Action::Failed { request, error } => self.finish(request, Some(error)),
            Action::Call { op, request, capability, payload } => {
                let mut call = self.host.call(number(request), capability, Bytes::copy_from_slice(payload));
                // Much of it is in memory, and answered without a task.
                match (&mut call).now_or_never() {
                    Some(result) => self.called(op, result),
                    None => {
                        return self.start_task(op, move |live| async move {
                            let result = call.await;
                            live.upgrade().inspect(|live| live.called(op, result))
                        });
                    }
                }
            }
        }
        Ok(())
    }

    fn called(&self, op: u32, result: std::result::Result<Vec<u8>, Failure>) {
        match result {
            Ok(payload) => self.tell(&Event::CallResult { op, ok: true, payload: &payload }),
            Err(failure) => {
                let told = format!("{}\n{}", failure.kind().label(), failure.message());
                self.tell(&Event::CallResult { op, ok: false, payload: told.as_bytes() });
            }
        }
    }

    fn respond(self: &Arc<Self>, request: u32, status: u16, headers: &str, body: BodyOut<'_>) {
        let Some(answer) = self.lock().requests.get_mut(&request).and_then(|slot| slot.answer.take()) else { return };
        let full = matches!(body, BodyOut::Full(_));
        let mut response = Response::new(self.body_out(Sink::Response(request), body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = header_map(headers);
        if full {
            // The real length is known, whatever JavaScript says.
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        let _ = answer.send(Ok(response));
    }

    fn finish(self: &Arc<Self>, request: u32, error: Option<ScriptError>) {
        let (slot, source) = self.take_request(request);
        if let Some(error) = error {
            let failure = thrown(&error);
            self.host.failed(request, &failure);
            self.end_feed(Sink::Response(request), Err(failure.clone()));
            if let Some(answer) = slot.and_then(|mut slot| slot.answer.take()) {
                let _ = answer.send(Err(failure));
            }
        }
        drop(source);
    }

    /// A body that goes out, wherever it comes from.
    fn body_out(self: &Arc<Self>, sink: Sink, body: BodyOut<'_>) -> Body {
        match body {
            BodyOut::None => empty_body(),
            BodyOut::Full(bytes) => full_body(Bytes::copy_from_slice(bytes)),
            BodyOut::Pipe(source) => self.take_source(source).map_or_else(empty_body, Arriving::into_body),
            BodyOut::Stream => {
                let feed = Feed::default();
                self.lock().feeds.insert(sink, feed.clone());
                feed.body(SinkReader { live: Arc::downgrade(self), sink }).boxed_unsync()
            }
        }
    }

    fn with_feed(&self, sink: Sink, change: impl FnOnce(&Feed)) {
        let feed = self.lock().feeds.get(&sink).cloned();
        feed.as_ref().map(change);
    }

    pub(super) fn end_feed(&self, sink: Sink, how: std::result::Result<(), Failure>) {
        let feed = self.lock().feeds.remove(&sink);
        if let Some(feed) = feed {
            feed.end(how);
        }
    }

    fn take_source(&self, of: Source) -> Option<Arriving> {
        self.lock().sources.remove(&of).flatten()
    }

    fn pull(self: &Arc<Self>, of: Source) {
        let Some(mut arriving) = self.lock().sources.get_mut(&of).and_then(Option::take) else {
            return self.tell(&Event::Broken { of, message: "the body is not there any more" });
        };
        match arriving.next().now_or_never() {
            Some(piece) => self.pulled(of, arriving, piece),
            None => {
                let live = Arc::downgrade(self);
                spawn(async move {
                    let piece = arriving.next().await;
                    if let Some(live) = live.upgrade() {
                        live.pulled(of, arriving, piece);
                        live.drive(|| true).await;
                    }
                });
            }
        }
    }

    fn pulled(&self, of: Source, arriving: Arriving, piece: Option<std::result::Result<Bytes, String>>) {
        let mut shared = self.lock();
        // Nobody may want it any more.
        let Some(place) = shared.sources.get_mut(&of) else { return };
        match piece {
            Some(Ok(_)) => *place = Some(arriving),
            _ => drop(shared.sources.remove(&of)),
        }
        drop(shared);
        match piece {
            Some(Ok(bytes)) => self.tell(&Event::Chunk { of, bytes: &bytes }),
            Some(Err(message)) => self.tell(&Event::Broken { of, message: &message }),
            None => self.tell(&Event::End { of }),
        }
    }

    fn fetch(
        self: &Arc<Self>,
        op: u32,
        request: u32,
        head: (&str, &str, &str),
        body: BodyOut<'_>,
        redirect: Redirect,
    ) -> Result<()> {
        let (method, url, headers) = head;
        let again = match body {
            BodyOut::None => Some(Bytes::new()),
            BodyOut::Full(bytes) => Some(Bytes::copy_from_slice(bytes)),
            _ => None,
        };
        let outgoing = Request::builder().method(method).uri(url).body(self.body_out(Sink::Fetch(op), body));
        let mut outgoing = match outgoing {
            Ok(outgoing) => outgoing,
            Err(error) => {
                self.tell(&Event::FetchFailed { op, message: &format!("{url}: {error}") });
                return Ok(());
            }
        };
        *outgoing.headers_mut() = header_map(headers);
        let host = Arc::clone(&self.host);
        let sending = Sending { request: number(request), redirect, again };
        self.start_task(op, move |live| async move {
            let sent = follow(&*host, sending, outgoing).await;
            live.upgrade().inspect(|live| live.fetched(op, sent))
        })
    }

    fn fetched(&self, op: u32, sent: std::result::Result<(Response<Body>, String), String>) {
        let (response, url) = match sent {
            Ok(sent) => sent,
            Err(message) => return self.tell(&Event::FetchFailed { op, message: &message }),
        };
        let (head, body) = response.into_parts();
        let mut headers = String::new();
        for (name, value) in &head.headers {
            lines::push(&mut headers, name.as_str(), value.as_bytes());
        }
        let start = Arriving::take_ready(body);
        let body = match &start {
            Start::Empty => BodyIn::None,
            Start::Full(bytes) => BodyIn::Full(bytes),
            Start::Streaming(_) => BodyIn::Stream,
        };
        self.tell(&Event::Head { op, status: head.status.as_u16(), url: &url, headers: &headers, body });
        if let Start::Streaming(arriving) = start {
            self.lock().sources.insert(Source::Fetch(op), Some(arriving));
        }
    }

    /// Starts a task that ends with an event told to the instance that it gives back, which then drives it.
    fn start_task<F>(self: &Arc<Self>, op: u32, task: impl FnOnce(std::sync::Weak<Self>) -> F) -> Result<()>
    where
        F: Future<Output = Option<Arc<Self>>> + Send + 'static,
    {
        let mut shared = self.lock();
        check_handles(&shared)?;
        let task = task(Arc::downgrade(self));
        let handle = spawn(async move {
            if let Some(live) = task.await {
                live.lock().tasks.remove(&op);
                live.drive(|| true).await;
            }
        });
        // The task cannot have ended before this: it needs the lock that is held here.
        if let Some(handle) = handle {
            shared.tasks.insert(op, handle);
        }
        Ok(())
    }

    fn stop_task(&self, op: u32) {
        let task = self.lock().tasks.remove(&op);
        if let Some(task) = task {
            task.abort();
        }
    }
}

/// A request's number, where 0 says that there is none.
fn number(request: u32) -> Option<u32> {
    (request != 0).then_some(request)
}

/// Refuses one more of what takes time.
pub(super) fn check_handles<T: 'static>(shared: &Shared<T>) -> Result<()> {
    let handles = shared.tasks.len() + shared.timers.len();
    ensure!(handles < HANDLES_MAX, "the function has more than {HANDLES_MAX} timers and fetches at once");
    Ok(())
}

/// Fields that say how a message travels, which is not JavaScript's to say (RFC 9110 §7.6.1), besides what `connection`
/// names.
const OF_THE_CONNECTION: [HeaderName; 5] =
    [header::TRANSFER_ENCODING, header::UPGRADE, header::TE, header::TRAILER, HeaderName::from_static("keep-alive")];

fn header_map(fields: &str) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines::fields(fields) {
        let name = HeaderName::from_bytes(name.as_bytes()).ok();
        let value = lines::value_bytes(value).and_then(|value| HeaderValue::from_bytes(&value).ok());
        // The prelude has checked both; what is still wrong cannot be sent.
        if let (Some(name), Some(value)) = (name, value)
            && !OF_THE_CONNECTION.contains(&name)
        {
            map.append(name, value);
        }
    }
    if map.contains_key(header::CONNECTION) {
        strip_hop_by_hop(&mut map);
    }
    map
}
