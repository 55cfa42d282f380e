use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use outgate_journey::{
    address::{AddressExceptions, DenySet},
    policy::{Port, Posture, Rule, TokenDemand},
};
use proptest::{collection::vec, prelude::*};

use crate::support::{FakePlane, ONE, get, injecting, policy, rule, to};

/// A rule as it is written, and what the tests' own reading of it needs.
#[derive(Debug, Clone)]
struct Written {
    host: String,
    port: u16,
    posture: Posture,
    injects: bool,
    optional: bool,
}

impl Written {
    fn compiled(&self) -> Rule {
        let fill = |rule: &mut Rule| {
            rule.ports = vec![Port::new(self.port).unwrap()];
            rule.posture = self.posture;
            if self.optional {
                rule.token = TokenDemand::Optional;
            }
        };
        if self.injects {
            injecting(&self.host, fill)
        } else {
            rule(&self.host, fill)
        }
    }

    /// Read label by label, unlike the table that is tested.
    fn covers(&self, host: &str) -> bool {
        let (mine, theirs): (Vec<_>, Vec<_>) =
            (self.host.split('.').collect(), host.split('.').collect());
        mine.len() == theirs.len()
            && mine
                .iter()
                .zip(&theirs)
                .all(|(mine, theirs)| *mine == "*" || mine == theirs)
    }
}

prop_compose! {
    fn host()(labels in vec(prop_oneof!["a", "b", "c"], 1..4)) -> String {
        labels.join(".")
    }
}

prop_compose! {
    fn written()(
        host in host(),
        wildcard in any::<bool>(),
        port in prop_oneof![Just(443), Just(8443)],
        posture in prop_oneof![Just(Posture::Bump), Just(Posture::DenyAll), Just(Posture::Bump)],
        injects in any::<bool>(),
        optional in any::<bool>(),
    ) -> Written {
        let host = if wildcard { format!("*.{host}") } else { host };
        Written { host, port, posture, injects, optional }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn every_host_that_gets_a_credential_is_allowed_and_gets_its_own_rules(
        rules in vec(written(), 0..8),
        host in host(),
        port in prop_oneof![Just(443), Just(8443)],
    ) {
        let plane = FakePlane::default();
        let policy = policy(rules.iter().map(Written::compiled).collect());
        let target = format!("{host}:{port}");
        let mut asked = get("a", "/", &[("x-api-key", ONE)]);
        asked.to = to(&target);
        asked.headers[0] = ("host", &target);
        let sent = asked.judge(&plane, &policy);
        let covering: Vec<&Written> =
            rules.iter().filter(|rule| rule.port == port && rule.covers(&host)).collect();

        if let Ok(plan) = &sent {
            prop_assert!(policy.allow(to(&target)).is_ok());
            prop_assert!(covering.iter().any(|rule| rule.posture != Posture::DenyAll));
            if let Some(attachment) = plan.attachment() {
                let drawn = attachment.lease();
                let by_its_own_rule = covering.iter().any(|rule| {
                    rule.injects
                        && rule.posture != Posture::DenyAll
                        && format!("{}-key", rule.host) == *drawn
                });
                prop_assert!(by_its_own_rule, "{} for {}", drawn, target);
            }
        }
        // An exact name is never served by a wildcard beside it.
        if rules.iter().any(|rule| rule.host == host) {
            let exact: Vec<_> = covering.iter().filter(|rule| rule.host == host).collect();
            prop_assert_eq!(sent.is_ok(), exact.first().is_some_and(|rule| rule.posture != Posture::DenyAll));
        } else {
            prop_assert_eq!(sent.is_ok(), covering.first().is_some_and(|rule| rule.posture != Posture::DenyAll));
        }
        // Nor does a rule reach below or beside its host.
        if covering.is_empty() {
            prop_assert!(sent.is_err() && plane.leased().is_empty());
        }
    }
}

/// What no configuration opens.
const NEVER: &[&str] = &[
    "0.0.0.0/32",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "169.254.169.254/32",
    "169.254.170.2/32",
    "100.100.100.200/32",
    "::/128",
    "ff00::/8",
    "fd00:ec2::254/128",
];

/// What only an exception opens (P4).
const GUARDED: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "192.0.2.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "240.0.0.0/4",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
    "2001:db8::/32",
];

fn covered(list: &[&str], address: IpAddr) -> bool {
    list.iter()
        .any(|net| net.parse::<IpNet>().unwrap().contains(&address))
}

/// The address and every IPv4 address that a packet to it could end at.
fn readings(address: IpAddr) -> Vec<IpAddr> {
    let mut found = vec![address];
    if let IpAddr::V6(v6) = address {
        let bits = v6.to_bits();
        let low = u32::try_from(bits & 0xffff_ffff).unwrap();
        let embeds: &[(Ipv6Addr, u32)] = &[
            ("::ffff:0:0".parse().unwrap(), 96),
            ("64:ff9b::".parse().unwrap(), 96),
            ("::ffff:0:0:0".parse().unwrap(), 96),
        ];
        for (prefix, length) in embeds {
            if bits >> (128 - length) == prefix.to_bits() >> (128 - length) {
                found.push(IpAddr::V4(low.into()));
            }
        }
        if bits >> 112 == 0x2002 {
            let inner = u32::try_from((bits >> 80) & 0xffff_ffff).unwrap();
            found.push(IpAddr::V4(inner.into()));
        }
        if bits >> 96 == 0x2001_0000 {
            found.push(IpAddr::V4((!low).into()));
        }
    }
    found
}

/// Addresses, more often than by chance in or beside a special range, or as another form of one.
fn address() -> impl Strategy<Value = IpAddr> {
    let ranges: Vec<IpNet> = NEVER
        .iter()
        .chain(GUARDED)
        .map(|net| net.parse().unwrap())
        .collect();
    let near =
        (0..ranges.len(), any::<u128>(), any::<bool>()).prop_map(move |(at, bits, beside)| {
            match ranges[at] {
                IpNet::V4(net) => {
                    let host =
                        u32::try_from(bits & 0xffff_ffff).unwrap() & u32::from(net.hostmask());
                    let inside = u32::from(net.network()) | host;
                    IpAddr::V4(inside.wrapping_add(u32::from(beside)).into())
                }
                IpNet::V6(net) => {
                    let inside = net.network().to_bits() | (bits & net.hostmask().to_bits());
                    IpAddr::V6(inside.wrapping_add(u128::from(beside)).into())
                }
            }
        });
    let formed = (near, 0..6_u8, any::<u32>()).prop_map(|(address, form, noise)| {
        let IpAddr::V4(v4) = address else {
            return address;
        };
        let v4 = u128::from(v4.to_bits());
        let v6 = match form {
            0 => 0xffff << 32 | v4,
            1 => 0x0064_ff9b << 96 | v4,
            2 => 0x2002 << 112 | v4 << 80 | u128::from(noise),
            3 => 0x2001_0000 << 96 | u128::from(noise) << 32 | (!v4 & 0xffff_ffff),
            4 => 0xffff << 48 | v4,
            _ => return address,
        };
        IpAddr::V6(v6.into())
    });
    prop_oneof![
        4 => formed,
        1 => any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
        1 => any::<u128>().prop_map(|bits| IpAddr::V6(bits.into())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn an_allowed_address_is_in_no_range_that_is_never_dialled(
        address in address(),
        everything in any::<bool>(),
        by_rule in any::<bool>(),
    ) {
        let open = AddressExceptions {
            allow: if everything {
                vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()]
            } else {
                Vec::new()
            },
            deny: Vec::new(),
        };
        let (set, rule) = if by_rule {
            (DenySet::default(), open)
        } else {
            (DenySet::new(open, [].into()), AddressExceptions::default())
        };
        if set.judge(SocketAddr::new(address, 443), &rule).is_ok() {
            for reading in readings(address) {
                prop_assert!(!covered(NEVER, reading), "{} reads as {}", address, reading);
                if !everything {
                    prop_assert!(!covered(GUARDED, reading), "{} reads as {}", address, reading);
                }
            }
        }
    }
}
