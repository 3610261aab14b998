//! What `marram up` shows: short lines on stderr, and a spinner while something is built.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};
use marram_core::manifest::{Function, On};
use marram_node::OwnS3Key;
use marram_node::api::Deployed;

use crate::building::Job;
use crate::output::{self, BOLD, CYAN, DIM, GREEN, paint};
use crate::project::Project;
use crate::{progress, units};

/// Messages around one line that moves.
pub(crate) struct Screen {
    bar: ProgressBar,
    http: String,
}

impl Screen {
    /// An empty screen of a node that serves at `http`.
    pub(crate) fn new(http: String) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        bar.set_style(progress::style("{spinner:.cyan} {prefix:.bold} {elapsed:.dim} {wide_msg:.dim}"));
        Self { bar, http }
    }

    /// Writes messages without tearing the line that moves.
    pub(crate) fn apart(&self, write: impl FnOnce()) {
        self.bar.suspend(write);
    }

    /// One line.
    pub(crate) fn line(&self, text: &str) {
        self.apart(|| output::message(text));
    }

    /// One line that matters less.
    pub(crate) fn note(&self, text: &str) {
        self.line(&paint(DIM, text));
    }

    /// The same for a task of its own.
    pub(crate) fn notes(&self) -> impl Fn(&str) + Send + use<> {
        let bar = self.bar.clone();
        move |text| bar.suspend(|| output::message(&paint(DIM, text)))
    }

    /// A build begins.
    pub(crate) fn building(&self, job: &Job) {
        if !output::stderr_is_terminal() {
            return self.note(&format!("building {} ({})", job.title(), job.command));
        }
        self.bar.reset();
        self.bar.set_prefix(format!("building {}", job.title()));
        self.bar.set_message(job.command.clone());
        self.bar.set_draw_target(ProgressDrawTarget::stderr());
        self.bar.enable_steady_tick(Duration::from_millis(100));
    }

    /// Takes a build's lines, and shows the last one.
    pub(crate) fn ticker(&self, _job: &Job) -> impl Fn(&str) + Send + use<> {
        let bar = self.bar.clone();
        move |line| {
            let line = anstream::adapter::strip_str(line).to_string();
            if !line.trim().is_empty() {
                bar.set_message(line.trim().to_owned());
            }
        }
    }

    /// No build runs.
    pub(crate) fn idle(&self) {
        self.bar.disable_steady_tick();
        self.bar.finish_and_clear();
        self.bar.set_draw_target(ProgressDrawTarget::hidden());
    }

    /// What a build that failed has said.
    pub(crate) fn output(&self, text: &str) {
        self.apart(|| output::message(text.trim_end()));
    }

    /// A build has ended well.
    pub(crate) fn built(&self, job: &Job, took: Duration) {
        self.line(&format!("{} {} in {}", paint(GREEN, "built"), job.title(), units::duration(took)));
    }

    /// A revision serves.
    pub(crate) fn deployed(&self, deployed: &Deployed, project: &Project, took: Duration, first: bool) {
        let took = units::duration(took);
        if first {
            return self.first(deployed, project, &took);
        }
        let done = if deployed.unchanged { "unchanged" } else { "swapped" };
        let revision = paint(DIM, deployed.revision.short());
        self.line(&format!(
            "{} {} {revision} {}",
            paint(GREEN, done),
            deployed.app,
            paint(DIM, format!("{took} after the change"))
        ));
    }

    fn first(&self, deployed: &Deployed, project: &Project, took: &str) {
        let version = project.manifest.app.version.as_deref().unwrap_or_default();
        self.line(&format!("{} {} {version}", paint(GREEN, "serving"), paint(BOLD, &deployed.app)));
        let width = deployed.functions.iter().map(|function| function.name.as_str().len()).max().unwrap_or(0);
        for function in &deployed.functions {
            let written = project.manifest.function(function.name.as_str());
            let urls: Vec<_> =
                written.into_iter().flat_map(Function::http).map(|on| self.url(&on.http.to_string())).collect();
            let events: Vec<_> = written.into_iter().flat_map(Function::events).map(On::source).collect();
            let urls = match (urls.is_empty(), events.is_empty()) {
                (true, true) => paint(DIM, "no trigger"),
                (true, false) => paint(DIM, events.join("  ")),
                (false, true) => paint(CYAN, urls.join("  ")),
                (false, false) => format!("{}  {}", paint(CYAN, urls.join("  ")), paint(DIM, events.join("  "))),
            };
            self.line(&format!("  {:width$}  {}  {urls}", function.name.as_str(), paint(DIM, &function.kind)));
        }
        self.note(&format!("ready after {took}; watching for changes; Ctrl-C drains"));
    }

    /// Listeners besides those of HTTP, unless they stand in the same terminal as data. Who is on this machine may use them: the
    /// key of S3 is shown plainly.
    pub(crate) fn listeners(&self, urls: &[(&'static str, String)], key: Option<&OwnS3Key>) {
        for (name, url) in urls.iter().filter(|_| !output::stdout_is_terminal()) {
            self.line(&format!("  {}  {}", paint(DIM, name), paint(CYAN, url)));
        }
        if let Some(OwnS3Key { id, secret }) = key {
            self.note(&format!("  AWS_ACCESS_KEY_ID={id} AWS_SECRET_ACCESS_KEY={secret}"));
        }
    }

    /// A route as something to click on: `/price/...` of any host, or of its own.
    fn url(&self, route: &str) -> String {
        match route.strip_prefix('/') {
            Some(_) => format!("{}{route}", self.http),
            None => format!("http://{route}"),
        }
    }
}
