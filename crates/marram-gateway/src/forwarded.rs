//! Where a request came from and for which host, as the front saw it: `host`, `forwarded` (RFC 7239), `x-forwarded-*`.
//!
//! Connections mostly ask for one host, so what is made for it is kept with the connection.

use std::net::IpAddr;

use http::header::{FORWARDED, HOST};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version};
use ipnet::IpNet;
use marram_core::{Failure, Kind};

use crate::headers;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What is known of the far end of a connection.
pub(crate) struct Origin {
    remote: IpAddr,
    trusted: bool,
    /// Who asks, as a header value.
    remote_value: HeaderValue,
    host: Option<Host>,
    /// For an HTTP/1.0 request that names no host.
    local: HeaderValue,
}

/// A host that was asked for, checked.
struct Host {
    value: HeaderValue,
    authority: Authority,
    /// `for=…;host=…;proto=http`
    forwarded: HeaderValue,
}

impl Origin {
    pub(crate) fn new(remote: IpAddr, local: std::net::SocketAddr, proxies: &[IpNet]) -> Self {
        // An IPv4 client of a socket for both families is itself, and not a mapped address.
        let remote = remote.to_canonical();
        Self {
            remote,
            trusted: proxies.iter().any(|range| range.contains(&remote)),
            remote_value: header_value(remote.to_string()),
            host: None,
            local: header_value(local.to_string()),
        }
    }

    /// Gives `request` its absolute URI, `host` and forwarded headers. Returns who really sent it.
    pub(crate) fn stamp<B>(&mut self, request: &mut Request<B>, proxies: &[IpNet]) -> Result<IpAddr, Failure> {
        self.find_host(request)?;
        let Some(host) = &self.host else { return Err(Failure::new(Kind::Internal, "")) };
        let (trusted, remote) = (self.trusted, self.remote);
        let headers = request.headers_mut();
        let mut scheme = Scheme::HTTP;
        let mut client = remote;
        headers.insert(HOST, host.value.clone());
        if trusted {
            client = client_before(headers, remote, proxies);
            if headers.get(X_FORWARDED_PROTO).is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https")) {
                scheme = Scheme::HTTPS;
            }
            append_list(headers, X_FORWARDED_FOR, &self.remote_value);
            append_list(headers, FORWARDED, &host.forwarded);
            headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.value.clone());
            headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
        } else {
            headers::remove_forwarded(headers);
            headers.insert(X_FORWARDED_FOR, self.remote_value.clone());
            headers.insert(FORWARDED, host.forwarded.clone());
            headers.insert(X_FORWARDED_HOST, host.value.clone());
            headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
        }
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(scheme);
        parts.authority = Some(host.authority.clone());
        parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from_parts(parts)
            .map_err(|error| Failure::new(Kind::BadRequest, "the request target is not a path").because(error))?;
        Ok(client)
    }

    /// RFC 9112 §3.2: the host is in the target, or in the one `host` field; HTTP/1.1 has to name one.
    fn find_host<B>(&mut self, request: &Request<B>) -> Result<(), Failure> {
        let mut fields = request.headers().get_all(HOST).iter();
        let field = fields.next();
        if fields.next().is_some() {
            return Err(bad("there are several host fields"));
        }
        if let Some(authority) = request.uri().authority() {
            let text = authority.as_str();
            if request.version() == Version::HTTP_2
                && field.is_some_and(|f| !f.as_bytes().eq_ignore_ascii_case(text.as_bytes()))
            {
                return Err(bad("`:authority` and `host` contradict each other")); // RFC 9113 §8.3.1
            }
            let known = self.host.as_ref().is_some_and(|host| host.value == text);
            return if known { Ok(()) } else { self.take_host(header_value(text.to_owned())) };
        }
        match field {
            Some(field) if self.host.as_ref().is_some_and(|host| host.value == *field) => Ok(()),
            Some(field) => self.take_host(field.clone()),
            None if request.version() < Version::HTTP_11 => self.take_host(self.local.clone()),
            None => Err(bad("the host is missing")),
        }
    }

    fn take_host(&mut self, value: HeaderValue) -> Result<(), Failure> {
        let wrong = || bad("the host is not a name or address with an optional port");
        let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~:[]".contains(b);
        if value.is_empty() || !value.as_bytes().iter().all(plain) {
            return Err(wrong());
        }
        let authority = Authority::try_from(value.as_bytes()).map_err(|_| wrong())?;
        let after_host = &authority.as_str()[authority.host().len()..];
        let port_is_right = matches!(after_host, "" | ":") || authority.port_u16().is_some();
        if authority.host().is_empty() || !port_is_right {
            return Err(wrong());
        }
        let remote = match self.remote {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("\"[{v6}]\""), // RFC 7239 §6
        };
        let forwarded = header_value(format!("for={remote};host=\"{authority}\";proto=http"));
        self.host = Some(Host { value, authority, forwarded });
        Ok(())
    }
}

/// The last address before the trusted proxies. `x-forwarded-for` grows to the right, so only its right end is known.
fn client_before(headers: &HeaderMap, remote: IpAddr, proxies: &[IpNet]) -> IpAddr {
    let mut client = remote;
    for value in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        for part in value.as_bytes().rsplit(|b| *b == b',') {
            let parsed = std::str::from_utf8(part.trim_ascii()).ok().and_then(|text| text.parse::<IpAddr>().ok());
            let Some(address) = parsed else { return client };
            client = address;
            if !proxies.iter().any(|range| range.contains(&address)) {
                return client;
            }
        }
    }
    client
}

fn append_list(headers: &mut HeaderMap, name: HeaderName, last: &HeaderValue) {
    let mut list: Vec<u8> = Vec::new();
    for value in headers.get_all(&name).iter().chain([last]) {
        if !list.is_empty() {
            list.extend_from_slice(b", ");
        }
        list.extend_from_slice(value.as_bytes());
    }
    headers.insert(name, HeaderValue::from_maybe_shared(bytes::Bytes::from(list)).unwrap_or_else(|_| last.clone()));
}

/// For text of addresses and authorities, whose characters are all visible ASCII.
fn header_value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

fn bad(message: &'static str) -> Failure {
    Failure::new(Kind::BadRequest, message)
}
