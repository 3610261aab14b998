//! A deployed function: from a request to its answer.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures::future::BoxFuture;
use http::{Request, Response};
use marram_core::port::{Body, Call, Invoke};
use marram_core::record::{Level, Start};
use marram_core::{Blame, Digest, Failure, FunctionId, Kind as FailureKind};

use crate::body::RequestBody;
use crate::deployed::Deployed;
use crate::gate::{Gate, Permit};
use crate::invocation::Invocation;
use crate::kind::Kind;
use crate::load;
use crate::program::Program;
use crate::shared::Shared;
use crate::trap;

/// What every run of a function needs.
pub(crate) struct Environment {
    pub(crate) deployed: Arc<Deployed>,
    pub(crate) shared: Arc<Shared>,
}

impl Environment {
    /// The function's line for turns.
    pub(crate) fn line(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    /// Runs the guest's code outside of any request, as a request's would run: interrupted, and for no longer. What it fails
    /// with goes to those who deploy it, and into the node's own log.
    pub(crate) async fn beforehand<T>(&self, run: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let _ticking = self.shared.ticker.run();
        let limits = &self.deployed.limits;
        let ended = tokio::time::timeout(limits.deadline, run).await;
        let ended = ended.unwrap_or_else(|_| Err(trap::deadline(limits)));
        ended.map_err(|failure| self.deployed.mask.hide_in(failure))
    }
}

/// Where a function's code comes from.
#[derive(Clone, Debug)]
pub(crate) struct Code {
    pub(crate) path: PathBuf,
    pub(crate) digest: Digest,
}

/// A function of a deployed revision. Its code is mapped when it is first needed and unmapped when it has been idle.
pub struct Function {
    environment: Arc<Environment>,
    kind: Kind,
    code: Code,
    gate: Gate,
    program: ArcSwapOption<Program>,
    loading: tokio::sync::Mutex<()>,
    /// Nanoseconds between [`Shared::started`] and the last request.
    last_used_ns: AtomicU64,
}

/// What a function is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionStatus {
    /// Whether its code is mapped.
    pub mapped: bool,
    /// Instances that wait for a request.
    pub idle: usize,
    /// Invocations that run.
    pub running: u32,
    /// Requests that wait for a permit.
    pub queued: u32,
}

impl Function {
    pub(crate) fn new(environment: Arc<Environment>, kind: Kind, code: Code, program: Option<Program>) -> Arc<Self> {
        let gate = Gate::new(&environment.deployed.limits);
        let used = environment.shared.elapsed_ns();
        Arc::new(Self {
            environment,
            kind,
            code,
            gate,
            program: ArcSwapOption::from_pointee(program),
            loading: tokio::sync::Mutex::new(()),
            last_used_ns: AtomicU64::new(used),
        })
    }

    /// How it runs.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What it is doing.
    #[must_use]
    pub fn status(&self) -> FunctionStatus {
        let program = self.program.load();
        FunctionStatus {
            mapped: program.is_some(),
            idle: program.as_ref().map_or(0, |program| program.idle()),
            running: self.gate.running(),
            queued: self.gate.queued(),
        }
    }

    /// How its instances are used, with every default filled in.
    #[must_use]
    pub fn policy(&self) -> marram_core::manifest::InstancePolicy {
        self.environment.deployed.policy
    }

    async fn serve(&self, request: Request<Body>, call: Call) -> Result<Response<Body>, Failure> {
        let environment = &self.environment;
        let deployed = &environment.deployed;
        let admitted = self.admit(call.arrived + deployed.limits.deadline).await;
        let (permit, program, start) =
            admitted.inspect_err(|failure| deployed.observe.refused(&deployed.id, failure.kind()))?;
        let crowd = call.crowd;
        let ticking = environment.shared.ticker.run();
        let invocation = Invocation::begin(Arc::clone(&environment.deployed), call, permit, ticking, start);
        let (parts, body) = request.into_parts();
        let body = RequestBody::new(body, &invocation).inspect_err(|failure| invocation.fail(failure))?;
        let served = program.serve(environment, Request::from_parts(parts, body), Arc::clone(&invocation));
        let served = environment.shared.turns.take(environment.line(), crowd, served).await;
        if program.idle_below(deployed.policy.warm) {
            environment.shared.reaper.notify_one();
        }
        served.map_err(|failure| {
            invocation.fail(&failure);
            // What it failed with first, of which this is a consequence.
            invocation.failure().cloned().unwrap_or(failure)
        })
    }

    /// What a run needs first: its permit, and the code, with how that was found.
    async fn admit(&self, deadline: Instant) -> Result<(Permit, Arc<Program>, Start), Failure> {
        let permit = self.gate.enter(deadline).await?;
        self.last_used_ns.store(self.environment.shared.elapsed_ns(), Ordering::Relaxed);
        if let Some(program) = self.program.load_full() {
            return Ok((permit, program, Start::Fresh));
        }
        let loaded = self.load().await.map_err(of_the_node).inspect_err(|failure| {
            let detail = failure.detail().map(|detail| format!("\n{detail}")).unwrap_or_default();
            self.environment.deployed.note(None, Level::Error, format!("{failure}{detail}"));
        });
        Ok((permit, loaded?, Start::Cold))
    }

    /// Maps the code, once for everybody who waits for it.
    async fn load(&self) -> Result<Arc<Program>, Failure> {
        let _turn = self.loading.lock().await;
        if let Some(program) = self.program.load_full() {
            return Ok(program);
        }
        let deployed = &self.environment.deployed;
        let begun = deployed.clock.instant();
        let program = Arc::new(load::program(&self.environment, self.kind, &self.code).await?);
        deployed.observe.initialized(&deployed.id, deployed.clock.instant().saturating_duration_since(begun));
        self.program.store(Some(Arc::clone(&program)));
        self.environment.shared.reaper.notify_one();
        Ok(program)
    }

    /// Fills up the warm instances, loading the code if there are to be any.
    pub(crate) async fn keep_warm(&self) -> Result<(), Failure> {
        let warm = self.policy().warm as usize;
        if warm == 0 {
            return Ok(());
        }
        let program = match self.program.load_full() {
            Some(program) => program,
            None => self.load().await?,
        };
        while program.idle() < warm {
            self.environment.beforehand(program.warm(&self.environment)).await?;
        }
        Ok(())
    }

    /// Drops what has been idle for too long. Says when to look again, or `None` if nothing of it is mapped.
    pub(crate) fn reap(&self, now: Instant, code_idle: Duration) -> Option<Instant> {
        let program = self.program.load_full()?;
        let policy = self.policy();
        if let Some(before) = now.checked_sub(policy.idle) {
            program.reap(before, policy.warm as usize);
        }
        let idle_since =
            self.environment.shared.started + Duration::from_nanos(self.last_used_ns.load(Ordering::Relaxed));
        let unused = self.gate.running() == 0 && program.idle() == 0;
        if unused && policy.warm == 0 && now.saturating_duration_since(idle_since) >= code_idle {
            self.program.store(None);
            return None;
        }
        // Instances come back without a word to the reaper, so it looks at least this often while code is mapped. A warm
        // one that is used up is replaced at once; this is for those whose client went away.
        let again = if policy.warm == 0 { policy.idle.min(code_idle) } else { Duration::from_secs(1) };
        Some(now + again.max(Duration::from_millis(20)))
    }
}

/// What was deployed and does not load any more is not the fault of whoever asks for it.
fn of_the_node(failure: Failure) -> Failure {
    if failure.kind().blame() == Blame::Host {
        return failure;
    }
    Failure::new(FailureKind::Internal, "the function cannot be loaded on this node").because(failure)
}

impl Invoke for Function {
    fn id(&self) -> &Arc<FunctionId> {
        &self.environment.deployed.id
    }

    fn request(&self, request: Request<Body>, call: Call) -> BoxFuture<'_, Result<Response<Body>, Failure>> {
        Box::pin(self.serve(request, call))
    }
}
