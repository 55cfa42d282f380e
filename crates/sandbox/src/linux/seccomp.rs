//! System calls that would reach past the namespaces, refused for the command and everything it starts.
//!
//! Not a list of what programs need: namespaces without privileges do the isolation. These are the calls for which
//! the kernel has no namespace, or that reach a service of the host by its path.

use std::collections::BTreeMap;
use std::io;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter, sock_filter,
};

use super::group::Group;
use crate::UnixSockets;

/// Empty: the call is refused whatever its arguments are. Otherwise: if any rule matches.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Not in the C library's headers for every target: the same numbers on all architectures.
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541C;
/// These stay with the terminal when the command is gone: another line discipline, and no further opens.
const TIOCSETD: u32 = 0x5423;
const TIOCEXCL: u32 = 0x540C;
/// Of `O_TMPFILE`, the bit that is its own.
const TEMPORARY: u32 = 0o20_000_000;
/// Calls with a file's mode, and which argument it is. `fchmodat2` has one number on all architectures.
#[cfg(target_arch = "x86_64")]
const MODES: [(i64, u8); 7] = [
    (libc::SYS_chmod, 1),
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (452, 2),
    (libc::SYS_creat, 1),
    (libc::SYS_mknod, 1),
    (libc::SYS_mknodat, 2),
];
#[cfg(not(target_arch = "x86_64"))]
const MODES: [(i64, u8); 4] = [
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (452, 2),
    (libc::SYS_mknodat, 2),
];
/// Calls that open, and which argument their flags are; the mode follows.
#[cfg(target_arch = "x86_64")]
const OPENS: [(i64, u8); 2] = [(libc::SYS_open, 1), (libc::SYS_openat, 2)];
#[cfg(not(target_arch = "x86_64"))]
const OPENS: [(i64, u8); 1] = [(libc::SYS_openat, 2)];
/// Netlink families that programs use to look around: routes, sockets, device events, generic.
const NETLINK: [i32; 4] = [
    libc::NETLINK_ROUTE,
    libc::NETLINK_SOCK_DIAG,
    libc::NETLINK_KOBJECT_UEVENT,
    libc::NETLINK_GENERIC,
];

/// Installs the filters for this process. A later program can add to them, never remove one.
pub(super) fn install(unix_sockets: UnixSockets, group: Group, root: bool) -> io::Result<()> {
    let mut filters = vec![
        filter(set_id_files(root)?, libc::EPERM)?,
        filter(absent(), libc::ENOSYS)?,
        filter(families()?, libc::EAFNOSUPPORT)?,
        filter(forbidden(unix_sockets, group)?, libc::EPERM)?,
    ];
    if cfg!(target_arch = "x86_64") {
        filters.push(x32());
    }
    filters
        .iter()
        .try_for_each(|program| apply_filter(program).map_err(io::Error::other))
}

/// As if the kernel did not have them: programs fall back. io_uring opens sockets around every filter; keyrings are
/// shared by uid and make the host run programs and ask its resolver.
fn absent() -> Rules {
    let calls = [
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_keyctl,
        // Its flags and mode are behind a pointer, where no filter reads; programs fall back to `openat`.
        libc::SYS_openat2,
    ];
    calls.into_iter().map(|call| (call, vec![])).collect()
}

/// Socket families other than IP, netlink and Unix: vsock reaches the hypervisor, Bluetooth the desk.
fn families() -> io::Result<Rules> {
    let known = [
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
        libc::AF_UNIX,
    ];
    let socket = rule(known.map(|family| argument(0, SeccompCmpOp::Ne, family)))?;
    let pair = rule([argument(0, SeccompCmpOp::Ne, libc::AF_UNIX)])?;
    Ok(BTreeMap::from([
        (libc::SYS_socket, vec![socket]),
        (libc::SYS_socketpair, vec![pair]),
    ]))
}

fn forbidden(unix_sockets: UnixSockets, group: Group) -> io::Result<Rules> {
    // Only the low half: the kernel ignores the high half of the request, so a comparison of all would be evaded.
    let typing = [TIOCSTI, TIOCLINUX, TIOCSETD, TIOCEXCL]
        .map(|request| rule([argument(1, SeccompCmpOp::Eq, request)]));
    let netlink = [argument(0, SeccompCmpOp::Eq, libc::AF_NETLINK)]
        .into_iter()
        .chain(NETLINK.map(|protocol| argument(2, SeccompCmpOp::Ne, protocol)));
    let mut sockets = vec![rule(netlink)?];
    let mut rules = BTreeMap::from([
        (
            libc::SYS_ioctl,
            typing.into_iter().collect::<io::Result<_>>()?,
        ),
        // Opens a file by its number, whatever covers its path.
        (libc::SYS_open_by_handle_at, vec![]),
    ]);
    if unix_sockets == UnixSockets::Refused {
        sockets.push(rule([argument(0, SeccompCmpOp::Eq, libc::AF_UNIX)])?);
        rules.insert(libc::SYS_socketpair, unconnected_pairs()?);
    }
    rules.insert(libc::SYS_socket, sockets);
    if group == Group::SharedUnconfined {
        rules.insert(
            libc::SYS_kill,
            vec![rule([argument(0, SeccompCmpOp::Eq, 0)])?],
        );
    }
    Ok(rules)
}

/// Files that run as their owner, whoever starts them: outside, anybody could become the user that the command runs as.
/// For root the group's bit too; other users need it for folders that a group shares.
fn set_id_files(root: bool) -> io::Result<Rules> {
    let bits: &[u32] = if root {
        &[libc::S_ISUID, libc::S_ISGID]
    } else {
        &[libc::S_ISUID]
    };
    let masked = |index, bit: u32| argument(index, SeccompCmpOp::MaskedEq(u64::from(bit)), bit);
    let mut rules = Rules::new();
    for bit in bits {
        for (call, mode) in MODES {
            let refused = rule([masked(mode, *bit)])?;
            rules.entry(call).or_default().push(refused);
        }
        for (call, flags) in OPENS {
            // Without one of these there is no mode, and whatever stands in its place.
            for creates in [libc::O_CREAT.unsigned_abs(), TEMPORARY] {
                let refused = rule([masked(flags, creates), masked(flags + 1, *bit)])?;
                rules.entry(call).or_default().push(refused);
            }
        }
    }
    Ok(rules)
}

/// An end of a *datagram* pair can be connected again, to a path. Streams and sequenced packets cannot. The type is
/// in the low four bits, beside flags; whatever is not one of the two is refused.
fn unconnected_pairs() -> io::Result<Vec<SeccompRule>> {
    let connected = [libc::SOCK_STREAM, libc::SOCK_SEQPACKET];
    let others = (0..=0xf).filter(|kind| !connected.contains(kind));
    others
        .map(|kind| rule([argument(1, SeccompCmpOp::MaskedEq(0xf), kind)]))
        .collect()
}

fn argument(
    index: u8,
    compare: SeccompCmpOp,
    value: impl TryInto<u32>,
) -> seccompiler::Result<SeccompCondition> {
    // Values are small constants; one that did not fit would match nothing that the kernel accepts.
    let value = u64::from(value.try_into().unwrap_or(u32::MAX));
    Ok(SeccompCondition::new(
        index,
        SeccompCmpArgLen::Dword,
        compare,
        value,
    )?)
}

fn rule(
    conditions: impl IntoIterator<Item = seccompiler::Result<SeccompCondition>>,
) -> io::Result<SeccompRule> {
    let conditions = conditions
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(io::Error::other)?;
    SeccompRule::new(conditions).map_err(io::Error::other)
}

/// A program that ends the process on a call of another architecture (32-bit calls have other numbers), refuses what
/// matches and allows the rest.
fn filter(rules: Rules, errno: i32) -> io::Result<BpfProgram> {
    let refuse = SeccompAction::Errno(u32::try_from(errno).unwrap_or(libc::EPERM.unsigned_abs()));
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).map_err(io::Error::other)?;
    filter.try_into().map_err(io::Error::other)
}

/// The x32 variant of x86-64 has the same architecture and other numbers: bit 30 is set. `-1` is a call that a tracer
/// has cancelled.
fn x32() -> BpfProgram {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let does_not_exist = u32::from(SeccompAction::Errno(libc::ENOSYS.unsigned_abs()));
    let allowed = u32::from(SeccompAction::Allow);
    let line = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        // The call's number is the first word of `seccomp_data`.
        line(LOAD_WORD, 0, 0, 0),
        line(JUMP_IF_AT_LEAST, 0, 2, 0x4000_0000),
        line(JUMP_IF_EQUAL, 1, 0, u32::MAX),
        line(RETURN, 0, 0, does_not_exist),
        line(RETURN, 0, 0, allowed),
    ]
}
