//! What strangers send to the S3 API: signatures that are not right, clocks that are off, names that lead elsewhere, and
//! bytes that mean nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use futures::StreamExt as _;
use http::Method;
use marram_testkit::{Ask, S3Key, TestNode, get};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::hostile::exchange;
use super::{SECRET, address, key, start};

/// Mutations are the same in every run.
const SEED: u64 = 0x7333_2062_6164;
const REQUESTS: usize = 1_200;
/// How long somebody waits for an answer who has said everything.
const MOMENT: Duration = Duration::from_millis(300);

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

pub(super) fn put(path: &str) -> Ask {
    Ask::new(Method::PUT, path).body("content")
}

/// Sends a request as it is, whatever its path.
pub(super) async fn send(node: &TestNode, ask: &Ask) -> String {
    exchange(node, &ask.bytes(address(node)), false).await
}

pub(super) async fn names(node: &TestNode) -> Vec<String> {
    let list = node.admin().get("/v1/objects/uploads").await.expect(200).json();
    list["objects"].as_array().unwrap().iter().map(|object| object["name"].as_str().unwrap().to_owned()).collect()
}

/// A node with a bucket, and the key that reaches it.
pub(super) async fn site() -> (TestNode, S3Key) {
    let node = start(vec![key("everything", &["*"], &["*"])]).await;
    let _ = node.admin().send(Ask::new(Method::PUT, "/v1/objects/uploads")).await.expect(201);
    (node, S3Key::new("everything", SECRET))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_that_is_not_right_stores_nothing() {
    let (node, good) = site().await;
    let host = address(&node);
    let signed = |ask: Ask| good.sign(ask, host);
    let wrong_secret = S3Key::new("everything", "another-secret-of-32-characters!");
    let edited = |change: &dyn Fn(&str) -> String| {
        let signed = signed(put("/uploads/k"));
        let value = change(signed.get_header("authorization").unwrap());
        signed.header("authorization", &value)
    };
    let cases = [
        ("no signature", put("/uploads/k"), "AccessDenied"),
        ("another secret", wrong_secret.sign(put("/uploads/k"), host), "SignatureDoesNotMatch"),
        ("nobody's key", S3Key::new("nobody", SECRET).sign(put("/uploads/k"), host), "InvalidAccessKeyId"),
        ("another name", signed(put("/uploads/k")).at("/uploads/other"), "SignatureDoesNotMatch"),
        ("another query", signed(put("/uploads/k")).at("/uploads/k?partNumber=1&uploadId=1"), "SignatureDoesNotMatch"),
        ("another host", good.sign(put("/uploads/k"), "127.0.0.1:1".parse().unwrap()), "SignatureDoesNotMatch"),
        ("another body", signed(put("/uploads/k")).body("CONTENT"), "XAmzContentSHA256Mismatch"),
        ("half a signature", edited(&|text| text[..text.len() - 32].to_owned()), "SignatureDoesNotMatch"),
        ("no signature in it", edited(&|text| text.split("Signature=").next().unwrap().to_owned()), ""),
        ("another service", edited(&|text| text.replace("/s3/", "/sqs/")), ""),
        ("a scope that is none", edited(&|text| text.replace("/us-east-1/", "/../us-east-1/")), ""),
        ("signed by version 2", put("/uploads/k").header("authorization", "AWS everything:x"), "InvalidRequest"),
    ];
    let mut wrong = Vec::new();
    for (what, ask, code) in cases {
        let answer = send(&node, &ask).await;
        let refused = answer.starts_with("HTTP/1.1 40") || answer.starts_with("HTTP/1.1 501");
        if !refused || !answer.contains("<Code>") || !answer.contains(code) || answer.contains(SECRET) {
            wrong.push(format!("{what}: {answer}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(names(&node).await, Vec::<String>::new());
    let answer = send(&node, &signed(put("/uploads/k"))).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_by_more_than_a_quarter_of_an_hour_is_told_so() {
    let (node, good) = site().await;
    let minutes = |minutes: i64| now().checked_add_signed(minutes * 60).unwrap();
    for (off, answered) in [(-14, "HTTP/1.1 200"), (14, "HTTP/1.1 200"), (-16, "HTTP/1.1 403"), (16, "HTTP/1.1 403")] {
        let ask = good.sign_at(put(&format!("/uploads/{off}")), address(&node), minutes(off));
        let answer = send(&node, &ask).await;
        assert!(answer.starts_with(answered), "{off} minutes: {answer}");
        assert_eq!(answer.contains("RequestTimeTooSkewed"), off.abs() > 15, "{off} minutes: {answer}");
    }
    // The year 1970, and one in which nobody here will sign anything.
    for unix_s in [0, 16_000_000_000] {
        let answer = send(&node, &good.sign_at(put("/uploads/old"), address(&node), unix_s)).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{unix_s}: {answer}");
    }
    assert_eq!(names(&node).await, ["-14", "14"]);
    node.stop().await;
}

/// Every path of a folder, whatever it is.
fn files(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        found.push(path.display().to_string());
        if path.is_dir() {
            files(&path, found);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_never_a_path() {
    let (node, good) = site().await;
    let long = "x".repeat(1_024);
    // Signed, and sent as they are: what is taken is a name, and nothing but a name.
    let cases = [
        ("/uploads/../escaped", Some("../escaped")),
        ("/uploads/..%2F..%2Fescaped", Some("../../escaped")),
        ("/uploads/%2e%2e/%2e%2e/escaped", Some("../../escaped")),
        ("/uploads//etc/escaped", Some("/etc/escaped")),
        ("/uploads/%2Ftmp%2Fescaped", Some("/tmp/escaped")),
        ("/uploads/a/./b/..%5Cescaped", Some("a/./b/..\\escaped")),
        ("/uploads/..%252fescaped", Some("..%2fescaped")),
        ("/uploads/escaped%00.png", None),
        ("/uploads/escaped%0Ax", None),
        ("/uploads/escaped%FF", None),
        (&format!("/uploads/{long}"), Some(&*long)),
        (&format!("/uploads/{long}x"), None),
        (&format!("/uploads/{}", "x".repeat(60_000)), None),
        ("/..%2F..%2Fescaped", None),
        ("/../escaped", None),
        ("/Uploads/escaped", None),
        ("/uploads%00/escaped", None),
        ("//uploads/escaped", None),
    ];
    let (mut kept, mut wrong) = (Vec::new(), Vec::new());
    for (path, name) in cases {
        let answer = send(&node, &good.sign(put(path), address(&node))).await;
        let shown: String = path.chars().take(60).collect();
        let taken = match name {
            Some(name) => {
                kept.push(name.to_owned());
                answer.starts_with("HTTP/1.1 200")
            }
            None => answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
        };
        if !taken {
            wrong.push(format!("{shown}: {answer}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    kept.sort_unstable();
    kept.dedup();
    let found = names(&node).await;
    assert_eq!(found, kept);
    let mut there = Vec::new();
    files(node.state_dir().parent().unwrap(), &mut there);
    assert!(!there.iter().any(|path| path.contains("escaped")), "{there:?}");
    node.stop().await;
}

/// splitmix64.
fn random(seed: &mut u64) -> usize {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) as usize
}

/// What a client may rightly send, of every operation.
fn seeds() -> Vec<Ask> {
    let post = |path: &str, body: &'static str| Ask::new(Method::POST, path).body(body);
    vec![
        get("/"),
        get("/uploads?list-type=2&prefix=a%2F&delimiter=%2F&max-keys=7&start-after=a&encoding-type=url"),
        get("/uploads?list-type=2&continuation-token=YQ%3D%3D"),
        get("/uploads?prefix=&marker=x&max-keys=1000"),
        get("/uploads?uploads&key-marker=a&upload-id-marker=b"),
        get("/uploads?location"),
        get("/uploads/kept").header("range", "bytes=1-3").header("if-none-match", "\"x\""),
        get("/uploads/kept?partNumber=1"),
        Ask::new(Method::HEAD, "/uploads/kept"),
        put("/uploads/new%20name").header("content-md5", "mgNkuembtIDdJeHwKEyFVQ==").header("x-amz-meta-a", "b"),
        put("/uploads/copied").header("x-amz-copy-source", "/uploads/kept?versionId=null").body(""),
        Ask::new(Method::DELETE, "/uploads/none"),
        post("/uploads?delete", "<Delete><Object><Key>none</Key></Object><Quiet>true</Quiet></Delete>"),
        post("/uploads/parts?uploads", ""),
        put("/uploads/parts?partNumber=1&uploadId=none"),
        post(
            "/uploads/parts?uploadId=none",
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"x\"</ETag></Part></CompleteMultipartUpload>",
        ),
        put("/second"),
        Ask::new(Method::DELETE, "/second"),
    ]
}

/// Changes the path and the query before the request is signed, so that it gets past the signature.
fn with_another_path(ask: Ask, seed: &mut u64) -> Ask {
    const ODD: [&str; 12] = ["%", "%00", "%ff", "/", "..", "?", "&", "=", "#", "%2F", "-1", "99999999999999999999"];
    let mut path = ask.path().to_owned();
    for _ in 0..1 + random(seed) % 3 {
        // Paths of seeds are ASCII.
        let at = 1 + random(seed) % path.len();
        match random(seed) % 3 {
            0 => path.truncate(at),
            _ => path.insert_str(at.min(path.len()), ODD[random(seed) % ODD.len()]),
        }
    }
    ask.at(&path)
}

/// Request `n`, of which the path was changed before it was signed, or the bytes afterwards.
fn mutated(n: usize, good: &S3Key, host: SocketAddr, seed: &mut u64) -> Vec<u8> {
    let seeds = seeds();
    let ask = seeds[random(seed) % seeds.len()].clone();
    if n.is_multiple_of(2) {
        return good.sign(with_another_path(ask, seed), host).bytes(host);
    }
    let mut bytes = good.sign(ask, host).bytes(host);
    for _ in 0..1 + random(seed) % 4 {
        let at = random(seed) % bytes.len();
        match random(seed) % 4 {
            0 => bytes[at] = random(seed) as u8,
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, random(seed) as u8),
            _ => bytes.truncate(at.max(1)),
        }
    }
    bytes
}

/// Sends bytes, and says no more once nothing has come for a moment. What comes until the node ends it.
async fn patiently(host: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(host).await.unwrap();
    // A node that has seen enough closes before all of it is there.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    if tokio::time::timeout(MOMENT, stream.read_to_end(&mut answer)).await.is_err() {
        let _ = stream.shutdown().await;
        let ended = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "a connection goes on after its end: {}", String::from_utf8_lossy(bytes));
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Whatever a client sends, signed or not, is answered or ends the connection; nothing fails within, and what is there stays.
#[tokio::test(flavor = "multi_thread")]
async fn mutated_requests_are_answered_or_closed() {
    let (node, good) = site().await;
    let host = address(&node);
    let kept = send(&node, &good.sign(put("/uploads/kept"), host)).await;
    assert!(kept.starts_with("HTTP/1.1 200"), "{kept}");
    let mut seed = SEED;
    let requests: Vec<_> = (0..REQUESTS).map(|n| mutated(n, &good, host, &mut seed)).collect();
    let answers = futures::stream::iter(requests).map(|bytes| async move {
        let answer = patiently(host, &bytes).await;
        let sent = String::from_utf8_lossy(&bytes).into_owned();
        let inner = answer.starts_with("HTTP/1.1 5") && !answer.starts_with("HTTP/1.1 501");
        assert!(!inner, "this failed within: {answer}\n{sent}");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 "), "{answer}\n{sent}");
        !answer.is_empty()
    });
    let answered = answers.buffer_unordered(16).filter(|answered| std::future::ready(*answered)).count().await;
    assert!(answered > REQUESTS / 2, "{answered} were answered: this has shown little");
    let kept = send(&node, &good.sign(get("/uploads/kept"), host)).await;
    assert!(kept.starts_with("HTTP/1.1 200") && kept.ends_with("content"), "{kept}");
    assert_eq!(node.admin().get("/v1/health").await.expect(200).json()["status"], "ready");
    node.stop().await;
}
