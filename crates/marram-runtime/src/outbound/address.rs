//! Which addresses are public. The rest is only reached if `allow.addresses` lists it.
//!
//! The lists follow the IANA special-purpose address registries (RFC 6890 and its updates). For IPv6 the default is to
//! refuse: only the global unicast range is public, less its exceptions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// What a refused IPv4 address is, by network and prefix length.
const INNER_V4: &[(Ipv4Addr, u32, &str)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8, "an unspecified address"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "a private address"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "an address of a provider's inner network"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "a loopback address"),
    // Where clouds serve metadata, a link-local address as far as networks are concerned.
    (Ipv4Addr::new(169, 254, 169, 254), 32, "a metadata address"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "a link-local address"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "a private address"),
    // The inner service address of one cloud, although it lies in a public range.
    (Ipv4Addr::new(168, 63, 129, 16), 32, "a metadata address"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "a reserved address"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "a documentation address"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "a reserved address"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "a private address"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "a benchmarking address"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "a documentation address"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "a documentation address"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "a multicast address"),
    (Ipv4Addr::new(255, 255, 255, 255), 32, "a broadcast address"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "a reserved address"),
];

/// The same for IPv6. What is not here and not in `2000::/3` is reserved.
const INNER_V6: &[(Ipv6Addr, u32, &str)] = &[
    (Ipv6Addr::UNSPECIFIED, 128, "an unspecified address"),
    (Ipv6Addr::LOCALHOST, 128, "a loopback address"),
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128, "a metadata address"),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, "a unique-local address"),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, "a link-local address"),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, "a site-local address"),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, "a multicast address"),
    // Teredo, benchmarking and the like (RFC 2928); nothing in it serves HTTP.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, "a reserved address"),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, "a documentation address"),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, "a documentation address"),
];

/// What the address is if it is not public: `"a private address"`. An IPv6 address that carries an IPv4 address is what
/// the carried one is.
#[must_use]
pub(crate) fn inner_class(address: IpAddr) -> Option<&'static str> {
    match (address, carried_v4(address)) {
        (_, Some(v4)) | (IpAddr::V4(v4), None) => inner_class_v4(v4),
        (IpAddr::V6(v6), None) => inner_class_v6(v6),
    }
}

/// Whether a connection to the address is allowed: it is public, or it, or the IPv4 address that it carries, is listed.
#[must_use]
pub(crate) fn is_allowed(address: IpAddr, listed: &[IpNet]) -> bool {
    let carried = carried_v4(address).map(IpAddr::V4);
    let is_listed = |address: &IpAddr| listed.iter().any(|net| net.contains(address));
    inner_class(address).is_none() || is_listed(&address) || carried.is_some_and(|v4| is_listed(&v4))
}

/// The IPv4 address to which a translator, a tunnel or the system itself would take this IPv6 address.
fn carried_v4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let segments = v6.segments();
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // IPv4-compatible, IPv4-mapped (RFC 4291 §2.5.5), IPv4-translated (RFC 2765), NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => v4(high, low),
        [0, 0, 0, 0, 0xffff, 0, high, low] => v4(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => v4(high, low),
        _ => None,
    }
}

fn inner_class_v4(address: Ipv4Addr) -> Option<&'static str> {
    let same = |net: Ipv4Addr, length: u32| (u32::from(net) ^ u32::from(address)) >> (32 - length) == 0;
    INNER_V4.iter().find(|(net, length, _)| same(*net, *length)).map(|(.., class)| *class)
}

fn inner_class_v6(address: Ipv6Addr) -> Option<&'static str> {
    let same = |net: Ipv6Addr, length: u32| (u128::from(net) ^ u128::from(address)) >> (128 - length) == 0;
    let listed = INNER_V6.iter().find(|(net, length, _)| same(*net, *length)).map(|(.., class)| *class);
    let global_unicast = address.segments()[0] >> 13 == 1;
    listed.or((!global_unicast).then_some("a reserved address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(address: &str) -> Option<&'static str> {
        inner_class(address.parse().expect(address))
    }

    #[test]
    fn inner_addresses_and_their_disguises() {
        let cases = [
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("10.0.0.1", "private"),
            ("10.255.255.255", "private"),
            ("100.64.0.1", "provider"),
            ("100.100.100.200", "provider"),
            ("127.0.0.1", "loopback"),
            ("127.255.0.9", "loopback"),
            ("169.254.169.254", "metadata"),
            ("169.254.170.2", "link-local"),
            ("168.63.129.16", "metadata"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.0.0.192", "reserved"),
            ("192.0.2.1", "documentation"),
            ("192.88.99.1", "reserved"),
            ("192.168.1.1", "private"),
            ("198.18.0.1", "benchmarking"),
            ("198.19.255.1", "benchmarking"),
            ("198.51.100.1", "documentation"),
            ("203.0.113.1", "documentation"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "broadcast"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("fc00::1", "unique-local"),
            ("fd12::1", "unique-local"),
            ("fd00:ec2::254", "metadata"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("fec0::1", "site-local"),
            ("ff02::1", "multicast"),
            ("2001::1", "reserved"),
            ("2001:2::1", "reserved"),
            ("2001:db8::1", "documentation"),
            ("3fff::1", "documentation"),
            ("100::1", "reserved"),
            ("5f00::1", "reserved"),
            ("4000::1", "reserved"),
            // IPv4 inside IPv6: mapped, compatible, translated, NAT64 (well-known and local), 6to4.
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:10.0.0.1", "private"),
            ("::ffff:169.254.169.254", "metadata"),
            ("::127.0.0.1", "loopback"),
            ("::ffff:0:10.0.0.1", "private"),
            ("64:ff9b::169.254.169.254", "metadata"),
            ("64:ff9b::a00:1", "private"),
            ("64:ff9b:1::a00:1", "reserved"),
            ("2002:7f00:1::", "loopback"),
            ("2002:a9fe:a9fe::1", "metadata"),
            ("2002:c0a8:101::1", "private"),
        ];
        for (address, expected) in cases {
            let class = class(address).unwrap_or("public");
            assert!(class.contains(expected), "{address} is {class}, expected {expected}");
        }
    }

    #[test]
    fn public_addresses() {
        let public = [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:200::1",
            "2a00:1450::1",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "::ffff:8.8.8.8",
        ];
        for address in public {
            assert_eq!(class(address), None, "{address}");
        }
    }

    #[test]
    fn a_list_opens_what_it_contains_and_no_more() {
        let cases = [
            ("10.1.2.3", "10.1.0.0/16", true),
            ("10.2.2.3", "10.1.0.0/16", false),
            ("::ffff:10.1.2.3", "10.1.0.0/16", true),
            ("64:ff9b::10.1.2.3", "64:ff9b::/96", true),
            ("::1", "127.0.0.0/8", false),
            ("127.0.0.1", "::/0", false),
            ("::1", "::1/128", true),
            ("8.8.8.8", "10.0.0.0/8", true),
        ];
        for (address, net, expected) in cases {
            let listed = [net.parse().expect(net)];
            assert_eq!(is_allowed(address.parse().expect(address), &listed), expected, "{address} with {net}");
        }
    }
}
