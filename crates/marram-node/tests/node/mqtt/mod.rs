//! `[mqtt]` of `node.toml`, on a whole node: who gets in on which listener, what it may do there, and that what it says is
//! stored.

pub mod client;

use std::path::PathBuf;
use std::sync::Arc;

use marram_node::{NodeConfig, hash_mqtt_password};
use marram_testkit::{TestNode, eventually};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tempfile::TempDir;
use tokio_rustls::TlsConnector;

use client::Client;

/// Not authorized (MQTT 5.0 §3.2.2.2), and a bad user name or password.
const REFUSED: u8 = 0x87;
const WRONG: u8 = 0x86;

/// A node with this `node.toml`, where every message is stored that is let in.
async fn node(toml: &str) -> TestNode {
    let mqtt = NodeConfig::from_toml(toml).unwrap_or_else(|error| panic!("{error}")).mqtt;
    let node = TestNode::start_with(|config| config.mqtt = mqtt).await;
    let app = "manifest_version = 1\n[app]\nname = \"site\"\n[stream.heard]\nmqtt = [\"#\"]\n";
    node.deploy(app, &[]).await.unwrap();
    node
}

/// Where the node listens, without the scheme.
pub fn address(node: &TestNode, listener: &str) -> String {
    let urls = node.node().urls();
    let (_, url) = urls.iter().find(|(name, _)| *name == listener).unwrap_or_else(|| panic!("{listener}: {urls:?}"));
    url.split_once("://").unwrap().1.to_owned()
}

/// Topics of what was let in.
async fn heard(node: &TestNode) -> Vec<String> {
    let text = node.admin().get("/v1/streams/heard/events").await.expect(200).text();
    let topic = |line: &str| serde_json::from_str::<Value>(line).unwrap()["subject"].as_str().unwrap().to_owned();
    text.lines().map(topic).collect()
}

/// An authority, which makes certificates for brokers and devices.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        let this = Self { folder, issuer };
        let (certificate, key) = this.issue("node", &["localhost"]);
        std::fs::write(this.file("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(this.file("key.pem"), key.serialize_pem()).unwrap();
        this
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn issue(&self, common: &str, alternative: &[&str]) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common);
        params.subject_alt_names =
            alternative.iter().map(|name| SanType::DnsName((*name).try_into().unwrap())).collect();
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// What a device connects with that trusts this authority, and shows a certificate of `of` if it has a name.
    fn connector(&self, of: &Self, shown: Option<(&str, &[&str])>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots);
        let config = match shown {
            None => config.with_no_client_auth(),
            Some((common, alternative)) => {
                let (certificate, key) = of.issue(common, alternative);
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                config.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
            }
        };
        TlsConnector::from(Arc::new(config))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_lets_the_device_in_that_it_names_and_no_other() {
    let authority = Authority::new();
    let quoted = |name: &str| format!("{:?}", authority.file(name));
    let node = node(&format!(
        "[mqtt.tls]\nlisten = \"127.0.0.1:0\"\ncert = {}\nkey = {}\nclient_ca = {}\n\
         [mqtt.certificates]\npublish = [\"plant/%c/#\"]\nsubscribe = [\"commands/%c/#\"]\n",
        quoted("cert.pem"),
        quoted("key.pem"),
        quoted("ca.pem"),
    ))
    .await;
    let address = address(&node, "mqtts");
    let pump = authority.connector(&authority, Some(("pump-7", &["pump-7b"])));
    // By its common name, and by its other one.
    for id in ["pump-7", "pump-7b"] {
        let mut client = Client::tls(&address, &pump).await;
        assert_eq!(client.hello(id, None).await, Some(0), "{id}");
        assert!(client.publish(&format!("plant/{id}/rms"), "1.4").await < 0x80, "{id}");
        assert_eq!(client.publish("plant/pump-9/rms", "1.4").await, REFUSED, "{id}: that is another one's");
        assert_eq!(client.subscribe(&format!("commands/{id}/#")).await, 0, "{id}");
        assert_eq!(client.subscribe("commands/#").await, REFUSED, "{id}: that is everybody's");
    }
    let mut other = Client::tls(&address, &pump).await;
    assert_eq!(other.hello("pump-9", None).await, Some(REFUSED), "the certificate names somebody else");
    let mut nobody = Client::tls(&address, &authority.connector(&authority, None)).await;
    assert_eq!(nobody.hello("pump-7", None).await, Some(REFUSED), "no certificate was shown");
    // What somebody else has signed says nothing: the connection ends before it is MQTT.
    let foreign = authority.connector(&Authority::new(), Some(("pump-7", &[])));
    let mut foreign = Client::tls(&address, &foreign).await;
    assert_eq!(foreign.hello("pump-7", None).await, None);
    assert_eq!(heard(&node).await, ["plant/pump-7/rms", "plant/pump-7b/rms"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_a_password_client_identifiers_and_topics() {
    let hash = hash_mqtt_password(b"the right one").unwrap();
    let node = node(&format!(
        "[mqtt]\nlisten = \"127.0.0.1:0\"\n[[mqtt.user]]\nname = \"ann\"\npassword_hash = \"{hash}\"\n\
         client_ids = [\"%u-1\", \"shared\"]\npublish = [\"plant/%u/#\"]\nsubscribe = [\"commands/%c\"]\n"
    ))
    .await;
    let address = address(&node, "mqtt");
    for (user, id, reason) in [
        (Some(("ann", "the wrong one")), "ann-1", WRONG),
        (Some(("ann", "")), "ann-1", WRONG),
        (Some(("eve", "the right one")), "ann-1", WRONG),
        (Some(("ann", "the right one")), "ann-2", REFUSED),
        (None, "ann-1", REFUSED),
    ] {
        let mut client = Client::tcp(&address).await;
        assert_eq!(client.hello(id, user).await, Some(reason), "{user:?} as {id}");
    }
    for id in ["ann-1", "shared"] {
        let mut client = Client::tcp(&address).await;
        assert_eq!(client.hello(id, Some(("ann", "the right one"))).await, Some(0), "{id}");
        assert!(client.publish(&format!("plant/ann/{id}"), "1.4").await < 0x80, "{id}");
        for topic in ["plant/eve/rms", &format!("commands/{id}"), "plant"] {
            assert_eq!(client.publish(topic, "1.4").await, REFUSED, "{id} to {topic}");
        }
        assert_eq!(client.subscribe(&format!("commands/{id}")).await, 0, "{id}");
        for filter in ["commands/other", "plant/ann/#", "#"] {
            assert_eq!(client.subscribe(filter).await, REFUSED, "{id} to {filter}");
        }
    }
    assert_eq!(heard(&node).await, ["plant/ann/ann-1", "plant/ann/shared"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_comes_by_websocket_where_it_is_listed_or_has_to_have_a_password() {
    const PAGE: &str = "https://dashboard.example";
    const EVIL: &str = "https://evil.example";
    let anonymous = "[mqtt]\nwebsocket = \"127.0.0.1:0\"\n".to_owned();
    let listed = format!("{anonymous}origins = [\"{PAGE}\"]\n");
    let hash = hash_mqtt_password(b"the right one").unwrap();
    let user = format!(
        "{anonymous}[[mqtt.user]]\nname = \"ann\"\npassword_hash = \"{hash}\"\npublish = [\"#\"]\nsubscribe = [\"#\"]\n"
    );
    let ann = Some(("ann", "the right one"));
    for (toml, who, origins) in [
        (anonymous, None, [(None, true), (Some(PAGE), false), (Some(EVIL), false)]),
        (listed, None, [(None, true), (Some(PAGE), true), (Some(EVIL), false)]),
        (user, ann, [(None, true), (Some(PAGE), true), (Some(EVIL), true)]),
    ] {
        let node = node(&toml).await;
        let address = address(&node, "mqtt_ws");
        let mut wanted = Vec::new();
        for (at, (origin, admitted)) in origins.into_iter().enumerate() {
            let client = Client::websocket(&address, origin).await;
            assert_eq!(client.as_ref().err(), (!admitted).then_some(&403), "{origin:?} with {toml}");
            let Ok(mut client) = client else { continue };
            assert_eq!(client.hello("page", who).await, Some(0), "{origin:?} with {toml}");
            assert_eq!(client.subscribe("commands/+").await, 0);
            // More than a small frame holds, both ways.
            let (topic, payload) = (format!("commands/{at}"), "stop".repeat(100));
            assert!(client.publish(&topic, &payload).await < 0x80);
            assert_eq!(client.message().await, (topic.clone(), payload));
            wanted.push(topic);
        }
        if who.is_some() {
            let mut client = Client::websocket(&address, Some(EVIL)).await.ok().unwrap();
            assert_eq!(client.hello("page", None).await, Some(REFUSED), "a page without a password");
        }
        assert_eq!(heard(&node).await, wanted, "{toml}");
        node.stop().await;
    }
}

/// The will is published as soon as the broker knows of it: long before the apps are there again.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_a_node_starts_is_captured() {
    let node = node("[mqtt]\nlisten = \"127.0.0.1:0\"\n").await;
    let mut pump = Client::tcp(&address(&node, "mqtt")).await;
    assert_eq!(pump.hello_with_will("pump-7", "plant/pump-7/gone", "1").await, Some(0));
    let node = node.restart().await;
    let gone = async || Some(heard(&node).await).filter(|heard| !heard.is_empty());
    assert_eq!(eventually("the will to be stored", gone).await, ["plant/pump-7/gone"]);
    node.stop().await;
}
