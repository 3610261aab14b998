//! Components of `wasi:http/incoming-handler@0.2`, and those that only watch keys: one run at a time in an instance.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use marram_core::port::Body;
use marram_core::record::Start;
use marram_core::{Failure, Kind};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use wasmtime::Store;
use wasmtime::component::{self, InstancePre};
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::bindings::{Proxy, ProxyIndices};
use wasmtime_wasi_http::{WasiBody, WasiHttpView as _};

use crate::answer::{self, StopRun};
use crate::body::{Ready, RequestBody};
use crate::charged::charged;
use crate::codes;
use crate::cpu::{Account, SharedPollClock};
use crate::function::Environment;
use crate::invocation::Invocation;
use crate::kind::Kind as ProgramKind;
use crate::program::loader;
use crate::program::watcher::{self, Watcher, WatcherIndices};
use crate::state::GuestState;
use crate::trap;

/// A linked component and its idle instances.
pub(crate) struct Component02 {
    pre: InstancePre<GuestState>,
    exports: Indices,
    /// Whether it is a language engine, which has a program to load.
    engine: bool,
    idle: Mutex<Vec<Instance>>,
}

/// Where a component is called.
struct Indices {
    /// `None` for one that only watches keys.
    handler: Option<ProxyIndices>,
    watcher: Option<WatcherIndices>,
}

/// The same of an instance.
struct Exports {
    handler: Option<Proxy>,
    watcher: Option<Watcher>,
}

struct Instance {
    store: Store<GuestState>,
    exports: Exports,
    served: u32,
    since: Instant,
}

type Answer = Result<Response<WasiBody>, ErrorCode>;
type Run = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

impl Component02 {
    pub(crate) fn new(pre: InstancePre<GuestState>, kind: ProgramKind) -> wasmtime::Result<Self> {
        let handler = (kind != ProgramKind::Watcher).then(|| ProxyIndices::new(&pre)).transpose()?;
        let watcher = WatcherIndices::of(pre.component());
        Ok(Self { pre, exports: Indices { handler, watcher }, engine: false, idle: Mutex::default() })
    }

    /// A language engine for one of its programs.
    pub(crate) fn of_engine(pre: InstancePre<GuestState>) -> wasmtime::Result<Self> {
        let exports = Indices { handler: Some(ProxyIndices::new(&pre)?), watcher: None };
        Ok(Self { pre, exports, engine: true, idle: Mutex::default() })
    }

    /// Runs the guest in the caller's task until its answer is there. A run that ends by then costs no task; one that
    /// goes on gets a task of its own.
    pub(crate) async fn serve(
        self: &Arc<Self>,
        environment: &Arc<Environment>,
        request: Request<RequestBody>,
        invocation: Arc<Invocation>,
    ) -> Result<Response<Body>, Failure> {
        if self.exports.handler.is_none() {
            watcher::check_change(&request)?;
        }
        let is_head = answer::is_head(&request);
        let (reply, mut head) = oneshot::channel();
        let run = run(Arc::clone(self), Arc::clone(environment), Arc::clone(&invocation), request, reply);
        let mut run: Run = Box::pin(run);
        let answered = tokio::time::timeout_at(
            invocation.deadline.into(),
            std::future::poll_fn(|cx| poll_head(&mut run, &mut head, cx)),
        );
        let Ok(answered) = answered.await else {
            let failure = trap::deadline(&invocation.deployed.limits);
            invocation.fail(&failure);
            return Err(failure);
        };
        let (answer, ended) = answered?;
        let response = match answer {
            Ok(response) => response,
            Err(code) => {
                let failure = if self.engine { loader::raised(code) } else { codes::failed_answer(&code.into()) };
                invocation.fail(&failure);
                // Its instance is used again like any other.
                if !ended {
                    finish_elsewhere(environment, run, Arc::clone(&invocation));
                }
                return Err(failure);
            }
        };
        let (parts, body) = response.into_parts();
        let mut body = body.map_err(|error| codes::given_up(&error));
        let mut ready = Ready::default();
        std::future::poll_fn(|cx| Poll::Ready(ready.take(&mut body, cx))).await;
        let stop = if ended { None } else { Some(finish_elsewhere(environment, run, Arc::clone(&invocation))) };
        answer::answer(parts, ready, body, is_head, invocation, stop)
    }

    pub(crate) fn idle(&self) -> usize {
        self.instances().len()
    }

    pub(crate) fn reap(&self, before: Instant, keep: usize) {
        let mut instances = self.instances();
        let excess = instances.len().saturating_sub(keep);
        // The oldest stand first: the newest are used again first, because their memory is in the caches.
        let old = instances.iter().take(excess).take_while(|instance| instance.since < before).count();
        let dropped: Vec<_> = instances.drain(..old).collect();
        drop(instances);
        drop(dropped);
    }

    pub(crate) async fn warm(&self, environment: &Arc<Environment>) -> Result<(), Failure> {
        let account = NoInvocation::of(environment);
        let instance = match self.engine {
            true => self.load(environment, &account).await?,
            false => self.instantiate(environment, &account).await?,
        };
        self.instances().insert(0, instance);
        Ok(())
    }

    /// Loads the program of an engine in an instance that nobody will use.
    pub(crate) async fn check(&self, environment: &Arc<Environment>) -> Result<(), Failure> {
        if self.engine {
            self.load(environment, &NoInvocation::of(environment)).await?;
        }
        Ok(())
    }

    fn instances(&self) -> std::sync::MutexGuard<'_, Vec<Instance>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn instantiate(&self, environment: &Environment, account: &impl Account) -> Result<Instance, Failure> {
        let deployed = &environment.deployed;
        let clock = SharedPollClock::default();
        let mut store = GuestState::store(self.pre.engine(), deployed, &clock);
        let making = async {
            let instance = self.pre.instantiate_async(&mut store).await?;
            self.exports.load(&mut store, &instance)
        };
        match charged(making, clock, account).await {
            Ok(exports) => Ok(Instance { store, exports, served: 0, since: deployed.clock.instant() }),
            Err(error) => Err(trap::at_instantiation(error, store.data().limiter.refused(), &deployed.limits)),
        }
    }

    /// An instance of an engine, with its program.
    async fn load(&self, environment: &Environment, account: &impl Account) -> Result<Instance, Failure> {
        let deployed = &environment.deployed;
        let clock = SharedPollClock::default();
        let mut store = GuestState::store(self.pre.engine(), deployed, &clock);
        let loading = async {
            let instance = self.pre.instantiate_async(&mut store).await?;
            let loaded = loader::load(&mut store, &instance).await?;
            Ok(loaded.map(|()| self.exports.load(&mut store, &instance)))
        };
        match charged(loading, clock, account).await {
            Ok(Ok(Ok(exports))) => Ok(Instance { store, exports, served: 0, since: deployed.clock.instant() }),
            Ok(Err(mistake)) => Err(loader::refused(mistake)),
            Ok(Ok(Err(error))) | Err(error) => {
                Err(trap::at_instantiation(error, store.data().limiter.refused(), &deployed.limits))
            }
        }
    }

    fn give_back(&self, environment: &Environment, mut instance: Instance) {
        let deployed = &environment.deployed;
        // componentize-py 0.25 never frees a `list<u8>` that it has passed on, so an engine grows with what it answers. It goes
        // before a request pays for that.
        let grown = self.engine && instance.store.data().limiter.memory_bytes() > deployed.limits.memory.0 / 2;
        if instance.served < deployed.policy.reuse && !grown {
            instance.since = deployed.clock.instant();
            self.instances().push(instance);
        }
    }
}

impl Indices {
    fn load(&self, store: &mut Store<GuestState>, instance: &component::Instance) -> wasmtime::Result<Exports> {
        Ok(Exports {
            handler: self.handler.as_ref().map(|handler| handler.load(&mut *store, instance)).transpose()?,
            watcher: self.watcher.as_ref().map(|watcher| watcher.load(store, instance)).transpose()?,
        })
    }
}

/// One run from instance to end. Its failure is told to the invocation before the instance goes, because the body of
/// the answer breaks off with the instance and must find the reason.
async fn run(
    component: Arc<Component02>,
    environment: Arc<Environment>,
    invocation: Arc<Invocation>,
    request: Request<RequestBody>,
    reply: oneshot::Sender<Answer>,
) -> Result<(), Failure> {
    let taken = component.instances().pop();
    let mut instance = match taken {
        Some(instance) => {
            invocation.set_start(if instance.served == 0 { Start::Fresh } else { Start::Reused });
            instance
        }
        None => {
            component.instantiate(&environment, &invocation).await.inspect_err(|failure| invocation.fail(failure))?
        }
    };
    instance.served += 1;
    let console = Arc::clone(&instance.store.data().console);
    console.begin(Arc::clone(&invocation));
    let clock = Arc::clone(&instance.store.data().clock);
    let result = charged(call(&mut instance, &invocation, request, reply), clock, &invocation).await;
    console.end(&invocation);
    match result {
        Ok(()) => {
            component.give_back(&environment, instance);
            Ok(())
        }
        Err(error) => {
            let refused = instance.store.data().limiter.refused();
            let failure = trap::classify(error, refused, &environment.deployed.limits);
            invocation.fail(&failure);
            Err(failure)
        }
    }
}

async fn call(
    instance: &mut Instance,
    invocation: &Invocation,
    mut request: Request<RequestBody>,
    reply: oneshot::Sender<Answer>,
) -> wasmtime::Result<()> {
    if let Some(watcher) = &instance.exports.watcher
        && let Some(change) = watcher::take_change(&mut request, invocation)
    {
        watcher.tell(&mut instance.store, change).await?;
        // Nobody waits any more if delivery has stopped.
        let _ = reply.send(Ok(watcher::told()));
        return Ok(());
    }
    // What is no change was refused before, where there is no handler.
    let Some(handler) = &instance.exports.handler else { return Ok(()) };
    let mut http = instance.store.data_mut().http();
    let request = http.new_incoming_request(Scheme::Http, request.map(RequestBody::into_wasi))?;
    let out = http.new_response_outparam(reply)?;
    handler.wasi_http_incoming_handler().call_handle(&mut instance.store, request, out).await
}

/// Polls the run until its answer's head is there. Says whether the run has ended too.
fn poll_head(
    run: &mut Run,
    head: &mut oneshot::Receiver<Answer>,
    cx: &mut Context<'_>,
) -> Poll<Result<(Answer, bool), Failure>> {
    let ended = run.as_mut().poll(cx);
    match (head.try_recv(), ended) {
        // Nothing was sent yet, so a run that has failed after its head can still be told as what it is.
        (_, Poll::Ready(Err(failure))) => Poll::Ready(Err(failure)),
        (Ok(answer), ended) => Poll::Ready(Ok((answer, ended.is_ready()))),
        (Err(_), Poll::Ready(Ok(()))) => Poll::Ready(Err(Failure::new(
            Kind::NoResponse,
            "the function returned without an answer: it has to set the response (`response-outparam.set`)",
        ))),
        (Err(_), Poll::Pending) => Poll::Pending,
    }
}

/// Gives the rest of a run, whose answer is on its way, a task of its own.
fn finish_elsewhere(environment: &Arc<Environment>, mut run: Run, invocation: Arc<Invocation>) -> Box<dyn StopRun> {
    let task_environment = Arc::clone(environment);
    let handle = environment.shared.tasks.spawn(async move {
        let turns = task_environment.shared.turns.take(task_environment.line(), false, &mut run);
        let late = tokio::time::timeout_at(invocation.deadline.into(), turns).await.is_err();
        // Failures inside the run have been told by it.
        if late {
            invocation.fail(&trap::deadline(&invocation.deployed.limits));
            drop(run);
            invocation.let_next_in();
        }
    });
    Box::new(Stop(handle.abort_handle()))
}

struct Stop(AbortHandle);

impl StopRun for Stop {
    fn stop(&mut self) {
        self.0.abort();
    }
}

/// Pays for instances that are made before a request comes: as much as one invocation may use, for all of it.
pub(crate) struct NoInvocation(AtomicU64);

impl NoInvocation {
    pub(crate) fn of(environment: &Environment) -> Self {
        let cpu_ns = u64::try_from(environment.deployed.limits.cpu.as_nanos()).unwrap_or(u64::MAX);
        Self(AtomicU64::new(cpu_ns))
    }
}

impl Account for NoInvocation {
    fn allowed_ns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// A guest that is interrupted goes on in another poll, which gets what the earlier ones have left.
    fn charge(&self, ns: u64, _: u64) {
        self.0.store(self.allowed_ns().saturating_sub(ns), Ordering::Relaxed);
    }
}
