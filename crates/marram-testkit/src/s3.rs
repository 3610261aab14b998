//! Signs requests for an S3 API as its clients do: AWS Signature Version 4 in the `Authorization` header, for the region
//! `us-east-1`, and bodies that come in signed chunks. It can sign what no client would send, at times when no clock is.

use std::net::SocketAddr;
use std::time::SystemTime;

use marram_core::Digest;
use marram_core::time::Timestamp;

use crate::Ask;

/// An access key.
#[derive(Clone, Debug)]
pub struct S3Key {
    /// The access key id.
    pub id: String,
    /// The secret access key.
    pub secret: String,
}

/// A body in chunks (`aws-chunked`), with what comes after its last one: a line `name:value`, or nothing.
#[derive(Clone, Copy, Debug)]
pub struct S3Chunks<'a> {
    /// The content.
    pub chunks: &'a [&'a [u8]],
    /// What the head says will come after them.
    pub announced: &'a str,
    /// What comes.
    pub trailer: Option<(&'a str, &'a str)>,
    /// Whether each chunk and the trailer are signed, and not only the head.
    pub signed: bool,
}

impl S3Key {
    /// A key of these two.
    #[must_use]
    pub fn new(id: &str, secret: &str) -> Self {
        Self { id: id.to_owned(), secret: secret.to_owned() }
    }

    /// `ask`, signed now.
    #[must_use]
    pub fn sign(&self, ask: Ask, host: SocketAddr) -> Ask {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        self.sign_at(ask, host, now)
    }

    /// `ask`, signed at this second of the Unix epoch.
    #[must_use]
    pub fn sign_at(&self, ask: Ask, host: SocketAddr, unix_s: u64) -> Ask {
        let body = Digest::of(&ask.body).hex();
        self.sign_head(ask, host, &self.signing(unix_s), &body).0
    }

    /// `ask` with a body in chunks, signed now.
    #[must_use]
    pub fn sign_chunks(&self, ask: Ask, host: SocketAddr, body: &S3Chunks<'_>) -> Ask {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let signing = self.signing(now);
        let length: usize = body.chunks.iter().map(|chunk| chunk.len()).sum();
        let kind = if body.signed { "STREAMING-AWS4-HMAC-SHA256" } else { "STREAMING-UNSIGNED" };
        let ask = ask
            .header("content-encoding", "aws-chunked")
            .header("x-amz-decoded-content-length", &length.to_string())
            .header("x-amz-trailer", body.announced);
        let (ask, seed) = self.sign_head(ask, host, &signing, &format!("{kind}-PAYLOAD-TRAILER"));
        ask.body(if body.signed { signing.chunks(&seed, body) } else { unsigned(body) })
    }

    fn signing(&self, unix_s: u64) -> Signing {
        let (date, time) = date(unix_s);
        let secret = format!("AWS4{}", self.secret);
        let mut key = *hmac(secret.as_bytes(), date.as_bytes()).as_bytes();
        for part in ["us-east-1", "s3", "aws4_request"] {
            key = *hmac(&key, part.as_bytes()).as_bytes();
        }
        Signing { scope: format!("{date}/us-east-1/s3/aws4_request"), time, key }
    }

    /// The request and its signature, where its head says `body` of its body. Of its headers, `host` and those that begin with
    /// `x-amz-` are signed; what is added later is not.
    fn sign_head(&self, ask: Ask, host: SocketAddr, signing: &Signing, body: &str) -> (Ask, String) {
        let Signing { time, scope, .. } = signing;
        let ask = ask.header("x-amz-content-sha256", body).header("x-amz-date", time);
        let amz = ask.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-amz-"));
        let mut headers: Vec<_> = amz.map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        headers.sort_unstable();
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let names: String = headers.iter().map(|(name, _)| format!(";{name}")).collect();
        let signed = format!("host{names}");
        let (path, query) = ask.path.split_once('?').unwrap_or((&ask.path, ""));
        let canonical = format!(
            "{}\n{}\n{}\nhost:{host}\n{lines}\n{signed}\n{body}",
            ask.method,
            encode(&decode(path), true),
            canonical_query(query),
        );
        let signature = signing.sign("AWS4-HMAC-SHA256", &Digest::of(canonical.as_bytes()).hex());
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={signed}, Signature={signature}", self.id);
        (ask.header("authorization", &authorization), signature)
    }
}

/// What everything that is signed in one request has in common.
struct Signing {
    time: String,
    scope: String,
    key: [u8; 32],
}

impl Signing {
    fn sign(&self, kind: &str, what: &str) -> String {
        hmac(&self.key, format!("{kind}\n{}\n{}\n{what}", self.time, self.scope).as_bytes()).hex()
    }

    /// Each chunk is signed together with the signature before it, that of the head first, and so is the trailer
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html>).
    fn chunks(&self, seed: &str, body: &S3Chunks<'_>) -> Vec<u8> {
        let (mut signature, mut bytes) = (seed.to_owned(), Vec::new());
        for chunk in body.chunks.iter().chain([&&b""[..]]) {
            let what = format!("{signature}\n{}\n{}", Digest::of(b"").hex(), Digest::of(chunk).hex());
            signature = self.sign("AWS4-HMAC-SHA256-PAYLOAD", &what);
            bytes.extend(format!("{:x};chunk-signature={signature}\r\n", chunk.len()).into_bytes());
            bytes.extend(end_of(chunk));
        }
        if let Some((name, value)) = body.trailer {
            let what = format!("{signature}\n{}", Digest::of(format!("{name}:{value}\n").as_bytes()).hex());
            let signature = self.sign("AWS4-HMAC-SHA256-TRAILER", &what);
            bytes.extend(format!("{name}:{value}\r\nx-amz-trailer-signature:{signature}\r\n").into_bytes());
        }
        bytes.extend(b"\r\n");
        bytes
    }
}

fn unsigned(body: &S3Chunks<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in body.chunks.iter().chain([&&b""[..]]) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        bytes.extend(end_of(chunk));
    }
    if let Some((name, value)) = body.trailer {
        bytes.extend(format!("{name}:{value}\r\n").into_bytes());
    }
    bytes.extend(b"\r\n");
    bytes
}

/// A chunk's bytes and the end of its line. After the last, which is empty, the trailer follows at once.
fn end_of(chunk: &[u8]) -> Vec<u8> {
    if chunk.is_empty() { Vec::new() } else { [chunk, b"\r\n"].concat() }
}

/// `20261127` and `20261127T163810Z`.
fn date(unix_s: u64) -> (String, String) {
    let text = Timestamp(unix_s * 1_000_000_000).to_string();
    let digits: String = text[..19].chars().filter(|c| !matches!(c, '-' | ':')).collect();
    (digits[..8].to_owned(), format!("{digits}Z"))
}

fn canonical_query(query: &str) -> String {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (encode(&decode(name), false), encode(&decode(value), false))
    };
    let mut pairs: Vec<_> = query.split('&').filter(|text| !text.is_empty()).map(pair).collect();
    pairs.sort_unstable();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// As AWS encodes: everything but the unreserved characters of RFC 3986, and slashes where they stand for themselves.
fn encode(bytes: &[u8], slashes: bool) -> String {
    let one = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(*byte).to_string(),
        b'/' if slashes => "/".to_owned(),
        byte => format!("%{byte:02X}"),
    };
    bytes.iter().map(one).collect()
}

/// Takes percent encoding away; what is none stays.
fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let digits = (bytes[at] == b'%').then(|| bytes.get(at + 1..at + 3)).flatten();
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        decoded.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    decoded
}

/// HMAC with SHA-256 (RFC 2104).
fn hmac(key: &[u8], message: &[u8]) -> Digest {
    const BLOCK: usize = 64;
    let mut block = [0; BLOCK];
    if key.len() > BLOCK {
        block[..32].copy_from_slice(Digest::of(key).as_bytes());
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let with = |pad: u8, rest: &[u8]| Digest::of(&[&block.map(|byte| byte ^ pad)[..], rest].concat());
    with(0x5c, with(0x36, message).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::get;

    /// RFC 4231 §4.3 and §4.7.
    #[test]
    fn hmac_is_that_of_the_standard() {
        let short = hmac(b"Jefe", b"what do ya want for nothing?").hex();
        assert_eq!(short, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        let long = hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First").hex();
        assert_eq!(long, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    }

    /// The example of the documentation of AWS, "Signature calculations for trailing headers".
    #[test]
    fn chunks_and_their_trailer_are_signed_as_aws_says() {
        let signing = S3Key::new("", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY").signing(1_369_353_600);
        let seed = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e";
        let name = "x-amz-checksum-crc32c";
        let content = vec![b'a'; 65_536];
        let chunks = [&content[..], &content[..1_024]];
        let body = S3Chunks { chunks: &chunks, announced: name, trailer: Some((name, "sOO8/Q==")), signed: true };
        let text = String::from_utf8(signing.chunks(seed, &body)).unwrap();
        let lines: Vec<_> = text.split("\r\n").filter(|line| !line.starts_with('a')).collect();
        assert_eq!(
            lines,
            [
                "10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
                "400;chunk-signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
                "0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
                "x-amz-checksum-crc32c:sOO8/Q==",
                "x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435",
                "",
                "",
            ]
        );
    }

    #[test]
    fn a_request_is_signed_over_its_canonical_form() {
        assert_eq!(date(1_369_353_600), ("20130524".into(), "20130524T000000Z".into()));
        assert_eq!(canonical_query("b=2&a=%20x&c"), "a=%20x&b=2&c=");
        assert_eq!(encode(&decode("/a%2Fb c/%zz"), true), "/a/b%20c/%25zz");
        let signed = S3Key::new("id", "secret").sign(get("/b/k"), "127.0.0.1:1".parse().unwrap());
        assert!(format!("{signed:?}").contains("Credential=id/"));
    }
}
