//! Components of `wasi:http/handler@0.3`: several requests at a time in an instance.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use http::{Request, Response};
use marram_core::port::Body;
use marram_core::record::Start;
use marram_core::{Failure, Kind};
use tokio::sync::oneshot;
use wasmtime::component::InstancePre;
use wasmtime_wasi_http::WasiBody;

use crate::answer;
use crate::body::{Ready, RequestBody};
use crate::function::Environment;
use crate::invocation::Invocation;
use crate::program::inbox::{Flight, Inbox, Job};
use crate::program::worker::{Linked, Worker};
use crate::state::GuestState;
use crate::trap;

/// A linked component and its instances.
pub(crate) struct Component03 {
    linked: Linked,
    pool: Mutex<Pool>,
}

#[derive(Default)]
struct Pool {
    /// Not polled by anybody.
    idle: Vec<Worker>,
    /// Driven by a task each.
    busy: Vec<Arc<Inbox>>,
    /// Polled by the task of a request at this moment.
    polled: usize,
}

/// Who may take a request.
enum Taker {
    /// An instance that the caller polls.
    Here(Worker),
    /// One that a task of its own drives.
    Elsewhere(Arc<Inbox>),
}

type Answer = Result<(Response<WasiBody>, Flight), Failure>;

/// What is known after an instance was polled in the request's own task.
struct Polled {
    answer: Option<Answer>,
    gone: bool,
}

impl Component03 {
    pub(crate) fn new(pre: InstancePre<GuestState>) -> wasmtime::Result<Self> {
        Ok(Self { linked: Linked::new(pre)?, pool: Mutex::default() })
    }

    pub(crate) async fn serve(
        self: &Arc<Self>,
        environment: &Arc<Environment>,
        request: Request<RequestBody>,
        invocation: Arc<Invocation>,
    ) -> Result<Response<Body>, Failure> {
        let is_head = answer::is_head(&request);
        let (reply, mut answer) = oneshot::channel();
        let job = Job { request, invocation: Arc::clone(&invocation), reply };
        let mut ready = Ready::default();
        let answered = match self.give(environment, job, &invocation)? {
            Taker::Here(mut worker) => {
                let polled =
                    std::future::poll_fn(|cx| Poll::Ready(poll_here(&mut worker, &mut answer, &mut ready, cx))).await;
                let inbox = Arc::clone(&worker.inbox);
                if polled.gone {
                    self.pool().polled -= 1;
                } else {
                    self.keep_or_drive(environment, worker);
                }
                match polled.answer {
                    Some(answered) => answered,
                    None => wait(&inbox, answer, &invocation).await,
                }
            }
            Taker::Elsewhere(inbox) => wait(&inbox, answer, &invocation).await,
        };
        let (mut response, flight) = answered?;
        if !ready.complete {
            std::future::poll_fn(|cx| Poll::Ready(ready.take(response.body_mut(), cx))).await;
        }
        // Nothing was sent yet, so an instance that has failed after its head can still be told as what it is. Its body
        // would end as if it were complete.
        if let Some(failure) = invocation.failure() {
            return Err(failure.clone());
        }
        let (parts, rest) = response.into_parts();
        answer::answer(parts, ready, rest, is_head, invocation, Some(Box::new(flight)))
    }

    pub(crate) fn idle(&self) -> usize {
        self.pool().idle.len()
    }

    pub(crate) fn reap(&self, before: Instant, keep: usize) {
        let mut pool = self.pool();
        let excess = pool.idle.len().saturating_sub(keep);
        let old = pool.idle.iter().take(excess).take_while(|worker| worker.since < before).count();
        let dropped: Vec<_> = pool.idle.drain(..old).collect();
        drop(pool);
        drop(dropped);
    }

    pub(crate) async fn warm(self: &Arc<Self>, environment: &Arc<Environment>) -> Result<(), Failure> {
        let mut worker = Worker::new(&self.linked, environment);
        let gone = std::future::poll_fn(|cx| match worker.poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending if worker.inbox.is_idle() => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        });
        if gone.await {
            return Err(worker.inbox.failure().unwrap_or_else(gone_without_a_word));
        }
        self.pool().idle.insert(0, worker);
        Ok(())
    }

    /// Gives a request to an instance: an idle one, which the caller then polls; one that only waits for something and
    /// has room, whose task is woken; or a new one. An instance in which a guest runs would make its caller wait, so while
    /// these are fewer than processors, a new one is better.
    fn give(&self, environment: &Arc<Environment>, mut job: Job, invocation: &Invocation) -> Result<Taker, Failure> {
        let mut pool = self.pool();
        while let Some(worker) = pool.idle.pop() {
            let start = if worker.inbox.accepted() == 0 { Start::Fresh } else { Start::Reused };
            match worker.inbox.give(job) {
                Ok(()) => {
                    invocation.set_start(start);
                    pool.polled += 1;
                    return Ok(Taker::Here(worker));
                }
                Err(refused) => job = refused,
            }
        }
        let running = pool.polled + pool.busy.iter().filter(|inbox| !inbox.is_waiting()).count();
        let crowded = running >= environment.shared.processors;
        for inbox in pool.busy.iter().filter(|inbox| crowded || inbox.is_waiting()) {
            match inbox.give(job) {
                Ok(()) => {
                    invocation.set_start(Start::Reused);
                    return Ok(Taker::Elsewhere(Arc::clone(inbox)));
                }
                Err(refused) => job = refused,
            }
        }
        pool.polled += 1;
        drop(pool);
        let worker = Worker::new(&self.linked, environment);
        match worker.inbox.give(job) {
            Ok(()) => Ok(Taker::Here(worker)),
            Err(_) => {
                self.pool().polled -= 1;
                Err(Failure::new(Kind::Internal, "a new instance takes no request"))
            }
        }
    }

    /// After an instance was polled here: one with nothing to do waits, not polled by anybody; any other gets a task of
    /// its own.
    fn keep_or_drive(self: &Arc<Self>, environment: &Arc<Environment>, worker: Worker) {
        let mut pool = self.pool();
        pool.polled -= 1;
        if let Some(worker) = keep_if_idle(pool, environment, worker) {
            self.pool().busy.push(Arc::clone(&worker.inbox));
            let (component, task_environment) = (Arc::clone(self), Arc::clone(environment));
            environment.shared.tasks.spawn(async move { component.drive(task_environment, worker).await });
        }
    }

    /// Polls an instance until it is idle, gone, or past the deadline of everything that it was given. A request fails at its
    /// own deadline, whoever else is in the instance.
    async fn drive(self: Arc<Self>, environment: Arc<Environment>, worker: Worker) {
        let _ticking = environment.shared.ticker.run();
        let inbox = Arc::clone(&worker.inbox);
        let mut worker = Some(worker);
        while let Some(mut driven) = worker.take() {
            let until = inbox.next_deadline().unwrap_or_else(|| environment.deployed.clock.instant());
            let polled = std::future::poll_fn(|cx| match driven.poll(cx) {
                Poll::Ready(()) => Poll::Ready(true),
                Poll::Pending if driven.inbox.is_idle() => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            });
            let polled = environment.shared.turns.take(environment.line(), false, polled);
            match tokio::time::timeout_at(until.into(), polled).await {
                Ok(true) => break,
                Ok(false) => worker = keep_if_idle(self.pool(), &environment, driven),
                // Others have later deadlines.
                Err(_) if inbox.last_deadline().is_some_and(|last| last > until) => {
                    inbox.fail_late(until, &trap::deadline(&environment.deployed.limits));
                    worker = Some(driven);
                }
                Err(_) => {
                    inbox.fail(trap::deadline(&environment.deployed.limits));
                    drop(driven);
                    inbox.let_next_in();
                    break;
                }
            }
        }
        self.pool().busy.retain(|busy| !Arc::ptr_eq(busy, &inbox));
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives an instance back to the pool if it has nothing to do. Otherwise the caller has to see to it.
fn keep_if_idle(mut pool: MutexGuard<'_, Pool>, environment: &Environment, mut worker: Worker) -> Option<Worker> {
    // Under the pool's lock nobody can give it a request in between.
    if !worker.inbox.is_idle() {
        return Some(worker);
    }
    pool.busy.retain(|inbox| !Arc::ptr_eq(inbox, &worker.inbox));
    if worker.inbox.is_spent() {
        // What it holds is given back without the lock.
        drop(pool);
        return None;
    }
    worker.since = environment.deployed.clock.instant();
    pool.idle.push(worker);
    None
}

/// Lets an instance work as far as it comes without waiting, taking up what it answers.
fn poll_here(
    worker: &mut Worker,
    answer: &mut oneshot::Receiver<Answer>,
    ready: &mut Ready,
    cx: &mut Context<'_>,
) -> Polled {
    let mut gone = worker.poll(cx).is_ready();
    let mut answered = answer.try_recv().ok();
    if let Some(Ok((response, _))) = &mut answered {
        while !ready.complete && ready.take(response.body_mut(), cx) && !gone {
            gone = worker.poll(cx).is_ready();
        }
    }
    // The end of its body lets the guest's task end; one more turn shows that the instance is idle.
    if ready.complete && !gone && !worker.inbox.is_idle() {
        gone = worker.poll(cx).is_ready();
    }
    if answered.is_none() && gone {
        answered = Some(Err(worker.inbox.failure().unwrap_or_else(gone_without_a_word)));
    }
    Polled { answer: answered, gone }
}

/// Waits for the answer from an instance that somebody else drives.
async fn wait(inbox: &Inbox, answer: oneshot::Receiver<Answer>, invocation: &Invocation) -> Answer {
    match tokio::time::timeout_at(invocation.deadline.into(), answer).await {
        Ok(Ok(answered)) => answered,
        Ok(Err(_)) => {
            // The way back breaks off before the reason is known.
            inbox.gone.cancelled().await;
            let failure = inbox.failure().unwrap_or_else(gone_without_a_word);
            invocation.fail(&failure);
            Err(failure)
        }
        Err(_) => {
            // Its task in the guest cannot be cancelled; the instance gets no more requests and ends with this one.
            inbox.retire();
            let failure = trap::deadline(&invocation.deployed.limits);
            invocation.fail(&failure);
            Err(failure)
        }
    }
}

fn gone_without_a_word() -> Failure {
    Failure::new(Kind::NoResponse, "the function's instance ended before it answered")
}
