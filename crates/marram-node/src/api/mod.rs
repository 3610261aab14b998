//! The types of the admin API, version 1: what goes over the wire, and nothing else.
//!
//! Server, command line and the OpenAPI document use these same types. Times are milliseconds since the Unix epoch.
//! Log lines, usage and invocations are telemetry's own types.

mod keys;
mod mqtt;
mod objects;
mod streams;

use std::collections::BTreeMap;

pub use keys::{ChangesMissed, KeyBuckets, KeyChanged, KeyWritten, Keys, WatchLine};
pub use marram_core::problem::Problem;
use marram_core::{Digest, Name};
use marram_telemetry::{Cost, Invocation, LogEntry, Usage};
pub use mqtt::{MqttClient, MqttClients};
pub use objects::{ObjectBucket, ObjectBuckets, ObjectView, Objects};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
pub use streams::{
    ConsumerView, PauseRequest, PublishedEvent, PublishedEvents, Redriven, ReplayRequest, StreamView, Streams,
};

/// Whether the node takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Readiness {
    /// It does.
    Ready,
    /// It finishes what runs and takes nothing new.
    Draining,
    /// Its database is damaged: it serves what can be read, and refuses every change.
    Damaged,
}

/// `GET /v1/health`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// Whether the node takes requests.
    pub status: Readiness,
}

/// `GET /v1/node`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct NodeView {
    /// What the node calls itself.
    pub name: String,
    /// Marram's version.
    pub version: String,
    /// When the node started.
    pub started_unix_ms: u64,
    /// Where it listens.
    pub listeners: Listeners,
    /// Which kinds of component it runs.
    pub engines: Vec<String>,
    /// Its state's folder.
    pub state_dir: String,
    /// How many apps are deployed.
    pub apps: u64,
    /// How many functions they have.
    pub functions: u64,
}

/// URLs of the listeners.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Listeners {
    /// Where functions are served.
    pub http: String,
    /// This API.
    pub admin: String,
}

/// `PUT /v1/apps/{app}`: what is to run.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// The text of `marram.toml`.
    pub manifest: String,
    /// By the function's name: the digest of what it runs, uploaded before with `PUT /v1/blobs/{digest}`.
    pub components: BTreeMap<Name, Digest>,
}

/// What a deployment, a dry run of one, or a roll-back did.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Deployed {
    /// The app.
    pub app: Name,
    /// What runs now.
    pub revision: Digest,
    /// What ran before.
    pub previous: Option<Digest>,
    /// Whether this revision ran already, so that nothing was changed.
    pub unchanged: bool,
    /// The app's functions.
    pub functions: Vec<FunctionSummary>,
    /// Routes of all functions, as the manifest writes them.
    pub routes: Vec<String>,
}

/// A function, in short.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FunctionSummary {
    /// Its name in the app.
    pub name: Name,
    /// What it is made of: `component-0.2`, `component-0.3`, `watcher` (a component that only watches keys), `javascript`, `python`;
    /// `unknown` while that was not looked at.
    pub kind: String,
    /// Digest of the component or source.
    pub digest: Digest,
    /// Whether instances are used again, in words: `fresh`, `reuse 128 × 16`.
    pub instances: String,
}

/// Whether an app can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AppState {
    /// It serves.
    Ready,
    /// It could not be brought up; `error` says why, and its routes answer 500.
    Failed,
}

/// An app in `GET /v1/apps`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AppSummary {
    /// Its name.
    pub app: Name,
    /// The manifest's `app.version`, for people.
    pub version: Option<String>,
    /// What runs.
    pub revision: Digest,
    /// When that was deployed.
    pub deployed_unix_ms: u64,
    /// Whether it can run.
    pub state: AppState,
    /// Why it cannot.
    pub error: Option<String>,
    /// Names of its functions.
    pub functions: Vec<Name>,
    /// Routes of all functions, as the manifest writes them.
    pub routes: Vec<String>,
}

/// `GET /v1/apps`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Apps {
    /// By name.
    pub apps: Vec<AppSummary>,
}

/// `GET /v1/apps/{app}`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AppView {
    /// Its name.
    pub app: Name,
    /// The manifest's `app.version`, for people.
    pub version: Option<String>,
    /// What runs.
    pub revision: Digest,
    /// When that was deployed.
    pub deployed_unix_ms: u64,
    /// Whether it can run.
    pub state: AppState,
    /// Why it cannot.
    pub error: Option<String>,
    /// The text of its manifest.
    pub manifest: String,
    /// Its functions.
    pub functions: Vec<FunctionView>,
}

/// A function in `GET /v1/apps/{app}`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FunctionView {
    /// Its name in the app.
    pub name: Name,
    /// What it is made of, as in [`FunctionSummary::kind`].
    pub kind: String,
    /// Digest of the component or source.
    pub digest: Digest,
    /// Whether instances are used again, in words.
    pub instances: String,
    /// Its routes, as the manifest writes them.
    pub routes: Vec<String>,
    /// What it does at this moment; absent while the app cannot run.
    pub status: Option<FunctionStatus>,
}

/// What a function does at this moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct FunctionStatus {
    /// Instances that wait for a request.
    pub idle: u64,
    /// Whether its code is in memory; an idle function's is not.
    pub mapped: bool,
    /// Invocations that run.
    pub running: u64,
    /// Requests that wait for a permit.
    pub queued: u64,
}

/// `GET /v1/apps/{app}/revisions`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Revisions {
    /// Newest first.
    pub revisions: Vec<RevisionView>,
}

/// A revision that is kept.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RevisionView {
    /// Digest of manifest and components.
    pub revision: Digest,
    /// The manifest's `app.version`, for people.
    pub version: Option<String>,
    /// When it was deployed last.
    pub deployed_unix_ms: u64,
    /// Whether it is what runs.
    pub current: bool,
}

/// `POST /v1/apps/{app}/rollback`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// Which revision: a digest, or a beginning of its hex digits that only one has. The one before the current if
    /// left out.
    #[serde(default)]
    pub revision: Option<String>,
}

/// `PUT /v1/blobs/{digest}`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BlobView {
    /// Its digest.
    pub digest: Digest,
    /// How many bytes it has.
    pub bytes: u64,
}

/// `GET /v1/apps/{app}/secrets`: names only. No answer of this API has a value in it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Secrets {
    /// By name.
    pub secrets: Vec<SecretView>,
}

/// A secret, without its value.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SecretView {
    /// Its name.
    pub name: String,
    /// When it was set last.
    pub updated_unix_ms: u64,
    /// Functions of the deployed revision that read it.
    pub functions: Vec<Name>,
}

/// `GET /v1/usage`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct UsageView {
    /// By app and function.
    pub usage: Vec<FunctionUsage>,
}

/// What one function used, and what that costs.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FunctionUsage {
    /// What it used.
    #[serde(flatten)]
    pub usage: Usage,
    /// What that costs by the node's price list, if it has one.
    pub cost: Option<Cost>,
}

/// `GET /v1/invocations`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Invocations {
    /// The latest ones, oldest first.
    pub invocations: Vec<Invocation>,
}

/// A line of `GET /v1/logs`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum LogsLine {
    /// A line of a function's log.
    Entry(LogEntry),
    /// A follower was too slow.
    Gap(Gap),
}

/// Lines that a follower did not get.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// How many lines, of whatever function, went by.
    pub missed: u64,
}
