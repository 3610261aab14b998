//! What `node.toml` says of the requests that functions make, and of their code.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use marram_testkit::{TestNode, eventually, guest, manifest};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// An authority that only this test knows, in a file, and a server for `localhost` that has its certificate from it.
async fn site() -> (TempDir, PathBuf, u16) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("site-ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();

    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust the certificate breaks off here.
                let Ok(mut stream) = acceptor.accept(socket).await else { return };
                let _ = stream.read(&mut [0; 4096]).await;
                let answer = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nthe site\n";
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (folder, file, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_of_the_site_is_trusted_where_the_node_says_so() {
    let (_folder, file, port) = site().await;
    let allow =
        format!("allow = {{ http = [\"https://localhost:{port}\"], addresses = [\"127.0.0.0/8\", \"::1/128\"] }}\n");
    let text = manifest("shop", &[("probe", "probe.wasm", "/...")]) + &allow;
    for (roots, status, part) in [(vec![], 502, "TlsCertificateError"), (vec![file], 200, "the site")] {
        let node = TestNode::start_with(|config| config.extra_roots = roots).await;
        node.deploy(&text, &[("probe", guest("probe-p2"))]).await.unwrap();
        let reply = node.http().get(&format!("/fetch?url=https://localhost:{port}/")).await;
        assert_eq!(reply.status, status, "{reply:?}");
        assert!(reply.text().contains(part), "{reply:?}");
        if status != 200 {
            let log = node.admin().get("/v1/logs").await.expect(200).text();
            assert!(log.contains("`outbound.extra_roots` in node.toml"), "the log says what to do: {log}");
        }
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_authorities_is_named_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "no certificate").unwrap();
    for file in [empty, folder.path().join("nowhere.pem")] {
        let mut config = marram_node::NodeConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            admin: "127.0.0.1:0".parse().unwrap(),
            state: folder.path().join("state"),
            ..marram_node::NodeConfig::default()
        };
        config.extra_roots = vec![file.clone()];
        let error = format!("{:#}", marram_node::Node::start(config).await.err().unwrap());
        assert!(error.contains(file.to_str().unwrap()) && error.contains("outbound.extra_roots"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn code_is_unmapped_after_the_time_that_the_node_says() {
    let node = TestNode::start_with(|config| config.code_idle = Duration::from_millis(20)).await;
    let text = manifest("shop", &[("price", "price.wasm", "/price")]);
    node.deploy(&text, &[("price", guest("hello-p2"))]).await.unwrap();
    let _ = node.http().get("/price").await.expect(200);
    let mapped =
        || async { node.admin().get("/v1/apps/shop").await.json()["functions"][0]["status"]["mapped"].clone() };
    eventually("the code is unmapped", || async { (mapped().await == false).then_some(()) }).await;
    let _ = node.http().get("/price").await.expect(200);
    eventually("the last start was a cold one", || async {
        let invocations = node.admin().get("/v1/invocations?app=shop").await.expect(200).json();
        (invocations["invocations"][1]["start"] == "cold").then_some(())
    })
    .await;
    node.stop().await;
}
