//! What s3s takes and this node does not: headers that nobody has signed, versions, and promises of encryption and locks.

use http::Method;
use marram_testkit::{Ask, S3Key, TestNode, get};

use super::bad_input::{names, put, send, site};
use super::clients::presign;
use super::hostile::exchange;
use super::{SECRET, address, key, start};

/// An error of S3, as it begins and with its code.
fn is(answer: &str, status: u16, code: &str) -> bool {
    answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(&format!("<Code>{code}</Code>"))
}

async fn kept(node: &TestNode, name: &str) -> String {
    node.admin().get(&format!("/v1/objects/uploads/{name}")).await.expect(200).text()
}

/// Whoever has an URL to put one object must not read another with it, or say what the signer has not said.
#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_not_signed_are_refused() {
    let (node, good) = site().await;
    let host = address(&node);
    let stored = send(&node, &good.sign(put("/uploads/secret").body("secret"), host)).await;
    assert!(stored.starts_with("HTTP/1.1 200"), "{stored}");
    let url = presign(&node, "uploads", "taken").await;
    let by_url = || put(&url).body("");
    let by_header = || good.sign(put("/uploads/taken").body(""), host);
    for (name, value) in [
        ("x-amz-copy-source", "uploads/secret"),
        ("x-amz-copy-source", "/uploads/secret"),
        ("x-amz-meta-owner", "somebody"),
        ("x-amz-metadata-directive", "REPLACE"),
        ("x-amz-storage-class", "STANDARD"),
    ] {
        for (what, ask) in [("URL", by_url()), ("header", by_header())] {
            let answer = send(&node, &ask.header(name, value)).await;
            assert!(is(&answer, 403, "AccessDenied") && answer.contains(name), "{what}, {name}: {answer}");
        }
    }
    assert_eq!(names(&node).await, ["secret"]);
    // What is signed is taken, and what says no more than the signature.
    let copy = good.sign(put("/uploads/copy").header("x-amz-copy-source", "uploads/secret").body(""), host);
    let digest = marram_core::Digest::of(b"").hex();
    for (what, ask) in [
        ("a copy", copy),
        ("an URL", by_url()),
        ("an URL, and a digest", by_url().header("x-amz-content-sha256", &digest)),
        ("a header", by_header()),
    ] {
        let answer = send(&node, &ask).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{what}: {answer}");
    }
    assert_eq!(kept(&node, "copy").await, "secret");
    // Two signatures, of which s3s would look at one.
    let twice = good.sign(put("/uploads/taken"), host).at(&url);
    let answer = send(&node, &twice).await;
    assert!(is(&answer, 400, "InvalidArgument"), "{answer}");
    node.stop().await;
}

/// It would be gathered before it is known whose it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_form_is_refused_however_its_type_is_written() {
    let (node, _) = site().await;
    for kind in ["multipart/form-data; boundary=x", "Multipart/Form-Data; boundary=x"] {
        // Its body never comes.
        let head = Ask::new(Method::POST, "/uploads").header("content-type", kind).bytes(address(&node));
        let head = String::from_utf8(head).unwrap().replace("content-length: 0", "content-length: 1000000");
        let answer = exchange(&node, head.as_bytes(), false).await;
        assert!(is(&answer, 501, "NotImplemented") && answer.contains("use PUT"), "{kind}: {answer}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_an_object_is_not_the_object() {
    let (node, good) = site().await;
    let ask = async |ask: Ask| send(&node, &good.sign(ask, address(&node))).await;
    let stored = ask(put("/uploads/k")).await;
    assert!(stored.starts_with("HTTP/1.1 200"), "{stored}");
    let delete = |path: &str| Ask::new(Method::DELETE, path);
    let several = |more: &str| {
        let body = format!("<Delete><Object><Key>k</Key>{more}</Object></Delete>");
        Ask::new(Method::POST, "/uploads?delete").body(body)
    };
    let copy = |from: &str| put("/uploads/copy").header("x-amz-copy-source", from).body("");
    for (what, asked) in [
        ("get", get("/uploads/k?versionId=1")),
        ("delete", delete("/uploads/k?versionId=1")),
        ("an empty id", delete("/uploads/k?versionId=")),
        ("several", several("<VersionId>1</VersionId>")),
        ("several, by size", several("<Size>1</Size>")),
        ("copy", copy("uploads/k?versionId=1")),
    ] {
        let answer = ask(asked).await;
        assert!(is(&answer, 501, "NotImplemented"), "{what}: {answer}");
    }
    let answer = ask(Ask::new(Method::HEAD, "/uploads/k?versionId=1")).await;
    assert!(answer.starts_with("HTTP/1.1 501"), "{answer}");
    assert_eq!(names(&node).await, ["k"]);
    // The one that there is has a name.
    for (what, asked) in [
        ("get", get("/uploads/k?versionId=null")),
        ("head", Ask::new(Method::HEAD, "/uploads/k?versionId=null")),
        ("copy", copy("uploads/k?versionId=null")),
        ("several", several("<VersionId>null</VersionId>")),
        ("delete", delete("/uploads/copy?versionId=null")),
    ] {
        let answer = ask(asked).await;
        assert!(answer.starts_with("HTTP/1.1 20"), "{what}: {answer}");
    }
    assert_eq!(names(&node).await, Vec::<String>::new());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_not_be_done_is_not_promised() {
    let (node, good) = site().await;
    let ask = async |ask: Ask| send(&node, &good.sign(ask, address(&node))).await;
    let stored = ask(put("/uploads/k")).await;
    assert!(stored.starts_with("HTTP/1.1 200"), "{stored}");
    let begin = || Ask::new(Method::POST, "/uploads/parts?uploads");
    let other = || put("/uploads/k").body("another");
    for (name, value) in [
        ("x-amz-server-side-encryption", "AES256"),
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
        ("x-amz-acl", "public-read"),
        ("x-amz-grant-read", "uri=\"http://acs.amazonaws.com/groups/global/AllUsers\""),
        ("x-amz-tagging", "keep=1"),
        ("x-amz-object-lock-mode", "COMPLIANCE"),
        ("x-amz-object-lock-legal-hold", "ON"),
        ("x-amz-write-offset-bytes", "7"),
        ("x-amz-checksum-sha512", "AAAA"),
        ("x-amz-checksum-xxhash64", "AAAA"),
        ("x-amz-checksum-algorithm", "SHA512"),
        ("x-amz-sdk-checksum-algorithm", "MD5"),
        ("x-amz-trailer", "x-amz-checksum-sha512"),
    ] {
        for asked in [other(), begin()] {
            let answer = ask(asked.header(name, value)).await;
            assert!(is(&answer, 501, "NotImplemented") && answer.contains(name), "{name}: {answer}");
        }
    }
    let deleted = ask(Ask::new(Method::DELETE, "/uploads/k").header("x-amz-if-match-size", "1")).await;
    assert!(is(&deleted, 501, "NotImplemented"), "{deleted}");
    let copy = put("/uploads/k").header("x-amz-copy-source", "uploads/k").header("if-none-match", "*").body("");
    let copied = ask(copy).await;
    assert!(is(&copied, 501, "NotImplemented"), "{copied}");
    let listed = ask(get("/uploads?uploads")).await;
    assert!(listed.starts_with("HTTP/1.1 200") && !listed.contains("<UploadId>"), "{listed}");
    assert_eq!(kept(&node, "k").await, "content");
    for (name, value) in [
        ("x-amz-acl", "private"),
        ("x-amz-acl", "bucket-owner-full-control"),
        ("x-amz-storage-class", "STANDARD"),
        ("x-amz-sdk-checksum-algorithm", "CRC32"),
    ] {
        let answer = ask(other().header(name, value)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{name}: {answer}");
    }
    node.stop().await;
}

/// s3s takes what it does not know for the operation without it.
#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_is_not_known_replaces_and_removes_nothing() {
    let node = start(vec![key("everything", &["*"], &["*"])]).await;
    let good = S3Key::new("everything", SECRET);
    let ask = async |ask: Ask| send(&node, &good.sign(ask, address(&node))).await;
    for path in ["/uploads", "/empty", "/uploads/k"] {
        let answer = ask(put(path).body(if path.ends_with('k') { "content" } else { "" })).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    let delete = |path: &str| Ask::new(Method::DELETE, path);
    for asked in
        ["uploadId=a", "partNumber=1", "append&position=7", "versionId=a", "renameObject", "annotation=a", "foo"]
    {
        for ask_it in [put(&format!("/uploads/k?{asked}")).body("X"), delete(&format!("/uploads/k?{asked}&acl"))] {
            let answer = ask(ask_it).await;
            assert!(is(&answer, 501, "NotImplemented"), "{asked}: {answer}");
        }
    }
    for asked in ["acl", "uploads", "retention", "partNumber=1", "metadataConfiguration"] {
        for path in ["/uploads/k", "/empty"] {
            let answer = ask(delete(&format!("{path}?{asked}"))).await;
            assert!(is(&answer, 501, "NotImplemented"), "{path} {asked}: {answer}");
        }
    }
    let answer = ask(put("/uploads/k").header("x-amz-rename-source", "uploads/other").body("")).await;
    assert!(is(&answer, 501, "NotImplemented"), "{answer}");
    let twice = ask(delete("/uploads/k?versionId=null&versionId=1")).await;
    assert!(is(&twice, 400, "InvalidArgument"), "{twice}");
    assert_eq!(kept(&node, "k").await, "content");
    let answer = ask(Ask::new(Method::HEAD, "/empty")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_from_a_bucket_that_aws_could_not_have_says_so() {
    let node = start(vec![key("everything", &["*"], &["*"])]).await;
    let good = S3Key::new("everything", SECRET);
    let ask = async |ask: Ask| send(&node, &good.sign(ask, address(&node))).await;
    for path in ["/a", "/a/k", "/abc"] {
        let answer = ask(put(path).body("")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    let copy = |from: &str| put("/abc/copy").header("x-amz-copy-source", from).body("");
    let answer = ask(copy("a/k")).await;
    assert!(is(&answer, 501, "NotImplemented") && answer.contains("get the object, and put it"), "{answer}");
    let answer = ask(copy("abc/none")).await;
    assert!(is(&answer, 404, "NoSuchKey"), "{answer}");
    node.stop().await;
}
