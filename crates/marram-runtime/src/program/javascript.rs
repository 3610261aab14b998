//! JavaScript source on the engine that comes with Marram: fresh instances, or ones that several requests share.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use http::{Request, Response, Uri, header};
use http_body_util::BodyExt as _;
use marram_core::limits::Limits;
use marram_core::port::Body;
use marram_core::record::Start;
use marram_core::{Failure, Kind};
use wasmtime::Store;

use crate::answer;
use crate::body::{Ready, RequestBody};
use crate::capability::script;
use crate::charged::charged;
use crate::cpu::{Account, SharedPollClock};
use crate::deployed::SourceText;
use crate::function::Environment;
use crate::invocation::Invocation;
use crate::js::{Arriving, Code, Image, Incoming, JsEngine, JsInstance, Live, Script, ScriptError, State as _};
use crate::load;
use crate::program::component02::NoInvocation;
use crate::program::occupants::{Occupant, Occupants};
use crate::shared::rest_a_little;
use crate::state::JsState;
use crate::uncaught;

/// Of the memory of an instance, what JavaScript may not have: the engine's stack, its own data, and messages on their way.
const ENGINE_BYTES: u64 = 3 << 20;
/// The least that JavaScript gets, whatever the limit: past the limit, the instance ends.
const SCRIPT_BYTES_MIN: u64 = 1 << 20;

/// A loaded script and its live instances.
pub(crate) struct JavaScript {
    engine: Arc<JsEngine<JsState>>,
    image: Arc<Image>,
    /// Those that may take a request; the one that was used last stands last.
    open: Mutex<Vec<Arc<Member>>>,
}

/// A live instance that may serve several requests.
struct Member {
    live: Arc<Live<JsState>>,
    occupants: Arc<Occupants>,
    accepted: AtomicU32,
}

impl Member {
    /// Whether it waits for a request.
    fn is_idle(&self) -> bool {
        self.occupants.idle_since().is_some() && self.live.is_open()
    }
}

impl JavaScript {
    /// Evaluates the function's source once, and keeps what it left behind.
    pub(crate) async fn load(
        environment: &Arc<Environment>,
        engine: Arc<JsEngine<JsState>>,
        text: &str,
    ) -> Result<Self, Failure> {
        let deployed = &environment.deployed;
        let file = deployed.source.as_ref().map_or("", SourceText::file);
        let account = NoInvocation::of(environment);
        let clock = SharedPollClock::default();
        let mut loaded = start(&engine, engine.booted(), environment, &clock).await?;
        let env: Vec<(&str, &str)> =
            deployed.config.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let granted = script::granted(&deployed.reach.allow);
        if let Some(kind) = script::hidden(&granted, &deployed.config) {
            let message =
                format!("`env.{kind}` is what it was granted, and its config or secret of that name: rename that");
            return Err(Failure::new(Kind::Invalid, message));
        }
        let granted: Vec<&str> = granted.iter().map(String::as_str).collect();
        let memory_bytes_max = script_bytes(&deployed.limits);
        let script = Script { file, code: Code::Source(text), env: &env, granted: &granted, memory_bytes_max };
        let evaluated = charged(loaded.load(&script), clock, &account).await;
        match evaluated {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(refused(file, &error)),
            Err(error) => {
                let failure = loaded.state().failure(error);
                let message = format!("{file} cannot be loaded: {}", failure.message());
                return Err(Failure::new(Kind::Invalid, message).because(failure.detail().unwrap_or_default()));
            }
        }
        let (capturing, fresh) = (Arc::clone(&engine), deployed.policy.reuse <= 1);
        let image = load::blocking(move || {
            let unmappable = |error: wasmtime::Error| {
                Failure::new(Kind::Internal, "the loaded script cannot be kept").because(format!("{error:#}"))
            };
            let image = loaded.capture(&capturing, fresh).map_err(unmappable);
            rest_a_little();
            image
        });
        Ok(Self { image: Arc::new(image.await?), engine, open: Mutex::default() })
    }

    /// Runs the function on a request, in the caller's task unless another one is driving the instance.
    pub(crate) async fn serve(
        &self,
        environment: &Arc<Environment>,
        request: Request<RequestBody>,
        invocation: Arc<Invocation>,
    ) -> Result<Response<Body>, Failure> {
        let mut member = self.member(environment, &invocation).await?;
        let is_head = answer::is_head(&request);
        let (parts, body) = request.into_parts();
        let mut incoming = Incoming {
            id: 0,
            method: parts.method,
            url: absolute(&parts.uri, parts.headers.get(header::HOST)),
            headers: parts.headers,
            body: Arriving::take_ready(body.boxed_unsync()),
            deadline: invocation.deadline,
            keep: Box::new(()),
        };
        let answered = loop {
            let occupant = Occupant::enter(&member.occupants, &invocation);
            incoming.id = occupant.id;
            // The instance stays as long as the request is in it, whoever else lets go of it.
            incoming.keep = Box::new((occupant, Arc::clone(&member)));
            match member.live.request(incoming).await {
                Ok(answered) => break answered,
                Err(back) => {
                    // It was closed since it was chosen.
                    incoming = *back;
                    member = self.member(environment, &invocation).await?;
                }
            }
        };
        if !member.live.is_open() {
            self.open().retain(|other| !Arc::ptr_eq(other, &member));
        }
        let response = answered?;
        let (parts, mut body) = response.into_parts();
        let mut ready = Ready::default();
        std::future::poll_fn(|cx| std::task::Poll::Ready(ready.take(&mut body, cx))).await;
        answer::answer(parts, ready, body, is_head, invocation, None)
    }

    pub(crate) fn idle(&self) -> usize {
        self.open().iter().filter(|member| member.is_idle()).count()
    }

    pub(crate) fn reap(&self, before: Instant, keep: usize) {
        let mut open = self.open();
        open.retain(|member| member.live.is_open());
        let mut excess = open.iter().filter(|member| member.is_idle()).count().saturating_sub(keep);
        let (old, kept) = std::mem::take(&mut *open).into_iter().partition(|member| {
            let old = excess > 0 && member.occupants.idle_since().is_some_and(|since| since < before);
            excess -= usize::from(old);
            old
        });
        *open = kept;
        drop(open);
        let old: Vec<Arc<Member>> = old;
        drop(old);
    }

    pub(crate) async fn warm(&self, environment: &Arc<Environment>) -> Result<(), Failure> {
        let member = self.instantiate(environment, &NoInvocation::of(environment)).await?;
        self.open().insert(0, member);
        Ok(())
    }

    /// The instance for a request: a live one, or its own.
    async fn member(
        &self,
        environment: &Arc<Environment>,
        invocation: &Arc<Invocation>,
    ) -> Result<Arc<Member>, Failure> {
        match self.choose(environment, invocation) {
            Some(member) => Ok(member),
            None => self.begin(environment, invocation).await,
        }
    }

    /// A live instance for one more request. One in which JavaScript is running makes its caller wait, so while there
    /// are fewer than processors, a new one is better.
    fn choose(&self, environment: &Environment, invocation: &Invocation) -> Option<Arc<Member>> {
        let policy = environment.deployed.policy;
        let mut open = self.open();
        // One that was closed behind the answer of its last request is still there.
        open.retain(|member| member.live.is_open());
        let has_room = |member: &&Arc<Member>| member.occupants.count() < policy.concurrent as usize;
        let member = match open.iter().rev().filter(has_room).find(|member| !member.live.is_running()) {
            Some(member) => Arc::clone(member),
            None if open.len() < environment.shared.processors => return None,
            None => Arc::clone(open.iter().filter(has_room).min_by_key(|member| member.occupants.count())?),
        };
        let accepted = member.accepted.fetch_add(1, Ordering::Relaxed) + 1;
        invocation.set_start(if accepted == 1 { Start::Fresh } else { Start::Reused });
        if accepted >= policy.reuse {
            open.retain(|other| !Arc::ptr_eq(other, &member));
        }
        Some(member)
    }

    /// A new instance for a request that pays for it.
    async fn begin(
        &self,
        environment: &Arc<Environment>,
        invocation: &Arc<Invocation>,
    ) -> Result<Arc<Member>, Failure> {
        let member = self.instantiate(environment, invocation).await.inspect_err(|failure| invocation.fail(failure))?;
        member.accepted.store(1, Ordering::Relaxed);
        if environment.deployed.policy.reuse > 1 {
            self.open().push(Arc::clone(&member));
        }
        Ok(member)
    }

    async fn instantiate(
        &self,
        environment: &Arc<Environment>,
        account: &impl Account,
    ) -> Result<Arc<Member>, Failure> {
        let clock = SharedPollClock::default();
        let made = start(&self.engine, &self.image, environment, &clock);
        let instance = charged(made, Arc::clone(&clock), account).await?;
        let occupants = Occupants::new(&environment.deployed);
        let live = Live::new(instance, Arc::clone(&occupants) as _);
        Ok(Arc::new(Member { live, occupants, accepted: AtomicU32::new(0) }))
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Member>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An instance of the engine, in the state of an image.
async fn start(
    engine: &JsEngine<JsState>,
    image: &Arc<Image>,
    environment: &Environment,
    clock: &SharedPollClock,
) -> Result<JsInstance<JsState>, Failure> {
    let store: Store<JsState> = JsState::store(&environment.shared.machines.plain.engine, &environment.deployed, clock);
    JsInstance::start(store, engine, image).await
}

fn script_bytes(limits: &Limits) -> u32 {
    let bytes = limits.memory.0.saturating_sub(ENGINE_BYTES).max(SCRIPT_BYTES_MIN);
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// A script that does not load, with the place that an editor jumps to.
fn refused(file: &str, error: &ScriptError) -> Failure {
    let ScriptError { name, message, line, column, .. } = error;
    let place = if *line == 0 { file.to_owned() } else { format!("{file}:{line}:{column}") };
    Failure::new(Kind::Invalid, format!("{place}: {name}: {message}")).because(uncaught::of_javascript(&error.stack))
}

/// A request's URL as JavaScript sees it.
fn absolute(uri: &Uri, host: Option<&http::HeaderValue>) -> String {
    if uri.scheme().is_some() && uri.authority().is_some() {
        return uri.to_string();
    }
    let authority = uri.authority().map(http::uri::Authority::as_str);
    let authority = authority.or_else(|| host.and_then(|host| host.to_str().ok())).unwrap_or("localhost");
    format!("http://{authority}{}", uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str))
}
