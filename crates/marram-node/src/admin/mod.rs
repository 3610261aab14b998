//! The admin API: what operators and the command line use. One file a resource; [`operation`] is the table that joins
//! them.
//!
//! It hides nothing that it should show, and never shows a secret or the token.

mod apps;
mod auth;
mod blobs;
mod follow;
mod health;
mod input;
mod invoke;
mod keys;
mod logs;
mod mqtt;
mod objects;
mod openapi_document;
mod operation;
mod problem;
mod secrets;
mod server;
mod streams;
pub(crate) mod tls;
mod usage;
pub(crate) mod view;

use std::sync::{Arc, LazyLock};

use axum::Router;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::node::Parts;
use operation::Operation;
use problem::Refusal;
pub(crate) use server::AdminServer;

/// Clients that follow the log, a stream or keys at the same time: each costs a connection and a look at every line.
const FOLLOWERS_MAX: usize = 64;

/// What the handlers work with.
struct Admin {
    parts: Arc<Parts>,
    followers: Arc<Semaphore>,
    /// Ends answers that would go on for ever.
    stop: CancellationToken,
}

/// Every operation, by resource.
fn operations() -> Vec<Operation> {
    [
        health::operations(),
        apps::operations(),
        blobs::operations(),
        secrets::operations(),
        invoke::operations(),
        logs::operations(),
        usage::operations(),
        streams::operations(),
        keys::operations(),
        objects::operations(),
        mqtt::operations(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

static DOCUMENT: LazyLock<serde_json::Value> = LazyLock::new(|| openapi_document::document(&operations()));

/// The OpenAPI 3.1 document of the admin API, from which its reference page is made.
#[must_use]
pub fn openapi() -> &'static serde_json::Value {
    &DOCUMENT
}

/// The paths that answer without a token.
fn open_paths() -> Vec<&'static str> {
    operations().iter().filter(|operation| operation.open).map(|operation| operation.path).collect()
}

fn router(admin: Arc<Admin>) -> Router {
    let router = operations()
        .into_iter()
        .fold(Router::new(), |router, operation| router.route(operation.path, operation.handler));
    router.fallback(no_such_path).method_not_allowed_fallback(no_such_method).with_state(admin)
}

async fn no_such_path(uri: axum::http::Uri) -> Refusal {
    if let Some(what) = nameless(uri.path()) {
        return Refusal::new(marram_core::Kind::Invalid, format!("{what} is empty: {} ends before it", uri.path()));
    }
    let message = format!("the admin API has no {}: GET /v1/openapi.json describes it", uri.path());
    Refusal::new(marram_core::Kind::NotFound, message)
}

/// What a path names with nothing, where the router wants a name of one byte or more.
fn nameless(path: &str) -> Option<&'static str> {
    match path.strip_prefix("/v1/")?.split('/').collect::<Vec<_>>()[..] {
        ["kv", bucket, "keys", ""] if !bucket.is_empty() => Some("the key"),
        ["objects", bucket, ""] if !bucket.is_empty() => Some("the object's name"),
        _ => None,
    }
}

async fn no_such_method(method: axum::http::Method, uri: axum::http::Uri) -> Refusal {
    let message = format!("{} does not take {method}: GET /v1/openapi.json says what it takes", uri.path());
    Refusal::new(marram_core::Kind::MethodNotAllowed, message)
}
