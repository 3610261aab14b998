//! Makes what runs (the runtime's functions, the gateway's routes) what is deployed (the store).
//!
//! One change at a time. A deployment is checked and compiled before it is written down, and written down before a
//! request sees it: whatever fails on the way changes nothing. Requests in flight finish on what they found.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use marram_core::manifest::On;
use marram_core::port::{Blobs as _, Clock, Invoke, Streams};
use marram_core::stream::StreamName;
use marram_core::{Digest, Failure, Kind, Name};
use marram_gateway::{Routes, Table};
use marram_runtime::{App, AppSpec, ComponentFile, Runtime, Verify};
use marram_store::{BlobPin, Deployment, Objects, Revision, Store};
use marram_telemetry::Telemetry;
use marram_trigger::{Ready as ReadyTriggers, Triggers};
use tokio::sync::{Mutex, MutexGuard, Semaphore};
use tokio_util::task::TaskTracker;

use crate::Token;
use crate::desired::Desired;
use crate::ingest::Ingest;
use crate::routes::{self, INGEST_SECRET};

pub(crate) mod boot;
mod secrets;

/// Changes that may wait for their turn: each holds a manifest, and a client that waits.
const CHANGES_WAITING_MAX: usize = 64;
/// How long a change waits: compiling the largest component takes about this long.
const TURN_WAIT_MAX: Duration = Duration::from_secs(120);

/// An app as it is on this node.
#[derive(Clone)]
pub(crate) struct Observed {
    pub(crate) desired: Desired,
    pub(crate) deployed_unix_ns: u64,
    /// Its functions, or why it has none.
    pub(crate) running: Result<App, Failure>,
    /// Its streams that take events over the public front.
    pub(crate) ingest: Vec<Arc<Ingest>>,
}

/// Every app by name.
pub(crate) type Apps = BTreeMap<Name, Arc<Observed>>;

/// What a change did.
pub(crate) struct Changed {
    pub(crate) now: Arc<Observed>,
    pub(crate) previous: Option<Digest>,
    pub(crate) unchanged: bool,
}

/// The apps of a node, and the one way to change them.
pub(crate) struct Reconciler {
    store: Arc<Store>,
    objects: Objects,
    streams: Arc<dyn Streams>,
    triggers: Arc<Triggers>,
    /// The node's token, which opens what an app's own token opens.
    token: Option<Token>,
    runtime: Arc<Runtime>,
    telemetry: Arc<Telemetry>,
    routes: Routes,
    clock: Arc<dyn Clock>,
    apps: ArcSwap<Apps>,
    turn: Mutex<()>,
    waiting: Semaphore,
    tasks: TaskTracker,
}

/// What a reconciler works with.
pub(crate) struct ReconcilerParts {
    pub(crate) store: Arc<Store>,
    pub(crate) objects: Objects,
    pub(crate) streams: Arc<dyn Streams>,
    pub(crate) triggers: Arc<Triggers>,
    pub(crate) token: Option<Token>,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) routes: Routes,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Reconciler {
    pub(crate) fn new(parts: ReconcilerParts) -> Arc<Self> {
        let ReconcilerParts { store, objects, streams, triggers, token, runtime, telemetry, routes, clock } = parts;
        Arc::new(Self {
            store,
            objects,
            streams,
            triggers,
            token,
            runtime,
            telemetry,
            routes,
            clock,
            apps: ArcSwap::default(),
            turn: Mutex::new(()),
            waiting: Semaphore::new(CHANGES_WAITING_MAX),
            tasks: TaskTracker::new(),
        })
    }

    /// Every app as it is now.
    pub(crate) fn apps(&self) -> Arc<Apps> {
        self.apps.load_full()
    }

    /// One app as it is now.
    pub(crate) fn app(&self, name: &Name) -> Result<Arc<Observed>, Failure> {
        let found = self.apps.load().get(name).cloned();
        found.ok_or_else(|| {
            Failure::new(Kind::NotFound, format!("there is no app \"{name}\" on this node: `marram apps` lists them"))
        })
    }

    /// Makes `desired` what runs. `pins` keep its components here until the store refers to them.
    pub(crate) async fn deploy(
        self: &Arc<Self>,
        manifest: String,
        desired: Desired,
        pins: Vec<BlobPin>,
        dry_run: bool,
    ) -> Result<Changed, Failure> {
        let this = Arc::clone(self);
        self.in_turn(async move {
            let _pins = pins;
            let previous = this.apps.load().get(desired.app()).cloned();
            let previous_revision = previous.as_ref().map(|previous| previous.desired.revision);
            if let Some(now) = previous.filter(|now| now.desired.revision == desired.revision && now.running.is_ok()) {
                return Ok(Changed { now, previous: previous_revision, unchanged: true });
            }
            this.check_routes(&desired)?;
            // `prepare_triggers` asks again, when it is time.
            this.triggers.check(&desired.manifest)?;
            let running = this.prepare(&desired, Verify::Now).await?;
            let at_unix_ns = this.clock.unix_ns();
            let now = this.observed(desired, at_unix_ns, Ok(running));
            if !dry_run {
                let deployment = Deployment {
                    app: now.desired.app().clone(),
                    revision: now.desired.revision,
                    manifest,
                    components: now.desired.components.clone(),
                    kinds: now.running.as_ref().map(kinds).unwrap_or_default(),
                    at_unix_ns,
                };
                this.switch(&now, async { Ok(this.store.deploy(deployment).await.map(|_| ())?) }).await?;
            }
            Ok(Changed { now, previous: previous_revision, unchanged: false })
        })
        .await
    }

    /// Makes an earlier revision what runs: the one whose digest begins with `wanted`, or the one before the current.
    pub(crate) async fn rollback(self: &Arc<Self>, app: Name, wanted: Option<String>) -> Result<Changed, Failure> {
        let this = Arc::clone(self);
        self.in_turn(async move {
            let Revision { digest, manifest, components, deployed_unix_ns, .. } =
                this.store.rollback_target(&app, wanted.as_deref())?;
            let desired = Desired::new(&manifest, components)?;
            this.check_routes(&desired)?;
            let running = this.prepare(&desired, Verify::Now).await?;
            let now = this.observed(desired, deployed_unix_ns, Ok(running));
            let mut previous = None;
            let activate = async {
                previous = this.store.activate(&app, digest).await?.previous;
                Ok(())
            };
            this.switch(&now, activate).await?;
            Ok(Changed { now, previous, unchanged: previous == Some(digest) })
        })
        .await
    }

    /// Takes an app off the node, with its revisions and secrets. Its usage and its log stay.
    pub(crate) async fn remove(self: &Arc<Self>, app: Name) -> Result<(), Failure> {
        let this = Arc::clone(self);
        self.in_turn(async move {
            this.store.remove(&app).await?;
            let mut apps = Apps::clone(&this.apps.load());
            apps.remove(&app);
            let table = table(&apps)?;
            this.show(apps, table);
            this.triggers.remove(&app).await;
            this.store.set_captures(this.triggers.captures());
            this.telemetry.remove_app(&app);
            Ok(())
        })
        .await
    }

    /// Removes a stream with its events and consumers, unless a deployed app declares or consumes it: its triggers would wait
    /// for ever, and the stream would come back without what was declared.
    pub(crate) async fn remove_stream(self: &Arc<Self>, stream: StreamName) -> Result<(), Failure> {
        let this = Arc::clone(self);
        self.in_turn(async move {
            let needs: Vec<_> = this.apps.load().values().filter_map(|app| app.desired.need_of(&stream)).collect();
            if !needs.is_empty() {
                let message = format!(
                    "stream \"{stream}\" cannot be removed while {}: deploy without it first, or remove the app with `marram rm`",
                    needs.join(", and ")
                );
                return Err(Failure::new(Kind::Conflict, message));
            }
            this.streams.remove(&stream).await
        })
        .await
    }

    /// Waits for changes that are under way.
    pub(crate) async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Runs one change when it is its turn. It runs to its end even if whoever asked for it goes away: half a change
    /// would be worse than either.
    async fn in_turn<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        if self.tasks.is_closed() {
            return Err(Failure::new(Kind::Draining, "this node is shutting down: nothing is changed any more"));
        }
        let this = Arc::clone(self);
        let task = self.tasks.spawn(async move {
            let _turn = this.take_turn().await?;
            change.await
        });
        task.await.map_err(|error| Failure::new(Kind::Internal, "the change failed unexpectedly").because(error))?
    }

    async fn take_turn(&self) -> Result<MutexGuard<'_, ()>, Failure> {
        let busy = |message: &str| Failure::new(Kind::Overloaded, message.to_owned());
        let _place = self
            .waiting
            .try_acquire()
            .map_err(|_| busy("too many changes of this node are waiting: try again in a moment"))?;
        let turn = tokio::time::timeout(TURN_WAIT_MAX, self.turn.lock()).await;
        turn.map_err(|_| busy("another change of this node takes long: try again later"))
    }

    fn check_routes(&self, desired: &Desired) -> Result<(), Failure> {
        let apps = self.apps.load();
        let mut others = apps.values().filter(|other| other.desired.app() != desired.app());
        others.try_for_each(|other| desired.check_routes_against(&other.desired))
    }

    async fn prepare(&self, desired: &Desired, verify: Verify) -> Result<App, Failure> {
        // Most apps have no secrets, and at boot each look into the store counts.
        let reads_secrets = desired.manifest.functions.iter().any(|function| !function.secrets.is_empty());
        let secrets = if reads_secrets { self.store.secrets(desired.app())? } else { BTreeMap::new() };
        desired.check_secrets(secrets.keys().map(String::as_str))?;
        let file = |name: &Name, digest: &Digest| ComponentFile {
            path: self.store.blobs().path(digest),
            digest: *digest,
            kind: desired.kinds.get(name).copied(),
        };
        let spec = AppSpec {
            manifest: Arc::clone(&desired.manifest),
            revision: desired.revision,
            components: desired.components.iter().map(|(name, digest)| (name.clone(), file(name, digest))).collect(),
            secrets: secrets.into_iter().map(|(name, value)| (name, value.expose().to_owned())).collect(),
        };
        self.runtime.prepare(spec, verify).await
    }

    fn observed(&self, desired: Desired, deployed_unix_ns: u64, running: Result<App, Failure>) -> Arc<Observed> {
        Arc::new(Observed { ingest: self.ingest(&desired), desired, deployed_unix_ns, running })
    }

    fn ingest(&self, desired: &Desired) -> Vec<Arc<Ingest>> {
        if !desired.manifest.streams.values().any(|table| table.ingest) {
            return Vec::new();
        }
        let secrets = self.store.secrets(desired.app()).unwrap_or_else(|error| {
            tracing::error!(app = %desired.app(), %error, "the app's secrets cannot be read: its streams take no events from outside");
            BTreeMap::new()
        });
        routes::ingest(desired, secrets.get(INGEST_SECRET), self.token.as_ref(), &self.streams)
    }

    /// Makes `now` what runs, if `keep` makes it durable. Whatever can be refused is tried before that; what its triggers take
    /// over or leave behind changes after it.
    async fn switch(
        &self,
        now: &Arc<Observed>,
        keep: impl Future<Output = Result<(), Failure>>,
    ) -> Result<(), Failure> {
        let before = self.apps.load().get(now.desired.app()).cloned();
        // What could not be forgotten with the last change: the next revision is not owed that.
        match &before {
            None => self.triggers.remove(now.desired.app()).await,
            Some(before) if before.running.is_ok() => self.triggers.forget_unwanted(&before.desired.manifest).await,
            // Its manifest may not be known.
            Some(_) => {}
        }
        // Changes come one at a time, so that this is still what is shown next when it is kept.
        let (apps, table) = self.with(now)?;
        let triggers = match self.prepare_and_keep(now, keep).await {
            Ok(triggers) => triggers,
            Err(failure) => {
                // What runs has not changed, but for how its streams and consumers are kept.
                if let Some(before) = &before
                    && let Err(failure) = self.apply_triggers(before).await
                {
                    tracing::error!(app = %now.desired.app(), "its streams and triggers cannot be put back: {failure:?}");
                }
                return Err(failure);
            }
        };
        self.show(apps, table);
        self.switch_triggers(triggers).await;
        self.triggers.forget_unwanted(&now.desired.manifest).await;
        Ok(())
    }

    async fn prepare_and_keep(
        &self,
        now: &Observed,
        keep: impl Future<Output = Result<(), Failure>>,
    ) -> Result<ReadyTriggers, Failure> {
        let triggers = self.prepare_triggers(now).await?;
        match keep.await {
            Ok(()) => Ok(triggers),
            Err(failure) => {
                self.triggers.take_back(triggers).await;
                Err(failure)
            }
        }
    }

    /// Makes the buckets of objects that an app declares, reads, writes or listens to. They stay when it goes: what is in
    /// them is not the app's alone.
    async fn make_buckets(&self, app: &Observed) -> Result<(), Failure> {
        let manifest = &app.desired.manifest;
        let listened =
            manifest.functions.iter().flat_map(|function| &function.on).filter_map(|trigger| match trigger {
                On::Object(trigger) => Some(&trigger.object.bucket),
                _ => None,
            });
        let allowed = manifest.functions.iter().flat_map(|function| &function.allow.blob);
        for bucket in manifest.buckets.keys().chain(allowed).chain(listened) {
            // Looked at first: a full disk is no reason not to start what has its buckets.
            if self.objects.bucket(bucket).await?.is_none() {
                self.objects.create_bucket(bucket).await?;
            }
        }
        Ok(())
    }

    /// Starts, changes and stops what events start. Of an app that cannot run the events are kept.
    async fn apply_triggers(&self, app: &Observed) -> Result<(), Failure> {
        let triggers = self.prepare_triggers(app).await?;
        self.switch_triggers(triggers).await;
        Ok(())
    }

    /// Everything of it that can fail.
    async fn prepare_triggers(&self, app: &Observed) -> Result<ReadyTriggers, Failure> {
        let functions = app.running.as_ref().map(|running| {
            let function = |(name, function): (&Name, &Arc<marram_runtime::Function>)| {
                (name.clone(), Arc::clone(function) as Arc<dyn Invoke>)
            };
            running.functions.iter().map(function).collect()
        });
        self.make_buckets(app).await?;
        self.triggers.prepare(&app.desired.manifest, &functions.unwrap_or_default()).await
    }

    async fn switch_triggers(&self, triggers: ReadyTriggers) {
        self.triggers.switch(triggers).await;
        self.store.set_captures(self.triggers.captures());
    }

    fn replace(&self, app: &Arc<Observed>) -> Result<(), Failure> {
        let (apps, table) = self.with(app)?;
        self.show(apps, table);
        Ok(())
    }

    /// Every app with this one as it is now, and the routes of that.
    fn with(&self, app: &Arc<Observed>) -> Result<(Apps, Table), Failure> {
        let mut apps = Apps::clone(&self.apps.load());
        apps.insert(app.desired.app().clone(), Arc::clone(app));
        let table = table(&apps)?;
        Ok((apps, table))
    }

    /// Swaps the routing table, then what is shown.
    fn show(&self, apps: Apps, table: Table) {
        self.routes.swap(table);
        self.apps.store(Arc::new(apps));
    }
}

/// The routes of all apps. Those that conflict were refused before: a table that cannot be built is a bug.
fn table(apps: &Apps) -> Result<Table, Failure> {
    Table::build(routes::of(apps.values()))
        .map_err(|error| Failure::new(Kind::Internal, "the routes cannot be joined").because(error))
}

/// What the functions of an app were found to be, as it is stored.
fn kinds(app: &App) -> BTreeMap<Name, String> {
    app.functions.iter().map(|(name, function)| (name.clone(), function.kind().label().to_owned())).collect()
}
