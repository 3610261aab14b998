//! A node: the one crate that knows all the others and joins them.
//!
//! [`NodeConfig`] says what a node is, [`Node::start`] brings it up, [`Node::deploy`] puts an app on it, and
//! [`Node::drain`] ends it without dropping a request. The admin API ([`api`] are its types) does the same over HTTP.
//! A node needs no network to boot and to serve, and it never exits the process: that is `main`'s.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod admin;
pub mod api;
mod bridge;
mod collector;
mod config;
mod desired;
mod events;
mod ingest;
mod metrics;
mod mqtt;
mod node;
mod observer;
mod package;
mod pem;
mod reconcile;
mod routes;
mod s3;
mod system;
mod tls;
mod unavailable;
mod upkeep;

pub use admin::openapi;
pub use bridge::{BridgeRoute, BridgeVersion, MqttBridge};
pub use config::{ConfigError, NodeConfig, TlsFiles, Token};
pub use marram_runtime::{Compiler, compile_stdin};
pub use mqtt::{MqttConfig, MqttGrant, MqttTls, MqttUser};
pub use node::Node;
pub use package::{ComponentSource, Package};
pub use s3::{OwnS3Key, S3Config, S3Key, S3Tls, own_s3_key};

/// What this build runs: both standards of components, and the languages whose engine is in it.
#[must_use]
pub fn engines() -> Vec<String> {
    let languages = marram_runtime::available_engines();
    ["component-0.2", "component-0.3"].into_iter().chain(languages).map(str::to_owned).collect()
}

/// The hash of a password of an MQTT user, for [`MqttUser::password_hash`].
pub fn hash_mqtt_password(password: &[u8]) -> anyhow::Result<String> {
    let entropy = system::SystemEntropy::new()?;
    marram_mqtt::hash_password(password, &entropy).map_err(|error| anyhow::anyhow!("it cannot be hashed: {error}"))
}

/// Looks at a state folder, also at one that a node is using: what is damaged or missing, each with the next step.
pub fn check_state_dir(dir: &std::path::Path) -> anyhow::Result<Vec<String>> {
    let findings = marram_store::check_state_dir(dir)?;
    Ok(findings.iter().map(ToString::to_string).collect())
}
