//! The kernel's netfilter socket (netlink(7), `nfnetlink.h`, `nf_tables.h`): batches that are taken as a whole, and lists.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
    sockopt::{Timeout, set_socket_timeout},
};

use super::attribute::Attribute;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
/// In an answer: the list changed while it was read.
const INTERRUPTED: u16 = 0x10;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
/// `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u8 = 10;
const UNSPECIFIED: u8 = 0;
/// `NFPROTO_INET`.
const INET: u8 = 1;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct nfgenmsg`, which follows it.
const FAMILY: usize = 4;
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What a message asks for (`NFT_MSG_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    NewTable = 0,
    GetTable = 1,
    DeleteTable = 2,
    NewChain = 3,
    GetChain = 4,
    NewRule = 6,
    GetRule = 7,
}

impl Kind {
    const fn number(self) -> u16 {
        u16::from_be_bytes([NFTABLES, self as u8])
    }

    const fn flags(self) -> u16 {
        match self {
            Self::NewTable | Self::NewChain => CREATE,
            // Without it a rule would be the first of its chain.
            Self::NewRule => CREATE | APPEND,
            Self::DeleteTable => 0,
            Self::GetTable | Self::GetChain | Self::GetRule => DUMP,
        }
    }
}

/// A netfilter socket of the namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Netfilter(OwnedFd);

impl Netfilter {
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::NETFILTER),
        )?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_WITHIN))?;
        Ok(Self(socket))
    }

    /// Has all of these done, or none. Every message asks for an answer: the kernel answers in their order once it has
    /// done or undone them all, so the first failure is seen before the last success.
    pub(super) fn commit(&self, batch: &[(Kind, Vec<Attribute>)]) -> io::Result<()> {
        let subsystem = [UNSPECIFIED, 0, 0, NFTABLES];
        let mut bytes = Vec::new();
        let mut number = 0;
        write(&mut bytes, BATCH_BEGIN, REQUEST, number, subsystem, &[])?;
        for (kind, attributes) in batch {
            number += 1;
            let flags = REQUEST | ACK | kind.flags();
            let family = [INET, 0, 0, 0];
            write(&mut bytes, kind.number(), flags, number, family, attributes)?;
        }
        write(&mut bytes, BATCH_END, REQUEST, number + 1, subsystem, &[])?;
        send(&self.0, &bytes, SendFlags::empty())?;
        loop {
            let answers = self.receive()?;
            for answer in messages(&answers) {
                let answer = answer?;
                if answer.kind == NLMSG_ERROR {
                    answer.outcome()?;
                    if answer.number == number {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The attributes of everything of this kind in the family `inet`.
    pub(super) fn list(&self, kind: Kind) -> io::Result<Vec<Vec<u8>>> {
        let mut bytes = Vec::new();
        let family = [INET, 0, 0, 0];
        write(
            &mut bytes,
            kind.number(),
            REQUEST | kind.flags(),
            0,
            family,
            &[],
        )?;
        send(&self.0, &bytes, SendFlags::empty())?;
        let mut all = Vec::new();
        loop {
            let answers = self.receive()?;
            for answer in messages(&answers) {
                let answer = answer?;
                if answer.flags & INTERRUPTED != 0 {
                    return Err(io::Error::other("they changed meanwhile"));
                }
                match answer.kind {
                    NLMSG_DONE => return Ok(all),
                    NLMSG_ERROR => answer.outcome()?,
                    _ => all.push(answer.body.get(FAMILY..).unwrap_or_default().to_vec()),
                }
            }
        }
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; 1 << 17];
        let (_, length) = recv(&self.0, &mut buffer, RecvFlags::TRUNC)?;
        if length > buffer.len() {
            return Err(io::Error::other("an answer is too long"));
        }
        buffer.truncate(length);
        Ok(buffer)
    }
}

fn write(
    to: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    number: u32,
    family: [u8; FAMILY],
    attributes: &[Attribute],
) -> io::Result<()> {
    let mut body = family.to_vec();
    for attribute in attributes {
        attribute.write(&mut body);
    }
    let length = u32::try_from(HEADER + body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    to.extend(length.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(flags.to_ne_bytes());
    to.extend(number.to_ne_bytes());
    to.extend([0; 4]);
    to.extend(body);
    Ok(())
}

/// What the kernel said.
struct Answer<'a> {
    kind: u16,
    flags: u16,
    number: u32,
    body: &'a [u8],
}

impl Answer<'_> {
    /// An acknowledgement is an error message whose error is 0.
    fn outcome(&self) -> io::Result<()> {
        match self.body.first_chunk().copied().map(i32::from_ne_bytes) {
            Some(0) => Ok(()),
            Some(error) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The messages of one datagram.
fn messages(datagram: &[u8]) -> impl Iterator<Item = io::Result<Answer<'_>>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((answer, length)) = read(rest) else {
            rest = &[];
            return Some(Err(io::ErrorKind::InvalidData.into()));
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(answer))
    })
}

fn read(bytes: &[u8]) -> Option<(Answer<'_>, usize)> {
    let head = bytes.first_chunk::<HEADER>()?;
    let [l0, l1, l2, l3, k0, k1, f0, f1, n0, n1, n2, n3, ..] = *head;
    let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
    let answer = Answer {
        kind: u16::from_ne_bytes([k0, k1]),
        flags: u16::from_ne_bytes([f0, f1]),
        number: u32::from_ne_bytes([n0, n1, n2, n3]),
        body: bytes.get(HEADER..length)?,
    };
    Some((answer, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledgement(error: i32) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, NLMSG_ERROR, 0, 5, error.to_ne_bytes(), &[]).unwrap();
        bytes
    }

    #[test]
    fn only_a_plain_acknowledgement_is_a_success() {
        let outcome = |bytes: &[u8]| {
            let mut outcomes = messages(bytes).map(|answer| answer?.outcome());
            outcomes.next().unwrap()
        };
        assert!(outcome(&acknowledgement(0)).is_ok());
        let refused = outcome(&acknowledgement(-1)).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(1));
        // Cut off, and with a length that leads nowhere.
        assert!(outcome(&acknowledgement(0)[..HEADER]).is_err());
        assert!(outcome(&[0; HEADER]).is_err());
    }

    #[test]
    fn every_message_of_a_datagram_is_read_once() {
        let datagram = [acknowledgement(0), acknowledgement(-2)].concat();
        let numbers: Vec<_> = messages(&datagram)
            .map(|answer| answer.unwrap().number)
            .collect();
        assert_eq!(numbers, [5, 5]);
        assert!(messages(&datagram[..30]).last().unwrap().is_err());
    }
}
