//! The MQTT broker of a node: what `node.toml` says of it, its listeners, and where it keeps what it acknowledges.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use marram_core::port::{Clock, Entropy};
use marram_mqtt::{AccessConfig, Broker, Limits, Origins, Permissions, Transport, User};
use marram_store::Store;
use serde::Deserialize;
use tokio::net::TcpListener;

use crate::bridge::MqttBridge;
use crate::config::TlsFiles;
use crate::node::{bind, bind_or_any};
use crate::tls;

/// `[mqtt]`: a broker for devices. Without a listener it is there for functions only.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MqttConfig {
    /// MQTT over TCP, in clear text; port 0 takes a free one.
    pub listen: Option<SocketAddr>,
    /// Whether any free port will do where that of `listen` is taken: for a developer's node, and not in `node.toml`.
    #[serde(skip)]
    pub any_port: bool,
    /// MQTT over WebSockets, in clear text.
    pub websocket: Option<SocketAddr>,
    /// Web pages that may connect over WebSockets, as in `https://dashboard.example`; `*` for all. If left out, none where clients may
    /// be anonymous, and all where their users have to have a password.
    pub origins: Option<Vec<String>>,
    /// MQTT over TLS.
    pub tls: Option<MqttTls>,
    /// Whether clients may connect that show nothing. If left out, where only this machine can reach the broker and no
    /// user is named.
    pub anonymous: Option<bool>,
    /// Who may connect with a password.
    #[serde(rename = "user")]
    pub users: Vec<MqttUser>,
    /// What clients with a certificate may do; their client identifier has to be a name of the certificate.
    pub certificates: Option<MqttGrant>,
    /// Brokers that the site already has.
    #[serde(rename = "bridge")]
    pub bridges: Vec<MqttBridge>,
}

/// The TLS listener of the broker.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MqttTls {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The certificate, then those that sign it (PEM).
    pub cert: PathBuf,
    /// The private key (PEM).
    pub key: PathBuf,
    /// Authorities (PEM) whose certificates clients may show.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

/// Topic filters, with `%c` for the client identifier and `%u` for the user.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MqttGrant {
    /// What may be published to.
    pub publish: Vec<String>,
    /// What may be subscribed to.
    pub subscribe: Vec<String>,
}

/// A user with a password.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MqttUser {
    /// The name.
    pub name: String,
    /// The password's argon2id hash: `marram mqtt passwd` makes one.
    pub password_hash: String,
    /// Client identifiers that it may use, with `%u` for the name; any if left out.
    #[serde(default)]
    pub client_ids: Vec<String>,
    /// What it may publish to.
    #[serde(default)]
    pub publish: Vec<String>,
    /// What it may subscribe to.
    #[serde(default)]
    pub subscribe: Vec<String>,
}

impl MqttConfig {
    /// The same with paths relative to `folder`.
    pub(crate) fn within(mut self, folder: &Path) -> Self {
        if let Some(tls) = &mut self.tls {
            (tls.cert, tls.key) = (folder.join(&tls.cert), folder.join(&tls.key));
            tls.client_ca = tls.client_ca.take().map(|file| folder.join(file));
        }
        self.bridges = self.bridges.into_iter().map(|bridge| bridge.within(folder)).collect();
        self
    }

    fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        [self.listen, self.websocket, self.tls.as_ref().map(|tls| tls.listen)].into_iter().flatten()
    }

    /// Refuses a broker that lets nobody in, which nobody means.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let anybody = self.anonymous() || !self.users.is_empty() || self.certificates.is_some();
        anyhow::ensure!(
            anybody || self.addresses().next().is_none(),
            "the MQTT broker can be reached from other machines and lets nobody in: name users (`[[mqtt.user]]`), give \
             clients with certificates something to do (`[mqtt.certificates]`), or say `anonymous = true` below `[mqtt]`"
        );
        Ok(())
    }

    fn anonymous(&self) -> bool {
        let here = self.addresses().all(|address| address.ip().is_loopback());
        self.anonymous.unwrap_or(here && self.users.is_empty() && self.certificates.is_none())
    }

    fn origins(&self) -> Origins {
        match &self.origins {
            Some(listed) if listed.iter().any(|origin| origin == "*") => Origins::Any,
            Some(listed) => Origins::Listed(listed.as_slice().into()),
            None if self.anonymous() => Origins::Listed([].into()),
            None => Origins::Any,
        }
    }

    fn access(&self) -> AccessConfig {
        let grant = |publish: &[String], subscribe: &[String]| Permissions {
            publish: publish.to_vec(),
            subscribe: subscribe.to_vec(),
        };
        let user = |user: &MqttUser| User {
            name: user.name.clone(),
            password_hash: user.password_hash.clone(),
            client_ids: user.client_ids.clone(),
            permissions: grant(&user.publish, &user.subscribe),
        };
        AccessConfig {
            users: self.users.iter().map(user).collect(),
            certificates: self.certificates.as_ref().map(|grants| grant(&grants.publish, &grants.subscribe)),
            anonymous: self.anonymous().then(Permissions::all),
        }
    }
}

/// The broker, and where it listens.
pub(crate) struct Listening {
    pub(crate) broker: Broker,
    /// `name=url`, in the order in which they are announced.
    pub(crate) urls: Vec<(&'static str, String)>,
}

/// Starts the broker. Without a listener it is there for functions only, which publish to each other.
pub(crate) async fn start(
    config: &MqttConfig,
    store: &Store,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
) -> anyhow::Result<Listening> {
    let journal = store.mqtt(Arc::clone(clock));
    let broker = Broker::start(Limits::default(), config.access(), journal, Arc::clone(clock), Arc::clone(entropy));
    let broker = broker.await.context("the MQTT broker cannot start")?;
    let mut urls = Vec::new();
    let mut listen = |name, scheme, listener: TcpListener, transport| -> anyhow::Result<()> {
        urls.push((name, format!("{scheme}://{}", listener.local_addr()?)));
        broker.listen(listener, transport);
        Ok(())
    };
    if let Some(address) = config.listen {
        let listener = bind_or_any(address, "mqtt", config.any_port).await?;
        listen("mqtt", "mqtt", listener, Transport::default())?;
    }
    if let Some(files) = &config.tls {
        let pair = TlsFiles { cert: files.cert.clone(), key: files.key.clone() };
        let tls = tls::server(&pair, files.client_ca.as_deref(), &[])?;
        let transport = Transport { tls: Some(Arc::new(tls)), websocket: None };
        listen("mqtts", "mqtts", bind(files.listen, "mqtt.tls.listen").await?, transport)?;
    }
    if let Some(address) = config.websocket {
        let transport = Transport { tls: None, websocket: Some(config.origins()) };
        listen("mqtt_ws", "ws", bind(address, "mqtt.websocket").await?, transport)?;
    }
    config.bridges.iter().try_for_each(|bridge| bridge.start(&broker))?;
    Ok(Listening { broker, urls })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(toml: &str) -> MqttConfig {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn web_pages_may_come_where_they_need_a_password() {
        let admits = |toml: &str| config(toml).origins().admit("https://page.example");
        let user = "[[user]]\nname = \"a\"\npassword_hash = \"x\"";
        assert!(!admits("websocket = \"127.0.0.1:1\"") && admits(user));
        assert!(admits("origins = [\"https://page.example\"]") && admits("origins = [\"*\"]"));
        assert!(!admits(&format!("origins = [\"https://other.example\"]\n{user}")));
    }

    #[test]
    fn only_this_machine_may_come_without_a_name() {
        assert!(config("listen = \"127.0.0.1:1883\"").anonymous());
        assert!(!config("listen = \"0.0.0.0:1883\"").anonymous());
        assert!(!config("listen = \"127.0.0.1:1883\"\nwebsocket = \"0.0.0.0:8083\"").anonymous());
        let user = "listen = \"127.0.0.1:1883\"\n[[user]]\nname = \"a\"\npassword_hash = \"x\"";
        assert!(!config(user).anonymous());
        assert!(config("listen = \"0.0.0.0:1883\"\nanonymous = true").anonymous());
    }

    #[test]
    fn a_broker_that_lets_nobody_in_is_refused() {
        let error = config("listen = \"0.0.0.0:1883\"").check().unwrap_err().to_string();
        assert!(error.contains("[[mqtt.user]]") && error.contains("anonymous = true"), "{error}");
        for fine in ["", "listen = \"127.0.0.1:1883\"", "listen = \"0.0.0.0:1883\"\n[certificates]\npublish = [\"#\"]"]
        {
            config(fine).check().unwrap();
        }
    }
}
