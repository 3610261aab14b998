//! The admin API over TLS, on an address that others can reach.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use marram_node::{NodeConfig, TlsFiles, Token};
use marram_testkit::{TestNode, get};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const TOKEN: &str = "0123456789abcdef";

/// A certificate for `localhost`, made for this run, that nobody trusts but this test.
fn files() -> TlsFiles {
    static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        folder
    });
    TlsFiles { cert: FOLDER.path().join("cert.pem"), key: FOLDER.path().join("key.pem") }
}

fn connector() -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(files().cert).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_address_is_served_with_token_and_tls() {
    let node = TestNode::start_with(|config| {
        config.admin = "0.0.0.0:0".parse().unwrap();
        config.token = Some(Token::new(TOKEN).unwrap());
        config.admin_tls = Some(files());
    })
    .await;
    assert!(node.node().admin_url().starts_with("https://"));
    let port = node.node().admin_addr().port();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let stream = connector().connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    for (token, status) in [(TOKEN, 200), ("0123456789abcdeF", 401)] {
        let request =
            Request::get("/v1/node").header("host", "node.example").header("authorization", format!("Bearer {token}"));
        sender.ready().await.unwrap();
        let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        let _ = response.into_body().collect().await.unwrap();
    }
    drop(sender);
    connection.await.unwrap().unwrap();
    // Clear text on that port is not answered.
    assert!(node.admin().try_send(get("/v1/health")).await.is_err());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_do_not_fit_are_named() {
    let missing = TlsFiles { cert: "nowhere/cert.pem".into(), ..files() };
    let swapped = TlsFiles { cert: files().key, ..files() };
    for (tls, part) in [(missing, "nowhere/cert.pem"), (swapped, "key.pem")] {
        let config = NodeConfig { admin_tls: Some(tls), ..NodeConfig::default() };
        let error = marram_node::Node::start(config).await.err().unwrap().to_string();
        assert!(error.contains(part), "{error}");
    }
}
