//! Starts the parts of a node in order, and stops them in the opposite order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use marram_core::limits::COMPONENT_BYTES_MAX;
use marram_core::port::{Clock, Entropy};
use marram_core::{Digest, Failure, Kind, Name};
use marram_gateway::{Gateway, GatewayConfig};
use marram_mqtt::Broker;
use marram_runtime::{Ports, Runtime, RuntimeConfig, StatePorts};
use marram_store::{BlobPin, Keys, Objects, Store, StoreConfig, StoreStreams};
use marram_telemetry::{Telemetry, TelemetryConfig, TelemetryTask};
use marram_trigger::Triggers;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::admin::{self, AdminServer};
use crate::api;
use crate::collector;
use crate::config::NodeConfig;
use crate::desired::Desired;
use crate::mqtt;
use crate::observer::Counted;
use crate::package::{ComponentSource, Package};
use crate::pem;
use crate::reconcile::{Reconciler, ReconcilerParts, boot};
use crate::s3;
use crate::system::{SystemClock, SystemEntropy};
use crate::upkeep;

/// How long the MQTT broker and the admin API may take to finish their answers, when everything before them has used the
/// deadline up.
const LISTENER_DRAIN: Duration = Duration::from_secs(2);

/// A node that serves.
pub struct Node {
    parts: Arc<Parts>,
    stop: CancellationToken,
    /// Dropping the node ends its listeners, too.
    _stop_on_drop: DropGuard,
    tasks: Mutex<Option<Tasks>>,
}

/// What a node is made of, for whoever answers for it.
pub(crate) struct Parts {
    pub(crate) config: NodeConfig,
    pub(crate) store: Arc<Store>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) reconciler: Arc<Reconciler>,
    pub(crate) streams: Arc<StoreStreams>,
    pub(crate) triggers: Arc<Triggers>,
    pub(crate) mqtt: Broker,
    pub(crate) s3: Option<marram_s3::Server>,
    /// Listeners besides the front and the admin API: `name`, `url`.
    urls: Vec<(&'static str, String)>,
    pub(crate) kv: Keys,
    pub(crate) objects: Objects,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) http: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) started_unix_ms: u64,
    draining: AtomicBool,
}

/// What runs until the node stops.
struct Tasks {
    front: JoinHandle<marram_gateway::Drained>,
    admin: AdminServer,
    collector: JoinHandle<()>,
    upkeep: JoinHandle<()>,
    telemetry: TelemetryTask,
}

impl Node {
    /// Brings a node up: it opens its store, binds, brings deployed apps back without reading their code, and serves.
    /// No network is needed for that.
    pub async fn start(config: NodeConfig) -> anyhow::Result<Self> {
        config.check()?;
        let tls = config.admin_tls.as_ref().map(admin::tls::acceptor).transpose()?;
        // Before the ports: who starts a second node on this state hears of that, and not of a port that the first one has.
        let store = Arc::new(Store::open(&StoreConfig::new(&config.state))?);
        let front = bind(config.listen, "listen").await?;
        let admin = bind(config.admin, "admin").await?;

        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new()?);
        let (telemetry, telemetry_task) = Telemetry::open(telemetry_config(&config), Arc::clone(&clock))?;
        let streams = store.streams(Arc::clone(&clock), Arc::clone(&entropy));
        let kv = store.kv(Arc::clone(&clock));
        let objects = store.objects(Arc::clone(&clock));
        let triggers = Arc::new(Triggers::new(marram_trigger::Ports {
            streams: Arc::clone(&streams) as _,
            kv: Arc::new(kv.clone()),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
        }));
        let stored = boot::stored(&store, &triggers).await.map_err(plain).context("what is deployed cannot be read")?;
        let runtime_config = RuntimeConfig {
            instances_max: config.instances,
            code_idle: config.code_idle,
            compiler: config.compiler.clone(),
            keeps_functions: config.keeps_functions,
            extra_roots: extra_roots(&config)?,
            ..RuntimeConfig::new(config.state.join("cache"), store.cache_key())
        };
        let mqtt::Listening { broker: mqtt, mut urls } =
            Box::pin(mqtt::start(&config.mqtt, &store, &clock, &entropy)).await?;
        let state = StatePorts {
            kv: Arc::new(kv.clone()),
            crdt: Arc::new(kv.clone()),
            streams: Arc::clone(&streams) as _,
            mqtt: Arc::new(mqtt.clone()),
            blobs: Arc::new(objects.clone()),
        };
        let ports = Ports {
            observe: Arc::clone(&telemetry) as _,
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            state: Some(state),
        };
        let runtime = Runtime::new(runtime_config, ports)?;
        let observer = Arc::new(Counted(Arc::clone(&telemetry)));
        let gateway = Gateway::new(gateway_config(&config), Arc::clone(&clock), Arc::clone(&entropy), observer);
        let s3 = s3::start(&config.s3, &config.state, Arc::new(objects.clone())).await?;
        let s3 = s3.map(|listening| {
            urls.extend(listening.urls);
            listening.server
        });
        let reconciler = Reconciler::new(ReconcilerParts {
            store: Arc::clone(&store),
            objects: objects.clone(),
            streams: Arc::clone(&streams) as _,
            triggers: Arc::clone(&triggers),
            token: config.token.clone(),
            runtime: Arc::clone(&runtime),
            telemetry: Arc::clone(&telemetry),
            routes: gateway.routes(),
            clock: Arc::clone(&clock),
        });
        reconciler.boot(stored).await.map_err(plain).context("what is deployed cannot be brought back")?;
        show_gauges(&telemetry, &reconciler);

        let parts = Arc::new(Parts {
            http: front.local_addr()?,
            admin: admin.local_addr()?,
            started_unix_ms: clock.unix_ns() / 1_000_000,
            draining: AtomicBool::new(false),
            config,
            store,
            telemetry,
            runtime,
            reconciler,
            streams,
            triggers,
            mqtt,
            s3,
            urls,
            kv,
            objects,
            clock,
            entropy,
        });
        let stop = CancellationToken::new();
        let tasks = Tasks {
            front: tokio::spawn(gateway.serve(front, stop.child_token())),
            admin: AdminServer::start(Arc::clone(&parts), admin, tls),
            collector: tokio::spawn(collector::run(
                Arc::clone(&parts.store),
                Arc::clone(&parts.runtime),
                stop.child_token(),
            )),
            upkeep: tokio::spawn(upkeep::run(
                Arc::clone(&parts.store),
                Arc::clone(&parts.streams),
                parts.kv.clone(),
                parts.objects.clone(),
                Arc::clone(&parts.clock),
                stop.child_token(),
            )),
            telemetry: telemetry_task,
        };
        check_pages(Arc::clone(&parts.store));
        // What a start runs through is not needed again. A system that does not tell what is mapped keeps it.
        let _ = marram_runtime::unmap_text();
        Ok(Self { parts, _stop_on_drop: stop.clone().drop_guard(), stop, tasks: Mutex::new(Some(tasks)) })
    }

    /// Where functions are served.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.parts.http
    }

    /// Where the admin API is served.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.parts.admin
    }

    /// The URL of the functions' front.
    #[must_use]
    pub fn http_url(&self) -> String {
        self.parts.http_url()
    }

    /// The URL of the admin API.
    #[must_use]
    pub fn admin_url(&self) -> String {
        self.parts.admin_url()
    }

    /// URLs of the listeners besides these two, by what they are: `mqtt`, `mqtts`, `mqtt_ws`, `s3`, `s3_tls`.
    #[must_use]
    pub fn urls(&self) -> &[(&'static str, String)] {
        &self.parts.urls
    }

    /// Deploys an app: what `PUT /v1/apps/{app}` does, without HTTP. The failure's message may have several lines.
    pub async fn deploy(&self, package: Package) -> Result<api::Deployed, Failure> {
        let mut components = BTreeMap::new();
        // Held until the deployment refers to them.
        let mut pins = Vec::with_capacity(package.components.len());
        for (name, source) in package.components {
            let name = Name::new(&name).map_err(|error| Failure::new(Kind::Invalid, error.to_string()))?;
            let pin = self.store_component(&name, source).await?;
            components.insert(name, pin.digest());
            pins.push(pin);
        }
        let desired = Desired::new(&package.manifest, components)?;
        let changed = self.parts.reconciler.deploy(package.manifest, desired, pins, false).await?;
        Ok(admin::view::deployed(&changed))
    }

    async fn store_component(&self, function: &Name, source: ComponentSource) -> Result<BlobPin, Failure> {
        let store = Arc::clone(&self.parts.store);
        let bytes_max = COMPONENT_BYTES_MAX as u64;
        let function = function.clone();
        let stored = tokio::task::spawn_blocking(move || match source {
            ComponentSource::Bytes(bytes) => store.blobs().put(&*bytes, bytes_max, None).map_err(Failure::from),
            ComponentSource::Path(path) => {
                let file = std::fs::File::open(&path).map_err(|error| {
                    Failure::new(
                        Kind::Invalid,
                        format!("function \"{function}\": {} cannot be read: {error}", path.display()),
                    )
                })?;
                store.blobs().put(file, bytes_max, None).map_err(Failure::from)
            }
        });
        stored.await.map_err(|error| Failure::new(Kind::Internal, "storing the component failed").because(error))?
    }

    /// Stops the node: it takes nothing new, finishes what runs within the drain deadline, and writes everything down. A
    /// second call waits for the first.
    pub async fn drain(&self) {
        let mut tasks = self.tasks.lock().await;
        let Some(Tasks { front, admin, collector, upkeep, telemetry }) = tasks.take() else { return };
        self.parts.draining.store(true, Ordering::Release);
        self.stop.cancel();
        let deadline = self.parts.config.drain;
        let until = tokio::time::Instant::now() + deadline;
        // All at the same time, under one deadline. What runs may still publish to MQTT, so that is stopped after it.
        let s3 = async {
            if let Some(s3) = &self.parts.s3 {
                s3.drain(deadline).await;
            }
        };
        let deployments = tokio::time::timeout(deadline, self.parts.reconciler.finish());
        let (front, deployed, (), ()) = tokio::join!(front, deployments, s3, self.parts.triggers.drain(deadline));
        match front {
            Ok(drained) if drained.cut > 0 => {
                tracing::warn!(cut = drained.cut, "requests were cut at the drain deadline")
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "the HTTP front failed"),
        }
        if deployed.is_err() {
            tracing::warn!("a deployment was still compiling at the drain deadline: it is not deployed");
        }
        let left = until.duration_since(tokio::time::Instant::now());
        let cut = self.parts.mqtt.stop_within(left.max(LISTENER_DRAIN)).await;
        if cut > 0 {
            tracing::warn!(cut, "MQTT connections were cut at the drain deadline");
        }
        // Last of the listeners, so that what goes on can be watched to the end.
        admin.stop(LISTENER_DRAIN).await;
        self.parts.runtime.drain(LISTENER_DRAIN).await;
        for (what, task) in [("collector of what is no longer used", collector), ("upkeep of state", upkeep)] {
            if let Err(error) = task.await {
                tracing::error!(%error, "the {what} failed");
            }
        }
        let store = Arc::clone(&self.parts.store);
        let closed = tokio::task::spawn_blocking(move || {
            telemetry.stop();
            store.close();
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "closing the store failed");
        }
    }
}

impl Parts {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(crate) fn http_url(&self) -> String {
        format!("http://{}", self.http)
    }

    pub(crate) fn admin_url(&self) -> String {
        let scheme = if self.config.admin_tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.admin)
    }

    /// The blobs of these digests, kept until the pins are dropped.
    pub(crate) fn pin(&self, components: &BTreeMap<Name, Digest>) -> Result<Vec<BlobPin>, Failure> {
        let pin = |(function, digest): (&Name, &Digest)| {
            let pin = self.store.blobs().pin(*digest)?;
            pin.ok_or_else(|| {
                let message = format!("the component {digest} of function \"{function}\" is not on this node: upload it first, with PUT /v1/blobs/{digest}");
                Failure::new(Kind::Invalid, message)
            })
        };
        components.iter().map(pin).collect()
    }
}

pub(crate) async fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => "another program has it: stop that one, or choose another",
            std::io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: choose another",
            _ => "choose another",
        };
        anyhow::anyhow!("cannot listen on {address} ({error}); {hint} with `{key}` or `--{key}`")
    })
}

/// The same. Where somebody has that port and any will do, a free one.
pub(crate) async fn bind_or_any(address: SocketAddr, key: &str, any_port: bool) -> anyhow::Result<TcpListener> {
    match bind(address, key).await {
        Err(_) if any_port => bind(SocketAddr::new(address.ip(), 0), key).await,
        bound => bound,
    }
}

fn telemetry_config(config: &NodeConfig) -> TelemetryConfig {
    TelemetryConfig {
        log_disk_age: config.keep,
        log_disk_bytes: config.keep_bytes.0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..TelemetryConfig::new(&config.state)
    }
}

fn extra_roots(config: &NodeConfig) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut roots = Vec::new();
    for file in &config.extra_roots {
        let found = pem::certificates(file).context("`outbound.extra_roots`")?;
        roots.extend(found.iter().map(|certificate| certificate.to_vec()));
    }
    Ok(roots)
}

fn gateway_config(config: &NodeConfig) -> GatewayConfig {
    let limits = marram_gateway::Limits { drain: config.drain, ..marram_gateway::Limits::default() };
    GatewayConfig { limits, trusted_proxies: config.trusted_proxies.clone() }
}

/// Looks through what opening the store has not, and says what is damaged. Nobody waits for it.
fn check_pages(store: Arc<Store>) {
    drop(tokio::task::spawn_blocking(move || {
        if let Err(error) = store.check_pages() {
            tracing::error!(%error, "the node's database cannot be looked through");
        }
        if let Some(why) = store.damage() {
            tracing::error!("the node's database is damaged: {why}");
        }
    }));
}

fn show_gauges(telemetry: &Arc<Telemetry>, reconciler: &Arc<Reconciler>) {
    // Weak: telemetry outlives what it shows, and would otherwise keep it alive.
    let apps = Arc::downgrade(reconciler);
    let count = move |of: fn(&crate::reconcile::Observed) -> usize| {
        apps.upgrade().map_or(0.0, |reconciler| reconciler.apps().values().map(|app| of(app)).sum::<usize>() as f64)
    };
    let (apps, failed, functions) = (count.clone(), count.clone(), count);
    telemetry.gauge("marram_apps", "Apps that are deployed.", move || apps(|_| 1));
    telemetry.gauge("marram_apps_failed", "Apps that are deployed and could not be started.", move || {
        failed(|app| usize::from(app.running.is_err()))
    });
    telemetry.gauge("marram_functions", "Functions that are deployed.", move || {
        functions(|app| app.desired.components.len())
    });
}

/// A failure with its cause, as an error of `main`.
fn plain(failure: Failure) -> anyhow::Error {
    match failure.detail() {
        // There is no log yet that would say more.
        Some(detail) if failure.kind() == Kind::Internal => anyhow::anyhow!("{detail}"),
        Some(detail) => anyhow::anyhow!("{}: {detail}", failure.message()),
        None => anyhow::anyhow!("{}", failure.message()),
    }
}

#[cfg(test)]
mod tests;
