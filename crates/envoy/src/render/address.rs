//! The deny-set once more, in Envoy: the journey vets the address, and the filter beside the upstream's codec refuses to
//! write a request to one that no exception of the policy opens. Tunnels have no such filter; their address is vetted
//! once, by the journey.

use ipnet::{IpNet, Ipv6Net};
use outgate_journey::{
    address::{AddressExceptions, never_dialled_ranges, special_ranges},
    policy::Rule,
};
use serde_json::{Value, json};

use super::{
    json::{extension, object},
    names::filter,
    rbac::{self, policy},
};

/// Where an IPv6 address carries an IPv4 one that it reaches, and that is worth dialling: IPv4-mapped, NAT64, 6to4.
const EMBEDDING: [([u16; 6], u8); 3] = [
    ([0, 0, 0, 0, 0, 0xffff], 96),
    ([0x64, 0xff9b, 0, 0, 0, 0], 96),
    ([0x2002, 0, 0, 0, 0, 0], 16),
];

/// The filter beside the upstream's codec.
pub(super) fn filter(exceptions: &AddressExceptions) -> Value {
    rbac::denying(filter::ADDRESS, policies(&[exceptions]))
}

/// The same on the route of a rule with exceptions of its own.
pub(super) fn of_rule(deployment: &AddressExceptions, rule: &Rule) -> Option<(String, Value)> {
    let own = &rule.addresses;
    (!own.allow.is_empty() || !own.deny.is_empty()).then(|| {
        let settings = rbac::denying_on_route(policies(&[deployment, own]));
        (filter::ADDRESS.to_owned(), settings)
    })
}

fn policies(exceptions: &[&AddressExceptions]) -> Value {
    let nets = |pick: fn(&AddressExceptions) -> &Vec<IpNet>| -> Vec<IpNet> {
        exceptions
            .iter()
            .flat_map(|it| pick(it))
            .flat_map(|net| with_embeddings(*net))
            .collect()
    };
    let never = never_dialled_ranges().into_iter().flat_map(with_embeddings);
    let never: Vec<_> = never.chain(nets(|it| &it.deny)).map(upstream_in).collect();
    let special: Vec<_> = special_ranges()
        .flat_map(|net| {
            if net.prefix_len() == 8 && net.addr().is_ipv6() {
                vec![net]
            } else {
                with_embeddings(net)
            }
        })
        .map(special)
        .collect();
    let mut is_special = vec![json!({ "or_rules": { "rules": special } })];
    is_special.extend(
        nets(|it| &it.allow)
            .into_iter()
            .map(|net| json!({ "not_rule": upstream_in(net) })),
    );
    object([(
        rbac::ADDRESS.to_owned(),
        policy(json!({ "or_rules": { "rules": [
            { "or_rules": { "rules": never } },
            { "and_rules": { "rules": is_special } },
        ] } })),
    )])
}

/// `::/8` is special but for what it embeds, which is judged by the embedded address.
fn special(net: IpNet) -> Value {
    if !(net.prefix_len() == 8 && net.addr().is_ipv6()) {
        return upstream_in(net);
    }
    let mut rules = vec![upstream_in(net)];
    let embedding = EMBEDDING
        .into_iter()
        .filter_map(|(head, length)| embedding_net(head, length));
    rules.extend(
        embedding
            .filter(|inside| net.contains(inside))
            .map(|inside| json!({ "not_rule": upstream_in(inside) })),
    );
    json!({ "and_rules": { "rules": rules } })
}

fn embedding_net(head: [u16; 6], length: u8) -> Option<IpNet> {
    let [a, b, c, d, e, f] = head;
    let address = std::net::Ipv6Addr::new(a, b, c, d, e, f, 0, 0);
    Ipv6Net::new(address, length).ok().map(IpNet::V6)
}

/// The range, and every range of IPv6 addresses that reach it.
fn with_embeddings(net: IpNet) -> Vec<IpNet> {
    let mut nets = vec![net];
    if let IpNet::V4(v4) = net {
        let bits = u128::from(u32::from(v4.network()));
        nets.extend(EMBEDDING.into_iter().filter_map(|(head, length)| {
            let head = match embedding_net(head, length)? {
                IpNet::V6(head) => u128::from(head.network()),
                IpNet::V4(_) => return None,
            };
            let shifted = bits << (96 - u32::from(length));
            Ipv6Net::new((head | shifted).into(), length + v4.prefix_len())
                .ok()
                .map(IpNet::V6)
        }));
    }
    nets
}

fn upstream_in(net: IpNet) -> Value {
    json!({ "matcher": extension(
        "address",
        "envoy.extensions.rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher",
        json!({ "upstream_ip": { "address_prefix": net.network().to_string(), "prefix_len": net.prefix_len() } }),
    ) })
}
