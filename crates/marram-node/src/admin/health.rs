//! `/v1/health`, `/v1/node`, `/metrics`, `/v1/openapi.json`: the node itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{Method, header};
use axum::response::IntoResponse;
use marram_telemetry::METRICS_CONTENT_TYPE;

use super::Admin;
use super::operation::{Content, Operation};
use super::problem::Refusal;
use crate::api::{Health, Listeners, NodeView, Readiness};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(Method::GET, "/v1/health", "getHealth", "Whether the node takes requests", health)
            .open()
            .json::<Health>(200, "It answers"),
        Operation::new(Method::GET, "/v1/node", "getNode", "What the node is", node).json::<NodeView>(200, "The node"),
        Operation::new(Method::GET, "/v1/openapi.json", "getOpenApi", "This document", document).answer(
            200,
            "OpenAPI 3.1",
            Some(Content::Bytes("application/json")),
        ),
        Operation::new(Method::GET, "/metrics", "getMetrics", "Metrics, for Prometheus", metrics).answer(
            200,
            "OpenMetrics text",
            Some(Content::Bytes(METRICS_CONTENT_TYPE)),
        ),
    ]
}

async fn health(State(admin): State<Arc<Admin>>) -> Json<Health> {
    let status = match &admin.parts {
        parts if parts.is_draining() => Readiness::Draining,
        parts if parts.store.damage().is_some() => Readiness::Damaged,
        _ => Readiness::Ready,
    };
    Json(Health { status })
}

async fn node(State(admin): State<Arc<Admin>>) -> Json<NodeView> {
    let parts = &admin.parts;
    let apps = parts.reconciler.apps();
    Json(NodeView {
        name: parts.config.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_unix_ms: parts.started_unix_ms,
        listeners: Listeners { http: parts.http_url(), admin: parts.admin_url() },
        engines: crate::engines(),
        state_dir: parts.store.dir().display().to_string(),
        apps: apps.len() as u64,
        functions: apps.values().map(|app| app.desired.components.len() as u64).sum(),
    })
}

async fn document() -> Json<&'static serde_json::Value> {
    Json(super::openapi())
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Result<impl IntoResponse, Refusal> {
    let telemetry = Arc::clone(&admin.parts.telemetry);
    let more = crate::metrics::of_state(&admin.parts).await;
    let text = super::input::blocking(move || telemetry.metrics_with(more)).await?;
    Ok(([(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)], text))
}
