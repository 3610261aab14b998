//! A delete of several objects deletes what the client has named, or nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::Method;
use marram_core::Digest;
use marram_testkit::{Ask, S3Chunks};

use super::address;
use super::bad_input::{names, put, send, site};

const BODY: &str = "<Delete><Object><Key>victim</Key></Object></Delete>";

fn delete(body: impl Into<String>) -> Ask {
    Ask::new(Method::POST, "/uploads?delete").body(body.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn several_objects_are_deleted_if_the_list_is_what_was_sent_and_every_name_is_one() {
    let (node, key) = site().await;
    let host = address(&node);
    let stored = send(&node, &key.sign(put("/uploads/victim"), host)).await;
    assert!(stored.starts_with("HTTP/1.1 200"), "{stored}");
    let sha256 = |text: &str| BASE64.encode(Digest::of(text.as_bytes()).as_bytes());
    let with = |name: &str| BODY.replace("</Delete>", &format!("<Object><Key>{name}</Key></Object></Delete>"));
    let whole = S3Chunks { chunks: &[BODY.as_bytes()], announced: "x-other", trailer: None, signed: false };
    for (what, ask, status, code) in [
        // Of `x`.
        ("another MD5", delete(BODY).header("content-md5", "nd1OjY3OSPhSDEi0wBqFZw=="), 400, "BadDigest"),
        ("an MD5 that is none", delete(BODY).header("content-md5", "none"), 400, "InvalidDigest"),
        ("another CRC", delete(BODY).header("x-amz-checksum-crc32", "AAAAAA=="), 400, "BadDigest"),
        ("another SHA-256", delete(BODY).header("x-amz-checksum-sha256", &sha256("x")), 400, "BadDigest"),
        ("a sum that nobody knows", delete(BODY).header("x-amz-checksum-sha512", "AAAA"), 501, "NotImplemented"),
        ("a name of no XML", delete(with("\u{ffff}")), 400, "InvalidArgument"),
        ("a control character", delete(with("\u{1}")), 400, "InvalidArgument"),
        ("a name that is too long", delete(with(&"k".repeat(2_000))), 400, "InvalidArgument"),
        ("an empty name", delete(with("")), 400, "InvalidArgument"),
        ("a name that would be left out", delete(BODY.replace("victim", "<![CDATA[victim]]>")), 400, "MalformedXML"),
        ("a part of a name", delete(BODY.replace("victim", "victim<![CDATA[s]]>")), 400, "MalformedXML"),
    ] {
        let answer = send(&node, &key.sign(ask, host)).await;
        let is = answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(&format!("<Code>{code}</Code>"));
        assert!(is, "{what}: {answer}");
        assert_eq!(names(&node).await, ["victim"], "{what}");
    }
    let chunked = key.sign_chunks(Ask::new(Method::POST, "/uploads?delete"), host, &whole);
    let answer = send(&node, &chunked).await;
    assert!(answer.starts_with("HTTP/1.1 501") && answer.contains("send it whole"), "{answer}");
    assert_eq!(names(&node).await, ["victim"]);
    let right = delete(BODY).header("x-amz-checksum-sha256", &sha256(BODY));
    let answer = send(&node, &key.sign(right, host)).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("<Key>victim</Key>"), "{answer}");
    assert_eq!(names(&node).await, Vec::<String>::new());
    node.stop().await;
}
