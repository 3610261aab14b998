//! A live instance that several requests share. Whoever brings an event and finds the instance free drives it; the others
//! only leave their events, which the driver takes along. A request that is alone thus never leaves its task.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Instant;

use http::{HeaderMap, Response};
use marram_core::port::Body;
use marram_core::{Failure, Kind};
use marram_js_abi::{BodyIn, Event, Sink, Source, lines, push};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::Host;
use super::engine::State;
use super::incoming::{Arriving, Start};
use super::instance::JsInstance;
use super::outgoing::Feed;
use super::tasks::{Leave, Turn, spawn};
use super::timers::Timers;
use crate::cpu::poll_charged;

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
    pub(crate) body: Start,
    /// When it has to be over. It is given up then, and the instance with it.
    pub(crate) deadline: Instant,
    /// Kept until the request is done with everything that it waits for, and dropped then.
    pub(crate) keep: Box<dyn Send>,
}

type Answer = Result<Response<Body>, Failure>;

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
    /// Fetches and calls of the node by number.
    pub(super) tasks: HashMap<u32, AbortHandle>,
    pub(super) timers: Timers,
    dead: Option<Failure>,
    /// A request was given up: what JavaScript still does for it cannot be told from the rest, so nothing new is begun.
    retired: bool,
}

/// A request that is not done.
pub(super) struct Slot {
    pub(super) answer: Option<oneshot::Sender<Answer>>,
    /// Gives it up at its deadline, once nobody waits for its answer.
    guard: Option<AbortHandle>,
    _keep: Box<dyn Send>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(guard) = &self.guard {
            guard.abort();
        }
    }
}

impl<T: State> Live<T> {
    /// Takes an instance that has its script.
    pub(crate) fn new(instance: JsInstance<T>, host: Arc<dyn Host>) -> Arc<Self> {
        let shared = Shared {
            instance: Some(Box::new(instance)),
            events: Vec::new(),
            requests: HashMap::new(),
            sources: HashMap::new(),
            feeds: HashMap::new(),
            tasks: HashMap::new(),
            timers: Timers::default(),
            dead: None,
            retired: false,
        };
        Arc::new(Self { host, shared: Mutex::new(shared) })
    }

    /// Whether it can be given a request.
    pub(crate) fn is_open(&self) -> bool {
        self.lock().is_open()
    }

    /// Whether JavaScript runs in it at this moment.
    pub(crate) fn is_running(&self) -> bool {
        self.lock().instance.is_none()
    }

    /// Runs the function on a request. Dropping the future tells JavaScript that the client is gone. An instance that is not
    /// open gives the request back: nothing of it was begun.
    pub(crate) async fn request(self: &Arc<Self>, incoming: Incoming) -> Result<Answer, Box<Incoming>> {
        let (request, deadline) = (incoming.id, incoming.deadline);
        let (send, mut receive) = oneshot::channel();
        self.enter(incoming, send)?;
        Ok(self.answered(request, deadline, &mut receive).await)
    }

    async fn answered(
        self: &Arc<Self>,
        request: u32,
        deadline: Instant,
        receive: &mut oneshot::Receiver<Answer>,
    ) -> Answer {
        let mut leave = Leave { live: Arc::downgrade(self), request, deadline, armed: true };
        let answer = async {
            self.drive(|| !receive.is_empty()).await;
            (&mut *receive).await.unwrap_or_else(|_| Err(closed()))
        };
        let answer = tokio::time::timeout_at(deadline.into(), answer).await;
        leave.armed = false;
        match answer {
            Ok(answer) => {
                self.guard(request, deadline);
                answer
            }
            Err(_) => {
                let failure = self.host.late();
                self.host.failed(request, &failure);
                self.give_up(request, &failure);
                Err(failure)
            }
        }
    }

    /// From here on nobody waits for the request itself: what is left of it ends at its deadline at the latest.
    pub(super) fn guard(self: &Arc<Self>, request: u32, deadline: Instant) {
        let mut shared = self.lock();
        let Some(slot) = shared.requests.get_mut(&request) else { return };
        let live = Arc::downgrade(self);
        slot.guard = spawn(async move {
            tokio::time::sleep_until(deadline.into()).await;
            if let Some(live) = live.upgrade() {
                let late = live.host.late();
                // A client that went away took its feed along: then that is how it ended.
                let read = live.lock().feeds.contains_key(&Sink::Response(request));
                if read {
                    live.host.failed(request, &late);
                }
                live.give_up(request, &late);
            }
        });
    }

    /// Lets go of a request that did not end. JavaScript cannot be stopped for one request alone.
    fn give_up(&self, request: u32, failure: &Failure) {
        // First: whoever is let in next must not be sent here.
        self.lock().retired = true;
        self.host.given_up(request);
        let (slot, source) = self.take_request(request);
        self.end_feed(Sink::Response(request), Err(failure.clone()));
        let empty = self.lock().requests.is_empty();
        if empty {
            self.die(&closed());
        }
        // Last: the slot may hold what holds this.
        drop((slot, source));
    }

    pub(super) fn take_request(&self, request: u32) -> (Option<Slot>, Option<Option<Arriving>>) {
        let mut shared = self.lock();
        (shared.requests.remove(&request), shared.sources.remove(&Source::Request(request)))
    }

    fn enter(&self, incoming: Incoming, answer: oneshot::Sender<Answer>) -> Result<(), Box<Incoming>> {
        let mut headers = String::with_capacity(incoming.headers.len() * 32);
        for (name, value) in &incoming.headers {
            lines::push(&mut headers, name.as_str(), value.as_bytes());
        }
        let mut shared = self.lock();
        if !shared.is_open() {
            return Err(Box::new(incoming));
        }
        let id = incoming.id;
        let body = match &incoming.body {
            Start::Empty => BodyIn::None,
            Start::Full(bytes) => BodyIn::Full(bytes),
            Start::Streaming(_) => BodyIn::Stream,
        };
        let event =
            Event::Request { id, method: incoming.method.as_str(), url: &incoming.url, headers: &headers, body };
        push(&mut shared.events, &event);
        if let Start::Streaming(arriving) = incoming.body {
            shared.sources.insert(Source::Request(id), Some(arriving));
        }
        shared.requests.insert(id, Slot { answer: Some(answer), guard: None, _keep: incoming.keep });
        Ok(())
    }

    /// Adds an event for the next turn.
    pub(super) fn tell(&self, event: &Event<'_>) {
        self.lock().tell(event);
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

    /// One turn, its CPU time charged, and ended early if the instance is closed meanwhile.
    async fn turn(self: Arc<Self>, mut instance: Box<JsInstance<T>>, mut events: Vec<u8>) {
        let clock = Arc::clone(instance.state().clock());
        let done = {
            let mut turn = std::pin::pin!(instance.turn(&events));
            let turned = std::future::poll_fn(|cx| {
                // Not held while JavaScript runs: others bring events meanwhile.
                let dead = self.lock().dead.is_some();
                if dead { Poll::Ready(None) } else { poll_charged(turn.as_mut(), &clock, &*self.host, cx).map(Some) }
            });
            turned.await.map(|turned| self.carry_out(turned?))
        };
        match done {
            Some(Ok(())) => {}
            Some(Err(error)) => return self.die(&instance.state().failure(error)),
            None => return,
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

    pub(super) fn die(&self, failure: &Failure) {
        let mut shared = self.lock();
        shared.dead.get_or_insert_with(|| failure.clone());
        let instance = shared.instance.take();
        let requests = std::mem::take(&mut shared.requests);
        let feeds = std::mem::take(&mut shared.feeds);
        let sources = std::mem::take(&mut shared.sources);
        let tasks = std::mem::take(&mut shared.tasks);
        shared.timers.stop();
        drop(shared);
        tasks.into_values().for_each(|task| task.abort());
        requests.keys().for_each(|request| self.host.failed(*request, failure));
        feeds.into_values().for_each(|feed| feed.end(Err(failure.clone())));
        for mut slot in requests.into_values() {
            if let Some(answer) = slot.answer.take() {
                let _ = answer.send(Err(failure.clone()));
            }
        }
        drop((instance, sources));
    }
}

impl<T: 'static> Shared<T> {
    fn is_open(&self) -> bool {
        self.dead.is_none() && !self.retired
    }

    /// [`Live::tell`], for several events that stay together.
    pub(super) fn tell(&mut self, event: &Event<'_>) {
        if self.dead.is_none() {
            push(&mut self.events, event);
        }
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
        shared.timers.stop();
        shared.feeds.values().for_each(|feed| feed.end(Err(closed())));
    }
}

pub(super) fn closed() -> Failure {
    Failure::new(Kind::Internal, "the function's instance was closed")
}
