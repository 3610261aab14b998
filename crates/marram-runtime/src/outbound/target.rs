//! What a request's URI means: scheme, host and port, in one spelling each.
//!
//! Rules and addresses are compared with what comes out here, so two spellings of one host must come out the same, and
//! nothing may be left for the system's resolver to read as an address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use http::Uri;
use marram_core::outbound::{HostPattern, OutboundRule};

use super::OutboundError;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    pub(super) tls: bool,
    pub(super) host: Host,
    pub(super) port: u16,
}

/// A name, lower case and without a trailing dot, or an address, however it was spelt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Host {
    Name(Arc<str>),
    Address(IpAddr),
}

impl Origin {
    /// Reads the origin of an absolute `http` or `https` URI.
    pub(super) fn of(uri: &Uri) -> Result<Self, OutboundError> {
        let invalid = |why| OutboundError::UriInvalid { uri: uri.to_string().chars().take(200).collect(), why };
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) => return Err(invalid("its scheme has to be http or https")),
            None => return Err(invalid("it has no scheme and host")),
        };
        let authority = uri.authority().ok_or_else(|| invalid("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(invalid("a user or password in it is not sent: use the authorization header"));
        }
        let host = Host::parse(authority.host()).ok_or_else(|| invalid("its host is not a name or an address"))?;
        let rest = &authority.as_str()[authority.host().len()..];
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => Ok(if tls { 443 } else { 80 }),
            Some("") => Ok(if tls { 443 } else { 80 }),
            Some(digits) => digits.parse::<u16>().ok().filter(|port| *port > 0).ok_or(()),
            None => Err(()),
        };
        Ok(Self { tls, host, port: port.map_err(|()| invalid("its port is not a number from 1 to 65535"))? })
    }

    /// `host[:port]` as in a `Host` header, without the usual port.
    pub(super) fn authority(&self) -> String {
        let host = match &self.host {
            Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
            host => host.to_string(),
        };
        if self.port == if self.tls { 443 } else { 80 } { host } else { format!("{host}:{}", self.port) }
    }

    /// The rule that would allow exactly this origin. A name below `.internal` is a function of the app.
    pub(super) fn rule(&self) -> OutboundRule {
        let host = self.host.to_string();
        let internal = host.strip_suffix(".internal").and_then(|name| marram_core::Name::new(name).ok());
        match internal {
            Some(function) if !self.tls && self.port == 80 => OutboundRule::Internal(function),
            _ => OutboundRule::Origin { tls: self.tls, host: HostPattern::Exact(host), port: self.port },
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

impl Host {
    /// Reads a host as it stands in a URI or a rule: a name, an IPv4 address in any spelling that a system's resolver
    /// takes, or an IPv6 address with or without brackets. A zone identifier is refused.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Some(inside) = text.strip_prefix('[') {
            return Some(Self::from_v6(inside.strip_suffix(']')?.parse().ok()?));
        }
        if text.contains(':') {
            return Some(Self::from_v6(text.parse().ok()?));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if name.len() > 253 || !name.split('.').all(label) {
            return None;
        }
        let last = name.rsplit('.').next().unwrap_or_default();
        let hex = last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        if hex || last.bytes().all(|b| b.is_ascii_digit()) {
            return ipv4(&name).map(|address| Self::Address(IpAddr::V4(address)));
        }
        Some(Self::Name(name.into()))
    }

    /// A mapped address is the IPv4 address that the system would connect to.
    fn from_v6(address: Ipv6Addr) -> Self {
        Self::Address(IpAddr::V6(address).to_canonical())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// One to four numbers, the last of which fills what is left (`inet_aton`; WHATWG URL §3.5, IPv4 parser).
fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u64> = text.split('.').map(ipv4_number).collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    if first.len() > 3 || first.iter().any(|part| *part > 255) || *last >= 1 << (8 * (4 - first.len())) {
        return None;
    }
    let high = first.iter().enumerate().map(|(at, part)| part << (8 * (3 - at))).sum::<u64>();
    u32::try_from(high + last).ok().map(Ipv4Addr::from)
}

/// Decimal, octal with a leading `0`, or hexadecimal with a leading `0x` (which alone is zero). The text is lower case.
fn ipv4_number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some("") => ("0", 16),
        Some(hex) => (hex, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    let plain = digits.bytes().all(|b| b.is_ascii_alphanumeric());
    plain.then(|| u64::from_str_radix(digits, radix).ok())?.filter(|number| *number <= u64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Some spelling of one part of an IPv4 address.
    fn spelt(number: u32, radix: u8) -> String {
        match radix {
            0 => format!("{number}"),
            1 => format!("0{number:o}"),
            2 => format!("0x{number:x}"),
            _ => format!("0X{number:08X}"),
        }
    }

    proptest! {
        #[test]
        fn every_spelling_of_an_ipv4_address_is_that_address(number: u32, parts in 1..=4usize, radix: [u8; 4], dot: bool) {
            let bytes = number.to_be_bytes();
            let rest = u64::from(number) & ((1 << (8 * (5 - parts))) - 1);
            let mut text: Vec<_> = (0..parts - 1).map(|at| spelt(bytes[at].into(), radix[at] % 4)).collect();
            text.push(spelt(u32::try_from(rest).expect("the mask leaves 32 bits"), radix[3] % 4));
            let text = text.join(".") + if dot { "." } else { "" };
            prop_assert_eq!(Host::parse(&text), Some(Host::Address(Ipv4Addr::from(number).into())), "{}", text);
        }

        #[test]
        fn nothing_panics_and_a_name_is_never_an_address(text in "[-a-zA-Z0-9_.:x\\[\\]%]{0,40}") {
            if let Some(Host::Name(name)) = Host::parse(&text) {
                prop_assert!(name.parse::<IpAddr>().is_err());
                prop_assert_eq!(Host::parse(&name), Some(Host::Name(name)));
            }
        }
    }

    #[test]
    fn one_spelling_of_each_host() {
        let cases = [
            ("http://Example.COM/x", "http://example.com"),
            ("https://example.com.:443/", "https://example.com"),
            ("http://example.com:8080", "http://example.com:8080"),
            ("http://localhost./", "http://localhost"),
            ("http://127.0.0.1", "http://127.0.0.1"),
            ("http://127.0.0.1./", "http://127.0.0.1"),
            ("http://2130706433", "http://127.0.0.1"),
            ("http://0x7f000001", "http://127.0.0.1"),
            ("http://0X7F.1", "http://127.0.0.1"),
            ("http://0177.0.0.1", "http://127.0.0.1"),
            ("http://0177.0.0.01", "http://127.0.0.1"),
            ("http://127.1", "http://127.0.0.1"),
            ("http://127.0.1", "http://127.0.0.1"),
            ("http://0", "http://0.0.0.0"),
            ("http://0x", "http://0.0.0.0"),
            ("http://0xa9.0xfe.0xa9.0xfe", "http://169.254.169.254"),
            ("http://[::1]:81/", "http://[::1]:81"),
            ("http://[0:0:0:0:0:0:0:1]", "http://[::1]"),
            ("http://[::ffff:127.0.0.1]", "http://127.0.0.1"),
            ("http://[::FFFF:7f00:1]", "http://127.0.0.1"),
            ("https://[64:ff9b::7f00:1]/", "https://[64:ff9b::7f00:1]"),
        ];
        for (uri, expected) in cases {
            let origin = Origin::of(&uri.parse().expect(uri)).expect(uri);
            assert_eq!(origin.to_string(), expected, "{uri}");
        }
    }

    #[test]
    fn hosts_that_are_none() {
        let bad = [
            "/relative",
            "ftp://example.com/",
            "http://user:secret@example.com/",
            "http://example.com@127.0.0.1/",
            "http://1.2.3.4.5",
            "http://256.1.1.1",
            "http://4294967296",
            "http://0x1ffffffff",
            "http://08.1.1.1",
            "http://example.1",
            "http://99999999999999999999999999",
            "http://a..b",
            "http://example.com..",
            "http://example.com:0",
            "http://example.com:99999",
            "http://[fe80::1%25eth0]/",
            "http://exa%6dple.com/",
        ];
        for uri in bad {
            // Some are refused by the type of URIs already.
            if let Ok(parsed) = uri.parse::<Uri>() {
                assert!(matches!(Origin::of(&parsed), Err(OutboundError::UriInvalid { .. })), "{uri} was taken");
            }
        }
    }

    #[test]
    fn the_rule_that_would_allow_it() {
        for (uri, rule) in [
            ("https://api.example.com/v1", "https://api.example.com"),
            ("http://[::1]:8080/", "http://[::1]:8080"),
            ("http://audit.internal/x", "internal:audit"),
            ("https://audit.internal/x", "https://audit.internal"),
        ] {
            assert_eq!(Origin::of(&uri.parse().expect(uri)).expect(uri).rule().to_string(), rule);
        }
    }
}
