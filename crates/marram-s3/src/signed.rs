//! What of a request its signature covers. s3s checks what a client says that it has signed, and obeys the rest too: whoever
//! holds an URL that was signed beforehand could add `x-amz-copy-source`, and read what the signer may read. So every header
//! that begins with `x-amz-` has to be signed, as AWS has it.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Uri};
use s3s::{S3Error, S3Result, s3_error};

use crate::{limits, query};

/// What need not be listed. In a signature in a header, both stand in what is signed anyway. Beside a signed URL, nobody reads the
/// second, and the first can do no more than refuse the body.
const ANYWAY: [&str; 2] = ["x-amz-content-sha256", "x-amz-date"];

/// What a signature of version 2 consists of in an URL.
const PARTS_OF_2: [&str; 3] = ["AWSAccessKeyId", "Expires", "Signature"];

/// What such a signature covers of a query, as far as this node knows it.
const COVERED_BY_2: [&str; 12] = [
    "delete",
    "location",
    "partNumber",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "uploadId",
    "uploads",
    "versionId",
];

/// Refuses a request whose signature leaves something open. The names of the headers that the client lists as signed.
///
/// Whether the signature is right, and there at all, is for s3s to say.
pub(crate) fn check(uri: &Uri, headers: &HeaderMap) -> S3Result<Vec<String>> {
    let query = query::pairs(uri);
    let has = |name: &str| query.iter().any(|(found, _)| found == name);
    let (version_2, in_url) = (has("Signature"), has("X-Amz-Signature"));
    let in_headers = headers.get_all(AUTHORIZATION).iter().count();
    let listed = match (version_2, in_url, in_headers) {
        (false, false, 0) => return Ok(Vec::new()),
        (true, false, 0) => {
            check_query_of_2(&query)?;
            Vec::new()
        }
        (false, true, 0) => of_url(&query)?,
        (false, false, 1) => of_header(&headers[AUTHORIZATION])?,
        // s3s would check one of them.
        _ => return Err(s3_error!(InvalidArgument, "the request is signed more than once: sign it in one way")),
    };
    for (name, value) in headers {
        let name = name.as_str();
        // Version 2 covers each of these. What is no UTF-8 is left out of what s3s checks.
        let is_covered = version_2 || ANYWAY.contains(&name) || listed.iter().any(|found| found == name);
        if name.starts_with("x-amz-") && !(is_covered && std::str::from_utf8(value.as_bytes()).is_ok()) {
            return Err(s3_error!(AccessDenied, "the header \"{name}\" is not signed: sign it, or leave it out"));
        }
    }
    Ok(listed)
}

/// The headers that an URL lists as signed.
fn of_url(query: &[(String, String)]) -> S3Result<Vec<String>> {
    let values = |wanted: &'static str| query.iter().filter(move |(name, _)| name == wanted).map(|(_, value)| value);
    let max = limits::PRESIGNED_TIME.as_secs();
    if values("X-Amz-Expires").any(|value| !value.parse::<u64>().is_ok_and(|seconds| seconds <= max)) {
        return Err(s3_error!(
            AuthorizationQueryParametersError,
            "X-Amz-Expires has to be a number of seconds, and at most {max}, which is a week"
        ));
    }
    // s3s takes none if there are several.
    Ok(values("X-Amz-SignedHeaders").next().map_or_else(Vec::new, |list| names(list)))
}

/// The headers that an `Authorization` lists as signed.
fn of_header(value: &HeaderValue) -> S3Result<Vec<String>> {
    let Some(rest) = value.to_str().ok().and_then(|text| text.strip_prefix("AWS4-HMAC-SHA256 ")) else {
        return Err(s3_error!(InvalidRequest, "this way of signing is not supported: use AWS4-HMAC-SHA256"));
    };
    let malformed = || -> S3Error {
        s3_error!(
            AuthorizationHeaderMalformed,
            "Authorization has to be \"AWS4-HMAC-SHA256 Credential=…/aws4_request, SignedHeaders=…, Signature=…\""
        )
    };
    listed(rest).ok_or_else(malformed)
}

/// Takes it apart as s3s does: what stands somewhere else in it must not pass for the list.
fn listed(rest: &str) -> Option<Vec<String>> {
    let credential = rest.trim_ascii_start().strip_prefix("Credential=")?;
    // The access key, the day, the region, the service, and this.
    let rest = credential.splitn(5, '/').nth(4)?.strip_prefix("aws4_request,")?;
    let (list, rest) = rest.trim_ascii_start().strip_prefix("SignedHeaders=")?.split_once(',')?;
    rest.trim_ascii_start().strip_prefix("Signature=")?;
    Some(names(list))
}

fn names(list: &str) -> Vec<String> {
    list.split(';').map(str::to_owned).collect()
}

/// Version 2 signs the values without a mark of where each ends, none that comes twice, and nothing of what it does not know.
fn check_query_of_2(query: &[(String, String)]) -> S3Result<()> {
    for (name, value) in query {
        // boto3 repeats the headers that it has signed here, where nobody reads them.
        let is_repeated = name.starts_with("x-amz-") || name == "content-type" || name == "content-md5";
        let is_own = PARTS_OF_2.contains(&name.as_str());
        let once = || query.iter().filter(|(other, _)| other == name).count() == 1;
        let is_covered = COVERED_BY_2.contains(&name.as_str()) && !value.contains('&') && once();
        if !(is_repeated || is_own || is_covered) {
            return Err(s3_error!(
                AccessDenied,
                "an URL that is signed with version 2 does not cover \"{name}\": sign it with AWS4-HMAC-SHA256"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const V4: &str = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=0";
    const V2: &str = "AWSAccessKeyId=k&Expires=1&Signature=s";

    fn code(query: &str, headers: &[(&'static str, &str)]) -> String {
        let uri = format!("/b/k?{query}").parse().unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        check(&uri, &map).map_or_else(|error| error.code().as_str().to_owned(), |listed| listed.join(" "))
    }

    fn authorization(list: &str) -> String {
        format!("AWS4-HMAC-SHA256 Credential=k/20260101/x/s3/aws4_request, SignedHeaders={list}, Signature=0")
    }

    #[test]
    fn a_header_that_is_not_listed_is_refused() {
        let (source, date) = (("x-amz-copy-source", "secret/s"), ("x-amz-date", "20260101T000000Z"));
        let body = ("x-amz-content-sha256", "UNSIGNED-PAYLOAD");
        let url = |list: &str| format!("{V4}&X-Amz-SignedHeaders={list}");
        for (query, headers, expected) in [
            (url("host"), vec![], "host"),
            (url("host"), vec![body, date, ("range", "bytes=0-1"), ("x-amzn-trace-id", "1")], "host"),
            (url("host"), vec![source], "AccessDenied"),
            (url("host"), vec![("x-amz-meta-a", "b")], "AccessDenied"),
            (url("host%3Bx-amz-copy-source"), vec![source], "host x-amz-copy-source"),
            // s3s looks for what is listed as it is.
            (url("host;X-Amz-Copy-Source"), vec![source], "AccessDenied"),
            (V4.to_owned(), vec![source], "AccessDenied"),
            (url("host&X-Amz-Expires=604800"), vec![], "host"),
            (url("host&X-Amz-Expires=604801"), vec![], "AuthorizationQueryParametersError"),
            (url("host&X-Amz-Expires=-5"), vec![], "AuthorizationQueryParametersError"),
            (url("host&Signature=s"), vec![], "InvalidArgument"),
            (url("host"), vec![("authorization", "x")], "InvalidArgument"),
        ] {
            assert_eq!(code(&query, &headers), expected, "{query} {headers:?}");
        }
        for (list, headers, expected) in [
            ("host;x-amz-date", vec![body, date], "host x-amz-date"),
            ("host;x-amz-date", vec![body, date, source], "AccessDenied"),
            ("host;x-amz-copy-source", vec![source], "host x-amz-copy-source"),
        ] {
            let authorization = authorization(list);
            let headers = [&headers[..], &[("authorization", authorization.as_str())]].concat();
            assert_eq!(code("", &headers), expected, "{headers:?}");
        }
        assert_eq!(code("", &[source]), "", "s3s refuses it");
    }

    #[test]
    fn what_stands_elsewhere_is_not_the_list() {
        let good = authorization("host");
        let source = ("x-amz-copy-source", "secret/s");
        let fake = "SignedHeaders=x-amz-copy-source, ";
        for (text, expected) in [
            (good.clone(), "AccessDenied"),
            (good.replace("Credential=", &format!("{fake}Credential=")), "AuthorizationHeaderMalformed"),
            (good.replace("AWS4-HMAC-SHA256 ", &format!("{fake}Signature=0,")), "InvalidRequest"),
            (good.replace("Credential=k", "Credential=SignedHeaders=x-amz-copy-source,k"), "AccessDenied"),
            (good.replace("Signature=", &format!("{fake}Signature=")), "AuthorizationHeaderMalformed"),
            (good.replace("/s3/", "/"), "AuthorizationHeaderMalformed"),
            ("AWS k:x".to_owned(), "InvalidRequest"),
            ("Basic eDp5".to_owned(), "InvalidRequest"),
        ] {
            assert_eq!(code("", &[source, ("authorization", text.as_str())]), expected, "{text}");
        }
        let twice = [("authorization", good.as_str()); 2];
        assert_eq!(code("", &twice), "InvalidArgument");
    }

    #[test]
    fn of_version_2_an_url_has_nothing_that_is_not_covered() {
        for (more, expected) in [
            ("", ""),
            ("&partNumber=1&uploadId=u", ""),
            ("&response-content-disposition=attachment%3B%20filename%3D%22x%22", ""),
            ("&content-type=text/plain&x-amz-meta-a=b", ""),
            // What was signed reads the same, and would put an object instead of a part.
            ("&partNumber=1%26uploadId=u", "AccessDenied"),
            ("&uploads&uploads", "AccessDenied"),
            ("&prefix=a", "AccessDenied"),
            ("&x=1", "AccessDenied"),
        ] {
            assert_eq!(code(&format!("{V2}{more}"), &[("x-amz-copy-source", "a/k")]), expected, "{more}");
        }
    }

    #[test]
    fn a_value_that_is_left_out_of_the_signature_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-meta-a", HeaderValue::from_bytes(b"\xff").unwrap());
        for uri in [format!("/b/k?{V2}"), format!("/b/k?{V4}&X-Amz-SignedHeaders=host;x-amz-meta-a")] {
            let refused = check(&uri.parse().unwrap(), &headers).unwrap_err();
            assert_eq!(refused.code().as_str(), "AccessDenied", "{uri}");
        }
    }
}
