//! The three things asked of the kernel's routing socket (rtnetlink(7)): `lo` up, and a `local` route for every
//! address of each family.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const REQUEST: u16 = 0x1 | 0x4;
/// `NLM_F_EXCL | NLM_F_CREATE`.
const CREATE: u16 = 0x200 | 0x400;
const IFF_UP: u32 = 1;
const RT_TABLE_LOCAL: u8 = 255;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_HOST: u8 = 254;
const RTN_LOCAL: u8 = 2;
const RTA_OIF: u16 = 4;
/// `lo` is the first interface of every network namespace.
const LOOPBACK: u32 = 1;
const HEADER: usize = 16;

/// The family of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4 = 2,
    V6 = 10,
}

/// A routing socket of the namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Routing(OwnedFd);

impl Routing {
    pub(super) fn open() -> io::Result<Self> {
        // No protocol is NETLINK_ROUTE.
        Ok(Self(socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?))
    }

    /// `ip link set lo up`.
    pub(super) fn loopback_up(&self) -> io::Result<()> {
        let mut body = vec![0; 4];
        body.extend(LOOPBACK.to_ne_bytes());
        body.extend(IFF_UP.to_ne_bytes());
        body.extend(IFF_UP.to_ne_bytes());
        self.ask(RTM_NEWLINK, REQUEST, &body)
    }

    /// `ip route add local 0.0.0.0/0 dev lo`, or `::/0`: every address is this machine's.
    pub(super) fn every_address_is_local(&self, family: Family) -> io::Result<()> {
        let mut body = vec![
            family as u8,
            0,
            0,
            0,
            RT_TABLE_LOCAL,
            RTPROT_STATIC,
            RT_SCOPE_HOST,
            RTN_LOCAL,
        ];
        body.extend(0_u32.to_ne_bytes());
        body.extend(8_u16.to_ne_bytes());
        body.extend(RTA_OIF.to_ne_bytes());
        body.extend(LOOPBACK.to_ne_bytes());
        self.ask(RTM_NEWROUTE, REQUEST | CREATE, &body)
    }

    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(HEADER + body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        send(&self.0, &message, SendFlags::empty())?;
        let mut answer = [0; 1024];
        let (read, _) = recv(&self.0, &mut answer, RecvFlags::empty())?;
        acknowledged(answer.get(..read).unwrap_or_default())
    }
}

/// An acknowledgement is an error message whose error is 0.
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let kind = answer
        .get(4..6)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u16::from_ne_bytes);
    let error = answer
        .get(HEADER..HEADER + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map(i32::from_ne_bytes);
    match (kind, error) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(error)) => {
            Err(io::Error::from_raw_os_error(error.saturating_neg()))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_acknowledgement_is_a_success() {
        let answer = |kind: u16, error: i32| {
            let mut bytes = vec![0; 4];
            bytes.extend(kind.to_ne_bytes());
            bytes.resize(HEADER, 0);
            bytes.extend(error.to_ne_bytes());
            bytes
        };
        assert!(acknowledged(&answer(NLMSG_ERROR, 0)).is_ok());
        assert_eq!(
            acknowledged(&answer(NLMSG_ERROR, -1))
                .unwrap_err()
                .raw_os_error(),
            Some(1)
        );
        assert!(acknowledged(&answer(3, 0)).is_err());
        assert!(acknowledged(&answer(NLMSG_ERROR, 0)[..HEADER]).is_err());
    }
}
