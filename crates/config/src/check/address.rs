//! Decides where names are looked up and which address ranges are exceptions to the deny-set. An exception that
//! could never have an effect is refused: whoever wrote it believes that something is reachable.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use outgate_journey::{
    address::{AddressExceptions, DenySet, reached_address},
    name::{HostName, HostPattern, NameError, parent_of},
    policy::Rule,
};

use super::{listen::check_sockets, report::Report};
use crate::{
    ResolverConfig,
    file::{AnyOneOrMany, FileAddresses, FileResolver},
    node::KeyPath,
    scalar,
};

pub(super) fn check_resolver(
    resolver: Option<&FileResolver>,
    report: &mut Report<'_>,
) -> ResolverConfig {
    let Some(resolver) = resolver else {
        return ResolverConfig::default();
    };
    let base = KeyPath::of("resolver");
    let servers = resolver.servers.as_ref().map_or_else(Vec::new, |list| {
        let path = base.key("servers");
        let servers = check_sockets(&list.0, &path, "127.0.0.1:53", report);
        for (path, server) in &servers {
            if server.port() == 0 {
                let message = "port 0 cannot be asked".to_owned();
                report.error(
                    "invalid_port",
                    path,
                    message,
                    "write port 53, or the server's own",
                );
            }
        }
        servers.into_iter().map(|(_, server)| server).collect()
    });
    let hosts = check_hosts(resolver, &base.key("hosts"), report);
    let exceptions = check_ranges(
        &base,
        resolver.allow.as_ref(),
        resolver.deny.as_ref(),
        report,
    );
    ResolverConfig {
        servers,
        hosts,
        exceptions,
    }
}

pub(super) fn check_exceptions(
    addresses: Option<&FileAddresses>,
    base: &KeyPath,
    report: &mut Report<'_>,
) -> AddressExceptions {
    addresses.map_or_else(AddressExceptions::default, |addresses| {
        check_ranges(
            base,
            addresses.allow.as_ref(),
            addresses.deny.as_ref(),
            report,
        )
    })
}

fn check_hosts(
    resolver: &FileResolver,
    base: &KeyPath,
    report: &mut Report<'_>,
) -> HashMap<HostName, Vec<IpAddr>> {
    let mut hosts = HashMap::new();
    for (written, list) in &resolver.hosts {
        let path = base.key(written);
        let addresses = check_host_addresses(&list.0, &path, report);
        match HostName::parse_written(written) {
            Ok(name) => {
                if hosts.insert(name.clone(), addresses).is_some() {
                    report.error_at_key(
                        "duplicate_host",
                        &path,
                        format!("another key of `hosts` is `{name}` too"),
                        "keep one of them and list all addresses there",
                    );
                }
            }
            Err(error) => {
                let help = match error {
                    NameError::Address => "write a name as the key and the address as its value",
                    NameError::Malformed => "write one exact name; wildcards have no fixed address",
                };
                let message = "not a host name".to_owned();
                report.error_at_key("invalid_host", &path, message, help);
            }
        }
    }
    hosts
}

fn check_host_addresses(texts: &[String], path: &KeyPath, report: &mut Report<'_>) -> Vec<IpAddr> {
    report.refuse_empty(texts, path);
    let mut addresses = Vec::new();
    for (path, text) in report.places(path, texts) {
        match text.parse::<IpAddr>() {
            Ok(address) if addresses.contains(&address) => report.duplicate(&path, text),
            Ok(address) => addresses.push(address),
            Err(_) => report.error(
                "invalid_address",
                &path,
                "not an IP address".to_owned(),
                "write an address without a port, as in `10.0.0.7`",
            ),
        }
    }
    addresses
}

fn check_ranges(
    base: &KeyPath,
    allow: Option<&AnyOneOrMany<String>>,
    deny: Option<&AnyOneOrMany<String>>,
    report: &mut Report<'_>,
) -> AddressExceptions {
    let read = |list: Option<&AnyOneOrMany<String>>, key: &str, report: &mut Report<'_>| {
        let texts = list.map_or(&[][..], |list| &list.0);
        check_range_list(texts, &base.key(key), report)
    };
    let allow = read(allow, "allow", report);
    let deny = read(deny, "deny", report);
    for (path, net) in &allow {
        if deny.iter().any(|(_, denied)| denied.contains(net)) {
            report.error(
                "contradicting_ranges",
                path,
                format!("{net} is covered by `deny`, which wins"),
                "take it out of one of the two lists",
            );
        } else {
            check_allowed_range(*net, path, report);
        }
    }
    let nets = |list: Vec<(KeyPath, IpNet)>| list.into_iter().map(|(_, net)| net).collect();
    AddressExceptions {
        allow: nets(allow),
        deny: nets(deny),
    }
}

fn check_range_list(
    texts: &[String],
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Vec<(KeyPath, IpNet)> {
    let mut nets: Vec<(KeyPath, IpNet)> = Vec::new();
    for (path, text) in report.places(path, texts) {
        match scalar::range(text) {
            Some(net) if nets.iter().any(|(_, known)| *known == net) => {
                report.duplicate(&path, text);
            }
            Some(net) => nets.push((path, net)),
            None => report.error(
                "invalid_range",
                &path,
                "not an address range".to_owned(),
                "write an address, or a range whose address has no bits beyond its prefix: `10.0.0.0/24`",
            ),
        }
    }
    nets
}

fn check_allowed_range(net: IpNet, path: &KeyPath, report: &mut Report<'_>) {
    let (first, last) = (net.network(), net.broadcast());
    if first.is_ipv6() && reached_address(first).is_ipv4() && reached_address(last).is_ipv4() {
        report.error(
            "range_without_effect",
            path,
            "addresses of this form are judged as the IPv4 addresses inside them".to_owned(),
            "write the IPv4 range",
        );
    } else if is_never_dialled(net) {
        report.error(
            "range_never_dialled",
            path,
            format!("no exception opens {net}"),
            "take it out: cloud metadata, multicast, broadcast and unspecified addresses are never dialled",
        );
    } else if net.prefix_len() == 0 {
        report.warn(
            "range_very_wide",
            path,
            format!("{net} switches the deny-set off, loopback and private addresses included"),
            "list the ranges that are needed",
        );
    }
}

/// Whether even a deny-set with every exception dials nothing in `net`.
fn is_never_dialled(net: IpNet) -> bool {
    if net.prefix_len() == net.max_prefix_len() {
        return !opens(net.addr());
    }
    // Ranges that are closed as a whole begin and end closed; no other closed address is the end of a range.
    net.network().is_multicast() && net.broadcast().is_multicast()
}

fn opens(address: IpAddr) -> bool {
    let everything = AddressExceptions {
        allow: vec![IpNet::from(address), IpNet::from(reached_address(address))],
        deny: Vec::new(),
    };
    DenySet::new(everything, Arc::new([]))
        .judge(SocketAddr::new(address, 443), &AddressExceptions::default())
        .is_ok()
}

/// Warns of fixed addresses that the deny-set will refuse.
pub(super) fn check_fixed_hosts(
    hosts: &HashMap<HostName, Vec<IpAddr>>,
    resolver: Option<&FileResolver>,
    rules: &[Rule],
    deny_set: &DenySet,
    report: &mut Report<'_>,
) {
    let base = KeyPath::of("resolver").key("hosts");
    let mut by_host: HashMap<&HostPattern, Vec<&Rule>> = HashMap::new();
    for rule in rules {
        by_host.entry(&rule.host).or_default().push(rule);
    }
    for (written, list) in resolver.iter().flat_map(|resolver| &resolver.hosts) {
        let path = base.key(written);
        let Ok(name) = HostName::parse_written(written) else {
            continue;
        };
        // Positions and addresses pair up only where every text was an address.
        let addresses = hosts.get(&name).map_or(&[][..], Vec::as_slice);
        if addresses.len() != list.0.len() {
            continue;
        }
        // As in the policy: an exact name before a wildcard, and no falling through.
        let wildcard = parent_of(&name)
            .and_then(|parent| HostName::parse(parent).ok())
            .map(HostPattern::Wildcard);
        let covering = by_host
            .get(&HostPattern::Exact(name))
            .or_else(|| by_host.get(&wildcard?))
            .map_or(&[][..], Vec::as_slice);
        for (path, address) in report.places(&path, addresses) {
            check_fixed_address(*address, covering, deny_set, &path, report);
        }
    }
}

fn check_fixed_address(
    address: IpAddr,
    rules: &[&Rule],
    deny_set: &DenySet,
    path: &KeyPath,
    report: &mut Report<'_>,
) {
    let denied = rules.iter().find_map(|rule| {
        let port = rule.ports.first()?;
        let socket = SocketAddr::new(address, port.get());
        let denial = deny_set.judge(socket, &rule.addresses).err()?;
        Some((rule, denial))
    });
    let Some((rule, denial)) = denied else {
        return;
    };
    let range = reached_address(address);
    let help = if opens(address) {
        format!(
            "add `addresses: {{ allow: [\"{range}\"] }}` to the destination, or `{range}` to `resolver.allow`, \
             and take it out of every `deny`"
        )
    } else {
        "use another address: no exception opens this one".to_owned()
    };
    report.warn(
        "host_will_be_denied",
        path,
        format!(
            "{address} will not be dialled for {} ({})",
            rule.id,
            denial.detail()
        ),
        &help,
    );
}
