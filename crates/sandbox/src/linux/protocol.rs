//! What the three processes say to each other. Same program at both ends, so there are no versions.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::{Command, Plan, Refusals, UnixSockets, UserNamespaces};

/// From the launcher to the helper, and on to init.
#[derive(Debug)]
pub(super) enum Order {
    /// Make the sandbox. Standard input travels with it.
    Prepare(Plan),
    Start(Command),
    Signal(i32),
}

/// From init to the helper, and on to the launcher.
#[derive(Debug)]
pub(super) enum Report {
    /// Descriptors that travel with this frame; `more` says that another such frame follows.
    Sockets {
        count: u32,
        more: bool,
    },
    Started,
    Stopped(i32),
    Continued,
    Refused(Refusals),
    Exited(i32),
    Signalled(i32),
    Failed(Failure),
}

/// A step that failed, with the kernel's number for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) stage: Stage,
    /// Completes "cannot …"; for [`Stage::Stream`] "input is a …"; for [`Stage::Start`] the program.
    pub(super) step: String,
    pub(super) errno: i32,
}

/// Decides how a failure is explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Making the namespaces, or the first use of the privileges in them.
    Namespace,
    Network,
    Stream,
    Mount,
    Privilege,
    Start,
}

impl Failure {
    pub(super) fn new(stage: Stage, step: impl Into<String>, error: &io::Error) -> Self {
        Self {
            stage,
            step: step.into(),
            errno: error.raw_os_error().unwrap_or(0),
        }
    }
}

impl Order {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        match self {
            Self::Prepare(plan) => {
                out.byte(0).bytes(plan.run_folder.as_os_str());
                out.number(plan.ports.len());
                plan.ports
                    .iter()
                    .for_each(|port| out.raw(&port.to_le_bytes()));
                out.raw(&plan.proxy_port.to_le_bytes());
                out.all(plan.hidden.iter().map(|path| path.as_os_str()));
                out.all(plan.read_only.iter().map(|path| path.as_os_str()));
                out.all(
                    plan.shown
                        .iter()
                        .flat_map(|(path, by)| [path.as_os_str(), by.as_os_str()]),
                );
                out.all(plan.writable.iter().map(|path| path.as_os_str()));
                out.byte(u8::from(plan.unix_sockets == UnixSockets::Allowed));
                out.byte(u8::from(plan.user_namespaces == UserNamespaces::Allowed));
                out.bytes(plan.working_directory.as_os_str());
            }
            Self::Start(command) => {
                out.byte(1).bytes(&command.program);
                out.all(command.args.iter().map(OsString::as_os_str));
                out.all(
                    command
                        .environment
                        .iter()
                        .flat_map(|(name, value)| [name.as_os_str(), value.as_os_str()]),
                );
            }
            Self::Signal(signal) => out.byte(2).raw(&signal.to_le_bytes()),
        }
        out.0
    }

    pub(super) fn decode(frame: &[u8]) -> io::Result<Self> {
        let mut from = Decoder(frame);
        Ok(match from.byte()? {
            0 => Self::Prepare(Plan {
                run_folder: from.bytes()?.into(),
                ports: (0..from.number()?)
                    .map(|_| from.raw().map(u16::from_le_bytes))
                    .collect::<io::Result<_>>()?,
                proxy_port: u16::from_le_bytes(from.raw()?),
                hidden: from.all()?.map(PathBuf::from).collect(),
                read_only: from.all()?.map(PathBuf::from).collect(),
                shown: from.pairs()?,
                writable: from.all()?.map(PathBuf::from).collect(),
                unix_sockets: if from.byte()? == 1 {
                    UnixSockets::Allowed
                } else {
                    UnixSockets::Refused
                },
                user_namespaces: if from.byte()? == 1 {
                    UserNamespaces::Allowed
                } else {
                    UserNamespaces::Refused
                },
                working_directory: from.bytes()?.into(),
            }),
            1 => {
                let (program, args) = (from.bytes()?, from.all()?.collect());
                Self::Start(Command {
                    program,
                    args,
                    environment: from.pairs()?,
                })
            }
            2 => Self::Signal(i32::from_le_bytes(from.raw()?)),
            _ => return Err(malformed()),
        })
    }
}

impl Report {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        match self {
            Self::Sockets { count, more } => {
                out.byte(0).byte(u8::from(*more)).raw(&count.to_le_bytes())
            }
            Self::Started => drop(out.byte(1)),
            Self::Stopped(signal) => out.byte(2).raw(&signal.to_le_bytes()),
            Self::Continued => drop(out.byte(3)),
            Self::Refused(refusals) => {
                out.byte(4).raw(&refusals.tcp_refused.to_le_bytes());
                out.raw(&refusals.udp_unreachable.to_le_bytes());
            }
            Self::Exited(code) => out.byte(5).raw(&code.to_le_bytes()),
            Self::Signalled(signal) => out.byte(6).raw(&signal.to_le_bytes()),
            Self::Failed(failure) => {
                out.byte(7)
                    .byte(failure.stage as u8)
                    .bytes(OsStr::new(&failure.step));
                out.raw(&failure.errno.to_le_bytes());
            }
        }
        out.0
    }

    pub(super) fn decode(frame: &[u8]) -> io::Result<Self> {
        let mut from = Decoder(frame);
        Ok(match from.byte()? {
            0 => Self::Sockets {
                more: from.byte()? == 1,
                count: u32::from_le_bytes(from.raw()?),
            },
            1 => Self::Started,
            2 => Self::Stopped(i32::from_le_bytes(from.raw()?)),
            3 => Self::Continued,
            4 => Self::Refused(Refusals {
                tcp_refused: u64::from_le_bytes(from.raw()?),
                udp_unreachable: u64::from_le_bytes(from.raw()?),
            }),
            5 => Self::Exited(i32::from_le_bytes(from.raw()?)),
            6 => Self::Signalled(i32::from_le_bytes(from.raw()?)),
            7 => Self::Failed(Failure {
                stage: from.stage()?,
                step: from.bytes()?.to_string_lossy().into_owned(),
                errno: i32::from_le_bytes(from.raw()?),
            }),
            _ => return Err(malformed()),
        })
    }
}

#[derive(Default)]
struct Encoder(Vec<u8>);

impl Encoder {
    fn byte(&mut self, byte: u8) -> &mut Self {
        self.0.push(byte);
        self
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn number(&mut self, number: usize) {
        // A count that does not fit makes a frame that the channel refuses.
        self.raw(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn bytes(&mut self, bytes: &OsStr) {
        self.number(bytes.len());
        self.raw(bytes.as_bytes());
    }

    fn all<'a>(&mut self, words: impl Iterator<Item = &'a OsStr> + Clone) {
        self.number(words.clone().count());
        words.for_each(|word| self.bytes(word));
    }
}

struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    fn take(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length).ok_or_else(malformed)?;
        self.0 = rest;
        Ok(head)
    }

    fn raw<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| malformed())
    }

    fn byte(&mut self) -> io::Result<u8> {
        self.raw::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> io::Result<usize> {
        usize::try_from(u32::from_le_bytes(self.raw()?)).map_err(|_| malformed())
    }

    fn bytes(&mut self) -> io::Result<OsString> {
        let length = self.number()?;
        Ok(OsString::from_vec(self.take(length)?.to_vec()))
    }

    fn all(&mut self) -> io::Result<impl Iterator<Item = OsString> + use<>> {
        let words: Vec<_> = (0..self.number()?)
            .map(|_| self.bytes())
            .collect::<io::Result<_>>()?;
        Ok(words.into_iter())
    }

    fn pairs<T: From<OsString>>(&mut self) -> io::Result<Vec<(T, T)>> {
        let mut words = self.all()?.map(T::from);
        Ok(std::iter::from_fn(|| Some((words.next()?, words.next()?))).collect())
    }

    fn stage(&mut self) -> io::Result<Stage> {
        use Stage::{Mount, Namespace, Network, Privilege, Start, Stream};
        let stage = self.byte()?;
        let all = [Namespace, Network, Stream, Mount, Privilege, Start];
        all.into_iter()
            .find(|known| *known as u8 == stage)
            .ok_or_else(malformed)
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a frame is malformed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            run_folder: "/run/x".into(),
            ports: vec![443, 80],
            proxy_port: 8080,
            hidden: vec!["/a".into(), OsString::from_vec(vec![b'/', 0xff]).into()],
            read_only: vec!["/c".into()],
            shown: vec![("/d".into(), "/e".into())],
            writable: vec![],
            unix_sockets: UnixSockets::Allowed,
            user_namespaces: UserNamespaces::Allowed,
            working_directory: "/w".into(),
        }
    }

    #[test]
    fn orders_survive_the_way() {
        let start = Command {
            program: "sh".into(),
            args: vec!["-c".into(), "".into()],
            environment: vec![("A".into(), OsString::from_vec(vec![0xfe, b'=']))],
        };
        for order in [
            Order::Prepare(plan()),
            Order::Start(start),
            Order::Signal(15),
        ] {
            assert_eq!(
                format!("{:?}", Order::decode(&order.encode()).unwrap()),
                format!("{order:?}")
            );
        }
    }

    #[test]
    fn reports_survive_the_way() {
        let failure = Failure {
            stage: Stage::Mount,
            step: "mount /proc".into(),
            errno: 1,
        };
        let refusals = Refusals {
            tcp_refused: 3,
            udp_unreachable: u64::MAX,
        };
        for report in [
            Report::Sockets {
                count: 7,
                more: true,
            },
            Report::Started,
            Report::Stopped(20),
            Report::Continued,
            Report::Refused(refusals),
            Report::Exited(-1),
            Report::Signalled(9),
            Report::Failed(failure),
        ] {
            assert_eq!(
                format!("{:?}", Report::decode(&report.encode()).unwrap()),
                format!("{report:?}")
            );
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_refused() {
        let whole = Order::Prepare(plan()).encode();
        for length in 0..whole.len() {
            assert!(Order::decode(&whole[..length]).is_err(), "{length}");
        }
        assert!(
            Report::decode(&[]).is_err()
                && Report::decode(&[99]).is_err()
                && Report::decode(&[7, 99]).is_err()
        );
    }
}
