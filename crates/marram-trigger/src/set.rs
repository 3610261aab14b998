//! The triggers of all apps: what runs, and how that changes when an app is deployed, rolled back or removed.
//!
//! A trigger that stays the same goes on, with the next revision's function from its next event on. One that changes ends
//! first, so that nothing is delivered twice at once. What can fail happens before anything changes.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use marram_core::capture::{Capture, Source};
use marram_core::manifest::{Function, Manifest, Missed, On, ScheduleTrigger};
use marram_core::port::streams::ConsumerState;
use marram_core::port::{Clock, Consumer, Entropy, Invoke, Kv, Streams};
use marram_core::stream::{ConsumerId, StreamName, StreamPolicy};
use marram_core::{Failure, Kind, Name};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::Wiring;
use crate::deliver::{self, Counters, Counts, Plan, Shared, Target};
use crate::schedule::{self, Schedule, Timer};

/// How long a change of an app waits for what a trigger runs that ends or changes. After that it is cut off and delivered
/// again: a deployment is not to wait for a slow function.
const CHANGE_DRAIN: Duration = Duration::from_secs(10);

/// What triggers work with.
#[derive(Clone)]
pub struct Ports {
    /// Where events are.
    pub streams: Arc<dyn Streams>,
    /// Where schedules keep how far they are.
    pub kv: Arc<dyn Kv>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Identifiers and chance.
    pub entropy: Arc<dyn Entropy>,
}

/// The triggers of a node.
pub struct Triggers {
    ports: Ports,
    /// One change at a time.
    changes: tokio::sync::Mutex<()>,
    apps: Mutex<BTreeMap<Name, App>>,
}

/// What an app has here.
#[derive(Default)]
struct App {
    streams: BTreeMap<StreamName, StreamPolicy>,
    captures: Vec<Capture>,
    triggers: BTreeMap<ConsumerId, Running>,
}

/// A trigger of a deployed app.
struct Running {
    function: Name,
    wiring: Wiring,
    missed: Option<Missed>,
    consumer: Arc<dyn Consumer>,
    /// `None` where the function cannot be run: what it is owed is kept.
    delivery: Option<Arc<Shared>>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

/// Whether a trigger delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TriggerState {
    /// It does.
    Running,
    /// Its consumer is paused.
    Paused,
    /// Its function could not be started on this node; events wait.
    Unavailable,
}

/// A trigger as it is now.
#[derive(Clone, Debug)]
pub struct AppliedTrigger {
    /// Of which app.
    pub app: Name,
    /// Which function it starts.
    pub function: Name,
    /// What starts it, as text.
    pub source: String,
    /// Which stream its events come from.
    pub stream: StreamName,
    /// Whether it delivers.
    pub state: TriggerState,
    /// Where its consumer stands.
    pub consumer: ConsumerState,
    /// What was delivered since this trigger was started.
    pub counts: Counts,
}

/// A trigger that is ready to be started.
struct Prepared {
    function: Name,
    wiring: Wiring,
    consumer: Arc<dyn Consumer>,
    target: Option<Target>,
    schedule: Option<(Schedule, u64)>,
}

impl Triggers {
    /// No app has triggers yet.
    #[must_use]
    pub fn new(ports: Ports) -> Self {
        Self { ports, changes: tokio::sync::Mutex::default(), apps: Mutex::default() }
    }

    /// Makes the triggers of an app what its manifest says: declares its streams, makes its consumers, starts, changes and
    /// stops. A function that is not among `functions` could not be started: its consumers are made, so that nothing is
    /// missed, and its events wait.
    ///
    /// Fails without having changed what is delivered. What a trigger was owed that is no more is forgotten.
    pub async fn apply(&self, manifest: &Manifest, functions: &BTreeMap<Name, Arc<dyn Invoke>>) -> Result<(), Failure> {
        let _one = self.changes.lock().await;
        let app = &manifest.app.name;
        let streams: BTreeMap<_, _> =
            manifest.streams.iter().map(|(name, table)| (StreamName::from(name), table.policy())).collect();
        self.check_declared(app, &streams)?;
        for (stream, policy) in &streams {
            self.ports.streams.declare(stream, *policy).await?;
        }
        let prepared = match self.prepare_all(manifest, functions).await {
            Ok(prepared) => prepared,
            Err(failure) => {
                // Some consumers may be there already that nobody wants now.
                let wanted = self.apps().get(app).map(|here| here.triggers.keys().cloned().collect());
                self.forget(app, &wanted.unwrap_or_default()).await;
                return Err(failure);
            }
        };
        let (captures, wanted) = (captures(manifest, &prepared), prepared.keys().cloned().collect());
        self.change(app, prepared).await;
        self.declare(app, streams, captures);
        self.forget(app, &wanted).await;
        Ok(())
    }

    /// Stops the triggers of an app and forgets what they were owed. Its streams stay, with what they keep.
    pub async fn remove(&self, app: &Name) -> Result<(), Failure> {
        let _one = self.changes.lock().await;
        self.change(app, BTreeMap::new()).await;
        self.apps().remove(app);
        self.forget(app, &HashSet::new()).await;
        Ok(())
    }

    /// What has to be captured, for all apps together.
    #[must_use]
    pub fn captures(&self) -> Vec<Capture> {
        let apps = self.apps();
        let all: HashSet<_> = apps.values().flat_map(|app| app.captures.iter().cloned()).collect();
        all.into_iter().collect()
    }

    /// Every trigger, by app and source.
    #[must_use]
    pub fn status(&self) -> Vec<AppliedTrigger> {
        let apps = self.apps();
        let all = apps.iter().flat_map(|(app, here)| here.triggers.values().map(move |trigger| (app, trigger)));
        all.map(|(app, trigger)| trigger.status(app)).collect()
    }

    /// Stops everything: pulls nothing more, waits for what runs, and after `deadline` cuts it off. For the end of a node.
    pub async fn drain(&self, deadline: Duration) {
        let _one = self.changes.lock().await;
        let apps = std::mem::take(&mut *self.apps());
        stop(apps.into_values().flat_map(|app| app.triggers.into_values()).collect(), deadline).await;
    }

    fn apps(&self) -> MutexGuard<'_, BTreeMap<Name, App>> {
        // A panic elsewhere left the map as it was: it is changed in single steps.
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn declare(&self, app: &Name, streams: BTreeMap<StreamName, StreamPolicy>, captures: Vec<Capture>) {
        let mut apps = self.apps();
        let here = apps.entry(app.clone()).or_default();
        (here.streams, here.captures) = (streams, captures);
    }

    /// Two apps that want different things of one stream.
    fn check_declared(&self, app: &Name, streams: &BTreeMap<StreamName, StreamPolicy>) -> Result<(), Failure> {
        for (other, here) in self.apps().iter().filter(|(other, _)| *other != app) {
            for (stream, policy) in &here.streams {
                if streams.get(stream).is_some_and(|wanted| wanted != policy) {
                    return Err(Failure::new(
                        Kind::Conflict,
                        format!(
                            "app \"{app}\" declares the stream \"{stream}\" otherwise than app \"{other}\" does, which is deployed here: make both the same, or leave it out in one"
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    async fn prepare_all(
        &self,
        manifest: &Manifest,
        functions: &BTreeMap<Name, Arc<dyn Invoke>>,
    ) -> Result<BTreeMap<ConsumerId, Prepared>, Failure> {
        let mut prepared = BTreeMap::new();
        for function in &manifest.functions {
            for on in function.events() {
                let invoke = functions.get(&function.name);
                if let Some(ready) = self.prepare(&manifest.app.name, function, on, invoke).await? {
                    prepared.insert(ready.wiring.id.clone(), ready);
                }
            }
        }
        Ok(prepared)
    }

    async fn prepare(
        &self,
        app: &Name,
        function: &Function,
        on: &On,
        invoke: Option<&Arc<dyn Invoke>>,
    ) -> Result<Option<Prepared>, Failure> {
        let Some(wiring) = Wiring::of(app, &function.name, on) else { return Ok(None) };
        let schedule = match on {
            On::Schedule(trigger) => Some(self.schedule(app, &function.name, trigger).await?),
            _ => None,
        };
        let consumer = self.ports.streams.consumer(&wiring.stream, &wiring.id, wiring.policy.clone()).await?;
        let limits = function.limits.resolve();
        let target = invoke
            .map(|invoke| Target::new(Arc::clone(invoke), function.output.clone(), limits.body.0, limits.concurrency));
        Ok(Some(Prepared { function: function.name.clone(), wiring, consumer, target, schedule }))
    }

    async fn schedule(
        &self,
        app: &Name,
        function: &Name,
        trigger: &ScheduleTrigger,
    ) -> Result<(Schedule, u64), Failure> {
        let schedule = Schedule::new(app, function, trigger)
            .map_err(|error| Failure::new(Kind::Invalid, format!("function \"{function}\": {error}")))?;
        let last = self.timer(schedule.clone(), CancellationToken::new()).prepare().await?;
        Ok((schedule, last))
    }

    fn timer(&self, schedule: Schedule, stop: CancellationToken) -> Timer {
        let Ports { streams, kv, clock, entropy } = self.ports.clone();
        Timer { schedule, streams, kv, clock, entropy, stop }
    }

    /// From what runs to what is prepared.
    async fn change(&self, app: &Name, mut prepared: BTreeMap<ConsumerId, Prepared>) {
        let ending = {
            let mut apps = self.apps();
            let triggers = &mut apps.entry(app.clone()).or_default().triggers;
            let (staying, ending): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(triggers)
                .into_iter()
                .partition(|(id, running)| prepared.get(id).is_some_and(|wanted| running.goes_on_as(wanted)));
            for (id, running) in &staying {
                if let Some(target) = prepared.remove(id).and_then(|wanted| wanted.target)
                    && let Some(delivery) = &running.delivery
                {
                    delivery.target.store(Arc::new(target));
                }
            }
            *triggers = staying;
            ending
        };
        stop(ending.into_values().collect(), CHANGE_DRAIN).await;
        let mut started = Vec::with_capacity(prepared.len());
        for (id, ready) in prepared {
            started.push((id, self.start(ready).await));
        }
        self.apps().entry(app.clone()).or_default().triggers.extend(started);
    }

    async fn start(&self, ready: Prepared) -> Running {
        let Prepared { function, wiring, consumer, target, schedule } = ready;
        let (stop, mut tasks) = (CancellationToken::new(), Vec::new());
        let missed = schedule.as_ref().map(|(schedule, _)| schedule.missed);
        if let Some((schedule, last)) = schedule {
            let timer = self.timer(schedule, stop.clone());
            // The one before may have gone on until now.
            let last = timer.prepare().await.unwrap_or(last).max(last);
            tasks.push(tokio::spawn(schedule::run(timer, last)));
        }
        let delivery = target.map(|target| {
            Arc::new(Shared {
                target: ArcSwap::from_pointee(target),
                plan: Plan {
                    source: wiring.source.clone(),
                    batch: wiring.batch,
                    keys: wiring.capture.as_ref().is_some_and(|capture| capture.source == Source::Key),
                    ack_wait: wiring.policy.ack_wait,
                    in_flight_max: wiring.policy.in_flight_max,
                },
                clock: Arc::clone(&self.ports.clock),
                entropy: Arc::clone(&self.ports.entropy),
                counters: Counters::default(),
                stop: stop.clone(),
                cut: CancellationToken::new(),
            })
        });
        if let Some(shared) = &delivery {
            tasks.push(tokio::spawn(deliver::run(Arc::clone(shared), Arc::clone(&consumer))));
        }
        Running { function, wiring, missed, consumer, delivery, stop, tasks }
    }

    /// Removes the consumers of an app that are not `wanted`, also those that an earlier process left. What fails is tried
    /// again with the next change.
    async fn forget(&self, app: &Name, wanted: &HashSet<ConsumerId>) {
        let streams = Arc::clone(&self.ports.streams);
        let list = tokio::task::spawn_blocking(move || streams.list()).await;
        let states = match list {
            Ok(Ok(states)) => states,
            Ok(Err(failure)) => return tracing::warn!(?failure, "cannot look for consumers that are no more"),
            Err(error) => return tracing::error!(%error, "listing the streams panicked"),
        };
        let prefix = format!("{app}/");
        let mut all = Vec::new();
        for state in states {
            all.extend(state.consumers.into_iter().map(|consumer| (state.name.clone(), consumer.id)));
        }
        for (stream, id) in &all {
            if !id.0.starts_with(&prefix) || wanted.contains(id) {
                continue;
            }
            if let Err(failure) = self.ports.streams.remove_consumer(stream, id).await {
                tracing::warn!(consumer = &*id.0, ?failure, "cannot remove a consumer that is no more");
            }
            if let Some((function, expression)) = id.0[prefix.len()..].split_once("/schedule:")
                && let Err(failure) =
                    schedule::forget(&*self.ports.kv, &format!("{prefix}{function}/{expression}")).await
            {
                tracing::warn!(consumer = &*id.0, ?failure, "cannot forget a schedule that is no more");
            }
        }
    }
}

impl Running {
    /// Whether the next revision changes nothing but what runs.
    fn goes_on_as(&self, wanted: &Prepared) -> bool {
        self.wiring == wanted.wiring
            && self.delivery.is_some() == wanted.target.is_some()
            && self.missed == wanted.schedule.as_ref().map(|(schedule, _)| schedule.missed)
    }

    fn status(&self, app: &Name) -> AppliedTrigger {
        let consumer = self.consumer.state();
        let state = match (&self.delivery, consumer.paused) {
            (None, _) => TriggerState::Unavailable,
            (Some(_), true) => TriggerState::Paused,
            (Some(_), false) => TriggerState::Running,
        };
        AppliedTrigger {
            app: app.clone(),
            function: self.function.clone(),
            source: self.wiring.source.clone(),
            stream: self.wiring.stream.clone(),
            state,
            consumer,
            counts: self.delivery.as_ref().map(|delivery| delivery.counters.read()).unwrap_or_default(),
        }
    }
}

/// Ends triggers together: stop, wait, cut off.
async fn stop(ending: Vec<Running>, drain: Duration) {
    ending.iter().for_each(|running| running.stop.cancel());
    let cuts: Vec<_> = ending.iter().filter_map(|running| Some(running.delivery.as_ref()?.cut.clone())).collect();
    let mut tasks = futures::future::join_all(ending.into_iter().flat_map(|running| running.tasks));
    if tokio::time::timeout(drain, &mut tasks).await.is_ok() {
        return;
    }
    cuts.iter().for_each(CancellationToken::cancel);
    tasks.await;
}

/// What the triggers and streams of an app need captured.
fn captures(manifest: &Manifest, prepared: &BTreeMap<ConsumerId, Prepared>) -> Vec<Capture> {
    let triggers = prepared.values().filter_map(|ready| ready.wiring.capture.clone());
    let streams = manifest.streams.iter().flat_map(|(name, table)| {
        table.mqtt.iter().map(move |topic| Capture {
            source: Source::Mqtt,
            filter: topic.filter().clone(),
            stream: StreamName::from(name),
        })
    });
    triggers.chain(streams).collect()
}
