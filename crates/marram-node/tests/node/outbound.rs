//! The requests that functions make over a network, what `node.toml` says of them, and of functions' code.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use marram_testkit::{Reply, TestNode, eventually, get, guest, manifest};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
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
    // How often nobody can say: a slow machine may have unmapped it before the first request, too.
    let metrics = node.admin().get("/metrics").await.expect(200).text();
    let count = "faas_init_duration_seconds_count{app=\"shop\",function=\"price\"} ";
    let count = metrics.lines().find_map(|line| line.strip_prefix(count)).expect("the metric is there");
    assert_ne!(count, "0", "mapping the code again was not counted");
    node.stop().await;
}

/// A server in clear text that writes down what it is sent, and answers with what it is made for.
struct Upstream {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Upstream {
    /// Its answer to each request is this and nothing more: the connection stays open.
    async fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, requests) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Vec<_>>>::default());
        let written = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let written = Arc::clone(&written);
                tokio::spawn(async move {
                    while let Some(request) = request(&mut socket).await {
                        written.lock().unwrap().push(request);
                        let _ = socket.write_all(answer.as_bytes()).await;
                    }
                });
            }
        });
        Self { port, requests }
    }

    /// An app with these functions, name and file, each at a host of its own and granted this server.
    fn manifest(&self, functions: &[(&str, PathBuf)]) -> String {
        let function = |(name, file): &(&str, PathBuf)| {
            format!(
                "[[function]]\nname = \"{name}\"\ncomponent = \"{}\"\non = [{{ http = \"{name}.example/...\" }}]\n\
                 allow = {{ http = [\"http://127.0.0.1:{}\"], addresses = [\"127.0.0.0/8\"] }}\n",
                file.file_name().unwrap().to_str().unwrap(),
                self.port
            )
        };
        let head = "manifest_version = 1\n[app]\nname = \"shop\"\n";
        head.to_owned() + &functions.iter().map(function).collect::<String>()
    }

    /// The request for this path, head and body.
    fn request(&self, path: &str) -> String {
        let requests = self.requests.lock().unwrap();
        let found: Vec<_> =
            requests.iter().filter(|request| request.contains(&format!(" {path} HTTP/1.1\r\n"))).collect();
        assert_eq!(found.len(), 1, "{path} among {requests:?}");
        found[0].clone()
    }
}

/// All of a request; nothing if the client breaks off.
async fn request(socket: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let length = field("content-length:").map_or(0, |length| length.parse().unwrap());
            let chunked = field("transfer-encoding:") == Some("chunked");
            let complete = if chunked { body.ends_with("0\r\n\r\n") } else { body.len() >= length };
            if complete {
                return Some(text.into_owned());
            }
        }
        if !matches!(socket.read_buf(&mut read).await, Ok(1..)) {
            return None;
        }
    }
}

/// What a function of a language does with the answer to its own request.
const FETCHING: [(&str, &str, &str); 2] = [
    (
        "js",
        "index.js",
        r#"export default { async fetch(request) {
            const url = new URL(request.url).searchParams.get("url");
            const answer = await fetch(url, { method: "POST", headers: { "x-shop": "js" }, body: "from js" });
            return Response.json({ status: answer.status, site: answer.headers.get("x-site"), text: await answer.text() });
        } }"#,
    ),
    (
        "py",
        "app.py",
        r#"
import marram

async def fetch(request, env):
    answer = await marram.fetch(request.query["url"], method="POST", headers={"x-shop": "py"}, body="from py")
    return marram.Response.json({"status": answer.status, "site": answer.headers.get("x-site"), "text": answer.text()})
"#,
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_on_over_a_network_and_the_server_s_answer_comes_back() {
    let answer = "HTTP/1.1 201 Created\r\nx-site: yes\r\ncontent-type: text/plain\r\ncontent-length: 8\r\n\r\nthe site";
    let upstream = Upstream::start(answer).await;
    let folder = tempfile::tempdir().unwrap();
    let mut functions = vec![("p2", guest("probe-p2")), ("p3", guest("probe-p3"))];
    for (name, file, script) in FETCHING {
        let file = folder.path().join(file);
        std::fs::write(&file, script).unwrap();
        functions.push((name, file));
    }
    let node = TestNode::start().await;
    node.deploy(&upstream.manifest(&functions), &functions).await.unwrap();

    let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let ask = async |name: &str| -> Reply {
        let url = format!("http://127.0.0.1:{}/of/{name}", upstream.port);
        let ask = get(&format!("/fetch?url={url}")).header("host", &format!("{name}.example"));
        node.http().send(ask.header("traceparent", &format!("00-{trace}-{span}-01"))).await
    };
    for name in ["p2", "p3"] {
        assert_eq!(ask(name).await.expect(201).text(), "the site", "{name}");
        assert!(upstream.request(&format!("/of/{name}")).starts_with("GET "), "{name}");
    }
    for (name, ..) in FETCHING {
        let answered = ask(name).await.expect(200).json();
        assert_eq!(answered, json!({ "status": 201, "site": "yes", "text": "the site" }), "{name}");
        let sent = upstream.request(&format!("/of/{name}"));
        for part in ["POST ".to_owned(), format!("\r\nx-shop: {name}\r\n"), format!("from {name}")] {
            assert!(sent.contains(&part), "{part:?} is not in {sent:?}");
        }
    }
    let mut spans = vec![span.to_owned()];
    for (name, _) in &functions {
        let sent = upstream.request(&format!("/of/{name}"));
        let parents: Vec<_> = sent.lines().filter_map(|line| line.strip_prefix("traceparent: ")).collect();
        let [parent] = parents[..] else { panic!("{name}: one trace is sent: {sent:?}") };
        let parts: Vec<_> = parent.split('-').collect();
        let ["00", sent_trace, sent_span, "01"] = parts[..] else { panic!("{name}: {parent:?} is no traceparent") };
        assert_eq!((sent_trace, sent_span.len()), (trace, 16), "{name}");
        spans.push(sent_span.to_owned());
    }
    // The client's, and one for each function.
    spans.sort_unstable();
    spans.dedup();
    assert_eq!(spans.len(), 5, "each run has a span of its own: {spans:?}");
    node.stop().await;
}

/// The node itself waits for a minute, which is longer than the function's deadline.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_s_own_time_outs_end_its_request() {
    const HASTY: &str = r#"
import marram

async def fetch(request, env):
    try:
        answer = await marram.fetch(request.query["url"], timeout=0.05)
        return f"{answer.status} {answer.text()}"
    except marram.FetchError as error:
        return marram.Response(f"FetchError: {error}", 502)
"#;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.py");
    std::fs::write(&file, HASTY).unwrap();
    let functions = [("hasty", file)];
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
    for (answer, told) in [("", "http response timeout"), (half, "the sender broke off before the body's end")] {
        let upstream = Upstream::start(answer).await;
        let node = TestNode::start().await;
        node.deploy(&upstream.manifest(&functions), &functions).await.unwrap();
        let ask = get(&format!("/?url=http://127.0.0.1:{}/slow", upstream.port)).header("host", "hasty.example");
        let refused = node.http().send(ask).await.expect(502).text();
        assert!(refused.starts_with("FetchError: ") && refused.contains(told), "{refused}");
        assert!(upstream.request("/slow").starts_with("GET "), "the server was asked");
        node.stop().await;
    }
}
