//! Which bridges can be: those that could never do what they are for are refused before they start.

use super::{BridgeConfig, Route, client};
use crate::limits::{CLIENT_ID_BYTES_MAX, Limits, TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX};
use crate::topic;

/// Why a bridge cannot be.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// No part of a client identifier.
    #[error(
        "the `name` of an MQTT bridge has at most {NAME_BYTES_MAX} bytes and no control characters: it is in a client identifier"
    )]
    Name,
    /// Two would be one client.
    #[error(
        "two MQTT bridges have the `name` {0:?}: each would end the other's connection, so give them names of their own"
    )]
    Twice(String),
    /// The broker of the node would not grant all of them.
    #[error("`outward` of an MQTT bridge has {0} filters, and a client has at most {1} subscriptions")]
    Routes(usize, usize),
    /// Not a topic filter.
    #[error("{0:?}, of an MQTT bridge, is not a topic filter")]
    Filter(String),
    /// Not the beginning of a topic.
    #[error("{0:?}, of an MQTT bridge, is not the beginning of a topic")]
    Prefix(String),
    /// No topic has room for both.
    #[error(
        "with its `prefix`, what {0:?} of an MQTT bridge takes would have more than {TOPIC_BYTES_MAX} bytes or {TOPIC_LEVELS_MAX} levels"
    )]
    Long(String),
    /// Longer than the field of a packet.
    #[error("`user` and password of an MQTT bridge have at most {} bytes each", u16::MAX)]
    User,
    /// Messages would go around for ever.
    #[error(
        "the MQTT bridge \"{0}\" would send messages around in a circle: let what goes in and what goes out have other topics, or speak 5.0"
    )]
    Circle(String),
    /// The same of two.
    #[error(
        "the MQTT bridges \"{0}\" and \"{1}\" to the same broker would send messages around in a circle: let what goes in and what goes out have other topics, or make them one that speaks 5.0"
    )]
    CircleOfTwo(String, String),
}

/// What is left of a client identifier.
const NAME_BYTES_MAX: usize = CLIENT_ID_BYTES_MAX - "bridge-".len();

/// Checks a bridge, also against the others of the node.
pub(crate) fn check(config: &BridgeConfig, others: &[BridgeConfig], limits: &Limits) -> Result<(), BridgeError> {
    if client(config).len() > CLIENT_ID_BYTES_MAX || config.name.contains(char::is_control) {
        return Err(BridgeError::Name);
    }
    if others.iter().any(|other| other.name == config.name) {
        return Err(BridgeError::Twice(config.name.clone()));
    }
    if config.user.iter().any(|(user, password)| user.len().max(password.len()) > usize::from(u16::MAX)) {
        return Err(BridgeError::User);
    }
    if config.outward.len() > limits.filters_per_client {
        return Err(BridgeError::Routes(config.outward.len(), limits.filters_per_client));
    }
    config.inward.iter().chain(&config.outward).try_for_each(check_route)?;
    // 3.1.1 sends a client its own messages: what goes out would come in again, and go out.
    if !config.version.is_5() && circle(&config.outward, &config.inward) {
        return Err(BridgeError::Circle(config.name.clone()));
    }
    // To both brokers two bridges are two clients, whatever they speak.
    let meets = |other: &&BridgeConfig| {
        other.address.eq_ignore_ascii_case(&config.address)
            && (circle(&config.outward, &other.inward) || circle(&other.outward, &config.inward))
    };
    match others.iter().find(meets) {
        Some(other) => Err(BridgeError::CircleOfTwo(other.name.clone(), config.name.clone())),
        None => Ok(()),
    }
}

fn check_route(Route { filter, prefix }: &Route) -> Result<(), BridgeError> {
    if !topic::is_filter(filter) || filter.starts_with('$') {
        return Err(BridgeError::Filter(filter.clone()));
    }
    let levels = prefix.matches('/').chain(filter.matches('/')).count() + 1;
    if prefix.len() + filter.len() > TOPIC_BYTES_MAX || levels > TOPIC_LEVELS_MAX {
        return Err(BridgeError::Long(filter.clone()));
    }
    if !prefix.is_empty() && (!topic::is_name(prefix) || prefix.starts_with('$')) {
        return Err(BridgeError::Prefix(prefix.clone()));
    }
    Ok(())
}

/// Whether something that goes out comes in again under a topic that goes out on the same way.
fn circle(outward: &[Route], inward: &[Route]) -> bool {
    outward.iter().any(|out| {
        let there = over(&out.prefix, &out.filter);
        inward.iter().any(|back| {
            let comes_in = topic::meet(&there, &back.filter);
            comes_in.is_some_and(|filter| topic::meet(&over(&back.prefix, &filter), &out.filter).is_some())
        })
    })
}

/// A filter of the topics that those of `filter` become with `prefix`; where it ends within a level, of more than these.
fn over(prefix: &str, filter: &str) -> String {
    let whole = prefix.is_empty() || prefix.ends_with('/') || !filter.starts_with(['+', '#']);
    let prefix = if whole { prefix } else { prefix.rfind('/').map_or("", |at| &prefix[..=at]) };
    format!("{prefix}{filter}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Version;

    fn routes(routes: &[(&str, &str)]) -> Vec<Route> {
        let route = |(filter, prefix): &(&str, &str)| Route { filter: (*filter).into(), prefix: (*prefix).into() };
        routes.iter().map(route).collect()
    }

    fn config(version: Version, inward: &[(&str, &str)], outward: &[(&str, &str)]) -> BridgeConfig {
        BridgeConfig {
            name: "site".into(),
            address: "site:1883".into(),
            tls: None,
            version,
            user: None,
            inward: routes(inward),
            outward: routes(outward),
            keep_alive_s: 60,
        }
    }

    fn alone(config: &BridgeConfig) -> Result<(), BridgeError> {
        check(config, &[], &Limits::default())
    }

    #[test]
    fn messages_cannot_go_around_for_ever() {
        let old = |inward, outward| alone(&config(Version::V3_1_1, &[inward], &[outward]));
        assert!(matches!(old(("#", ""), ("#", "")), Err(BridgeError::Circle(_))));
        assert!(matches!(old(("a/#", ""), ("a/+", "")), Err(BridgeError::Circle(_))));
        assert!(matches!(old(("up/#", ""), ("#", "up/")), Err(BridgeError::Circle(_))));
        assert!(matches!(old(("#", "x"), ("+", "")), Err(BridgeError::Circle(_))), "x, xx, xxx");
        assert!(old(("a/#", ""), ("b/#", "")).is_ok());
        assert!(old(("a/#", "site/"), ("a/#", "")).is_ok(), "what comes in has another name here");
        assert!(old(("#", "site/"), ("site/+/set", "")).is_ok(), "site/site/7/set does not go out");
        assert!(alone(&config(Version::V5, &[("#", "")], &[("#", "")])).is_ok(), "5.0 leaves out one's own");
        assert!(matches!(old(("a#", ""), ("b", "")), Err(BridgeError::Filter(_))));
        assert!(matches!(old(("a", "x/+"), ("b", "")), Err(BridgeError::Prefix(_))));
    }

    #[test]
    fn nor_over_two_bridges_to_one_broker() {
        for version in [Version::V3_1_1, Version::V5] {
            let one = config(version, &[("x/#", "")], &[("y/#", "")]);
            let two = |inward: &[_], outward: &[_], address: &str| {
                let two =
                    BridgeConfig { name: "two".into(), address: address.into(), ..config(version, inward, outward) };
                check(&two, std::slice::from_ref(&one), &Limits::default())
            };
            for (inward, outward) in [(&[][..], &[("x/1", "")][..]), (&[("y/#", "")], &[]), (&[], &[("#", "x/")])] {
                let refused = two(inward, outward, "Site:1883").unwrap_err().to_string();
                assert!(refused.contains("\"site\" and \"two\""), "{refused}");
                assert!(two(inward, outward, "other:1883").is_ok(), "it is another broker");
            }
            assert!(two(&[("x/#", "")], &[("y/#", "")], "site:1883").is_ok(), "twice, and not around");
            assert!(two(&[("z/#", "")], &[("z/#", "here/")], "site:1883").is_ok());
        }
    }

    #[test]
    fn what_could_never_work_is_refused_and_named() {
        let good = || config(Version::V5, &[("a/#", "")], &[("b/#", "")]);
        let named = |name: &str| alone(&BridgeConfig { name: name.into(), ..good() });
        assert!(named(&"n".repeat(249)).is_ok() && matches!(named(&"n".repeat(250)), Err(BridgeError::Name)));
        assert!(matches!(named("a\0b"), Err(BridgeError::Name)));
        let twice = check(&good(), &[good()], &Limits::default()).unwrap_err().to_string();
        assert!(twice.contains("`name` \"site\""), "{twice}");
        let many: Vec<_> = (0..257).map(|n| format!("b/{n}")).collect();
        let many: Vec<_> = many.iter().map(|filter| (&**filter, "")).collect();
        assert!(alone(&config(Version::V5, &[], &many[1..])).is_ok());
        assert!(matches!(alone(&config(Version::V5, &[], &many)), Err(BridgeError::Routes(257, 256))));
        let prefixed = |prefix: &str| alone(&config(Version::V5, &[("a/#", prefix)], &[]));
        assert!(prefixed(&"p".repeat(1_021)).is_ok());
        assert!(matches!(prefixed(&"p".repeat(1_022)), Err(BridgeError::Long(_))));
        assert!(prefixed(&"p/".repeat(62)).is_ok() && matches!(prefixed(&"p/".repeat(63)), Err(BridgeError::Long(_))));
        let user = |user: &str| alone(&BridgeConfig { user: Some((user.into(), String::new())), ..good() });
        assert!(user(&"u".repeat(65_535)).is_ok() && matches!(user(&"u".repeat(65_536)), Err(BridgeError::User)));
    }
}
