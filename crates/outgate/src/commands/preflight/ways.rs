//! Which ways have to be closed: what a hostile program would try first. Names are not looked up: a workload has no
//! DNS, and what answers by name answers by address.

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
};

use anyhow::{Result, bail};
use outgate_journey::address::never_dialled_ranges;

use crate::cli::{Group, ProbeArgument, Way, WayKind};

/// Public resolvers that answer everybody, at all of these ports and protocols, from wherever they are asked.
const PUBLIC: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)),
    IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)),
    IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888)),
];
const PUBLIC_PORTS: [(WayKind, u16); 6] = [
    (WayKind::Tcp, 443),
    (WayKind::Tcp, 80),
    (WayKind::Tcp, 53),
    (WayKind::Dns, 53),
    (WayKind::Quic, 443),
    (WayKind::Icmp, 0),
];
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// A way that has to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Direct {
    pub(super) group: Group,
    pub(super) way: Way,
}

/// What has to be closed in this pod, with `--probe` taken into account.
///
/// # Errors
/// If something names an API server that is no address: leaving it out would prove less than was asked for.
pub(super) fn of_this_place(probes: &[ProbeArgument]) -> Result<Vec<Direct>> {
    let resolv_conf = fs::read(RESOLV_CONF).unwrap_or_default();
    let api = env::var("KUBERNETES_SERVICE_HOST").ok();
    let port = env::var("KUBERNETES_SERVICE_PORT").ok();
    let place = Place {
        resolv_conf: &String::from_utf8_lossy(&resolv_conf),
        api: api.as_deref().filter(|host| !host.is_empty()),
        api_port: port.as_deref().unwrap_or("443"),
    };
    place.ways(probes)
}

/// What tells where the ways lead.
struct Place<'a> {
    resolv_conf: &'a str,
    api: Option<&'a str>,
    api_port: &'a str,
}

impl Place<'_> {
    fn ways(&self, probes: &[ProbeArgument]) -> Result<Vec<Direct>> {
        let mut ways = Vec::new();
        for group in [Group::Public, Group::Dns, Group::Metadata, Group::Api] {
            if probes.iter().any(|probe| probe.group == group) {
                continue;
            }
            let defaults = self.defaults(group)?;
            ways.extend(defaults.into_iter().map(|way| Direct { group, way }));
        }
        ways.extend(probes.iter().filter_map(|probe| {
            let (group, way) = (probe.group, probe.way?);
            Some(Direct { group, way })
        }));
        ways.sort_unstable();
        ways.dedup();
        Ok(ways)
    }

    fn defaults(&self, group: Group) -> Result<Vec<Way>> {
        let way = |kind, ip, port| Way {
            kind,
            address: SocketAddr::new(ip, port),
        };
        Ok(match group {
            Group::Public => PUBLIC
                .into_iter()
                .flat_map(|ip| PUBLIC_PORTS.map(|(kind, port)| way(kind, ip, port)))
                .collect(),
            Group::Dns => name_servers(self.resolv_conf)
                .flat_map(|address| [WayKind::Dns, WayKind::Tcp].map(|kind| Way { kind, address }))
                .collect(),
            Group::Metadata => metadata().map(|ip| way(WayKind::Tcp, ip, 80)).collect(),
            Group::Api => self.api_server()?.into_iter().collect(),
            Group::Added => Vec::new(),
        })
    }

    fn api_server(&self) -> Result<Option<Way>> {
        let Some(host) = self.api else {
            return Ok(None);
        };
        let (Ok(ip), Ok(port)) = (host.parse(), self.api_port.parse()) else {
            bail!(
                "KUBERNETES_SERVICE_HOST and _PORT are {host:?} and {:?}, which is no address: name the API server with \
                 --probe api=tcp://ADDRESS:PORT, or leave it out with --probe api=none",
                self.api_port
            );
        };
        Ok(Some(Way {
            kind: WayKind::Tcp,
            address: SocketAddr::new(ip, port),
        }))
    }
}

/// The servers of a resolv.conf(5), on port 53.
fn name_servers(text: &str) -> impl Iterator<Item = SocketAddr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            return None;
        }
        let word = words.next()?;
        let Some((address, zone)) = word.split_once('%') else {
            return Some(SocketAddr::new(word.parse().ok()?, 53));
        };
        // A link-local address needs its interface.
        let scope = zone.parse().ok().or_else(|| interface(zone))?;
        Some(SocketAddrV6::new(address.parse().ok()?, 53, 0, scope).into())
    })
}

fn interface(name: &str) -> Option<u32> {
    if name.contains('/') {
        return None;
    }
    let index = fs::read_to_string(format!("/sys/class/net/{name}/ifindex"));
    index.ok()?.trim().parse().ok()
}

/// The single addresses among those that the gateway itself never dials: what the clouds keep their secrets at.
fn metadata() -> impl Iterator<Item = IpAddr> {
    let ranges = never_dialled_ranges().into_iter();
    let alone = ranges.filter(|range| range.prefix_len() == range.max_prefix_len());
    alone
        .map(|range| range.addr())
        .filter(|address| !address.is_unspecified() && *address != IpAddr::V4(Ipv4Addr::BROADCAST))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place {
        resolv_conf: "# comment\nsearch a.b\nnameserver 10.96.0.10\nnameserver fd00::a # x\nnameserver\n\
                      nameserver fe80::1%7\nnameserver nonsense\noptions ndots:5\n",
        api: Some("10.96.0.1"),
        api_port: "6443",
    };

    fn shown(probes: &[&str]) -> Vec<String> {
        let probes: Vec<_> = probes.iter().map(|probe| probe.parse().unwrap()).collect();
        let ways = PLACE.ways(&probes).unwrap();
        ways.iter()
            .map(|it| format!("{} {}", it.group.name(), it.way))
            .collect()
    }

    #[test]
    fn what_a_hostile_program_would_try_is_tried() {
        let ways = shown(&[]);
        for expected in [
            "public tcp://1.1.1.1:443",
            "public tcp://[2606:4700:4700::1111]:443",
            "public dns://8.8.8.8:53",
            "public quic://1.1.1.1:443",
            "public icmp://1.1.1.1",
            "dns dns://10.96.0.10:53",
            "dns tcp://10.96.0.10:53",
            "dns dns://[fd00::a]:53",
            "dns dns://[fe80::1%7]:53",
            "metadata tcp://169.254.169.254:80",
            "metadata tcp://169.254.170.2:80",
            "metadata tcp://[fd00:ec2::254]:80",
            "api tcp://10.96.0.1:6443",
        ] {
            assert!(
                ways.iter().any(|it| it == expected),
                "{expected}: {ways:#?}"
            );
        }
        assert!(
            !ways
                .iter()
                .any(|it| it.contains("0.0.0.0") || it.contains("255"))
        );
        assert_eq!(ways.iter().filter(|it| it.starts_with("dns ")).count(), 6);
    }

    #[test]
    fn a_group_is_replaced_and_what_is_added_is_added() {
        let few = ["public=none", "dns=none", "metadata=none"];
        assert_eq!(shown(&few), ["api tcp://10.96.0.1:6443"]);
        let mut more = few.to_vec();
        more.extend([
            "api=tcp://10.0.0.9:1",
            "api=tcp://10.0.0.9:2",
            "tcp://10.0.0.9:3",
        ]);
        assert_eq!(
            shown(&more),
            [
                "api tcp://10.0.0.9:1",
                "api tcp://10.0.0.9:2",
                "added tcp://10.0.0.9:3"
            ]
        );
    }

    #[test]
    fn an_api_server_that_is_no_address_is_not_passed_over() {
        let named = Place {
            api: Some("api.example.org"),
            ..PLACE
        };
        assert!(named.ways(&[]).is_err());
        let none = ["api=none".parse().unwrap()];
        assert!(named.ways(&none).is_ok());
        let outside = Place { api: None, ..PLACE };
        assert!(outside.ways(&[]).is_ok());
    }
}
