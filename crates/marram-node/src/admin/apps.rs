//! `/v1/apps`: deploying, looking, rolling back, removing.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use marram_core::{Failure, Kind};
use schemars::JsonSchema;
use serde::Deserialize;

use super::input::Segments;
use super::operation::Operation;
use super::problem::Refusal;
use super::{Admin, input, view};
use crate::api::{AppView, Apps, DeployRequest, Deployed, RevisionView, Revisions, RollbackRequest};
use crate::desired::Desired;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(Method::GET, "/v1/apps", "listApps", "The apps of the node", list).json::<Apps>(200, "By name"),
        Operation::new(Method::GET, "/v1/apps/{app}", "getApp", "One app", get).json::<AppView>(200, "The app"),
        Operation::new(Method::PUT, "/v1/apps/{app}", "deployApp", "Checks, compiles and deploys an app", deploy)
            .query::<DeployQuery>()
            .takes::<DeployRequest>()
            .json::<Deployed>(200, "It serves"),
        Operation::new(
            Method::DELETE,
            "/v1/apps/{app}",
            "removeApp",
            "Removes an app, its revisions and its secrets",
            remove,
        )
        .answer(204, "It is gone", None),
        Operation::new(
            Method::GET,
            "/v1/apps/{app}/revisions",
            "listRevisions",
            "The revisions that are kept",
            revisions,
        )
        .json::<Revisions>(200, "Newest first"),
        Operation::new(
            Method::POST,
            "/v1/apps/{app}/rollback",
            "rollbackApp",
            "Makes an earlier revision what runs",
            rollback,
        )
        .takes::<RollbackRequest>()
        .json::<Deployed>(200, "It serves"),
    ]
}

/// How a deployment is meant.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DeployQuery {
    /// Check and compile everything, and change nothing.
    #[serde(default)]
    dry_run: bool,
}

async fn list(State(admin): State<Arc<Admin>>) -> Json<Apps> {
    let apps = admin.parts.reconciler.apps();
    Json(Apps { apps: apps.values().map(|app| view::summary(app)).collect() })
}

async fn get(State(admin): State<Arc<Admin>>, Segments(app): Segments<String>) -> Result<Json<AppView>, Refusal> {
    let app = admin.parts.reconciler.app(&input::name(&app)?)?;
    let store = Arc::clone(&admin.parts.store);
    let (name, revision) = (app.desired.app().clone(), app.desired.revision);
    let stored = input::blocking(move || store.revision(&name, &revision)).await?.map_err(Failure::from)?;
    Ok(Json(view::app(&app, stored.manifest)))
}

async fn deploy(
    State(admin): State<Arc<Admin>>,
    Segments(app): Segments<String>,
    uri: Uri,
    body: Body,
) -> Result<Json<Deployed>, Refusal> {
    let app = input::name(&app)?;
    let DeployQuery { dry_run } = input::query(&uri)?;
    let DeployRequest { manifest, components } = input::json(body, "").await?;
    let desired = Desired::new(&manifest, components)?;
    if *desired.app() != app {
        let message = format!(
            "the path says app \"{app}\", and the manifest says `name = \"{}\"`: make them the same",
            desired.app()
        );
        return Err(Refusal::new(Kind::Invalid, message));
    }
    let pins = admin.parts.pin(&desired.components)?;
    let changed = admin.parts.reconciler.deploy(manifest, desired, pins, dry_run).await?;
    Ok(Json(view::deployed(&changed)))
}

async fn remove(State(admin): State<Arc<Admin>>, Segments(app): Segments<String>) -> Result<StatusCode, Refusal> {
    admin.parts.reconciler.remove(input::name(&app)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn revisions(
    State(admin): State<Arc<Admin>>,
    Segments(app): Segments<String>,
) -> Result<Json<Revisions>, Refusal> {
    let app = input::name(&app)?;
    let store = Arc::clone(&admin.parts.store);
    let revisions = input::blocking(move || {
        let view = |summary: marram_store::RevisionSummary| {
            let stored = store.revision(&app, &summary.digest)?;
            let manifest = marram_core::manifest::Manifest::parse(&stored.manifest).ok();
            Ok(RevisionView {
                revision: summary.digest,
                version: manifest.and_then(|manifest| manifest.app.version),
                deployed_unix_ms: summary.deployed_unix_ns / 1_000_000,
                current: summary.current,
            })
        };
        store.revisions(&app)?.into_iter().map(view).collect::<Result<Vec<_>, marram_store::StoreError>>()
    });
    Ok(Json(Revisions { revisions: revisions.await?.map_err(Failure::from)? }))
}

async fn rollback(
    State(admin): State<Arc<Admin>>,
    Segments(app): Segments<String>,
    body: Body,
) -> Result<Json<Deployed>, Refusal> {
    let app = input::name(&app)?;
    let RollbackRequest { revision } = input::json(body, "{}").await?;
    let changed = admin.parts.reconciler.rollback(app, revision).await?;
    Ok(Json(view::deployed(&changed)))
}
