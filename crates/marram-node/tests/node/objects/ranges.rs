//! Which bytes are answered, by what RFC 9110 §14 says of `Range` and `If-Range`.

use http::Method;
use marram_testkit::{Ask, get};

use super::address;
use super::bad_input::{put, send, site};

const PATH: &str = "/uploads/k";
/// What [`put`] stores.
const CONTENT: &str = "content";

/// The head and the body of an answer.
fn parts(answer: &str) -> (&str, &str) {
    answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_means_nothing_is_ignored() {
    let (node, key) = site().await;
    let ask = async |ask: Ask| send(&node, &key.sign(ask, address(&node))).await;
    let stored = ask(put(PATH)).await;
    assert!(stored.starts_with("HTTP/1.1 200"), "{stored}");
    for (range, body) in [
        ("bytes=0-1", Some("co")),
        ("bytes=3-", Some("tent")),
        ("bytes=-3", Some("ent")),
        ("bytes=3-18446744073709551616", Some("tent")),
        ("bytes=-99999999999999999999", Some("content")),
        ("bytes=0-1,3-4", None),
        ("bytes=5-2", None),
        ("bytes=a-b", None),
        ("bytes=-", None),
        ("lines=0-1", None),
    ] {
        let answer = ask(get(PATH).header("range", range)).await;
        let (head, found) = parts(&answer);
        let status = if body.is_some() { "HTTP/1.1 206" } else { "HTTP/1.1 200" };
        assert!(head.starts_with(status) && found == body.unwrap_or(CONTENT), "{range}: {answer}");
        assert_eq!(head.contains("content-range: "), body.is_some(), "{range}: {head}");
    }
    for range in ["bytes=7-", "bytes=7-8", "bytes=18446744073709551616-"] {
        let answer = ask(get(PATH).header("range", range)).await;
        assert!(answer.starts_with("HTTP/1.1 416") && answer.contains("content-range: bytes */7"), "{range}: {answer}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_another_content_is_all_of_this_one() {
    let (node, key) = site().await;
    let ask = async |ask: Ask| send(&node, &key.sign(ask, address(&node))).await;
    let stored = ask(put(PATH)).await;
    assert!(stored.starts_with("HTTP/1.1 200"), "{stored}");
    let head = ask(Ask::new(Method::HEAD, PATH)).await;
    let line = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{head}"));
    let (etag, modified) = (line("etag: "), line("last-modified: "));
    let weak = format!("W/{etag}");
    for (validator, body) in [
        (etag, "co"),
        ("\"another\"", CONTENT),
        (weak.as_str(), CONTENT),
        // Two contents may be of one second.
        (modified, CONTENT),
        ("nonsense", CONTENT),
    ] {
        let answer = ask(get(PATH).header("range", "bytes=0-1").header("if-range", validator)).await;
        let status = if body == CONTENT { "HTTP/1.1 200" } else { "HTTP/1.1 206" };
        assert!(answer.starts_with(status) && parts(&answer).1 == body, "{validator}: {answer}");
    }
    // One that lies outside of this content does not matter then.
    let answer = ask(get(PATH).header("range", "bytes=100-").header("if-range", "\"another\"")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && parts(&answer).1 == CONTENT, "{answer}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_has_no_range() {
    let (node, key) = site().await;
    let ask = async |ask: Ask| send(&node, &key.sign(ask, address(&node))).await;
    let stored = ask(put(PATH)).await;
    assert!(stored.starts_with("HTTP/1.1 200"), "{stored}");
    for range in ["bytes=0-1", "bytes=100-", "bytes=5-2", "lines=0-1"] {
        let answer = ask(Ask::new(Method::HEAD, PATH).header("range", range)).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("content-length: 7\r\n"), "{range}: {answer}");
        assert!(!answer.contains("content-range"), "{range}: {answer}");
    }
    node.stop().await;
}
