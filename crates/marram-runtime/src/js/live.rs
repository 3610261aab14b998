//! A live instance that several requests share. Whoever brings an event and finds the instance free drives it; the others
//! only leave their events, which the driver takes along. A request that is alone thus never leaves its task.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use http::{HeaderMap, Response};
use marram_core::port::Body;
use marram_js_abi::{BodyIn, Event, Sink, Source, lines, push};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::engine::Imports;
use super::incoming::{Arriving, Start};
use super::instance::JsInstance;
use super::outgoing::{Feed, Reader};
use super::{Host, JsFailure};

/// A driver goes on for others this often once its own request is answered; then the rest gets a task of its own.
const TURNS_FOR_OTHERS_MAX: u32 = 4;

/// A request for JavaScript.
pub(crate) struct Incoming {
    /// Not used before in this instance, and not zero.
    pub(crate) id: u32,
    pub(crate) method: http::Method,
    /// Absolute.
    pub(crate) url: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    /// Kept until the request is done with everything that it waits for, and dropped then.
    pub(crate) keep: Box<dyn Send>,
}

type Answer = Result<Response<Body>, JsFailure>;

/// An instance with the requests and operations in it.
pub(crate) struct Live<T: 'static> {
    pub(super) host: Arc<dyn Host>,
    shared: Mutex<Shared<T>>,
}

pub(super) struct Shared<T: 'static> {
    /// Absent while somebody drives it, and once it is dead.
    instance: Option<Box<JsInstance<T>>>,
    /// Encoded events that the next turn takes.
    events: Vec<u8>,
    pub(super) requests: HashMap<u32, Slot>,
    /// Bodies that JavaScript may still pull; none while a piece is on its way.
    pub(super) sources: HashMap<Source, Option<Arriving>>,
    pub(super) feeds: HashMap<Sink, Feed>,
    /// Timers and fetches by number.
    pub(super) tasks: HashMap<u32, AbortHandle>,
    dead: Option<JsFailure>,
}

/// A request that is not done.
pub(super) struct Slot {
    pub(super) answer: Option<oneshot::Sender<Answer>>,
    pub(super) keep: Box<dyn Send>,
}

impl<T: Imports> Live<T> {
    /// Takes an instance that has its script.
    pub(crate) fn new(instance: JsInstance<T>, host: Arc<dyn Host>) -> Arc<Self> {
        let shared = Shared {
            instance: Some(Box::new(instance)),
            events: Vec::new(),
            requests: HashMap::new(),
            sources: HashMap::new(),
            feeds: HashMap::new(),
            tasks: HashMap::new(),
            dead: None,
        };
        Arc::new(Self { host, shared: Mutex::new(shared) })
    }

    /// Requests that are not done: unanswered, still sending, or waiting for `waitUntil`.
    pub(crate) fn in_flight(&self) -> usize {
        self.lock().requests.len()
    }

    /// Why it takes no more requests, if it does not.
    pub(crate) fn failure(&self) -> Option<JsFailure> {
        self.lock().dead.clone()
    }

    /// Ends everything in it.
    pub(crate) fn close(&self) {
        self.die(JsFailure::Closed);
    }

    /// Runs the function on a request. Dropping the future tells JavaScript that the client is gone.
    pub(crate) async fn request(self: &Arc<Self>, incoming: Incoming) -> Answer {
        let id = incoming.id;
        let (send, mut receive) = oneshot::channel();
        self.enter(incoming, send)?;
        let leave = Leave { live: Arc::downgrade(self), request: id, armed: true };
        self.drive(|| !receive.is_empty()).await;
        let answer = (&mut receive).await.unwrap_or(Err(JsFailure::Closed));
        leave.disarm();
        answer
    }

    fn enter(&self, incoming: Incoming, answer: oneshot::Sender<Answer>) -> Result<(), JsFailure> {
        let mut headers = String::with_capacity(incoming.headers.len() * 32);
        for (name, value) in &incoming.headers {
            lines::push(&mut headers, name.as_str(), value.as_bytes());
        }
        let start = Arriving::take_ready(incoming.body);
        let mut shared = self.lock();
        if let Some(failure) = &shared.dead {
            return Err(failure.clone());
        }
        let id = incoming.id;
        let body = match &start {
            Start::Empty => BodyIn::None,
            Start::Full(bytes) => BodyIn::Full(bytes),
            Start::Streaming(_) => BodyIn::Stream,
        };
        let event = Event::Request { id, method: incoming.method.as_str(), url: &incoming.url, headers: &headers, body };
        push(&mut shared.events, &event);
        if let Start::Streaming(arriving) = start {
            shared.sources.insert(Source::Request(id), Some(arriving));
        }
        shared.requests.insert(id, Slot { answer: Some(answer), keep: incoming.keep });
        Ok(())
    }

    /// Adds an event for the next turn.
    pub(super) fn tell(&self, event: &Event<'_>) {
        let mut shared = self.lock();
        if shared.dead.is_none() {
            push(&mut shared.events, event);
        }
    }

    /// Runs turns until there are no events, unless somebody does already.
    pub(super) async fn drive(self: &Arc<Self>, satisfied: impl Fn() -> bool + Send) {
        let mut turns = 0;
        while let Some((instance, events)) = self.take_turn() {
            if turns >= TURNS_FOR_OTHERS_MAX && satisfied() {
                self.put_back(instance, events);
                return self.nudge();
            }
            turns += 1;
            Turn(Some(Box::pin(Arc::clone(self).turn(instance, events)))).await;
        }
    }

    /// Has the waiting events driven by a task of their own: for those who cannot wait. It ends with the events.
    pub(super) fn nudge(self: &Arc<Self>) {
        let live = Arc::clone(self);
        spawn(async move { live.drive(|| false).await });
    }

    fn take_turn(&self) -> Option<(Box<JsInstance<T>>, Vec<u8>)> {
        let mut shared = self.lock();
        if shared.events.is_empty() {
            return None;
        }
        let instance = shared.instance.take()?;
        Some((instance, std::mem::take(&mut shared.events)))
    }

    fn put_back(&self, instance: Box<JsInstance<T>>, mut events: Vec<u8>) {
        let mut shared = self.lock();
        events.extend_from_slice(&shared.events);
        shared.events = events;
        shared.instance = Some(instance);
    }

    async fn turn(self: Arc<Self>, mut instance: Box<JsInstance<T>>, mut events: Vec<u8>) {
        let done = match instance.turn(&events).await {
            Ok(actions) => self.carry_out(actions),
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            return self.die(JsFailure::trapped(error));
        }
        let mut shared = self.lock();
        if shared.dead.is_none() {
            if shared.events.is_empty() {
                // Its room is used again.
                events.clear();
                shared.events = events;
            }
            shared.instance = Some(instance);
        }
    }

    pub(super) fn die(&self, failure: JsFailure) {
        let mut shared = self.lock();
        shared.dead.get_or_insert_with(|| failure.clone());
        let instance = shared.instance.take();
        let requests = std::mem::take(&mut shared.requests);
        let feeds = std::mem::take(&mut shared.feeds);
        let sources = std::mem::take(&mut shared.sources);
        let tasks = std::mem::take(&mut shared.tasks);
        drop(shared);
        tasks.into_values().for_each(|task| task.abort());
        feeds.into_values().for_each(|feed| feed.end(Err(failure.to_string())));
        for (_, slot) in requests {
            if let Some(answer) = slot.answer {
                let _ = answer.send(Err(failure.clone()));
            }
        }
        drop((instance, sources));
    }
}

impl<T: 'static> Live<T> {
    pub(super) fn lock(&self) -> MutexGuard<'_, Shared<T>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: 'static> Drop for Live<T> {
    fn drop(&mut self) {
        let shared = self.shared.get_mut().unwrap_or_else(PoisonError::into_inner);
        shared.tasks.values().for_each(AbortHandle::abort);
        shared.feeds.values().for_each(|feed| feed.end(Err(JsFailure::Closed.to_string())));
    }
}

/// Spawns on the runtime that is here; without one, the process is ending and so is everything that waits.
pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Option<AbortHandle> {
    Some(tokio::runtime::Handle::try_current().ok()?.spawn(task).abort_handle())
}

/// A turn that goes on in a task of its own when whoever drove it goes away: other requests are in the instance too.
struct Turn(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(turn) = &mut self.0 else { return Poll::Ready(()) };
        std::task::ready!(turn.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turn) = self.0.take() {
            spawn(turn);
        }
    }
}

/// Tells JavaScript that the client went away before the answer.
struct Leave<T: Imports> {
    live: Weak<Live<T>>,
    request: u32,
    armed: bool,
}

impl<T: Imports> Leave<T> {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl<T: Imports> Drop for Leave<T> {
    fn drop(&mut self) {
        if self.armed
            && let Some(live) = self.live.upgrade()
        {
            live.tell(&Event::Cancel { request: self.request });
            live.nudge();
        }
    }
}

/// Watches a body that JavaScript sends.
pub(super) struct SinkReader<T: Imports> {
    pub(super) live: Weak<Live<T>>,
    pub(super) sink: Sink,
}

impl<T: Imports> Reader for SinkReader<T> {
    fn took(&self, bytes: usize) {
        let Some(live) = self.live.upgrade() else { return };
        live.tell(&Event::Drained { to: self.sink, bytes: u32::try_from(bytes).unwrap_or(u32::MAX) });
        live.nudge();
    }

    fn left(&self) {
        let Some(live) = self.live.upgrade() else { return };
        live.lock().feeds.remove(&self.sink);
        if let Sink::Response(request) = self.sink {
            live.tell(&Event::Cancel { request });
            live.nudge();
        }
    }
}
