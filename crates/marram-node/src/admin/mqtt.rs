//! `/v1/mqtt`: who is connected to the broker, and an end to it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use marram_core::Kind;
use marram_mqtt::{ClientState, Version};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Admin;
use super::input::{self, Segments};
use super::operation::Operation;
use super::problem::Refusal;
use crate::api::{MqttClient, MqttClients};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(Method::GET, "/v1/mqtt/clients", "listMqttClients", "Clients that have a session", list)
            .json::<MqttClients>(200, "By name"),
        Operation::new(
            Method::DELETE,
            "/v1/mqtt/clients/{client}",
            "disconnectMqttClient",
            "Ends a client's connection; with `forget`, its session and queue too",
            disconnect,
        )
        .query::<DisconnectParameters>()
        .answer(204, "It is gone", None),
    ]
}

/// How much ends.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DisconnectParameters {
    /// The session, too, with its queue.
    #[serde(default)]
    forget: bool,
}

async fn list(State(admin): State<Arc<Admin>>) -> Result<Json<MqttClients>, Refusal> {
    let clients = admin.parts.mqtt.clients().await?;
    Ok(Json(MqttClients { clients: clients.into_iter().map(view).collect() }))
}

async fn disconnect(
    State(admin): State<Arc<Admin>>,
    Segments(client): Segments<String>,
    uri: Uri,
) -> Result<StatusCode, Refusal> {
    let DisconnectParameters { forget } = input::query(&uri)?;
    if admin.parts.mqtt.disconnect(&client, forget).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    let shown: String = client.chars().take(80).collect();
    Err(Refusal::new(Kind::NotFound, format!("there is no MQTT client {shown:?}: `marram mqtt clients` lists them")))
}

fn view(client: ClientState) -> MqttClient {
    MqttClient {
        client: client.client.to_string(),
        user: client.user.map(|user| user.to_string()),
        address: client.address.map(|address| address.to_string()),
        version: client.version.map(|version| match version {
            Version::V3_1 => "3.1".to_owned(),
            Version::V3_1_1 => "3.1.1".to_owned(),
            Version::V5 => "5.0".to_owned(),
        }),
        connected_unix_ms: client.connected_unix_ns.map(|ns| ns / 1_000_000),
        keep_alive_s: client.keep_alive_s,
        expiry_s: (client.expiry_s != u32::MAX).then_some(client.expiry_s),
        subscriptions: client.subscriptions.iter().map(ToString::to_string).collect(),
        queued: client.queued,
        in_flight: client.in_flight as u64,
        dropped: client.dropped,
    }
}
