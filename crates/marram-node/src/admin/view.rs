//! From what the node has to what the API shows.

use marram_core::manifest::{Function, InstancePolicy};
use marram_core::{Digest, Failure};

use crate::api::{AppState, AppSummary, AppView, Deployed, FunctionStatus, FunctionSummary, FunctionView};
use crate::desired::route_text;
use crate::reconcile::{Changed, Observed};

/// What a change did.
pub(crate) fn deployed(changed: &Changed) -> Deployed {
    let now = &changed.now;
    Deployed {
        app: now.desired.app().clone(),
        revision: now.desired.revision,
        previous: changed.previous,
        unchanged: changed.unchanged,
        functions: now.desired.manifest.functions.iter().map(|function| function_summary(now, function)).collect(),
        routes: now.desired.routes(),
    }
}

/// An app in the list.
pub(super) fn summary(app: &Observed) -> AppSummary {
    AppSummary {
        app: app.desired.app().clone(),
        version: app.desired.manifest.app.version.clone(),
        revision: app.desired.revision,
        deployed_unix_ms: app.deployed_unix_ns / 1_000_000,
        state: state(app),
        error: error(app),
        functions: app.desired.manifest.functions.iter().map(|function| function.name.clone()).collect(),
        routes: app.desired.routes(),
    }
}

/// All of an app. Its manifest's text comes from the store.
pub(super) fn app(app: &Observed, manifest: String) -> AppView {
    AppView {
        app: app.desired.app().clone(),
        version: app.desired.manifest.app.version.clone(),
        revision: app.desired.revision,
        deployed_unix_ms: app.deployed_unix_ns / 1_000_000,
        state: state(app),
        error: error(app),
        manifest,
        functions: app.desired.manifest.functions.iter().map(|function| function_view(app, function)).collect(),
    }
}

fn function_summary(app: &Observed, function: &Function) -> FunctionSummary {
    let running = running(app, function);
    FunctionSummary {
        name: function.name.clone(),
        kind: running.map_or("unknown", |running| running.kind().label()).to_owned(),
        digest: digest(app, function),
        instances: running.map_or_else(|| "unknown".to_owned(), |running| policy_text(&running.policy())),
    }
}

fn function_view(app: &Observed, function: &Function) -> FunctionView {
    let FunctionSummary { name, kind, digest, instances } = function_summary(app, function);
    let status = running(app, function).map(|running| {
        let status = running.status();
        FunctionStatus {
            mapped: status.mapped,
            idle: status.idle as u64,
            running: status.running.into(),
            queued: status.queued.into(),
        }
    });
    FunctionView { name, kind, digest, instances, routes: function.http().map(route_text).collect(), status }
}

fn running<'a>(app: &'a Observed, function: &Function) -> Option<&'a marram_runtime::Function> {
    app.running.as_ref().ok()?.functions.get(&function.name).map(|running| &**running)
}

fn digest(app: &Observed, function: &Function) -> Digest {
    // A `Desired` has a component for each of its functions.
    app.desired.components.get(&function.name).copied().unwrap_or_else(|| Digest::of(b""))
}

fn state(app: &Observed) -> AppState {
    if app.running.is_ok() { AppState::Ready } else { AppState::Failed }
}

/// The message and its cause: whoever sees this operates the node.
fn error(app: &Observed) -> Option<String> {
    let failure: &Failure = app.running.as_ref().err()?;
    Some(match failure.detail() {
        Some(detail) => format!("{}: {detail}", failure.message()),
        None => failure.message().to_owned(),
    })
}

/// `fresh`; `reuse 128`; `reuse 128, 16 at once, 2 warm`.
fn policy_text(policy: &InstancePolicy) -> String {
    let mut text = if policy.reuse == 1 { "fresh".to_owned() } else { format!("reuse {}", policy.reuse) };
    if policy.concurrent > 1 {
        text.push_str(&format!(", {} at once", policy.concurrent));
    }
    if policy.warm > 0 {
        text.push_str(&format!(", {} warm", policy.warm));
    }
    text
}
