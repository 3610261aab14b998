//! TLS, certificates, passwords and WebSockets.

use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use marram_mqtt::{AccessConfig, Limits, Origins, Permissions, Transport, User, hash_password};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::client::{BOTH, Client, Got, Hello, New, Old, fresh};
use crate::fixture::Dice;
use crate::node::Node;

struct Certificates {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        Arc::new(roots)
    }

    fn issue(
        &self,
        common: &str,
        alternative: &[&str],
    ) -> (rustls::pki_types::CertificateDer<'static>, PrivatePkcs8KeyDer<'static>) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common);
        params.subject_alt_names =
            alternative.iter().map(|name| SanType::DnsName((*name).try_into().unwrap())).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()))
    }

    /// Clients may show a certificate, and need not.
    fn server(&self) -> Arc<ServerConfig> {
        let (certificate, key) = self.issue("node", &["localhost"]);
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots(), provider())
            .allow_unauthenticated()
            .build()
            .unwrap();
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], key.into())
            .unwrap();
        Arc::new(config)
    }

    async fn client(&self, address: std::net::SocketAddr, shown: Option<(&str, &[&str])>) -> Client {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots());
        let config = match shown {
            None => config.with_no_client_auth(),
            Some((common, alternative)) => {
                let (certificate, key) = self.issue(common, alternative);
                config.with_client_auth_cert(vec![certificate], key.into()).unwrap()
            }
        };
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        Client::over(TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap(), New)
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn user(name: &str, password: &str, client_ids: &[&str]) -> User {
    User {
        name: name.into(),
        password_hash: hash_password(password.as_bytes(), &Dice::default()).unwrap(),
        client_ids: client_ids.iter().map(|id| (*id).into()).collect(),
        permissions: Permissions { publish: vec!["%u/#".into()], subscribe: vec!["%u/#".into()] },
    }
}

#[tokio::test]
async fn a_certificate_is_bound_to_client_identifiers() {
    let access = AccessConfig {
        users: vec![user("ann", "pw", &[])],
        certificates: Some(Permissions { publish: vec!["d/%c/#".into()], subscribe: vec!["d/%c/#".into()] }),
        anonymous: None,
    };
    let node = Node::with(Limits::default(), access, Default::default(), Duration::ZERO).await;
    let certificates = Certificates::new();
    let address = node.listen(Transport { tls: Some(certificates.server()), websocket: None }).await;
    for name in ["pump-7", "pump-7b"] {
        let mut client = certificates.client(address, Some(("pump-7", &["pump-7b"]))).await;
        assert!(matches!(client.hello(name, fresh()).await, Got::ConnAck(false, 0, _)), "{name}");
        assert_eq!(client.subscribe(&format!("d/{name}/x"), 0).await, 0);
        assert_eq!(client.subscribe("d/other/x", 0).await, 0x87);
        client.publish(&format!("d/{name}/x"), &[7; 100_000], 0, 0).await;
        assert_eq!(client.message().await.payload.len(), 100_000);
    }
    let mut client = certificates.client(address, Some(("pump-7", &["pump-7b"]))).await;
    assert!(matches!(client.hello("pump-8", fresh()).await, Got::ConnAck(false, 0x87, _)));
    // Without a certificate it is the password that counts.
    let mut client = certificates.client(address, None).await;
    assert!(matches!(client.hello("pump-7", fresh()).await, Got::ConnAck(false, 0x87, _)));
    let mut client = certificates.client(address, None).await;
    let hello = Hello { user: Some(("ann", "pw")), ..fresh() };
    assert!(matches!(client.hello("any", hello).await, Got::ConnAck(false, 0, _)));
    // Who does not speak TLS is not answered in MQTT.
    let mut plain = Client::open(address, Old).await;
    plain.raw(b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a").await;
    let mut bytes = Vec::new();
    let mut stream = TcpStream::connect(address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a").await.unwrap();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut bytes).await;
    assert_ne!(bytes.first(), Some(&0x20));
}

#[tokio::test]
async fn a_user_has_a_password_and_topics() {
    let access = AccessConfig {
        users: vec![user("ann", "right", &["%u-1", "shared"]), user("b+b", "right", &[])],
        ..AccessConfig::default()
    };
    let node = Node::with(Limits::default(), access, Default::default(), Duration::ZERO).await;
    for version in BOTH {
        let code = |new: u8, old: u8| if version == New { new } else { old };
        for (user, client, reason) in [
            (Some(("ann", "right")), "ann-1", 0),
            (Some(("ann", "right")), "shared", 0),
            (Some(("ann", "right")), "ann-2", code(0x87, 5)),
            (Some(("ann", "wrong")), "ann-1", code(0x86, 4)),
            (Some(("ann", "")), "ann-1", code(0x86, 4)),
            (Some(("eve", "right")), "ann-1", code(0x86, 4)),
            (None, "ann-1", code(0x87, 5)),
        ] {
            let mut stranger = Client::open(node.address, version).await;
            let got = stranger.hello(client, Hello { user, ..fresh() }).await;
            assert!(matches!(got, Got::ConnAck(false, given, _) if given == reason), "{user:?} {client}: {got:?}");
            if reason > 0 {
                assert_eq!(stranger.get().await, Got::End);
            }
        }
    }
    // A user whose name is a wildcard has no topics of its own.
    let hello = Hello { user: Some(("b+b", "right")), ..fresh() };
    let (mut odd, _) = Client::connect(node.address, New, "x", hello).await;
    assert_eq!(odd.subscribe("b+b/x", 0).await, 0x8f);
    assert_eq!(odd.subscribe("+/x", 0).await, 0x87);
    // Other users from now on; who is there stays.
    node.broker.set_access(crate::node::open()).unwrap();
    Client::connect(node.address, New, "anybody", fresh()).await;
    assert_eq!(odd.quiet().await, []);
}

#[tokio::test]
async fn a_session_loses_the_subscriptions_that_it_may_not_have_any_more() {
    let all = || AccessConfig {
        users: vec![User { permissions: Permissions::all(), ..user("ann", "pw", &[]) }],
        ..AccessConfig::default()
    };
    let node = Node::with(Limits::default(), all(), Default::default(), Duration::ZERO).await;
    let hello = || Hello { user: Some(("ann", "pw")), ..crate::client::kept() };
    let (mut client, _) = Client::connect(node.address, New, "a", hello()).await;
    for filter in ["ann/x", "secret/#"] {
        client.subscribe(filter, 0).await;
    }
    client.bye().await;
    node.broker.set_access(AccessConfig { users: vec![user("ann", "pw", &[])], ..AccessConfig::default() }).unwrap();
    let (_client, present) = Client::connect(node.address, New, "a", hello()).await;
    assert!(present);
    let clients = node.broker.clients().await.unwrap();
    assert_eq!(clients[0].subscriptions.iter().map(|filter| &**filter).collect::<Vec<_>>(), ["ann/x"]);
    assert_eq!(node.journal.state().sessions["a"].subscriptions.len(), 1);
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused() {
    let start = |access| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let broker = marram_mqtt::Broker::start(
                Limits::default(),
                access,
                Arc::new(crate::journal::Memory::default()),
                Arc::new(crate::fixture::Time::default()),
                Arc::new(Dice::default()),
            );
            broker.await.map(|_| ()).map_err(|error| error.to_string())
        })
    };
    let plain = User { password_hash: "secret".into(), ..user("ann", "pw", &[]) };
    assert!(start(AccessConfig { users: vec![plain], ..AccessConfig::default() }).unwrap_err().contains("ann"));
    let filter = Permissions { publish: vec!["a/#/b".into()], subscribe: vec![] };
    assert!(start(AccessConfig { anonymous: Some(filter), ..AccessConfig::default() }).unwrap_err().contains("a/#/b"));
    assert!(start(AccessConfig::default()).is_ok());
}

#[tokio::test]
async fn mqtt_goes_through_websockets_whatever_the_borders_of_their_frames() {
    let node = Node::new().await;
    let address = node.listen(Transport { tls: None, websocket: Some(Origins::Any) }).await;
    let request = |protocol: Option<&'static str>| {
        let mut request = format!("ws://{address}/mqtt").into_client_request().unwrap();
        if let Some(protocol) = protocol {
            request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(protocol));
        }
        request
    };
    let stream = async || TcpStream::connect(address).await.unwrap();
    let (mut socket, response) =
        tokio_tungstenite::client_async(request(Some("other, mqtt")), stream().await).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "mqtt");
    let bytes = b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a\x82\x06\0\x07\0\x01t\x00\x30\x04\0\x01tx";
    for part in [&bytes[..1], &bytes[1..20], &bytes[20..]] {
        socket.send(Message::Binary(part.to_vec().into())).await.unwrap();
    }
    socket.send(Message::Ping("still there?".into())).await.unwrap();
    let mut got = Vec::new();
    while got.len() < 4 + 5 + 6 {
        match socket.next().await.unwrap().unwrap() {
            Message::Binary(part) => got.extend_from_slice(&part),
            Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
    // A message may go before the SUBACK of its subscription.
    let (connack, rest) = got.split_at(4);
    let either = [b"\x90\x03\0\x07\0\x30\x04\0\x01tx", b"\x30\x04\0\x01tx\x90\x03\0\x07\0"];
    assert!(connack == b"\x20\x02\0\0" && either.iter().any(|bytes| bytes[..] == *rest), "{got:x?}");
    // Text is no MQTT.
    socket.send(Message::Text("hello".into())).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        assert!(!message.is_binary() || message.is_empty(), "{message:?}");
    }
    node.gone("a").await;
    for protocol in [None, Some("chat")] {
        assert!(tokio_tungstenite::client_async(request(protocol), stream().await).await.is_err());
    }
}

#[tokio::test]
async fn a_page_of_elsewhere_opens_no_websocket() {
    let node = Node::new().await;
    let origins = Origins::Listed(["https://dashboard.example".to_owned()].into());
    let address = node.listen(Transport { tls: None, websocket: Some(origins) }).await;
    let open = async |origin: Option<&'static str>| {
        let mut request = format!("ws://{address}/mqtt").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("mqtt"));
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", HeaderValue::from_static(origin));
        }
        tokio_tungstenite::client_async(request, TcpStream::connect(address).await.unwrap()).await.map(|_| ())
    };
    for origin in [None, Some("https://dashboard.example")] {
        open(origin).await.unwrap();
    }
    for origin in ["https://evil.example", "http://dashboard.example", "null"] {
        let refused = open(Some(origin)).await.unwrap_err();
        let tokio_tungstenite::tungstenite::Error::Http(answer) = &refused else { panic!("{refused}") };
        assert_eq!(answer.status(), 403);
        assert!(String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default()).contains(origin));
    }
}

/// Clients that are no browsers say the server's own origin. Where it has a DNS name that could be a page's, too.
#[tokio::test]
async fn the_origin_of_the_server_itself_is_let_in_by_its_address() {
    let node = Node::new().await;
    let address = node.listen(Transport { tls: None, websocket: Some(Origins::Listed([].into())) }).await;
    for (host, origin, is_in) in [
        ("127.0.0.1:8083", "http://127.0.0.1:8083", true),
        ("[::1]:8083", "http://[::1]:8083", true),
        ("LocalHost:8083", "http://localhost:8083", true),
        ("192.0.2.7", "https://192.0.2.7", true),
        ("127.0.0.1:8083", "http://127.0.0.1:80", false),
        ("127.0.0.1:8083", "http://127.0.0.1", false),
        ("127.0.0.1:8083", "http://evil.example:8083", false),
        ("127.0.0.1:8083", "127.0.0.1:8083", false),
        ("evil.example:8083", "http://evil.example:8083", false),
    ] {
        let mut request = format!("ws://{address}/mqtt").into_client_request().unwrap();
        for (name, value) in [("sec-websocket-protocol", "mqtt"), ("host", host), ("origin", origin)] {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        let opened = tokio_tungstenite::client_async(request, TcpStream::connect(address).await.unwrap()).await;
        assert_eq!(opened.is_ok(), is_in, "{origin} at {host}");
    }
}

#[tokio::test]
async fn a_websocket_that_says_nothing_holds_up_nobody() {
    let node = Node::limited(Limits { connect_time: Duration::from_millis(200), ..Limits::default() }).await;
    let address = node.listen(Transport { tls: None, websocket: Some(Origins::Any) }).await;
    let silent = TcpStream::connect(address).await.unwrap();
    let mut request = format!("ws://{address}/").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("mqtt"));
    let (mut socket, _) =
        tokio_tungstenite::client_async(request, TcpStream::connect(address).await.unwrap()).await.unwrap();
    socket.send(Message::Binary(b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a".to_vec().into())).await.unwrap();
    assert!(matches!(socket.next().await, Some(Ok(Message::Binary(_)))));
    // It is cut in the end.
    let mut byte = [0];
    silent.readable().await.unwrap();
    assert_eq!(silent.try_read(&mut byte).unwrap(), 0);
}
