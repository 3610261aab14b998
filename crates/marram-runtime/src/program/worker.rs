//! A live instance of 0.3: one future that owns its store and serves what its inbox is given.
//!
//! The future is polled by whoever has it: a request's own task as long as that suffices, a task of its own when the
//! guest waits for something. Between requests it is not polled at all.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::stream::{FuturesUnordered, StreamExt as _};
use marram_core::Failure;
use wasmtime::component::{Accessor, InstancePre};
use wasmtime_wasi_http::WasiHttpView as _;
use wasmtime_wasi_http::p3::Request;
use wasmtime_wasi_http::p3::bindings::{Service, ServiceIndices};

use crate::body::RequestBody;
use crate::codes;
use crate::cpu::{SharedPollClock, poll_charged};
use crate::function::Environment;
use crate::program::inbox::{Flight, Inbox, Job};
use crate::program::watcher::{self, Watcher, WatcherIndices};
use crate::state::GuestState;
use crate::trap;

/// A linked component, and where it is called.
#[derive(Clone)]
pub(crate) struct Linked {
    pre: InstancePre<GuestState>,
    service: ServiceIndices,
    watcher: Option<WatcherIndices>,
}

/// The same of an instance.
struct Exports {
    service: Service,
    watcher: Option<Watcher>,
}

impl Linked {
    pub(crate) fn new(pre: InstancePre<GuestState>) -> wasmtime::Result<Self> {
        Ok(Self { service: ServiceIndices::new(&pre)?, watcher: WatcherIndices::of(pre.component()), pre })
    }

    async fn instantiate(&self, store: &mut wasmtime::Store<GuestState>) -> wasmtime::Result<Exports> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        Ok(Exports {
            service: self.service.load(&mut *store, &instance)?,
            watcher: self.watcher.as_ref().map(|watcher| watcher.load(store, &instance)).transpose()?,
        })
    }
}

/// What is left of an instance that has failed. Bodies of answers break off with the store, and have to find the reason:
/// it goes after that was told.
struct Broken {
    failure: Failure,
    store: wasmtime::Store<GuestState>,
}

/// An instance and the requests that it has been given.
pub(crate) struct Worker {
    run: Pin<Box<dyn Future<Output = Result<(), Broken>> + Send>>,
    clock: SharedPollClock,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) since: Instant,
}

impl Worker {
    /// An instance that will be made when it is first polled, on the CPU time of its first request.
    pub(crate) fn new(linked: &Linked, environment: &Arc<Environment>) -> Self {
        let clock = SharedPollClock::default();
        let deployed = &environment.deployed;
        let store = GuestState::store(linked.pre.engine(), deployed, &clock);
        let cpu_ns = u64::try_from(deployed.limits.cpu.as_nanos()).unwrap_or(u64::MAX);
        let console = Arc::clone(&store.data().console);
        let policy = deployed.policy;
        let inbox = Inbox::new(console, Arc::clone(&clock), policy.reuse, policy.concurrent, cpu_ns);
        let run = Box::pin(live(linked.clone(), store, Arc::clone(environment), Arc::clone(&inbox)));
        Self { run, clock, inbox, since: deployed.clock.instant() }
    }

    /// Lets the instance work. Ready when it is gone.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.inbox.set_waiting(false);
        let polled = poll_charged(self.run.as_mut(), &self.clock, &self.inbox, cx);
        let gone = polled.map(|ended| {
            // What each has used is known only now, and says who went over a limit.
            if let Err(Broken { failure, store }) = ended {
                self.inbox.fail(failure);
                drop(store);
            }
        });
        self.inbox.end_poll();
        self.inbox.set_waiting(gone.is_pending());
        gone
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.inbox.gone.cancel();
    }
}

async fn live(
    linked: Linked,
    mut store: wasmtime::Store<GuestState>,
    environment: Arc<Environment>,
    inbox: Arc<Inbox>,
) -> Result<(), Broken> {
    let limits = &environment.deployed.limits;
    let exports = match linked.instantiate(&mut store).await {
        Ok(exports) => exports,
        Err(error) => {
            let failure = trap::at_instantiation(error, store.data().limiter.refused(), limits);
            return Err(Broken { failure, store });
        }
    };
    let served = store.run_concurrent(async |accessor| serve(accessor, &exports, &inbox).await).await;
    served.and_then(|served| served).map_err(|error| {
        let failure = trap::classify(error, store.data().limiter.refused(), limits);
        Broken { failure, store }
    })
}

/// Takes requests until the instance is spent and nothing of it runs any more.
async fn serve(accessor: &Accessor<GuestState>, exports: &Exports, inbox: &Arc<Inbox>) -> wasmtime::Result<()> {
    let handler = *exports.service.wasi_http_handler().func_handle().func();
    let mut running = FuturesUnordered::new();
    std::future::poll_fn(|cx| {
        loop {
            while accessor.poll_ready_for_concurrent_call(handler, cx).is_ready()
                && let Some(job) = inbox.take(cx.waker())
            {
                running.push(answer(accessor, exports, inbox, job));
            }
            match running.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(()))) => continue,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => {}
            }
            if accessor.poll_no_interesting_tasks(cx).is_pending() {
                return Poll::Pending;
            }
            if inbox.is_spent() {
                return Poll::Ready(Ok(()));
            }
            inbox.set_idle();
            return Poll::Pending;
        }
    })
    .await
}

/// One request: an error here is the end of the instance, anything else goes to who asked.
async fn answer(
    accessor: &Accessor<GuestState>,
    exports: &Exports,
    inbox: &Arc<Inbox>,
    job: Job,
) -> wasmtime::Result<()> {
    let Job { mut request, invocation, reply } = job;
    let flight = Flight::begin(inbox, &invocation);
    if let Some(watcher) = &exports.watcher
        && let Some(change) = watcher::take_change(&mut request, &invocation)
    {
        watcher.tell_among(accessor, change).await?;
        let _ = reply.send(Ok((watcher::told(), flight)));
        return Ok(());
    }
    let (request, sent) = accessor.with(|mut store| {
        let (request, sent) = Request::from_http(store.get().http().hooks, request.map(RequestBody::into_wasi));
        // Boxed, because its type is tied to the store's borrow although it holds nothing of it.
        let sent: Pin<Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>> = Box::pin(sent);
        (request, sent)
    });
    let answer = match exports.service.handle(accessor, request).await? {
        Ok(response) => {
            let response = accessor.with(|mut store| response.into_http(&mut store, sent))?;
            Ok((response, flight))
        }
        Err(code) => {
            let failure = codes::failed_answer(&code.into());
            invocation.fail(&failure);
            Err(failure)
        }
    };
    // Nobody waits any more if the client has gone or the deadline has passed.
    let _ = reply.send(answer);
    Ok(())
}
