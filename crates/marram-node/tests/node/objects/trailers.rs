//! Bodies that come in chunks with their checksum in a trailer, as SDKs of AWS send them: what is right is stored, and what
//! was damaged, cut off or altered on its way is refused and stores nothing.

use base64::Engine as _;
use http::Method;
use marram_core::Digest;
use marram_testkit::{Ask, S3Chunks, S3Key, TestNode, eventually, get};

use super::address;
use super::bad_input::{names, put, send, site};
use super::hostile::uploads_under_way;

const CRC32: &str = "x-amz-checksum-crc32";
const CHUNKS: [&[u8]; 3] = [b"1234", b"5678", b"9"];
/// Of `123456789`: the check value of the catalogue of parametrised CRC algorithms, and another.
const RIGHT: (&str, &str) = (CRC32, "y/Q5Jg==");
const WRONG: (&str, &str) = (CRC32, "y/Q5Jw==");

/// A request to put an object or a part in chunks, with this trailer.
fn chunked(node: &TestNode, key: &S3Key, path: &str, trailer: Option<(&str, &str)>, signed: bool) -> Ask {
    let body = S3Chunks { chunks: &CHUNKS, announced: CRC32, trailer, signed };
    key.sign_chunks(put(path), address(node), &body)
}

/// Changes what the body has of `from` first.
fn edited(ask: Ask, from: &str, to: &str) -> Ask {
    ask.edit_body(|body| {
        let text = String::from_utf8(body).unwrap();
        assert!(text.contains(from), "{text}");
        text.replacen(from, to, 1).into_bytes()
    })
}

/// Ends the body before this.
fn cut(ask: Ask, before: &str) -> Ask {
    ask.edit_body(|mut body| {
        body.truncate(std::str::from_utf8(&body).unwrap().find(before).unwrap());
        body
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_with_the_checksum_that_comes_last_are_stored() {
    let (node, key) = site().await;
    for (path, signed) in [("/uploads/signed", true), ("/uploads/unsigned", false)] {
        let answer = send(&node, &chunked(&node, &key, path, Some(RIGHT), signed)).await;
        let sum = format!("{CRC32}: {}", RIGHT.1);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(&sum), "{path}: {answer}");
        let kept = send(&node, &key.sign(get(path), address(&node))).await;
        assert!(kept.starts_with("HTTP/1.1 200") && kept.ends_with("\r\n\r\n123456789"), "{path}: {kept}");
        assert!(!kept.contains("content-encoding"), "{path}: that of the way is not that of the content: {kept}");
    }
    node.stop().await;
}

/// Some SDKs send a content of any size as one chunk.
#[tokio::test(flavor = "multi_thread")]
async fn one_large_chunk_is_stored_unless_it_is_signed() {
    let (node, key) = site().await;
    let content = vec![b'x'; 3 << 20];
    let name = "x-amz-checksum-sha256";
    let sum = base64::engine::general_purpose::STANDARD.encode(Digest::of(&content).as_bytes());
    let chunk = |signed| {
        let body = S3Chunks { chunks: &[&content], announced: name, trailer: Some((name, sum.as_str())), signed };
        key.sign_chunks(put("/uploads/large"), address(&node), &body)
    };
    // What it says of its size is enough, and the rest is not sent.
    let begun = chunk(true).edit_body(|mut body| {
        body.truncate(body.windows(2).position(|two| two == b"\r\n").unwrap() + 2);
        body
    });
    let answer = send(&node, &begun).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("send chunks of 1 MiB or less"), "{answer}");
    assert_eq!(names(&node).await, Vec::<String>::new());
    let answer = send(&node, &chunk(false)).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(&format!("{name}: {sum}")), "{answer}");
    let kept = node.admin().get("/v1/objects/uploads/large").await.expect(200);
    assert!(kept.body == content, "it has another content");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trailer_that_is_wrong_or_missing_stores_nothing() {
    let (node, key) = site().await;
    let of = |trailer, signed| chunked(&node, &key, "/uploads/k", trailer, signed);
    let good = |signed| of(Some(RIGHT), signed);
    let other = Some(("x-amz-checksum-sha1", "98O8HYCOBHMq32eZZczDTKeuNEE="));
    let cases = [
        ("a wrong sum", of(Some(WRONG), false), "BadDigest"),
        ("a wrong sum, signed", of(Some(WRONG), true), "BadDigest"),
        ("a sum that is none", of(Some((CRC32, "none")), false), "BadDigest"),
        ("another content", edited(good(false), "5678", "5687"), "BadDigest"),
        ("another content, signed", edited(good(true), "5678", "5687"), "SignatureDoesNotMatch"),
        ("another sum than was signed", edited(of(Some(WRONG), true), WRONG.1, RIGHT.1), "SignatureDoesNotMatch"),
        ("another signature of it", edited(good(true), "r-signature:", "r-signature:0"), "SignatureDoesNotMatch"),
        ("no signature of it", cut(good(true), "x-amz-trailer-signature"), "IncompleteBody"),
        ("no trailer", of(None, false), "MalformedTrailerError"),
        ("no trailer, signed", of(None, true), "MalformedTrailerError"),
        ("a trailer that was not announced", of(other, false), "MalformedTrailerError"),
        ("cut off before the last chunk", cut(good(false), "0\r\n"), "MalformedTrailerError"),
        ("cut off before the last chunk, signed", cut(good(true), "0;chunk-"), "MalformedTrailerError"),
        ("cut off within a chunk", cut(good(false), "78"), "IncompleteBody"),
        ("cut off after a chunk", cut(good(false), "1\r\n9"), "IncompleteBody"),
    ];
    let mut wrong = Vec::new();
    for (what, ask, code) in cases {
        let answer = send(&node, &ask).await;
        if !answer.starts_with("HTTP/1.1 40") || !answer.contains(&format!("<Code>{code}</Code>")) {
            wrong.push(format!("{what}: {answer}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(names(&node).await, Vec::<String>::new());
    nothing_under_way(&node).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_whose_trailer_is_wrong_is_not_there() {
    let (node, key) = site().await;
    let begin = key.sign(Ask::new(Method::POST, "/uploads/parts?uploads"), address(&node));
    let begun = send(&node, &begin).await;
    let id = begun.split("<UploadId>").nth(1).and_then(|rest| rest.split('<').next());
    let upload = format!("uploadId={}", id.unwrap_or_else(|| panic!("{begun}")));
    for (number, trailer, answered, code) in [
        (1, Some(RIGHT), "HTTP/1.1 200", ""),
        (2, Some(WRONG), "HTTP/1.1 400", "<Code>BadDigest</Code>"),
        (3, None, "HTTP/1.1 400", "<Code>MalformedTrailerError</Code>"),
    ] {
        let path = format!("/uploads/parts?partNumber={number}&{upload}");
        let answer = send(&node, &chunked(&node, &key, &path, trailer, false)).await;
        assert!(answer.starts_with(answered) && answer.contains(code), "part {number}: {answer}");
    }
    let list = key.sign(get(&format!("/uploads/parts?{upload}")), address(&node));
    let listed = send(&node, &list).await;
    let count = listed.matches("<PartNumber>").count();
    assert!(listed.contains("<PartNumber>1</PartNumber>") && count == 1, "{listed}");
    nothing_under_way(&node).await;
    node.stop().await;
}

/// What is being written when it is given up is finished on its own thread.
async fn nothing_under_way(node: &TestNode) {
    eventually("no upload is left", || async { (uploads_under_way(node) == 0).then_some(()) }).await;
}
