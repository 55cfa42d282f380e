//! The rules, in the order in which the kernel asks them. The text beside each is what `nft list table` says.

use super::{
    attribute::Attribute,
    expression::{
        Base, Compare, Connection, Meta, Verdict, compare, connection, equals, kind_of_source,
        mask, meta, payload, redirect, verdict,
    },
};
use crate::{Capture, TABLE};

pub(super) const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
pub(super) const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
pub(super) const RULE_TABLE: u16 = 1;
pub(super) const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;

/// `NF_INET_LOCAL_OUT`.
const OUTPUT: u32 = 3;
/// `NF_INET_POST_ROUTING`.
const POSTROUTING: u32 = 4;
/// `NF_IP_PRI_NAT_DST`: before what is filtered.
const BEFORE_FILTER: i32 = -100;
/// `lo` is the first interface of every network namespace.
const LOOPBACK: u32 = 1;
/// `RTN_LOCAL`.
const LOCAL: u32 = 2;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;
/// Bits of [`Connection::State`].
const ESTABLISHED: u32 = 2;
const RELATED: u32 = 4;
const REPLY: u8 = 1;

/// The table.
pub(super) struct Table {
    pub(super) chains: Vec<Chain>,
}

/// A chain at a hook of what this machine sends.
pub(super) struct Chain {
    pub(super) name: &'static str,
    kind: &'static str,
    hook: u32,
    priority: i32,
    policy: Verdict,
    pub(super) rules: Vec<Rule>,
}

/// What has to hold of a packet, and what then becomes of it.
pub(super) struct Rule(Vec<Attribute>);

impl Table {
    pub(super) fn of(capture: &Capture) -> Self {
        let user = capture.except_user.get();
        let port = capture.redirect.map(std::num::NonZeroU16::get);
        let filter = Chain {
            name: "output",
            kind: "filter",
            hook: OUTPUT,
            priority: 0,
            policy: Verdict::Drop,
            rules: filter(user, port),
        };
        let redirect = port.map(|port| Chain {
            name: "redirect",
            kind: "nat",
            hook: OUTPUT,
            priority: BEFORE_FILTER,
            policy: Verdict::Accept,
            rules: vec![redirected(user, port)],
        });
        let loopback = port.map(|_| Chain {
            name: "loopback",
            kind: "filter",
            hook: POSTROUTING,
            priority: 0,
            policy: Verdict::Accept,
            rules: loopback_stays().into(),
        });
        Self {
            chains: std::iter::once(filter)
                .chain(redirect)
                .chain(loopback)
                .collect(),
        }
    }

    /// What is said of any table. No flags: one could be dormant.
    pub(super) fn attributes() -> Vec<Attribute> {
        vec![
            Attribute::text(TABLE_NAME, TABLE),
            Attribute::number(TABLE_FLAGS, 0),
        ]
    }
}

impl Chain {
    pub(super) fn attributes(&self) -> Vec<Attribute> {
        let hook = vec![
            Attribute::number(HOOK_NUMBER, self.hook),
            Attribute::bytes(HOOK_PRIORITY, &self.priority.to_be_bytes()),
        ];
        vec![
            Attribute::text(CHAIN_TABLE, TABLE),
            Attribute::text(CHAIN_NAME, self.name),
            Attribute::nested(CHAIN_HOOK, hook),
            Attribute::number(CHAIN_POLICY, self.policy as u32),
            Attribute::text(CHAIN_TYPE, self.kind),
        ]
    }
}

impl Rule {
    pub(super) fn of(parts: impl IntoIterator<Item = Vec<Attribute>>) -> Self {
        Self(parts.into_iter().flatten().collect())
    }

    pub(super) fn attributes(&self, chain: &str) -> Vec<Attribute> {
        vec![
            Attribute::text(RULE_TABLE, TABLE),
            Attribute::text(RULE_CHAIN, chain),
            Attribute::list(RULE_EXPRESSIONS, self.0.clone()),
        ]
    }
}

fn filter(user: u32, port: Option<u16>) -> Vec<Rule> {
    let (accept, drop) = (
        || vec![verdict(Verdict::Accept)],
        || vec![verdict(Verdict::Drop)],
    );
    let mut rules = vec![
        // Any program may bind an IPv6 socket to an address of somebody else's, and send from there to this machine: what
        // answers would answer that address, outside.
        // meta skuid != USER fib saddr type != local drop
        Rule::of([
            is_not(Meta::SocketUser, &user.to_ne_bytes()),
            vec![
                kind_of_source(),
                compare(Compare::NotEqual, &LOCAL.to_ne_bytes()),
            ],
            drop(),
        ]),
        // oif "lo" accept
        Rule::of([
            is(Meta::OutgoingInterface, &LOOPBACK.to_ne_bytes()),
            accept(),
        ]),
    ];
    // A packet that was redirected still has the interface of before: its address tells.
    // ip daddr 127.0.0.1 tcp dport PORT accept; ip6 daddr ::1 tcp dport PORT accept
    rules.extend(port.into_iter().flat_map(|port| {
        [own_address(IPV4), own_address(IPV6)].map(|to| Rule::of([to, tcp_to(port), accept()]))
    }));
    rules.extend([
        // meta skuid USER accept
        Rule::of([is(Meta::SocketUser, &user.to_ne_bytes()), accept()]),
        // An answer to whoever connected from outside, which a network policy allows or does not. TCP alone: a single
        // datagram from outside would open a way out.
        // meta l4proto tcp ct state established ct direction reply accept
        Rule::of([
            is(Meta::Protocol, &[TCP]),
            state(ESTABLISHED),
            vec![connection(Connection::Direction), equals(&[REPLY])],
            accept(),
        ]),
        // Everything else that has a socket. What comes below is the kernel's own: no program can send it.
        // meta skuid != USER drop
        Rule::of([is_not(Meta::SocketUser, &user.to_ne_bytes()), drop()]),
        // The end of connections whose socket is gone, and errors about those that are open.
        // ct state established,related accept
        Rule::of([state(ESTABLISHED | RELATED), accept()]),
        // Who has an address on the link, and who listens to groups: without it there is no IPv6.
        // icmpv6 type 131-136 accept; icmpv6 type 143 accept
        Rule::of([
            icmpv6(&[(Compare::AtLeast, 131), (Compare::AtMost, 136)]),
            accept(),
        ]),
        Rule::of([icmpv6(&[(Compare::Equal, 143)]), accept()]),
    ]);
    rules
}

/// oif != "lo" meta skuid != USER meta l4proto tcp redirect to :PORT
fn redirected(user: u32, port: u16) -> Rule {
    Rule::of([
        is_not(Meta::OutgoingInterface, &LOOPBACK.to_ne_bytes()),
        is_not(Meta::SocketUser, &user.to_ne_bytes()),
        is(Meta::Protocol, &[TCP]),
        redirect(port).into(),
    ])
}

/// A socket that is bound to an interface sends there whatever it was redirected to, and a node that routes loopback
/// addresses would take it for its own.
/// oif != "lo" ip daddr 127.0.0.1 drop; oif != "lo" ip6 daddr ::1 drop
fn loopback_stays() -> [Rule; 2] {
    [IPV4, IPV6].map(|family| {
        Rule::of([
            is_not(Meta::OutgoingInterface, &LOOPBACK.to_ne_bytes()),
            own_address(family),
            vec![verdict(Verdict::Drop)],
        ])
    })
}

fn is(what: Meta, value: &[u8]) -> Vec<Attribute> {
    vec![meta(what), equals(value)]
}

fn is_not(what: Meta, value: &[u8]) -> Vec<Attribute> {
    vec![meta(what), compare(Compare::NotEqual, value)]
}

fn own_address(family: u8) -> Vec<Attribute> {
    let is_to = |offset, address: &[u8], length| {
        vec![payload(Base::Network, offset, length), equals(address)]
    };
    let to = match family {
        IPV4 => is_to(16, &std::net::Ipv4Addr::LOCALHOST.octets(), 4),
        _ => is_to(24, &std::net::Ipv6Addr::LOCALHOST.octets(), 16),
    };
    [is(Meta::Family, &[family]), to].concat()
}

fn tcp_to(port: u16) -> Vec<Attribute> {
    let to = vec![payload(Base::Transport, 2, 2), equals(&port.to_be_bytes())];
    [is(Meta::Protocol, &[TCP]), to].concat()
}

/// One of these states.
fn state(bits: u32) -> Vec<Attribute> {
    vec![
        connection(Connection::State),
        mask(bits),
        compare(Compare::NotEqual, &[0; 4]),
    ]
}

fn icmpv6(kind: &[(Compare, u8)]) -> Vec<Attribute> {
    let is = kind.iter().map(|(how, kind)| compare(*how, &[*kind]));
    let mut parts = [
        is_family_and_protocol(IPV6, ICMPV6),
        vec![payload(Base::Transport, 0, 1)],
    ]
    .concat();
    parts.extend(is);
    parts
}

fn is_family_and_protocol(family: u8, protocol: u8) -> Vec<Attribute> {
    [is(Meta::Family, &[family]), is(Meta::Protocol, &[protocol])].concat()
}
