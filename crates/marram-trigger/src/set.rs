//! The triggers of all apps: what runs, and how that changes when an app is deployed, rolled back or removed.
//!
//! A trigger that stays the same goes on, with the next revision's function from its next event on. One that changes ends
//! first, so that nothing is delivered twice at once. What can fail happens before anything changes ([`Triggers::prepare`]),
//! and what a trigger was owed is forgotten last ([`Triggers::forget_unwanted`]): once the revision without it is kept.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use marram_core::capture::{Capture, Source};
use marram_core::manifest::{Function, Manifest, Missed, On, ScheduleTrigger};
use marram_core::port::streams::ConsumerState;
use marram_core::port::{Clock, Consumer, Entropy, Invoke, Kv, Streams};
use marram_core::stream::{ConsumerId, StreamName, StreamPolicy};
use marram_core::{Failure, Kind, Name};
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::Wiring;
use crate::deliver::{self, Counters, Counts, Plan, Shared, Target};
use crate::schedule::{self, Schedule, Timer};

mod forget;

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
    /// One change at a time; and whether nothing is started any more.
    changes: Arc<tokio::sync::Mutex<bool>>,
    apps: Mutex<BTreeMap<Name, App>>,
    /// Whether the manifest of each deployed app could be read.
    knows_all: AtomicBool,
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

/// The triggers of a manifest, ready to be started. No other change begins before this one is at its end.
pub struct Ready {
    app: Name,
    streams: BTreeMap<StreamName, StreamPolicy>,
    captures: Vec<Capture>,
    prepared: BTreeMap<ConsumerId, Prepared>,
    /// Consumers that were not there before.
    made: Vec<(StreamName, ConsumerId)>,
    drained: OwnedMutexGuard<bool>,
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
        Self { ports, changes: Arc::default(), apps: Mutex::default(), knows_all: AtomicBool::new(true) }
    }

    /// Makes the triggers of an app what its manifest says: [`Triggers::prepare`], then [`Triggers::switch`].
    pub async fn apply(&self, manifest: &Manifest, functions: &BTreeMap<Name, Arc<dyn Invoke>>) -> Result<(), Failure> {
        let ready = self.prepare(manifest, functions).await?;
        self.switch(ready).await;
        Ok(())
    }

    /// Declares the streams of an app and makes its consumers: all that can fail. What runs goes on as it did. A function
    /// that is not among `functions` could not be started: its consumers are made, so that nothing is missed, and its events
    /// wait.
    pub async fn prepare(
        &self,
        manifest: &Manifest,
        functions: &BTreeMap<Name, Arc<dyn Invoke>>,
    ) -> Result<Ready, Failure> {
        let drained = Arc::clone(&self.changes).lock_owned().await;
        let app = &manifest.app.name;
        let streams = declared(manifest);
        self.check_declared(app, &streams)?;
        for (stream, policy) in &streams {
            self.ports.streams.declare(stream, *policy).await?;
        }
        let mut made = Vec::new();
        match self.prepare_all(manifest, functions, &mut made).await {
            Ok(prepared) => {
                Ok(Ready { app: app.clone(), streams, captures: captures(manifest), prepared, made, drained })
            }
            Err(failure) => {
                self.forget(&made).await;
                self.release_streams().await;
                Err(failure)
            }
        }
    }

    /// What can be said of a manifest without changing anything: that no other app wants its streams otherwise.
    pub fn check(&self, manifest: &Manifest) -> Result<(), Failure> {
        self.check_declared(&manifest.app.name, &declared(manifest))
    }

    /// Starts, changes and stops triggers; after [`Triggers::drain`] it starts none, and their events wait for the next start of
    /// the node. What was owed to those that are no more stays until [`Triggers::forget_unwanted`].
    pub async fn switch(&self, ready: Ready) {
        let Ready { app, streams, captures, prepared, made: _, drained } = ready;
        if !*drained {
            self.change(&app, prepared).await;
        }
        self.declare(&app, streams, captures);
    }

    /// Says what an app wants captured, before it is applied: when a node starts, devices and clients do not wait until it is the
    /// app's turn.
    pub fn expect(&self, manifest: &Manifest) {
        self.apps().entry(manifest.app.name.clone()).or_default().captures = captures(manifest);
    }

    /// Takes a preparation back: consumers that were made for it go. What was changed of others goes back with a
    /// [`Triggers::apply`] of what was there before.
    pub async fn take_back(&self, ready: Ready) {
        self.forget(&ready.made).await;
        self.release_streams().await;
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

    /// Stops everything: pulls nothing more, waits for what runs, and after `deadline` cuts it off. For the end of a node. What
    /// has to be captured stays: events that still come are for the next start.
    pub async fn drain(&self, deadline: Duration) {
        *self.changes.lock().await = true;
        let ending: Vec<_> =
            self.apps().values_mut().flat_map(|app| std::mem::take(&mut app.triggers).into_values()).collect();
        stop(ending, deadline).await;
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
        made: &mut Vec<(StreamName, ConsumerId)>,
    ) -> Result<BTreeMap<ConsumerId, Prepared>, Failure> {
        let mut prepared = BTreeMap::new();
        for function in &manifest.functions {
            for on in function.events() {
                let invoke = functions.get(&function.name);
                if let Some(ready) = self.prepare_one(&manifest.app.name, function, on, invoke, made).await? {
                    prepared.insert(ready.wiring.id.clone(), ready);
                }
            }
        }
        Ok(prepared)
    }

    async fn prepare_one(
        &self,
        app: &Name,
        function: &Function,
        on: &On,
        invoke: Option<&Arc<dyn Invoke>>,
        made: &mut Vec<(StreamName, ConsumerId)>,
    ) -> Result<Option<Prepared>, Failure> {
        let Some(wiring) = Wiring::of(app, &function.name, on) else { return Ok(None) };
        let schedule = match on {
            On::Schedule(trigger) => Some(planned(app, &function.name, trigger)?),
            _ => None,
        };
        let is_new = self.ports.streams.find_consumer(&wiring.stream, &wiring.id).is_none();
        let consumer = self.ports.streams.consumer(&wiring.stream, &wiring.id, wiring.policy.clone()).await?;
        if is_new {
            made.push((wiring.stream.clone(), wiring.id.clone()));
        }
        // After its consumer, by which it is found again where it has to go.
        let schedule = match schedule {
            Some(schedule) => {
                let last = self.timer(schedule.clone(), CancellationToken::new()).prepare().await?;
                Some((schedule, last))
            }
            None => None,
        };
        let limits = function.limits.resolve();
        let target = invoke
            .map(|invoke| Target::new(Arc::clone(invoke), function.output.clone(), limits.body.0, limits.concurrency));
        Ok(Some(Prepared { function: function.name.clone(), wiring, consumer, target, schedule }))
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

/// The streams that a manifest declares.
fn declared(manifest: &Manifest) -> BTreeMap<StreamName, StreamPolicy> {
    manifest.streams.iter().map(|(name, table)| (StreamName::from(name), table.policy())).collect()
}

/// What the triggers and streams of an app need captured.
fn captures(manifest: &Manifest) -> Vec<Capture> {
    let app = &manifest.app.name;
    let wirings = |function: &Function| {
        let wirings = function.events().filter_map(|on| Wiring::of(app, &function.name, on));
        wirings.filter_map(|wiring| wiring.capture).collect::<Vec<_>>()
    };
    let triggers = manifest.functions.iter().flat_map(wirings);
    let streams = manifest.streams.iter().flat_map(|(name, table)| {
        table.mqtt.iter().map(move |topic| Capture {
            source: Source::Mqtt,
            filter: topic.filter().clone(),
            stream: StreamName::from(name),
        })
    });
    triggers.chain(streams).collect()
}

fn planned(app: &Name, function: &Name, trigger: &ScheduleTrigger) -> Result<Schedule, Failure> {
    Schedule::new(app, function, trigger)
        .map_err(|error| Failure::new(Kind::Invalid, format!("function \"{function}\": {error}")))
}
