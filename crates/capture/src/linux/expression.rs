//! What a rule looks at and does: nftables' expressions (`nf_tables.h`). Each loads into register 1, or judges it.

use super::attribute::Attribute;

const NAME: u16 = 1;
const DATA: u16 = 2;
const LIST_ELEMENT: u16 = 1;
/// Of `struct nft_data`.
const VALUE: u16 = 1;
const VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_REGISTER: u32 = 0;
const REGISTER: u32 = 1;
/// `NF_NAT_RANGE_PROTO_SPECIFIED`.
const PORT_IS_GIVEN: u32 = 2;

/// What of a packet is looked at (`NFT_META_*`).
#[derive(Debug, Clone, Copy)]
pub(super) enum Meta {
    /// The index of the interface that it leaves by; 4 bytes, in the machine's order.
    OutgoingInterface = 5,
    /// The user whose socket it is from; 4 bytes, in the machine's order. A packet of no socket ends the rule.
    SocketUser = 10,
    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`; a byte.
    Family = 15,
    /// The number of the protocol above IP; a byte.
    Protocol = 16,
}

/// What of a packet's connection is looked at (`NFT_CT_*`).
#[derive(Debug, Clone, Copy)]
pub(super) enum Connection {
    /// Bits; 4 bytes, in the machine's order.
    State = 0,
    /// 1 for what goes to the one who began; a byte.
    Direction = 1,
}

/// Where bytes of a packet are counted from (`NFT_PAYLOAD_*`).
#[derive(Debug, Clone, Copy)]
pub(super) enum Base {
    Network = 1,
    Transport = 2,
}

/// How a register is compared (`NFT_CMP_*`).
#[derive(Debug, Clone, Copy)]
pub(super) enum Compare {
    Equal = 0,
    NotEqual = 1,
    AtMost = 3,
    AtLeast = 5,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict {
    Drop = 0,
    Accept = 1,
}

pub(super) fn meta(what: Meta) -> Attribute {
    load("meta", what as u32)
}

pub(super) fn connection(what: Connection) -> Attribute {
    load("ct", what as u32)
}

/// `meta` and `ct` have the same two attributes.
fn load(name: &str, key: u32) -> Attribute {
    const DESTINATION: u16 = 1;
    const KEY: u16 = 2;
    let attributes = vec![
        Attribute::number(DESTINATION, REGISTER),
        Attribute::number(KEY, key),
    ];
    expression(name, attributes)
}

pub(super) fn payload(base: Base, offset: u32, length: u32) -> Attribute {
    let attributes = vec![
        Attribute::number(1, REGISTER),
        Attribute::number(2, base as u32),
        Attribute::number(3, offset),
        Attribute::number(4, length),
    ];
    expression("payload", attributes)
}

/// What kind of address the packet's source is to this machine (`RTN_*`); 4 bytes, in the machine's order.
pub(super) fn kind_of_source() -> Attribute {
    const RESULT_IS_KIND: u32 = 3;
    const LOOK_AT_SOURCE: u32 = 1;
    let attributes = vec![
        Attribute::number(1, REGISTER),
        Attribute::number(2, RESULT_IS_KIND),
        Attribute::number(3, LOOK_AT_SOURCE),
    ];
    expression("fib", attributes)
}

/// Keeps these bits of the register.
pub(super) fn mask(bits: u32) -> Attribute {
    let attributes = vec![
        Attribute::number(1, REGISTER),
        Attribute::number(2, REGISTER),
        Attribute::number(3, 4),
        data(4, &bits.to_ne_bytes()),
        data(5, &[0; 4]),
    ];
    expression("bitwise", attributes)
}

pub(super) fn compare(how: Compare, with: &[u8]) -> Attribute {
    let attributes = vec![
        Attribute::number(1, REGISTER),
        Attribute::number(2, how as u32),
        data(3, with),
    ];
    expression("cmp", attributes)
}

pub(super) fn equals(with: &[u8]) -> Attribute {
    compare(Compare::Equal, with)
}

pub(super) fn verdict(verdict: Verdict) -> Attribute {
    let code = Attribute::number(VERDICT_CODE, verdict as u32);
    let data = Attribute::nested(2, vec![Attribute::nested(VERDICT, vec![code])]);
    expression(
        "immediate",
        vec![Attribute::number(1, VERDICT_REGISTER), data],
    )
}

/// Sends a new connection to this port of the machine itself.
pub(super) fn redirect(port: u16) -> [Attribute; 2] {
    let value = vec![Attribute::number(1, REGISTER), data(2, &port.to_be_bytes())];
    // The kernel tells the lowest port, the highest one and the flags, whatever was written of them.
    let range = vec![
        Attribute::number(1, REGISTER),
        Attribute::number(2, REGISTER),
        Attribute::number(3, PORT_IS_GIVEN),
    ];
    [expression("immediate", value), expression("redir", range)]
}

fn data(kind: u16, bytes: &[u8]) -> Attribute {
    Attribute::nested(kind, vec![Attribute::bytes(VALUE, bytes)])
}

fn expression(name: &str, attributes: Vec<Attribute>) -> Attribute {
    let named = Attribute::text(NAME, name);
    let data = Attribute::nested(DATA, attributes);
    Attribute::nested(LIST_ELEMENT, vec![named, data])
}
