//! Signs requests for an S3 API as its clients do: AWS Signature Version 4 in the `Authorization` header, for the region
//! `us-east-1`. It can sign what no client would send, at times when no clock is.

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
        let (date, time) = date(unix_s);
        let body = Digest::of(&ask.body).hex();
        let (path, query) = ask.path.split_once('?').unwrap_or((&ask.path, ""));
        let canonical = format!(
            "{}\n{}\n{}\nhost:{host}\nx-amz-content-sha256:{body}\nx-amz-date:{time}\n\n{SIGNED}\n{body}",
            ask.method,
            encode(&decode(path), true),
            canonical_query(query),
        );
        let scope = format!("{date}/us-east-1/s3/aws4_request");
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", Digest::of(canonical.as_bytes()).hex());
        let secret = format!("AWS4{}", self.secret);
        let mut key = *hmac(secret.as_bytes(), date.as_bytes()).as_bytes();
        for part in ["us-east-1", "s3", "aws4_request"] {
            key = *hmac(&key, part.as_bytes()).as_bytes();
        }
        let signature = hmac(&key, text.as_bytes()).hex();
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={SIGNED}, Signature={signature}", self.id);
        ask.header("x-amz-content-sha256", &body).header("x-amz-date", &time).header("authorization", &authorization)
    }
}

const SIGNED: &str = "host;x-amz-content-sha256;x-amz-date";

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

    #[test]
    fn a_request_is_signed_over_its_canonical_form() {
        assert_eq!(date(1_369_353_600), ("20130524".into(), "20130524T000000Z".into()));
        assert_eq!(canonical_query("b=2&a=%20x&c"), "a=%20x&b=2&c=");
        assert_eq!(encode(&decode("/a%2Fb c/%zz"), true), "/a/b%20c/%25zz");
        let signed = S3Key::new("id", "secret").sign(get("/b/k"), "127.0.0.1:1".parse().unwrap());
        assert!(format!("{signed:?}").contains("Credential=id/"));
    }
}
