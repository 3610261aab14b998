//! `[[mqtt.bridge]]`: a broker that the site already has, whose messages come here, and to which others go.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use marram_core::quantity::Span;
use marram_mqtt::{BridgeConfig, Broker, Route, Version};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

use crate::config::read_limited;
use crate::pem;

/// Seconds between a packet and a ping, if nothing else is said.
const KEEP_ALIVE_S: u16 = 60;

/// One bridge.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MqttBridge {
    /// What it is called: the client identifier is `bridge-<name>`.
    pub name: String,
    /// `mqtt://host:1883`, or `mqtts://host:8883` with `ca`.
    pub address: String,
    /// `"3.1.1"` or `"5.0"`; 3.1.1 if left out, which every broker speaks.
    #[serde(default)]
    pub version: BridgeVersion,
    /// The user there.
    pub user: Option<String>,
    /// A file with the user's password and nothing else.
    pub password_file: Option<PathBuf>,
    /// Authorities (PEM) that the other broker's certificate is of; needed with `mqtts`.
    pub ca: Option<PathBuf>,
    /// What comes from there.
    #[serde(default)]
    pub inward: Vec<BridgeRoute>,
    /// What goes there.
    #[serde(default)]
    pub outward: Vec<BridgeRoute>,
    /// How long it may be quiet before a ping; `"60s"` if left out.
    pub keep_alive: Option<Span>,
}

/// What the other broker is spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum BridgeVersion {
    /// MQTT 3.1.1.
    #[default]
    #[serde(rename = "3.1.1")]
    V3_1_1,
    /// MQTT 5.0.
    #[serde(rename = "5.0")]
    V5,
}

/// Messages that go over.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeRoute {
    /// Topics, where they come from.
    pub filter: String,
    /// Put before the topic where they go to.
    #[serde(default)]
    pub prefix: String,
}

impl MqttBridge {
    /// The same with paths relative to `folder`.
    pub(crate) fn within(mut self, folder: &Path) -> Self {
        self.password_file = self.password_file.take().map(|file| folder.join(file));
        self.ca = self.ca.take().map(|file| folder.join(file));
        self
    }

    /// Starts it; it ends with the broker. It connects when the other broker is there, and again when that was gone.
    pub(crate) fn start(&self, broker: &Broker) -> anyhow::Result<()> {
        let started = self.config().and_then(|config| Ok(broker.bridge(config)?));
        started.map(drop).with_context(|| format!("the MQTT bridge \"{}\" of the configuration cannot be", self.name))
    }

    fn config(&self) -> anyhow::Result<BridgeConfig> {
        let (scheme, address) = self.address.split_once("://").unwrap_or(("", &self.address));
        check_address(address)?;
        let tls = match scheme {
            "mqtt" => None,
            "mqtts" => Some(self.tls(address)?),
            _ => anyhow::bail!("{:?} is not an address: write mqtt://host:1883 or mqtts://host:8883", self.address),
        };
        let user = match (&self.user, &self.password_file) {
            (None, None) => None,
            (Some(user), Some(file)) => Some((user.clone(), read_limited(file)?.trim().to_owned())),
            _ => anyhow::bail!("`user` and `password_file` belong together: give both, or neither"),
        };
        let routes = |routes: &[BridgeRoute]| {
            routes.iter().map(|route| Route { filter: route.filter.clone(), prefix: route.prefix.clone() }).collect()
        };
        let seconds = self.keep_alive.map(|span| u16::try_from(span.0.as_secs()).unwrap_or(u16::MAX).max(1));
        Ok(BridgeConfig {
            name: self.name.clone(),
            address: address.to_owned(),
            tls,
            version: match self.version {
                BridgeVersion::V3_1_1 => Version::V3_1_1,
                BridgeVersion::V5 => Version::V5,
            },
            user,
            inward: routes(&self.inward),
            outward: routes(&self.outward),
            keep_alive_s: seconds.unwrap_or(KEEP_ALIVE_S),
        })
    }

    fn tls(&self, address: &str) -> anyhow::Result<(Arc<ClientConfig>, ServerName<'static>)> {
        let file = self.ca.as_ref().context("`mqtts` needs `ca`, the authority of the other broker's certificate")?;
        let mut roots = RootCertStore::empty();
        for certificate in pem::certificates(file)? {
            roots.add(certificate).with_context(|| format!("{} has no authority", file.display()))?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("TLS 1.2 and 1.3 are not there")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name =
            ServerName::try_from(host.to_owned()).with_context(|| format!("{host:?} is not the name of a host"))?;
        Ok((Arc::new(config), name))
    }
}

/// `host:port` and nothing else. What is said of it has no password.
fn check_address(address: &str) -> anyhow::Result<()> {
    anyhow::ensure!(!address.contains('@'), "`address` has a user in it: say that in `user` and `password_file`");
    let shown = format!("`address` {address:?}");
    let (host, port) = address.rsplit_once(':').with_context(|| format!("{shown} has no port: 1883 as a rule"))?;
    anyhow::ensure!(!address.contains(['/', '?', '#']), "{shown} has a path: write no more than mqtt://host:1883");
    anyhow::ensure!(!host.is_empty(), "{shown} has no host: write mqtt://host:1883");
    let is_port = port.bytes().all(|digit| digit.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    anyhow::ensure!(is_port, "{shown} has no port from 1 to 65535 after its last colon: 1883 as a rule");
    Ok(())
}
