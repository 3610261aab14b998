//! `marram up` at work: what changed is built, what was built is deployed, and what fails leaves the last revision
//! serving.
//!
//! One build and one deployment run at a time, beside each other: a save of a script does not wait for a compiler.

mod inputs;
mod screen;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use marram_core::Failure;
use marram_node::Node;
use marram_node::api::Deployed;

use inputs::Changes;
pub(crate) use inputs::Inputs;
pub(crate) use screen::Screen;

use crate::building::{self, Failed, Job};
use crate::exit;
use crate::progress;
use crate::project::Project;
use crate::watch::Change;

/// What a failure leaves as it is.
const KEEPS_SERVING: &str = "the last revision keeps serving";

type Running<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Everything that `up` is doing.
pub(crate) struct Session {
    node: Arc<Node>,
    screen: Screen,
    inputs: Inputs,
    /// Builds that wait for the one that runs.
    queue: Vec<Job>,
    build: Option<(Job, Running<Result<Duration, Failed>>)>,
    deploy: Option<Running<Result<Deployed, Failure>>>,
    /// Something is newer than what was deployed last.
    dirty: bool,
    /// When the change came that is being worked on.
    since: Instant,
    /// Whether some revision serves.
    serving: bool,
    /// Whether the app was shown with its functions and their URLs.
    introduced: bool,
}

/// What [`Session::step`] has finished.
enum Step {
    Built(Job, Result<Duration, Failed>),
    Deployed(Result<Deployed, Failure>),
}

impl Session {
    /// A session for `project`. What is out of date is queued; nothing runs before [`step`](Self::step).
    pub(crate) fn new(project: Project, node: Arc<Node>, screen: Screen, serving: bool) -> anyhow::Result<Self> {
        let (inputs, changes) = Inputs::new(project)?;
        let since = Instant::now();
        let dirty = inputs.complete();
        let mut session = Self {
            node,
            screen,
            inputs,
            queue: Vec::new(),
            build: None,
            deploy: None,
            dirty,
            since,
            serving,
            introduced: false,
        };
        session.take_up(Changes { deploy: dirty, ..changes });
        Ok(session)
    }

    /// What is built from what.
    pub(crate) const fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// Where messages go.
    pub(crate) const fn screen(&self) -> &Screen {
        &self.screen
    }

    /// Whether everything that was out of date has been dealt with, and something serves.
    pub(crate) fn is_settled(&self) -> bool {
        self.serving && !self.dirty && self.queue.is_empty() && self.build.is_none() && self.deploy.is_none()
    }

    /// Goes on until a build or a deployment has ended. Dropping the future loses nothing.
    pub(crate) async fn step(&mut self) {
        self.begin();
        let done = match (&mut self.build, &mut self.deploy) {
            (None, None) => std::future::pending().await,
            (Some((job, build)), None) => Step::Built(job.clone(), build.await),
            (None, Some(deploy)) => Step::Deployed(deploy.await),
            (Some((job, build)), Some(deploy)) => tokio::select! {
                built = build => Step::Built(job.clone(), built),
                deployed = deploy => Step::Deployed(deployed),
            },
        };
        match done {
            Step::Built(job, result) => self.built(&job, result),
            Step::Deployed(result) => self.deployed(result),
        }
    }

    /// Takes in what changed.
    pub(crate) fn changed(&mut self, change: &Change) {
        self.since = Instant::now();
        let outcome = match change {
            Change::Anything => self.inputs.reload(),
            Change::Files(paths) if paths.contains(self.inputs.manifest_path()) => self.inputs.reload(),
            Change::Files(paths) => Ok(self.inputs.changed(paths)),
        };
        match outcome {
            Ok(changes) => self.take_up(changes),
            Err(error) => self.failed(&error),
        }
    }

    /// Deploys and builds what can be, and says what has to be there first.
    fn take_up(&mut self, changes: Changes) {
        self.dirty |= changes.deploy;
        self.enqueue(changes.builds);
        if changes.missing.is_empty() {
            return;
        }
        self.screen.apart(|| changes.missing.iter().for_each(exit::show));
        self.screen.note("it is deployed when the file is there");
        if self.serving {
            self.screen.note(KEEPS_SERVING);
        }
    }

    /// A build of what has changed again is of no use: it is ended, and starts anew.
    fn enqueue(&mut self, jobs: Vec<Job>) {
        if self.build.as_ref().is_some_and(|(running, _)| jobs.iter().any(|job| job.command == running.command)) {
            self.build = None;
        }
        for job in jobs {
            if !self.queue.contains(&job) {
                self.queue.push(job);
            }
        }
    }

    /// Starts what can start.
    fn begin(&mut self) {
        if self.build.is_none() && !self.queue.is_empty() {
            let job = self.queue.remove(0);
            self.screen.building(&job);
            let (folder, line) = (self.inputs.project().folder.clone(), self.screen.ticker(&job));
            let task = job.clone();
            let build = async move { building::in_background(&folder, &task, line).await };
            self.build = Some((job, build.boxed()));
        }
        if self.deploy.is_none() && self.dirty && self.inputs.complete() {
            self.dirty = false;
            let (node, package) = (Arc::clone(&self.node), self.inputs.package());
            let (why, explain) = (self.inputs.project().compiles(), self.screen.notes());
            self.deploy =
                Some(async move { progress::patiently(node.deploy(package), || explain(&why)).await }.boxed());
        }
    }

    fn built(&mut self, job: &Job, result: Result<Duration, Failed>) {
        self.build = None;
        self.screen.idle();
        match result {
            Ok(took) => {
                self.screen.built(job, took);
                match self.inputs.take_in(job) {
                    Ok(()) => self.dirty = true,
                    Err(error) => self.failed(&error),
                }
            }
            Err(failed) => {
                self.screen.output(&failed.output);
                self.failed(&failed.problem.into());
            }
        }
    }

    fn deployed(&mut self, result: Result<Deployed, Failure>) {
        self.deploy = None;
        match result {
            Ok(deployed) => {
                self.serving = true;
                let first = !std::mem::replace(&mut self.introduced, true);
                self.screen.deployed(&deployed, self.inputs.project(), self.since.elapsed(), first);
            }
            Err(failure) => {
                self.screen.apart(|| exit::show(&anyhow::anyhow!("{}", failure.message())));
                if let Some(detail) = failure.detail() {
                    self.screen.note(detail.trim_end());
                }
                self.goes_on();
            }
        }
    }

    fn failed(&self, error: &anyhow::Error) {
        self.screen.apart(|| exit::show(error));
        self.goes_on();
    }

    /// The last line of whatever went wrong: what happens now.
    fn goes_on(&self) {
        self.screen.note(if self.serving { KEEPS_SERVING } else { "waiting for a change; Ctrl-C ends it" });
    }
}
