//! What a client says of an object and asks of an answer, in headers and in the query of a signed URL, and what a list of
//! uploads says.

use http::Method;
use marram_testkit::{Ask, get};

use super::address;
use super::bad_input::{names, put, send, site};
use super::clients::presign_query;

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_an_sdk_has_moved_into_a_signed_url_are_obeyed_or_refused() {
    let (node, key) = site().await;
    let by_url = async |query: &str| {
        let url = presign_query(&node, "PUT", &format!("/uploads/k?{query}")).await;
        send(&node, &put(&url)).await
    };
    for (query, status, code) in [
        ("x-amz-checksum-crc32=y%2FQ5Jg%3D%3D", "400", "BadDigest"),
        ("x-amz-checksum-sha512=AAAA", "501", "NotImplemented"),
        ("x-amz-copy-source=uploads%2Fother", "501", "NotImplemented"),
        ("x-amz-meta-a=b%0Ac", "400", "InvalidArgument"),
    ] {
        let answer = by_url(query).await;
        let is = answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(&format!("<Code>{code}</Code>"));
        assert!(is, "{query}: {answer}");
    }
    assert_eq!(names(&node).await, Vec::<String>::new());
    // The checksum of nothing is what an SDK says that has not seen the content.
    let query = "x-amz-meta-owner=some%20body&x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-sdk-checksum-algorithm=CRC32";
    let answer = by_url(query).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let head = send(&node, &key.sign(Ask::new(Method::HEAD, "/uploads/k"), address(&node))).await;
    assert!(head.contains("x-amz-meta-owner: some body\r\n"), "{head}");
    let url = presign_query(&node, "POST", "/uploads/parts?uploads=&x-amz-checksum-algorithm=SHA256").await;
    let begun = send(&node, &Ask::new(Method::POST, &url)).await;
    assert!(begun.starts_with("HTTP/1.1 200") && begun.contains("x-amz-checksum-algorithm: SHA256\r\n"), "{begun}");
    // In the query of a request that is signed in its header, they are nobody's headers.
    let other = key.sign(put("/uploads/other?x-amz-meta-owner=nobody"), address(&node));
    let answer = send(&node, &other).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let head = send(&node, &key.sign(Ask::new(Method::HEAD, "/uploads/other"), address(&node))).await;
    assert!(head.starts_with("HTTP/1.1 200") && !head.contains("x-amz-meta-"), "{head}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_and_a_head_have_the_same_conditions_and_say_what_the_query_wants() {
    let (node, key) = site().await;
    let ask = async |ask: Ask| send(&node, &key.sign(ask, address(&node))).await;
    let stored = ask(put("/uploads/k")).await;
    let etag = stored.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap_or_else(|| panic!("{stored}"));
    let (first, last, weak) = (format!("{etag}, \"x\""), format!("\"x\", {etag}"), format!("W/{etag}"));
    let query = "response-content-type=text%2Fplain&response-cache-control=no-store\
        &response-content-disposition=attachment&response-content-language=de&response-content-encoding=br\
        &response-expires=Wed%2C%2021%20Oct%202015%2007%3A28%3A00%20GMT";
    for method in [Method::GET, Method::HEAD] {
        for (name, value, status) in [
            ("if-match", &first, "200"),
            ("if-match", &last, "200"),
            ("if-match", &weak, "412"),
            ("if-none-match", &first, "304"),
            ("if-none-match", &last, "304"),
            ("if-none-match", &weak, "304"),
        ] {
            let answer = ask(Ask::new(method.clone(), "/uploads/k").header(name, value)).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{method} {name}: {value}: {answer}");
        }
        let answer = ask(Ask::new(method.clone(), &format!("/uploads/k?{query}"))).await;
        for line in [
            "content-type: text/plain",
            "cache-control: no-store",
            "content-disposition: attachment",
            "content-language: de",
            "content-encoding: br",
            "expires: Wed, 21 Oct 2015 07:28:00 GMT",
        ] {
            assert!(answer.contains(&format!("{line}\r\n")), "{method}, {line}: {answer}");
        }
        let bad = ask(Ask::new(method.clone(), "/uploads/k?response-content-type=a%0Ab")).await;
        assert!(bad.starts_with("HTTP/1.1 400"), "{method}: {bad}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_to_have_another_checksum_than_its_source_is_refused() {
    let (node, key) = site().await;
    let ask = async |ask: Ask| send(&node, &key.sign(ask, address(&node))).await;
    // Of `content`.
    let stored = ask(put("/uploads/k").header("x-amz-checksum-algorithm", "CRC32")).await;
    assert!(stored.contains("x-amz-checksum-crc32: "), "{stored}");
    let copy = |algorithm: &str| {
        let from = put("/uploads/copy").body("").header("x-amz-copy-source", "uploads/k");
        from.header("x-amz-checksum-algorithm", algorithm)
    };
    let answer = ask(copy("SHA256")).await;
    assert!(answer.starts_with("HTTP/1.1 501") && answer.contains("has no SHA256"), "{answer}");
    assert_eq!(names(&node).await, ["k"]);
    let answer = ask(copy("CRC32")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("<ChecksumCRC32>"), "{answer}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_listed_by_folder_and_page_by_page() {
    let (node, key) = site().await;
    let ask = async |ask: Ask| send(&node, &key.sign(ask, address(&node))).await;
    for name in ["up/a/1", "up/a/2", "up/b+c", "up/d/1"] {
        let begun = ask(Ask::new(Method::POST, &format!("/uploads/{name}?uploads"))).await;
        assert!(begun.starts_with("HTTP/1.1 200"), "{begun}");
    }
    let all = |text: &str, tag: &str| -> Vec<String> {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        text.split(&open).skip(1).map(|rest| rest.split(&close).next().unwrap().to_owned()).collect()
    };
    let list = async |more: &str| ask(get(&format!("/uploads?uploads&prefix=up%2F&{more}"))).await;
    let listed = list("delimiter=%2F&encoding-type=url").await;
    assert_eq!(all(&listed, "Key"), ["up/b%2Bc"], "{listed}");
    let prefixes: Vec<_> = all(&listed, "CommonPrefixes").iter().flat_map(|text| all(text, "Prefix")).collect();
    assert_eq!(prefixes, ["up/a/", "up/d/"], "{listed}");
    assert_eq!((all(&listed, "Delimiter"), all(&listed, "EncodingType")), (vec!["/".into()], vec!["url".into()]));
    let (mut marker, mut found) = (String::new(), Vec::new());
    while found.len() < 10 {
        let page = list(&format!("delimiter=%2F&encoding-type=url&max-uploads=1{marker}")).await;
        found.extend(all(&page, "CommonPrefixes").iter().flat_map(|text| all(text, "Prefix")));
        found.extend(all(&page, "Key"));
        if all(&page, "IsTruncated") == ["false"] {
            break;
        }
        let next = all(&page, "NextKeyMarker");
        marker = format!("&key-marker={}", next.first().unwrap_or_else(|| panic!("{page}")));
    }
    assert_eq!(found, ["up/a/", "up/b%2Bc", "up/d/"]);
    let none = list("max-uploads=0").await;
    assert_eq!(all(&none, "IsTruncated"), ["false"], "{none}");
    node.stop().await;
}

/// RFC 9110 §15.4.5: a cache goes on with what the answer 304 says.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nothing_has_changed_says_how_long_it_may_be_kept() {
    let (node, key) = site().await;
    let ask = async |ask: Ask| send(&node, &key.sign(ask, address(&node))).await;
    let expires = "Wed, 21 Oct 2065 07:28:00 GMT";
    ask(put("/uploads/k").header("cache-control", "max-age=7").header("expires", expires)).await;
    for method in [Method::GET, Method::HEAD] {
        let answer = ask(Ask::new(method.clone(), "/uploads/k").header("if-none-match", "*")).await;
        assert!(answer.starts_with("HTTP/1.1 304"), "{method}: {answer}");
        for line in ["etag: ", "cache-control: max-age=7\r\n", &format!("expires: {expires}\r\n")] {
            assert!(answer.contains(line), "{method}, {line}: {answer}");
        }
    }
    for asked in [Ask::new(Method::DELETE, "/nowhere"), get("/nowhere?location"), get("//uploads/k")] {
        let answer = ask(asked).await;
        assert!(answer.starts_with("HTTP/1.1 4") && answer.contains("<Message>"), "{answer}");
    }
    node.stop().await;
}

/// What a client says of the whole object is held against its parts, or refused: never left out.
#[tokio::test(flavor = "multi_thread")]
async fn a_checksum_of_an_upload_that_is_wrong_or_cannot_be_told_makes_no_object() {
    let (node, key) = site().await;
    let ask = async |ask: Ask| send(&node, &key.sign(ask, address(&node))).await;
    // The CRC32 of "content".
    let (right, wrong) = ("/sUwqQ==", "AAAAAA==");
    for (announced, of_part, of_all, named, code) in [
        (false, None, Some(wrong), None, "InvalidRequest"),
        (false, None, Some(right), None, "InvalidRequest"),
        (false, None, None, Some(wrong), "InvalidPart"),
        (false, Some(right), Some(wrong), None, "BadDigest"),
        (true, None, Some(wrong), None, "BadDigest"),
        (true, Some(right), None, Some(wrong), "InvalidPart"),
        (false, Some(right), Some(right), Some(right), ""),
        (true, None, Some(right), Some(right), ""),
        (false, None, None, None, ""),
    ] {
        let what = format!("{announced} {of_part:?} {of_all:?} {named:?}");
        let with = |ask: Ask, value: Option<&str>| match value {
            Some(value) => ask.header("x-amz-checksum-crc32", value),
            None => ask,
        };
        let mut begin = Ask::new(Method::POST, "/uploads/k?uploads");
        if announced {
            begin = begin.header("x-amz-checksum-algorithm", "CRC32").header("x-amz-checksum-type", "FULL_OBJECT");
        }
        let begun = ask(begin).await;
        let id = begun
            .split("<UploadId>")
            .nth(1)
            .and_then(|rest| rest.split('<').next())
            .unwrap_or_else(|| panic!("{begun}"));
        let part = ask(with(put(&format!("/uploads/k?partNumber=1&uploadId={id}")), of_part)).await;
        let etag =
            part.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap_or_else(|| panic!("{what}: {part}"));
        let sum = named.map_or_else(String::new, |value| format!("<ChecksumCRC32>{value}</ChecksumCRC32>"));
        let list = format!("<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag>{sum}</Part>");
        let body = format!("<CompleteMultipartUpload>{list}</CompleteMultipartUpload>");
        let done = ask(with(Ask::new(Method::POST, &format!("/uploads/k?uploadId={id}")).body(body), of_all)).await;
        if code.is_empty() {
            assert!(done.starts_with("HTTP/1.1 200") && done.contains("<ETag>"), "{what}: {done}");
        } else {
            assert!(done.contains(&format!("<Code>{code}</Code>")), "{what}: {done}");
            assert_eq!(names(&node).await, Vec::<String>::new(), "{what}");
        }
    }
    node.stop().await;
}

/// Without a condition, a copy is of what there is; that it was another a moment ago concerns nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_an_object_that_is_replaced_meanwhile_is_one_of_both() {
    let (node, key) = site().await;
    let ask = async |ask: Ask| send(&node, &key.sign(ask, address(&node))).await;
    ask(put("/uploads/from")).await;
    let replace = async || {
        for n in 0..300 {
            let answer = ask(put("/uploads/from").body(format!("content {n}"))).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    };
    let copy = async || {
        for _ in 0..300 {
            let answer = ask(put("/uploads/to").header("x-amz-copy-source", "uploads/from").body("")).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    };
    futures::join!(replace(), copy());
    let bad =
        ask(put("/uploads/to").header("x-amz-copy-source", "uploads/from").header("x-amz-metadata-directive", "X"))
            .await;
    assert!(bad.contains("<Code>InvalidArgument</Code>"), "{bad}");
    node.stop().await;
}
