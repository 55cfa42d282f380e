//! Decides which addresses are ever dialled. The deny-set is mandatory and applies to the *resolved* address:
//! a name that resolves inwards is the usual way around a name-based allow-list.
//!
//! An address is first reduced to what a packet to it would really reach (IPv4-mapped, NAT64, 6to4 and Teredo
//! forms carry an IPv4 address), then judged. Exceptions are explicit, and some addresses have none.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::denial::{Denial, DenyCode};

/// Exceptions to the deny-set, and additions to it. Deny wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressExceptions {
    /// Ranges that may be dialled although the deny-set covers them.
    pub allow: Vec<IpNet>,
    /// Ranges that are never dialled.
    pub deny: Vec<IpNet>,
}

impl AddressExceptions {
    fn allows(&self, address: IpAddr) -> bool {
        self.allow.iter().any(|net| net.contains(&address))
    }

    fn denies(&self, address: IpAddr) -> bool {
        self.deny.iter().any(|net| net.contains(&address))
    }
}

/// The address policy of a deployment: the fixed deny-set, its exceptions, and the gateway's own listeners.
#[derive(Debug, Clone, Default)]
pub struct DenySet {
    exceptions: AddressExceptions,
    listeners: Arc<[SocketAddr]>,
}

impl DenySet {
    /// A deny-set with deployment-wide `exceptions` that never dials `listeners`.
    #[must_use]
    pub fn new(exceptions: AddressExceptions, listeners: Arc<[SocketAddr]>) -> Self {
        Self {
            exceptions,
            listeners,
        }
    }

    /// The deployment-wide exceptions.
    #[must_use]
    pub const fn exceptions(&self) -> &AddressExceptions {
        &self.exceptions
    }

    /// The same exceptions, with `listeners` as the gateway's own sockets.
    #[must_use]
    pub fn with_listeners(&self, listeners: Arc<[SocketAddr]>) -> Self {
        Self {
            exceptions: self.exceptions.clone(),
            listeners,
        }
    }

    /// Judges one resolved address for a rule with its own exceptions.
    ///
    /// # Errors
    /// [`DenyCode::AddressDenied`] with the reason for the audit trail.
    pub fn judge(&self, address: SocketAddr, rule: &AddressExceptions) -> Result<(), Denial> {
        let reached = reached_address(address.ip());
        let denied = |why: &'static str| Err(Denial::new(DenyCode::AddressDenied).because(why));
        if let Some(why) = never_dialled(reached) {
            return denied(why);
        }
        if self.is_own_listener(SocketAddr::new(reached, address.port())) {
            return denied("the gateway's own listener");
        }
        for ip in [address.ip(), reached] {
            if self.exceptions.denies(ip) || rule.denies(ip) {
                return denied("denied by configuration");
            }
        }
        match special_range(reached) {
            Some(why) if !self.exceptions.allows(reached) && !rule.allows(reached) => denied(why),
            _ => Ok(()),
        }
    }

    fn is_own_listener(&self, address: SocketAddr) -> bool {
        self.listeners.iter().any(|listener| {
            let same_ip = listener.ip() == address.ip()
                // A wildcard listener answers on every loopback address; other local addresses of the machine are
                // recognised after the connect, when the kernel has chosen the source address.
                || (listener.ip().is_unspecified() && address.ip().is_loopback());
            same_ip && listener.port() == address.port()
        })
    }

    /// Whether a connection whose two ends have these addresses has reached the gateway itself.
    #[must_use]
    pub fn reaches_gateway(&self, local: SocketAddr, peer: SocketAddr) -> bool {
        local.ip() == peer.ip()
            && self
                .listeners
                .iter()
                .any(|listener| listener.port() == peer.port())
    }
}

/// What a packet to `address` reaches: the IPv4 address inside IPv6 transition forms, else the address.
#[must_use]
pub fn reached_address(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let octets = v6.octets();
    let embedded = |a: u8, b: u8, c: u8, d: u8| IpAddr::V4(Ipv4Addr::new(a, b, c, d));
    match octets {
        // IPv4-mapped (RFC 4291 2.5.5.2), IPv4-compatible (2.5.5.1; :: and ::1 are not), IPv4-translated (RFC 2765).
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
        | [0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, a, b, c, d] => embedded(a, b, c, d),
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] if (a, b, c) != (0, 0, 0) => {
            embedded(a, b, c, d)
        }
        // NAT64, well-known (RFC 6052) and local-use prefix (RFC 8215, /96 form).
        [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => embedded(a, b, c, d),
        // 6to4 (RFC 3056).
        [0x20, 0x02, a, b, c, d, ..] => embedded(a, b, c, d),
        // Teredo (RFC 4380): the client's address, inverted.
        [0x20, 0x01, 0, 0, _, _, _, _, _, _, _, _, a, b, c, d] => embedded(!a, !b, !c, !d),
        _ => address,
    }
}

/// Addresses that no exception opens.
fn never_dialled(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) if v4.is_unspecified() => Some("unspecified address"),
        IpAddr::V4(v4) if v4.is_multicast() || v4.is_broadcast() => {
            Some("multicast or broadcast address")
        }
        IpAddr::V4(v4) if METADATA_V4.contains(&v4) => Some("cloud metadata address"),
        IpAddr::V6(v6) if v6.is_unspecified() => Some("unspecified address"),
        IpAddr::V6(v6) if v6.is_multicast() => Some("multicast address"),
        IpAddr::V6(v6) if v6 == METADATA_V6 => Some("cloud metadata address"),
        _ => None,
    }
}

/// The ranges of addresses that no exception opens, for a plane that judges them once more.
#[must_use]
pub fn never_dialled_ranges() -> Vec<IpNet> {
    let unspecified = [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ];
    let metadata = METADATA_V4.map(IpAddr::V4).into_iter();
    let alone = metadata
        .chain([IpAddr::V6(METADATA_V6), IpAddr::V4(Ipv4Addr::BROADCAST)])
        .chain(unspecified);
    let multicast = [
        IpNet::V4(v4(224, 0, 0, 0, 4)),
        IpNet::V6(v6(0xff00, 0, 0, 8)),
    ];
    alone.map(IpNet::from).chain(multicast).collect()
}

/// The ranges that are dialled only by an exception, for a plane that judges them once more.
pub fn special_ranges() -> impl Iterator<Item = IpNet> {
    let v4 = SPECIAL_V4.iter().map(|(net, _)| IpNet::V4(*net));
    v4.chain(SPECIAL_V6.iter().map(|(net, _)| IpNet::V6(*net)))
}

const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// AWS, Azure, GCP and others; ECS task credentials; Alibaba; Azure's wire server.
const METADATA_V4: [Ipv4Addr; 5] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
];

fn special_range(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => SPECIAL_V4
            .iter()
            .find(|(net, _)| net.contains(&v4))
            .map(|(_, why)| *why),
        IpAddr::V6(v6) => SPECIAL_V6
            .iter()
            .find(|(net, _)| net.contains(&v6))
            .map(|(_, why)| *why),
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

/// IANA special-purpose registry (RFC 6890 and updates), what is not globally reachable.
const SPECIAL_V4: &[(Ipv4Net, &str)] = &[
    (v4(0, 0, 0, 0, 8), "this-network address"),
    (v4(10, 0, 0, 0, 8), "private address"),
    (v4(100, 64, 0, 0, 10), "carrier-grade NAT address"),
    (v4(127, 0, 0, 0, 8), "loopback address"),
    (v4(169, 254, 0, 0, 16), "link-local address"),
    (v4(172, 16, 0, 0, 12), "private address"),
    (v4(192, 0, 0, 0, 24), "protocol-assignment address"),
    (v4(192, 0, 2, 0, 24), "documentation address"),
    (v4(192, 31, 196, 0, 24), "AS112 address"),
    (v4(192, 52, 193, 0, 24), "AMT address"),
    (v4(192, 88, 99, 0, 24), "6to4 relay address"),
    (v4(192, 168, 0, 0, 16), "private address"),
    (v4(192, 175, 48, 0, 24), "AS112 address"),
    (v4(198, 18, 0, 0, 15), "benchmark address"),
    (v4(198, 51, 100, 0, 24), "documentation address"),
    (v4(203, 0, 113, 0, 24), "documentation address"),
    (v4(240, 0, 0, 0, 4), "reserved address"),
];

const SPECIAL_V6: &[(Ipv6Net, &str)] = &[
    // ::/8 holds loopback and every IPv4-in-IPv6 form; none of it is global unicast.
    (v6(0, 0, 0, 8), "loopback or embedded address"),
    (v6(0x64, 0xff9b, 1, 48), "NAT64 address"),
    (v6(0x100, 0, 0, 64), "discard address"),
    (v6(0x2001, 0, 0, 23), "protocol-assignment address"),
    (v6(0x2001, 0xdb8, 0, 32), "documentation address"),
    (v6(0x3fff, 0, 0, 20), "documentation address"),
    (v6(0x5f00, 0, 0, 16), "segment-routing address"),
    (v6(0xfc00, 0, 0, 7), "unique local address"),
    (v6(0xfe80, 0, 0, 10), "link-local address"),
    (v6(0xfec0, 0, 0, 10), "site-local address"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn socket(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().unwrap(), 443)
    }

    fn exceptions(allow: &[&str], deny: &[&str]) -> AddressExceptions {
        let nets = |list: &[&str]| list.iter().map(|n| n.parse().unwrap()).collect();
        AddressExceptions {
            allow: nets(allow),
            deny: nets(deny),
        }
    }

    fn allowed(set: &DenySet, rule: &AddressExceptions, text: &str) -> bool {
        set.judge(socket(text), rule).is_ok()
    }

    #[test]
    fn public_addresses_are_dialled_and_special_ones_are_not() {
        let (set, rule) = (DenySet::default(), AddressExceptions::default());
        for ok in [
            "1.1.1.1",
            "8.8.8.8",
            "2606:4700::1111",
            "2a00:1450::1",
            "172.32.0.1",
            "100.128.0.1",
            "::ffff:8.8.8.8",
        ] {
            assert!(allowed(&set, &rule, ok), "{ok}");
        }
        for no in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.1.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001:db8::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001:0:1:2:3:4:80ff:fffe",
            "::ffff:0:127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "168.63.129.16",
        ] {
            assert!(!allowed(&set, &rule, no), "{no}");
        }
    }

    #[test]
    fn the_ranges_that_are_told_are_those_that_are_judged() {
        let open = exceptions(&["0.0.0.0/0", "::/0"], &[]);
        for net in never_dialled_ranges() {
            for ip in [net.network(), net.broadcast()] {
                assert!(
                    DenySet::default()
                        .judge(SocketAddr::new(ip, 443), &open)
                        .is_err(),
                    "{ip}"
                );
            }
        }
        for net in special_ranges() {
            let ip = SocketAddr::new(net.network(), 443);
            assert!(
                DenySet::default()
                    .judge(ip, &AddressExceptions::default())
                    .is_err(),
                "{ip}"
            );
        }
    }

    #[test]
    fn an_exception_opens_its_range_and_deny_wins() {
        let set = DenySet::new(exceptions(&["10.0.0.0/8"], &["10.1.1.1/32"]), Arc::new([]));
        let rule = exceptions(&["192.168.7.0/24"], &["10.2.0.0/16", "8.8.8.8/32"]);
        for (address, ok) in [
            ("10.0.0.1", true),
            ("10.1.1.1", false),
            ("10.2.3.4", false),
            ("192.168.7.1", true),
            ("192.168.8.1", false),
            ("::ffff:10.0.0.1", true),
            ("::ffff:10.1.1.1", false),
            ("8.8.8.8", false),
            ("8.8.4.4", true),
        ] {
            assert_eq!(allowed(&set, &rule, address), ok, "{address}");
        }
    }

    #[test]
    fn no_exception_opens_metadata_multicast_or_the_gateway() {
        let listeners: Arc<[SocketAddr]> = Arc::new([
            "127.0.0.1:443".parse().unwrap(),
            "0.0.0.0:9000".parse().unwrap(),
        ]);
        let set = DenySet::new(exceptions(&["0.0.0.0/0", "::/0"], &[]), listeners);
        let rule = AddressExceptions::default();
        for no in [
            "169.254.169.254",
            "fd00:ec2::254",
            "224.0.0.1",
            "0.0.0.0",
            "127.0.0.1",
            "::ffff:127.0.0.1",
        ] {
            assert!(!allowed(&set, &rule, no), "{no}");
        }
        assert!(allowed(&set, &rule, "127.0.0.2"));
        assert!(set.judge("127.9.9.9:9000".parse().unwrap(), &rule).is_err());
        assert!(set.reaches_gateway(
            "10.0.0.5:55000".parse().unwrap(),
            "10.0.0.5:9000".parse().unwrap()
        ));
        assert!(!set.reaches_gateway(
            "10.0.0.5:55000".parse().unwrap(),
            "10.0.0.6:9000".parse().unwrap()
        ));
    }

    proptest! {
        #[test]
        fn every_embedding_of_a_denied_address_is_denied(range in 0..SPECIAL_V4.len(), bits in any::<u32>()) {
            let (net, _) = SPECIAL_V4[range];
            let inner = Ipv4Addr::from((bits & u32::from(net.hostmask())) | u32::from(net.network()));
            let set = DenySet::default();
            let rule = AddressExceptions::default();
            prop_assert!(set.judge(SocketAddr::new(inner.into(), 443), &rule).is_err());
            let [a, b, c, d] = inner.octets();
            let (hi, lo) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            for outer in [
                inner.to_ipv6_mapped(),
                inner.to_ipv6_compatible(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, hi, lo),
                Ipv6Addr::new(0x2002, hi, lo, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0x2001, 0, 9, 9, 9, 9, !hi, !lo),
            ] {
                prop_assert!(set.judge(SocketAddr::new(outer.into(), 443), &rule).is_err(), "{outer}");
            }
        }
    }
}
