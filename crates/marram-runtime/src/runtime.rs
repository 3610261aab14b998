//! The runtime of a node: makes functions out of apps.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use marram_core::manifest::{self, InstancePolicy, Manifest, On};
use marram_core::port::Invoke;
use marram_core::{Digest, Failure, FunctionId, Kind as FailureKind, Name};
use tokio::sync::{Notify, OnceCell};
use tokio_util::task::TaskTracker;

use crate::config::RuntimeConfig;
use crate::deployed::{Deployed, Peers, SourceText};
use crate::engine::Allocation;
use crate::engines;
use crate::function::{Code, Environment, Function};
use crate::kind::{self, FileKind, Kind};
use crate::link;
use crate::load;
use crate::machine::Machines;
use crate::mask::Mask;
use crate::outbound::{Grant, Outbound, OutboundConfig};
use crate::ports::Ports;
use crate::program::Program;
use crate::reach::Reach;
use crate::shared::Shared;
use crate::ticker::Ticker;
use crate::turns::Turns;
use crate::watch;

/// Runs functions. One per node.
pub struct Runtime {
    shared: Arc<Shared>,
    allocation: Allocation,
    outbound: Arc<Outbound>,
    ports: Ports,
    reaper: tokio::task::AbortHandle,
}

/// A revision of an app to be made ready.
#[derive(Clone, Debug)]
pub struct AppSpec {
    /// The parsed manifest.
    pub manifest: Arc<Manifest>,
    /// Digest of manifest and components.
    pub revision: Digest,
    /// The file of each function.
    pub components: BTreeMap<Name, ComponentFile>,
    /// Secrets of the app, by name; each function gets those that it names.
    pub secrets: BTreeMap<String, String>,
}

/// A function's file: a blob of the store.
#[derive(Clone, Debug)]
pub struct ComponentFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub digest: Digest,
    /// What kind it was found to be when it was deployed; `None` if nobody knows.
    pub kind: Option<Kind>,
}

/// Whether the code is looked at before a function is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Compile and link everything: a deployment.
    Now,
    /// It was accepted before: read nothing until the first request.
    Later,
}

/// The functions of a revision, ready for requests.
#[derive(Clone)]
pub struct App {
    /// By name.
    pub functions: BTreeMap<Name, Arc<Function>>,
}

impl Runtime {
    /// Starts the engine. Has to be called inside a tokio runtime.
    pub fn new(config: RuntimeConfig, ports: Ports) -> anyhow::Result<Arc<Self>> {
        let machines = Machines::new(&config)?;
        let allocation = machines.plain.allocation;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let shared = Arc::new(Shared {
            turns: Turns::new(processors),
            ticker: Ticker::start(machines.engines()).context("the tick thread cannot start")?,
            machines,
            tasks: TaskTracker::new(),
            reaper: Notify::new(),
            started: Instant::now(),
            functions: Mutex::default(),
            processors,
            javascript: OnceCell::new(),
            python: OnceCell::new(),
        });
        let outbound = OutboundConfig {
            extra_roots: config.extra_roots.into_iter().map(Into::into).collect(),
            ..OutboundConfig::default()
        };
        let outbound = Arc::new(Outbound::new(outbound)?);
        let reaper = tokio::spawn(Arc::clone(&shared).reap(config.code_idle)).abort_handle();
        Ok(Arc::new(Self { shared, allocation, outbound, ports, reaper }))
    }

    /// Makes the functions of a revision ready, checking all of it first if asked.
    pub async fn prepare(self: &Arc<Self>, spec: AppSpec, verify: Verify) -> Result<App, Failure> {
        let peers = Arc::new(Peers::default());
        let mut functions = BTreeMap::new();
        for function in &spec.manifest.functions {
            let made = self.function(&spec, function, &peers, verify).await;
            let made = made.map_err(|failure| of_function(&function.name, &failure))?;
            functions.insert(function.name.clone(), made);
        }
        let weak = functions.iter().map(|(name, function)| {
            let function: Weak<dyn Invoke> = Arc::downgrade(&(Arc::clone(function) as Arc<dyn Invoke>));
            (name.clone(), function)
        });
        peers.set(weak.collect());
        self.shared.add(functions.values().cloned());
        for function in functions.values() {
            // Ready means that the warm instances are there; at boot they come in the background.
            if verify == Verify::Now {
                function.keep_warm().await.map_err(|failure| of_function(&function.id().function, &failure))?;
            }
        }
        self.shared.reaper.notify_one();
        Ok(App { functions })
    }

    async fn function(
        self: &Arc<Self>,
        spec: &AppSpec,
        function: &manifest::Function,
        peers: &Arc<Peers>,
        verify: Verify,
    ) -> Result<Arc<Function>, Failure> {
        let file = spec.components.get(&function.name).ok_or_else(|| {
            Failure::new(
                FailureKind::Invalid,
                format!("its component {:?} was not sent with the app", function.component),
            )
        })?;
        let code = Code { path: file.path.clone(), digest: file.digest };
        let file_kind = FileKind::of_name(&function.component);
        let kind = match file_kind {
            FileKind::JavaScript => Kind::JavaScript,
            FileKind::Python => Kind::Python,
            FileKind::Component => match file.kind.filter(|_| verify == Verify::Later) {
                Some(known) => known,
                None => self.component_kind(&code, function).await?,
            },
        };
        let policy = InstancePolicy::of(function.instances.as_ref(), kind.default_policy());
        if policy.concurrent > 1 && matches!(kind, Kind::Component02 | Kind::Watcher | Kind::Python) {
            let message = format!(
                "`instances.concurrent` is {}, but an instance of {} serves one request at a time: write `concurrent = 1`, or leave it out",
                policy.concurrent,
                kind.label()
            );
            return Err(Failure::new(FailureKind::Invalid, message));
        }
        let mut config = function.config.clone();
        let mut secrets = BTreeMap::new();
        for secret in &function.secrets {
            let value = spec.secrets.get(secret).ok_or_else(|| {
                let app = &spec.manifest.app.name;
                Failure::new(
                    FailureKind::Invalid,
                    format!("its secret `{secret}` is not set: `marram secret set {app} {secret}`"),
                )
            })?;
            config.insert(secret.clone(), value.clone());
            secrets.insert(secret.as_str(), value.as_str());
        }
        let is_source = file_kind != FileKind::Component;
        let id = Arc::new(FunctionId {
            app: spec.manifest.app.name.clone(),
            function: function.name.clone(),
            revision: spec.revision,
        });
        let deployed = Arc::new(Deployed {
            reach: Arc::new(Reach::new(&id, &function.allow, &self.ports)),
            id,
            limits: function.limits.resolve(),
            policy,
            keys: has_keys(function),
            config,
            mask: Mask::of(&secrets),
            source: is_source.then(|| SourceText::new(function.component.clone())),
            grant: Grant::new(&function.allow),
            outbound: Arc::clone(&self.outbound),
            peers: Arc::clone(peers),
            observe: Arc::clone(&self.ports.observe),
            clock: Arc::clone(&self.ports.clock),
            entropy: Arc::clone(&self.ports.entropy),
            started: self.ports.clock.instant(),
        });
        let environment = Arc::new(Environment { deployed, shared: Arc::clone(&self.shared) });
        let program: Option<Program> = match verify {
            Verify::Now => {
                let program = load::program(&environment, kind, &code).await?;
                environment.beforehand(program.check(&environment)).await?;
                Some(program)
            }
            Verify::Later => None,
        };
        Ok(Function::new(environment, kind, code, program))
    }

    async fn component_kind(self: &Arc<Self>, code: &Code, function: &manifest::Function) -> Result<Kind, Failure> {
        let (runtime, code, function) = (Arc::clone(self), code.clone(), function.clone());
        let found = tokio::task::spawn_blocking(move || {
            let (component, machine) = load::component(&runtime.shared, &code)?;
            link::check_imports(&machine.engine, &component, &function.allow, has_keys(&function))?;
            let kind = kind::of_component(&machine.engine, &component)?;
            watch::check(&machine.engine, &component, kind, &function)?;
            Ok(kind)
        });
        found
            .await
            .map_err(|error| Failure::new(FailureKind::Internal, "looking at the component failed").because(error))?
    }

    /// Whether instances come from a pool.
    #[must_use]
    pub fn allocation(&self) -> Allocation {
        self.allocation
    }

    /// Removes compiled code whose component is not `kept`, and returns its bytes. Blocks for as long as the disk takes.
    pub fn collect_code(&self, kept: impl Fn(&Digest) -> bool) -> std::io::Result<u64> {
        self.shared.machines.collect(|digest| engines::all().any(|engine| engine.digest == *digest) || kept(digest))
    }

    /// Waits until every run has ended, at most this long.
    pub async fn drain(&self, at_most: Duration) {
        self.shared.tasks.close();
        let _ = tokio::time::timeout(at_most, self.shared.tasks.wait()).await;
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.reaper.abort();
    }
}

/// Whether changes of keys start it.
fn has_keys(function: &manifest::Function) -> bool {
    function.on.iter().any(|on| matches!(on, On::Key(_)))
}

/// Names the function whose failure it is.
fn of_function(name: &Name, failure: &Failure) -> Failure {
    let named = Failure::new(failure.kind(), format!("function \"{name}\": {}", failure.message()));
    match failure.detail() {
        Some(detail) => named.because(detail),
        None => named,
    }
}
