//! Clients of the MQTT broker, on the wire.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /v1/mqtt/clients`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MqttClients {
    /// By name.
    pub clients: Vec<MqttClient>,
}

/// A client that has a session, connected or not.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MqttClient {
    /// The client identifier.
    pub client: String,
    /// The user that its session belongs to.
    pub user: Option<String>,
    /// From where it is connected.
    pub address: Option<String>,
    /// `3.1`, `3.1.1` or `5.0`; absent while it is not connected.
    pub version: Option<String>,
    /// Since when it is connected.
    pub connected_unix_ms: Option<u64>,
    /// Its keep-alive in seconds; 0 for none.
    pub keep_alive_s: u16,
    /// Seconds that its session is kept without a connection; absent for ever.
    pub expiry_s: Option<u32>,
    /// Its subscriptions, as it wrote them.
    pub subscriptions: Vec<String>,
    /// Messages in its queue that are not acknowledged, sent or not.
    pub queued: u64,
    /// Of these, sent.
    pub in_flight: u64,
    /// Messages that it did not get because its queue was full, since the node started.
    pub dropped: u64,
}
