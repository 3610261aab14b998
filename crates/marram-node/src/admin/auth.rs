//! Who may use the admin API: whoever shows the token, or, on a node without one, whoever is on this machine and is not
//! a web page.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use marram_core::{Failure, Kind};

use crate::config::Token;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Checks a request's credentials.
pub(super) fn check(token: Option<&Token>, headers: &HeaderMap) -> Result<(), Failure> {
    match token {
        Some(token) => check_token(token, headers),
        None => check_not_a_web_page(headers),
    }
}

fn check_token(token: &Token, headers: &HeaderMap) -> Result<(), Failure> {
    let missing = || {
        Failure::new(
            Kind::Unauthorized,
            "this node asks for a token: pass it with `--token`, MARRAM_TOKEN or the header `Authorization: Bearer …`",
        )
    };
    let shown = headers.get(header::AUTHORIZATION).ok_or_else(missing)?;
    let (scheme, credentials) = shown.as_bytes().split_at_checked(7).ok_or_else(missing)?;
    // RFC 9110 §11.1: the scheme's case does not matter.
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return Err(missing());
    }
    if token.is(credentials.trim_ascii()) {
        Ok(())
    } else {
        Err(Failure::new(Kind::Unauthorized, "this is not the node's token"))
    }
}

/// Without a token only programs of this machine may come in. A page in a browser of this machine is not one of them,
/// although its requests come from here: it gives itself away by the name that it rebound to this address, which the
/// browser sends as `Host`, by `Origin`, and by `Sec-Fetch-Site`, which also comes with what has no origin: images, links.
/// A page of this very address is no better: functions answer here with what they like. Only an address that somebody has
/// typed has the site `none` (W3C Fetch Metadata §2.3).
fn check_not_a_web_page(headers: &HeaderMap) -> Result<(), Failure> {
    let text = |value: &HeaderValue| value.to_str().unwrap_or("?").to_owned();
    let host = headers.get(header::HOST).map(text).unwrap_or_default();
    if !is_local(&host) {
        let message = format!(
            "this node has no token, so it answers only to its address, not to the host {host:?}: use 127.0.0.1, or set a token"
        );
        return Err(Failure::new(Kind::Unauthorized, message));
    }
    let page = headers.get(header::ORIGIN).map(|origin| format!(" of {:?}", text(origin)));
    let by_a_page = headers.get_all(SEC_FETCH_SITE).iter().any(|site| site != "none");
    match page.or(by_a_page.then(String::new)) {
        Some(page) => {
            let message = format!("this node has no token, so it does not answer to web pages{page}: set a token");
            Err(Failure::new(Kind::Unauthorized, message))
        }
        None => Ok(()),
    }
}

/// Whether `host[:port]` is this machine, by address or as `localhost`.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.is_empty() || name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| ((*name).parse().expect("a name"), (*value).parse().expect("a value")))
            .collect()
    }

    #[test]
    fn the_token_and_nothing_else() {
        let token = Token::new("0123456789abcdef").expect("long enough");
        for (value, expected) in [
            ("Bearer 0123456789abcdef", true),
            ("bearer 0123456789abcdef", true),
            ("Bearer 0123456789abcdeF", false),
            ("Bearer ", false),
            ("Basic 0123456789abcdef", false),
            ("0123456789abcdef", false),
        ] {
            assert_eq!(check(Some(&token), &headers(&[("authorization", value)])).is_ok(), expected, "{value:?}");
        }
        assert!(check(Some(&token), &headers(&[])).is_err());
    }

    #[test]
    fn without_a_token_a_web_page_is_kept_out() {
        let here = "127.0.0.1:7070";
        for (host, more, expected) in [
            (here, None, true),
            ("localhost:7070", None, true),
            ("[::1]:7070", None, true),
            ("rebound.example:7070", None, false),
            ("192.168.0.1:7070", None, false),
            // What a function answered here is a page, too.
            (here, Some(("origin", "http://127.0.0.1:7070")), false),
            (here, Some(("origin", "https://evil.example")), false),
            (here, Some(("origin", "null")), false),
            // An image, a script or a link has no origin.
            (here, Some(("sec-fetch-site", "cross-site")), false),
            (here, Some(("sec-fetch-site", "same-site")), false),
            (here, Some(("sec-fetch-site", "same-origin")), false),
            // Typed by a user.
            (here, Some(("sec-fetch-site", "none")), true),
        ] {
            let mut pairs = vec![("host", host)];
            pairs.extend(more);
            assert_eq!(check(None, &headers(&pairs)).is_ok(), expected, "{host} {more:?}");
        }
    }
}
