//! Which outbound requests a function may make: the entries of `allow.http`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Name;

/// One entry of `allow.http`.
///
/// `https://api.example.com` (port 443), `http://api.example.com:8080`, `https://*.example.com` (subdomains, not the
/// name itself), `https://*` (any host), or `internal:audit` (the function `audit` of the same app).
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum OutboundRule {
    /// Another function of the app, at `http://<function>.internal/`.
    Internal(Name),
    /// An origin on a network.
    Origin {
        /// Whether TLS is used.
        tls: bool,
        /// Which hosts.
        host: HostPattern,
        /// Which port.
        port: u16,
    },
}

/// Hosts of an [`OutboundRule`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum HostPattern {
    /// This host, lower case; an address is written as in a URL, IPv6 without brackets.
    Exact(String),
    /// Every name that ends in `.` and this.
    Below(String),
    /// Every host.
    Any,
}

/// Why a text is not an [`OutboundRule`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not an outbound rule: {why}; write \"https://api.example.com\", \"http://*.example.com:8080\" or \"internal:<function>\""
)]
pub struct OutboundRuleError {
    text: String,
    why: &'static str,
}

impl OutboundRule {
    /// Parses one entry.
    pub fn parse(text: &str) -> Result<Self, OutboundRuleError> {
        let wrong = |why| OutboundRuleError { text: text.chars().take(120).collect(), why };
        if let Some(name) = text.strip_prefix("internal:") {
            return Name::new(name)
                .map(Self::Internal)
                .map_err(|_| wrong("what follows 'internal:' is not a function's name"));
        }
        let (tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some(_) => return Err(wrong("the scheme has to be http or https")),
            None => return Err(wrong("it has no scheme")),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(wrong("a rule is about an origin and has no path"));
        }
        if authority.contains('@') {
            return Err(wrong("a rule has no user"));
        }
        let (host, port) = split_port(authority).ok_or_else(|| wrong("its port is not a number from 1 to 65535"))?;
        let host = host.to_ascii_lowercase();
        let name_like =
            |host: &str| !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b));
        let host = match host.strip_prefix("*.") {
            _ if host == "*" => HostPattern::Any,
            Some(parent) if name_like(parent) => HostPattern::Below(parent.to_owned()),
            None if name_like(&host) => HostPattern::Exact(host),
            _ => return Err(wrong("its host is not a name, an address, '*' or '*.name'")),
        };
        Ok(Self::Origin { tls, host, port: port.unwrap_or(if tls { 443 } else { 80 }) })
    }

    /// Whether a request to this origin is allowed by this rule. `host` is lower case, IPv6 without brackets.
    #[must_use]
    pub fn allows(&self, tls: bool, host: &str, port: u16) -> bool {
        match self {
            Self::Internal(_) => false,
            Self::Origin { tls: rule_tls, host: rule_host, port: rule_port } => {
                *rule_tls == tls && *rule_port == port && rule_host.matches(host)
            }
        }
    }

    /// Whether calling this function of the app is allowed by this rule.
    #[must_use]
    pub fn allows_internal(&self, function: &str) -> bool {
        matches!(self, Self::Internal(name) if name.as_str() == function)
    }
}

impl HostPattern {
    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Below(parent) => {
                host.strip_suffix(parent.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            Self::Any => true,
        }
    }
}

/// `host[:port]`, `[v6][:port]`; `None` if the port is not one.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            match after {
                "" => (host, None),
                _ => (host, Some(after.strip_prefix(':')?)),
            }
        }
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    match port.map(str::parse::<u16>) {
        None => Some((host, None)),
        Some(Ok(port)) if port > 0 => Some((host, Some(port))),
        Some(_) => None,
    }
}

impl fmt::Display for OutboundRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Internal(name) => write!(f, "internal:{name}"),
            Self::Origin { tls, host, port } => {
                let (scheme, usual) = if *tls { ("https", 443) } else { ("http", 80) };
                match host {
                    HostPattern::Exact(name) if name.contains(':') => write!(f, "{scheme}://[{name}]")?,
                    HostPattern::Exact(name) => write!(f, "{scheme}://{name}")?,
                    HostPattern::Below(parent) => write!(f, "{scheme}://*.{parent}")?,
                    HostPattern::Any => write!(f, "{scheme}://*")?,
                }
                if *port == usual { Ok(()) } else { write!(f, ":{port}") }
            }
        }
    }
}

impl fmt::Debug for OutboundRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for OutboundRule {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OutboundRule {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for OutboundRule {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "OutboundRule".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "examples": ["https://api.example.com", "https://*.example.com", "internal:audit"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_rule_allows() {
        let cases = [
            ("https://api.example.com", true, "api.example.com", 443, true),
            ("https://api.example.com", false, "api.example.com", 443, false),
            ("https://api.example.com", true, "api.example.com", 8443, false),
            ("https://api.example.com", true, "api.example.com.evil.org", 443, false),
            ("https://*.example.com", true, "a.b.example.com", 443, true),
            ("https://*.example.com", true, "example.com", 443, false),
            ("https://*.example.com", true, "evilexample.com", 443, false),
            ("https://*.example.com", true, ".example.com", 443, false),
            ("http://127.0.0.1:8080", false, "127.0.0.1", 8080, true),
            ("http://[::1]:8080", false, "::1", 8080, true),
            ("https://*", true, "anything", 443, true),
            ("internal:audit", false, "audit.internal", 80, false),
        ];
        for (rule, tls, host, port, expected) in cases {
            let parsed = OutboundRule::parse(rule).expect(rule);
            assert_eq!(parsed.allows(tls, host, port), expected, "{rule} and {host}:{port}");
            assert_eq!(parsed.to_string(), rule);
        }
        assert!(OutboundRule::parse("internal:audit").expect("valid").allows_internal("audit"));
    }

    #[test]
    fn bad_rules() {
        for bad in [
            "",
            "api.example.com",
            "ftp://x",
            "https://",
            "https://x/path",
            "https://u@x",
            "https://x:0",
            "https://x:99999",
            "https://a*b",
            "internal:",
            "internal:A b",
        ] {
            assert!(OutboundRule::parse(bad).is_err(), "{bad:?} was taken");
        }
    }
}
